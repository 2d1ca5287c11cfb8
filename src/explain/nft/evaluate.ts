/** Interprets nftables tables: base chains for the walk, maps and sets looked up as the kernel does. */
import { formatIP, parseIP } from '../../services/ip.ts';
import type { Effect, Flow, HookName, Result, Surroundings } from '../flow.ts';
import { addStep, assume, assumed } from '../flow.ts';
import { formatPlace, protocolNumbers, startsHere } from '../packet.ts';
import type { BaseChain } from '../walk.ts';
import { addressType } from '../world.ts';
import { SetIndex, matchesPart } from './lookup.ts';
import { addressTypes, stateBits, statusBits } from './form.ts';
import type { Expr, NftRule, NftTable, NftVerdict, SetRef, Value } from './form.ts';

const hookNames = new Set(['prerouting', 'input', 'forward', 'output', 'postrouting']);

/** The base chains of the tables that see packets of this family. */
export function nftChains(tables: readonly NftTable[], family: 'IPv4' | 'IPv6'): BaseChain[] {
  const own = family === 'IPv6' ? 'ip6' : 'ip';
  const chains: BaseChain[] = [];
  for (const table of tables) {
    if (table.family !== own && table.family !== 'inet') continue;
    const interpreter = new NftInterpreter(table);
    for (const { name, hook } of table.chains.values()) {
      if (hook === undefined || !hookNames.has(hook.hook)) continue;
      chains.push({
        hook: hook.hook as HookName,
        priority: hook.priority,
        type: hook.type === 'nat' ? 'nat' : hook.type === 'route' ? 'route' : 'filter',
        name: `${table.family} ${table.name} ${name}`,
        evaluate: (flow, at) => interpreter.base(name, hook.policy, flow, at),
      });
    }
  }
  return chains;
}

const depthMax = 64;

/** What a rule made of the packet: not matched, done with its last statement, or a verdict. */
type RuleEnd =
  | { readonly kind: 'break' }
  | { readonly kind: 'done'; readonly flow: Flow }
  | {
      readonly kind: 'verdict';
      readonly flow: Flow;
      readonly verdict: NftVerdict;
      readonly element?: { text: string; comment: string };
    }
  | {
      readonly kind: 'final';
      readonly flow: Flow;
      readonly effect: Effect;
      readonly verdict: Result['verdict'];
      readonly element?: { text: string; comment: string };
    }
  | { readonly kind: 'question'; readonly question: string; readonly usual: boolean | undefined };

/** Cannot be worked out: says why. */
class NotKnown {
  readonly question: string;
  constructor(question: string) {
    this.question = question;
  }
}

interface Looked {
  element: { text: string; comment: string } | undefined;
}

class NftInterpreter {
  readonly #table: NftTable;
  readonly #indexes = new Map<unknown, SetIndex>();

  constructor(table: NftTable) {
    this.#table = table;
  }

