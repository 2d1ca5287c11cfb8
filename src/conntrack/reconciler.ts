/** Cleans stale UDP flows out of the kernel's connection table after a successful sync. */
import { setImmediate as eventLoopTurn } from 'node:timers/promises';
import type { Family } from '../api/objects.ts';
import { IPPROTO_UDP, printEntry, type ConntrackEntry } from '../linux/netlink/conntrack-entry.ts';
import { ConntrackTable, type EntryFilter } from '../linux/netlink/ctnetlink.ts';
import type { Logger } from '../log/logger.ts';
import type { ChangeSet, Frontend, RoutingTable } from '../services/types.ts';
import { UDPFrontends, type Relays, type Suspects } from './stale.ts';

export interface ConntrackReconcilerOptions {
  readonly family: Family;
  readonly log: Logger;
  /** Told after every look at the table: how long it took and how many entries were deleted (possibly 0). */
  readonly onMetrics: (result: ConntrackResult) => void;
}

export interface ConntrackResult {
  readonly deleted: number;
  readonly milliseconds: number;
}

export interface AfterSync {
  readonly table: RoutingTable;
  readonly changes: ChangeSet;
  /** Canonical, of the family. */
  readonly serviceCIDRs: readonly string[];
  /**
   * Addresses of this node and family (canonical) on which node ports answer; a function is asked only if flows are
   * looked at.
   */
  readonly localAddresses: Iterable<string> | (() => Iterable<string>);
  /**
   * Changes may have been missed: the first sync of the process, and the first good one after a failed one. The whole
   * table counts then, and so does what lies in a ServiceCIDR without a service.
   */
  readonly restart: boolean;
  /** As Dataplane has it. */
  readonly relays?: Relays | undefined;
}

/** Some 10 ms of work. */
const deletedAtOnce = 2048;
const nothing: ConntrackResult = { deleted: 0, milliseconds: 0 };

/** One per family. Calls must not overlap. */
export class ConntrackReconciler {
  readonly #options: ConntrackReconcilerOptions;
  readonly #frontends = new UDPFrontends();
  #table: ConntrackTable | undefined;
  /** The next call has to take everything for suspect: the first, and after a failure. */
  #all = true;
  /** ServiceCIDRs count until a look after a restart has succeeded. */
  #restarted = true;
  #looking = false;
  #closed = false;

  constructor(options: ConntrackReconcilerOptions) {
    this.#options = options;
  }

  /**
   * Deletes the flows that the sync made stale. Does nothing, at the cost of the change set, if no UDP flow can have
   * become stale. Never rejects: a failure is logged, and the next call looks at everything.
   */
  async afterSync(sync: AfterSync): Promise<ConntrackResult> {
    let suspects: Suspects;
    if (sync.restart || this.#all) {
      this.#restarted ||= sync.restart;
      this.#frontends.rebuild(sync.table);
      suspects = 'all';
    } else {
      suspects = this.#frontends.apply(sync.changes.changes);
    }
    if (suspects !== 'all' && suspects.length === 0) return nothing;
    const start = performance.now();
    this.#looking = true;
    try {
      const deleted = await this.#clean(suspects, sync);
      const result = { deleted, milliseconds: performance.now() - start };
      this.#all = false;
      this.#restarted = false;
      this.#frontends.forgetRemoved();
      this.#options.onMetrics(result);
      if (deleted > 0) {
        this.#options.log.info(
          'Deleted stale UDP conntrack entries',
          { count: deleted, milliseconds: Math.round(result.milliseconds) },
          2,
        );
      }
      return result;
    } catch (error) {
      this.#all = true;
      this.#closeTable();
      this.#options.log.error('Failed to clean up stale UDP conntrack entries; the next sync tries again', {
        err: error,
      });
      return { deleted: 0, milliseconds: performance.now() - start };
    } finally {
      this.#looking = false;
      if (this.#closed) this.#closeTable();
    }
  }

  /** Idempotent. A look that is under way comes to its end first: its thread still reads from the socket. */
  close(): void {
    this.#closed = true;
    if (!this.#looking) this.#closeTable();
  }

  #closeTable(): void {
    this.#table?.close();
    this.#table = undefined;
  }

  async #clean(suspects: Suspects, sync: AfterSync): Promise<number> {
    const { family, log } = this.#options;
    const isStale = this.#frontends.judge({
      localAddresses: new Set(
        typeof sync.localAddresses === 'function' ? sync.localAddresses() : sync.localAddresses,
      ),
      serviceCIDRs: this.#restarted ? sync.serviceCIDRs : [],
      relays: sync.relays,
    });
    this.#table ??= new ConntrackTable();
    let stale: ConntrackEntry[] = [];
    const { complete } = await this.#table.list(
      family,
      filterFor(suspects),
      (entry) => {
        if (isStale(entry)) stale.push(entry);
      },
      () => {
        stale = [];
      },
    );
    if (!complete)
      log.warn('The conntrack table kept changing while it was listed; some stale flows may remain');
    if (log.enabled(4))
      for (const entry of stale) log.info('Deleting stale flow', { entry: printEntry(entry) }, 4);
    let deleted = 0;
    for (let first = 0; first < stale.length; first += deletedAtOnce) {
      if (first > 0) await eventLoopTurn();
      deleted += this.#table.delete(stale.slice(first, first + deletedAtOnce));
    }
    return deleted;
  }
}

/** The narrowest filter that still lets all suspects' flows through. */
function filterFor(suspects: Suspects): EntryFilter {
  const first: Frontend | undefined = suspects === 'all' ? undefined : suspects[0];
  const everything = { protocol: IPPROTO_UDP };
  if (suspects === 'all' || first === undefined || first.port === 0) return everything;
  if (suspects.some((frontend) => frontend.port !== first.port)) return everything;
  if (first.kind === 'nodePort' || suspects.some((frontend) => frontend.ip !== first.ip)) {
    return { ...everything, destinationPort: first.port };
  }
  return { ...everything, destination: first.ip, destinationPort: first.port };
}
