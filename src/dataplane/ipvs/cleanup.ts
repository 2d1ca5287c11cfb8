/** Removes what IPVS mode (ours or kube-proxy's) leaves in the kernel; and, for a start in IPVS mode, what iptables mode does. */
import type { Family } from '../../api/objects.ts';
import { canonicalRule } from '../../linux/iptables/canonical.ts';
import { Iptables } from '../../linux/iptables/iptables.ts';
import { parseLine } from '../../linux/iptables/save.ts';
import { NetlinkIpvs, type Ipvs } from '../../linux/netlink/ipvs/ipvs.ts';
import { serverFamily } from '../../linux/netlink/ipvs/objects.ts';
import type { Logger } from '../../log/logger.ts';
import type { Mode } from '../dataplane.ts';
import { canaryChain, filterChains, isOwnChain, natChains } from '../iptables/names.ts';
import { jumpArgs, jumps as iptablesJumps } from '../iptables/staticRules.ts';
import { Device } from './device.ts';
import { chainsOf, setIds, sharedChains, type RuleTable } from './names.ts';
import { ownership } from './ownership.ts';
import { jumps } from './rules.ts';
import { Sets } from './sets.ts';

export interface CleanupOptions {
  readonly log: Logger;
  /** The mode whose rules are in force now: chains that it shares with IPVS mode stay. */
  readonly inForce?: Mode;
  /** Undefined = this kernel has none. */
  readonly ipvs?: Ipvs | undefined;
  readonly deviceKind?: string;
}

const families: readonly Family[] = ['IPv4', 'IPv6'];

/** Those of iptables mode. */
const fixedChains: Readonly<Record<RuleTable, readonly string[]>> = {
  nat: natChains,
  filter: filterChains,
  mangle: [],
};

/** Goes on after an error, and throws all of them at the end. */
export async function cleanup(options: CleanupOptions): Promise<void> {
  const { log } = options;
  const work = new Attempts(log);
  const ipvs = 'ipvs' in options ? options.ipvs : work.now(() => NetlinkIpvs.open());
  try {
    // While sets and device still say what is ours.
    for (const family of families) work.now(() => deleteServers(family, ipvs, options));
  } finally {
    ipvs?.close();
  }
  work.now(() => {
    const device = new Device('IPv4', options.deviceKind);
    try {
      if (device.destroy()) log.info('Removed leftovers', { device: 'kube-ipvs0' });
    } finally {
      device.close();
    }
  });
  const kept = options.inForce === 'iptables' ? sharedChains : undefined;
  for (const family of families) {
    const iptables = await Iptables.open(family);
    if (await iptables.usable()) {
      const going = jumps.filter((jump) => kept === undefined || !jump.shared);
      for (const table of ['mangle', 'nat', 'filter'] as const) {
        const chains: readonly string[] = chainsOf[table];
        const goes = (chain: string): boolean =>
          chains.includes(chain) && kept?.[table].includes(chain) !== true;
        await work.later(() => removeRules(iptables, table, going, goes));
      }
    }
    work.now(() => {
      const sets = new Sets(family);
      try {
        const removed = sets.destroyAll();
        if (removed.length > 0) log.info('Removed leftovers', { sets: removed.join(' ') });
      } finally {
        sets.close();
      }
    });
  }
  work.end('cleaning up IPVS mode');
}

/** What iptables mode leaves, but for the chains that IPVS mode has filled in its own way. */
export async function removeIptablesMode(log: Logger): Promise<void> {
  const work = new Attempts(log);
  for (const family of families) {
    const iptables = await Iptables.open(family);
    if (!(await iptables.usable())) continue;
    const ours = new Set(jumps.map(identity));
    const going = iptablesJumps
      .filter((jump) => !jump.shared)
      .map((jump) => ({ table: jump.table, from: jump.from, args: jumpArgs(jump) }))
      .filter((jump) => !ours.has(identity(jump)));
    for (const table of ['mangle', 'nat', 'filter'] as const) {
      const chains: readonly string[] = [...fixedChains[table], canaryChain];
      const kept: readonly string[] = chainsOf[table];
      const goes = (chain: string): boolean =>
        (chains.includes(chain) || (table === 'nat' && isOwnChain(chain))) && !kept.includes(chain);
      await work.later(() => removeRules(iptables, table, going, goes));
    }
  }
  work.end('cleaning up iptables mode');
}

function deleteServers(family: Family, ipvs: Ipvs | undefined, options: CleanupOptions): void {
  if (ipvs === undefined) return;
  const sets = new Sets(family);
  const device = new Device(family, options.deviceKind);
  try {
    const there = device.exists();
    if (there) device.ensure();
    const addresses = device.addresses();
    const applied = {
      servers: new Map(),
      sets: new Map(setIds.map((id) => [id, sets.read(id) ?? new Set<string>()] as const)),
      addresses: there ? addresses.device : new Set<string>(),
    };
    const ours = ownership(applied, { addresses: addresses.node, nodePorts: [] });
    let removed = 0;
    for (const server of ipvs.listServers())
      if (serverFamily(server) === family && ours(server) && ipvs.deleteServer(server)) removed++;
    if (removed > 0) options.log.info('Removed leftovers', { family, virtualServers: removed });
  } finally {
    sets.close();
    device.close();
  }
}

interface JumpRule {
  readonly table: RuleTable;
  readonly from: string;
  readonly args: string;
}

function identity(jump: JumpRule): string {
  return `${jump.table} ${jump.from} ${canonicalRule(jump.args)}`;
}

/** Removes from one table, in one step, those of the jumps that are there, and the chains that `goes` says. */
async function removeRules(
  iptables: Iptables,
  table: RuleTable,
  going: readonly JumpRule[],
  goes: (chain: string) => boolean,
): Promise<void> {
  const known = new Set(going.map(identity));
  const chains: string[] = [];
  const deletions: string[] = [];
  await iptables.save(table, (line) => {
    const event = parseLine(line);
    if (event?.kind === 'chain') {
      if (goes(event.chain)) chains.push(event.chain);
    } else if (
      event?.kind === 'rule' &&
      known.has(identity({ table, from: event.chain, args: event.args }))
    ) {
      deletions.push(`-D ${event.chain} ${event.args}`);
    }
  });
  if (chains.length === 0 && deletions.length === 0) return;
  const lines = [
    `*${table}`,
    ...chains.map((chain) => `:${chain} - [0:0]`),
    ...deletions,
    ...chains.map((chain) => `-X ${chain}`),
    'COMMIT',
    '',
  ];
  await iptables.restore(lines.join('\n'), table);
}

class Attempts {
  readonly #log: Logger;
  readonly #errors: unknown[] = [];

  constructor(log: Logger) {
    this.#log = log;
  }

  now<T>(action: () => T): T | undefined {
    try {
      return action();
    } catch (error) {
      this.#failed(error);
      return undefined;
    }
  }

  async later(action: () => Promise<unknown>): Promise<void> {
    try {
      await action();
    } catch (error) {
      this.#failed(error);
    }
  }

  #failed(err: unknown): void {
    this.#errors.push(err);
    this.#log.error('Cannot remove leftovers of a proxy mode', { err });
  }

  end(what: string): void {
    if (this.#errors.length === 0) return;
    const said = this.#errors.map((error) => (error instanceof Error ? error.message : String(error)));
    throw new AggregateError(this.#errors, `${what} failed: ${said.join('; ')}`);
  }
}
