/**
 * nf_tables' data types as `nft` knows them: their numbers, sizes, and how values read and are written. The kernel
 * only stores the numbers; `nft list` prints by them.
 */
import { addressBytes, formatAddress, writeIPv4 } from '../../address-bytes.ts';

export type TypeName =
  | 'ipv4_addr'
  | 'ipv6_addr'
  | 'inet_proto'
  | 'inet_service'
  | 'mark'
  | 'integer'
  | 'ifname'
  | 'ct_state'
  | 'ct_status'
  | 'ct_dir'
  | 'nf_proto'
  | 'fib_addrtype'
  | 'ifindex'
  | 'classid'
  | 'unknown';

interface DataType {
  /** `nft`'s TYPE_… number; 0 = not known to us. */
  readonly id: number;
  /** Bytes. */
  readonly size: number;
  /** Numbers in this machine's (little-endian) order instead of the network's. */
  readonly hostOrder: boolean;
  /** Names of values. */
  readonly symbols?: readonly (readonly [name: string, value: number])[];
  /** Values are bits, several of which may be set. */
  readonly bits?: boolean;
}

const dataTypes: Readonly<Record<TypeName, DataType>> = {
  unknown: { id: 0, size: 0, hostOrder: false },
  nf_proto: {
    id: 2,
    size: 1,
    hostOrder: true,
    symbols: [
      ['ipv4', 2],
      ['ipv6', 10],
    ],
  },
  integer: { id: 4, size: 4, hostOrder: true },
  ipv4_addr: { id: 7, size: 4, hostOrder: false },
  ipv6_addr: { id: 8, size: 16, hostOrder: false },
  inet_proto: {
    id: 12,
    size: 1,
    hostOrder: false,
    symbols: [
      ['icmp', 1],
      ['tcp', 6],
      ['udp', 17],
      ['ipv6-icmp', 58],
      ['sctp', 132],
    ],
  },
  inet_service: { id: 13, size: 2, hostOrder: false },
  mark: { id: 19, size: 4, hostOrder: true },
  ifindex: { id: 20, size: 4, hostOrder: true },
  /** `meta priority` */
  classid: { id: 23, size: 4, hostOrder: true },
  ct_state: {
    id: 26,
    size: 4,
    hostOrder: true,
    bits: true,
    symbols: [
      ['invalid', 1],
      ['established', 2],
      ['related', 4],
      ['new', 8],
      ['untracked', 64],
    ],
  },
  ct_dir: {
    id: 27,
    size: 1,
    hostOrder: true,
    symbols: [
      ['original', 0],
      ['reply', 1],
    ],
  },
  ct_status: {
    id: 28,
    size: 4,
    hostOrder: true,
    bits: true,
    symbols: [
      ['expected', 1],
      ['seen-reply', 2],
      ['assured', 4],
      ['confirmed', 8],
      ['snat', 16],
      ['dnat', 32],
      ['dying', 512],
    ],
  },
  fib_addrtype: {
    id: 38,
    size: 4,
    hostOrder: true,
    symbols: [
      ['unspec', 0],
      ['unicast', 1],
      ['local', 2],
      ['broadcast', 3],
      ['anycast', 4],
      ['multicast', 5],
      ['blackhole', 6],
      ['unreachable', 7],
      ['prohibit', 8],
    ],
  },
  ifname: { id: 41, size: 16, hostOrder: false },
};

const namesById = new Map<number, TypeName>();
for (const [name, type] of Object.entries(dataTypes)) namesById.set(type.id, name as TypeName);

/** Bits of one type in the number of a concatenation. */
const concatBits = 6;

export function typeSize(type: TypeName): number {
  return dataTypes[type].size;
}

export function isBitType(type: TypeName): boolean {
  return dataTypes[type].bits === true;
}

export function isHostOrder(type: TypeName): boolean {
  return dataTypes[type].hostOrder;
}

/** The type number of a set: of one type, or of a concatenation. */
export function typeNumber(types: readonly TypeName[]): number {
  let number = 0;
  for (const type of types) number = number * (1 << concatBits) + dataTypes[type].id;
  return number >>> 0;
}

/** The types in a type number. */
export function typesOf(number: number): TypeName[] {
  const types: TypeName[] = [];
  let rest = number;
  do {
    types.unshift(namesById.get(rest & ((1 << concatBits) - 1)) ?? 'unknown');
    rest >>>= concatBits;
  } while (rest !== 0);
  return types;
}

/** Bytes of a key or of data of these types; the parts of a concatenation take whole registers of 4 bytes. */
export function sizeOf(types: readonly TypeName[]): number {
  if (types.length === 1) return typeSize(types[0]!);
  let size = 0;
  for (const type of types) size += (typeSize(type) + 3) & ~3;
  return size;
}

/** A value in text (`10.0.0.1`, `tcp`, `local`, `eth0`) or as a number, as the bytes of its type. Throws if it is none. */
export function valueBytes(type: TypeName, value: string | number): Uint8Array {
  if (type === 'ifname') return interfaceNameBytes(String(value));
  if (type === 'classid' && typeof value === 'string') return numberBytes(classNumber(value), 4, true);
  const bytes = new Uint8Array(dataTypes[type].size);
  writeValueAt(type, value, bytes, 0);
  return bytes;
}

