/**
 * A netlink socket: requests are answered synchronously (the kernel has queued its answer before send returns),
 * dumps are handed over message by message, events come through the event loop. One socket carries either requests
 * or events, so that neither mistakes the other's messages.
 */
import {
  MSG_DONTWAIT,
  MSG_TRUNC,
  SOCK_RAW,
  SystemCallError,
  bindSocket,
  closeDescriptor,
  openSocket,
  receive,
  receiveInThreadPool,
  send,
  sendInThreadPool,
  setSocketOption,
  socketName,
  watchReadable,
} from '../ffi.ts';
import { EAGAIN, EINTR, ENOBUFS, NetlinkError, readAcknowledgement } from './errors.ts';
import {
  MessageWriter,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_REQUEST,
  forEachMessage,
  get32,
  put32,
  type Message,
} from './message.ts';

const AF_NETLINK = 16;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_RCVTIMEO = 20;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;

export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;
export const NETLINK_GENERIC = 16;

/** How long the kernel may leave a request unanswered before it is an error, in seconds. */
const answerSeconds = 30;
/** The kernel gives a dump in pieces of at most 32 KiB. */
const receiveCapacity = 64 * 1024;
/** kube-proxy gives up on an interrupted dump after as many. */
const dumpAttempts = 5;

export interface NetlinkSocketOptions {
  /** NETLINK_ROUTE, NETLINK_NETFILTER … */
  readonly protocol: number;
  /** Multicast groups as a bit mask (bit n-1 for group n). */
  readonly groups?: number;
  /** Bytes; set past the system's limit where permitted. */
  readonly receiveBuffer?: number;
  readonly sendBuffer?: number;
}

export interface DumpResult {
  /** False if the table changed during every one of five attempts: what was handed over may lack entries. */
  readonly complete: boolean;
}

function optionValue(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  put32(bytes, 0, value);
  return bytes;
}

export class NetlinkSocket {
  readonly fd: number;
  /** The address the kernel gave this socket; messages we caused carry it. */
  readonly portId: number;
  /** Where the next request is put together. */
  readonly writer = new MessageWriter();
  readonly #received = new Uint8Array(receiveCapacity);
  #sequence = 1;
  #messageStart = 0;
  #sendBuffer = 0;
  #stopWatching: (() => void) | undefined;
  #closed = false;

  constructor(options: NetlinkSocketOptions) {
    this.fd = openSocket(AF_NETLINK, SOCK_RAW, options.protocol);
    try {
      const address = new Uint8Array(12);
      address[0] = AF_NETLINK;
      put32(address, 8, options.groups ?? 0);
      bindSocket(this.fd, address);
      socketName(this.fd, address);
      this.portId = get32(address, 4);
      // Both only improve error messages; kernels before 4.12 refuse them.
      setSocketOption(this.fd, SOL_NETLINK, NETLINK_EXT_ACK, optionValue(1));
      setSocketOption(this.fd, SOL_NETLINK, NETLINK_CAP_ACK, optionValue(1));
      const timeout = new Uint8Array(16);
      put32(timeout, 0, answerSeconds);
      setSocketOption(this.fd, SOL_SOCKET, SO_RCVTIMEO, timeout);
      if (options.receiveBuffer !== undefined)
        this.#setBuffer(SO_RCVBUFFORCE, SO_RCVBUF, options.receiveBuffer);
      if (options.sendBuffer !== undefined) this.ensureSendBuffer(options.sendBuffer);
    } catch (error) {
      closeDescriptor(this.fd);
      throw error;
    }
  }

  /** A message may not be larger than the send buffer: makes it large enough for `bytes`. */
  ensureSendBuffer(bytes: number): void {
    // The kernel doubles the value for its own bookkeeping, and counts that in.
    if (bytes + 4096 <= this.#sendBuffer) return;
    this.#sendBuffer = bytes + 4096;
    this.#setBuffer(SO_SNDBUFFORCE, SO_SNDBUF, this.#sendBuffer);
  }

  #setBuffer(force: number, plain: number, bytes: number): void {
    if (setSocketOption(this.fd, SOL_SOCKET, force, optionValue(bytes)) === 0) return;
    // Without CAP_NET_ADMIN in the first user namespace only sizes up to the system's limit are to be had.
    setSocketOption(this.fd, SOL_SOCKET, plain, optionValue(bytes));
  }

  nextSequence(): number {
    this.#sequence = (this.#sequence + 1) >>> 0;
    return this.#sequence;
  }

  /** Starts a request in `writer`; NLM_F_REQUEST is added. Add header and attributes, then `request` or `dump`. */
  begin(type: number, flags = 0): MessageWriter {
    this.writer.reset();
    this.#messageStart = this.writer.beginMessage(type, flags | NLM_F_REQUEST, this.nextSequence());
    return this.writer;
  }