  base(chain: string, policy: string, flow: Flow, at: Surroundings): Result[] {
    return this.#run(chain, 0, flow, at, 0).map((result) => {
      if (result.verdict !== 'next' || policy !== 'drop') return result;
      const effect: Effect = { kind: 'drop', policy: true };
      const dropped = addStep(result.flow, { hook: at.hook, base: at.base, chain, rule: '', effect });
      return { flow: dropped, verdict: 'drop' };
    });
  }

  #run(chain: string, from: number, start: Flow, at: Surroundings, depth: number): Result[] {
    const rules = this.#table.chains.get(chain)?.rules ?? [];
    const results: Result[] = [];
    let flow = start;
    for (let i = from; i < rules.length; i++) {
      const rule = rules[i]!;
      const modulus = randomModulus(rule);
      if (modulus === undefined) {
        const after = this.#once(rule, chain, i, flow, at, depth, undefined, results);
        if (after === undefined) return results;
        flow = after;
        continue;
      }
      // Every number that can be drawn, those with the same end together.
      let missed = 0;
      for (let drawn = 0; drawn < modulus; drawn++) {
        const share = { ...flow, probability: flow.probability / modulus };
        const after = this.#once(rule, chain, i, share, at, depth, drawn, results);
        if (after !== undefined) missed++;
      }
      if (missed === 0) return results;
      flow = { ...flow, probability: (flow.probability * missed) / modulus };
    }
    results.push({ flow, verdict: 'next' });
    return results;
  }

  /** Runs one rule and, where it does not end the chain, returns the flow that goes on to the next one. */
  #once(
    rule: NftRule,
    chain: string,
    index: number,
    flow: Flow,
    at: Surroundings,
    depth: number,
    drawn: number | undefined,
    results: Result[],
  ): Flow | undefined {
    const note = (after: Flow, effect: Effect, element?: { text: string; comment: string }): Flow => {
      const comment = element?.comment || rule.comment;
      return addStep(after, {
        hook: at.hook,
        base: at.base,
        chain,
        rule: rule.text,
        effect,
        ...(element === undefined ? {} : { element: element.text }),
        ...(comment === '' ? {} : { comment }),
      });
    };
    const end = this.#evaluate(rule, flow, at, drawn);
    switch (end.kind) {
      case 'break':
        return flow;
      case 'done':
        return end.flow === flow ? flow : this.#noteChange(flow, end.flow, note);
      case 'final':
        results.push({ flow: note(end.flow, end.effect, end.element), verdict: end.verdict });
        return undefined;
      case 'question': {
        const { question, usual } = end;
        const yes = assume(flow, { question, holds: true, usual: usual !== false, kind: 'unknown' });
        const rest = this.#once(rule, chain, index, yes, at, depth, drawn, results);
        if (rest !== undefined)
          for (const one of this.#run(chain, index + 1, rest, at, depth)) results.push(one);
        return assume(flow, { question, holds: false, usual: usual !== true, kind: 'unknown' });
      }
      case 'verdict':
        return this.#follow(end, chain, index, flow, at, depth, drawn, note, results);
    }
  }

  #follow(
    end: Extract<RuleEnd, { kind: 'verdict' }>,
    chain: string,
    index: number,
    before: Flow,
    at: Surroundings,
    depth: number,
    drawn: number | undefined,
    note: (after: Flow, effect: Effect, element?: { text: string; comment: string }) => Flow,
    results: Result[],
  ): Flow | undefined {
    const { verdict, flow, element } = end;
    switch (verdict.kind) {
      case 'continue':
        return flow;
      case 'accept':
        results.push({ flow: note(flow, { kind: 'accept' }, element), verdict: 'accept' });
        return undefined;
      case 'drop':
        results.push({ flow: note(flow, { kind: 'drop', policy: false }, element), verdict: 'drop' });
        return undefined;
      case 'return':
        results.push({ flow: note(flow, { kind: 'return' }, element), verdict: 'next' });
        return undefined;
      case 'unknown':
        results.push({
          flow: note(flow, { kind: 'unknown', text: verdict.text }, element),
          verdict: 'unknown',
        });
        return undefined;
      case 'jump':
      case 'goto': {
        if (depth >= depthMax) {
          results.push({
            flow: note(flow, { kind: 'unknown', text: 'chains that call each other' }),
            verdict: 'unknown',
          });
          return undefined;
        }
        const effect: Effect =
          drawn === undefined || (flow.probability === before.probability && before.probability === 1)
            ? { kind: verdict.kind, chain: verdict.chain }
            : { kind: 'choose', chain: verdict.chain, probability: flow.probability };
        const inside = this.#run(verdict.chain, 0, note(flow, effect, element), at, depth + 1);
        for (const result of inside) {
          if (result.verdict !== 'next' || verdict.kind === 'goto') results.push(result);
          else for (const one of this.#run(chain, index + 1, result.flow, at, depth)) results.push(one);
        }
        return undefined;
      }
    }
  }

  #noteChange(before: Flow, after: Flow, note: (flow: Flow, effect: Effect) => Flow): Flow {
    if (before.mark !== after.mark) return note(after, { kind: 'mark', mark: after.mark });
    if (before.priority !== after.priority) {
      return note(after, {
        kind: 'note',
        text: 'remembers which Service port this is, for session affinity',
      });
    }
    return after;
  }

  #evaluate(rule: NftRule, start: Flow, at: Surroundings, drawn: number | undefined): RuleEnd {
    let flow = start;
    const looked: Looked = { element: undefined };
    const value = (expr: Expr): readonly Value[] | undefined => this.#value(expr, flow, at, drawn, looked);
    const withElement = (): { element?: { text: string; comment: string } } =>
      looked.element === undefined ? {} : { element: looked.element };
    try {
      for (const statement of rule.statements) {
        switch (statement.kind) {
          case 'match': {
            let answer: boolean;
            try {
              answer = this.#match(statement, value, rule);
            } catch (reason) {
              if (!(reason instanceof NotKnown) || onlyCounts(rule)) throw reason;
              // What cannot be told is asked; everything else in the rule still counts.
              const question = `${reason.question}, as in "${rule.text}"`;
              const known = assumed(start, question);
              if (known === undefined) return { kind: 'question', question, usual: undefined };
              answer = known;
            }
            if (!answer) return { kind: 'break' };
            break;
          }
          case 'vmap': {
            const key = value(statement.key);
            if (key === undefined) return { kind: 'break' };
            const found = this.#index(statement.set).find(key);
            if (found?.verdict === undefined) return { kind: 'break' };
            return {
              kind: 'verdict',
              flow,
              verdict: found.verdict,
              element: { text: found.text, comment: found.comment },
            };
          }
          case 'verdict':
            return { kind: 'verdict', flow, verdict: statement.verdict, ...withElement() };
          case 'set': {
            const found = value(statement.value)?.[0];
            if (found === undefined) return { kind: 'break' };
            const number = typeof found === 'bigint' ? Number(found) : 0;
            if (statement.field === 'meta mark') flow = { ...flow, mark: number };
            else if (statement.field === 'ct mark') flow = { ...flow, connectionMark: number };
            else if (statement.field === 'meta priority') flow = { ...flow, priority: number };
            break;
          }
          case 'dnat': {
            const address = statement.address === undefined ? undefined : value(statement.address);
            if (statement.address !== undefined && address === undefined) return { kind: 'break' };
            // A map may give address and port at once.
            const port = statement.port === undefined ? address?.[1] : value(statement.port)?.[0];
            const to = address?.[0];
            const destination = to === undefined ? flow.destination : addressText(to, at);
            const destinationPort = typeof port === 'bigint' ? Number(port) : flow.destinationPort;
            const effect: Effect = { kind: 'dnat', to: formatPlace(destination, destinationPort) };
            const translated: Flow = { ...flow, destination, destinationPort, dnat: 'translated' };
            return { kind: 'final', flow: translated, effect, verdict: 'accept', ...withElement() };
          }
          case 'redirect': {
            const port = statement.port === undefined ? undefined : value(statement.port)?.[0];
            const loopback = at.world.family === 'IPv6' ? '::1' : '127.0.0.1';
            const destination = at.hook === 'output' ? loopback : at.world.nodeIP;
            const destinationPort = typeof port === 'bigint' ? Number(port) : flow.destinationPort;
            const effect: Effect = { kind: 'dnat', to: formatPlace(destination, destinationPort) };
            return {
              kind: 'final',
              flow: { ...flow, destination, destinationPort, dnat: 'translated' },
              effect,
              verdict: 'accept',
            };
          }
          case 'snat': {
            const address = statement.address === undefined ? undefined : value(statement.address)?.[0];
            if (address === undefined) return { kind: 'break' };
            const source = addressText(address, at);
            return {
              kind: 'final',
              flow: { ...flow, source, snat: 'snat' },
              effect: { kind: 'snat', to: source },
              verdict: 'accept',
            };
          }
          case 'masquerade':
            return {
              kind: 'final',
              flow: { ...flow, snat: 'masquerade' },
              effect: { kind: 'masquerade' },
              verdict: 'accept',
            };
          case 'reject':
            return {
              kind: 'final',
              flow,
              effect: { kind: 'reject', with: statement.with },
              verdict: 'reject',
              ...withElement(),
            };
          case 'notrack':
            flow = { ...flow, untracked: true };
            break;
          case 'maybe': {
            const known = assumed(flow, statement.question);
            if (known === undefined)
              return { kind: 'question', question: statement.question, usual: statement.usual };
            if (!known) return { kind: 'break' };
            break;
          }
          case 'unknown':
            if (onlyCounts(rule)) return { kind: 'break' };
            throw new NotKnown(statement.text);
          case 'remember':
          case 'nothing':
            break;
        }
      }
    } catch (reason) {
      if (!(reason instanceof NotKnown)) throw reason;
      if (onlyCounts(rule)) return { kind: 'break' };
      const known = assumed(start, reason.question);
      if (known === undefined) return { kind: 'question', question: reason.question, usual: undefined };
      // It may match for all we know, but what it does cannot be followed.
      if (!known) return { kind: 'break' };
      return { kind: 'final', flow, effect: { kind: 'unknown', text: reason.question }, verdict: 'unknown' };
    }
    return { kind: 'done', flow };
  }

  /** Throws NotKnown unless the flow has assumed an answer. */
  #match(
    { left, operator, right }: { left: Expr; operator: string; right: Expr | SetRef },
    value: (expr: Expr) => readonly Value[] | undefined,
    rule: NftRule,
  ): boolean {
    const have = value(left);
    if (have === undefined) return false;
    const not = operator === '!=';
    if (!('kind' in right)) {
      if ('name' in right) {
        const set = this.#table.sets.get(right.name);
        if (set === undefined) throw new NotKnown(`set ${right.name} has it`);
      }
      return (this.#index(right).find(have) !== undefined) !== not;
    }
    const bits = left.kind === 'field' && (left.name === 'ct state' || left.name === 'ct status');
    if (right.kind === 'value') {
      const [first] = have;
      const wanted = right.value;
      if (bits && typeof wanted === 'bigint' && typeof first === 'bigint')
        return ((first & wanted) !== 0n) !== not;
      if (first === undefined) return false;
      if (operator === '==' || operator === 'in' || not) return matchesPart(wanted, first) !== not;
      if (typeof wanted !== 'bigint' || typeof first !== 'bigint') throw new NotKnown(rule.text);
      return operator === '<'
        ? first < wanted
        : operator === '<='
          ? first <= wanted
          : operator === '>'
            ? first > wanted
            : first >= wanted;
    }
    const other = value(right);
    if (other === undefined) throw new NotKnown(rule.text);
    return (have.length === other.length && have.every((one, i) => one === other[i])) !== not;
  }

  #index(set: SetRef): SetIndex {
    const key = 'inline' in set ? set.inline : set.name;
    let index = this.#indexes.get(key);
    if (index === undefined) {
      const elements =
        'inline' in set ? set.inline.elements : (this.#table.sets.get(set.name)?.elements ?? []);
      index = new SetIndex(elements);
      this.#indexes.set(key, index);
    }
    return index;
  }

  /** Undefined: there is no such value, which ends the rule (a map without the key). Throws NotKnown. */
  #value(
    expr: Expr,
    flow: Flow,
    at: Surroundings,
    drawn: number | undefined,
    looked: Looked,
  ): readonly Value[] | undefined {
    const again = (inner: Expr): readonly Value[] | undefined => this.#value(inner, flow, at, drawn, looked);
    switch (expr.kind) {
      case 'value': {
        const { value } = expr;
        if (typeof value === 'bigint' || typeof value === 'string') return [value];
        throw new NotKnown('a range where one value is needed');
      }
      case 'field':
        return fieldValue(expr.name, flow, at);
      case 'random':
        return drawn === undefined ? undefined : [BigInt(drawn + expr.offset)];
      case 'concat': {
        const parts: Value[] = [];
        for (const part of expr.parts) {
          const found = again(part);
          if (found === undefined) return undefined;
          parts.push(...found);
        }
        return parts;
      }
      case 'map': {
        const key = again(expr.key);
        if (key === undefined) return undefined;
        const found = this.#index(expr.set).find(key);
        if (found?.value === undefined) return undefined;
        looked.element = { text: found.text, comment: found.comment };
        return found.value;
      }
      case 'part': {
        const part = again(expr.of)?.[expr.index];
        return part === undefined ? undefined : [part];
      }
      case 'bits': {
        const left = again(expr.left)?.[0];
        const right = again(expr.right)?.[0];
        if (typeof left !== 'bigint' || typeof right !== 'bigint') return undefined;
        return [expr.operator === '&' ? left & right : expr.operator === '|' ? left | right : left ^ right];
      }
      case 'unknown':
        throw new NotKnown(expr.text);
    }
  }
}

