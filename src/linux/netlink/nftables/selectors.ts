/** What rules look at: packet fields and metadata, with the names, types and descriptions that `nft` has for them. */
import { bytesNumber, numberBytes, type TypeName } from './types.ts';
import { readUserdata, writeUserdata, type UserdataEntry } from './userdata.ts';
import type { ConntrackKey, MetaKey, PayloadBase, PayloadSelector, Selector } from './expressions.ts';

interface Field {
  readonly text: string;
  readonly base: PayloadBase;
  readonly offset: number;
  readonly length: number;
  readonly type: TypeName;
  /** How `nft` describes the field in a set's userdata: its protocol and its number in that. */
  readonly protocol: number;
  readonly field: number;
}

const PROTO_DESC_TH = 11;
const PROTO_DESC_IP = 12;
const PROTO_DESC_IP6 = 13;

const fields: readonly Field[] = [
  header('ip protocol', 'network', 9, 1, 'inet_proto', PROTO_DESC_IP, 9),
  header('ip saddr', 'network', 12, 4, 'ipv4_addr', PROTO_DESC_IP, 11),
  header('ip daddr', 'network', 16, 4, 'ipv4_addr', PROTO_DESC_IP, 12),
  header('ip6 nexthdr', 'network', 6, 1, 'inet_proto', PROTO_DESC_IP6, 6),
  header('ip6 saddr', 'network', 8, 16, 'ipv6_addr', PROTO_DESC_IP6, 8),
  header('ip6 daddr', 'network', 24, 16, 'ipv6_addr', PROTO_DESC_IP6, 9),
  header('th sport', 'transport', 0, 2, 'inet_service', PROTO_DESC_TH, 1),
  header('th dport', 'transport', 2, 2, 'inet_service', PROTO_DESC_TH, 2),
];

function header(
  text: string,
  base: PayloadBase,
  offset: number,
  length: number,
  type: TypeName,
  protocol: number,
  field: number,
): Field {
  return { text, base, offset, length, type, protocol, field };
}

function select(text: string): PayloadSelector {
  const field = fields.find((one) => one.text === text)!;
  return { kind: 'payload', base: field.base, offset: field.offset, length: field.length };
}

export const ip = { protocol: select('ip protocol'), saddr: select('ip saddr'), daddr: select('ip daddr') };
export const ip6 = { nexthdr: select('ip6 nexthdr'), saddr: select('ip6 saddr'), daddr: select('ip6 daddr') };
/** The transport header's ports, whatever the protocol. */
export const th = { sport: select('th sport'), dport: select('th dport') };
export const meta = {
  mark: { kind: 'meta', key: 'mark' },
  priority: { kind: 'meta', key: 'priority' },
  l4proto: { kind: 'meta', key: 'l4proto' },
  nfproto: { kind: 'meta', key: 'nfproto' },
  iifname: { kind: 'meta', key: 'iifname' },
  oifname: { kind: 'meta', key: 'oifname' },
} as const satisfies Record<string, Selector>;
export const ct = {
  state: { kind: 'ct', key: 'state' },
  status: { kind: 'ct', key: 'status' },
  direction: { kind: 'ct', key: 'direction' },
} as const satisfies Record<string, Selector>;
export const fib = {
  /** `fib saddr type` */
  saddrType: { kind: 'fib', result: 'type', flags: 1 },
  /** `fib daddr type` */
  daddrType: { kind: 'fib', result: 'type', flags: 2 },
} as const satisfies Record<string, Selector>;

/** `numgen random mod MODULUS`: a number from 0 to MODULUS - 1, different for every packet. */
export function numgen(modulus: number, type: 'random' | 'inc' = 'random', offset = 0): Selector {
  return { kind: 'numgen', type, modulus, offset };
}

const metaTypes: readonly (readonly [key: MetaKey, type: TypeName, size: number])[] = [
  ['mark', 'mark', 4],
  ['priority', 'classid', 4],
  ['l4proto', 'inet_proto', 1],
  ['nfproto', 'nf_proto', 1],
  ['iifname', 'ifname', 16],
  ['oifname', 'ifname', 16],
  ['iif', 'ifindex', 4],
  ['oif', 'ifindex', 4],
];
const conntrackTypes: readonly (readonly [key: ConntrackKey, type: TypeName, size: number])[] = [
  ['state', 'ct_state', 4],
  ['status', 'ct_status', 4],
  ['direction', 'ct_dir', 1],
  ['mark', 'mark', 4],
];

function fieldOf(selector: PayloadSelector): Field | undefined {
  const { base, offset, length } = selector;
  const candidates = fields.filter((one) => one.base === base && one.offset === offset);
  // Fields of IPv4 and IPv6 begin at different places but for their length.
  return candidates.find((one) => one.length === length) ?? candidates.find((one) => length < one.length);
}

/** The type of what a selector gives. */
export function selectorType(selector: Selector): TypeName {
  switch (selector.kind) {
    case 'payload':
      return fieldOf(selector)?.type ?? 'unknown';
    case 'meta':
      return metaTypes.find(([key]) => key === selector.key)?.[1] ?? 'unknown';
    case 'ct':
      return conntrackTypes.find(([key]) => key === selector.key)?.[1] ?? 'unknown';
    case 'fib':
      return selector.result === 'type' ? 'fib_addrtype' : 'unknown';
    case 'numgen':
      return 'integer';
  }
}

/** Bytes that a selector puts into its register. */
export function selectorSize(selector: Selector): number {
  switch (selector.kind) {
    case 'payload':
      return selector.length;
    case 'meta':
      return metaTypes.find(([key]) => key === selector.key)?.[2] ?? 4;
    case 'ct':
      return conntrackTypes.find(([key]) => key === selector.key)?.[2] ?? 4;
    default:
      return 4;
  }
}

