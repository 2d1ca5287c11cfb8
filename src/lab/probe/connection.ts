/**
 * One connection of a probe: a TCP or SCTP connection or a UDP socket inside a namespace, from its first packet to the
 * server's greeting, and kept open after that if wanted.
 */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { Socket as TcpSocket } from 'node:net';
import { closeDescriptor, describeErrno, send, SystemCallError } from '../../linux/ffi.ts';
import { isV6, parseSocketAddress, type SocketAddress } from '../net/address.ts';
import type { Namespaces } from '../net/namespaces.ts';
import { connect, localAddress, openClient, type Protocol } from '../net/sockets.ts';
import type { IcmpEar } from './icmpEar.ts';

const MSG_NOSIGNAL = 0x4000;
const protocolNumbers: Readonly<Record<Protocol, number>> = { tcp: 6, udp: 17, sctp: 132 };

export type Outcome = 'ok' | 'refused' | 'unreachable' | 'timeout' | 'reset' | 'closed';

/** What a server said about a connection. */
export interface Greeting {
  readonly pod: string;
  /** The port the Pod was reached at. */
  readonly port: number;
  /** Whom the Pod saw as its peer. */
  readonly peer: string;
}

export interface Attempt {
  readonly outcome: Outcome;
  /** ICMP codes heard, or `rst`. */
  readonly by: readonly string[];
  readonly greeting: Greeting | undefined;
  /** The near end's address. */
  readonly local: string;
}

export interface Target {
  readonly namespaces: Namespaces;
  readonly namespace: string;
  readonly protocol: Protocol;
  readonly to: SocketAddress;
  /** Address and port of the near end; port 0 = any. */
  readonly source: SocketAddress | undefined;
  readonly ear: IcmpEar | undefined;
}

/** Reads `POD CLIENT SERVER`; undefined if the line is something else. */
export function parseGreeting(line: string): Greeting | undefined {
  const [pod = '', client = '', server = ''] = line.trim().split(' ');
  try {
    return { pod, port: parseSocketAddress(server).port, peer: parseSocketAddress(client).ip };
  } catch {
    return undefined; // Not a Pod of the lab: the caller says so.
  }
}

/** `POD:PORT`, as records name backends. */
export function backendName(greeting: Greeting): string {
  return `${greeting.pod}:${greeting.port}`;
}

/** What an errno of connect, send or receive says about an attempt; undefined if it says nothing final. */
export function outcomeOfError(code: string): Outcome | undefined {
  switch (code) {
    case 'ECONNREFUSED':
      return 'refused';
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
    case 'ENOPROTOOPT':
    case 'EACCES':
    case 'ENONET':
      return 'unreachable';
    case 'ECONNRESET':
    case 'EPIPE':
      return 'reset';
    default:
      return undefined; // EPERM: a rule dropped the packet on its way out, as silently as further on.
  }
}

/** ms */
const patienceStep = 50;

/**
 * Calls once `patience` ms are over, of which this process has had every step: client and Pods live in it, and while the
 * machine does not let it run, none of them can speak. End it with clearInterval.
 */
function whenOver(patience: number, over: () => void): NodeJS.Timeout {
  const step = Math.min(patienceStep, patience);
  let steps = Math.ceil(patience / step);
  const timer = setInterval(() => {
    if (--steps > 0) return;
    clearInterval(timer);
    over();
  }, step);
  return timer;
}

type Settle = (outcome: Outcome, greeting?: Greeting) => void;

/** A connection that may be talked over again. */
export class Connection {
  readonly target: Target;
  private readonly tcp: TcpSocket | undefined;
  private readonly udp: UdpSocket | undefined;
  private readonly fd: number;
  private readonly by = new Set<string>();
  private readonly stopListening: (() => void) | undefined;
  private readonly nearEnd: SocketAddress;
  private settle: Settle | undefined;
  private pending = '';
  private failure: Outcome | undefined;
  /** UDP: answers to older datagrams do not count. */
  private sequence = 0;
  private awaited = 0;
  private resend: NodeJS.Timeout | undefined;
  private stream: NodeJS.Timeout | undefined;

