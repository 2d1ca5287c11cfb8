/** Addresses as Kubernetes' lenient parsers take them: leading zeros in IPv4, host bits in CIDRs, no zones. */
import { isIPv6 } from 'node:net';
import type { Family } from '../api/objects.ts';

const mapped = /^::ffff:(?:\d+\.\d+\.\d+\.\d+|[0-9a-f]{1,4}:[0-9a-f]{1,4})$/i;

/** The family of a textual address; undefined if it is none. An IPv4-mapped IPv6 address counts as IPv4. */
export function addressFamily(text: string): Family | undefined {
  if (isLenientIPv4(text)) return 'IPv4';
  if (text.includes('%')) return undefined;
  const lastColon = text.lastIndexOf(':');
  const tail = text.slice(lastColon + 1);
  const plain =
    lastColon >= 0 && isLenientIPv4(tail) ? text.slice(0, lastColon + 1) + stripZeros(tail) : text;
  if (!isIPv6(plain)) return undefined;
  return mapped.test(plain) ? 'IPv4' : 'IPv6';
}

/** The family of a CIDR; undefined if it is none. */
export function cidrFamily(text: string): Family | undefined {
  const slash = text.indexOf('/');
  if (slash < 0) return undefined;
  const address = text.slice(0, slash);
  const length = text.slice(slash + 1);
  const family = addressFamily(address);
  if (family === undefined || !/^\d+$/.test(length)) return undefined;
  return Number(length) <= (address.includes(':') ? 128 : 32) ? family : undefined;
}

export interface HostPort {
  readonly host: string;
  readonly port: string;
}

/** Splits `1.2.3.4:80` and `[::1]:80`; undefined if there is no port or the brackets are wrong. Neither part is checked. */
export function splitHostPort(text: string): HostPort | undefined {
  const match = /^(?:\[([^[\]]*)\]|([^:[\]]*)):([^:[\]]*)$/.exec(text);
  if (match === null) return undefined;
  return { host: match[1] ?? match[2] ?? '', port: match[3] ?? '' };
}

/** Adds the port to an address that has none; anything that is not a bare address is returned as it is. */
export function withPort(address: string, port: number): string {
  if (addressFamily(address) === undefined) return address;
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** True for 1..65535 in decimal. */
export function isPort(text: string): boolean {
  return /^\d+$/.test(text) && Number(text) >= 1 && Number(text) <= 65535;
}

function isLenientIPv4(text: string): boolean {
  const parts = text.split('.');
  return parts.length === 4 && parts.every((part) => /^\d+$/.test(part) && Number(part) <= 255);
}

function stripZeros(ipv4: string): string {
  return ipv4
    .split('.')
    .map((part) => String(Number(part)))
    .join('.');
}
