/** Interprets the tables of iptables-save: each built-in chain is a base chain of the walk. */
import type { Effect, Flow, HookName, Result, Surroundings } from '../flow.ts';
import { addStep, assume, assumed, opposite } from '../flow.ts';
import type { BaseChain } from '../walk.ts';
import { canonicalIP } from '../../services/ip.ts';
import type { SavedTable } from '../../linux/iptables/save.ts';
import { formatPlace, startsHere } from '../packet.ts';
import { every, testMatch } from './matches.ts';
import { parseRule, type Option, type Rule } from './parse.ts';

/** Where tables hang (linux/netfilter_ipv4.h, NF_IP_PRI_…). */
const hooks: Readonly<Record<string, HookName>> = {
  PREROUTING: 'prerouting',
  INPUT: 'input',
  FORWARD: 'forward',
  OUTPUT: 'output',
  POSTROUTING: 'postrouting',
};

/** When the kernel asks a table's built-in chain (NF_IP_PRI_…). */
export function tablePriority(table: string, chain: string): number {
  switch (table) {
    case 'raw':
      return -300;
    case 'mangle':
      return -150;
    case 'nat':
      return chain === 'PREROUTING' || chain === 'OUTPUT' ? -100 : 100;
    case 'security':
      return 50;
    default:
      return 0;
  }
}

/** The base chains of the tables; rules are taken apart when a packet first comes to them. */
export function iptablesChains(tables: readonly SavedTable[]): BaseChain[] {
  const chains: BaseChain[] = [];
  for (const table of tables) {
    const interpreter = new TableInterpreter(table);
    for (const chain of table.chains.values()) {
      const hook = hooks[chain.name];
      if (hook === undefined || chain.policy === '-') continue;
      chains.push({
        hook,
        priority: tablePriority(table.table, chain.name),
        type: table.table === 'nat' ? 'nat' : 'filter',
        name: `${table.table} ${chain.name}`,
        evaluate: (flow, at) => interpreter.base(chain.name, chain.policy, flow, at),
      });
    }
  }
  return chains;
}

/** Deeper than this and the rules go in circles, which the kernel would not have taken. */
const depthMax = 64;

/** Targets that change nothing we follow. */
const harmless = new Set([
  'LOG',
  'NFLOG',
  'ULOG',
  'TRACE',
  'CHECKSUM',
  'TCPMSS',
  'CLASSIFY',
  'AUDIT',
  'DSCP',
  'TOS',
  'SET',
  'IDLETIMER',
  '',
]);

class TableInterpreter {
  readonly #table: SavedTable;
  readonly #rules = new Map<string, readonly Rule[]>();

  constructor(table: SavedTable) {
    this.#table = table;
  }

