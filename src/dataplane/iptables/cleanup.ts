/** Removes everything that iptables mode (ours or kube-proxy's) leaves in the kernel, but for what kubelet shares. */
import type { Family } from '../../api/objects.ts';
import { ruleHolders, type RuleHolder } from '../../linux/iptables/holders.ts';
import type { IptablesOptions, Table } from '../../linux/iptables/iptables.ts';
import { identity, removeChains, type JumpRule } from '../../linux/iptables/removal.ts';
import { parseLine } from '../../linux/iptables/save.ts';
import { AccountingCounters } from '../../linux/netlink/nfacct.ts';
import type { Logger } from '../../log/logger.ts';
import { canaryChain, filterChains, isOwnChain, natChains } from './names.ts';
import { invalidPacketsCounter, localhostNodePortsCounter } from './settings.ts';
import { jumpArgs, jumps } from './staticRules.ts';

/** What another mode fills in its own way. */
export interface SharedRules {
  readonly chains: Readonly<Record<Table, readonly string[]>>;
  readonly jumps: readonly JumpRule[];
}

export interface CleanupOptions {
  readonly log: Logger;
  /** Default both. */
  readonly families?: readonly Family[];
  readonly iptables?: (family: Family) => IptablesOptions;
  /**
   * What stays in the iptables of here, where the mode in force has its own rules; other backends are cleared all the
   * same. `all` = iptables mode itself is in force. Default nothing.
   */
  readonly stays?: SharedRules | 'all';
}

const families: readonly Family[] = ['IPv4', 'IPv6'];

const fixedChains: Readonly<Record<Table, ReadonlySet<string>>> = {
  nat: new Set<string>([...natChains, canaryChain]),
  filter: new Set<string>([...filterChains, canaryChain]),
  mangle: new Set<string>([canaryChain]),
};

const ownJumps: readonly JumpRule[] = jumps
  .filter((jump) => !jump.shared)
  .map((jump) => ({ table: jump.table, from: jump.from, args: jumpArgs(jump) }));

/** Chains that iptables mode left behind, as `IPv4 nat KUBE-SERVICES`; empty if there are none. */
export async function detectLeftovers(options: CleanupOptions): Promise<string[]> {
  const found: string[] = [];
  for (const { iptables, tables } of await holders(options)) {
    for (const table of tables) {
      await iptables.save(table, (line) => {
        const event = parseLine(line);
        if (event?.kind === 'chain' && isOurs(table, event.chain))
          found.push(`${iptables.family} ${table} ${event.chain}`);
      });
    }
  }
  return found;
}

/** Removes them in every family that can be used here. Goes on after an error, and throws all of them at the end. */
export async function cleanup(options: CleanupOptions): Promise<void> {
  const { log, stays } = options;
  const errors: unknown[] = [];
  for (const { iptables, tables, current } of await holders(options)) {
    if (current && stays === 'all') continue;
    const shared = current && stays !== 'all' ? stays : undefined;
    const kept = new Set(shared?.jumps.map(identity));
    const going = ownJumps.filter((jump) => !kept.has(identity(jump)));
    for (const table of tables) {
      try {
        const removed = await removeChains(
          iptables,
          table,
          going,
          (chain) => isOurs(table, chain) && shared?.chains[table].includes(chain) !== true,
        );
        if (removed)
          log.info('Removed leftovers', {
            mode: 'iptables',
            family: iptables.family,
            table,
            backend: iptables.features.backend,
          });
      } catch (err) {
        log.error('Cannot remove iptables rules', { err });
        errors.push(err);
      }
    }
  }
  if (stays !== 'all' && options.iptables === undefined) removeCounters(log);
  if (errors.length > 0) {
    throw new AggregateError(
      errors,
      `cleaning up iptables rules failed: ${errors.map((error) => (error instanceof Error ? error.message : String(error))).join('; ')}`,
    );
  }
}

async function holders(options: CleanupOptions): Promise<RuleHolder[]> {
  const lists: RuleHolder[] = [];
  for (const family of options.families ?? families)
    lists.push(...(await ruleHolders(family, options.iptables?.(family))));
  return lists;
}

function isOurs(table: Table, chain: string): boolean {
  return fixedChains[table].has(chain) || (table === 'nat' && isOwnChain(chain));
}

/** Named counters that no rule counts in any more. */
function removeCounters(log: Logger): void {
  const counters = new AccountingCounters();
  try {
    if (!counters.probe()) return;
    for (const name of [invalidPacketsCounter, localhostNodePortsCounter]) counters.remove(name);
  } catch (err) {
    // A counter does no harm; one that a rule of somebody else names cannot be removed.
    log.info('A counter stays', { reason: String(err) }, 2);
  } finally {
    counters.close();
  }
}
