/** IP addresses between their text and the bytes the kernel has them in. */

/** The 4 or 16 bytes of an address in text; throws if it is none. A zone (`%eth0`) is not accepted. */
export function addressBytes(address: string): Uint8Array {
  const bytes = address.includes(':') ? parseIPv6(address) : parseIPv4(address);
  if (bytes === undefined) throw new RangeError(`"${address}" is not an IP address`);
  return bytes;
}

function parseIPv4(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(4);
  return writeIPv4(text, bytes, 0) ? bytes : undefined;
}

/** Writes the 4 bytes of an IPv4 address at `at`; false (and some bytes perhaps changed) if the text is none. */
export function writeIPv4(text: string, bytes: Uint8Array, at: number): boolean {
  let part = 0;
  let digits = 0;
  let value = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code >= 48 && code <= 57) {
      value = value * 10 + code - 48;
      if (++digits > 3 || value > 255) return false;
    } else if (code === 46 && digits > 0 && part < 3) {
      bytes[at + part++] = value;
      digits = 0;
      value = 0;
    } else return false;
  }
  if (part !== 3 || digits === 0) return false;
  bytes[at + 3] = value;
  return true;
}

function parseIPv6(text: string): Uint8Array | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const head = parseGroups(halves[0]!, halves.length === 1);
  if (head === undefined) return undefined;
  const bytes = new Uint8Array(16);
  bytes.set(head);
  if (halves.length === 1) return head.length === 16 ? bytes : undefined;
  const tail = parseGroups(halves[1]!, true);
  if (tail === undefined || head.length + tail.length > 14) return undefined;
  bytes.set(tail, 16 - tail.length);
  return bytes;
}

/** `last`: the groups end the address, so that a dotted IPv4 tail is allowed. */
function parseGroups(text: string, last: boolean): number[] | undefined {
  const bytes: number[] = [];
  if (text === '') return bytes;
  const groups = text.split(':');
  for (let i = 0; i < groups.length; i++) {
    const group = groups[i]!;
    if (last && i === groups.length - 1 && group.includes('.')) {
      const tail = parseIPv4(group);
      if (tail === undefined) return undefined;
      bytes.push(...tail);
    } else if (/^[0-9a-fA-F]{1,4}$/.test(group)) {
      const value = Number.parseInt(group, 16);
      bytes.push(value >>> 8, value & 0xff);
    } else return undefined;
  }
  return bytes.length <= 16 ? bytes : undefined;
}

/** A node talks with few addresses, over and over: their text is made once. */
const known = new Map<number, string>();
const knownMax = 65_536;

/** The 4 bytes at `at` as `10.0.0.1`. */
export function formatIPv4(bytes: Uint8Array, at: number): string {
  const value = (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
  let text = known.get(value);
  if (text === undefined) {
    text = `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}`;
    if (known.size >= knownMax) known.clear();
    known.set(value, text);
  }
  return text;
}

/** The 16 bytes at `at` as RFC 5952 wants them: lower case, the longest run of zeros shortened. */
export function formatIPv6(bytes: Uint8Array, at: number): string {
  const groups: number[] = [];
  for (let i = 0; i < 8; i++) groups.push((bytes[at + 2 * i]! << 8) | bytes[at + 2 * i + 1]!);
  let bestStart = 8;
  let bestLength = 1;
  for (let i = 0; i < 8; i++) {
    let length = 0;
    while (i + length < 8 && groups[i + length] === 0) length++;
    if (length > bestLength) [bestStart, bestLength] = [i, length];
    i += length;
  }
  const mapped = bestStart === 0 && bestLength === 5 && groups[5] === 0xffff;
  if (mapped) return `::ffff:${formatIPv4(bytes, at + 12)}`;
  const hex = (from: number, to: number): string =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(':');
  return bestStart === 8 ? hex(0, 8) : `${hex(0, bestStart)}::${hex(bestStart + bestLength, 8)}`;
}

/** 4 or 16 bytes as text; anything else as hexadecimal digits. */
export function formatAddress(bytes: Uint8Array, start = 0, end = bytes.length): string {
  if (end - start === 4) return formatIPv4(bytes, start);
  if (end - start === 16) return formatIPv6(bytes, start);
  return `0x${Buffer.from(bytes.subarray(start, end)).toString('hex')}`;
}
