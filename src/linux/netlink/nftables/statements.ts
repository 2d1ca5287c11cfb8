/**
 * The parts rules are written with: each function gives the expressions that `nft` makes of the statement in its
 * first line, so that the rule lists as it was meant. Put them together with `rule(table, chain, [ … ])`.
 */
import { registerAt, type Comparison, type Expression, type Load, type Selector } from './expressions.ts';
import type { TableFamily } from './objects.ts';
import { selectorSize, selectorType } from './selectors.ts';
import { isHostOrder, numberBytes, valueBytes } from './types.ts';
import { addressBytes } from '../../address-bytes.ts';

export type Statement = readonly Expression[];

/** Loads selectors one behind the other, from a 4-byte word of the registers on; whole words each. */
export function load(selectors: readonly Selector[], firstWord = 0): Load[] {
  let word = firstWord;
  return selectors.map((selector) => {
    const loaded = { ...selector, register: registerAt(word) };
    word += (selectorSize(selector) + 3) >> 2;
    return loaded;
  });
}

/** Words that a concatenation of selectors takes. */
function words(selectors: readonly Selector[]): number {
  return selectors.reduce((sum, selector) => sum + ((selectorSize(selector) + 3) >> 2), 0);
}

/** `SELECTOR VALUE`, `SELECTOR != VALUE`: a value of the selector's type (`tcp`, `10.0.0.1`, `local`, 80, `eth*`). */
export function match(selector: Selector, value: string | number, operator: Comparison = '=='): Statement {
  const bytes = valueBytes(selectorType(selector), value);
  return [...load([selector]), { kind: 'cmp', source: 1, operator, data: { value: bytes } }];
}

/** `ip saddr 10.0.0.0/8`: the leading bits of an address. */
export function matchPrefix(selector: Selector, cidr: string, operator: '==' | '!=' = '=='): Statement {
  const [address = '', prefix = ''] = cidr.split('/');
  const bytes = addressBytes(address);
  const bits = Number(prefix);
  if (!/^\d{1,3}$/.test(prefix) || bits > bytes.length * 8 || selectorSize(selector) !== bytes.length) {
    throw new RangeError(`"${cidr}" does not fit ${selectorType(selector)}`);
  }
  if (bits === bytes.length * 8) return match(selector, address, operator);
  if (bits === 0) throw new RangeError(`"${cidr}" matches everything: leave the match away`);
  const mask = bytes.map((_, index) => (0xff00 >> Math.min(8, Math.max(0, bits - index * 8))) & 0xff);
  const base = bytes.map((byte, index) => byte & mask[index]!);
  // nft compares whole bytes without a mask.
  if (bits % 8 === 0 && selector.kind === 'payload') {
    const value = base.subarray(0, bits / 8);
    return [
      ...load([{ ...selector, length: bits / 8 }]),
      { kind: 'cmp', source: 1, operator, data: { value } },
    ];
  }
  return [
    ...load([selector]),
    bitwise(mask, new Uint8Array(mask.length), false),
    { kind: 'cmp', source: 1, operator, data: { value: base } },
  ];
}

/** `th dport 30000-32767` */
export function matchRange(selector: Selector, from: string | number, to: string | number): Statement {
  const type = selectorType(selector);
  return [
    ...load([selector]),
    { kind: 'cmp', source: 1, operator: '>=', data: { value: valueBytes(type, from) } },
    { kind: 'cmp', source: 1, operator: '<=', data: { value: valueBytes(type, to) } },
  ];
}

/** `ct state new`, `ct status dnat`: any of these bits set. `none`: none of them. */
export function matchBits(selector: Selector, names: readonly string[], none = false): Statement {
  const type = selectorType(selector);
  const mask = new Uint8Array(4);
  for (const name of names) valueBytes(type, name).forEach((byte, index) => (mask[index]! |= byte));
  return [
    ...load([selector]),
    bitwise(mask, new Uint8Array(4), false),
    { kind: 'cmp', source: 1, operator: none ? '==' : '!=', data: { value: new Uint8Array(4) } },
  ];
}

