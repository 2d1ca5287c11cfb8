/**
 * The few C library calls that Node has no API for, through koffi. Small on purpose: an own N-API addon with the same
 * exports can replace this file. Everything is synchronous; a blocking `receive` must never be given to the thread
 * pool for an unbounded time (four of them stop every file and DNS call of the process).
 */
import { endianness } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import koffi from 'koffi';

if (endianness() !== 'LE') {
  throw new Error(
    'pointsman writes netlink messages for little-endian machines only, and this one is big-endian',
  );
}

/** The process itself: its C library is loaded already, be it glibc or musl. */
const libc = koffi.load(null);

const cSocket = libc.func('int socket(int domain, int type, int protocol)');
const cBind = libc.func('int bind(int fd, void *address, uint length)');
const cGetsockname = libc.func('int getsockname(int fd, void *address, void *length)');
const cSetsockopt = libc.func('int setsockopt(int fd, int level, int option, void *value, uint length)');
const cGetsockopt = libc.func('int getsockopt(int fd, int level, int option, void *value, void *length)');
const cSend = libc.func('long send(int fd, void *bytes, size_t length, int flags)');
const cRecv = libc.func('long recv(int fd, void *bytes, size_t length, int flags)');
const cClose = libc.func('int close(int fd)');
const cFcntl = libc.func('int fcntl(int fd, int command, ...)');
const cSetns = libc.func('int setns(int fd, int type)');

/** Flags of `receive`. */
export const MSG_DONTWAIT = 0x40;
/** Makes `receive` return the real length of a datagram that did not fit. */
export const MSG_TRUNC = 0x20;
/** For `socket`'s type. */
export const SOCK_CLOEXEC = 0o2000000;
export const SOCK_RAW = 3;
/** For `setns`. */
export const CLONE_NEWNET = 0x40000000;

/** Names that libuv's table lacks but netlink answers with. */
const moreErrors: Readonly<Record<number, readonly [string, string]>> = {
  35: ['EDEADLK', 'resource deadlock would occur'],
  61: ['ENODATA', 'no data available'],
  74: ['EBADMSG', 'bad message'],
  85: ['ERESTART', 'interrupted, to be started again'],
  524: ['ENOTSUPP', 'operation is not supported by the kernel'],
};

/** The name and the words for an errno: `[ENOENT, no such file or directory]`. */
export function describeErrno(errno: number): readonly [name: string, words: string] {
  return moreErrors[errno] ?? getSystemErrorMap().get(-errno) ?? [`errno ${errno}`, 'unknown error'];
}

/** A C library call that failed. */
export class SystemCallError extends Error {
  readonly errno: number;
  /** e.g. `EPERM` */
  readonly code: string;
  readonly call: string;

  constructor(call: string, errno: number) {
    const [code, words] = describeErrno(errno);
    super(`${call}: ${code}: ${words}`);
    this.name = 'SystemCallError';
    this.call = call;
    this.errno = errno;
    this.code = code;
  }
}

function check(call: string, result: number): number {
  if (result < 0) throw new SystemCallError(call, koffi.errno());
  return result;
}

/** socket(2); returns the file descriptor. */
export function openSocket(domain: number, type: number, protocol: number): number {
  return check('socket', cSocket(domain, type | SOCK_CLOEXEC, protocol) as number);
}

/** bind(2) to a raw socket address. */
export function bindSocket(fd: number, address: Uint8Array): void {
  check('bind', cBind(fd, address, address.length) as number);
}

/** getsockname(2): fills `address`. */
export function socketName(fd: number, address: Uint8Array): void {
  const length = new Uint8Array(4);
  length[0] = address.length;
  check('getsockname', cGetsockname(fd, address, length) as number);
}

/** setsockopt(2) with raw bytes; returns 0 or the errno (many options may be refused without harm). */
export function setSocketOption(fd: number, level: number, option: number, value: Uint8Array): number {
  return (cSetsockopt(fd, level, option, value, value.length) as number) < 0 ? koffi.errno() : 0;
}

