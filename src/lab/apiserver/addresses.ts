/** IP addresses as the API server needs them: lenient reading, canonical text, counting through ranges. */
import { isIPv6 } from 'node:net';
import type { Family } from '../../api/objects.ts';

export interface IpAddress {
  readonly family: Family;
  readonly value: bigint;
}

function parseIpv4(text: string): bigint | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  let value = 0n;
  for (const part of parts) {
    if (!/^\d{1,9}$/.test(part) || Number(part) > 255) return undefined;
    value = (value << 8n) | BigInt(Number(part));
  }
  return value;
}

/** Leading zeros in IPv4 are tolerated, as Kubernetes does for Services. IPv4-mapped addresses count as IPv4. */
export function parseIp(text: string): IpAddress | undefined {
  if (!text.includes(':')) {
    const value = parseIpv4(text);
    return value === undefined ? undefined : { family: 'IPv4', value };
  }
  if (!isIPv6(text) || text.includes('%')) return undefined;
  let source = text;
  const dot = source.lastIndexOf(':');
  if (source.includes('.')) {
    const low = parseIpv4(source.slice(dot + 1));
    if (low === undefined) return undefined;
    source = `${source.slice(0, dot + 1)}${(low >> 16n).toString(16)}:${(low & 0xffffn).toString(16)}`;
  }
  const [head = '', tail] = source.split('::');
  const first = head === '' ? [] : head.split(':');
  const last = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = Array.from({ length: 8 - first.length - last.length }, () => '0');
  let value = 0n;
  for (const part of [...first, ...zeros, ...last])
    value = (value << 16n) | BigInt(Number.parseInt(part, 16));
  if (value >> 32n === 0xffffn) return { family: 'IPv4', value: value & 0xffffffffn };
  return { family: 'IPv6', value };
}

/** Canonical text (RFC 5952 for IPv6). */
export function formatIp({ family, value }: IpAddress): string {
  if (family === 'IPv4') {
    const number = Number(value);
    return `${number >>> 24}.${(number >>> 16) & 255}.${(number >>> 8) & 255}.${number & 255}`;
  }
  const groups = Array.from({ length: 8 }, (_, index) =>
    Number((value >> BigInt(112 - 16 * index)) & 0xffffn),
  );
  let bestStart = -1;
  let bestLength = 1;
  for (let start = 0; start < 8; start++) {
    let end = start;
    while (end < 8 && groups[end] === 0) end++;
    if (end - start > bestLength) {
      bestStart = start;
      bestLength = end - start;
    }
  }
  const hex = groups.map((group) => group.toString(16));
  if (bestStart < 0) return hex.join(':');
  return `${hex.slice(0, bestStart).join(':')}::${hex.slice(bestStart + bestLength).join(':')}`;
}

export interface IpRange {
  readonly family: Family;
  readonly cidr: string;
  readonly base: bigint;
  /** Addresses in the range, the first and (IPv4) the last included. */
  readonly size: bigint;
}

export function parseCidr(text: string): IpRange | undefined {
  const match = /^([^/]+)\/(\d{1,3})$/.exec(text.trim());
  const ip = match === null ? undefined : parseIp(match[1] ?? '');
  if (match === null || ip === undefined) return undefined;
  const width = ip.family === 'IPv4' ? 32 : 128;
  const length = Number(match[2]);
  if (length > width) return undefined;
  const size = 1n << BigInt(width - length);
  return { family: ip.family, cidr: text.trim(), base: ip.value - (ip.value % size), size };
}

export function rangeContains(range: IpRange, ip: IpAddress): boolean {
  return ip.family === range.family && ip.value >= range.base && ip.value < range.base + range.size;
}
