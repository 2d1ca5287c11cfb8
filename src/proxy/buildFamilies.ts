/** Makes the one or two family proxies of a node: tracker, mode, clean-up of connections, health-check ports. */
import type { Family, Node } from '../api/objects.ts';
import { featureEnabled } from '../config/features.ts';
import type { ProxyConfig } from '../config/types.ts';
import { ConntrackReconciler } from '../conntrack/reconciler.ts';
import type { DataplaneOptions, Mode } from '../dataplane/dataplane.ts';
import { listLocalAddresses } from '../linux/addresses.ts';
import type { Logger } from '../log/logger.ts';
import type { Metrics } from '../metrics/metrics.ts';
import { localDetector } from '../services/localDetection.ts';
import type { NodeAddresses } from '../services/nodeAddresses.ts';
import { matchesAll, matchingAddresses, nodePortCIDRs } from '../services/nodePortAddresses.ts';
import type { ProblemLedger } from '../services/problems.ts';
import { RouteTracker } from '../services/routeTracker.ts';
import type { Problem } from '../services/types.ts';
import type { SyncObserver } from '../status/changeLog.ts';
import type { ModeSupport } from './dataplanes.ts';
import { FamilyProxy } from './familyProxy.ts';
import { ForeignChanges } from './foreignChanges.ts';
import type { ProxyHealth } from './proxyHealth.ts';
import { ServiceHealth } from './serviceHealth.ts';

export interface FamilyBuild {
  readonly config: ProxyConfig;
  readonly mode: ModeSupport;
  readonly families: readonly Family[];
  readonly nodeName: string;
  readonly node: Node | undefined;
  readonly addresses: NodeAddresses;
  readonly health: ProxyHealth;
  readonly metrics: Metrics;
  readonly log: Logger;
  /** A health-check node port could not be opened; `note` is the event's text. */
  readonly serviceEvent: (namespace: string, name: string, note: string) => void;
  /** Somebody else changed rules of ours; `note` is the event's text. Called rarely, however often that happens. */
  readonly rulesChanged: (note: string) => void;
  /** Every family has synced once. */
  readonly allSynced: () => void;
  /** Told of every sync. */
  readonly observer?: SyncObserver;
  readonly problems: ProblemLedger;
}

/** The families that the mode can serve here, IPv4 first: both if it can, else the primary one. Throws if that cannot be. */
export async function supportedFamilies(
  mode: ModeSupport,
  primary: Family,
  modeName: Mode,
): Promise<readonly Family[]> {
  const [v4, v6] = await Promise.all([mode.usable('IPv4'), mode.usable('IPv6')]);
  if (!v4 && !v6) {
    const said = (await mode.complaint?.(primary)) ?? '';
    throw new Error(
      `no support for IPv4 or IPv6 in ${modeName} mode: its programs or kernel modules are missing, or permission is${said === '' ? '' : ` (${said})`}`,
    );
  }
  const secondary = primary === 'IPv4' ? 'IPv6' : 'IPv4';
  if (!(primary === 'IPv4' ? v4 : v6))
    throw new Error(`no support for primary IP family ${primary} in ${modeName} mode, only for ${secondary}`);
  return v4 && v6 ? ['IPv4', 'IPv6'] : [primary];
}

/** The kernel settings that need privileges. Throws if one cannot be had. */
export async function prepareKernel(build: FamilyBuild): Promise<void> {
  const { config, mode, families, log } = build;
  for (const family of families)
    await mode.prepare({ config, options: dataplaneOptions(build, family), log });
}

/** Makes the proxies, IPv4 first. */
export function buildFamilies(build: FamilyBuild): Promise<FamilyProxy[]> {
  const { families, addresses, log } = build;
  const stack = families.length === 2 ? 'dual-stack' : 'single-stack';
  log.info(`kube-proxy running in ${stack} mode`, { primary: addresses.primary });
  let unsynced = families.length;
  const firstSync = (): void => {
    unsynced--;
    if (unsynced === 0) build.allSynced();
  };
  return Promise.all(families.map((family) => buildFamily(build, family, build.problems, firstSync)));
}

