/** Tables as the kernel has them: follows what each register holds, so that expressions become statements again. */
import {
  printDuration,
  printElement,
  printRule,
  type TableContents,
} from '../../linux/netlink/nftables/print.ts';
import {
  wordOf,
  type Bitwise,
  type Data,
  type Expression,
  type Verdict,
} from '../../linux/netlink/nftables/expressions.ts';
import { setFlags, type Element, type NftSet as KernelSet } from '../../linux/netlink/nftables/objects.ts';
import {
  ip,
  ip6,
  printSelector,
  selectorSize,
  selectorType,
} from '../../linux/netlink/nftables/selectors.ts';
import {
  bytesNumber,
  isHostOrder,
  splitConcat,
  typeSize,
  type TypeName,
} from '../../linux/netlink/nftables/types.ts';
import { anything } from './form.ts';
import type {
  Expr,
  KeyPart,
  NftChain,
  NftElement,
  NftRule,
  NftSet,
  NftStatement,
  NftTable,
  NftVerdict,
  SetRef,
  Value,
} from './form.ts';

export function tableFromKernel(contents: TableContents): NftTable {
  const { table, chains, rules, sets, elements } = contents;
  const kernelSets = new Map(sets.map((set) => [set.name, set]));
  const context = {
    family: table.family,
    set: (name: string) => kernelSets.get(name),
    elements: (name: string) => elements.get(name),
  };
  const formSets = new Map<string, NftSet>();
  for (const set of sets) formSets.set(set.name, convertSet(set, elements.get(set.name) ?? []));
  const byChain = new Map<string, NftRule[]>();
  for (const rule of rules) {
    const converted: NftRule = {
      statements: new RuleReader(table.family, kernelSets).read(rule.expressions),
      text: printRule({ ...rule, unknown: [] }, context).replace(/ comment "[^"]*"$/, ''),
      comment: rule.comment ?? '',
    };
    const list = byChain.get(rule.chain);
    if (list === undefined) byChain.set(rule.chain, [converted]);
    else list.push(converted);
  }
  const formChains = new Map<string, NftChain>();
  for (const { name, hook } of chains) {
    formChains.set(name, {
      name,
      rules: byChain.get(name) ?? [],
      ...(hook === undefined
        ? {}
        : {
            hook: {
              type: hook.type,
              hook: hook.hook,
              priority: hook.priority,
              policy: hook.policy ?? 'accept',
            },
          }),
    });
  }
  return { family: table.family, name: table.name, chains: formChains, sets: formSets };
}

function valueOf(type: TypeName, bytes: Uint8Array): Value {
  if (type === 'ifname') {
    const end = bytes.indexOf(0);
    const name = Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString('latin1');
    return end < 0 && bytes.length < 16 ? `${name}*` : name;
  }
  return numberOf(bytes, isHostOrder(type));
}

function numberOf(bytes: Uint8Array, hostOrder: boolean): bigint {
  if (bytes.length <= 6) return BigInt(bytesNumber(bytes, hostOrder));
  const ordered = hostOrder ? Uint8Array.from(bytes).reverse() : bytes;
  return BigInt(`0x${Buffer.from(ordered).toString('hex')}`);
}

function convertVerdict(verdict: Verdict): NftVerdict {
  const { code, chain = '' } = verdict;
  switch (code) {
    case 'jump':
    case 'goto':
      return { kind: code, chain };
    case 'break':
      return { kind: 'continue' };
    case 'queue':
      return { kind: 'unknown', text: 'queue: a program decides' };
    default:
      return { kind: code };
  }
}

function convertSet(set: KernelSet, elements: readonly Element[]): NftSet {
  const dynamic = (set.flags & setFlags.dynamic) !== 0;
  const plainIntervals = (set.flags & setFlags.interval) !== 0 && set.key.length === 1;
  const list = plainIntervals
    ? intervals(set, elements)
    : elements.map((element) => convertElement(set, element));
  return { name: set.name, elements: list, dynamic };
}

function convertElement(set: KernelSet, element: Element, key?: KeyPart[]): NftElement {
  const parts = splitConcat(set.key, element.key).map((bytes, i) => valueOf(set.key[i]!, bytes));
  let keyParts: KeyPart[] = key ?? parts;
  if (key === undefined && element.flags === 2) keyParts = [anything];
  else if (key === undefined && element.keyEnd !== undefined) {
    const ends = splitConcat(set.key, element.keyEnd).map((bytes, i) => valueOf(set.key[i]!, bytes));
    keyParts = parts.map((first, i) => {
      const last = ends[i]!;
      return first === last || typeof first !== 'bigint' || typeof last !== 'bigint'
        ? first
        : { first, last };
    });
  }
  const types = set.value;
  return {
    key: keyParts,
    ...(element.data === undefined || types === undefined || types === 'verdict'
      ? {}
      : { value: splitConcat(types, element.data).map((bytes, i) => valueOf(types[i]!, bytes)) }),
    ...(element.verdict === undefined ? {} : { verdict: convertVerdict(element.verdict) }),
    comment: element.comment ?? '',
    // Only a few of many are ever shown.
    get text() {
      return elementText(set, element);
    },
  };
}

