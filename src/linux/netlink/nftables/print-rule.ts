/** Rules in nft syntax: follows what each register holds, as `nft list` does. */
import {
  wordOf,
  type Bitwise,
  type Compare,
  type Data,
  type DynamicSet,
  type Expression,
  type Lookup,
  type Nat,
  type Reject,
  type Selector,
  type Verdict,
} from './expressions.ts';
import type { Element, NftSet, TableFamily } from './objects.ts';
import { ip, ip6, printSelector, selectorSize, selectorType } from './selectors.ts';
import {
  bytesNumber,
  formatConcat,
  formatValue,
  isBitType,
  isHostOrder,
  sizeOf,
  type TypeName,
} from './types.ts';

/** What printing a rule may look up; sets it does not find are printed by their names alone. */
export interface PrintContext {
  readonly family: TableFamily;
  readonly set?: (name: string) => NftSet | undefined;
  /** Elements of anonymous sets, which are printed in place. */
  readonly elements?: (name: string) => readonly Element[] | undefined;
}

/** What lies in the registers from some word on. */
interface Held {
  readonly text: string;
  readonly type: TypeName;
  readonly words: number;
  readonly selector?: Selector;
  /** Constant loaded by an immediate. */
  readonly value?: Uint8Array;
  readonly mask?: Uint8Array;
  readonly xor?: Uint8Array;
  /** A value found in a map; it may cover several types. */
  readonly map?: true;
}

export function printVerdict(verdict: Verdict): string {
  return verdict.chain === undefined ? verdict.code : `${verdict.code} ${verdict.chain}`;
}

/** Milliseconds as nft writes them: `3h`, `1m40s`, `4s832ms`. */
export function printDuration(milliseconds: number): string {
  const units: readonly (readonly [string, number])[] = [
    ['d', 86_400_000],
    ['h', 3_600_000],
    ['m', 60_000],
    ['s', 1000],
    ['ms', 1],
  ];
  let rest = milliseconds;
  let text = '';
  for (const [unit, size] of units) {
    const count = Math.floor(rest / size);
    if (count > 0) text += `${count}${unit}`;
    rest -= count * size;
  }
  return text === '' ? '0s' : text;
}

/** nft has no escapes: a quote cannot stand in a string. */
export function quote(text: string): string {
  return `"${text.replaceAll(/["\n\r]/g, '?')}"`;
}

/** The rule's statements, without its comment. */
export function printExpressions(expressions: readonly Expression[], context: PrintContext): string {
  return new RulePrinter(context).print(expressions);
}

class RulePrinter {
  readonly #context: PrintContext;
  readonly #registers = new Map<number, Held>();
  readonly #statements: string[] = [];
  /** What the transport protocol has been matched to be, and the statement that says so while it may be left out. */
  #protocol: { readonly name: string; statement: number } | undefined;

  constructor(context: PrintContext) {
    this.#context = context;
  }

  print(expressions: readonly Expression[]): string {
    for (let i = 0; i < expressions.length; i++) {
      const expression = expressions[i]!;
      const next = expressions[i + 1];
      if (expression.kind === 'cmp' && next?.kind === 'cmp' && this.#range(expression, next)) {
        i++;
        continue;
      }
      const text = this.#expression(expression);
      if (text !== '') this.#statements.push(text);
    }
    return this.#statements.filter((text) => text !== '').join(' ');
  }

