/** Addresses as settings: which family, with or without a port. Parsing is as lenient as for objects (services/ip.ts). */
import type { Family } from '../api/objects.ts';
import { canonicalIP, familyOf, formatAddressPort, parseCIDR } from '../services/ip.ts';

/** The family of a textual address; undefined if it is none. An IPv4-mapped IPv6 address counts as IPv4. */
export function addressFamily(text: string): Family | undefined {
  const canonical = canonicalIP(text);
  return canonical === undefined ? undefined : familyOf(canonical);
}

/** The family of a CIDR (host bits allowed); undefined if it is none. */
export function cidrFamily(text: string): Family | undefined {
  return parseCIDR(text)?.family;
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
  return addressFamily(address) === undefined ? address : formatAddressPort(address, port);
}

/** True for 1..65535 in decimal. */
export function isPort(text: string): boolean {
  return /^\d+$/.test(text) && Number(text) >= 1 && Number(text) <= 65535;
}
