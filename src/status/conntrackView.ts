/** Reads the connection table of the network namespace the daemon works in. */
import { existsSync } from 'node:fs';
import { ConntrackTable } from '../linux/netlink/ctnetlink.ts';
import { withNetworkNamespace } from '../linux/netlink/namespace.ts';
import type { Mode } from '../dataplane/dataplane.ts';
import type { RoutingTable } from '../services/types.ts';
import { ConnectionTally, type ConnectionsDocument } from './connections.ts';
import { FlowIndex, protocolNumbers } from './flowIndex.ts';

/**
 * Runs `open` where the daemon's rules are: in the network namespace of its process, if there is such a process to be
 * seen from here, else in our own. `open` must be synchronous.
 */
export function whereDaemonIs<T>(pid: number, open: () => T): T {
  const path = `/proc/${pid}/ns/net`;
  return existsSync(path) ? withNetworkNamespace(path, open) : open();
}

/** Throws where conntrack does not know endpoints: userspace mode's connections end at this node and begin anew. */
export function needsEndpointsInConntrack(mode: Mode): void {
  if (mode === 'userspace')
    throw new Error(
      'in userspace mode the connection table does not know endpoints: clients are connected to the proxy itself; see "ss -tnp"',
    );
}

/** Every tracked connection to the Services of the tables, added up. Throws if conntrack cannot be read. */
export async function readConnections(
  pid: number,
  tables: readonly RoutingTable[],
): Promise<ConnectionsDocument> {
  const index = new FlowIndex(tables);
  const tallies: ConnectionTally[] = [];
  const conntrack = whereDaemonIs(pid, () => new ConntrackTable());
  try {
    for (const { family } of tables) {
      for (const protocol of Object.values(protocolNumbers)) {
        // One for each listing: an interrupted one begins again.
        const tally = new ConnectionTally(index);
        await conntrack.list(
          family,
          { protocol },
          (entry) => tally.add(entry),
          () => tally.clear(),
        );
        tallies.push(tally);
      }
    }
  } finally {
    conntrack.close();
  }
  const documents = tallies.map((tally) => tally.document());
  return {
    services: documents.flatMap(({ services }) => services).sort((a, b) => (a.id < b.id ? -1 : 1)),
    others: documents.reduce((sum, { others }) => sum + others, 0),
  };
}
