/**
 * The metrics of a service proxy under kube-proxy's names, so that existing dashboards and alerts keep working, and a
 * few of our own (`pointsman_…`). What is registered depends on the mode, as there.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Family } from '../api/objects.ts';
import type { DataplaneReport, Mode } from '../dataplane/dataplane.ts';
import { programmingBuckets, syncBuckets } from './buckets.ts';

/** Packet counters that live in the kernel; undefined = not there, and the metric is left out. */
export interface PacketCounters {
  ctStateInvalidDropped(): number | undefined;
  localhostNodePortsAccepted(): number | undefined;
}

export interface MetricsOptions {
  readonly mode: Mode;
  /** Read at scrape time, iptables mode only. */
  readonly packetCounters?: PacketCounters;
}

/** The metrics of one IP family, as the sync loop uses them. All durations are seconds, all times Unix seconds. */
export interface FamilyMetrics {
  syncAttempted(seconds: number, full: boolean): void;
  syncSucceeded(now: number): void;
  syncRequested(now: number): void;
  programmed(seconds: number): void;
  noLocalEndpoints(policy: 'internal' | 'external', count: number): void;
  report(report: DataplaneReport): void;
  conntrackReconciled(seconds: number, deleted: number): void;
}

const prefix = 'kubeproxy_';

export class Metrics {
  readonly registry = new Registry();
  private readonly mode: Mode;
  private readonly registers: Registry[];

  private readonly syncDuration: Histogram<'ip_family'>;
  private readonly fullSyncDuration: Histogram<'ip_family'> | undefined;
  private readonly partialSyncDuration: Histogram<'ip_family'> | undefined;
  private readonly lastSync: Gauge<'ip_family'>;
  /** Per family; what changes with every event is written into its metric when somebody reads it. */
  private readonly lastQueued = new Map<Family, number>();
  private readonly programming: Histogram<'ip_family'>;
  private endpointPending = 0;
  private endpointTotal = 0;
  private servicePending = 0;
  private serviceTotal = 0;
  private readonly noLocal: Gauge<'traffic_policy' | 'ip_family'>;
  private readonly healthz: Counter<'code'>;
  private readonly livez: Counter<'code'>;
  private readonly rulesTotal: Gauge<'table' | 'ip_family'> | undefined;
  private readonly rulesLast: Gauge<'table' | 'ip_family'> | undefined;
  private readonly restoreFailures: Counter<'ip_family'> | undefined;
  private readonly partialRestoreFailures: Counter<'ip_family'> | undefined;
  private readonly nftablesSyncFailures: Counter<'ip_family'> | undefined;
  private readonly nftablesCleanupFailures: Counter<'ip_family'> | undefined;
  private readonly conntrackDuration: Histogram<'ip_family'>;
  private readonly conntrackDeleted: Counter<'ip_family'>;
  private readonly skippedObjects: Counter<'reason'>;
  private readonly syncFailures: Counter<'ip_family'>;
  private readonly repairs: Counter<'ip_family'>;
  private readonly foreignChanges: Counter<'ip_family' | 'object'>;
  private readonly localhostNodePorts: Gauge<'state' | 'ip_family'> | undefined;
  private readonly openSockets: Gauge | undefined;
  private readonly socketLimit: Gauge | undefined;
  private readonly refused: Counter<'reason' | 'ip_family'> | undefined;