function elementText(set: KernelSet, element: Element): string {
  const { comment, ...plain } = element;
  void comment;
  const left = element.expires === undefined ? '' : ` (${printDuration(element.expires)} left)`;
  return printElement(set, plain) + left;
}

/** Elements that begin intervals, and elements (flag 1) in front of which they end. */
function intervals(set: KernelSet, elements: readonly Element[]): NftElement[] {
  const type = set.key[0]!;
  const marks = elements
    .map((element) => ({
      element,
      at: numberOf(element.key, isHostOrder(type)),
      end: (element.flags ?? 0) === 1,
    }))
    .sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : Number(b.end) - Number(a.end)));
  const top = (1n << BigInt(typeSize(type) * 8)) - 1n;
  const found: NftElement[] = [];
  marks.forEach(({ element, at, end }, i) => {
    if (end) return;
    const next = marks[i + 1];
    const last = next === undefined ? top : next.at - 1n;
    found.push(convertElement(set, element, [at === last ? at : { first: at, last }]));
  });
  return found;
}

interface Held {
  readonly expr: Expr;
  readonly type: TypeName;
  readonly words: number;
  /** Bits at the field's end that were not loaded: nft compares whole bytes of a network so. */
  readonly missing?: number;
}

class RuleReader {
  readonly #family: string;
  readonly #sets: ReadonlyMap<string, KernelSet>;
  readonly #registers = new Map<number, Held>();

  constructor(family: string, sets: ReadonlyMap<string, KernelSet>) {
    this.#family = family;
    this.#sets = sets;
  }

  read(expressions: readonly Expression[]): NftStatement[] {
    return expressions.flatMap((expression) => this.#statement(expression) ?? []);
  }

  #statement(expression: Expression): NftStatement | undefined {
    switch (expression.kind) {
      case 'payload':
      case 'meta':
      case 'ct':
      case 'fib': {
        const selector =
          expression.kind !== 'payload' || expression.base !== 'network'
            ? expression
            : (Object.values(this.#family === 'ip6' ? ip6 : ip).find(
                (one) => one.offset === expression.offset && one.length >= expression.length,
              ) ?? expression);
        const text = printSelector(selector);
        const expr: Expr = text.startsWith('@') ? { kind: 'unknown', text } : { kind: 'field', name: text };
        this.#hold(expression.register, expr, selectorType(selector), selectorSize(expression));
        const missing = (selectorSize(selector) - selectorSize(expression)) * 8;
        if (missing > 0) {
          const word = wordOf(expression.register);
          this.#registers.set(word, { ...this.#registers.get(word)!, missing });
        }
        return undefined;
      }
      case 'numgen': {
        const { modulus, offset } = expression;
        const expr: Expr =
          modulus === 1 ? { kind: 'value', value: BigInt(offset) } : { kind: 'random', modulus, offset };
        this.#hold(expression.register, expr, 'integer', 4);
        return undefined;
      }
      case 'immediate':
        if ('verdict' in expression.data)
          return { kind: 'verdict', verdict: convertVerdict(expression.data.verdict) };
        this.#holdBytes(expression.register, expression.data.value);
        return undefined;
      case 'bitwise':
        this.#bitwise(expression);
        return undefined;
      case 'byteorder': {
        const held = this.#registers.get(wordOf(expression.source));
        if (held !== undefined) this.#registers.set(wordOf(expression.register), held);
        return undefined;
      }
      case 'cmp': {
        const held = this.#registers.get(wordOf(expression.source));
        if (held === undefined || !('value' in expression.data))
          return { kind: 'unknown', text: 'a comparison' };
        let value: KeyPart = valueOf(held.type, expression.data.value);
        const { expr, missing = 0 } = held;
        if (missing > 0 && typeof value === 'bigint') {
          const first: bigint = value << BigInt(missing);
          value = { first, last: first + (1n << BigInt(missing)) - 1n };
        }
        return { kind: 'match', left: expr, operator: expression.operator, right: { kind: 'value', value } };
      }
      case 'range': {
        const held = this.#registers.get(wordOf(expression.source));
        if (held === undefined || !('value' in expression.from) || !('value' in expression.to)) {
          return { kind: 'unknown', text: 'a range' };
        }
        const [first, last] = [
          valueOf(held.type, expression.from.value),
          valueOf(held.type, expression.to.value),
        ];
        if (typeof first !== 'bigint' || typeof last !== 'bigint')
          return { kind: 'unknown', text: 'a range' };
        return {
          kind: 'match',
          left: held.expr,
          operator: expression.operator,
          right: { kind: 'value', value: { first, last } },
        };
      }
      case 'lookup': {
        const set = this.#sets.get(expression.set);
        if (set === undefined) return { kind: 'unknown', text: `set ${expression.set}` };
        const key = this.#key(expression.source, set.key);
        const ref: SetRef = { name: expression.set };
        if (expression.register === undefined) {
          const operator = ((expression.flags ?? 0) & 1) !== 0 ? '!=' : '==';
          return { kind: 'match', left: key, operator, right: ref };
        }
        if (expression.register === 0) return { kind: 'vmap', key, set: ref };
        this.#holdMapped(expression.register, { kind: 'map', key, set: ref }, set);
        return undefined;
      }
      case 'set meta': {
        const value = this.#registers.get(wordOf(expression.source));
        if (value === undefined) return { kind: 'unknown', text: `meta ${expression.key} set` };
        return { kind: 'set', field: `meta ${expression.key}`, value: value.expr };
      }
      case 'nat': {
        const at = (register: number | undefined, type: TypeName): Expr | undefined =>
          register === undefined ? undefined : this.#read(register, type);
        return {
          kind: expression.type,
          address: at(expression.addressMin, expression.family === 10 ? 'ipv6_addr' : 'ipv4_addr'),
          port: at(expression.portMin, 'inet_service'),
        };
      }
      case 'masq':
        return { kind: 'masquerade' };
      case 'reject':
        return { kind: 'reject', with: rejectText(expression.type, expression.code) };
      case 'dynset':
        return { kind: 'remember', set: expression.set };
      case 'counter':
      case 'log':
        return { kind: 'nothing' };
      case 'limit': {
        const question = `no more than ${expression.rate} ${expression.type} in ${expression.unit} s`;
        return { kind: 'maybe', question, usual: ((expression.flags ?? 0) & 1) === 0 };
      }
      case 'unknown':
        return expression.name === 'notrack'
          ? { kind: 'notrack' }
          : { kind: 'unknown', text: `expression ${expression.name}` };
    }
  }

