/** The rules of userspace mode as iptables-save would print them on a node with nobody else's rules. */
import { chains } from '../../dataplane/userspace/names.ts';
import { jumpsFor } from '../../dataplane/userspace/ruleSet.ts';
import type { SavedChain, SavedTable } from '../../linux/iptables/save.ts';
import { userspaceRules } from '../../render/userspace.ts';
import type { Wanted } from '../routes.ts';

const builtIn = {
  nat: ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'],
  filter: ['INPUT', 'FORWARD', 'OUTPUT'],
} as const;

/** At which ports the process listens is made up: it takes those that are free. */
export function userspaceTables({ table, options, localhostNodePorts, listeners }: Wanted): SavedTable[] {
  const config = { ...(listeners ?? { bindAddress: '0.0.0.0', portRange: '' }), localhostNodePorts };
  const rules = [...userspaceRules({ config }, { family: table.family, options, table }).values()].flat();
  const jumps = jumpsFor(options.nodePortAddresses);
  return (['nat', 'filter'] as const).map((name): SavedTable => {
    const all = new Map<string, SavedChain>();
    for (const chain of builtIn[name]) all.set(chain, { name: chain, policy: 'ACCEPT', rules: [] });
    for (const chain of chains[name]) all.set(chain, { name: chain, policy: '-', rules: [] });
    for (const { table: of, chain, args } of rules) if (of === name) all.get(chain)?.rules.push(args);
    const own = jumps.filter((jump) => jump.table === name);
    const ordered = [...own.filter(({ first }) => first), ...own.filter(({ first }) => !first)];
    for (const { chain, args } of ordered) all.get(chain)?.rules.push(args);
    return { table: name, chains: all };
  });
}
