/**
 * nf_tables expressions: the instructions a rule is made of (linux/netfilter/nf_tables.h). Each kind has its
 * attributes written down once, in the order in which `nft` sends them, and codecs are made from that.
 *
 * Registers are numbered as on the wire: 1 to 4 are the 16-byte views, 8 to 23 the 4-byte views of the same 64 bytes
 * (so 1 is where 8 begins, 2 where 12 begins); 0 is the verdict.
 */
import type { AttributeReader, MessageWriter, RawAttribute } from '../message.ts';

export type VerdictName = 'accept' | 'drop' | 'continue' | 'return' | 'jump' | 'goto' | 'break' | 'queue';

export interface Verdict {
  readonly code: VerdictName;
  /** For jump and goto. */
  readonly chain?: string;
}

export type Data = { readonly value: Uint8Array } | { readonly verdict: Verdict };

export type PayloadBase = 'link' | 'network' | 'transport';
export type MetaKey =
  | 'length'
  | 'protocol'
  | 'priority'
  | 'mark'
  | 'iif'
  | 'oif'
  | 'iifname'
  | 'oifname'
  | 'nftrace'
  | 'nfproto'
  | 'l4proto'
  | number;
export type ConntrackKey = 'state' | 'direction' | 'status' | 'mark' | number;
export type Comparison = '==' | '!=' | '<' | '<=' | '>' | '>=';

interface Kept {
  /** Attributes that have no field here, as received. */
  readonly unknown?: readonly RawAttribute[];
}

export interface Immediate extends Kept {
  readonly kind: 'immediate';
  readonly register: number;
  readonly data: Data;
}
export interface PayloadSelector {
  readonly kind: 'payload';
  readonly base: PayloadBase;
  /** Bytes from the start of that header. */
  readonly offset: number;
  readonly length: number;
}
export interface MetaSelector {
  readonly kind: 'meta';
  readonly key: MetaKey;
}
export interface ConntrackSelector {
  readonly kind: 'ct';
  readonly key: ConntrackKey;
  /** 0 = original, 1 = reply; for keys that need it. */
  readonly direction?: number;
}
export interface FibSelector {
  readonly kind: 'fib';
  readonly result: 'oif' | 'oifname' | 'type' | number;
  /** Bits: 1 saddr, 2 daddr, 4 mark, 8 iif, 16 oif, 32 present. */
  readonly flags: number;
}
export interface NumgenSelector {
  readonly kind: 'numgen';
  readonly type: 'inc' | 'random';
  readonly modulus: number;
  readonly offset: number;
}
/** What can be loaded into a register. */
export type Selector = PayloadSelector | MetaSelector | ConntrackSelector | FibSelector | NumgenSelector;
/** A selector with the register it is loaded into. */
export type Load = Selector & Kept & { readonly register: number };

