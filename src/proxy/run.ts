/**
 * The daemon, in kube-proxy's order: who and where this node is, kernel settings, checks, the modes, and only then open
 * ports and syncs. Ends with an exit code, or never.
 */
import { hostname } from 'node:os';
import type { Family, Node } from '../api/objects.ts';
import { ApiClient } from '../cluster/apiClient.ts';
import { loadConnection } from '../cluster/connection.ts';
import type { ProxyConfig } from '../config/types.ts';
import { mayAdministerNetwork } from '../linux/capabilities.ts';
import { applyConntrackSysctls, setOomScoreAdjust } from '../linux/sysctl.ts';
import type { Logger } from '../log/logger.ts';
import { isPrimaryKnown, nodeAddresses, nodeIPs, type NodeAddresses } from '../services/nodeAddresses.ts';
import { expandPrimary } from '../services/nodePortAddresses.ts';
import { ProblemLedger } from '../services/problems.ts';
import { DaemonStatus } from '../status/daemonStatus.ts';
import { pointsmanVersion } from '../version.ts';
import {
  buildFamilies,
  prepareKernel,
  reportProblem,
  supportedFamilies,
  type FamilyBuild,
} from './buildFamilies.ts';
import { removeLeftovers } from './cleanup.ts';
import { watchConfigFile } from './configWatch.ts';
import { createMetrics, type DaemonMetrics } from './daemonMetrics.ts';
import { loadMode, type ModeSupport } from './dataplanes.ts';
import { Families } from './families.ts';
import { shrinkHeap } from './heap.ts';
import { leftovers, leftoversRemovedBy } from './leftovers.ts';
import { NodeEvents } from './nodeEvents.ts';
import { NodeState, samePodCIDRs } from './nodeState.ts';
import { ProxyHealth } from './proxyHealth.ts';
import { Servers, type DaemonLog } from './servers.ts';
import { checkFamilies, checkNodePortAddresses } from './startupChecks.ts';
import { startSocket, UnreadableObjects } from './statusSocket.ts';
import { Watches } from './watches.ts';

/** Between the first sync and tidying up after it, milliseconds: what came meanwhile goes first. */
const quiet = 2000;

/** Runs until something ends it; resolves to the exit code. Rejects if the start fails, or with what ended it. */
export async function runProxy(config: ProxyConfig, log: DaemonLog): Promise<number> {
  if (config.cleanup) {
    if (!mayAdministerNetwork())
      throw new Error('--cleanup: only root (CAP_NET_ADMIN) may remove rules; nothing was removed');
    log.info('Removing the rules of all modes', { modes: leftovers.map(({ mode }) => mode) });
    return (await removeLeftovers(log)) ? 0 : 1;
  }
  const fileChange = configFileChange(config.configFile);
  const name = nodeName(config.hostnameOverride);
  const mode = await loadMode(config.mode);
  if (config.mode === 'ipvs') log.error('The ipvs proxy mode is deprecated; consider nftables mode');

  const { metrics, client: clientMetrics } = createMetrics(config, mode);
  const client = await connect(config, clientMetrics, log);
  const nodeState = new NodeState(name, log);
  const unreadable = new UnreadableObjects();
  const watches = new Watches({
    client,
    log,
    problem: (problem) => {
      metrics.skipped('undecodable');
      unreadable.add(problem);
    },
  });
  watches.node(nodeState);
  const node = await nodeState.wait(config.detectLocalMode === 'NodeCIDR');
  const addresses = locate(config, name, node, log);

  const events = new NodeEvents({ client, nodeName: name, log });
  const health = new ProxyHealth(2 * config.syncPeriod);
  applyConntrackSysctls(config.conntrack, { log });
  const families = await chooseFamilies(config, mode, addresses, node, log);
  const status = new DaemonStatus();
  const problems = new ProblemLedger((problem) => reportProblem(problem, log, metrics));
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
    observer: status,
    problems,
    serviceEvent: (namespace, service, text) => events.serviceHealthFailed(namespace, service, text),
    rulesChanged: (note) => events.rulesChanged(note),
    // The new mode's rules are in force before what other modes have left goes.
    allSynced: () => {
      void removeLeftovers(log, leftoversRemovedBy(config.mode)).finally(() => {
        if (mode.carriesConnections !== true) setTimeout(shrinkHeap, quiet).unref();
      });
    },
  };
  await prepareKernel(build);
  if (config.initOnly) return 0;
  const proxies = await buildFamilies(build);

  log.info('Version info', { version: config.reportedVersion, pointsman: pointsmanVersion });
  setOomScoreAdjust(config.oomScoreAdj, { log });
  return new Promise<number>((resolve, reject) => {
    const servers = new Servers({
      config,
      health,
      metrics,
      log,
      hardFailed: (server, error) => {
        events.bindFailed(server, error.message);
        const end = (): void =>
          reject(new Error(`failed to start the ${server} server: ${error.message}`, { cause: error }));
        void events.flush().finally(end);
      },
    });
    servers.start();
    startSocket({ build, status, proxies, unreadable, nodeObject: () => nodeState.node });
    const all = new Families(proxies);
    watches.objects(all);
    nodeState.onChange((now, before) => {
      health.setNode(now);
      all.setZone(now.zone);
      logNewAddresses(before, now, log);
      if (config.detectLocalMode === 'NodeCIDR' && podCIDRsChanged(node, now, log)) resolve(1);
    });
    events.starting();
    if (config.mode === 'ipvs') events.ipvsDeprecated();
    for (const proxy of proxies) proxy.start();
    fileChange?.then(reject, reject);
  });
}

