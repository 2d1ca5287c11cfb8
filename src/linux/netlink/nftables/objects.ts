/**
 * What a nf_tables transaction is about: tables, chains, rules, sets (and maps), elements. Plain values; codecs write
 * attributes in the order `nft` sends them and keep what they do not know.
 */
import {
  readData,
  readExpressions,
  writeExpressions,
  writeValue,
  writeVerdict,
  type Expression,
  type Selector,
  type Verdict,
} from './expressions.ts';
import { describeKey, readDescription, selectorType } from './selectors.ts';
import { isHostOrder, numberBytes, sizeOf, typeNumber, typesOf, type TypeName } from './types.ts';
import { commentBytes, readComment, readUserdata, writeUserdata, type UserdataEntry } from './userdata.ts';
import {
  NFGENMSG_LENGTH,
  attributesOf,
  type AttributeReader,
  type Message,
  type MessageWriter,
  type RawAttribute,
} from '../message.ts';

export type TableFamily = 'ip' | 'ip6' | 'inet' | 'arp' | 'bridge' | 'netdev';

const familyNumbers: Readonly<Record<TableFamily, number>> = {
  inet: 1,
  ip: 2,
  arp: 3,
  netdev: 5,
  bridge: 7,
  ip6: 10,
};

export function familyNumber(family: TableFamily): number {
  return familyNumbers[family];
}

export function familyName(number: number): TableFamily {
  for (const [name, value] of Object.entries(familyNumbers)) if (value === number) return name as TableFamily;
  return 'inet';
}

/** Which table something is in. */
export interface TableName {
  readonly family: TableFamily;
  readonly name: string;
}

interface Described {
  /** Up to 127 bytes. */
  readonly comment?: string;
  /** Given by the kernel. */
  readonly handle?: bigint;
  /** Attributes without a field here, as received. */
  readonly unknown?: readonly RawAttribute[];
}

export interface Table extends Described, TableName {
  readonly kind: 'table';
  /** 1 dormant, 2 owner, 4 persist */
  readonly flags?: number;
}

export type HookName = 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting';

export interface Hook {
  readonly type: 'nat' | 'filter' | 'route';
  readonly hook: HookName;
  readonly priority: number;
  /** Absent: accept. */
  readonly policy?: 'accept' | 'drop';
}

export interface Chain extends Described {
  readonly kind: 'chain';
  readonly table: TableName;
  readonly name: string;
  /** Base chains only. */
  readonly hook?: Hook;
}

export interface Rule extends Described {
  readonly kind: 'rule';
  readonly table: TableName;
  readonly chain: string;
  readonly expressions: readonly Expression[];
}

/** NFT_SET_… */
export const setFlags = {
  anonymous: 1,
  constant: 2,
  interval: 4,
  map: 8,
  timeout: 0x10,
  dynamic: 0x20,
  concat: 0x80,
} as const;

/** A set, or a map if it has a value. */
export interface NftSet extends Described {
  readonly kind: 'set';
  readonly table: TableName;
  readonly name: string;
  /** One type, or the parts of a concatenation. */
  readonly key: readonly TypeName[];
  /** Shown as `typeof …` instead of the types, if all parts are known; needed where a type has no size (integer). */
  readonly keySelectors?: readonly Selector[];
  /** Maps: what a key leads to. */
  readonly value?: 'verdict' | readonly TypeName[];
  readonly valueSelectors?: readonly Selector[];
  /** Bits of `setFlags`; `map` (and `concat` for intervals of concatenations) are added by `map` and `set`. */
  readonly flags: number;
  /** Milliseconds that elements live; needs the flag timeout. */
  readonly timeout?: number;
  /** Most elements. */
  readonly size?: number;
  /** A number unique in the batch, for anonymous sets. */
  readonly id?: number;
}