export interface SetMeta extends Kept {
  readonly kind: 'set meta';
  readonly key: MetaKey;
  readonly source: number;
}
export interface Compare extends Kept {
  readonly kind: 'cmp';
  readonly source: number;
  readonly operator: Comparison;
  readonly data: Data;
}
export interface Range extends Kept {
  readonly kind: 'range';
  readonly source: number;
  readonly operator: '==' | '!=';
  readonly from: Data;
  readonly to: Data;
}
export interface Bitwise extends Kept {
  readonly kind: 'bitwise';
  readonly source: number;
  readonly register: number;
  readonly length: number;
  readonly mask?: Data;
  readonly xor?: Data;
  /** 0 = mask and xor, 1 and 2 = shifts. */
  readonly operation?: number;
  readonly data?: Data;
}
export interface ByteOrder extends Kept {
  readonly kind: 'byteorder';
  readonly source: number;
  readonly register: number;
  /** 0 = to host order, 1 = to network order. */
  readonly operation: number;
  readonly length: number;
  readonly size: number;
}
export interface Lookup extends Kept {
  readonly kind: 'lookup';
  readonly set: string;
  readonly source: number;
  /** Absent: membership only; 0: the verdict found; else where the value found goes. */
  readonly register?: number;
  /** Number of a set made in the same batch: needed for anonymous ones. */
  readonly setId?: number;
  /** 1 = inverted. */
  readonly flags?: number;
}
export interface Nat extends Kept {
  readonly kind: 'nat';
  readonly type: 'snat' | 'dnat';
  /** 2 = IPv4, 10 = IPv6 */
  readonly family: number;
  readonly addressMin?: number;
  readonly addressMax?: number;
  readonly portMin?: number;
  readonly portMax?: number;
  /** NF_NAT_RANGE_… */
  readonly flags?: number;
}
export interface Masquerade extends Kept {
  readonly kind: 'masq';
  /** NF_NAT_RANGE_…: 4 random, 8 persistent, 16 fully random. */
  readonly flags?: number;
  readonly portMin?: number;
  readonly portMax?: number;
}
export interface Reject extends Kept {
  readonly kind: 'reject';
  readonly type: 'icmp' | 'tcp reset' | 'icmpx';
  readonly code: number;
}
/** Adds to (or updates in, deletes from) a set from the packet path. */
export interface DynamicSet extends Kept {
  readonly kind: 'dynset';
  readonly set: string;
  readonly setId?: number;
  readonly operation: 'add' | 'update' | 'delete';
  readonly keyRegister: number;
  readonly dataRegister?: number;
  /** Milliseconds. */
  readonly timeout?: bigint;
  /** One expression, e.g. a counter, per element. */
  readonly expression?: Expression;
  /** Several expressions per element. */
  readonly expressions?: readonly Expression[];
  readonly flags?: number;
}
export interface Counter extends Kept {
  readonly kind: 'counter';
  /** Absent in a new rule: counts from 0. */
  readonly bytes?: bigint;
  readonly packets?: bigint;
}
export interface Limit extends Kept {
  readonly kind: 'limit';
  readonly rate: bigint;
  /** Seconds. */
  readonly unit: bigint;
  readonly burst: number;
  readonly type: 'packets' | 'bytes';
  /** 1 = over */
  readonly flags?: number;
}
export interface Log extends Kept {
  readonly kind: 'log';
  readonly group?: number;
  readonly prefix?: string;
  readonly level?: number;
}
/** A kind that is not in this file. */
export interface UnknownExpression {
  readonly kind: 'unknown';
  readonly name: string;
  readonly attributes: readonly RawAttribute[];
}

export type Expression =
  | Immediate
  | Load
  | SetMeta
  | Compare
  | Range
  | Bitwise
  | ByteOrder
  | Lookup
  | Nat
  | Masquerade
  | Reject
  | DynamicSet
  | Counter
  | Limit
  | Log
  | UnknownExpression;

/** NFTA_DATA_VALUE, NFTA_DATA_VERDICT; NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN */
const DATA_VALUE = 1;
const DATA_VERDICT = 2;
const VERDICT_CODE = 1;
const VERDICT_CHAIN = 2;

const verdictCodes: readonly (readonly [VerdictName, number])[] = [
  ['drop', 0],
  ['accept', 1],
  ['queue', 3],
  ['continue', 0xffffffff],
  ['break', 0xfffffffe],
  ['jump', 0xfffffffd],
  ['goto', 0xfffffffc],
  ['return', 0xfffffffb],
];
const codeOf = new Map(verdictCodes);
const verdictOf = new Map(verdictCodes.map(([name, code]) => [code, name]));

/** Writes a value wrapped as nft data under the attribute `type`. */
export function writeValue(writer: MessageWriter, type: number, value: Uint8Array): void {
  const start = writer.beginNested(type);
  writer.data(DATA_VALUE, value);
  writer.endNested(start);
}