  /**
   * Sends the request begun and reads its answers up to the acknowledgement.
   * @param what names the request in errors
   * @throws NetlinkError if the kernel refuses it
   */
  request(what: string, onMessage?: (message: Message) => void): void {
    this.#finish(NLM_F_ACK);
    this.sendBytes(this.writer.bytes, this.writer.length, what);
    const answer = new Answer(this.#sequence, what, onMessage);
    while (!answer.done) answer.take(this.#received, this.#receive(what));
  }

  /**
   * Sends the request begun as a dump. A dump that the kernel calls interrupted is started again, at most five times
   * in all; `onRestart` is told to forget what it was given.
   */
  dump(what: string, onMessage: (message: Message) => void, onRestart: () => void): DumpResult {
    this.#finish(NLM_F_DUMP);
    for (let attempt = 1; ; attempt++) {
      this.sendBytes(this.writer.bytes, this.writer.length, what);
      const answer = new Answer(this.#sequence, what, onMessage);
      while (!answer.done) answer.take(this.#received, this.#receive(what));
      if (!answer.interrupted) return { complete: true };
      if (attempt === dumpAttempts) return { complete: false };
      onRestart();
      this.#renumber();
    }
  }

  /** As `dump`, with the kernel's work done on a pool thread and the event loop free between pieces of 32 KiB. */
  async dumpInPieces(
    what: string,
    onMessage: (message: Message) => void,
    onRestart: () => void,
  ): Promise<DumpResult> {
    this.#finish(NLM_F_DUMP);
    for (let attempt = 1; ; attempt++) {
      const sent = await sendInThreadPool(this.fd, this.writer.bytes, this.writer.length);
      if (sent < 0) throw new NetlinkError(what, { errno: -sent, text: '', offset: undefined });
      const answer = new Answer(this.#sequence, what, onMessage);
      while (!answer.done) {
        const length = await receiveInThreadPool(this.fd, this.#received, MSG_TRUNC);
        answer.take(this.#received, this.#checkReceived(length, what));
      }
      if (!answer.interrupted) return { complete: true };
      if (attempt === dumpAttempts) return { complete: false };
      onRestart();
      this.#renumber();
    }
  }

  /** Raw bytes, one datagram. */
  sendBytes(bytes: Uint8Array, length: number, what: string): void {
    if (length > 128 * 1024) this.ensureSendBuffer(length);
    let sent: number;
    do sent = send(this.fd, bytes, length, 0);
    while (sent === -EINTR);
    if (sent < 0) throw new NetlinkError(what, { errno: -sent, text: '', offset: undefined });
  }

  /**
   * Gives every message that is already there to `onMessage`, without waiting.
   * @returns false if messages were lost because the receive buffer was full (ENOBUFS)
   */
  drain(what: string, onMessage: (message: Message) => void): boolean {
    let complete = true;
    for (;;) {
      const length = receive(this.fd, this.#received, MSG_DONTWAIT | MSG_TRUNC);
      if (length === -EAGAIN) return complete;
      if (length === -EINTR) continue;
      if (length === -ENOBUFS) {
        complete = false;
        continue;
      }
      forEachMessage(this.#received, this.#checkReceived(length, what), onMessage);
    }
  }

  /**
   * Calls back for every event of the socket's groups, from the event loop. `onLost` tells that events were lost
   * (the receive buffer was full), so that what they would have said has to be read again. Ends with `close`.
   */
  subscribe(onMessage: (message: Message) => void, onLost: (reason: string) => void): void {
    this.#stopWatching = watchReadable(this.fd, () => {
      if (this.#closed) return;
      try {
        if (!this.drain('read netlink events', onMessage)) onLost('the receive buffer was full');
      } catch (error) {
        onLost(error instanceof Error ? error.message : String(error));
      }
    });
  }

  /** Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopWatching?.();
    closeDescriptor(this.fd);
  }

  #finish(flags: number): void {
    const { bytes } = this.writer;
    bytes[this.#messageStart + 6]! |= flags & 0xff;
    bytes[this.#messageStart + 7]! |= flags >>> 8;
    this.writer.endMessage(this.#messageStart);
  }

  #renumber(): void {
    put32(this.writer.bytes, this.#messageStart + 8, this.nextSequence());
  }

  #receive(what: string): number {
    for (;;) {
      const length = receive(this.fd, this.#received, MSG_TRUNC);
      if (length !== -EINTR) return this.#checkReceived(length, what);
    }
  }

  #checkReceived(length: number, what: string): number {
    if (length === -EAGAIN) {
      throw new Error(`${what}: the kernel has not answered for ${answerSeconds} s`);
    }
    if (length < 0) throw new SystemCallError(`${what}: recv`, -length);
    if (length > this.#received.length) {
      throw new Error(
        `${what}: a netlink datagram of ${length} bytes does not fit into ${this.#received.length}`,
      );
    }
    return length;
  }
}

/** The messages that answer one request, until its last. */
class Answer {
  done = false;
  interrupted = false;
  readonly #sequence: number;
  readonly #what: string;
  readonly #onMessage: ((message: Message) => void) | undefined;

  constructor(sequence: number, what: string, onMessage: ((message: Message) => void) | undefined) {
    this.#sequence = sequence;
    this.#what = what;
    this.#onMessage = onMessage;
  }

  take(bytes: Uint8Array, length: number): void {
    forEachMessage(bytes, length, (message) => this.#message(message));
  }

  #message(message: Message): void {
    // Left over from an earlier request that ended with an error of ours.
    if (message.sequence !== this.#sequence) return;
    if ((message.flags & NLM_F_DUMP_INTR) !== 0) this.interrupted = true;
    if (message.type !== NLMSG_ERROR && message.type !== NLMSG_DONE) {
      this.#onMessage?.(message);
      return;
    }
    this.done = true;
    const acknowledgement = readAcknowledgement(message);
    if (acknowledgement.errno === EINTR) this.interrupted = true;
    else if (acknowledgement.errno !== 0) throw new NetlinkError(this.#what, acknowledgement);
  }
}