/** Fills `value`; returns 0 or the errno. */
export function getSocketOption(fd: number, level: number, option: number, value: Uint8Array): number {
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, value.length, true);
  return (cGetsockopt(fd, level, option, value, length) as number) < 0 ? koffi.errno() : 0;
}

/** send(2) of the first `length` bytes; returns the number sent, or the negative errno. */
export function send(fd: number, bytes: Uint8Array, length: number, flags: number): number {
  const sent = cSend(fd, bytes, length, flags) as number;
  return sent < 0 ? -koffi.errno() : sent;
}

/** recv(2); returns the number of bytes received, or the negative errno. */
export function receive(fd: number, bytes: Uint8Array, flags: number): number {
  const received = cRecv(fd, bytes, bytes.length, flags) as number;
  return received < 0 ? -koffi.errno() : received;
}

/** Buffers in the hands of the thread pool; koffi itself keeps no reference. */
const lent = new Set<Uint8Array>();

function inThreadPool(
  call: string,
  start: (callback: (error: Error | null, result: number) => void) => void,
  bytes: Uint8Array,
): Promise<number> {
  return new Promise((resolve, reject) => {
    lent.add(bytes);
    start((error, result) => {
      lent.delete(bytes);
      if (error !== null) reject(new Error(`${call} in the thread pool failed`, { cause: error }));
      else resolve(result < 0 ? -koffi.errno() : result);
    });
  });
}

/**
 * `send` on a thread of the pool, for requests whose whole work the kernel does inside the call (a filtered dump of a
 * large table). Resolves to the number sent, or the negative errno.
 */
export function sendInThreadPool(fd: number, bytes: Uint8Array, length: number): Promise<number> {
  return inThreadPool('send', (callback) => cSend.async(fd, bytes, length, 0, callback), bytes);
}

/** `receive` on a thread of the pool; the socket must have a receive time-out. Resolves as `sendInThreadPool`. */
export function receiveInThreadPool(fd: number, bytes: Uint8Array, flags: number): Promise<number> {
  return inThreadPool('recv', (callback) => cRecv.async(fd, bytes, bytes.length, flags, callback), bytes);
}

/** Calls back from the event loop whenever `fd` is readable; returns the function that ends it. Keeps the process alive. */
export function watchReadable(fd: number, callback: () => void): () => void {
  return watch(fd, { readable: true }, callback);
}

/** As `watchReadable`, for room to write; a connection that is under way is writable once it stands or has failed. */
export function watchWritable(fd: number, callback: () => void): () => void {
  return watch(fd, { writable: true }, callback);
}

function watch(
  fd: number,
  events: { readonly readable?: true; readonly writable?: true },
  callback: () => void,
): () => void {
  const handle = koffi.node.poll(fd, events, () => callback());
  let open = true;
  return () => {
    if (!open) return;
    open = false;
    handle.close();
  };
}

/** close(2). */
export function closeDescriptor(fd: number): void {
  check('close', cClose(fd) as number);
}

const F_DUPFD_CLOEXEC = 1030;

/**
 * Lets the kernel make the process's table of descriptors large enough for `count` of them now. It grows to the next
 * power of two whenever it is full, and in a process with threads that waits for all CPUs to pass a quiescent state (RCU):
 * 10 to 100 ms, in which the caller of socket(2) stands still. Returns 0 or the errno.
 */
export function reserveDescriptors(count: number): number {
  const fd = cFcntl(0, F_DUPFD_CLOEXEC, 'int', count - 1) as number;
  if (fd < 0) return koffi.errno();
  closeDescriptor(fd);
  return 0;
}

/** setns(2): moves the calling thread into the namespace that `fd` is open on. */
export function setNamespace(fd: number, type: number): void {
  check('setns', cSetns(fd, type) as number);
}