  constructor(options: MetricsOptions) {
    const { mode } = options;
    this.mode = mode;
    this.registers = [this.registry];
    const alsoFull = mode === 'iptables' || mode === 'nftables';
    this.syncDuration = this.histogram(
      'sync_proxy_rules_duration_seconds',
      'Latency of a rule sync in seconds',
      syncBuckets,
    );
    if (alsoFull) {
      this.fullSyncDuration = this.histogram(
        'sync_full_proxy_rules_duration_seconds',
        'Latency of a full rule sync in seconds',
        syncBuckets,
      );
      this.partialSyncDuration = this.histogram(
        'sync_partial_proxy_rules_duration_seconds',
        'Latency of a partial rule sync in seconds',
        syncBuckets,
      );
    }
    this.lastSync = this.gauge(
      'sync_proxy_rules_last_timestamp_seconds',
      'Unix time of the last successful rule sync',
      ['ip_family'],
    );
    const { lastQueued } = this;
    this.registry.registerMetric(
      new Gauge({
        name: `${prefix}sync_proxy_rules_last_queued_timestamp_seconds`,
        help: '[ALPHA] Unix time of the last request for a rule sync',
        labelNames: ['ip_family'],
        registers: [],
        collect() {
          for (const [family, time] of lastQueued) this.set({ ip_family: family }, time);
        },
      }),
    );
    this.programming = this.histogram(
      'network_programming_duration_seconds',
      'Seconds from the change of a Service or Pod to the rules that follow it',
      programmingBuckets,
    );
    this.gaugeOf(
      'sync_proxy_rules_endpoint_changes_pending',
      'Endpoint changes waiting for a sync',
      () => this.endpointPending,
    );
    this.counterOf(
      'sync_proxy_rules_endpoint_changes_total',
      'Cumulative endpoint changes',
      () => this.endpointTotal,
    );
    this.gaugeOf(
      'sync_proxy_rules_service_changes_pending',
      'Service changes waiting for a sync',
      () => this.servicePending,
    );
    this.counterOf(
      'sync_proxy_rules_service_changes_total',
      'Cumulative service changes',
      () => this.serviceTotal,
    );
    this.noLocal = this.gauge(
      'sync_proxy_rules_no_local_endpoints_total',
      'Service ports with a Local traffic policy and no endpoint on this node',
      ['traffic_policy', 'ip_family'],
    );
    this.healthz = this.counter('proxy_healthz_total', 'Cumulative healthz answers by status', ['code']);
    this.livez = this.counter('proxy_livez_total', 'Cumulative livez answers by status', ['code']);
    if (mode === 'iptables') {
      this.rulesTotal = this.gauge('sync_proxy_rules_iptables_total', 'iptables rules owned by the proxy', [
        'table',
        'ip_family',
      ]);
      this.rulesLast = this.gauge(
        'sync_proxy_rules_iptables_last',
        'iptables rules written by the last sync',
        ['table', 'ip_family'],
      );
      this.partialRestoreFailures = this.counter(
        'sync_proxy_rules_iptables_partial_restore_failures_total',
        'Cumulative failures of partial syncs',
        ['ip_family'],
      );
      if (options.packetCounters !== undefined) this.packetCounters(options.packetCounters);
    }
    if (mode === 'iptables' || mode === 'ipvs') {
      this.restoreFailures = this.counter(
        'sync_proxy_rules_iptables_restore_failures_total',
        'Cumulative failures of iptables-restore',
        ['ip_family'],
      );
    }
    if (mode === 'nftables') {
      this.nftablesSyncFailures = this.counter(
        'sync_proxy_rules_nftables_sync_failures_total',
        'Cumulative failures of nftables syncs',
        ['ip_family'],
      );
      this.nftablesCleanupFailures = this.counter(
        'sync_proxy_rules_nftables_cleanup_failures_total',
        'Cumulative failures to remove stale nftables objects',
        ['ip_family'],
      );
    }
    if (mode === 'nftables') {
      this.localhostNodePorts = new Gauge({
        name: 'pointsman_localhost_node_ports',
        help: 'Node ports that answer on localhost (listening), and that another program keeps from it (unavailable).',
        labelNames: ['state', 'ip_family'],
        registers: this.registers,
      });
    }
    if (mode === 'userspace') {
      this.openSockets = new Gauge({
        name: 'pointsman_userspace_open_sockets',
        help: 'Sockets of clients, endpoints and listeners that userspace mode holds open.',
        registers: this.registers,
      });
      this.socketLimit = new Gauge({
        name: 'pointsman_userspace_open_sockets_limit',
        help: 'How many sockets userspace mode may hold open: connections beyond are refused.',
        registers: this.registers,
      });
      this.refused = new Counter({
        name: 'pointsman_userspace_refused_total',
        help: 'Clients that userspace mode turned away, by reason.',
        labelNames: ['reason', 'ip_family'],
        registers: this.registers,
      });
    }
    this.conntrackDuration = this.histogram(
      'conntrack_reconciler_sync_duration_seconds',
      'Latency of a conntrack clean-up in seconds',
      syncBuckets,
    );
    this.conntrackDeleted = this.counter(
      'conntrack_reconciler_deleted_entries_total',
      'Cumulative conntrack entries deleted',
      ['ip_family'],
    );
    this.skippedObjects = new Counter({
      name: 'pointsman_skipped_objects_total',
      help: 'Objects and parts of objects that were skipped because they are not usable, by reason.',
      labelNames: ['reason'],
      registers: this.registers,
    });
    this.syncFailures = new Counter({
      name: 'pointsman_sync_failures_total',
      help: 'Rule syncs that failed and left the last good rules in force.',
      labelNames: ['ip_family'],
      registers: this.registers,
    });
    this.foreignChanges = new Counter({
      name: 'pointsman_foreign_changes_total',
      help: 'Changes of our rules by somebody else, by the kind of object that was changed.',
      labelNames: ['ip_family', 'object'],
      registers: this.registers,
    });
    this.repairs = new Counter({
      name: 'pointsman_repairs_total',
      help: 'Times that rules which somebody else removed or changed were put back.',
      labelNames: ['ip_family'],
      registers: this.registers,
    });
  }

  /** The metrics of one family, with their label bound. */
  family(family: Family): FamilyMetrics {
    const duration = (histogram: Histogram<'ip_family'> | undefined) => histogram?.labels(family);
    const all = this.syncDuration.labels(family);
    return {
      syncAttempted: (seconds, full) => {
        all.observe(seconds);
        duration(full ? this.fullSyncDuration : this.partialSyncDuration)?.observe(seconds);
      },
      syncSucceeded: (now) => this.lastSync.set({ ip_family: family }, now),
      syncRequested: (now) => this.lastQueued.set(family, now),
      programmed: (seconds) => this.programming.labels(family).observe(seconds),
      noLocalEndpoints: (policy, count) =>
        this.noLocal.set({ traffic_policy: policy, ip_family: family }, count),
      report: (report) => this.report(family, report),
      conntrackReconciled: (seconds, deleted) => {
        this.conntrackDuration.labels(family).observe(seconds);
        this.conntrackDeleted.labels(family).inc(deleted);
      },
    };
  }

