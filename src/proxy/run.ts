/**
 * The daemon, in kube-proxy's order: what needs no API server first, then who and where this node is, kernel settings,
 * checks, the modes, and only then open ports and syncs. Ends with an exit code, or never.
 */
import { hostname } from 'node:os';
import type { Node } from '../api/objects.ts';
import { ApiClient } from '../cluster/apiClient.ts';
import { loadConnection } from '../cluster/connection.ts';
import { featureEnabled, featureGates } from '../config/features.ts';
import type { ProxyConfig } from '../config/types.ts';
import { applyConntrackSysctls, setOomScoreAdjust } from '../linux/sysctl.ts';
import type { Logger } from '../log/logger.ts';
import { ClientMetrics } from '../metrics/clientMetrics.ts';
import { registerBuildInfo, registerFeatures, registerMetricCounts } from '../metrics/infoMetrics.ts';
import { Metrics } from '../metrics/metrics.ts';
import { registerProcessMetrics } from '../metrics/processMetrics.ts';
import { isPrimaryKnown, nodeAddresses, nodeIPs } from '../services/nodeAddresses.ts';
import { expandPrimary } from '../services/nodePortAddresses.ts';
import { pointsmanVersion } from '../version.ts';
import { buildFamilies, supportedFamilies, type FamilyBuild } from './buildFamilies.ts';
import { removeLeftovers } from './cleanup.ts';
import { watchConfigFile } from './configWatch.ts';
import { leftoversRemovedBy, loadMode } from './dataplanes.ts';
import { Families } from './families.ts';
import { NodeEvents } from './nodeEvents.ts';
import { NodeState, samePodCIDRs } from './nodeState.ts';
import { ProxyHealth } from './proxyHealth.ts';
import { Servers, type DaemonLog } from './servers.ts';
import { checkFamilies, checkNodePortAddresses } from './startupChecks.ts';
import { Watches } from './watches.ts';

