/**
 * What a nf_tables transaction is about: tables, chains, rules, sets (and maps), elements. Plain values.
 */
import { type Expression, type Selector, type Verdict } from './expressions.ts';
import { selectorType } from './selectors.ts';
import type { TypeName } from './types.ts';
import type { RawAttribute } from '../message.ts';

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

/** `enum nft_table_flags` */
export const tableFlags = { dormant: 1, owner: 2, persist: 4 } as const;

export interface Table extends Described, TableName {
  readonly kind: 'table';
  /** See `tableFlags`. */
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

/** By their numbers in the kernel, NF_INET_… */
export const hookNumbers: readonly HookName[] = ['prerouting', 'input', 'forward', 'output', 'postrouting'];

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
