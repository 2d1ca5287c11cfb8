/** Takes chains and the rules that lead into them out of a table, in one step, and leaves everything else alone. */
import { canonicalRule } from './canonical.ts';
import type { Iptables, Table } from './iptables.ts';
import { parseLine } from './save.ts';

/** A rule of a chain that stays, which leads into a chain that goes. */
export interface JumpRule {
  readonly table: Table;
  readonly from: string;
  /** As in a rule, without the operation. */
  readonly args: string;
}

/** By its chain, or by what it says of itself. */
const otherMode = /^-A KUBE-|--comment "(kubernetes|kube-proxy) /;

/** Equal for rules that say the same. */
export function identity(jump: JumpRule): string {
  return `${jump.table} ${jump.from} ${canonicalRule(jump.args)}`;
}

/**
 * Removes those of the jumps that are there, and the chains that `goes` says.
 * @returns whether there was anything to remove
 * @throws IptablesError if the table cannot be read or written; Error, after the rest is removed, if rules of others
 *   lead into chains that should go: these stay, with all they lead to. Rules of another mode are no error: its own
 *   clean-up takes the chains with them.
 */
export async function removeChains(
  iptables: Iptables,
  table: Table,
  jumps: readonly JumpRule[],
  goes: (chain: string) => boolean,
): Promise<boolean> {
  const known = new Set(jumps.filter((one) => one.table === table).map(identity));
  const going = new Set<string>();
  const deletions: string[] = [];
  /** Chain that should go → a rule of somebody else that leads into it. */
  const held = new Map<string, string>();
  /** Of chains that should go: which others they lead to. */
  const leads = new Map<string, string[]>();
  await iptables.save(table, (line) => {
    const event = parseLine(line);
    if (event?.kind === 'chain') {
      if (goes(event.chain)) going.add(event.chain);
    } else if (event?.kind === 'rule') {
      const { chain, args } = event;
      const target = /(?:^| )-[jg] (\S+)/.exec(args)?.[1];
      if (goes(chain)) {
        if (target === undefined || !goes(target)) return;
        const targets = leads.get(chain);
        if (targets === undefined) leads.set(chain, [target]);
        else targets.push(target);
      } else if (known.has(identity({ table, from: chain, args }))) deletions.push(`-D ${chain} ${args}`);
      else if (target !== undefined && goes(target)) held.set(target, `-A ${chain} ${args}`);
    }
  });
  const pending = [...held.keys()];
  for (let chain = pending.pop(); chain !== undefined; chain = pending.pop()) {
    going.delete(chain);
    for (const next of leads.get(chain) ?? []) if (going.has(next)) pending.push(next);
  }
  if (going.size > 0 || deletions.length > 0) {
    let text = `*${table}\n`;
    for (const chain of going) text += `:${chain} - [0:0]\n`;
    for (const deletion of deletions) text += `${deletion}\n`;
    for (const chain of going) text += `-X ${chain}\n`;
    await iptables.restore(`${text}COMMIT\n`, table);
  }
  const first = [...held].find(([, rule]) => !otherMode.test(rule));
  if (first !== undefined)
    throw new Error(
      `chain ${first[0]} of table ${table} (${iptables.family}) stays: somebody else's rule leads into it; remove "${first[1]}" first`,
    );
  return going.size > 0 || deletions.length > 0;
}