/** One element of a set; keys and values are bytes (`concatBytes`). */
export interface Element {
  readonly key: Uint8Array;
  /** The last key of a range, in interval sets of concatenations. */
  readonly keyEnd?: Uint8Array;
  readonly data?: Uint8Array;
  readonly verdict?: Verdict;
  /** 1 = the first key behind an interval, in interval sets of one type; 2 = catch-all. */
  readonly flags?: number;
  /** Milliseconds. */
  readonly timeout?: number;
  /** Milliseconds left. */
  readonly expires?: number;
  readonly comment?: string;
  readonly unknown?: readonly RawAttribute[];
}

const hookNumbers: readonly HookName[] = ['prerouting', 'input', 'forward', 'output', 'postrouting'];

export function table(
  family: TableFamily,
  name: string,
  more: { comment?: string; flags?: number } = {},
): Table {
  return { kind: 'table', family, name, ...more };
}

export function chain(table: TableName, name: string, hook?: Hook, comment?: string): Chain {
  return {
    kind: 'chain',
    table: { family: table.family, name: table.name },
    name,
    ...(hook === undefined ? {} : { hook }),
    ...(comment === undefined ? {} : { comment }),
  };
}

/** A rule from statements (see statements.ts). */
export function rule(
  table: TableName,
  chain: string,
  statements: readonly (readonly Expression[])[],
  comment?: string,
): Rule {
  return {
    kind: 'rule',
    table: { family: table.family, name: table.name },
    chain,
    expressions: statements.flat(),
    ...(comment === undefined ? {} : { comment }),
  };
}

export interface SetOptions {
  readonly flags?: readonly (keyof typeof setFlags)[];
  readonly timeout?: number;
  readonly size?: number;
  readonly comment?: string;
  readonly id?: number;
}

/** Types, or selectors (`typeof …`). */
export type KeySpec = readonly TypeName[] | readonly Selector[];

function isSelectors(spec: KeySpec): spec is readonly Selector[] {
  return typeof spec[0] === 'object';
}

function makeSet(
  table: TableName,
  name: string,
  key: KeySpec,
  value: 'verdict' | KeySpec | undefined,
  options: SetOptions,
): NftSet {
  let flags = value === undefined ? 0 : setFlags.map;
  for (const flag of options.flags ?? []) flags |= setFlags[flag];
  if (key.length > 1 && (flags & setFlags.interval) !== 0) flags |= setFlags.concat;
  return {
    kind: 'set',
    table: { family: table.family, name: table.name },
    name,
    key: isSelectors(key) ? key.map(selectorType) : key,
    ...(isSelectors(key) ? { keySelectors: key } : {}),
    ...(value === undefined
      ? {}
      : { value: value === 'verdict' ? value : isSelectors(value) ? value.map(selectorType) : value }),
    ...(value !== undefined && value !== 'verdict' && isSelectors(value) ? { valueSelectors: value } : {}),
    flags,
    ...(options.timeout === undefined ? {} : { timeout: options.timeout }),
    ...(options.size === undefined ? {} : { size: options.size }),
    ...(options.comment === undefined ? {} : { comment: options.comment }),
    ...(options.id === undefined ? {} : { id: options.id }),
  };
}

export function set(table: TableName, name: string, key: KeySpec, options: SetOptions = {}): NftSet {
  return makeSet(table, name, key, undefined, options);
}

export function map(
  table: TableName,
  name: string,
  key: KeySpec,
  value: 'verdict' | KeySpec,
  options: SetOptions = {},
): NftSet {
  return makeSet(table, name, key, value, options);
}

/** NFTNL_UDATA_…_COMMENT of tables, chains, rules and elements is 0. */
const UDATA_COMMENT = 0;
/** enum nftnl_udata_set_types */
const UDATA_SET_KEYBYTEORDER = 0;
const UDATA_SET_DATABYTEORDER = 1;
const UDATA_SET_KEY_TYPEOF = 3;
const UDATA_SET_DATA_TYPEOF = 4;
const UDATA_SET_DATA_INTERVAL = 6;
const UDATA_SET_COMMENT = 7;

const VERDICT_TYPE = 0xffffff00;

/** True if the attribute is among those kept as they came, so that it must not be written a second time. */
function isKept(kept: readonly RawAttribute[] | undefined, type: number): boolean {
  return kept !== undefined && kept.some((attribute) => (attribute.type & 0x3fff) === type);
}

