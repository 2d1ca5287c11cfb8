/**
 * Addresses and CIDRs as text and as bytes.
 *
 * Parsing is as lenient as Kubernetes is with what it once let in: decimal parts may have leading zeros (read as
 * decimal, `10.0.0.010` is `10.0.0.10`), and an IPv4-mapped IPv6 address is an IPv4 address. Everything that
 * comes out is canonical (RFC 5952 for IPv6), so that no text from the API ever reaches the kernel unread.
 */
import type { Family } from '../api/objects.ts';

/** A network: base address with all host bits zero. */
export interface CIDR {
  readonly family: Family;
  /** Canonical `address/prefix`. */
  readonly text: string;
  /** Length of the prefix in bits: 0..32 or 0..128. */
  readonly prefix: number;
  /** The base address: 4 or 16 bytes, network order. */
  readonly bytes: Uint8Array;
}

const DOT = 46;
const COLON = 58;
const ZERO = 48;
const NINE = 57;
/** Longer text is not an address, however many zeros it is padded with. */
const MAX_TEXT = 128;

/** Canonical text of an address, or undefined if it is none. Canonical IPv4 text comes back as it is, fast. */
export function canonicalIP(text: string): string | undefined {
  if (isCanonicalIPv4(text)) return text;
  const bytes = parseIP(text);
  if (bytes === undefined) return undefined;
  const canonical = formatIP(bytes);
  // The same string object where possible: the caller holds it already.
  return canonical === text ? text : canonical;
}

/** Family of an address or CIDR that is known to be canonical. */
export function familyOf(canonical: string): Family {
  return canonical.includes(':') ? 'IPv6' : 'IPv4';
}

/** `address:port`, `[address]:port` for IPv6: how an endpoint is written. */
export function formatAddressPort(canonical: string, port: number): string {
  // Joined, not concatenated: V8 keeps the parts of a concatenation beside the whole, and there is one of these an endpoint.
  return canonical.includes(':') ? ['[', canonical, ']:', port].join('') : [canonical, port].join(':');
}

/** Bytes of an address in network order: 4 for IPv4 (and IPv4-mapped), 16 for IPv6; undefined if it is none. */
export function parseIP(text: string): Uint8Array | undefined {
  if (text.length > MAX_TEXT) return undefined;
  if (!text.includes(':')) return parseIPv4(text);
  const bytes = parseIPv6(text);
  return bytes !== undefined && isMapped(bytes) ? bytes.slice(12) : bytes;
}

/** As `parseIP`, for an address that was checked before; throws if it was not. */
export function ipBytes(canonical: string): Uint8Array {
  const bytes = parseIP(canonical);
  if (bytes === undefined) throw new Error(`not an IP address: ${JSON.stringify(canonical)}`);
  return bytes;
}