/** The selector in nft syntax: `ip daddr`, `numgen random mod 3`. */
export function printSelector(selector: Selector): string {
  switch (selector.kind) {
    case 'payload': {
      const field = fieldOf(selector);
      if (field !== undefined) return field.text;
      const base = { link: 'll', network: 'nh', transport: 'th' }[selector.base];
      return `@${base},${selector.offset * 8},${selector.length * 8}`;
    }
    case 'meta':
      // nft leaves the word out for these.
      return ['iif', 'oif', 'iifname', 'oifname'].includes(String(selector.key))
        ? String(selector.key)
        : `meta ${selector.key}`;
    case 'ct':
      return `ct ${selector.key}`;
    case 'fib': {
      const names = ['saddr', 'daddr', 'mark', 'iif', 'oif'].filter(
        (_, bit) => (selector.flags & (1 << bit)) !== 0,
      );
      return `fib ${names.join(' . ')} ${selector.result}`;
    }
    case 'numgen':
      return `numgen ${selector.type} mod ${selector.modulus}${selector.offset === 0 ? '' : ` offset ${selector.offset}`}`;
  }
}

/** enum expr_types of nft */
const EXPR_META = 9;
const EXPR_PAYLOAD = 7;
const EXPR_CONCAT = 13;
const EXPR_NUMGEN = 23;

const u32 = (value: number): Uint8Array => numberBytes(value, 4, true);
const metaKeyNumbers: Readonly<Record<string, number>> = {
  priority: 2,
  mark: 3,
  iif: 4,
  oif: 5,
  iifname: 6,
  oifname: 7,
  nfproto: 15,
  l4proto: 16,
};

/** What `nft` writes for `typeof …` into a set's userdata; undefined for selectors that it cannot be told. */
function describe(selector: Selector): UserdataEntry[] | undefined {
  const entry = (expression: number, values: readonly number[]): UserdataEntry[] => [
    { type: 0, value: u32(expression) },
    { type: 1, value: writeUserdata(values.map((value, type) => ({ type, value: u32(value) }))) },
  ];
  if (selector.kind === 'payload') {
    const field = fieldOf(selector);
    return field === undefined ? undefined : entry(EXPR_PAYLOAD, [field.protocol, field.field]);
  }
  if (selector.kind === 'meta') {
    const key = metaKeyNumbers[selector.key];
    return key === undefined ? undefined : entry(EXPR_META, [key]);
  }
  if (selector.kind === 'numgen') {
    return entry(EXPR_NUMGEN, [selector.type === 'random' ? 1 : 0, selector.modulus, selector.offset]);
  }
  return undefined;
}

/** The userdata of `typeof A . B . C`, or of a concatenation that is given by types only (no selectors). */
export function describeKey(selectors: readonly Selector[] | undefined): Uint8Array {
  const concat = [{ type: 0, value: u32(EXPR_CONCAT) }];
  if (selectors === undefined) return writeUserdata([...concat, { type: 1, value: new Uint8Array(0) }]);
  const parts = selectors.map(describe);
  if (parts.length === 1 && parts[0] !== undefined) return writeUserdata(parts[0]);
  const inner = parts.map((part, type) => ({ type, value: writeUserdata(part ?? []) }));
  return writeUserdata([...concat, { type: 1, value: writeUserdata(inner) }]);
}

/** The selectors that a set's userdata names; undefined if there are none, or unknown ones. */
export function readDescription(bytes: Uint8Array): Selector[] | undefined {
  const entries = readUserdata(bytes);
  const kind = numberIn(entries, 0);
  const body = entries.find((one) => one.type === 1)?.value;
  if (kind === undefined || body === undefined || body.length === 0) return undefined;
  if (kind !== EXPR_CONCAT) {
    const selector = readSelector(kind, readUserdata(body));
    return selector === undefined ? undefined : [selector];
  }
  const selectors: Selector[] = [];
  for (const part of readUserdata(body)) {
    const inner = readUserdata(part.value);
    const expression = numberIn(inner, 0);
    const values = inner.find((one) => one.type === 1)?.value;
    const selector =
      expression === undefined || values === undefined
        ? undefined
        : readSelector(expression, readUserdata(values));
    if (selector === undefined) return undefined;
    selectors.push(selector);
  }
  return selectors;
}

function readSelector(expression: number, values: readonly UserdataEntry[]): Selector | undefined {
  if (expression === EXPR_PAYLOAD) {
    const protocol = numberIn(values, 0);
    const number = numberIn(values, 1);
    const field = fields.find((one) => one.protocol === protocol && one.field === number);
    return field === undefined ? undefined : select(field.text);
  }
  if (expression === EXPR_META) {
    const number = numberIn(values, 0);
    const key = Object.keys(metaKeyNumbers).find((name) => metaKeyNumbers[name] === number);
    return key === undefined ? undefined : { kind: 'meta', key: key as MetaKey };
  }
  if (expression === EXPR_NUMGEN) {
    const type = numberIn(values, 0) === 1 ? 'random' : 'inc';
    return { kind: 'numgen', type, modulus: numberIn(values, 1) ?? 0, offset: numberIn(values, 2) ?? 0 };
  }
  return undefined;
}

function numberIn(entries: readonly UserdataEntry[], type: number): number | undefined {
  const value = entries.find((one) => one.type === type)?.value;
  return value === undefined ? undefined : bytesNumber(value, true);
}