function writeComment(
  writer: MessageWriter,
  type: number,
  comment: string | undefined,
  kept: readonly RawAttribute[] | undefined,
): void {
  if (comment === undefined || isKept(kept, type)) return;
  writer.data(type, writeUserdata([{ type: UDATA_COMMENT, value: commentBytes(comment) }]));
}

export function writeTable(writer: MessageWriter, table: Table): void {
  writer.string(1, table.name);
  writer.u32(2, table.flags ?? 0);
  writeComment(writer, 6, table.comment, table.unknown);
  for (const attribute of table.unknown ?? []) writer.attribute(attribute);
}

export function writeChain(writer: MessageWriter, chain: Chain): void {
  writer.string(1, chain.table.name);
  writer.string(3, chain.name);
  const { hook } = chain;
  if (hook !== undefined) {
    writer.string(7, hook.type);
    if (hook.policy !== undefined) writer.u32(5, hook.policy === 'drop' ? 0 : 1);
    const start = writer.beginNested(4);
    writer.u32(1, hookNumbers.indexOf(hook.hook));
    writer.u32(2, hook.priority);
    writer.endNested(start);
  }
  writeComment(writer, 12, chain.comment, chain.unknown);
  for (const attribute of chain.unknown ?? []) writer.attribute(attribute);
}

export function writeRule(writer: MessageWriter, rule: Rule): void {
  writer.string(1, rule.table.name);
  writer.string(2, rule.chain);
  writeExpressions(writer, 4, rule.expressions);
  writeComment(writer, 7, rule.comment, rule.unknown);
  for (const attribute of rule.unknown ?? []) writer.attribute(attribute);
}

export function writeSet(writer: MessageWriter, set: NftSet): void {
  writer.string(1, set.table.name);
  writer.string(2, set.name);
  writer.u32(3, set.flags);
  const { unknown } = set;
  if (!isKept(unknown, 4)) {
    writer.u32(4, typeNumber(set.key));
    writer.u32(5, sizeOf(set.key));
  }
  if (set.value === 'verdict') {
    writer.u32(6, VERDICT_TYPE);
    writer.u32(7, 0);
  } else if (set.value !== undefined && !isKept(unknown, 6)) {
    writer.u32(6, typeNumber(set.value));
    writer.u32(7, sizeOf(set.value));
  }
  writer.u32(10, set.id ?? 0);
  const parts = (set.flags & setFlags.concat) !== 0;
  if (set.size !== undefined || parts) {
    const start = writer.beginNested(9);
    if (set.size !== undefined) writer.u32(1, set.size);
    if (parts) {
      const concat = writer.beginNested(2);
      for (const type of set.key) {
        const field = writer.beginNested(1);
        writer.u32(1, sizeOf([type]));
        writer.endNested(field);
      }
      writer.endNested(concat);
    }
    writer.endNested(start);
  }
  if (set.timeout !== undefined) writer.u64(11, BigInt(set.timeout));
  if (!isKept(unknown, 13)) writer.data(13, writeUserdata(setUserdata(set)));
  for (const attribute of unknown ?? []) writer.attribute(attribute);
}

/** nft's enum byteorder: 0 none, 1 host, 2 big endian */
function byteOrder(types: readonly TypeName[] | 'verdict'): Uint8Array {
  const type = types === 'verdict' || types.length > 1 ? undefined : types[0];
  return numberBytes(type === undefined ? 0 : isHostOrder(type) ? 1 : 2, 4, true);
}

