/** Interprets nftables tables: base chains for the walk, maps and sets looked up as the kernel does. */
import type { Effect, Flow, HookName, Result, Surroundings } from '../flow.ts';
import { addStep, assume, opposite } from '../flow.ts';
import type { BaseChain } from '../walk.ts';
import type { NftRule, NftTable } from './form.ts';
import { randomModulus } from './random.ts';
import { evaluateRule, type RuleEnd } from './rule.ts';
import { TableValues } from './values.ts';

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

class NftInterpreter {
  readonly #table: NftTable;
  readonly #values: TableValues;

  constructor(table: NftTable) {
    this.#table = table;
    this.#values = new TableValues(table);
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
    const end = evaluateRule(this.#values, rule, flow, at, drawn);
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
        const yes = assume(flow, { question, holds: true, usual, kind: 'unknown' });
        const rest = this.#once(rule, chain, index, yes, at, depth, drawn, results);
        if (rest !== undefined)
          for (const one of this.#run(chain, index + 1, rest, at, depth)) results.push(one);
        return assume(flow, { question, holds: false, usual: opposite(usual), kind: 'unknown' });
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
}
