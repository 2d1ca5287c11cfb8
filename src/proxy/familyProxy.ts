/**
 * The proxy of one IP family: events mark what changed, the runner says when, a sync brings the kernel to the routing
 * table. A dual-stack node has two, which share nothing but health and metrics.
 */
import type { EndpointSlice, Family, Service } from '../api/objects.ts';
import type { ConntrackReconciler } from '../conntrack/reconciler.ts';
import type { CounterSource } from '../dataplane/counts.ts';
import type { Dataplane } from '../dataplane/dataplane.ts';
import type { Logger } from '../log/logger.ts';
import * as trace from '../log/trace.ts';
import type { FamilyMetrics, Metrics } from '../metrics/metrics.ts';
import type { RouteTracker } from '../services/routeTracker.ts';
import type { ChangeSet, RoutingTable } from '../services/types.ts';
import type { SyncObserver } from '../status/changeLog.ts';
import type { ProxyHealth } from './proxyHealth.ts';
import { Runner, systemClock, type Clock } from './runner.ts';
import type { ServiceHealth } from './serviceHealth.ts';

const hour = 3_600_000;
/** Clusters with more endpoints than this get no hourly full sync in iptables mode: it would cost too much. */
const largeCluster = 1000;

/** Removes connections that lead nowhere after a sync; never rejects. */
export type ConntrackCleaner = Pick<ConntrackReconciler, 'afterSync' | 'close'>;

export interface FamilyProxyOptions {
  readonly tracker: RouteTracker;
  readonly dataplane: Dataplane;
  readonly conntrack: ConntrackCleaner;
  /** Addresses of this node and family on which node ports answer, canonical. */
  readonly localAddresses: () => Iterable<string>;
  readonly health: ProxyHealth;
  readonly serviceHealth: ServiceHealth;
  readonly metrics: Metrics;
  /** Milliseconds. */
  readonly minSyncPeriod: number;
  /** Milliseconds: a failed sync is tried again after this. */
  readonly syncPeriod: number;
  /** Called once, after the first successful sync. */
  readonly firstSync: () => void;
  readonly observer?: SyncObserver;
  readonly log: Logger;
  readonly clock?: Clock;
}

export class FamilyProxy {
  readonly family: Family;
  private readonly options: FamilyProxyOptions;
  private readonly metrics: FamilyMetrics;
  private readonly clock: Clock;
  private readonly runner: Runner;
  private servicesSynced = false;
  private slicesSynced = false;
  /** Something changed that a sync has to bring into force; asked for when the batch of events ends. */
  private dirty = false;
  private full = true;
  private lastFull = -Infinity;
  private serviceCIDRs: readonly string[] = [];
  /** Carried over failed syncs, so that the next good one settles them. */
  private triggerTimes: number[] = [];
  /** Flows may hang on to what no sync has told conntrack of: at the start, and after a failed sync. */
  private conntrackRestart = true;
  /** When the first event that the next sync handles came, milliseconds since the epoch. */
  private receivedAt: number | undefined;
  private succeededBefore = false;

  constructor(options: FamilyProxyOptions) {
    this.options = options;
    this.family = options.dataplane.family;
    this.metrics = options.metrics.family(this.family);
    this.clock = options.clock ?? systemClock;
    this.runner = new Runner({
      minInterval: options.minSyncPeriod,
      retryInterval: options.syncPeriod,
      maxInterval: hour,
      run: () => this.sync(),
      failed: (err) => this.syncFailed(err),
      clock: this.clock,
    });
  }

  /** Starts the loop. Syncs run from the moment on when both Services and EndpointSlices are known. */
  start(): void {
    this.options.health.updated(this.family, Date.now());
    this.metrics.syncRequested(Date.now() / 1000);
    this.runner.start();
  }

  /** Stops the loop, the mode's watchers and the listeners; waits for a sync that is on. Rules stay. */
  async stop(): Promise<void> {
    this.runner.stop();
    await this.runner.idle();
    this.options.serviceHealth.stop();
    this.options.conntrack.close();
    await this.options.dataplane.stop();
  }

  /** All routes as of the last sync. Live. */
  get table(): RoutingTable {
    return this.options.tracker.table;
  }

  /** The mode's counters of connections. */
  get counters(): CounterSource | undefined {
    return this.options.dataplane.counters;
  }

  /** Known ServiceCIDRs of the family. */
  get knownServiceCIDRs(): readonly string[] {
    return this.serviceCIDRs;
  }

  upsertService(service: Service): void {
    const { tracker, metrics } = this.options;
    if (tracker.upsertService(service)) this.dirty = true;
    metrics.serviceEvent(tracker.pendingServiceChanges);
  }

  deleteService(namespace: string, name: string): void {
    const { tracker, metrics } = this.options;
    if (tracker.deleteService(namespace, name)) this.dirty = true;
    metrics.serviceEvent(tracker.pendingServiceChanges);
  }

  upsertSlice(slice: EndpointSlice): void {
    const { tracker, metrics } = this.options;
    const before = tracker.pendingEndpointChanges;
    if (tracker.upsertSlice(slice)) this.dirty = true;
    metrics.endpointEvent(tracker.pendingEndpointChanges !== before);
  }

  deleteSlice(namespace: string, name: string): void {
    const { tracker, metrics } = this.options;
    const before = tracker.pendingEndpointChanges;
    if (tracker.deleteSlice(namespace, name)) this.dirty = true;
    metrics.endpointEvent(tracker.pendingEndpointChanges !== before);
  }

