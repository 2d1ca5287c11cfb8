/** Reads the rules of the kernel through iptables-save, or only the fixed chains of them. */
import { canonicalRule } from '../../linux/iptables/canonical.ts';
import type { Iptables } from '../../linux/iptables/iptables.ts';
import { emptyTable, tableReader, type Actual, type ActualTable } from './actual.ts';
import { canaryChain, natChains } from './names.ts';
import { jumps } from './staticRules.ts';

/** Everything. iptables-nft-save needs time with the square of the number of chains: 1 s for 11,000, 15 s for 55,000. */
export async function readActual(iptables: Iptables): Promise<Actual> {
  return { filter: await readTable(iptables, 'filter'), nat: await readTable(iptables, 'nat') };
}

async function readTable(iptables: Iptables, table: 'filter' | 'nat'): Promise<ActualTable> {
  const reader = tableReader();
  await iptables.save(table, (line) => reader.line(line));
  return reader.end();
}

/** Table filter, and of table nat only the chains that all service ports share: a few milliseconds each. */
export async function readFixed(iptables: Iptables): Promise<Actual> {
  const nat = emptyTable();
  const builtIn = jumps.filter((jump) => jump.table === 'nat').map((jump) => jump.from);
  for (const chain of new Set([...builtIn, ...natChains, canaryChain])) {
    const rules = await iptables.listChain('nat', chain);
    if (rules !== undefined) nat.fixed.set(chain, rules.map(canonicalRule));
  }
  return { filter: await readTable(iptables, 'filter'), nat };
}
