/** One connection of our own: from here, or from inside a Pod's network namespace. */
import { Socket } from 'node:net';
import {
  MSG_DONTWAIT,
  closeDescriptor,
  getSocketOption,
  receive,
  send,
  watchReadable,
  watchWritable,
} from '../../linux/ffi.ts';
import { get32 } from '../../linux/netlink/message.ts';
import { withNetworkNamespace } from '../../linux/netlink/namespace.ts';
import { connect, localAddress, openClient } from '../../linux/clientSocket.ts';
import type { Packet } from '../packet.ts';

/** `sent`: over UDP, and nobody said anything. */
export type ProbeResult = 'connected' | 'answered' | 'sent' | 'refused' | 'silence';

export interface Dialled {
  readonly source: string;
  readonly sourcePort: number;
  readonly result: ProbeResult;
}

export interface ProbeFrom {
  /** Path of a network namespace; undefined: this process's. */
  readonly namespace: string | undefined;
  /** An address of it to dial from; undefined: the kernel chooses. */
  readonly source: string | undefined;
  /** 0: the kernel chooses. */
  readonly sourcePort: number;
}

const SOL_SOCKET = 1;
const SO_ERROR = 4;
const ECONNRESET = 104;
const ECONNREFUSED = 111;
const MSG_PEEK = 2;
const MSG_NOSIGNAL = 0x4000;
/** Milliseconds: for an answer to SYN, also when it is sent a second time; for the end of an orderly good-bye. */
const patience = 1300;
/** Milliseconds that an answer to a datagram may take. */
const datagramPatience = 300;

/** A socket with its port, not connected yet: the port is known before the first packet is sent. */
export class Probe {
  readonly sourcePort: number;
  readonly #fd: number;
  readonly #packet: Packet;
  #open = true;
  #wasReset = false;

  /** Throws SystemCallError, e.g. where the source is not an address of the namespace. */
  constructor(packet: Packet, from: ProbeFrom) {
    this.#packet = packet;
    const to = { ip: packet.destination, port: packet.destinationPort };
    const source = {
      ip: from.source ?? (packet.family === 'IPv6' ? '::' : '0.0.0.0'),
      port: from.sourcePort,
    };
    const open = (): number => openClient(packet.protocol === 'UDP' ? 'udp' : 'tcp', to, source);
    this.#fd = from.namespace === undefined ? open() : withNetworkNamespace(from.namespace, open);
    this.sourcePort = localAddress(this.#fd).port;
  }

  /**
   * Once.
   * @param whileOpen if given, asked to wait before we say good-bye
   */
  async dial(whileOpen?: (dialled: Dialled) => Promise<void>): Promise<Dialled> {
    const { destination, destinationPort, protocol } = this.#packet;
    const errno = connect(this.#fd, { ip: destination, port: destinationPort });
    const source = localAddress(this.#fd).ip;
    let result: ProbeResult;
    if (errno !== 0) result = resultOf(errno);
    else result = protocol === 'UDP' ? await this.#datagram() : await this.#connection();
    const dialled = { source, sourcePort: this.sourcePort, result };
    await whileOpen?.(dialled);
    if (result === 'connected') this.#sayGoodbye();
    this.close();
    return dialled;
  }

  /** The connection was reset. For as long as it is open. */
  isReset(): boolean {
    this.#wasReset ||= receive(this.#fd, new Uint8Array(1), MSG_DONTWAIT | MSG_PEEK) === -ECONNRESET;
    return this.#wasReset;
  }

  /** Idempotent. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeDescriptor(this.#fd);
  }

  #connection(): Promise<ProbeResult> {
    return new Promise((resolve) => {
      const end = (result: ProbeResult): void => {
        clearTimeout(timer);
        stop();
        resolve(result);
      };
      const timer = setTimeout(() => end('silence'), patience);
      const stop = watchWritable(this.#fd, () => {
        const value = new Uint8Array(4);
        getSocketOption(this.#fd, SOL_SOCKET, SO_ERROR, value);
        const errno = get32(value, 0);
        // Taken and given up before we looked.
        this.#wasReset = errno === ECONNRESET;
        end(errno === 0 || errno === ECONNRESET ? 'connected' : resultOf(errno));
      });
    });
  }

  #datagram(): Promise<ProbeResult> {
    const line = Buffer.from('\n');
    const sent = send(this.#fd, line, line.length, MSG_NOSIGNAL);
    if (sent < 0) return Promise.resolve(resultOf(-sent));
    return new Promise((resolve) => {
      const end = (result: ProbeResult): void => {
        clearTimeout(timer);
        stop();
        resolve(result);
      };
      const timer = setTimeout(() => end('sent'), datagramPatience);
      const stop = watchReadable(this.#fd, () => {
        const length = receive(this.#fd, new Uint8Array(64), MSG_DONTWAIT);
        end(length < 0 ? resultOf(-length) : 'answered');
      });
    });
  }

  /** An orderly end: the program on the other side must not take us for a fault. */
  #sayGoodbye(): void {
    this.#open = false;
    const socket = new Socket({ fd: this.#fd });
    socket.on('error', () => socket.destroy());
    socket.resume();
    socket.end();
    setTimeout(() => socket.destroy(), patience).unref();
  }
}

function resultOf(errno: number): ProbeResult {
  return errno === ECONNREFUSED ? 'refused' : 'silence';
}