/** `meta mark & MASK == VALUE` (or `!=`) */
export function matchMasked(
  selector: Selector,
  mask: number,
  operator: '==' | '!=',
  value: number,
): Statement {
  const hostOrder = isHostOrder(selectorType(selector));
  const size = selectorSize(selector);
  return [
    ...load([selector]),
    bitwise(numberBytes(mask, size, hostOrder), new Uint8Array(size), true),
    { kind: 'cmp', source: 1, operator, data: { value: numberBytes(value, size, hostOrder) } },
  ];
}

/** `written`: the operator stands in the rule's text; nft leaves it out where a mask only follows from the value. */
function bitwise(mask: Uint8Array, xor: Uint8Array, written: boolean): Expression {
  return {
    kind: 'bitwise',
    source: 1,
    register: 1,
    ...(written ? { operation: 0 } : {}),
    length: mask.length,
    mask: { value: mask },
    xor: { value: xor },
  };
}

/** `A . B @SET`, `A . B != @SET` */
export function inSet(
  selectors: readonly Selector[],
  set: string,
  options: { not?: boolean } = {},
): Statement {
  const inverted = options.not === true ? { flags: 1 } : {};
  return [...load(selectors), { kind: 'lookup', source: 1, set, ...inverted }];
}

/** `A . B vmap @MAP`: goes where the map says. `setId` only for an anonymous map of the same batch. */
export function vmap(selectors: readonly Selector[], map: string, setId?: number): Statement {
  return [
    ...load(selectors),
    { kind: 'lookup', source: 1, register: 0, set: map, ...(setId === undefined ? {} : { setId }) },
  ];
}

/** Puts what the map has for the key into the register that begins at a word (0: register 1). */
export function lookup(selectors: readonly Selector[], map: string, word = 0): Statement {
  return [...load(selectors), { kind: 'lookup', source: 1, register: registerAt(word), set: map }];
}

/** `meta mark set A . B map @MAP` */
export function markFromMap(selectors: readonly Selector[], map: string): Statement {
  return [...lookup(selectors, map), { kind: 'set meta', key: 'mark', source: 1 }];
}

/** `meta mark set VALUE` */
export function setMark(value: number): Statement {
  return [
    { kind: 'immediate', register: 1, data: { value: numberBytes(value, 4, true) } },
    { kind: 'set meta', key: 'mark', source: 1 },
  ];
}

/** `meta nftrace set 1`: from here on the kernel tells which rules the packet meets (NFNLGRP_NFTRACE). */
export const traceOn: Statement = [
  { kind: 'immediate', register: 1, data: { value: Uint8Array.of(1) } },
  { kind: 'set meta', key: 'nftrace', source: 1 },
];

/** `meta mark set meta mark | BITS` */
export function markOr(bits: number): Statement {
  return [
    { kind: 'meta', key: 'mark', register: 1 },
    bitwise(numberBytes(~bits >>> 0, 4, true), numberBytes(bits, 4, true), true),
    { kind: 'set meta', key: 'mark', source: 1 },
  ];
}

/** `meta mark set meta mark ^ BITS` */
export function markXor(bits: number): Statement {
  return [
    { kind: 'meta', key: 'mark', register: 1 },
    bitwise(numberBytes(0xffffffff, 4, true), numberBytes(bits, 4, true), true),
    { kind: 'set meta', key: 'mark', source: 1 },
  ];
}

/** `meta mark set meta mark & MASK` */
export function markAnd(mask: number): Statement {
  return [
    { kind: 'meta', key: 'mark', register: 1 },
    bitwise(numberBytes(mask, 4, true), new Uint8Array(4), true),
    { kind: 'set meta', key: 'mark', source: 1 },
  ];
}

const NF_NAT_RANGE_PROTO_SPECIFIED = 2;
const NF_NAT_RANGE_PROTO_RANDOM_FULLY = 16;

/** The number and the address words of a family. */
function natFamily(family: TableFamily): { number: number; words: number } {
  return family === 'ip6' ? { number: 10, words: 4 } : { number: 2, words: 1 };
}

