/** Sockets that dial, by plain system calls, so that they can be made while the thread visits a network namespace. */
import koffi from 'koffi';
import { bindSocket, closeDescriptor, openSocket, setSocketOption, socketName } from './ffi.ts';
import {
  AF_INET,
  AF_INET6,
  decodeSocketAddress,
  encodeSocketAddress,
  isV6,
  type SocketAddress,
} from './socketAddress.ts';

const libc = koffi.load(null);
const cConnect = libc.func('int connect(int fd, void *address, uint length)');

const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_LINGER = 13;
const IPPROTO_IPV6 = 41;
const IPPROTO_SCTP = 132;
const IPV6_V6ONLY = 26;
const EINPROGRESS = 115;

const on = Buffer.from([1, 0, 0, 0]);

export type Protocol = 'tcp' | 'udp' | 'sctp';

/** Makes a socket of the family of `address`; the caller must be inside the namespace. */
export function makeSocket(protocol: Protocol, ip: string): number {
  const type = (protocol === 'udp' ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK;
  // SCTP's one-to-one sockets behave like TCP's, so that Node takes them for such.
  const number = protocol === 'sctp' ? IPPROTO_SCTP : 0;
  const fd = openSocket(isV6(ip) ? AF_INET6 : AF_INET, type, number);
  if (isV6(ip)) setSocketOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, on);
  return fd;
}

/** An unconnected socket, bound to the source if one is wanted. Throws SystemCallError. */
export function openClient(protocol: Protocol, to: SocketAddress, source: SocketAddress | undefined): number {
  const fd = makeSocket(protocol, to.ip);
  if (source === undefined) return fd;
  try {
    setSocketOption(fd, SOL_SOCKET, SO_REUSEADDR, on);
    if (protocol === 'tcp' && source.port !== 0) {
      // Closed by a reset, so that the next attempt can have the same port.
      setSocketOption(fd, SOL_SOCKET, SO_LINGER, Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]));
    }
    bindSocket(fd, encodeSocketAddress(source));
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

/** connect(2), not waiting; returns 0 (done or under way) or the errno. */
export function connect(fd: number, to: SocketAddress): number {
  const address = encodeSocketAddress(to);
  if ((cConnect(fd, address, address.length) as number) === 0) return 0;
  const errno = koffi.errno();
  return errno === EINPROGRESS ? 0 : errno;
}

/** The address of the near end. */
export function localAddress(fd: number): SocketAddress {
  const bytes = new Uint8Array(28);
  socketName(fd, bytes);
  return decodeSocketAddress(bytes);
}