  /** A slice event, change or not; `changed` = something waits for the next sync. */
  endpointEvent(changed: boolean): void {
    this.endpointTotal++;
    if (changed) this.endpointPending++;
  }

  /** A service event; `pending` = services that wait for the next sync. */
  serviceEvent(pending: number): void {
    this.serviceTotal++;
    this.servicePending = pending;
  }

  /** A sync has taken all that was waiting. */
  changesTaken(): void {
    this.endpointPending = 0;
    this.servicePending = 0;
  }

  probed(probe: 'healthz' | 'livez', status: number): void {
    (probe === 'healthz' ? this.healthz : this.livez).inc({ code: String(status) });
  }

  /** An object or a part of one was left out. */
  skipped(reason: string): void {
    this.skippedObjects.inc({ reason });
  }

  syncFailed(family: Family): void {
    this.syncFailures.inc({ ip_family: family });
  }

  private report(family: Family, report: DataplaneReport): void {
    const ip_family = family;
    switch (report.kind) {
      case 'iptablesRules':
        this.rulesTotal?.set({ table: report.table, ip_family }, report.total);
        this.rulesLast?.set({ table: report.table, ip_family }, report.last);
        return;
      case 'iptablesRestoreFailure':
        this.restoreFailures?.inc({ ip_family });
        if (report.partial) this.partialRestoreFailures?.inc({ ip_family });
        return;
      case 'nftablesSyncFailure':
        this.nftablesSyncFailures?.inc({ ip_family });
        return;
      case 'nftablesCleanupFailure':
        this.nftablesCleanupFailures?.inc({ ip_family });
        return;
      case 'ipvsSyncFailure':
        if (this.mode === 'ipvs') this.restoreFailures?.inc({ ip_family });
        return;
      case 'userspaceSockets':
        this.openSockets?.set(report.open);
        this.socketLimit?.set(report.limit);
        return;
      case 'userspaceRefused':
        this.refused?.inc({ reason: report.reason, ip_family });
        return;
      case 'localhostNodePorts':
        this.localhostNodePorts?.set({ state: 'listening', ip_family }, report.listening);
        this.localhostNodePorts?.set({ state: 'unavailable', ip_family }, report.unavailable);
        return;
      case 'changedByOthers':
        this.foreignChanges.inc({ ip_family, object: report.object });
        return;
      case 'repaired':
        this.repairs.inc({ ip_family });
        return;
    }
  }

  private packetCounters(counters: PacketCounters): void {
    this.packetCounter(
      'iptables_ct_state_invalid_dropped_packets_total',
      'Packets dropped in conntrack state INVALID, to work around conntrack problems',
      () => counters.ctStateInvalidDropped(),
    );
    this.packetCounter(
      'iptables_localhost_nodeports_accepted_packets_total',
      'Packets accepted on node ports of loopback addresses',
      () => counters.localhostNodePortsAccepted(),
    );
  }

  /** A counter the kernel keeps: left out while the kernel does not have it. */
  private packetCounter(name: string, help: string, read: () => number | undefined): void {
    // A label set that is never used keeps the library from printing a zero; see expose().
    const counter: Counter<'absent'> = new Counter({
      name: prefix + name,
      help: `[ALPHA] ${help}`,
      labelNames: ['absent'],
      registers: this.registers,
      collect() {
        this.reset();
        const packets = read();
        if (packets !== undefined) counter.inc(packets);
      },
    });
  }

  private histogram(name: string, help: string, buckets: number[]): Histogram<'ip_family'> {
    return new Histogram({
      name: prefix + name,
      help: `[ALPHA] ${help}`,
      labelNames: ['ip_family'],
      buckets,
      registers: this.registers,
    });
  }

  private gauge<Label extends string>(name: string, help: string, labelNames: Label[]): Gauge<Label> {
    return new Gauge({
      name: prefix + name,
      help: `[ALPHA] ${help}`,
      labelNames,
      registers: this.registers,
    });
  }

  /** A gauge without labels whose value is asked for at scrape time: an event then costs an addition. */
  private gaugeOf(name: string, help: string, value: () => number): void {
    this.registry.registerMetric(
      new Gauge({
        name: prefix + name,
        help: `[ALPHA] ${help}`,
        registers: [],
        collect() {
          this.set(value());
        },
      }),
    );
  }

  private counterOf(name: string, help: string, value: () => number): void {
    this.registry.registerMetric(
      new Counter({
        name: prefix + name,
        help: `[ALPHA] ${help}`,
        registers: [],
        collect() {
          this.reset();
          this.inc(value());
        },
      }),
    );
  }

  private counter<Label extends string>(name: string, help: string, labelNames: Label[]): Counter<Label> {
    return new Counter({
      name: prefix + name,
      help: `[ALPHA] ${help}`,
      labelNames,
      registers: this.registers,
    });
  }
}