function writeValueAt(type: TypeName, value: string | number, bytes: Uint8Array, at: number): void {
  const { size, hostOrder, symbols } = dataTypes[type];
  if (type === 'ipv4_addr') {
    if (typeof value !== 'string' || !writeIPv4(value, bytes, at))
      throw new RangeError(`"${value}" is not an ${type}`);
    return;
  }
  if (type === 'ipv6_addr' || type === 'ifname') {
    const whole = type === 'ifname' ? interfaceNameBytes(String(value)) : addressBytes(String(value));
    if (whole.length !== size) throw new RangeError(`"${value}" is not an ${type}`);
    bytes.set(whole, at);
    return;
  }
  let number = Number(value);
  if (typeof value === 'string' && symbols !== undefined) {
    for (const symbol of symbols) if (symbol[0] === value) number = symbol[1];
  }
  if (!Number.isInteger(number) || number < 0 || number >= 2 ** (8 * size)) {
    throw new RangeError(`"${value}" is not an ${type}`);
  }
  for (let i = 0; i < size; i++) {
    bytes[at + (hostOrder ? i : size - 1 - i)] = number & 0xff;
    number = Math.floor(number / 256);
  }
}

function classNumber(text: string): number {
  if (text === 'none') return 0;
  if (text === 'root') return 0xffffffff;
  const [, major, minor] = /^([0-9a-f]{0,4}):([0-9a-f]{0,4})$/i.exec(text) ?? [];
  if (major === undefined || minor === undefined) throw new RangeError(`"${text}" is not a classid`);
  return (Number.parseInt(major || '0', 16) * 0x10000 + Number.parseInt(minor || '0', 16)) >>> 0;
}

function interfaceNameBytes(name: string): Uint8Array {
  // `eth*`: only the bytes in front of the star are compared.
  const prefix = name.endsWith('*');
  const text = prefix ? name.slice(0, -1) : name;
  if (text === '' || text.length > 15 || !/^[\x21-\x2e\x30-\x7e]+$/.test(text)) {
    throw new RangeError(`"${name}" is not an interface name`);
  }
  const bytes = new Uint8Array(prefix ? text.length : 16);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

export function numberBytes(number: number, size: number, hostOrder: boolean): Uint8Array {
  const bytes = new Uint8Array(size);
  let rest = number;
  for (let i = 0; i < size; i++) {
    bytes[hostOrder ? i : size - 1 - i] = rest & 0xff;
    rest = Math.floor(rest / 256);
  }
  return bytes;
}

export function bytesNumber(bytes: Uint8Array, hostOrder: boolean): number {
  let number = 0;
  for (let i = 0; i < bytes.length; i++) number = number * 256 + bytes[hostOrder ? bytes.length - 1 - i : i]!;
  return number;
}

/** The bytes of a key or of data: one value, or a concatenation whose parts are padded to whole registers. */
export function concatBytes(types: readonly TypeName[], values: readonly (string | number)[]): Uint8Array {
  if (types.length !== values.length) {
    throw new RangeError(`${values.length} values for ${types.length} types (${types.join(' . ')})`);
  }
  if (types.length === 1) return valueBytes(types[0]!, values[0]!);
  const bytes = new Uint8Array(sizeOf(types));
  let at = 0;
  for (let i = 0; i < types.length; i++) {
    writeValueAt(types[i]!, values[i]!, bytes, at);
    at += (typeSize(types[i]!) + 3) & ~3;
  }
  return bytes;
}

/** A packet's priority as `nft` has it: the two halves of a traffic control class. */
function formatClass(number: number): string {
  if (number === 0) return 'none';
  if (number === 0xffffffff) return 'root';
  const major = number >>> 16;
  const minor = number & 0xffff;
  return `${major === 0 ? '' : major.toString(16)}:${minor === 0 ? '' : minor.toString(16)}`;
}

/** A value as `nft list` prints it. */
export function formatValue(type: TypeName, bytes: Uint8Array): string {
  const { size, hostOrder, symbols, bits } = dataTypes[type];
  if (type === 'ipv4_addr' || type === 'ipv6_addr') return formatAddress(bytes);
  if (type === 'ifname') {
    const end = bytes.indexOf(0);
    const name = String.fromCharCode(...(end < 0 ? bytes : bytes.subarray(0, end)));
    return end < 0 && bytes.length < 16 ? `"${name}*"` : `"${name}"`;
  }
  if (size === 0 || bytes.length > 4) return `0x${Buffer.from(bytes).toString('hex')}`;
  const number = bytesNumber(bytes, hostOrder);
  if (type === 'classid') return formatClass(number);
  if (bits === true && number !== 0) {
    const names = symbols!.filter(([, bit]) => (number & bit) !== 0);
    const sum = names.reduce((total, [, bit]) => total | bit, 0);
    if (sum === number) return names.map(([name]) => name).join(',');
  }
  const symbol = symbols?.find(([, value]) => value === number)?.[0];
  if (symbol !== undefined) return symbol;
  return type === 'mark' || bits === true ? `0x${number.toString(16).padStart(8, '0')}` : String(number);
}

/** Splits a concatenation into its parts. */
export function splitConcat(types: readonly TypeName[], bytes: Uint8Array): Uint8Array[] {
  if (types.length === 1) return [bytes];
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const type of types) {
    parts.push(bytes.subarray(at, at + typeSize(type)));
    at += (typeSize(type) + 3) & ~3;
  }
  return parts;
}

/** A key or data as `nft list` prints it: `10.96.0.10 . tcp . 80`. */
export function formatConcat(types: readonly TypeName[], bytes: Uint8Array): string {
  return splitConcat(types, bytes)
    .map((part, index) => formatValue(types[index]!, part))
    .join(' . ');
}
