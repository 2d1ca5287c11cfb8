/** Removes everything that iptables mode (ours or kube-proxy's) leaves in the kernel, but for what kubelet shares. */
import type { Family } from '../../api/objects.ts';
import { Iptables, type IptablesOptions } from '../../linux/iptables/iptables.ts';
import { parseLine } from '../../linux/iptables/save.ts';
import type { Logger } from '../../log/logger.ts';
import { canaryChain, filterChains, isOwnChain, natChains } from './names.ts';
import { Section } from './restoreDocument.ts';
import { jumps } from './staticRules.ts';

export interface CleanupOptions {
  readonly log: Logger;
  /** Default both. */
  readonly families?: readonly Family[];
  readonly iptables?: (family: Family) => IptablesOptions;
}

const families: readonly Family[] = ['IPv4', 'IPv6'];

/** Chains that iptables mode left behind, as `IPv4 nat KUBE-SERVICES`; empty if there are none. */
export async function detectLeftovers(options: CleanupOptions): Promise<string[]> {
  const found: string[] = [];
  for (const iptables of await usable(options)) {
    for (const table of ['nat', 'filter'] as const) {
      for (const chain of await ourChains(iptables, table))
        found.push(`${iptables.family} ${table} ${chain}`);
    }
  }
  return found;
}

/** Removes them in every family that can be used here. Goes on after an error, and throws all of them at the end. */
export async function cleanup(options: CleanupOptions): Promise<void> {
  const errors: unknown[] = [];
  const attempt = async (work: () => Promise<unknown>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      options.log.error('Cannot remove iptables rules', { err: error });
      errors.push(error);
    }
  };
  for (const iptables of await usable(options)) {
    // Jumps first: chains are refused deletion while something refers to them.
    for (const jump of jumps) {
      if (jump.shared) continue;
      await attempt(async () => {
        await iptables.deleteRule(jump.table, jump.from, [...jump.match, '-j', jump.to]);
      });
    }
    for (const table of ['nat', 'filter'] as const) {
      await attempt(async () => {
        const section = new Section(table);
        for (const chain of await ourChains(iptables, table)) {
          section.chain(chain);
          section.deleteChain(chain);
        }
        if (!section.empty) await iptables.restore(section.print(), table);
      });
    }
    try {
      await iptables.deleteChain('mangle', canaryChain);
    } catch (error) {
      // An empty chain that nothing refers to does no harm where it cannot be removed.
      options.log.info('Cannot remove the canary chain of table mangle', { reason: String(error) }, 2);
    }
  }
  if (errors.length > 0) {
    throw new AggregateError(
      errors,
      `cleaning up iptables rules failed: ${errors.map((error) => (error instanceof Error ? error.message : String(error))).join('; ')}`,
    );
  }
}

async function usable(options: CleanupOptions): Promise<Iptables[]> {
  const list: Iptables[] = [];
  for (const family of options.families ?? families) {
    const iptables = await Iptables.open(family, options.iptables?.(family) ?? {});
    if (await iptables.usable()) list.push(iptables);
  }
  return list;
}

const fixedChains: Readonly<Record<'nat' | 'filter', ReadonlySet<string>>> = {
  nat: new Set<string>([...natChains, canaryChain]),
  filter: new Set<string>([...filterChains, canaryChain]),
};

async function ourChains(iptables: Iptables, table: 'nat' | 'filter'): Promise<string[]> {
  const found: string[] = [];
  await iptables.save(table, (line) => {
    const event = parseLine(line);
    if (event?.kind !== 'chain') return;
    if (fixedChains[table].has(event.chain) || (table === 'nat' && isOwnChain(event.chain)))
      found.push(event.chain);
  });
  return found;
}
