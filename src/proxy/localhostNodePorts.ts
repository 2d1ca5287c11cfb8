/** A mode, and node ports on localhost beside it. */
import type { CounterSource, Reading } from '../dataplane/counts.ts';
import type { Dataplane, SyncRequest, SyncResult } from '../dataplane/dataplane.ts';
import type { LocalhostNodePorts } from '../dataplane/userspace/localhostNodePorts.ts';

/**
 * The dataplane, whose changes `nodePorts` follows after each good sync.
 * @param countsEndpoints the mode's counters tell endpoints apart
 */
export function withLocalhostNodePorts(
  dataplane: Dataplane,
  nodePorts: LocalhostNodePorts,
  countsEndpoints: boolean,
): Dataplane {
  const { counters } = dataplane;
  return {
    mode: dataplane.mode,
    family: dataplane.family,
    counters: counters === undefined ? undefined : countBoth(counters, nodePorts.counters, countsEndpoints),
    start: () => dataplane.start(),
    async sync(request: SyncRequest): Promise<SyncResult> {
      const result = await dataplane.sync(request);
      if (result.full) await nodePorts.applyAll(request.table.routes);
      else await nodePorts.apply(request.changes.changes);
      return result;
    },
    async stop(): Promise<void> {
      nodePorts.close();
      await dataplane.stop();
    },
  };
}

/** What the mode counts, and what comes by way of this process: no connection is counted by both. */
function countBoth(mode: CounterSource, own: CounterSource, countsEndpoints: boolean): CounterSource {
  const wanted = ({ meaning }: Reading): boolean => countsEndpoints || meaning.kind !== 'endpoint';
  return {
    name: mode.name,
    notes: mode.notes,
    ...(mode.mayMiss === undefined ? {} : { mayMiss: mode.mayMiss }),
    read: async (table) => [...(await mode.read(table)), ...(await own.read(table)).filter(wanted)],
  };
}