function setUserdata(set: NftSet): UserdataEntry[] {
  const entries: UserdataEntry[] = [{ type: UDATA_SET_KEYBYTEORDER, value: byteOrder(set.key) }];
  if (set.value !== undefined) entries.push({ type: UDATA_SET_DATABYTEORDER, value: byteOrder(set.value) });
  if (set.keySelectors !== undefined || set.key.length > 1) {
    entries.push({ type: UDATA_SET_KEY_TYPEOF, value: describeKey(set.keySelectors) });
  }
  if (set.valueSelectors !== undefined || (set.value !== 'verdict' && (set.value?.length ?? 0) > 1)) {
    entries.push({ type: UDATA_SET_DATA_TYPEOF, value: describeKey(set.valueSelectors) });
  }
  if (set.value !== undefined) entries.push({ type: UDATA_SET_DATA_INTERVAL, value: new Uint8Array(4) });
  if (set.comment !== undefined) entries.push({ type: UDATA_SET_COMMENT, value: commentBytes(set.comment) });
  return entries;
}

/** Writes one entry of an element list; called 100,000 times for a big table. */
export function writeElement(writer: MessageWriter, element: Element): void {
  const start = writer.beginNested(1);
  if (element.flags !== undefined) writer.u32(3, element.flags);
  if (element.timeout !== undefined) writeMilliseconds(writer, 4, element.timeout);
  if (element.expires !== undefined) writeMilliseconds(writer, 5, element.expires);
  writeValue(writer, 1, element.key);
  if (element.keyEnd !== undefined) writeValue(writer, 10, element.keyEnd);
  if (element.data !== undefined) writeValue(writer, 2, element.data);
  else if (element.verdict !== undefined) writeVerdict(writer, 2, element.verdict);
  if (element.comment !== undefined) writeComment(writer, 6, element.comment, element.unknown);
  if (element.unknown !== undefined) for (const attribute of element.unknown) writer.attribute(attribute);
  writer.endNested(start);
}

function writeMilliseconds(writer: MessageWriter, type: number, milliseconds: number): void {
  writer.u64Parts(type, Math.floor(milliseconds / 0x100000000), milliseconds >>> 0);
}

function commentIn(bytes: Uint8Array): string | undefined {
  const value = readUserdata(bytes).find((entry) => entry.type === UDATA_COMMENT)?.value;
  return value === undefined ? undefined : readComment(value);
}

function familyOf(message: Message): TableFamily {
  return familyName(message.bytes[message.start]!);
}

/** Userdata goes back as it came, unless all we make of it is the comment. */
function keepUserdata(unknown: RawAttribute[], raw: RawAttribute, comment: string | undefined): void {
  if (comment === undefined || readUserdata(raw.value).length !== 1) unknown.push(raw);
}

/** Drops fields that are undefined, and an empty list of unknown attributes. */
function compact<T extends object>(value: T): T {
  for (const [name, field] of Object.entries(value)) {
    if (field === undefined || (name === 'unknown' && (field as readonly unknown[]).length === 0)) {
      delete (value as Record<string, unknown>)[name];
    }
  }
  return value;
}

/** Attributes that only count and label in the kernel's answers: not part of what an object is. */
const tableExtras = new Set([3, 5]);
const chainExtras = new Set([6, 9]);
const ruleExtras = new Set([6]);

export function readTable(message: Message): Table {
  const reader = attributesOf(message, NFGENMSG_LENGTH);
  const unknown: RawAttribute[] = [];
  let name = '';
  let flags: number | undefined;
  let handle: bigint | undefined;
  let comment: string | undefined;
  while (reader.next()) {
    if (reader.type === 1) name = reader.string();
    else if (reader.type === 2) flags = reader.u32();
    else if (reader.type === 4) handle = reader.u64();
    else if (reader.type === 6) keepUserdata(unknown, reader.raw(), (comment = commentIn(reader.data())));
    else if (!tableExtras.has(reader.type)) unknown.push(reader.raw());
  }
  return compact({
    kind: 'table',
    family: familyOf(message),
    name,
    flags: flags === 0 ? undefined : flags,
    handle,
    comment,
    unknown,
  } as Table);
}

