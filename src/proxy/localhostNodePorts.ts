/** A mode, and node ports on localhost beside it. */
import type { Dataplane, SyncRequest, SyncResult } from '../dataplane/dataplane.ts';
import type { LocalhostNodePorts } from '../dataplane/userspace/localhostNodePorts.ts';

/** The dataplane, whose changes `nodePorts` follows after each good sync. */
export function withLocalhostNodePorts(dataplane: Dataplane, nodePorts: LocalhostNodePorts): Dataplane {
  return {
    mode: dataplane.mode,
    family: dataplane.family,
    counters: dataplane.counters,
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
