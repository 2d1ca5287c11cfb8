/** Addresses as the socket calls want them (struct sockaddr_in, sockaddr_in6) and as people write them. */
import { isIPv4, isIPv6 } from 'node:net';

import { isV6, type SocketAddress } from '../../linux/socketAddress.ts';

export {
  AF_INET,
  AF_INET6,
  decodeSocketAddress,
  encodeSocketAddress,
  isV6,
  type SocketAddress,
} from '../../linux/socketAddress.ts';

export function formatSocketAddress(address: SocketAddress): string {
  return isV6(address.ip) ? `[${address.ip}]:${address.port}` : `${address.ip}:${address.port}`;
}

/** Reads `1.2.3.4:80` or `[fd00::1]:80`; throws an Error that names the text. */
export function parseSocketAddress(text: string): SocketAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})$/.exec(text);
  const ip = match?.[1] ?? match?.[2] ?? '';
  const port = Number(match?.[3] ?? Number.NaN);
  if (!(isIPv4(ip) || isIPv6(ip)) || !(port <= 65535)) {
    throw new Error(`"${text}" is not ADDRESS:PORT (IPv6 addresses go in brackets)`);
  }
  return { ip: canonicalIp(ip), port };
}

/** The 4 or 16 bytes of an address; throws an Error that names the text. */
export function ipToBytes(ip: string): Uint8Array {
  if (isIPv4(ip)) return Uint8Array.from(ip.split('.'), Number);
  if (!isIPv6(ip)) throw new Error(`"${ip}" is not an IP address`);
  const bytes = new Uint8Array(16);
  let text = ip;
  const embedded = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  if (embedded !== null) {
    const [a = 0, b = 0, c = 0, d = 0] = (embedded[2] ?? '').split('.').map(Number);
    text = `${embedded[1]}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  }
  const [head = '', tail] = text.split('::');
  const before = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  before.forEach((group, i) => writeGroup(bytes, i, group));
  after.forEach((group, i) => writeGroup(bytes, 8 - after.length + i, group));
  return bytes;
}

function writeGroup(bytes: Uint8Array, index: number, group: string): void {
  const value = Number.parseInt(group, 16);
  bytes[index * 2] = value >> 8;
  bytes[index * 2 + 1] = value & 0xff;
}

/** The address in its usual short form (RFC 5952). */
export function bytesToIp(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0));
  let start = -1;
  let length = 1;
  for (let i = 0; i < 8; i++) {
    let run = 0;
    while (i + run < 8 && groups[i + run] === 0) run++;
    if (run > length) {
      start = i;
      length = run;
    }
  }
  const hex = groups.map((group) => group.toString(16));
  if (start < 0) return hex.join(':');
  return `${hex.slice(0, start).join(':')}::${hex.slice(start + length).join(':')}`;
}

export function canonicalIp(ip: string): string {
  return bytesToIp(ipToBytes(ip));
}

/** The address `offset` further on. */
export function addToIp(ip: string, offset: number): string {
  const bytes = ipToBytes(ip);
  let carry = offset;
  for (let i = bytes.length - 1; i >= 0 && carry !== 0; i--) {
    const sum = (bytes[i] ?? 0) + carry;
    bytes[i] = sum & 0xff;
    carry = Math.floor(sum / 256);
  }
  return bytesToIp(bytes);
}

/** Whether an address block such as `10.244.0.0/16` holds an address. */
export function blockHolds(block: string, ip: string): boolean {
  const [base = '', length] = block.split('/');
  if (isV6(base) !== isV6(ip)) return false;
  const a = ipToBytes(base);
  const b = ipToBytes(ip);
  let bits = length === undefined ? a.length * 8 : Number(length);
  for (let i = 0; i < a.length && bits > 0; i++, bits -= 8) {
    const mask = bits >= 8 ? 0xff : (0xff << (8 - bits)) & 0xff;
    if (((a[i] ?? 0) & mask) !== ((b[i] ?? 0) & mask)) return false;
  }
  return true;
}