  base(chain: string, policy: string, flow: Flow, at: Surroundings): Result[] {
    return this.#run(chain, 0, flow, at, 0).map((result) => {
      if (result.verdict !== 'next' || policy === 'ACCEPT') return result;
      const effect: Effect = { kind: 'drop', policy: true };
      const dropped = addStep(result.flow, { hook: at.hook, base: at.base, chain, rule: '', effect });
      return { flow: dropped, verdict: 'drop' };
    });
  }

  #rulesOf(chain: string): readonly Rule[] {
    let rules = this.#rules.get(chain);
    if (rules === undefined) {
      rules = (this.#table.chains.get(chain)?.rules ?? []).map(parseRule);
      this.#rules.set(chain, rules);
    }
    return rules;
  }

  #run(chain: string, from: number, start: Flow, at: Surroundings, depth: number): Result[] {
    const rules = this.#rulesOf(chain);
    const results: Result[] = [];
    let flow = start;
    for (let i = from; i < rules.length; i++) {
      const rule = rules[i]!;
      const truth = every(lazily(rule, flow, at));
      if (truth === false) continue;
      if (truth === true) {
        for (const result of this.#apply(rule, chain, i, flow, at, depth, 1)) results.push(result);
        return results;
      }
      if ('chance' in truth) {
        const taken = { ...flow, probability: flow.probability * truth.chance };
        for (const result of this.#apply(rule, chain, i, taken, at, depth, truth.chance))
          results.push(result);
        flow = { ...flow, probability: flow.probability * (1 - truth.chance) };
        continue;
      }
      if (harmless.has(rule.target)) continue;
      const known = assumed(flow, truth.question);
      if (known === false) continue;
      const { question, usual, affinity } = truth;
      const kind = affinity === true ? 'affinity' : 'unknown';
      const yes = known === true ? flow : assume(flow, { question, holds: true, usual, kind });
      for (const result of this.#apply(rule, chain, i, yes, at, depth, 1)) results.push(result);
      if (known === true) return results;
      flow = assume(flow, { question, holds: false, usual: opposite(usual), kind });
    }
    results.push({ flow, verdict: 'next' });
    return results;
  }

  /** Everything from this rule on: what the target does, and, if that ends nothing, the rules behind. */
  #apply(
    rule: Rule,
    chain: string,
    index: number,
    flow: Flow,
    at: Surroundings,
    depth: number,
    chance: number,
  ): Result[] {
    const { target, targetOptions } = rule;
    const note = (after: Flow, effect: Effect): Flow =>
      addStep(after, {
        hook: at.hook,
        base: at.base,
        chain,
        rule: rule.text,
        effect,
        ...(rule.comment === '' ? {} : { comment: rule.comment }),
      });
    const onward = (after: Flow): Result[] => this.#run(chain, index + 1, after, at, depth);
    const option = (name: string): Option | undefined => targetOptions.find((one) => one.name === name);

    if (this.#table.chains.has(target)) {
      if (depth >= depthMax) {
        return [
          { flow: note(flow, { kind: 'unknown', text: 'chains that call each other' }), verdict: 'unknown' },
        ];
      }
      const effect: Effect =
        chance < 1
          ? { kind: 'choose', chain: target, probability: chance }
          : { kind: rule.goto ? 'goto' : 'jump', chain: target };
      const inside = this.#run(target, 0, note(flow, effect), at, depth + 1);
      if (rule.goto) return inside;
      return inside.flatMap((result) => (result.verdict === 'next' ? onward(result.flow) : [result]));
    }
    switch (target) {
      case 'ACCEPT':
        return [{ flow: note(flow, { kind: 'accept' }), verdict: 'accept' }];
      case 'DROP':
        return [{ flow: note(flow, { kind: 'drop', policy: false }), verdict: 'drop' }];
      case 'REJECT': {
        const type = option('--reject-with')?.values[0] ?? 'icmp-port-unreachable';
        return [{ flow: note(flow, { kind: 'reject', with: type }), verdict: 'reject' }];
      }
      case 'RETURN':
        return [{ flow: note(flow, { kind: 'return' }), verdict: 'next' }];
      case 'DNAT':
      case 'REDIRECT': {
        const translated = translate(target, targetOptions, flow, at);
        if (translated === undefined) {
          return [
            {
              flow: note(flow, { kind: 'unknown', text: `-j ${rule.text.split('-j ')[1] ?? target}` }),
              verdict: 'unknown',
            },
          ];
        }
        const to = formatPlace(translated.destination, translated.destinationPort);
        return [{ flow: note(translated, { kind: 'dnat', to }), verdict: 'accept' }];
      }
      case 'MASQUERADE':
        return [{ flow: note({ ...flow, snat: 'masquerade' }, { kind: 'masquerade' }), verdict: 'accept' }];
      case 'SNAT': {
        const to = option('--to-source')?.values[0] ?? '';
        const address = canonicalIP(to.replace(/:\d+(-\d+)?$/, '')) ?? canonicalIP(to);
        if (address === undefined) {
          return [{ flow: note(flow, { kind: 'unknown', text: `SNAT to ${to}` }), verdict: 'unknown' }];
        }
        return [
          {
            flow: note({ ...flow, source: address, snat: 'snat' }, { kind: 'snat', to: address }),
            verdict: 'accept',
          },
        ];
      }
      case 'MARK': {
        const mark = setMark(targetOptions, flow.mark);
        return onward(note({ ...flow, mark }, { kind: 'mark', mark }));
      }
      case 'CONNMARK':
        return onward(connectionMark(targetOptions, flow));
      case 'NOTRACK':
        return onward(
          note({ ...flow, untracked: true }, { kind: 'note', text: 'not tracked: no translation' }),
        );
      case 'CT':
        return option('--notrack') === undefined
          ? onward(flow)
          : onward(note({ ...flow, untracked: true }, { kind: 'note', text: 'not tracked: no translation' }));
      default:
        if (harmless.has(target)) {
          const list = remembered(rule);
          return onward(list === undefined ? flow : note(flow, { kind: 'remember', list }));
        }
        return [{ flow: note(flow, { kind: 'unknown', text: `target ${target}` }), verdict: 'unknown' }];
    }
  }
}