/** Canonical text of 4 or 16 bytes in network order (an IPv4-mapped address in 16 bytes prints as IPv4). */
export function formatIP(bytes: Uint8Array): string {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}`;
  if (bytes.length !== 16) throw new Error(`an IP address has 4 or 16 bytes, not ${bytes.length}`);
  return isMapped(bytes) ? formatIP(bytes.subarray(12)) : formatIPv6(bytes);
}

/** A CIDR, host bits cleared; undefined if it is none. A prefix of an IPv4-mapped network counts from bit 96. */
export function parseCIDR(text: string): CIDR | undefined {
  const slash = text.indexOf('/');
  if (slash < 0 || text.length > MAX_TEXT) return undefined;
  const address = text.slice(0, slash);
  const written = text.slice(slash + 1);
  if (!/^[0-9]+$/.test(written)) return undefined;
  let prefix = Number(written);
  let bytes = address.includes(':') ? parseIPv6(address) : parseIPv4(address);
  if (bytes === undefined || prefix > bytes.length * 8) return undefined;
  clearHostBits(bytes, prefix);
  if (bytes.length === 16 && prefix >= 96 && isMapped(bytes)) {
    bytes = bytes.slice(12);
    prefix -= 96;
  }
  const family = bytes.length === 4 ? 'IPv4' : 'IPv6';
  return { family, text: `${formatIP(bytes)}/${prefix}`, prefix, bytes };
}

/** True if the address (text, or bytes in network order) lies in the network; false for another family. */
export function cidrContains(cidr: CIDR, address: string | Uint8Array): boolean {
  const bytes = typeof address === 'string' ? parseIP(address) : address;
  if (bytes === undefined || bytes.length !== cidr.bytes.length) return false;
  const whole = cidr.prefix >> 3;
  for (let i = 0; i < whole; i++) if (bytes[i] !== cidr.bytes[i]) return false;
  const rest = cidr.prefix & 7;
  if (rest === 0) return true;
  return ((bytes[whole]! ^ cidr.bytes[whole]!) & (0xff00 >> rest) & 0xff) === 0;
}

/** First and last address of a network, in bytes: the ends of an interval in a kernel set. */
export function cidrRange(cidr: CIDR): { readonly first: Uint8Array; readonly last: Uint8Array } {
  const last = cidr.bytes.slice();
  for (let bit = cidr.prefix; bit < last.length * 8; bit++) last[bit >> 3]! |= 0x80 >> (bit & 7);
  return { first: cidr.bytes.slice(), last };
}

/**
 * The same addresses without overlap: CIDRs that lie in another one are left out (two CIDRs never overlap
 * otherwise). In address order, IPv4 first. Text that is no CIDR is left out too: check before.
 */
export function mergeCIDRs(texts: readonly string[]): string[] {
  const cidrs: CIDR[] = [];
  for (const text of texts) {
    const cidr = parseCIDR(text);
    if (cidr !== undefined) cidrs.push(cidr);
  }
  cidrs.sort(
    (a, b) => a.bytes.length - b.bytes.length || compareBytes(a.bytes, b.bytes) || a.prefix - b.prefix,
  );
  const merged: CIDR[] = [];
  for (const cidr of cidrs) {
    // In this order a CIDR's container is the last one kept, if there is any.
    const last = merged.at(-1);
    if (last === undefined || !cidrContains(last, cidr.bytes)) merged.push(cidr);
  }
  return merged.map((cidr) => cidr.text);
}

/** 127.0.0.0/8 or ::1. */
export function isLoopback(canonical: string): boolean {
  return canonical === '::1' || (canonical.startsWith('127.') && !canonical.includes(':'));
}

/** 0.0.0.0 or :: */
export function isUnspecified(canonical: string): boolean {
  return canonical === '0.0.0.0' || canonical === '::';
}

function compareBytes(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length; i++) {
    const difference = a[i]! - b[i]!;
    if (difference !== 0) return difference;
  }
  return 0;
}

function isCanonicalIPv4(text: string): boolean {
  const length = text.length;
  if (length < 7 || length > 15) return false;
  let dots = 0;
  let digits = 0;
  let value = 0;
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i);
    if (code === DOT) {
      if (digits === 0) return false;
      dots++;
      digits = 0;
      value = 0;
    } else {
      if (code < ZERO || code > NINE || (digits > 0 && value === 0)) return false;
      value = value * 10 + code - ZERO;
      if (value > 255) return false;
      digits++;
    }
  }
  return dots === 3 && digits > 0;
}

function parseIPv4(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(4);
  let part = 0;
  let digits = 0;
  let value = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === DOT) {
      if (digits === 0 || part === 3) return undefined;
      bytes[part++] = value;
      digits = 0;
      value = 0;
    } else {
      if (code < ZERO || code > NINE) return undefined;
      value = value * 10 + code - ZERO;
      if (value > 255) return undefined;
      digits++;
    }
  }
  if (part !== 3 || digits === 0) return undefined;
  bytes[3] = value;
  return bytes;
}

/** 16 bytes, IPv4-mapped or not. No zones: an address with one means nothing off its machine. */
function parseIPv6(text: string): Uint8Array | undefined {
  if (text.includes('.')) {
    const colon = text.lastIndexOf(':');
    const tail = parseIPv4(text.slice(colon + 1));
    if (tail === undefined || colon < 0) return undefined;
    const high = (tail[0]! * 256 + tail[1]!).toString(16);
    const low = (tail[2]! * 256 + tail[3]!).toString(16);
    return parseIPv6(`${text.slice(0, colon + 1)}${high}:${low}`);
  }
  const words: number[] = [];
  let gap = -1;
  let i = 0;
  if (text.startsWith('::')) {
    gap = 0;
    i = 2;
  }
  while (i < text.length) {
    const start = i;
    let value = 0;
    for (; i < text.length; i++) {
      const digit = hexDigit(text.charCodeAt(i));
      if (digit < 0) break;
      value = value * 16 + digit;
    }
    if (i === start || i - start > 4 || words.length === 8) return undefined;
    words.push(value);
    if (i === text.length) break;
    if (text.charCodeAt(i++) !== COLON || i === text.length) return undefined;
    if (text.charCodeAt(i) === COLON) {
      if (gap >= 0) return undefined;
      gap = words.length;
      i++;
    }
  }
  // `::` stands for one word of zeros at least.
  if (gap < 0 ? words.length !== 8 : words.length > 7) return undefined;
  const bytes = new Uint8Array(16);
  const missing = 8 - words.length;
  for (let w = 0; w < words.length; w++) {
    const at = (gap >= 0 && w >= gap ? w + missing : w) * 2;
    bytes[at] = words[w]! >> 8;
    bytes[at + 1] = words[w]! & 0xff;
  }
  return bytes;
}

function hexDigit(code: number): number {
  if (code >= ZERO && code <= NINE) return code - ZERO;
  const lower = code | 0x20;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}

function isMapped(bytes: Uint8Array): boolean {
  for (let i = 0; i < 10; i++) if (bytes[i] !== 0) return false;
  return bytes[10] === 0xff && bytes[11] === 0xff;
}

/** RFC 5952: lower case, the first of the longest runs of two or more zero words compressed. */
function formatIPv6(bytes: Uint8Array): string {
  let bestStart = -1;
  let bestLength = 1;
  for (let w = 0; w < 8; w++) {
    let end = w;
    while (end < 8 && bytes[end * 2] === 0 && bytes[end * 2 + 1] === 0) end++;
    if (end - w > bestLength) {
      bestStart = w;
      bestLength = end - w;
    }
    if (end > w) w = end;
  }
  let text = '';
  for (let w = 0; w < 8; w++) {
    if (w === bestStart) {
      text += '::';
      w += bestLength - 1;
      continue;
    }
    if (text !== '' && !text.endsWith(':')) text += ':';
    text += (bytes[w * 2]! * 256 + bytes[w * 2 + 1]!).toString(16);
  }
  return text;
}

function clearHostBits(bytes: Uint8Array, prefix: number): void {
  for (let i = 0; i < bytes.length; i++) {
    const keep = Math.min(8, Math.max(0, prefix - i * 8));
    bytes[i]! &= (0xff00 >> keep) & 0xff;
  }
}