  #hold(register: number, held: Held): void {
    const word = wordOf(register);
    for (let i = 0; i < held.words; i++) this.#registers.delete(word + i);
    this.#registers.set(word, held);
  }

  #held(register: number): Held | undefined {
    return this.#registers.get(wordOf(register));
  }

  /** The parts of a concatenation that begins at a register and is `words` long (unknown: as far as it goes). */
  #parts(register: number, words: number | undefined): Held[] {
    const parts: Held[] = [];
    let word = wordOf(register);
    const end = words === undefined ? Infinity : word + words;
    for (
      let held = this.#registers.get(word);
      held !== undefined && word < end;
      held = this.#registers.get(word)
    ) {
      parts.push(held);
      word += held.words;
    }
    return parts;
  }

  #concat(register: number, types: readonly TypeName[] | undefined): string {
    const parts = this.#parts(register, types === undefined ? undefined : (sizeOf(types) + 3) >> 2);
    if (types === undefined) this.#forget(parts, wordOf(register));
    if (parts.length === 0) return `reg ${register}`;
    return parts.map((part) => this.#text(part)).join(' . ');
  }

  /** Without the set's key nothing tells where a concatenation ends: what one has used up must not lengthen the next. */
  #forget(parts: readonly Held[], first: number): void {
    let word = first;
    for (const part of parts) {
      if (word !== first) this.#registers.delete(word);
      word += part.words;
    }
  }

  /** The field in the words of the protocol matched before it: `tcp dport` instead of `th dport`. */
  #text(held: Held): string {
    if (held.value !== undefined) return formatValue(held.type, held.value);
    if (held.mask !== undefined && held.xor !== undefined) return printBitwise(held);
    return held.text;
  }

  #expression(expression: Expression): string {
    switch (expression.kind) {
      case 'payload':
      case 'meta':
      case 'ct':
      case 'fib':
      case 'numgen': {
        const selector = expression;
        this.#hold(expression.register, {
          text: printSelector(this.#familySelector(selector)),
          type: selectorType(this.#familySelector(selector)),
          words: (selectorSize(selector) + 3) >> 2,
          selector,
        });
        return '';
      }
      case 'immediate':
        if ('verdict' in expression.data) return printVerdict(expression.data.verdict);
        this.#hold(expression.register, {
          text: '',
          type: 'unknown',
          words: (expression.data.value.length + 3) >> 2,
          value: expression.data.value,
        });
        return '';
      case 'bitwise':
        this.#bitwise(expression);
        return '';
      case 'byteorder': {
        const held = this.#held(expression.source);
        if (held !== undefined) this.#hold(expression.register, held);
        return '';
      }
      case 'cmp':
        return this.#compare(expression);
      case 'range': {
        const held = this.#held(expression.source);
        if (held === undefined) return '';
        const not = expression.operator === '!=' ? '!= ' : '';
        return `${held.text} ${not}${printData(held.type, expression.from)}-${printData(held.type, expression.to)}`;
      }
      case 'lookup':
        return this.#lookup(expression);
      case 'set meta': {
        const held = this.#held(expression.source);
        const value = held?.value === undefined ? (held === undefined ? '?' : this.#text(held)) : undefined;
        if (expression.key === 'nftrace' && value === undefined) return `meta nftrace set ${held!.value![0]}`;
        return `meta ${expression.key} set ${value ?? formatValue(expression.key === 'priority' ? 'classid' : 'mark', held!.value!)}`;
      }
      case 'nat':
        return this.#nat(expression);
      case 'masq':
        return `masquerade${natFlags(expression.flags ?? 0)}`;
      case 'reject':
        return this.#reject(expression);
      case 'dynset':
        return this.#dynamicSet(expression);
      case 'counter':
        return expression.packets === undefined
          ? 'counter'
          : `counter packets ${expression.packets} bytes ${expression.bytes ?? 0n}`;
      case 'limit': {
        const unit = { '1': 'second', '60': 'minute', '3600': 'hour', '86400': 'day', '604800': 'week' }[
          expression.unit.toString()
        ];
        const over = ((expression.flags ?? 0) & 1) !== 0 ? 'over ' : '';
        const burst =
          expression.type === 'packets' && expression.burst !== 5 ? ` burst ${expression.burst} packets` : '';
        const bytes = expression.type === 'bytes' ? ' bytes' : '';
        return `limit rate ${over}${expression.rate}${bytes}/${unit ?? `${expression.unit}s`}${burst}`;
      }
      case 'log': {
        const prefix = expression.prefix === undefined ? '' : ` prefix ${quote(expression.prefix)}`;
        const group = expression.group === undefined ? '' : ` group ${expression.group}`;
        return `log${prefix}${group}`;
      }
      case 'unknown':
        // As nft prints what it does not know; such a rule cannot be read back from text.
        return `[unknown expression ${expression.name}]`;
    }
  }

  /** Parts of IPv6 addresses start where parts of IPv4 ones do: the table's family tells. */
  #familySelector(selector: Selector): Selector {
    if (selector.kind !== 'payload' || selector.base !== 'network') return selector;
    const candidates = this.#context.family === 'ip6' ? Object.values(ip6) : Object.values(ip);
    const whole = candidates.find((one) => one.offset === selector.offset && one.length >= selector.length);
    return whole ?? selector;
  }

  #bitwise(expression: Bitwise): void {
    const held = this.#held(expression.source);
    if (held === undefined || expression.mask === undefined || expression.xor === undefined) return;
    if (!('value' in expression.mask) || !('value' in expression.xor)) return;
    this.#hold(expression.register, { ...held, mask: expression.mask.value, xor: expression.xor.value });
  }

  #selectorText(held: Held): string {
    const { selector } = held;
    if (selector?.kind !== 'payload' || selector.base !== 'transport' || this.#protocol === undefined)
      return held.text;
    if (!held.text.startsWith('th ')) return held.text;
    if (this.#protocol.statement >= 0) this.#statements[this.#protocol.statement] = '';
    this.#protocol.statement = -1;
    return `${this.#protocol.name}${held.text.slice(2)}`;
  }

  #compare(expression: Compare): string {
    const held = this.#held(expression.source);
    if (held === undefined || !('value' in expression.data)) return '';
    const { value } = expression.data;
    const operator = expression.operator === '==' ? '' : `${expression.operator} `;
    if (held.mask !== undefined) return this.#compareMasked(held, held.mask, expression.operator, value);
    const { selector } = held;
    if (selector?.kind === 'meta' && selector.key === 'l4proto' && expression.operator === '==') {
      this.#protocol = { name: formatValue('inet_proto', value), statement: this.#statements.length };
    }
    const text = this.#selectorText(held);
    const whole = held.type === 'ipv4_addr' ? 4 : held.type === 'ipv6_addr' ? 16 : value.length;
    if (value.length < whole) {
      const padded = new Uint8Array(whole);
      padded.set(value);
      return `${text} ${operator}${formatValue(held.type, padded)}/${value.length * 8}`;
    }
    return `${text} ${operator}${formatValue(held.type, value)}`;
  }

  #compareMasked(held: Held, mask: Uint8Array, operator: string, value: Uint8Array): string {
    const zero = value.every((byte) => byte === 0);
    if (isBitType(held.type) && zero) {
      const names = formatValue(held.type, mask);
      return operator === '!=' ? `${held.text} ${names}` : `${held.text} & ${bits(names)} == 0`;
    }
    const address = held.type === 'ipv4_addr' || held.type === 'ipv6_addr';
    const length = address ? prefixLength(mask) : undefined;
    if (length !== undefined) {
      return `${held.text} ${operator === '!=' ? '!= ' : ''}${formatValue(held.type, value)}/${length}`;
    }
    const names = formatValue(held.type, mask);
    const sign = operator === '!=' ? '!=' : '==';
    return `${held.text} & ${bits(names)} ${sign} ${bits(formatValue(held.type, value))}`;
  }

  /** `>= A` and `<= B` on the same register are a range. */
  #range(low: Compare, high: Compare): boolean {
    if (low.operator !== '>=' || high.operator !== '<=' || low.source !== high.source) return false;
    const held = this.#held(low.source);
    if (held === undefined) return false;
    const text = this.#selectorText(held);
    this.#statements.push(`${text} ${printData(held.type, low.data)}-${printData(held.type, high.data)}`);
    return true;
  }

  #lookup(expression: Lookup): string {
    const set = this.#context.set?.(expression.set);
    const key = this.#concat(expression.source, set?.key);
    const name = this.#setName(expression.set, set);
    if (expression.register === undefined) {
      const operator = ((expression.flags ?? 0) & 1) !== 0 ? '!= ' : '';
      return `${key} ${operator}${name}`;
    }
    if (expression.register === 0) return `${key} vmap ${name}`;
    const types = set?.value === undefined || set.value === 'verdict' ? undefined : set.value;
    this.#hold(expression.register, {
      text: `${key} map ${name}`,
      type: types?.length === 1 ? types[0]! : 'unknown',
      words: types === undefined ? 1 : (sizeOf(types) + 3) >> 2,
      map: true,
    });
    return '';
  }

  #setName(name: string, set: NftSet | undefined): string {
    if (set === undefined || (set.flags & 1) === 0) return `@${name}`;
    const elements = this.#context.elements?.(name);
    if (elements === undefined) return `@${name}`;
    return `{ ${printElements(set, elements).join(', ')} }`;
  }

  #nat(expression: Nat): string {
    const address = expression.addressMin === undefined ? undefined : this.#held(expression.addressMin);
    const port = expression.portMin === undefined ? undefined : this.#held(expression.portMin);
    const flags = natFlags(expression.flags ?? 0);
    const type: TypeName = expression.family === 10 ? 'ipv6_addr' : 'ipv4_addr';
    if (address?.map === true) {
      // The map gives address and port at once; nft then wants the family named.
      const family = expression.portMin === undefined ? '' : expression.family === 10 ? ' ip6' : ' ip';
      return `${expression.type}${family} to ${address.text}${flags}`;
    }
    let text = address?.value === undefined ? (address?.text ?? '') : formatValue(type, address.value);
    if (port !== undefined) {
      const number = port.value === undefined ? port.text : formatValue('inet_service', port.value);
      text = type === 'ipv6_addr' && text !== '' ? `[${text}]:${number}` : `${text}:${number}`;
    }
    return `${expression.type} to ${text}${flags}`;
  }

  #reject(expression: Reject): string {
    if (expression.type === 'tcp reset') {
      // nft leaves the match on TCP away, because reset implies it.
      if (this.#protocol?.name === 'tcp' && this.#protocol.statement >= 0) {
        this.#statements[this.#protocol.statement] = '';
      }
      return 'reject with tcp reset';
    }
    if (expression.type === 'icmpx') {
      const codes = ['no-route', 'port-unreachable', 'host-unreachable', 'admin-prohibited'];
      return expression.code === 1
        ? 'reject'
        : `reject with icmpx ${codes[expression.code] ?? expression.code}`;
    }
    const six = this.#context.family === 'ip6';
    if (expression.code === (six ? 4 : 3)) return 'reject';
    const names: Readonly<Record<number, string>> = six
      ? { 0: 'no-route', 1: 'admin-prohibited', 3: 'addr-unreachable' }
      : { 0: 'net-unreachable', 1: 'host-unreachable', 2: 'prot-unreachable', 13: 'admin-prohibited' };
    return `reject with ${six ? 'icmpv6' : 'icmp'} ${names[expression.code] ?? expression.code}`;
  }

  #dynamicSet(expression: DynamicSet): string {
    const set = this.#context.set?.(expression.set);
    const key = this.#concat(expression.keyRegister, set?.key);
    const timeout =
      expression.timeout === undefined || expression.timeout === 0n
        ? ''
        : ` timeout ${printDuration(Number(expression.timeout))}`;
    const inner =
      expression.expression === undefined ? (expression.expressions ?? []) : [expression.expression];
    const statements = inner.map((one) => ` ${printExpressions([one], this.#context)}`).join('');
    let data = '';
    if (expression.dataRegister !== undefined) {
      const types = set?.value === undefined || set.value === 'verdict' ? undefined : set.value;
      const held = this.#held(expression.dataRegister);
      // A constant has no type of its own: the map's value says how it reads.
      if (held?.value !== undefined && types?.length === 1) data = ` : ${formatValue(types[0]!, held.value)}`;
      else data = ` : ${this.#concat(expression.dataRegister, types)}`;
    }
    return `${expression.operation} @${expression.set} { ${key}${timeout}${statements}${data} }`;
  }
}

