/** What modes leave in the kernel, and who removes it. A mode's code is loaded on use. */
import type { Mode } from '../dataplane/dataplane.ts';
import type { Logger } from '../log/logger.ts';

export interface Leftovers {
  readonly mode: Mode;
  /**
   * Removes all of the mode's rules, in both families and in every backend of iptables, but for what the mode needs
   * that is in force now. Throws with everything that went wrong.
   */
  remove(log: Logger, inForce?: Mode): Promise<void>;
}

/** In the order in which `--cleanup` goes through them. */
export const leftovers: readonly Leftovers[] = [
  {
    mode: 'iptables',
    remove: async (log, inForce) => {
      const { cleanup } = await import('../dataplane/iptables/cleanup.ts');
      if (inForce === 'ipvs')
        await cleanup({ log, stays: (await import('../dataplane/ipvs/cleanup.ts')).filledHere });
      else await cleanup({ log, ...(inForce === 'iptables' && { stays: 'all' }) });
    },
  },
  {
    mode: 'ipvs',
    remove: async (log, inForce) => {
      const { cleanup } = await import('../dataplane/ipvs/cleanup.ts');
      await cleanup({ log, ...(inForce !== undefined && { inForce }) });
    },
  },
  {
    mode: 'nftables',
    remove: async (log, inForce) => {
      if (inForce === 'nftables') return;
      const { removeTables } = await import('../dataplane/nftables/cleanup.ts');
      for (const table of removeTables()) log.info('Removed leftovers', { table });
    },
  },
  {
    mode: 'userspace',
    remove: async (log, inForce) => {
      const { cleanup } = await import('../dataplane/userspace/cleanup.ts');
      await cleanup({ log, ...(inForce !== undefined && { inForce }) });
    },
  },
];

/**
 * What a start in `mode` removes: all that is others', but for what they share with it, and what the mode itself has
 * left in another backend of iptables.
 */
export function leftoversRemovedBy(mode: Mode): readonly Leftovers[] {
  return leftovers.map((one) => ({ mode: one.mode, remove: (log) => one.remove(log, mode) }));
}
