/** TCP sockets by plain system calls, none of which waits. For programs in the middle that hold very many of them. */
import koffi from 'koffi';
import { addressBytes, formatAddress, writeIPv4 } from './address-bytes.ts';
import { AF_INET, AF_INET6, isV6 } from './socketAddress.ts';
import {
  SOCK_CLOEXEC,
  SystemCallError,
  bindSocket,
  closeDescriptor,
  openSocket,
  setSocketOption,
  socketName,
} from './ffi.ts';

const libc = koffi.load(null);
const cListen = libc.func('int listen(int fd, int backlog)');
const cAccept = libc.func('int accept4(int fd, void *address, void *length, int flags)');
const cConnect = libc.func('int connect(int fd, void *address, uint length)');
const cGetpeername = libc.func('int getpeername(int fd, void *address, void *length)');
const cShutdown = libc.func('int shutdown(int fd, int how)');

const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_KEEPALIVE = 9;
const SO_LINGER = 13;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const TCP_KEEPIDLE = 4;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
const SHUT_WR = 1;

export const EAGAIN = 11;
export const EINTR = 4;
export const EINPROGRESS = 115;
/** ENFILE, EMFILE, ENOMEM, ENOBUFS, and ENOSPC of epoll: this process or the machine has no more sockets to give. */
export const shortages: ReadonlySet<number> = new Set([23, 24, 12, 105, 28]);
/** A flag of `send`: no signal where the other side is gone. */
export const MSG_NOSIGNAL = 0x4000;

const on = word(1);
/** Seconds of silence after which the kernel asks whether the other side is still there. */
const keepIdle = word(60);
/** Closing throws away what has not been sent, and sends RST. */
const lingerNever = Buffer.alloc(8);
lingerNever.writeUInt32LE(1, 0);

/** struct sockaddr_in and sockaddr_in6; reused by every call. */
const address4 = Buffer.alloc(16);
const address6 = Buffer.alloc(28);
const addressLength = Buffer.alloc(4);

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value, 0);
  return bytes;
}

function socketAddress(ip: string, port: number): Buffer {
  const bytes = isV6(ip) ? address6 : address4;
  bytes.writeUInt16LE(bytes === address6 ? AF_INET6 : AF_INET, 0);
  bytes.writeUInt16BE(port, 2);
  if (bytes === address6) bytes.set(addressBytes(ip), 8);
  else if (!writeIPv4(ip, bytes, 4)) throw new RangeError(`"${ip}" is not an IP address`);
  return bytes;
}

function makeSocket(ip: string): number {
  return openSocket(isV6(ip) ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
}

function tune(fd: number): void {
  setSocketOption(fd, IPPROTO_TCP, TCP_NODELAY, on);
  setSocketOption(fd, SOL_SOCKET, SO_KEEPALIVE, on);
  setSocketOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, keepIdle);
}

/**
 * A listening socket; what it accepts has TCP_NODELAY and keep-alive, as accepted sockets inherit them.
 * @param port 0 = the kernel chooses
 * @throws SystemCallError, e.g. EADDRINUSE
 */
export function listenTcp(ip: string, port: number, backlog: number): number {
  const fd = makeSocket(ip);
  try {
    setSocketOption(fd, SOL_SOCKET, SO_REUSEADDR, on);
    if (isV6(ip)) setSocketOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, on);
    tune(fd);
    bindSocket(fd, socketAddress(ip, port));
    if ((cListen(fd, backlog) as number) < 0) throw new SystemCallError('listen', koffi.errno());
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

/** accept4(2): a descriptor, or the negative errno. */
export function acceptTcp(fd: number): number {
  const accepted = cAccept(fd, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC) as number;
  return accepted < 0 ? -koffi.errno() : accepted;
}

/**
 * Begins to connect: a descriptor that becomes writable when that is done, with an error where it has failed.
 * @throws SystemCallError
 */
export function connectTcp(ip: string, port: number): number {
  const bytes = socketAddress(ip, port);
  const fd = makeSocket(ip);
  tune(fd);
  if ((cConnect(fd, bytes, bytes.length) as number) < 0) {
    const errno = koffi.errno();
    if (errno !== EINPROGRESS) {
      closeDescriptor(fd);
      throw new SystemCallError('connect', errno);
    }
  }
  return fd;
}

/** The address of the far end; empty where there is none any more. */
export function peerAddress(fd: number): string {
  addressLength.writeUInt32LE(address6.length, 0);
  if ((cGetpeername(fd, address6, addressLength) as number) < 0) return '';
  return address6.readUInt16LE(0) === AF_INET6
    ? formatAddress(address6, 8, 24)
    : formatAddress(address6, 4, 8);
}

/** The port of the near end. */
export function localPort(fd: number): number {
  socketName(fd, address6);
  return address6.readUInt16BE(2);
}

/** Ends the way out; what comes in still does. */
export function endSending(fd: number): void {
  // Fails only where the connection is gone already.
  cShutdown(fd, SHUT_WR);
}

/** Closes at once: the other side sees a reset. */
export function resetTcp(fd: number): void {
  setSocketOption(fd, SOL_SOCKET, SO_LINGER, lingerNever);
  closeDescriptor(fd);
}
