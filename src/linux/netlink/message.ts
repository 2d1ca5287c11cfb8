/**
 * Netlink's wire format: message headers and attributes (linux/netlink.h). Writers append to one buffer that is
 * reused; readers walk the received bytes without copying them.
 */

/** Message types below 16 belong to netlink itself. */
export const NLMSG_NOOP = 1;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
export const NLMSG_OVERRUN = 4;

export const NLM_F_REQUEST = 0x1;
export const NLM_F_MULTI = 0x2;
export const NLM_F_ACK = 0x4;
export const NLM_F_ECHO = 0x8;
/** The table changed while it was dumped: entries may be missing or double. */
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_DUMP = 0x300;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;
/** On NLMSG_ERROR: the request is cut off after its header. */
export const NLM_F_CAPPED = 0x100;
/** On NLMSG_ERROR: attributes with the extended acknowledgement follow. */
export const NLM_F_ACK_TLVS = 0x200;

export const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;

export const HEADER_LENGTH = 16;
/** The header that all nfnetlink subsystems put first: family, version, resource id. */
export const NFGENMSG_LENGTH = 4;
/** An attribute's length is 16 bits wide and counts its own 4 header bytes. */
export const MAX_ATTRIBUTE = 0xffff;

const utf8 = new TextEncoder();
const text = new TextDecoder();

/** Bytes of messages, one after the other. Offsets returned by the `begin…` functions go to the `end…` ones. */
export class MessageWriter {
  bytes: Uint8Array;
  length = 0;

  constructor(capacity = 8192) {
    this.bytes = new Uint8Array(capacity);
  }

  reset(): void {
    this.length = 0;
  }

  /** What has been written; valid until the next write. */
  written(): Uint8Array {
    return this.bytes.subarray(0, this.length);
  }

  /** Makes room for `more` bytes. */
  reserve(more: number): void {
    const wanted = this.length + more;
    if (wanted <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(wanted, this.bytes.length * 2));
    grown.set(this.bytes.subarray(0, this.length));
    this.bytes = grown;
  }

  beginMessage(type: number, flags: number, sequence: number): number {
    this.reserve(HEADER_LENGTH);
    const start = this.length;
    const { bytes } = this;
    bytes.fill(0, start, start + HEADER_LENGTH);
    bytes[start + 4] = type;
    bytes[start + 5] = type >>> 8;
    bytes[start + 6] = flags;
    bytes[start + 7] = flags >>> 8;
    put32(bytes, start + 8, sequence);
    this.length += HEADER_LENGTH;
    return start;
  }

  endMessage(start: number): void {
    put32(this.bytes, start, this.length - start);
  }

  /** struct nfgenmsg; the resource id is big-endian. */
  nfgenmsg(family: number, version: number, resource: number): void {
    this.reserve(NFGENMSG_LENGTH);
    const { bytes, length } = this;
    bytes[length] = family;
    bytes[length + 1] = version;
    bytes[length + 2] = resource >>> 8;
    bytes[length + 3] = resource;
    this.length += NFGENMSG_LENGTH;
  }

  /** Bytes outside any attribute (family headers). */
  raw(value: Uint8Array): void {
    this.reserve(value.length + 3);
    this.bytes.set(value, this.length);
    this.length += value.length;
    this.#pad();
  }

  beginNested(type: number): number {
    const start = this.length;
    this.#header(type | NLA_F_NESTED, 0);
    return start;
  }

  /** Throws if the attribute's 64 KiB are exceeded. */
  endNested(start: number): void {
    const size = this.length - start;
    if (size > MAX_ATTRIBUTE)
      throw new RangeError(`netlink attribute of ${size} bytes: ${MAX_ATTRIBUTE} is the most`);
    this.bytes[start] = size;
    this.bytes[start + 1] = size >>> 8;
  }

  flag(type: number): void {
    this.#header(type, 0);
  }

  u8(type: number, value: number): void {
    this.#header(type, 1);
    const { bytes, length } = this;
    bytes[length] = value;
    bytes[length + 1] = 0;
    bytes[length + 2] = 0;
    bytes[length + 3] = 0;
    this.length += 4;
  }

  /** Big-endian. */
  u16(type: number, value: number): void {
    this.#header(type, 2);
    const { bytes, length } = this;
    bytes[length] = value >>> 8;
    bytes[length + 1] = value;
    bytes[length + 2] = 0;
    bytes[length + 3] = 0;
    this.length += 4;
  }

  /** Big-endian. */
  u32(type: number, value: number): void {
    this.#header(type, 4);
    const { bytes, length } = this;
    bytes[length] = value >>> 24;
    bytes[length + 1] = value >>> 16;
    bytes[length + 2] = value >>> 8;
    bytes[length + 3] = value;
    this.length += 4;
  }

  /** In the machine's own order. */
  hostU32(type: number, value: number): void {
    this.#header(type, 4);
    put32(this.bytes, this.length, value);
    this.length += 4;
  }

  /** Big-endian. */
  u64(type: number, value: bigint): void {
    this.u64Parts(type, Number(value >> 32n), Number(value & 0xffffffffn));
  }

  /** Big-endian, from two halves: no bigint in hot loops. */
  u64Parts(type: number, high: number, low: number): void {
    this.#header(type, 8);
    const { bytes, length } = this;
    bytes[length] = high >>> 24;
    bytes[length + 1] = high >>> 16;
    bytes[length + 2] = high >>> 8;
    bytes[length + 3] = high;
    bytes[length + 4] = low >>> 24;
    bytes[length + 5] = low >>> 16;
    bytes[length + 6] = low >>> 8;
    bytes[length + 7] = low;
    this.length += 8;
  }