/** The rule has no effect beyond counting and logging. */
function onlyCounts(rule: NftRule): boolean {
  return (
    rule.statements.every(
      ({ kind }) =>
        kind === 'match' ||
        kind === 'nothing' ||
        kind === 'remember' ||
        kind === 'unknown' ||
        kind === 'maybe',
    ) && rule.statements.some(({ kind }) => kind === 'nothing' || kind === 'remember')
  );
}

const moduli = new WeakMap<NftRule, number>();

/** How many numbers the rule draws from; undefined if it draws none. */
function randomModulus(rule: NftRule): number | undefined {
  let modulus = moduli.get(rule);
  if (modulus === undefined) {
    modulus = 0;
    const look = (expr: Expr | undefined): void => {
      switch (expr?.kind) {
        case 'random':
          modulus = expr.modulus;
          break;
        case 'concat':
          expr.parts.forEach(look);
          break;
        case 'map':
          look(expr.key);
          break;
        case 'part':
          look(expr.of);
          break;
        case 'bits':
          look(expr.left);
          look(expr.right);
          break;
        default:
      }
    };
    for (const statement of rule.statements) {
      if (statement.kind === 'vmap') look(statement.key);
      else if (statement.kind === 'match') look(statement.left);
      else if (statement.kind === 'set') look(statement.value);
      else if (statement.kind === 'dnat' || statement.kind === 'snat') {
        look(statement.address);
        look(statement.port);
      }
    }
    moduli.set(rule, modulus);
  }
  return modulus === 0 ? undefined : modulus;
}