/** `a,b` (any of them) as bits in an expression: `(a | b)`. */
function bits(names: string): string {
  return names.includes(',') ? names.replaceAll(',', ' | ') : names;
}

function printData(type: TypeName, data: Data): string {
  return 'value' in data ? formatValue(type, data.value) : printVerdict(data.verdict);
}

/** Mask and xor as nft reads them: and, or, xor. */
function printBitwise(held: Held): string {
  const hostOrder = isHostOrder(held.type);
  const mask = bytesNumber(held.mask!, hostOrder);
  const xor = bytesNumber(held.xor!, hostOrder);
  const all = 2 ** (8 * held.mask!.length) - 1;
  const value = (number: number): string => `0x${(number >>> 0).toString(16).padStart(8, '0')}`;
  if (xor === 0) return `${held.text} & ${value(mask)}`;
  if (mask === all) return `${held.text} ^ ${value(xor)}`;
  if (~mask >>> 0 === xor) return `${held.text} | ${value(xor)}`;
  return `${held.text} & ${value(mask)} ^ ${value(xor)}`;
}

function prefixLength(mask: Uint8Array): number | undefined {
  let length = 0;
  while (length < mask.length * 8 && (mask[length >> 3]! & (0x80 >> (length & 7))) !== 0) length++;
  for (let bit = length; bit < mask.length * 8; bit++) {
    if ((mask[bit >> 3]! & (0x80 >> (bit & 7))) !== 0) return undefined;
  }
  return length;
}