/** One log line and one count for each object that cannot be used as it is. */
export function reportProblem(problem: Problem, log: Logger, metrics: Metrics): void {
  const { object, field, reason, message } = problem;
  log.warn(`Skipped: ${message}`, { object, field, reason });
  metrics.skipped(reason);
}

/** What the mode is told of a family. */
export function dataplaneOptions(build: FamilyBuild, family: Family): DataplaneOptions {
  const { config, node, addresses } = build;
  return {
    family,
    masqueradeBit: config.masqueradeBit,
    masqueradeAll: config.masqueradeAll,
    localDetector: localDetector(family, { ...config, nodePodCIDRs: node?.podCIDRs ?? [] }),
    nodeIP: addresses[family],
    nodePortAddresses: nodePortCIDRs(family, config.nodePortAddresses, addresses),
    syncPeriod: config.syncPeriod,
  };
}

async function buildFamily(
  build: FamilyBuild,
  family: Family,
  problems: ProblemLedger,
  firstSync: () => void,
): Promise<FamilyProxy> {
  const { config, mode, health, nodeName } = build;
  const options = dataplaneOptions(build, family);
  const log = build.log.with({ family });
  if (options.localDetector === undefined)
    log.info('Pods cannot be told from others: rules that need it are left out', {
      detectLocalMode: config.detectLocalMode,
    });
  const metrics = build.metrics.family(family);
  const cidrs = options.nodePortAddresses;
  const foreign = new ForeignChanges({
    family,
    mode: config.mode,
    log,
    event: build.rulesChanged,
    now: () => performance.now(),
  });
  // The mode may call back before its proxy exists.
  let proxy: FamilyProxy | undefined;
  const dataplane = await mode.create({
    config,
    options,
    events: { resync: (reason) => proxy?.resync(reason) },
    report: (report) => {
      metrics.report(report);
      if (report.kind === 'changedByOthers') foreign.take(report);
    },
    log,
  });
  await dataplane.start();
  proxy = new FamilyProxy({
    tracker: new RouteTracker({
      family,
      nodeName,
      zone: build.node?.zone ?? '',
      allowExternalIPs: featureEnabled(config.featureGates, 'AllowServiceExternalIPs'),
      now: Date.now(),
      problems,
    }),
    dataplane,
    conntrack: new ConntrackReconciler({
      family,
      log,
      onMetrics: ({ deleted, milliseconds }) => metrics.conntrackReconciled(milliseconds / 1000, deleted),
    }),
    localAddresses: () => nodePortAddressesOf(family, cidrs),
    health,
    serviceHealth: new ServiceHealth({
      family,
      addresses: matchesAll(cidrs) ? undefined : listenAddresses(family, cidrs, log),
      // Without a health server nobody asks for the proxy's health: it counts as healthy.
      proxyHealthy: () => config.healthzBindAddress === '' || health.healthy(Date.now()),
      log,
      listenFailed: (namespace, name, port, text) =>
        build.serviceEvent(
          namespace,
          name,
          `node ${nodeName} failed to start healthcheck "${namespace}/${name}" on port ${port}: ${text}`,
        ),
    }),
    metrics: build.metrics,
    minSyncPeriod: config.minSyncPeriod,
    syncPeriod: config.syncPeriod,
    firstSync,
    ...(build.observer !== undefined && { observer: build.observer }),
    log,
  });
  return proxy;
}

/** This node's addresses of the family that answer node ports, now. */
function nodePortAddressesOf(family: Family, cidrs: readonly string[]): readonly string[] {
  const local = listLocalAddresses().filter((address) => address.family === family);
  return matchingAddresses(
    cidrs,
    local.map(({ address }) => address),
  );
}

/** Settled once, at the start; all addresses if they cannot be listed. */
function listenAddresses(
  family: Family,
  cidrs: readonly string[],
  log: Logger,
): readonly string[] | undefined {
  try {
    return nodePortAddressesOf(family, cidrs);
  } catch (err) {
    log.error('Failed to list local addresses; health-check node ports listen on all', { err });
    return undefined;
  }
}
