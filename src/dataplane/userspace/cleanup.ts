/** Removes what userspace mode (ours or an old kube-proxy's) leaves in the kernel. */
import type { Family } from '../../api/objects.ts';
import { Iptables, type IptablesOptions } from '../../linux/iptables/iptables.ts';
import type { Logger } from '../../log/logger.ts';
import { removalDocument } from './ruleSet.ts';
import { readSaved } from './userspaceDataplane.ts';

const families: readonly Family[] = ['IPv4', 'IPv6'];

/** Removes jumps and chains in every family that can be used here; throws what went wrong, after both. */
export async function cleanup(options: {
  readonly log: Logger;
  readonly iptables?: (family: Family) => IptablesOptions;
}): Promise<void> {
  const errors: unknown[] = [];
  for (const family of families) {
    const iptables = await Iptables.open(family, options.iptables?.(family) ?? {});
    if (!(await iptables.usable())) continue;
    try {
      const document = removalDocument(await readSaved(iptables));
      if (document === '') continue;
      await iptables.restore(document);
      options.log.info('Removed the redirects of userspace mode', { family });
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0)
    throw new AggregateError(
      errors,
      `cleaning up the redirects of userspace mode failed: ${errors.map((error) => (error instanceof Error ? error.message : String(error))).join('; ')}`,
    );
}