function natFlags(flags: number): string {
  const names: string[] = [];
  if ((flags & 4) !== 0) names.push('random');
  if ((flags & 16) !== 0) names.push('fully-random');
  if ((flags & 8) !== 0) names.push('persistent');
  return names.length === 0 ? '' : ` ${names.join(',')}`;
}

/** Elements in the words of `nft list`; the two ends of an interval are one. */
export function printElements(set: NftSet, elements: readonly Element[]): string[] {
  const interval = (set.flags & 4) !== 0 && elements.every((one) => one.keyEnd === undefined);
  return interval ? printIntervals(set, elements) : elements.map((element) => printElement(set, element));
}

/** One element, e.g. `10.96.0.10 . tcp . 80 comment "default/web" : goto lb-2`. */
export function printElement(set: NftSet, element: Element, key = printKey(set, element)): string {
  let text = key;
  if (element.timeout !== undefined && element.timeout !== set.timeout)
    text += ` timeout ${printDuration(element.timeout)}`;
  if (element.expires !== undefined) text += ` expires ${printDuration(element.expires)}`;
  if (element.comment !== undefined) text += ` comment ${quote(element.comment)}`;
  if (element.verdict !== undefined) text += ` : ${printVerdict(element.verdict)}`;
  else if (element.data !== undefined) {
    text += ` : ${set.value === undefined || set.value === 'verdict' ? '?' : formatConcat(set.value, element.data)}`;
  }
  return text;
}