  #hold(register: number, expr: Expr, type: TypeName, size: number): void {
    this.#registers.set(wordOf(register), { expr, type, words: Math.max(1, (size + 3) >> 2) });
  }

  /** The type of a constant shows only where it is used. */
  #holdBytes(register: number, bytes: Uint8Array): void {
    this.#registers.set(wordOf(register), {
      expr: { kind: 'value', value: numberOf(bytes, true) },
      type: 'unknown',
      words: Math.max(1, (bytes.length + 3) >> 2),
    });
    this.#constants.set(wordOf(register), bytes);
  }
  readonly #constants = new Map<number, Uint8Array>();

  #read(register: number, type: TypeName): Expr {
    const word = wordOf(register);
    const held = this.#registers.get(word);
    if (held === undefined) return { kind: 'unknown', text: `register ${register}` };
    const bytes = held.type === 'unknown' ? this.#constants.get(word) : undefined;
    return bytes === undefined ? held.expr : { kind: 'value', value: valueOf(type, bytes) };
  }

  #holdMapped(register: number, expr: Expr, set: KernelSet): void {
    const types = set.value === undefined || set.value === 'verdict' ? [] : set.value;
    let word = wordOf(register);
    types.forEach((type, index) => {
      const words = Math.max(1, (typeSize(type) + 3) >> 2);
      const part: Expr = types.length === 1 ? expr : { kind: 'part', of: expr, index };
      this.#registers.set(word, { expr: part, type, words });
      word += words;
    });
  }

  #key(register: number, types: readonly TypeName[]): Expr {
    let word = wordOf(register);
    const parts = types.map((type): Expr => {
      const held = this.#registers.get(word);
      const constant = held?.type === 'unknown' ? this.#constants.get(word) : undefined;
      word += Math.max(1, (typeSize(type) + 3) >> 2);
      if (constant !== undefined) return { kind: 'value', value: valueOf(type, constant) };
      return held?.expr ?? { kind: 'unknown', text: 'part of a key' };
    });
    return parts.length === 1 ? parts[0]! : { kind: 'concat', parts };
  }

  #bitwise(expression: Bitwise): void {
    const held = this.#registers.get(wordOf(expression.source));
    if (held === undefined || expression.mask === undefined || expression.xor === undefined) {
      this.#hold(
        expression.register,
        { kind: 'unknown', text: 'bits shifted' },
        'unknown',
        expression.length,
      );
      return;
    }
    const number = (data: Data): bigint =>
      'value' in data ? numberOf(data.value, isHostOrder(held.type)) : 0n;
    const [mask, xor] = [number(expression.mask), number(expression.xor)];
    const masked: Expr = {
      kind: 'bits',
      operator: '&',
      left: held.expr,
      right: { kind: 'value', value: mask },
    };
    const expr: Expr =
      xor === 0n
        ? masked
        : { kind: 'bits', operator: '^', left: masked, right: { kind: 'value', value: xor } };
    this.#registers.set(wordOf(expression.register), { ...held, expr });
  }
}

function rejectText(type: string, code: number): string {
  if (type === 'tcp reset') return 'tcp reset';
  if (type === 'icmpx')
    return ['no-route', 'port-unreachable', 'host-unreachable', 'admin-prohibited'][code] ?? `icmpx ${code}`;
  return (
    {
      0: 'net-unreachable',
      1: 'host-unreachable',
      3: 'port-unreachable',
      4: 'port-unreachable',
      13: 'admin-prohibited',
    }[code] ?? `icmp ${code}`
  );
}