  constructor(target: Target) {
    this.target = target;
    const { namespaces, namespace, protocol, to, source } = target;
    let errno = 0;
    this.fd = namespaces.enter(namespace, () => {
      const fd = openClient(protocol, to, source);
      if (protocol !== 'udp') errno = connect(fd, to);
      return fd;
    });
    if (protocol === 'udp') {
      // Given to Node before it is connected: Node would not send over a socket it did not connect itself.
      this.udp = createSocket(isV6(to.ip) ? 'udp6' : 'udp4');
      this.udp.bind({ fd: this.fd });
      this.udp.on('message', (bytes) => this.heardDatagram(bytes.toString()));
      this.udp.on('error', (error: NodeJS.ErrnoException) => this.heardError(error.code ?? ''));
      errno = connect(this.fd, to);
      this.nearEnd = localAddress(this.fd);
    } else {
      this.nearEnd = localAddress(this.fd);
      if (errno === 0) {
        this.tcp = new TcpSocket({ fd: this.fd });
        this.tcp.setNoDelay(true);
        this.tcp.on('data', (bytes) => this.heardBytes(bytes.toString()));
        this.tcp.on('error', (error: NodeJS.ErrnoException) => this.heardError(error.code ?? ''));
        this.tcp.on('end', () => this.fail('closed'));
      } else closeDescriptor(this.fd);
    }
    this.stopListening = target.ear?.listen(protocolNumbers[protocol], this.nearEnd.port, (code) => {
      this.by.add(code);
      this.fail(code === 'icmp-port' ? 'refused' : 'unreachable');
    });
    if (errno !== 0) {
      const outcome = outcomeOfError(describeErrno(errno)[0]);
      if (outcome !== undefined) this.failure = outcome;
    }
  }

  get local(): string {
    return this.nearEnd.ip;
  }

  private heardBytes(text: string): void {
    const lines = (this.pending + text).split('\n');
    this.pending = lines.pop() ?? '';
    for (const line of lines) this.greeted(line);
  }

  private heardDatagram(text: string): void {
    const sequence = Number(text.trim().split(' ').at(-1));
    if (sequence > this.awaited) this.greeted(text);
  }

  private greeted(line: string): void {
    const greeting = parseGreeting(line);
    if (greeting !== undefined) this.settle?.('ok', greeting);
  }

  private heardError(code: string): void {
    const outcome = outcomeOfError(code);
    if (outcome !== undefined) this.fail(outcome);
  }

  private fail(outcome: Outcome): void {
    if (this.udp === undefined) this.failure ??= outcome;
    this.settle?.(outcome);
  }

  private sendDatagram(): void {
    const bytes = Buffer.from(`${++this.sequence}`);
    const sent = send(this.fd, bytes, bytes.length, MSG_NOSIGNAL);
    if (sent >= 0) return;
    this.heardError(describeErrno(-sent)[0]);
  }

  /** Waits for `patience` ms for the server's greeting. */
  first(patience: number): Promise<Attempt> {
    return new Promise((resolve) => {
      const timer = whenOver(patience, () => settle('timeout'));
      const settle: Settle = (outcome, greeting) => {
        this.settle = undefined;
        clearInterval(timer);
        const done = (): void => {
          const refusedByReset = outcome === 'refused' && this.by.size === 0;
          const by = refusedByReset && this.target.protocol === 'tcp' ? ['rst'] : [...this.by];
          const told = outcome === 'refused' || outcome === 'unreachable';
          resolve({ outcome, by: told ? by : [], greeting, local: this.local });
        };
        // The error code can overtake the ICMP message that caused it.
        if (outcome === 'refused' && this.by.size === 0) setTimeout(done, 2);
        else done();
      };
      this.settle = settle;
      if (this.failure !== undefined) settle(this.failure);
      else if (this.udp !== undefined) this.sendDatagram();
    });
  }

  /** Talks once more: TCP a line, UDP a datagram every 0.2 s; waits up to `patience` ms for the answer. */
  again(patience: number): Promise<Pick<Attempt, 'outcome' | 'greeting'>> {
    return new Promise((resolve) => {
      let refused = false;
      const finish = (outcome: Outcome, greeting?: Greeting): void => {
        this.settle = undefined;
        clearInterval(timer);
        clearInterval(this.resend);
        resolve({ outcome, greeting });
      };
      const timer = whenOver(patience, () => finish(refused ? 'refused' : 'timeout'));
      if (this.failure !== undefined) {
        finish(this.failure);
        return;
      }
      this.settle = (outcome, greeting) => {
        // A refusal over UDP is not the end of the socket: later datagrams may be answered.
        if (this.udp !== undefined && outcome !== 'ok') refused = true;
        else finish(outcome, greeting);
      };
      if (this.udp === undefined) {
        this.tcp?.write('\n');
        return;
      }
      this.awaited = this.sequence;
      this.sendDatagram();
      this.resend = setInterval(() => this.sendDatagram(), Math.max(20, patience / 5));
    });
  }

  /** UDP: sends a datagram every so many ms until closed. */
  startStream(interval: number): void {
    if (this.udp !== undefined) this.stream = setInterval(() => this.sendDatagram(), interval);
  }

  close(): void {
    this.settle = undefined;
    clearInterval(this.resend);
    clearInterval(this.stream);
    this.stopListening?.();
    this.tcp?.destroy();
    this.udp?.close();
  }
}

/** Opens a connection; a source that cannot be had is an error of the scenario and thrown with its address. */
export function openConnection(target: Target): Connection {
  try {
    return new Connection(target);
  } catch (error) {
    if (error instanceof SystemCallError && target.source !== undefined) {
      throw new Error(`${target.namespace} cannot send from ${target.source.ip} port ${target.source.port}`, {
        cause: error,
      });
    }
    throw error;
  }
}