/** Runs until something ends it; resolves to the exit code. Rejects if the start fails. */
export async function runProxy(config: ProxyConfig, log: DaemonLog): Promise<number> {
  if (config.cleanup) return (await removeLeftovers(log)) ? 0 : 1;
  const fileChange = configFileChange(config.configFile);
  const name = nodeName(config.hostnameOverride);
  const mode = await loadMode(config.mode);
  if (config.mode === 'ipvs')
    log.error('The ipvs proxy mode is deprecated; consider nftables mode', { mode: config.mode });

  const metrics = new Metrics({
    mode: config.mode,
    ...(mode.packetCounters !== undefined && { packetCounters: mode.packetCounters() }),
  });
  const clientMetrics = new ClientMetrics(metrics.registry);
  const { kubeconfig, contentType, acceptContentTypes, qps, burst } = config.clientConnection;
  const connection = await loadConnection({ kubeconfig, master: config.master, log });
  const client = new ApiClient({
    connection,
    contentType,
    acceptContentTypes,
    qps,
    burst,
    userAgent: `kube-proxy/${config.reportedVersion} pointsman/${pointsmanVersion}`,
    onRequest: (observation) => clientMetrics.observe(observation),
    log,
  });

  const nodeState = new NodeState(name, log);
  const watches = new Watches({ client, log, problem: () => metrics.skipped('undecodable') });
  watches.node(nodeState);
  const node = await nodeState.wait(config.detectLocalMode === 'NodeCIDR');
  const addresses = nodeAddresses(node === undefined ? [] : nodeIPs(node), config.bindAddress);
  log.info('Using node addresses', { node: name, ...addresses });
  if (!isPrimaryKnown(addresses))
    log.info('The node has no address but loopback; set --bind-address to give it one');

  const events = new NodeEvents({ client, nodeName: name, log });
  const health = new ProxyHealth(2 * config.syncPeriod);
  applyConntrackSysctls(config.conntrack, { log });

  const checked = {
    ...config,
    nodePortAddresses: expandPrimary(config.nodePortAddresses, addresses),
  };
  const checkedNode = { primaryFamily: addresses.primary, podCIDRs: node?.podCIDRs ?? [] };
  for (const doubt of checkNodePortAddresses(checked, checkedNode))
    log.error('Kube-proxy configuration may be incomplete or incorrect', { err: doubt });
  const families = await supportedFamilies(mode, addresses.primary, config.mode);
  const findings = checkFamilies(checked, checkedNode, families.length === 2);
  for (const finding of findings.logged)
    log.error('Kube-proxy configuration may be incomplete or incorrect', { err: finding });
  if (findings.fatal.length > 0) throw new Error(findings.fatal.join('; '));
  log.info('Using detect-local-mode', { mode: config.detectLocalMode }, 2);

  const build: FamilyBuild = {
    config,
    mode,
    families,
    nodeName: name,
    node,
    addresses,
    health,
    metrics,
    log,
    serviceEvent: (namespace, service, text) => events.serviceHealthFailed(namespace, service, text),
    // The new mode's rules are in force before what other modes have left goes.
    allSynced: () => void removeLeftovers(log, leftoversRemovedBy(config.mode)),
  };
  const proxies = await buildFamilies(build);
  if (config.initOnly || proxies === undefined) return 0;

  log.info('Version info', { version: config.reportedVersion, pointsman: pointsmanVersion });
  registerProcessMetrics(metrics.registry);
  registerBuildInfo(metrics.registry, {
    version: pointsmanVersion,
    kubernetesVersion: config.reportedVersion,
  });
  registerFeatures(metrics.registry, features(config));
  registerMetricCounts(metrics.registry);
  setOomScoreAdjust(config.oomScoreAdj, { log });

  return new Promise<number>((resolve, reject) => {
    const servers = new Servers({
      config,
      health,
      metrics,
      registry: metrics.registry,
      log,
      hardFailed: (server, error) => {
        events.bindFailed(server, error.message);
        reject(new Error(`failed to start the ${server} server: ${error.message}`, { cause: error }));
      },
    });
    servers.start();
    const all = new Families(proxies);
    watches.objects(all);
    nodeState.onChange((now, before) => {
      health.setNode(now);
      all.setZone(now.zone);
      const started = node?.podCIDRs ?? [];
      if (config.detectLocalMode === 'NodeCIDR' && !samePodCIDRs(now.podCIDRs, started)) {
        log.error('PodCIDRs changed, restarting', { before: started, now: now.podCIDRs });
        resolve(1);
      }
      logNewAddresses(before, now, log);
    });
    events.starting();
    if (config.mode === 'ipvs') events.ipvsDeprecated();
    for (const proxy of proxies) proxy.start();
    fileChange?.then(reject, reject);
  });
}

/** Resolves to the error that a change of the file is, whenever it comes. */
function configFileChange(path: string): Promise<Error> | undefined {
  if (path === '') return undefined;
  return new Promise((resolve) => {
    watchConfigFile(path, () =>
      resolve(new Error("content of the proxy server's configuration file was updated")),
    );
  });
}

/** Node ports and source ranges go by the addresses of the start; a restart takes new ones. */
function logNewAddresses(before: Node | undefined, now: Node, log: Logger): void {
  if (before === undefined) return;
  const [old, current] = [nodeIPs(before), nodeIPs(now)];
  if (old.join() === current.join()) return;
  log.error('Node IPs changed; the new ones are used after a restart', { before: old, now: current });
}

/** The name of this node's Node object. Throws if there is none. */
export function nodeName(override: string): string {
  const name = (override === '' ? hostname() : override).trim().toLowerCase();
  if (name === '') throw new Error('empty hostname: set --hostname-override to the name of this node');
  return name;
}

function features(config: ProxyConfig) {
  return Object.entries(featureGates).map(([name, gate]) => ({
    name,
    stage: gate.stage,
    enabled: featureEnabled(config.featureGates, name),
  }));
}