function* lazily(rule: Rule, flow: Flow, at: Surroundings): Generator<ReturnType<typeof testMatch>> {
  for (const match of rule.matches) yield testMatch(match, flow, at);
}

function remembered(rule: Rule): string | undefined {
  const recent = rule.matches.find(({ module }) => module === 'recent');
  if (recent === undefined || !recent.options.some(({ name }) => name === '--set')) return undefined;
  return recent.options.find(({ name }) => name === '--name')?.values[0];
}

/** Undefined: a form that is not understood, as a range of addresses. */
function translate(
  target: string,
  options: readonly Option[],
  flow: Flow,
  { world, packet }: Surroundings,
): Flow | undefined {
  const value = (name: string): string => options.find((one) => one.name === name)?.values[0] ?? '';
  if (target === 'REDIRECT') {
    const port = value('--to-ports');
    if (port !== '' && !/^\d+$/.test(port)) return undefined;
    const destination =
      startsHere(packet.origin) || world.nodeIP === ''
        ? world.family === 'IPv6'
          ? '::1'
          : '127.0.0.1'
        : // The address of the interface it came in by.
          world.sourceTowards(flow.source);
    const destinationPort = port === '' ? flow.destinationPort : Number(port);
    return { ...flow, destination, destinationPort, dnat: 'translated' };
  }
  const found = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)|([0-9a-fA-F:]+))?(?::(\d+))?$/.exec(
    value('--to-destination'),
  );
  if (found === null) return undefined;
  const text = found[1] ?? found[2] ?? found[3];
  const destination = text === undefined ? flow.destination : canonicalIP(text);
  if (destination === undefined) return undefined;
  const destinationPort = found[4] === undefined ? flow.destinationPort : Number(found[4]);
  return { ...flow, destination, destinationPort, dnat: 'translated' };
}

function setMark(options: readonly Option[], before: number): number {
  let mark = before;
  for (const { name, values } of options) {
    const [value = '0', mask] = (values[0] ?? '0').split('/');
    const number = Number(value);
    if (name === '--set-xmark') mark = (mark & ~Number(mask ?? '0xffffffff')) ^ number;
    else if (name === '--set-mark') mark = (mark & ~Number(mask ?? '0xffffffff')) | number;
    else if (name === '--or-mark') mark |= number;
    else if (name === '--and-mark') mark &= number;
    else if (name === '--xor-mark') mark ^= number;
  }
  return mark >>> 0;
}

function connectionMark(options: readonly Option[], flow: Flow): Flow {
  const mask = Number(
    options.find(({ name }) => name === '--mask' || name === '--nfmask')?.values[0] ?? '0xffffffff',
  );
  if (options.some(({ name }) => name === '--restore-mark')) {
    return { ...flow, mark: ((flow.mark & ~mask) | (flow.connectionMark & mask)) >>> 0 };
  }
  if (options.some(({ name }) => name === '--save-mark')) {
    return { ...flow, connectionMark: ((flow.connectionMark & ~mask) | (flow.mark & mask)) >>> 0 };
  }
  return { ...flow, connectionMark: setMark(options, flow.connectionMark) };
}