export function addressNumber(address: string): bigint {
  return BigInt(`0x${Buffer.from(parseIP(address) ?? new Uint8Array(1)).toString('hex')}`);
}

function addressText(value: Value, { world }: Surroundings): string {
  if (typeof value === 'string') return value;
  const size = world.family === 'IPv6' ? 16 : 4;
  return formatIP(Buffer.from(value.toString(16).padStart(size * 2, '0'), 'hex'));
}

function fieldValue(name: string, flow: Flow, at: Surroundings): readonly Value[] | undefined {
  const { packet, world } = at;
  const v6 = packet.family === 'IPv6';
  switch (name) {
    case 'ip saddr':
    case 'ip6 saddr':
      return (name === 'ip6 saddr') === v6 ? [addressNumber(flow.source)] : undefined;
    case 'ip daddr':
    case 'ip6 daddr':
      return (name === 'ip6 daddr') === v6 ? [addressNumber(flow.destination)] : undefined;
    case 'ip protocol':
    case 'ip6 nexthdr':
      return (name === 'ip6 nexthdr') === v6 ? [BigInt(protocolNumbers[packet.protocol])] : undefined;
    case 'meta l4proto':
      return [BigInt(protocolNumbers[packet.protocol])];
    case 'meta nfproto':
      return [v6 ? 10n : 2n];
    case 'meta protocol':
      return [v6 ? 0x86ddn : 0x800n];
    case 'tcp dport':
    case 'udp dport':
    case 'sctp dport':
    case 'th dport':
      return isProtocol(name, packet.protocol) ? [BigInt(flow.destinationPort)] : undefined;
    case 'tcp sport':
    case 'udp sport':
    case 'sctp sport':
    case 'th sport':
      if (!isProtocol(name, packet.protocol)) return undefined;
      // One of those that the kernel hands out.
      return [BigInt(flow.sourcePort ?? 40000)];
    case 'meta mark':
      return [BigInt(flow.mark)];
    case 'ct mark':
      return [BigInt(flow.connectionMark)];
    case 'meta priority':
      return [BigInt(flow.priority)];
    case 'ct state':
      return [flow.untracked ? stateBits.untracked : stateBits.new];
    case 'ct status':
      return [
        (flow.dnat === undefined ? 0n : statusBits.dnat) | (flow.snat === undefined ? 0n : statusBits.snat),
      ];
    case 'ct direction':
      return [0n];
    case 'fib saddr type':
      return [typeNumber(addressType(world, flow.source))];
    case 'fib daddr type':
      return [typeNumber(addressType(world, flow.destination))];
    case 'iifname':
      if (flow.inInterface === undefined) {
        // A packet that starts here has come in by none: the kernel compares with an empty name.
        if (startsHere(packet.origin)) return [''];
        throw new NotKnown('the interface it comes in by');
      }
      return [flow.inInterface];
    case 'oifname':
      if (flow.outInterface === undefined) throw new NotKnown('the interface it leaves by');
      return [flow.outInterface];
    case 'ct original ip daddr':
    case 'ct original ip6 daddr':
      return [addressNumber(packet.destination)];
    case 'ct original ip saddr':
    case 'ct original ip6 saddr':
      return [addressNumber(packet.origin.address)];
    case 'ct original proto-dst':
      return [BigInt(packet.destinationPort)];
    case 'tcp flags':
      return packet.protocol === 'TCP' ? [2n] : undefined;
    case 'meta pkttype':
      return ['host'];
    default:
      throw new NotKnown(name);
  }
}

function isProtocol(field: string, protocol: string): boolean {
  const [name] = field.split(' ');
  return name === 'th' || name === protocol.toLowerCase();
}

function typeNumber(type: string): bigint {
  return addressTypes[type.toLowerCase() as keyof typeof addressTypes];
}