/** The name of this node's Node object. Throws if there is none. */
export function nodeName(override: string): string {
  const name = (override === '' ? hostname() : override).trim().toLowerCase();
  if (name === '') throw new Error('empty hostname: set --hostname-override to the name of this node');
  return name;
}

async function connect(
  config: ProxyConfig,
  metrics: DaemonMetrics['client'],
  log: Logger,
): Promise<ApiClient> {
  const { kubeconfig, contentType, acceptContentTypes, qps, burst } = config.clientConnection;
  const connection = await loadConnection({
    kubeconfig,
    master: config.master,
    log,
    observe: (observation) => metrics.observeConnection(observation),
  });
  const userAgent = `kube-proxy/${config.reportedVersion} pointsman/${pointsmanVersion}`;
  return new ApiClient({
    connection,
    contentType,
    acceptContentTypes,
    qps,
    burst,
    userAgent,
    onRequest: (observation) => metrics.observe(observation),
    log,
  });
}

function locate(config: ProxyConfig, name: string, node: Node | undefined, log: Logger): NodeAddresses {
  const addresses = nodeAddresses(node === undefined ? [] : nodeIPs(node), config.bindAddress);
  log.info('Using node addresses', { node: name, ...addresses });
  if (!isPrimaryKnown(addresses))
    log.info('The node has no address but loopback; set --bind-address to give it one');
  return addresses;
}

/** The families to serve. Throws if the machine or the configuration has none for this node. */
async function chooseFamilies(
  config: ProxyConfig,
  mode: ModeSupport,
  addresses: NodeAddresses,
  node: Node | undefined,
  log: Logger,
): Promise<readonly Family[]> {
  const doubt = (text: string): void =>
    log.error('Kube-proxy configuration may be incomplete or incorrect', { err: text });
  const nodePortAddresses = expandPrimary(config.nodePortAddresses, addresses);
  const checkedConfig = { ...config, nodePortAddresses };
  const checkedNode = { primaryFamily: addresses.primary, podCIDRs: node?.podCIDRs ?? [] };
  checkNodePortAddresses(checkedConfig, checkedNode).forEach(doubt);
  const families = await supportedFamilies(mode, addresses.primary, config.mode);
  const { fatal, logged } = checkFamilies(checkedConfig, checkedNode, families.length === 2);
  logged.forEach(doubt);
  if (fatal.length > 0) throw new Error(fatal.join('; '));
  log.info('Using detect-local-mode', { mode: config.detectLocalMode }, 2);
  return families;
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

function podCIDRsChanged(started: Node | undefined, now: Node, log: Logger): boolean {
  const before = started?.podCIDRs ?? [];
  if (samePodCIDRs(before, now.podCIDRs)) return false;
  log.error('PodCIDRs of the node changed, ending to be restarted', { before, now: now.podCIDRs });
  return true;
}
