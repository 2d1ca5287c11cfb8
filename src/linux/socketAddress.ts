/** An address and a port as socket calls have them: struct sockaddr_in, sockaddr_in6. */
import { addressBytes, formatAddress } from './address-bytes.ts';

export const AF_INET = 2;
export const AF_INET6 = 10;

/** An IP address and a port, e.g. `10.96.0.1:443` or `[fd00::1]:443`. */
export interface SocketAddress {
  readonly ip: string;
  /** 0 = any */
  readonly port: number;
}

export function isV6(ip: string): boolean {
  return ip.includes(':');
}

/** struct sockaddr_in or sockaddr_in6 */
export function encodeSocketAddress(address: SocketAddress): Uint8Array {
  const ip = addressBytes(address.ip);
  const v6 = ip.length === 16;
  const bytes = Buffer.alloc(v6 ? 28 : 16);
  bytes.writeUInt16LE(v6 ? AF_INET6 : AF_INET, 0);
  bytes.writeUInt16BE(address.port, 2);
  bytes.set(ip, v6 ? 8 : 4);
  return bytes;
}

export function decodeSocketAddress(bytes: Uint8Array): SocketAddress {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const v6 = view.readUInt16LE(0) === AF_INET6;
  return { ip: formatAddress(bytes, v6 ? 8 : 4, v6 ? 24 : 8), port: view.readUInt16BE(2) };
}
