/**
 * Copies bytes between two connected sockets, both ways, until both ways have ended.
 *
 * The end of one way is passed on as the end of that way alone (half-close); an error or a reset on one side resets
 * the other. A side that does not take its bytes stops the reading of the other (back-pressure). All bytes go through
 * one buffer: what the other side takes at once, which is nearly everything, is never stored.
 */
import {
  EPOLLERR,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  changeWatch,
  forgetDescriptor,
  unwatchDescriptor,
  watchDescriptor,
  type Watcher,
} from '../../linux/epoll.ts';
import { closeDescriptor, receive, send } from '../../linux/ffi.ts';
import { EAGAIN, EINTR, MSG_NOSIGNAL, endSending, resetTcp } from '../../linux/tcp.ts';

/** Milliseconds without a byte after which a connection that is half closed is given up. */
export const halfClosedTimeout = 300_000;
/** Milliseconds between two looks for those. */
const lookInterval = 10_000;

const buffer = Buffer.allocUnsafeSlow(64 * 1024);

/** One of the two sockets. */
export class Side implements Watcher {
  readonly fd: number;
  #relay: Relay | undefined;
  #peer: Side | undefined;
  /** Events that it is watched for; undefined = it is not watched. */
  #watched: number | undefined;
  /** What the other side has sent and this one has not taken yet. */
  #unsent: Buffer | undefined;
  /** Nothing more will come from here. */
  ended = false;
  /** Nothing more will be sent there. */
  #closing = false;
  readonly #lost: (() => void) | undefined;

  /** @param lost if given, told of a reset before there is a relay */
  constructor(fd: number, lost?: () => void) {
    this.fd = fd;
    this.#lost = lost;
    if (lost !== undefined) this.#watch(0);
  }

  join(relay: Relay, peer: Side): void {
    this.#relay = relay;
    this.#peer = peer;
    this.#watch(EPOLLIN);
  }

  ready(events: number): void {
    const relay = this.#relay;
    if (relay === undefined) {
      this.#lost?.();
      return;
    }
    if ((events & EPOLLERR) !== 0) {
      relay.reset();
      return;
    }
    if ((events & EPOLLOUT) !== 0) this.#flush(relay);
    if ((events & (EPOLLIN | EPOLLHUP)) !== 0 && relay.open) this.#read(relay);
  }

  /** The descriptor is closed; with RST if `hard`. */
  close(hard: boolean): void {
    this.#unsent = undefined;
    if (this.#watched !== undefined) forgetDescriptor(this.fd);
    this.#watched = undefined;
    if (hard) resetTcp(this.fd);
    else closeDescriptor(this.fd);
  }

  #read(relay: Relay): void {
    const peer = this.#peer as Side;
    const length = receive(this.fd, buffer, 0);
    if (length > 0) {
      relay.used();
      if (!peer.#send(relay, length)) this.#watchWanted();
    } else if (length === 0) {
      this.ended = true;
      this.#watchWanted();
      if (peer.#unsent === undefined) peer.#endSending();
      relay.halfEnded();
    } else if (length !== -EAGAIN && length !== -EINTR) relay.reset();
  }

  /** Sends what is in the buffer; false if some of it has to wait. */
  #send(relay: Relay, length: number): boolean {
    let sent = send(this.fd, buffer, length, MSG_NOSIGNAL);
    if (sent === length) return true;
    if (sent < 0) {
      if (sent !== -EAGAIN && sent !== -EINTR) {
        relay.reset();
        return true;
      }
      sent = 0;
    }
    this.#unsent = Buffer.from(buffer.subarray(sent, length));
    this.#watchWanted();
    return false;
  }

  #flush(relay: Relay): void {
    const unsent = this.#unsent;
    if (unsent === undefined) return;
    const sent = send(this.fd, unsent, unsent.length, MSG_NOSIGNAL);
    if (sent < 0) {
      if (sent !== -EAGAIN && sent !== -EINTR) relay.reset();
      return;
    }
    relay.used();
    if (sent < unsent.length) {
      this.#unsent = unsent.subarray(sent);
      return;
    }
    this.#unsent = undefined;
    const peer = this.#peer as Side;
    if (peer.ended) this.#endSending();
    this.#watchWanted();
    peer.#watchWanted();
    relay.halfEnded();
  }

  #endSending(): void {
    if (this.#closing) return;
    this.#closing = true;
    endSending(this.fd);
    this.#watchWanted();
  }

  get done(): boolean {
    return this.ended && this.#closing;
  }

  /** Reads while the other side takes what comes; writes while something waits. */
  #watchWanted(): void {
    const reads = !this.ended && (this.#peer as Side).#unsent === undefined;
    this.#watch((reads ? EPOLLIN : 0) | (this.#unsent === undefined ? 0 : EPOLLOUT));
  }

  #watch(events: number): void {
    // A socket that is closed both ways would be "ready" all the time.
    const wanted = events === 0 && this.#closing ? undefined : events;
    if (wanted === this.#watched) return;
    if (wanted === undefined) unwatchDescriptor(this.fd);
    else if (this.#watched === undefined) watchDescriptor(this.fd, wanted, this);
    else changeWatch(this.fd, wanted);
    this.#watched = wanted;
  }
}

/** Those of which one way has ended, until the other has. */
const halfClosed = new Set<Relay>();
let looking: NodeJS.Timeout | undefined;

/** Two sides that are joined. */
export class Relay {
  readonly #client: Side;
  readonly #backend: Side;
  readonly #closed: () => void;
  /** Of a connection that is half closed: when something was last copied. */
  #lastUse = 0;
  open = true;

  /** @param closed told once, when both descriptors are closed */
  constructor(client: Side, backend: Side, closed: () => void) {
    this.#client = client;
    this.#backend = backend;
    this.#closed = closed;
    client.join(this, backend);
    backend.join(this, client);
  }

  /** Ends both, at once. */
  reset(): void {
    this.#close(true);
  }

  used(): void {
    if (this.#lastUse > 0) this.#lastUse = performance.now();
  }

  /** One way more has ended, or what waited to be sent there is sent. */
  halfEnded(): void {
    if (!this.open) return;
    if (this.#client.done && this.#backend.done) this.#close(false);
    else if ((this.#client.ended || this.#backend.ended) && this.#lastUse === 0) {
      this.#lastUse = performance.now();
      halfClosed.add(this);
      looking ??= setInterval(giveUpIdle, lookInterval).unref();
    }
  }

  get lastUse(): number {
    return this.#lastUse;
  }

  #close(hard: boolean): void {
    if (!this.open) return;
    this.open = false;
    halfClosed.delete(this);
    this.#client.close(hard);
    this.#backend.close(hard);
    this.#closed();
  }
}

function giveUpIdle(): void {
  const now = performance.now();
  for (const relay of halfClosed) if (now - relay.lastUse >= halfClosedTimeout) relay.reset();
  if (halfClosed.size > 0) return;
  clearInterval(looking);
  looking = undefined;
}