  /** The node's zone decides which endpoints are near, in every route. */
  setZone(zone: string): void {
    if (!this.options.tracker.setZone(zone)) return;
    this.full = true;
    this.dirty = true;
  }

  /** `cidrs`: of this family, canonical, sorted. */
  setServiceCIDRs(cidrs: readonly string[]): void {
    const known = this.serviceCIDRs;
    if (cidrs.length === known.length && cidrs.every((cidr, i) => cidr === known[i])) return;
    this.serviceCIDRs = cidrs;
    this.dirty = true;
  }

  setServicesSynced(): void {
    this.servicesSynced = true;
    this.openGate();
  }

  setSlicesSynced(): void {
    this.slicesSynced = true;
    this.openGate();
  }

  /** The events that came together are all in: what they changed goes to the kernel now, in this very turn if it may. */
  batchEnd(): void {
    if (!this.dirty || !this.synced) return;
    this.requested();
    this.runner.request();
  }

  /** A full sync at once: the mode found somebody else's hand in its rules. */
  resync(reason: string): void {
    this.options.log.info('Full sync asked for', { reason });
    this.full = true;
    if (!this.synced) return;
    this.requested();
    this.runner.requestNow();
  }

  /** Services and EndpointSlices are known. */
  get synced(): boolean {
    return this.servicesSynced && this.slicesSynced;
  }

  private openGate(): void {
    if (!this.synced) return;
    this.requested();
    this.runner.requestNow();
  }

  private requested(): void {
    this.dirty = false;
    const now = Date.now();
    this.receivedAt ??= now;
    this.options.health.queued(this.family, now);
    this.metrics.syncRequested(now / 1000);
  }

  private async sync(): Promise<void> {
    if (!this.synced) return;
    const { tracker, dataplane, metrics, log } = this.options;
    const started = this.clock.now();
    trace.passed(trace.syncBegins, this.family);
    const full = this.full || this.fullDue(started);
    this.full = false;
    const changes = tracker.take();
    metrics.changesTaken();
    trace.passed(trace.changesTaken, this.family);
    for (const time of changes.triggerTimes) this.triggerTimes.push(time);
    const received = this.receivedAt ?? Date.now();
    this.receivedAt = undefined;
    let didFull = full;
    try {
      const { table } = tracker;
      const request = { table, changes, serviceCIDRs: this.serviceCIDRs, full };
      const syncing = dataplane.sync(request);
      // The kernel is at work, or is done already: nobody waits for the record.
      this.observeTaken(changes, received);
      didFull = (await syncing).full;
      trace.passed(trace.syncDone, this.family);
    } catch (error) {
      this.options.observer?.failed(
        this.family,
        Date.now(),
        error instanceof Error ? error.message : String(error),
      );
      // What was taken is not in the kernel: only a full sync brings it there.
      this.full = true;
      this.conntrackRestart = true;
      throw error;
    } finally {
      this.metrics.syncAttempted((this.clock.now() - started) / 1000, didFull);
    }
    if (didFull) this.lastFull = started;
    const duration = this.clock.now() - started;
    this.options.observer?.applied(this.family, Date.now(), duration, didFull);
    if (log.enabled(2)) {
      const milliseconds = Math.round((this.clock.now() - started) * 1000) / 1000;
      const fields = { full: didFull, changes: changes.changes.length, milliseconds };
      log.info('Sync complete', fields, 2);
    }
    await this.syncSucceeded(changes);
  }

  private observeTaken(changes: ChangeSet, received: number): void {
    let triggered: number | undefined;
    for (const time of changes.triggerTimes)
      if (triggered === undefined || time < triggered) triggered = time;
    this.options.observer?.taken(changes, received, triggered);
  }

  private fullDue(now: number): boolean {
    const { tracker, dataplane } = this.options;
    if (now - this.lastFull < hour) return false;
    return dataplane.mode !== 'iptables' || tracker.totalEndpoints <= largeCluster;
  }

  private async syncSucceeded(changes: ChangeSet): Promise<void> {
    const { tracker, dataplane, health, serviceHealth, conntrack, localAddresses } = this.options;
    const now = Date.now();
    health.updated(this.family, now);
    this.metrics.syncSucceeded(now / 1000);
    for (const time of this.triggerTimes) this.metrics.programmed(Math.max(0, now - time) / 1000);
    this.triggerTimes.length = 0;
    const { internal, external } = tracker.noLocalEndpoints;
    this.metrics.noLocalEndpoints('internal', internal);
    this.metrics.noLocalEndpoints('external', external);
    if (!this.succeededBefore) {
      this.succeededBefore = true;
      this.options.firstSync();
    }
    const { table } = tracker;
    const restart = this.conntrackRestart;
    this.conntrackRestart = false;
    const { serviceCIDRs } = this;
    // Health-check ports first: a load balancer asks them, and cleaning a large conntrack table takes a while.
    await serviceHealth.update(tracker.healthChecks());
    const relays = dataplane.relays?.bind(dataplane);
    await conntrack.afterSync({ table, changes, serviceCIDRs, localAddresses, restart, relays });
  }

  private syncFailed(err: unknown): void {
    const { log, metrics, syncPeriod } = this.options;
    this.full = true;
    metrics.syncFailed(this.family);
    log.error('Sync failed; the rules of the last good sync stay in force', {
      retryIn: `${syncPeriod / 1000}s`,
      err,
    });
  }
}
