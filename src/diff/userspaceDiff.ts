/**
 * Wanted against the rules of userspace mode. At which ports the process listens is known to itself alone: rules that
 * differ in nothing else are the same here.
 */
import { chains, nonLocal } from '../dataplane/userspace/names.ts';
import { compareJumps, jumpsFor } from '../dataplane/userspace/ruleSet.ts';
import type { Rule } from '../dataplane/userspace/rules.ts';
import { canonicalRule } from '../linux/iptables/canonical.ts';
import type { SavedTable } from '../linux/iptables/save.ts';
import { userspaceRules } from '../render/userspace.ts';
import type { Wanted, WantedFamily } from '../render/wanted.ts';
import { unmatched, type Difference } from './difference.ts';

export const userspaceNote =
  'The ports of listeners were not compared: only the process that listens knows them (it writes them as * here).';

export function diffUserspace(
  wanted: Pick<Wanted, 'config'>,
  family: WantedFamily,
  actual: readonly SavedTable[],
): Difference[] {
  const found: Difference[] = [];
  const add = (difference: Omit<Difference, 'family' | 'servicePort'>, servicePort = ''): void => {
    found.push({ family: family.family, servicePort, ...difference });
  };
  const byChain = new Map<string, { readonly args: string; readonly name: string }[]>();
  for (const [id, rules] of userspaceRules(wanted, family)) {
    const name = family.table.routes.get(id)?.port.name ?? '';
    for (const { table, chain, args } of rules) push(byChain, `${table} ${chain}`, { args, name });
  }
  const jumps = jumpsFor(family.options.nodePortAddresses);
  for (const table of ['nat', 'filter'] as const) {
    const have = actual.find((one) => one.table === table)?.chains;
    for (const chain of chains[table]) {
      const where = `${table} ${chain}`;
      const wantedRules = byChain.get(where) ?? [];
      const there = have?.get(chain)?.rules.map((args) => ({ args, name: commentOf(args) }));
      const print = ({ args }: Pick<Rule, 'args'>): string => `-A ${chain} ${withoutPort(chain, args)}`;
      if (there === undefined) {
        add({ kind: 'missing', object: 'chain', where, wanted: wantedRules.map(print), actual: [] });
        continue;
      }
      const sign = ({ args }: { args: string }): string => canonicalRule(withoutPort(chain, args));
      const { missing, extra } = unmatched(wantedRules, there, sign);
      for (const rule of missing)
        add({ kind: 'missing', object: 'rule', where, wanted: [print(rule)], actual: [] }, rule.name);
      for (const rule of extra)
        add({ kind: 'extra', object: 'rule', where, wanted: [], actual: [print(rule)] }, rule.name);
    }
    const { missing, strange } = compareJumps(actual, jumps, table);
    for (const { chain, args, first } of missing) {
      const lines = [`${first ? '-I' : '-A'} ${chain} ${args}`];
      add({ kind: 'missing', object: 'jump', where: `${table} ${chain}`, wanted: lines, actual: [] });
    }
    for (const [chain, args] of strange) {
      const lines = [`-A ${chain} ${args}`];
      add({ kind: 'extra', object: 'jump', where: `${table} ${chain}`, wanted: [], actual: lines });
    }
  }
  return found;
}

function push<T>(lists: Map<string, T[]>, key: string, one: T): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [one]);
  else list.push(one);
}

function withoutPort(chain: string, args: string): string {
  if (chain === nonLocal) return args.replace(/--dport \d+/, '--dport *');
  return args.replace(/--to-ports \d+/, '--to-ports *').replace(/(--to-destination \S*):\d+/, '$1:*');
}

function commentOf(args: string): string {
  return /--comment "?([^" ]+)/.exec(args)?.[1] ?? '';
}
