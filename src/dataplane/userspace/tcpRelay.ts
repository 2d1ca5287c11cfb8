/**
 * Copies bytes between two connected sockets, both ways, until both ways have ended.
 *
 * The end of one way is passed on as the end of that way alone (half-close); an error or a reset on one side resets
 * the other. A side that does not take its bytes stops the reading of the other (back-pressure). One set of functions
 * serves all connections, so that a connection costs its two sockets and nothing else.
 */
import type { Socket } from 'node:net';

const peerOf = Symbol('peer');

interface Joined extends Socket {
  [peerOf]?: Joined;
}

/** Milliseconds without a byte after which a connection that is half closed is given up. */
export const halfClosedTimeout = 300_000;

/** Both sockets must allow half-open connections, and must not have been read from. */
export function joinSockets(client: Socket, backend: Socket): void {
  const a: Joined = client;
  const b: Joined = backend;
  a[peerOf] = b;
  b[peerOf] = a;
  listen(a);
  listen(b);
  a.resume();
  b.resume();
}

function listen(socket: Joined): void {
  socket.on('data', copy);
  socket.on('drain', goOn);
  socket.on('end', passEnd);
  socket.on('error', reset);
}

function copy(this: Joined, chunk: Buffer): void {
  const peer = this[peerOf] as Joined;
  peer.write(chunk);
  // From the high-water mark on `drain` is certain to come.
  if (peer.writableLength >= peer.writableHighWaterMark) this.pause();
}

function goOn(this: Joined): void {
  const peer = this[peerOf] as Joined;
  if (peer.isPaused()) peer.resume();
}

function passEnd(this: Joined): void {
  const peer = this[peerOf] as Joined;
  peer.end();
  // Whatever still comes passes through the peer, and renews its time.
  if (!peer.readableEnded && !peer.destroyed) peer.setTimeout(halfClosedTimeout, giveUp);
}

function giveUp(this: Joined): void {
  this.resetAndDestroy();
  (this[peerOf] as Joined).resetAndDestroy();
}

function reset(this: Joined): void {
  (this[peerOf] as Joined).resetAndDestroy();
}
