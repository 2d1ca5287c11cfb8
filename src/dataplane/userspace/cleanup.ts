/** Removes what userspace mode (ours or an old kube-proxy's) leaves in the kernel. */
import type { Family } from '../../api/objects.ts';
import { ruleHolders } from '../../linux/iptables/holders.ts';
import { Iptables, type IptablesOptions } from '../../linux/iptables/iptables.ts';
import { saveReader } from '../../linux/iptables/save.ts';
import type { Logger } from '../../log/logger.ts';
import type { Mode } from '../dataplane.ts';
import { removalDocument } from './ruleSet.ts';
import { removeServiceAddresses } from './serviceAddresses.ts';

const families: readonly Family[] = ['IPv4', 'IPv6'];

/**
 * Removes jumps, chains and service addresses in every family; throws what went wrong, after both. With userspace mode
 * itself in force, only what its other form has left (redirects, or addresses), and redirects in other backends of
 * iptables.
 */
export async function cleanup(options: {
  readonly log: Logger;
  readonly inForce?: Mode;
  readonly iptables?: (family: Family) => IptablesOptions;
}): Promise<void> {
  const { log } = options;
  const itself = options.inForce === 'userspace';
  const errors: unknown[] = [];
  for (const family of families) {
    for (const { iptables, tables, current } of await ruleHolders(family, options.iptables?.(family))) {
      if (current && itself) continue;
      try {
        const reader = saveReader();
        for (const table of tables) await iptables.save(table, (line) => reader.line(line));
        const document = removalDocument(reader.tables);
        if (document === '') continue;
        await iptables.restore(document);
        log.info('Removed the redirects of userspace mode', { family });
      } catch (error) {
        errors.push(error);
      }
    }
    try {
      const direct = itself && !(await (await Iptables.open(family)).usable());
      const removed = direct ? 0 : removeServiceAddresses(family);
      if (removed > 0) log.info('Removed service addresses from this node', { family, removed });
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0)
    throw new AggregateError(
      errors,
      `cleaning up userspace mode failed: ${errors.map((error) => (error instanceof Error ? error.message : String(error))).join('; ')}`,
    );
}