export function writeVerdict(writer: MessageWriter, type: number, verdict: Verdict): void {
  const start = writer.beginNested(type);
  const inner = writer.beginNested(DATA_VERDICT);
  writer.u32(VERDICT_CODE, codeOf.get(verdict.code)!);
  if (verdict.chain !== undefined) writer.string(VERDICT_CHAIN, verdict.chain);
  writer.endNested(inner);
  writer.endNested(start);
}

function writeData(writer: MessageWriter, type: number, data: Data): void {
  if ('value' in data) writeValue(writer, type, data.value);
  else writeVerdict(writer, type, data.verdict);
}

/** NF_VERDICT_MASK: what rules of iptables return may carry an errno or a queue's number above. */
const PACKET_VERDICT = 0xff;

export function readVerdict(reader: AttributeReader): Verdict {
  let code: VerdictName = 'continue';
  let chain: string | undefined;
  while (reader.next()) {
    if (reader.type === VERDICT_CODE) {
      const number = reader.u32();
      code = verdictOf.get(number) ?? verdictOf.get(number & PACKET_VERDICT) ?? 'continue';
    } else if (reader.type === VERDICT_CHAIN) chain = reader.string();
  }
  return chain === undefined ? { code } : { code, chain };
}

export function readData(reader: AttributeReader): Data {
  while (reader.next()) {
    if (reader.type === DATA_VALUE) return { value: reader.data() };
    if (reader.type !== DATA_VERDICT) continue;
    return { verdict: readVerdict(reader.nested()) };
  }
  return { value: new Uint8Array(0) };
}

interface FieldCodec {
  write(writer: MessageWriter, type: number, value: never): void;
  read(reader: AttributeReader): unknown;
}

const u16: FieldCodec = {
  write: (writer, type, value: number) => writer.u16(type, value),
  read: (reader) => reader.u16(),
};
const u32: FieldCodec = {
  write: (writer, type, value: number) => writer.u32(type, value),
  read: (reader) => reader.u32(),
};
const u8: FieldCodec = {
  write: (writer, type, value: number) => writer.u8(type, value),
  read: (reader) => reader.u8(),
};
const u64: FieldCodec = {
  write: (writer, type, value: bigint) => writer.u64(type, value),
  read: (reader) => reader.u64(),
};
const text: FieldCodec = {
  write: (writer, type, value: string) => writer.string(type, value),
  read: (reader) => reader.string(),
};
const data: FieldCodec = {
  write: (writer, type, value: Data) => writeData(writer, type, value),
  read: (reader) => readData(reader.nested()),
};
const nestedExpression: FieldCodec = {
  write(writer, type, value: Expression) {
    const start = writer.beginNested(type);
    writeExpressionBody(writer, value);
    writer.endNested(start);
  },
  read: (reader) => readExpression(reader.nested()),
};
const expressionList: FieldCodec = {
  write: (writer, type, value: readonly Expression[]) => writeExpressions(writer, type, value),
  read: (reader) => readExpressions(reader.nested()),
};

/** Names for numbers; a number without a name stays a number. */
function named(...names: readonly (readonly [string, number])[]): FieldCodec {
  const numbers = new Map(names);
  const words = new Map(names.map(([name, number]) => [number, name]));
  return {
    write: (writer, type, value: string | number) =>
      writer.u32(type, typeof value === 'number' ? value : numbers.get(value)!),
    read(reader) {
      const number = reader.u32();
      return words.get(number) ?? number;
    },
  };
}

type Field = readonly [attribute: number, name: string, codec: FieldCodec];

const metaKey = named(
  ['length', 0],
  ['protocol', 1],
  ['priority', 2],
  ['mark', 3],
  ['iif', 4],
  ['oif', 5],
  ['iifname', 6],
  ['oifname', 7],
  ['nftrace', 12],
  ['nfproto', 15],
  ['l4proto', 16],
);

/** The kernel's name of each kind, and its attributes. */
const layouts: Readonly<
  Record<Exclude<Expression['kind'], 'unknown'>, { name: string; fields: readonly Field[] }>