/** `dnat ip to A . B map @MAP`, where the map gives `address . port`. */
export function dnatToMap(family: 'ip' | 'ip6', selectors: readonly Selector[], map: string): Statement {
  return [...lookup(selectors, map), ...dnatFromRegisters(family, 0)];
}

/** The dnat alone, to the address and port that lie in the registers from a word on (after a `lookup`). */
export function dnatFromRegisters(family: 'ip' | 'ip6', word: number): Statement {
  const { number, words } = natFamily(family);
  return [
    {
      kind: 'nat',
      type: 'dnat',
      family: number,
      addressMin: registerAt(word),
      portMin: registerAt(word + words),
      flags: NF_NAT_RANGE_PROTO_SPECIFIED,
    },
  ];
}

/** `dnat to ADDRESS:PORT`; nft wants a match on the transport protocol in front of it. */
export function dnatTo(family: 'ip' | 'ip6', address: string, port: number): Statement {
  return [
    { kind: 'immediate', register: 1, data: { value: addressBytes(address) } },
    { kind: 'immediate', register: 2, data: { value: numberBytes(port, 2, false) } },
    {
      kind: 'nat',
      type: 'dnat',
      family: natFamily(family).number,
      addressMin: 1,
      portMin: 2,
      flags: NF_NAT_RANGE_PROTO_SPECIFIED,
    },
  ];
}

/** `masquerade`, `masquerade fully-random` */
export function masquerade(options: { fullyRandom?: boolean } = {}): Statement {
  return [
    { kind: 'masq', ...(options.fullyRandom === true ? { flags: NF_NAT_RANGE_PROTO_RANDOM_FULLY } : {}) },
  ];
}

function verdict(code: 'accept' | 'drop' | 'return'): Statement {
  return [{ kind: 'immediate', register: 0, data: { verdict: { code } } }];
}
export const accept: Statement = verdict('accept');
export const drop: Statement = verdict('drop');
/** `return` */
export const backToCaller: Statement = verdict('return');

export function jump(chain: string): Statement {
  return [{ kind: 'immediate', register: 0, data: { verdict: { code: 'jump', chain } } }];
}

export function goTo(chain: string): Statement {
  return [{ kind: 'immediate', register: 0, data: { verdict: { code: 'goto', chain } } }];
}

/** `reject`: port unreachable of the table's family. */
export function reject(family: TableFamily): Statement {
  if (family === 'inet') return [{ kind: 'reject', type: 'icmpx', code: 1 }];
  return [{ kind: 'reject', type: 'icmp', code: family === 'ip6' ? 4 : 3 }];
}

/** `reject with tcp reset`; needs a match on TCP in front of it. */
export const rejectWithReset: Statement = [{ kind: 'reject', type: 'tcp reset', code: 0 }];

/** `counter` */
export const counter: Statement = [{ kind: 'counter' }];

export interface UpdateOptions {
  /** `add` leaves an existing element's time-out alone, `update` starts it anew. */
  readonly operation?: 'add' | 'update' | 'delete';
  /** Milliseconds; the set's own if absent. */
  readonly timeout?: number;
  /** For maps: what the key is to lead to. */
  readonly data?: readonly Selector[];
  /** Each element counts packets and bytes. */
  readonly counter?: boolean;
}

/** `update @SET { A . B timeout T : C . D }`: from the packet path. The set needs the flags dynamic (and timeout). */
export function update(set: string, key: readonly Selector[], options: UpdateOptions = {}): Statement {
  const { data } = options;
  // As nft: the data begin at a 16-byte register of their own.
  const dataWord = (words(key) + 3) & ~3;
  return [
    ...load(key),
    ...(data === undefined ? [] : load(data, dataWord)),
    {
      kind: 'dynset',
      keyRegister: 1,
      ...(data !== undefined ? { dataRegister: registerAt(dataWord) } : {}),
      operation: options.operation ?? 'update',
      ...(options.timeout === undefined ? {} : { timeout: BigInt(options.timeout) }),
      set,
      ...(options.counter === true ? { flags: 2, expression: { kind: 'counter' } as const } : {}),
    },
  ];
}
