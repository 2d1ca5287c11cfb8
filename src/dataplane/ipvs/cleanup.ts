/** Removes what IPVS mode (ours or kube-proxy's) leaves in the kernel. */
import type { Family } from '../../api/objects.ts';
import { ruleHolders } from '../../linux/iptables/holders.ts';
import { removeChains } from '../../linux/iptables/removal.ts';
import { NetlinkIpvs, type Ipvs } from '../../linux/netlink/ipvs/ipvs.ts';
import { serverFamily } from '../../linux/netlink/ipvs/objects.ts';
import type { Logger } from '../../log/logger.ts';
import type { Mode } from '../dataplane.ts';
import { Device } from './device.ts';
import { chainsOf, setIds, sharedChains } from './names.ts';
import { ownership } from './ownership.ts';
import { jumps } from './rules.ts';
import { Sets } from './sets.ts';

export interface CleanupOptions {
  readonly log: Logger;
  /** The mode whose rules are in force now: chains that it shares with IPVS mode stay, and with IPVS itself all but rules in other backends of iptables. */
  readonly inForce?: Mode;
  /** Undefined = this kernel has none. */
  readonly ipvs?: Ipvs | undefined;
  readonly deviceKind?: string;
}

/** What stays of iptables mode's while IPVS mode is in force, which fills it in its own way. */
export const filledHere = { chains: chainsOf, jumps };

const families: readonly Family[] = ['IPv4', 'IPv6'];

/** Goes on after an error, and throws all of them at the end. */
export async function cleanup(options: CleanupOptions): Promise<void> {
  const { log } = options;
  const work = new Attempts(log);
  const itself = options.inForce === 'ipvs';
  if (!itself) removeServers(options, work);
  for (const family of families) {
    for (const { iptables, tables, current } of await ruleHolders(family)) {
      if (current && itself) continue;
      const kept = current && options.inForce === 'iptables' ? sharedChains : undefined;
      const going = jumps.filter((jump) => kept === undefined || !jump.shared);
      for (const table of tables) {
        const chains: readonly string[] = chainsOf[table];
        const goes = (chain: string): boolean =>
          chains.includes(chain) && kept?.[table].includes(chain) !== true;
        await work.later(() => removeChains(iptables, table, going, goes));
      }
    }
    if (itself) continue;
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

/** Virtual servers and the device. */
function removeServers(options: CleanupOptions, work: Attempts): void {
  const { log } = options;
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
