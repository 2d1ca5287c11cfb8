/** Defaults: a document (or none) → settings with a value for everything, not yet validated. */
import { addressFamily, withPort } from './address.ts';
import type { Document } from './schema.ts';
import type { LoggingConfig, ProxyConfig } from './types.ts';

export const healthzPort = 10256;
export const metricsPort = 10249;

type Writable<T> = {
  -readonly [K in keyof T]: T[K] extends readonly (infer E)[]
    ? readonly E[]
    : T[K] extends object
      ? Writable<T[K]>
      : T[K];
};

/** What belongs to the command line or follows from the rest once validated. */
type LaterFields =
  | 'cleanup'
  | 'initOnly'
  | 'writeConfigTo'
  | 'configFile'
  | 'reportedVersion'
  | 'master'
  | 'extras'
  | 'notices'
  | 'warnings'
  | 'flags'
  | 'masqueradeBit';

/** The document with defaults applied and per-mode settings chosen; words that must be one of a few are any string yet. */
export type Settings = Writable<Omit<ProxyConfig, LaterFields | 'mode' | 'detectLocalMode' | 'logging'>> & {
  mode: string;
  detectLocalMode: string;
  logging: Writable<Omit<LoggingConfig, 'format'>> & { format: string };
};

/** Zero counts as absent where kube-proxy's own type cannot tell the two apart. */
export function withDefaults(document: Document): Settings {
  const { iptables = {}, ipvs = {}, nftables = {}, winkernel = {}, conntrack = {}, logging = {} } = document;
  const mode = document.mode ?? '';
  const bindAddress = document.bindAddress || '0.0.0.0';
  const v4 = addressFamily(bindAddress) === 'IPv4';
  return {
    featureGates: { ...document.featureGates },
    clientConnection: {
      kubeconfig: document.clientConnection?.kubeconfig ?? '',
      acceptContentTypes: document.clientConnection?.acceptContentTypes ?? '',
      contentType: document.clientConnection?.contentType || 'application/vnd.kubernetes.protobuf',
      qps: document.clientConnection?.qps || 5,
      burst: document.clientConnection?.burst || 10,
    },
    logging: {
      format: logging.format || 'text',
      flushFrequency: logging.flushFrequency || 5000,
      verbosity: logging.verbosity ?? 0,
      vmodule: logging.vmodule ?? [],
      text: logOutput(logging.options?.text),
      json: logOutput(logging.options?.json),
    },
    hostnameOverride: document.hostnameOverride ?? '',
    bindAddress,
    healthzBindAddress: withPort(document.healthzBindAddress || (v4 ? '0.0.0.0' : '::'), healthzPort),
    metricsBindAddress: withPort(document.metricsBindAddress || (v4 ? '127.0.0.1' : '::1'), metricsPort),
    bindAddressHardFail: document.bindAddressHardFail ?? false,
    enableProfiling: document.enableProfiling ?? false,
    showHiddenMetricsForVersion: document.showHiddenMetricsForVersion ?? '',
    mode,
    ...periods(document),
    masqueradeAll: (mode === 'nftables' ? nftables.masqueradeAll : iptables.masqueradeAll) ?? false,
    iptablesMasqueradeBit: iptables.masqueradeBit ?? 14,
    nftablesMasqueradeBit: nftables.masqueradeBit ?? 14,
    localhostNodePorts: iptables.localhostNodePorts ?? true,
    ipvs: {
      scheduler: ipvs.scheduler ?? '',
      excludeCIDRs: ipvs.excludeCIDRs ?? [],
      strictARP: ipvs.strictARP ?? false,
      tcpTimeout: ipvs.tcpTimeout ?? 0,
      tcpFinTimeout: ipvs.tcpFinTimeout ?? 0,
      udpTimeout: ipvs.udpTimeout ?? 0,
    },
    winkernel: {
      networkName: winkernel.networkName ?? '',
      sourceVip: winkernel.sourceVip ?? '',
      enableDSR: winkernel.enableDSR ?? false,
      rootHnsEndpointName: winkernel.rootHnsEndpointName ?? '',
      forwardHealthCheckVip: winkernel.forwardHealthCheckVip ?? false,
    },
    detectLocalMode: document.detectLocalMode ?? '',
    bridgeInterface: document.detectLocal?.bridgeInterface ?? '',
    interfaceNamePrefix: document.detectLocal?.interfaceNamePrefix ?? '',
    clusterCIDRs: splitClusterCIDR(document.clusterCIDR ?? ''),
    nodePortAddresses: document.nodePortAddresses ?? [],
    oomScoreAdj: document.oomScoreAdj ?? -999,
    conntrack: {
      maxPerCore: conntrack.maxPerCore ?? 32768,
      min: conntrack.min ?? 131072,
      tcpEstablishedTimeout: conntrack.tcpEstablishedTimeout ?? 24 * 3600_000,
      tcpCloseWaitTimeout: conntrack.tcpCloseWaitTimeout ?? 3600_000,
      tcpBeLiberal: conntrack.tcpBeLiberal ?? false,
      udpTimeout: conntrack.udpTimeout ?? 0,
      udpStreamTimeout: conntrack.udpStreamTimeout ?? 0,
    },
    configSyncPeriod: document.configSyncPeriod || 900_000,
    portRange: document.portRange ?? '',
  };
}

/** Defaults that depend on the mode that flags or file chose, and spelling. */
export function completeForPlatform(settings: Settings): void {
  if (settings.mode === '') settings.mode = 'iptables';
  if (settings.mode === 'nftables' && settings.nodePortAddresses.length === 0) {
    settings.nodePortAddresses = ['primary'];
  }
  if (settings.detectLocalMode === '') settings.detectLocalMode = 'ClusterCIDR';
}

/** Split without trimming: `a, b` has a second element that is no CIDR, and validation says so. */
export function splitClusterCIDR(text: string): string[] {
  return text === '' ? [] : text.split(',');
}

/** In nftables mode a minimum of 0 is meant: our syncs are cheap enough to need no pause. */
function periods(document: Document): { syncPeriod: number; minSyncPeriod: number } {
  switch (document.mode) {
    case 'ipvs':
      return section(document.ipvs, 0);
    case 'nftables':
      return section(document.nftables, 0);
    default:
      return section(document.iptables, 1000);
  }
}

function section(
  values: { readonly syncPeriod?: number; readonly minSyncPeriod?: number } | undefined,
  minimum: number,
): { syncPeriod: number; minSyncPeriod: number } {
  return { syncPeriod: values?.syncPeriod || 30_000, minSyncPeriod: values?.minSyncPeriod || minimum };
}

function logOutput(
  options: { readonly splitStream?: boolean; readonly infoBufferSize?: string } | undefined,
): { splitStream: boolean; infoBufferSize: string } {
  return { splitStream: options?.splitStream ?? false, infoBufferSize: options?.infoBufferSize ?? '0' };
}
