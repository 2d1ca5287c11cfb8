/** What the kernel's iptables rules lack of ours. */
import { canonicalRule } from '../../linux/iptables/canonical.ts';
import type { Iptables } from '../../linux/iptables/iptables.ts';
import { parseLine } from '../../linux/iptables/save.ts';
import { chainsOf, otherModesChains, type RuleTable } from './names.ts';
import { jumps, type Jump, type RuleSet } from './rules.ts';

export interface RuleDifference {
  /** Tables that have to be written. */
  readonly tables: readonly RuleTable[];
  readonly missing: readonly Jump[];
  /** What is wrong, in a few words; undefined if nothing is. */
  readonly wrong: string | undefined;
  /** Rules of another mode are there. */
  readonly otherMode: boolean;
}

const tables: readonly RuleTable[] = ['mangle', 'nat', 'filter'];

/** Reads all three tables and compares them with the rules wanted. */
export async function compareRules(iptables: Iptables, rules: RuleSet): Promise<RuleDifference> {
  const different: RuleTable[] = [];
  const missing: Jump[] = [];
  const wrong: string[] = [];
  let otherMode = false;
  for (const table of tables) {
    const chains = await readChains(iptables, table);
    otherMode ||= otherModesChains.some((chain) => chains.has(chain));
    const wanted = new Map<string, string[]>(chainsOf[table].map((chain) => [chain, []]));
    for (const rule of rules[table]) wanted.get(rule.chain)?.push(canonical(rule.args));
    let differs = false;
    for (const [chain, list] of wanted) {
      const there = chains.get(chain);
      if (there !== undefined && there.length === list.length && there.every((rule, i) => rule === list[i]))
        continue;
      differs = true;
      wrong.push(
        there === undefined ? `chain ${chain} of ${table} missing` : `rules of ${chain} in ${table}`,
      );
    }
    for (const jump of jumps) {
      if (jump.table !== table || chains.get(jump.from)?.includes(canonical(jump.args)) === true) continue;
      missing.push(jump);
      wrong.push(`jump from ${jump.from} of ${table} missing`);
      differs = true;
    }
    if (differs) different.push(table);
  }
  return { tables: different, missing, wrong: wrong[0], otherMode };
}

/** A rule outside the mode's own chains that matches on the set, as an iptables command; undefined if there is none. */
export async function foreignReference(iptables: Iptables, set: string): Promise<string | undefined> {
  for (const table of tables) {
    let found: string | undefined;
    const own: readonly string[] = chainsOf[table];
    await iptables.save(table, (line) => {
      const event = parseLine(line);
      if (event?.kind !== 'rule' || own.includes(event.chain)) return;
      if (event.args.split(' ').includes(set))
        found ??= `iptables -t ${table} -A ${event.chain} ${event.args}`;
    });
    if (found !== undefined) return found;
  }
  return undefined;
}

async function readChains(iptables: Iptables, table: RuleTable): Promise<Map<string, string[]>> {
  const chains = new Map<string, string[]>();
  await iptables.save(table, (line) => {
    const event = parseLine(line);
    if (event?.kind === 'chain') chains.set(event.chain, []);
    else if (event?.kind === 'rule') chains.get(event.chain)?.push(canonical(event.args));
  });
  return chains;
}

/** iptables prints the protocol of `-m ipvs` as a number, whatever it was given. */
export function canonical(args: string): string {
  return canonicalRule(
    args.replace(/--vproto (6|17|132)\b/, (_, number: string) => `--vproto ${names[number]}`),
  );
}

const names: Readonly<Record<string, string>> = { 6: 'tcp', 17: 'udp', 132: 'sctp' };