function printKey(set: NftSet, element: Element): string {
  if (((element.flags ?? 0) & 2) !== 0) return '*';
  if (element.keyEnd === undefined) return formatConcat(set.key, element.key);
  const parts: string[] = [];
  let at = 0;
  for (const type of set.key) {
    const size = sizeOf([type]);
    parts.push(printRange(type, element.key.subarray(at, at + size), element.keyEnd.subarray(at, at + size)));
    at += (size + 3) & ~3;
  }
  return parts.join(' . ');
}

/** A range as one value, a prefix or `first-last`. */
function printRange(type: TypeName, first: Uint8Array, last: Uint8Array): string {
  if (Buffer.compare(first, last) === 0) return formatValue(type, first);
  const mask = first.map((byte, index) => ~(byte ^ last[index]!) & 0xff);
  const length = type === 'ipv4_addr' || type === 'ipv6_addr' ? prefixLength(mask) : undefined;
  const aligned =
    first.every((byte, index) => (byte & ~mask[index]! & 0xff) === 0) &&
    last.every((byte, index) => (byte | mask[index]!) === 0xff);
  if (length !== undefined && aligned) return `${formatValue(type, first)}/${length}`;
  return `${formatValue(type, first)}-${formatValue(type, last)}`;
}

/** Interval sets of one type hold where each interval begins and, flagged, the first key behind it. */
function printIntervals(set: NftSet, elements: readonly Element[]): string[] {
  const type = set.key[0] ?? 'unknown';
  const sorted = elements.toSorted((a, b) => Buffer.compare(a.key, b.key) || (b.flags ?? 0) - (a.flags ?? 0));
  const texts: string[] = [];
  for (let i = 0; i < sorted.length; i++) {
    const begin = sorted[i]!;
    if (((begin.flags ?? 0) & 1) !== 0) continue;
    const end = sorted[i + 1];
    const last =
      end === undefined || (end.flags ?? 0) === 0
        ? new Uint8Array(begin.key.length).fill(255)
        : before(end.key);
    texts.push(printElement(set, begin, printRange(type, begin.key, last)));
  }
  return texts;
}

function before(key: Uint8Array): Uint8Array {
  const bytes = key.slice();
  for (let i = bytes.length - 1; i >= 0; i--) {
    if (bytes[i] !== 0) {
      bytes[i]!--;
      return bytes;
    }
    bytes[i] = 255;
  }
  return bytes;
}
