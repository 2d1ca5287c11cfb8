/**
 * Tables, chains, rules and sets in netlink messages: attributes are written in the order `nft` sends them, and those
 * that are not known here are kept as they came.
 */
import { commentIn, familyOf, isKept, writeComment } from './comments.ts';
import { readExpressions, writeExpressions, type Expression } from './expressions.ts';
import {
  hookNumbers,
  setFlags,
  type Chain,
  type HookName,
  type NftSet,
  type Rule,
  type Table,
} from './objects.ts';
import { describeKey, readDescription } from './selectors.ts';
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

/** enum nftnl_udata_set_types */
const UDATA_SET_KEYBYTEORDER = 0;
const UDATA_SET_DATABYTEORDER = 1;
const UDATA_SET_KEY_TYPEOF = 3;
const UDATA_SET_DATA_TYPEOF = 4;
const UDATA_SET_DATA_INTERVAL = 6;
const UDATA_SET_COMMENT = 7;

const VERDICT_TYPE = 0xffffff00;
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

/** Attributes that are read the same way in tables, chains and rules. */
interface CommonAttributes {
  readonly handle: number;
  readonly comment: number;
  /** They only count and label in the kernel's answers: not part of what an object is. */
  readonly extras: readonly number[];
}

/** Reads an object whose own attributes `take` knows (it returns false for others); what nobody knows is kept. */
function readObject(
  message: Message,
  numbers: CommonAttributes,
  take: (reader: AttributeReader, unknown: RawAttribute[]) => boolean,
): Pick<Table, 'handle' | 'comment' | 'unknown'> {
  const reader = attributesOf(message, NFGENMSG_LENGTH);
  const unknown: RawAttribute[] = [];
  let handle: bigint | undefined;
  let comment: string | undefined;
  while (reader.next()) {
    if (reader.type === numbers.handle) handle = reader.u64();
    else if (reader.type === numbers.comment)
      keepUserdata(unknown, reader.raw(), (comment = commentIn(reader.data())));
    else if (!take(reader, unknown) && !numbers.extras.includes(reader.type)) unknown.push(reader.raw());
  }
  return { handle, comment, unknown } as Pick<Table, 'handle' | 'comment' | 'unknown'>;
}

const tableAttributes: CommonAttributes = { handle: 4, comment: 6, extras: [3, 5] };
const chainAttributes: CommonAttributes = { handle: 2, comment: 12, extras: [6, 9] };
const ruleAttributes: CommonAttributes = { handle: 3, comment: 7, extras: [6] };

export function readTable(message: Message): Table {
  let name = '';
  let flags = 0;
  const common = readObject(message, tableAttributes, (reader) => {
    if (reader.type === 1) name = reader.string();
    else if (reader.type === 2) flags = reader.u32();
    else return false;
    return true;
  });
  const family = familyOf(message);
  return compact({ kind: 'table', family, name, flags: flags === 0 ? undefined : flags, ...common } as Table);
}

export function readChain(message: Message): Chain {
  let table = '';
  let name = '';
  let type = 'filter';
  let policy: number | undefined;
  let priority = 0;
  let hook: HookName | undefined;
  const common = readObject(message, chainAttributes, (reader, unknown) => {
    if (reader.type === 1) table = reader.string();
    else if (reader.type === 3) name = reader.string();
    else if (reader.type === 4) {
      const inner = reader.nested();
      while (inner.next()) {
        if (inner.type === 1) hook = hookNumbers[inner.u32()];
        else if (inner.type === 2) priority = inner.u32() | 0;
      }
    } else if (reader.type === 5) policy = reader.u32();
    else if (reader.type === 7) type = reader.string();
    else if (reader.type === 10) {
      // NFTA_CHAIN_FLAGS: 1 says again that it is a base chain.
      if ((reader.u32() & ~1) !== 0) unknown.push(reader.raw());
    } else return false;
    return true;
  });
  const policyName = policy === undefined ? undefined : policy === 0 ? 'drop' : 'accept';
  return compact({
    kind: 'chain',
    table: { family: familyOf(message), name: table },
    name,
    hook: hook === undefined ? undefined : compact({ type, hook, priority, policy: policyName }),
    ...common,
  } as Chain);
}

export function readRule(message: Message): Rule {
  let table = '';
  let chain = '';
  let expressions: Expression[] = [];
  const common = readObject(message, ruleAttributes, (reader) => {
    if (reader.type === 1) table = reader.string();
    else if (reader.type === 2) chain = reader.string();
    else if (reader.type === 4) expressions = readExpressions(reader.nested());
    else return false;
    return true;
  });
  const family = familyOf(message);
  return compact({ kind: 'rule', table: { family, name: table }, chain, expressions, ...common });
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