> = {
  immediate: {
    name: 'immediate',
    fields: [
      [1, 'register', u32],
      [2, 'data', data],
    ],
  },
  payload: {
    name: 'payload',
    fields: [
      [1, 'register', u32],
      [2, 'base', named(['link', 0], ['network', 1], ['transport', 2])],
      [3, 'offset', u32],
      [4, 'length', u32],
    ],
  },
  meta: {
    name: 'meta',
    fields: [
      [2, 'key', metaKey],
      [1, 'register', u32],
    ],
  },
  'set meta': {
    name: 'meta',
    fields: [
      [2, 'key', metaKey],
      [3, 'source', u32],
    ],
  },
  ct: {
    name: 'ct',
    fields: [
      [2, 'key', named(['state', 0], ['direction', 1], ['status', 2], ['mark', 3])],
      [1, 'register', u32],
      [3, 'direction', u8],
    ],
  },
  fib: {
    name: 'fib',
    fields: [
      [3, 'flags', u32],
      [2, 'result', named(['oif', 1], ['oifname', 2], ['type', 3])],
      [1, 'register', u32],
    ],
  },
  numgen: {
    name: 'numgen',
    fields: [
      [1, 'register', u32],
      [2, 'modulus', u32],
      [3, 'type', named(['inc', 0], ['random', 1])],
      [4, 'offset', u32],
    ],
  },
  cmp: {
    name: 'cmp',
    fields: [
      [1, 'source', u32],
      [2, 'operator', named(['==', 0], ['!=', 1], ['<', 2], ['<=', 3], ['>', 4], ['>=', 5])],
      [3, 'data', data],
    ],
  },
  range: {
    name: 'range',
    fields: [
      [1, 'source', u32],
      [2, 'operator', named(['==', 0], ['!=', 1])],
      [3, 'from', data],
      [4, 'to', data],
    ],
  },
  bitwise: {
    name: 'bitwise',
    fields: [
      [1, 'source', u32],
      [2, 'register', u32],
      [6, 'operation', u32],
      [3, 'length', u32],
      [4, 'mask', data],
      [5, 'xor', data],
      [7, 'data', data],
    ],
  },
  byteorder: {
    name: 'byteorder',
    fields: [
      [1, 'source', u32],
      [2, 'register', u32],
      [3, 'operation', u32],
      [4, 'length', u32],
      [5, 'size', u32],
    ],
  },
  lookup: {
    name: 'lookup',
    fields: [
      [2, 'source', u32],
      [3, 'register', u32],
      [1, 'set', text],
      [4, 'setId', u32],
      [5, 'flags', u32],
    ],
  },
  nat: {
    name: 'nat',
    fields: [
      [1, 'type', named(['snat', 0], ['dnat', 1])],
      [2, 'family', u32],
      [3, 'addressMin', u32],
      [4, 'addressMax', u32],
      [5, 'portMin', u32],
      [6, 'portMax', u32],
      [7, 'flags', u32],
    ],
  },
  masq: {
    name: 'masq',
    fields: [
      [1, 'flags', u32],
      [2, 'portMin', u32],
      [3, 'portMax', u32],
    ],
  },
  reject: {
    name: 'reject',
    fields: [
      [1, 'type', named(['icmp', 0], ['tcp reset', 1], ['icmpx', 2])],
      [2, 'code', u8],
    ],
  },
  dynset: {
    name: 'dynset',
    fields: [
      [4, 'keyRegister', u32],
      [5, 'dataRegister', u32],
      [3, 'operation', named(['add', 0], ['update', 1], ['delete', 2])],
      [6, 'timeout', u64],
      [1, 'set', text],
      [2, 'setId', u32],
      [7, 'expression', nestedExpression],
      [9, 'flags', u32],
      [10, 'expressions', expressionList],
    ],
  },
  counter: {
    name: 'counter',
    fields: [
      [1, 'bytes', u64],
      [2, 'packets', u64],
    ],
  },
  limit: {
    name: 'limit',
    fields: [
      [1, 'rate', u64],
      [2, 'unit', u64],
      [3, 'burst', u32],
      [4, 'type', named(['packets', 0], ['bytes', 1])],
      [5, 'flags', u32],
    ],
  },
  log: {
    name: 'log',
    fields: [
      [2, 'prefix', text],
      [1, 'group', u16],
      [5, 'level', u32],
    ],
  },
};

