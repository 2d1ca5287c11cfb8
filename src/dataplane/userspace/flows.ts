/** Flows that the kernel still sends to a listener that is gone: conntrack would hold on to them as long as they go on. */
import type { Family } from '../../api/objects.ts';
import { IPPROTO_UDP, type ConntrackEntry } from '../../linux/netlink/conntrack-entry.ts';
import { ConntrackTable } from '../../linux/netlink/ctnetlink.ts';

/** Deletes the UDP flows that were redirected to these ports of ours. @returns how many */
export async function deleteFlowsTo(family: Family, ports: ReadonlySet<number>): Promise<number> {
  const table = new ConntrackTable();
  try {
    let stale: ConntrackEntry[] = [];
    await table.list(
      family,
      { protocol: IPPROTO_UDP },
      (entry) => {
        const { reply, original } = entry;
        if (ports.has(reply.sourcePort) && original.destinationPort !== reply.sourcePort) stale.push(entry);
      },
      () => {
        stale = [];
      },
    );
    return stale.length === 0 ? 0 : table.delete(stale);
  } finally {
    table.close();
  }
}
