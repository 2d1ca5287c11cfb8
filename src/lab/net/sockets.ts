/**
 * Sockets inside a network namespace. A socket stays in the namespace it was made in, so it is made with plain
 * system calls while the thread visits the namespace (synchronously: no other code can run meanwhile), and then given
 * to Node. That way one process serves all Pods of a lab and makes all probes, without a helper per namespace.
 */
import koffi from 'koffi';
import { bindSocket, closeDescriptor, setSocketOption, SystemCallError } from '../../linux/ffi.ts';
import {
  bytesToIp,
  decodeSocketAddress,
  encodeSocketAddress,
  ipToBytes,
  isV6,
  type SocketAddress,
} from './address.ts';
import { makeSocket, type Protocol } from '../../linux/clientSocket.ts';

export { connect, localAddress, openClient, type Protocol } from '../../linux/clientSocket.ts';

const libc = koffi.load(null);
const cListen = libc.func('int listen(int fd, int backlog)');
const cRecvmsg = libc.func('long recvmsg(int fd, void *message, int flags)');
const cSendmsg = libc.func('long sendmsg(int fd, void *message, int flags)');

const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const IPPROTO_IP = 0;
const IP_PKTINFO = 8;
const IPPROTO_IPV6 = 41;
const IPV6_RECVPKTINFO = 49;
const IPV6_PKTINFO = 50;
const IPV6_FREEBIND = 78;
const MSG_DONTWAIT = 0x40;

const on = Buffer.from([1, 0, 0, 0]);

/** A socket bound to `address`; TCP and SCTP sockets listen. Throws SystemCallError. */
export function listenOn(protocol: Protocol, address: SocketAddress): number {
  const fd = makeSocket(protocol, address.ip);
  try {
    if (protocol !== 'udp') setSocketOption(fd, SOL_SOCKET, SO_REUSEADDR, on);
    else if (isV6(address.ip)) {
      setSocketOption(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, on);
      // A Pod's further blocks are local routes, not addresses; answering from them needs this.
      setSocketOption(fd, IPPROTO_IPV6, IPV6_FREEBIND, on);
    } else setSocketOption(fd, IPPROTO_IP, IP_PKTINFO, on);
    bindSocket(fd, encodeSocketAddress(address));
    if (protocol !== 'udp' && (cListen(fd, 1024) as number) < 0) {
      throw new SystemCallError('listen', koffi.errno());
    }
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

export interface Datagram {
  readonly peer: SocketAddress;
  /** The address the datagram was sent to. */
  readonly local: string;
  readonly payload: Buffer;
}

const nameBytes = Buffer.alloc(28);
const payloadBytes = Buffer.alloc(65536);
const controlBytes = Buffer.alloc(128);
const vector = Buffer.alloc(16);
const message = Buffer.alloc(56);

/** Lays out struct msghdr (64-bit) over the buffers above; all of them outlive every call. */
function layMessage(nameLength: number, payload: Buffer, payloadLength: number, controlLength: number): void {
  vector.writeBigUInt64LE(koffi.address(payload), 0);
  vector.writeBigUInt64LE(BigInt(payloadLength), 8);
  message.fill(0);
  message.writeBigUInt64LE(koffi.address(nameBytes), 0);
  message.writeUInt32LE(nameLength, 8);
  message.writeBigUInt64LE(koffi.address(vector), 16);
  message.writeBigUInt64LE(1n, 24);
  message.writeBigUInt64LE(koffi.address(controlBytes), 32);
  message.writeBigUInt64LE(BigInt(controlLength), 40);
}

/** Takes one datagram from a socket made by `listenOn`; undefined when there is none. */
export function receiveDatagram(fd: number): Datagram | undefined {
  layMessage(nameBytes.length, payloadBytes, payloadBytes.length, controlBytes.length);
  const length = cRecvmsg(fd, message, MSG_DONTWAIT) as number;
  if (length < 0) return undefined;
  const peer = decodeSocketAddress(nameBytes);
  // cmsghdr: u64 length, i32 level, i32 type, then in_pktinfo (index, local, destination) or in6_pktinfo (address, index).
  const local = isV6(peer.ip)
    ? bytesToIp(controlBytes.subarray(16, 32))
    : bytesToIp(controlBytes.subarray(24, 28));
  return { peer, local, payload: Buffer.from(payloadBytes.subarray(0, length)) };
}

/** Answers a datagram from the very address it was sent to. Lost answers are as on any network: not reported. */
export function answerDatagram(fd: number, to: Datagram, payload: Buffer): void {
  const v6 = isV6(to.local);
  nameBytes.set(encodeSocketAddress(to.peer));
  controlBytes.fill(0);
  controlBytes.writeBigUInt64LE(v6 ? 36n : 28n, 0);
  controlBytes.writeInt32LE(v6 ? IPPROTO_IPV6 : IPPROTO_IP, 8);
  controlBytes.writeInt32LE(v6 ? IPV6_PKTINFO : IP_PKTINFO, 12);
  controlBytes.set(ipToBytes(to.local), v6 ? 16 : 20);
  layMessage(v6 ? 28 : 16, payload, payload.length, v6 ? 40 : 32);
  cSendmsg(fd, message, MSG_DONTWAIT);
}