export function readChain(message: Message): Chain {
  const reader = attributesOf(message, NFGENMSG_LENGTH);
  const unknown: RawAttribute[] = [];
  let tableName = '';
  let name = '';
  let handle: bigint | undefined;
  let comment: string | undefined;
  let type = 'filter';
  let policy: number | undefined;
  let priority = 0;
  let hook: HookName | undefined;
  while (reader.next()) {
    switch (reader.type) {
      case 1:
        tableName = reader.string();
        break;
      case 2:
        handle = reader.u64();
        break;
      case 3:
        name = reader.string();
        break;
      case 4: {
        const inner = reader.nested();
        while (inner.next()) {
          if (inner.type === 1) hook = hookNumbers[inner.u32()];
          else if (inner.type === 2) priority = inner.u32() | 0;
        }
        break;
      }
      case 5:
        policy = reader.u32();
        break;
      case 7:
        type = reader.string();
        break;
      case 10:
        // NFTA_CHAIN_FLAGS: 1 says again that it is a base chain.
        if ((reader.u32() & ~1) !== 0) unknown.push(reader.raw());
        break;
      case 12:
        keepUserdata(unknown, reader.raw(), (comment = commentIn(reader.data())));
        break;
      default:
        if (!chainExtras.has(reader.type)) unknown.push(reader.raw());
    }
  }
  return compact({
    kind: 'chain',
    table: { family: familyOf(message), name: tableName },
    name,
    hook:
      hook === undefined
        ? undefined
        : compact({
            type,
            hook,
            priority,
            policy: policy === undefined ? undefined : policy === 0 ? 'drop' : 'accept',
          }),
    comment,
    handle,
    unknown,
  } as Chain);
}

export function readRule(message: Message): Rule {
  const reader = attributesOf(message, NFGENMSG_LENGTH);
  const unknown: RawAttribute[] = [];
  let tableName = '';
  let chainName = '';
  let handle: bigint | undefined;
  let comment: string | undefined;
  let expressions: Expression[] = [];
  while (reader.next()) {
    if (reader.type === 1) tableName = reader.string();
    else if (reader.type === 2) chainName = reader.string();
    else if (reader.type === 3) handle = reader.u64();
    else if (reader.type === 4) expressions = readExpressions(reader.nested());
    else if (reader.type === 7) keepUserdata(unknown, reader.raw(), (comment = commentIn(reader.data())));
    else if (!ruleExtras.has(reader.type)) unknown.push(reader.raw());
  }
  return compact({
    kind: 'rule',
    table: { family: familyOf(message), name: tableName },
    chain: chainName,
    expressions,
    comment,
    handle,
    unknown,
  } as Rule);
}

