/**
 * The effective configuration as the v1alpha1 document: what /configz shows and --write-config-to writes. Keys are
 * sorted. Of the sections per mode only the one in force shows periods; the others show 0s, as kube-proxy's do.
 */
import { formatDuration } from './duration.ts';
import { apiVersion, kind } from './schema.ts';
import type { Settings } from './settings.ts';
import type { LogOutputOptions } from './types.ts';

/** Plain data, ready for JSON or YAML. A ProxyConfig is a Settings too. */
export function toDocument(config: Readonly<Settings>): Record<string, unknown> {
  const { mode, logging, ipvs, conntrack } = config;
  const inForce = {
    minSyncPeriod: formatDuration(config.minSyncPeriod),
    syncPeriod: formatDuration(config.syncPeriod),
  };
  const notInForce = { minSyncPeriod: '0s', syncPeriod: '0s' };
  const nftables = mode === 'nftables';
  return sortKeys({
    apiVersion,
    kind,
    ...(Object.keys(config.featureGates).length > 0 && { featureGates: { ...config.featureGates } }),
    clientConnection: { ...config.clientConnection },
    logging: {
      format: logging.format,
      flushFrequency: formatDuration(logging.flushFrequency),
      verbosity: logging.verbosity,
      ...(logging.vmodule.length > 0 && { vmodule: logging.vmodule.map((rule) => ({ ...rule })) }),
      options: { text: outputOptions(logging.text), json: outputOptions(logging.json) },
    },
    hostnameOverride: config.hostnameOverride,
    bindAddress: config.bindAddress,
    healthzBindAddress: config.healthzBindAddress,
    metricsBindAddress: config.metricsBindAddress,
    bindAddressHardFail: config.bindAddressHardFail,
    enableProfiling: config.enableProfiling,
    showHiddenMetricsForVersion: config.showHiddenMetricsForVersion,
    mode,
    iptables: {
      masqueradeBit: config.iptablesMasqueradeBit,
      masqueradeAll: !nftables && config.masqueradeAll,
      localhostNodePorts: config.localhostNodePorts,
      ...(mode === 'iptables' || mode === 'userspace' ? inForce : notInForce),
    },
    ipvs: {
      ...(mode === 'ipvs' ? inForce : notInForce),
      scheduler: ipvs.scheduler,
      excludeCIDRs: listOrNull(ipvs.excludeCIDRs),
      strictARP: ipvs.strictARP,
      tcpTimeout: formatDuration(ipvs.tcpTimeout),
      tcpFinTimeout: formatDuration(ipvs.tcpFinTimeout),
      udpTimeout: formatDuration(ipvs.udpTimeout),
    },
    nftables: {
      masqueradeBit: config.nftablesMasqueradeBit,
      masqueradeAll: nftables && config.masqueradeAll,
      ...(nftables ? inForce : notInForce),
    },
    winkernel: { ...config.winkernel },
    detectLocalMode: config.detectLocalMode,
    detectLocal: { bridgeInterface: config.bridgeInterface, interfaceNamePrefix: config.interfaceNamePrefix },
    clusterCIDR: config.clusterCIDRs.join(','),
    nodePortAddresses: listOrNull(config.nodePortAddresses),
    oomScoreAdj: config.oomScoreAdj,
    conntrack: {
      maxPerCore: conntrack.maxPerCore,
      min: conntrack.min,
      tcpEstablishedTimeout: formatDuration(conntrack.tcpEstablishedTimeout),
      tcpCloseWaitTimeout: formatDuration(conntrack.tcpCloseWaitTimeout),
      tcpBeLiberal: conntrack.tcpBeLiberal,
      udpTimeout: formatDuration(conntrack.udpTimeout),
      udpStreamTimeout: formatDuration(conntrack.udpStreamTimeout),
    },
    configSyncPeriod: formatDuration(config.configSyncPeriod),
    portRange: config.portRange,
  });
}

/** The document as YAML. The library is loaded only here: a daemon without a file never needs it. */
export async function printDocument(config: Readonly<Settings>): Promise<string> {
  const { stringify } = await import('yaml');
  return stringify(toDocument(config), { version: '1.1', indentSeq: false, lineWidth: 0 });
}

function outputOptions(options: LogOutputOptions): Record<string, unknown> {
  return { ...(options.splitStream && { splitStream: true }), infoBufferSize: options.infoBufferSize };
}

function listOrNull(list: readonly string[]): readonly string[] | null {
  return list.length > 0 ? [...list] : null;
}

function sortKeys(value: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const sorted: Record<string, unknown> = {};
  for (const key of Object.keys(value).sort()) {
    const item = value[key];
    const isObject = typeof item === 'object' && item !== null && !Array.isArray(item);
    sorted[key] = isObject ? sortKeys(item as Record<string, unknown>) : item;
  }
  return sorted;
}