  data(type: number, value: Uint8Array): void {
    const size = value.length;
    this.#header(type, size);
    const { bytes } = this;
    let { length } = this;
    // Short values, the usual ones, are faster copied by hand than by set().
    if (size <= 32) for (let i = 0; i < size; i++) bytes[length + i] = value[i]!;
    else bytes.set(value, length);
    length += size;
    while ((length & 3) !== 0) bytes[length++] = 0;
    this.length = length;
  }

  /** Zero-terminated. */
  string(type: number, value: string): void {
    const size = value.length;
    this.#header(type, size * 3 + 1);
    const { bytes } = this;
    const start = this.length - 4;
    let { length } = this;
    let ascii = true;
    for (let i = 0; i < size; i++) {
      const code = value.charCodeAt(i);
      if (code > 0x7f) {
        ascii = false;
        break;
      }
      bytes[length + i] = code;
    }
    length += ascii ? size : utf8.encodeInto(value, bytes.subarray(length)).written;
    bytes[length++] = 0;
    const end = length - start;
    bytes[start] = end;
    bytes[start + 1] = end >>> 8;
    while ((length & 3) !== 0) bytes[length++] = 0;
    this.length = length;
  }

  /** An attribute as it was received. */
  attribute(attribute: RawAttribute): void {
    this.data(attribute.type, attribute.value);
  }

  #header(type: number, size: number): void {
    // Room for the value, its padding and a string's terminator.
    this.reserve(size + 12);
    const { bytes, length } = this;
    const total = size + 4;
    bytes[length] = total;
    bytes[length + 1] = total >>> 8;
    bytes[length + 2] = type;
    bytes[length + 3] = type >>> 8;
    this.length += 4;
  }

  #pad(): void {
    while ((this.length & 3) !== 0) this.bytes[this.length++] = 0;
  }
}

/** An attribute that a codec does not know: kept, so that writing an object gives back what was read. */
export interface RawAttribute {
  /** With its flag bits. */
  readonly type: number;
  readonly value: Uint8Array;
}

/** Walks attributes: `while (reader.next()) switch (reader.type) …`. A malformed length ends the walk. */
export class AttributeReader {
  readonly bytes: Uint8Array;
  /** The current attribute's type without flag bits. */
  type = 0;
  /** Where its value starts and ends. */
  start = 0;
  end = 0;
  #next: number;
  readonly #limit: number;
  #flags = 0;

  constructor(bytes: Uint8Array, start: number, end: number) {
    this.bytes = bytes;
    this.#next = start;
    this.#limit = end;
  }

  next(): boolean {
    const { bytes } = this;
    const at = this.#next;
    if (at + 4 > this.#limit) return false;
    const size = bytes[at]! | (bytes[at + 1]! << 8);
    if (size < 4 || at + size > this.#limit) return false;
    const type = bytes[at + 2]! | (bytes[at + 3]! << 8);
    this.type = type & NLA_TYPE_MASK;
    this.#flags = type & ~NLA_TYPE_MASK;
    this.start = at + 4;
    this.end = at + size;
    this.#next = (at + size + 3) & ~3;
    return true;
  }

  get size(): number {
    return this.end - this.start;
  }

  nested(): AttributeReader {
    return new AttributeReader(this.bytes, this.start, this.end);
  }

  u8(): number {
    return this.size >= 1 ? this.bytes[this.start]! : 0;
  }

  u16(): number {
    return this.size >= 2 ? (this.bytes[this.start]! << 8) | this.bytes[this.start + 1]! : 0;
  }

  u32(): number {
    return this.size >= 4 ? get32Big(this.bytes, this.start) : 0;
  }

  hostU32(): number {
    return this.size >= 4 ? get32(this.bytes, this.start) : 0;
  }

  u64(): bigint {
    if (this.size < 8) return 0n;
    return (BigInt(get32Big(this.bytes, this.start)) << 32n) | BigInt(get32Big(this.bytes, this.start + 4));
  }

  /** Up to the first zero byte. */
  string(): string {
    let { end } = this;
    for (let i = this.start; i < end; i++) if (this.bytes[i] === 0) end = i;
    return text.decode(this.bytes.subarray(this.start, end));
  }

  /** A copy of the value. */
  data(): Uint8Array {
    return this.bytes.slice(this.start, this.end);
  }

  raw(): RawAttribute {
    return { type: this.type | this.#flags, value: this.data() };
  }
}

/** One received message; its bytes are valid only during the callback. */
export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly portId: number;
  readonly bytes: Uint8Array;
  /** Where the payload starts and ends. */
  readonly start: number;
  readonly end: number;
}

/** The attributes behind `headerLength` bytes of family header. */
export function attributesOf(message: Message, headerLength: number): AttributeReader {
  return new AttributeReader(message.bytes, message.start + ((headerLength + 3) & ~3), message.end);
}

/** Splits received bytes into messages; a malformed length throws. */
export function forEachMessage(
  bytes: Uint8Array,
  length: number,
  callback: (message: Message) => void,
): void {
  let at = 0;
  while (at + HEADER_LENGTH <= length) {
    const size = get32(bytes, at);
    if (size < HEADER_LENGTH || at + size > length) {
      throw new RangeError(`netlink message of ${size} bytes at byte ${at} of ${length}`);
    }
    callback({
      type: bytes[at + 4]! | (bytes[at + 5]! << 8),
      flags: bytes[at + 6]! | (bytes[at + 7]! << 8),
      sequence: get32(bytes, at + 8),
      portId: get32(bytes, at + 12),
      bytes,
      start: at + HEADER_LENGTH,
      end: at + size,
    });
    at = (at + size + 3) & ~3;
  }
}

/** Reads 32 bits in the machine's (little-endian) order. */
export function get32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}

export function get32Big(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

export function put32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}