export function readSet(message: Message): NftSet {
  const reader = attributesOf(message, NFGENMSG_LENGTH);
  const unknown: RawAttribute[] = [];
  let tableName = '';
  const fields: { -readonly [K in keyof NftSet]?: NftSet[K] | undefined } = {};
  let dataType: number | undefined;
  let userdata: RawAttribute | undefined;
  const keyAttributes: RawAttribute[] = [];
  const dataAttributes: RawAttribute[] = [];
  while (reader.next()) {
    switch (reader.type) {
      case 1:
        tableName = reader.string();
        break;
      case 2:
        fields.name = reader.string();
        break;
      case 3:
        fields.flags = reader.u32();
        break;
      case 4:
        fields.key = typesOf(reader.u32());
        keyAttributes.push(reader.raw());
        break;
      case 5:
        keyAttributes.push(reader.raw());
        break;
      case 6:
        dataType = reader.u32();
        dataAttributes.push(reader.raw());
        break;
      case 7:
        dataAttributes.push(reader.raw());
        break;
      case 9: {
        const inner = reader.nested();
        // The lengths of the parts (2) follow from the types too.
        while (inner.next()) if (inner.type === 1) fields.size = inner.u32();
        break;
      }
      case 10:
        if (reader.u32() !== 0) fields.id = reader.u32();
        break;
      case 11:
        fields.timeout = Number(reader.u64());
        break;
      case 13:
        userdata = reader.raw();
        break;
      case 16:
        fields.handle = reader.u64();
        break;
      default:
        unknown.push(reader.raw());
    }
  }
  if (dataType !== undefined) fields.value = dataType === VERDICT_TYPE ? 'verdict' : typesOf(dataType);
  for (const entry of userdata === undefined ? [] : readUserdata(userdata.value)) {
    if (entry.type === UDATA_SET_KEY_TYPEOF) fields.keySelectors = readDescription(entry.value);
    else if (entry.type === UDATA_SET_DATA_TYPEOF) fields.valueSelectors = readDescription(entry.value);
    else if (entry.type === UDATA_SET_COMMENT) fields.comment = readComment(entry.value);
  }
  // Lengths follow from types that we know; of others number and length stay as they are.
  if (fields.key?.includes('unknown') === true) unknown.push(...keyAttributes);
  if (fields.value?.includes('unknown') === true) unknown.push(...dataAttributes);
  const set = compact({
    kind: 'set',
    table: { family: familyOf(message), name: tableName },
    name: fields.name ?? '',
    key: fields.key ?? [],
    flags: fields.flags ?? 0,
    keySelectors: fields.keySelectors,
    value: fields.value,
    valueSelectors: fields.valueSelectors,
    timeout: fields.timeout,
    size: fields.size,
    comment: fields.comment,
    handle: fields.handle,
    id: fields.id,
  } as NftSet);
  // What nft noted beyond (constants, merging of intervals) is kept as a whole.
  if (userdata !== undefined && !sameBytes(writeUserdata(setUserdata(set)), userdata.value))
    unknown.push(userdata);
  return unknown.length === 0 ? set : { ...set, unknown };
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

/** The set that a message about elements belongs to, and its elements. */
export interface SetElements {
  readonly table: TableName;
  readonly set: string;
  readonly elements: Element[];
}

export function readElements(message: Message): SetElements {
  const reader = attributesOf(message, NFGENMSG_LENGTH);
  let tableName = '';
  let setName = '';
  const elements: Element[] = [];
  while (reader.next()) {
    if (reader.type === 1) tableName = reader.string();
    else if (reader.type === 2) setName = reader.string();
    else if (reader.type === 3) {
      const list = reader.nested();
      // nft numbers them, the kernel does not.
      while (list.next()) elements.push(readElement(list.nested()));
    }
  }
  return { table: { family: familyOf(message), name: tableName }, set: setName, elements };
}

/** Reads one entry of an element list. */
export function readElement(reader: AttributeReader): Element {
  const element: { -readonly [K in keyof Element]: Element[K] } = { key: noBytes };
  let unknown: RawAttribute[] | undefined;
  while (reader.next()) {
    switch (reader.type) {
      case 1:
        element.key = valueIn(reader);
        break;
      case 2: {
        if (reader.size >= 4 && isValue(reader)) {
          element.data = valueIn(reader);
          break;
        }
        const data = readData(reader.nested());
        if ('verdict' in data) element.verdict = data.verdict;
        else element.data = data.value;
        break;
      }
      case 3:
        if (reader.u32() !== 0) element.flags = reader.u32();
        break;
      case 4:
        element.timeout = Number(reader.u64());
        break;
      case 5:
        element.expires = Number(reader.u64());
        break;
      case 6: {
        const comment = commentIn(reader.data());
        if (comment === undefined) (unknown ??= []).push(reader.raw());
        else element.comment = comment;
        break;
      }
      case 10:
        element.keyEnd = valueIn(reader);
        break;
      default:
        (unknown ??= []).push(reader.raw());
    }
  }
  if (unknown !== undefined) element.unknown = unknown;
  return element;
}

const noBytes = new Uint8Array(0);

/** True if the data attribute begins with NFTA_DATA_VALUE. */
function isValue(reader: AttributeReader): boolean {
  return reader.bytes[reader.start + 2] === 1 && (reader.bytes[reader.start + 3]! & 0x3f) === 0;
}

/** The value in a data attribute, without readers for its one inner attribute: dumps have 100,000 of them. */
function valueIn(reader: AttributeReader): Uint8Array {
  const { bytes, start } = reader;
  if (reader.size < 4 || !isValue(reader)) return noBytes;
  const end = start + (bytes[start]! | (bytes[start + 1]! << 8));
  return end <= reader.end ? bytes.slice(start + 4, end) : noBytes;
}