const kindsByName = new Map<string, keyof typeof layouts>();
for (const [kind, layout] of Object.entries(layouts)) {
  if (kind !== 'set meta') kindsByName.set(layout.name, kind as keyof typeof layouts);
}

/** NFTA_LIST_ELEM; NFTA_EXPR_NAME, NFTA_EXPR_DATA; NFTA_META_SREG */
const LIST_ELEMENT = 1;
const EXPRESSION_NAME = 1;
const EXPRESSION_DATA = 2;
const META_SOURCE = 3;

/** Writes expressions as the list attribute `type`. */
export function writeExpressions(
  writer: MessageWriter,
  type: number,
  expressions: readonly Expression[],
): void {
  const start = writer.beginNested(type);
  for (const expression of expressions) {
    const element = writer.beginNested(LIST_ELEMENT);
    writeExpressionBody(writer, expression);
    writer.endNested(element);
  }
  writer.endNested(start);
}

/** The name and data of one expression, for where one stands alone. */
export function writeExpressionBody(writer: MessageWriter, expression: Expression): void {
  if (expression.kind === 'unknown') {
    writer.string(EXPRESSION_NAME, expression.name);
    const body = writer.beginNested(EXPRESSION_DATA);
    for (const attribute of expression.attributes) writer.attribute(attribute);
    writer.endNested(body);
    return;
  }
  const layout = layouts[expression.kind];
  writer.string(EXPRESSION_NAME, layout.name);
  const body = writer.beginNested(EXPRESSION_DATA);
  const values = expression as unknown as Readonly<Record<string, unknown>>;
  for (const [attribute, name, codec] of layout.fields) {
    const value = values[name];
    if (value !== undefined) codec.write(writer, attribute, value as never);
  }
  for (const attribute of expression.unknown ?? []) writer.attribute(attribute);
  writer.endNested(body);
}

export function readExpressions(reader: AttributeReader): Expression[] {
  const expressions: Expression[] = [];
  while (reader.next()) if (reader.type === LIST_ELEMENT) expressions.push(readExpression(reader.nested()));
  return expressions;
}

export function readExpression(reader: AttributeReader): Expression {
  let name = '';
  let body: AttributeReader | undefined;
  while (reader.next()) {
    if (reader.type === EXPRESSION_NAME) name = reader.string();
    else if (reader.type === EXPRESSION_DATA) body = reader.nested();
  }
  const attributes: RawAttribute[] = [];
  let kind = kindsByName.get(name);
  if (kind === undefined) {
    while (body?.next() === true) attributes.push(body.raw());
    return { kind: 'unknown', name, attributes };
  }
  const values: Record<string, unknown> = {};
  while (body?.next() === true) {
    if (kind === 'meta' && body.type === META_SOURCE) kind = 'set meta';
    const attribute = body.type;
    const field: Field | undefined =
      layouts[kind].fields.find((one) => one[0] === attribute) ??
      layouts.meta.fields.find((one) => kind === 'meta' && one[0] === attribute);
    if (field === undefined) attributes.push(body.raw());
    else values[field[1]] = field[2].read(body);
  }
  return {
    kind,
    ...values,
    ...(attributes.length > 0 ? { unknown: attributes } : {}),
  } as unknown as Expression;
}

/** Where a register begins, in 4-byte words. */
export function wordOf(register: number): number {
  return register < 8 ? (register - 1) * 4 : register - 8;
}

/** The register that begins at a word, in the view the kernel prefers. */
export function registerAt(word: number): number {
  return word % 4 === 0 ? 1 + word / 4 : 8 + word;
}
