/** Problems of the configuration in the words of a command line: `--cluster-cidr` in place of its field's path. */
import type { FlagName } from './flag-table.ts';

const conntrack = 'KubeProxyLinuxConfiguration.KubeProxyConntrackConfiguration';
const ipvs = 'KubeProxyIPVSConfiguration';

/** By the path that a problem begins with, without `KubeProxyConfiguration.`; an index in it does not count. */
const flags: Readonly<Record<string, FlagName>> = {
  featureGates: 'feature-gates',
  BindAddress: 'bind-address',
  HealthzBindAddress: 'healthz-bind-address',
  MetricsBindAddress: 'metrics-bind-address',
  NodePortAddresses: 'nodeport-addresses',
  ShowHiddenMetricsForVersion: 'show-hidden-metrics-for-version',
  ConfigSyncPeriod: 'config-sync-period',
  SyncPeriod: 'iptables-sync-period',
  MinSyncPeriod: 'iptables-min-sync-period',
  DetectLocalMode: 'detect-local-mode',
  'DetectLocalConfiguration.ClusterCIDRs': 'cluster-cidr',
  'DetectLocalConfiguration.InterfaceName': 'pod-bridge-interface',
  'DetectLocalConfiguration.InterfacePrefix': 'pod-interface-name-prefix',
  'Mode.ProxyMode': 'proxy-mode',
  'ClientConnection.Burst': 'kube-api-burst',
  'KubeProxyIPTablesConfiguration.MasqueradeBit': 'iptables-masquerade-bit',
  [`${ipvs}.TCPTimeout`]: 'ipvs-tcp-timeout',
  [`${ipvs}.TCPFinTimeout`]: 'ipvs-tcpfin-timeout',
  [`${ipvs}.UDPTimeout`]: 'ipvs-udp-timeout',
  [`${ipvs}.ExcludeCidrs`]: 'ipvs-exclude-cidrs',
  'KubeProxyLinuxConfiguration.OOMScoreAdj': 'oom-score-adj',
  [`${conntrack}.MaxPerCore`]: 'conntrack-max-per-core',
  [`${conntrack}.Min`]: 'conntrack-min',
  [`${conntrack}.TCPEstablishedTimeout`]: 'conntrack-tcp-timeout-established',
  [`${conntrack}.TCPCloseWaitTimeout`]: 'conntrack-tcp-timeout-close-wait',
  [`${conntrack}.UDPTimeout`]: 'conntrack-udp-timeout',
  [`${conntrack}.UDPStreamTimeout`]: 'conntrack-udp-timeout-stream',
  'logging.format': 'logging-format',
  'logging.flushFrequency': 'log-flush-frequency',
  'logging.verbosity': 'v',
  'logging.vmodule': 'vmodule',
};

/**
 * `KubeProxyConfiguration.DetectLocalConfiguration.ClusterCIDRs[0]: Invalid value …` → `--cluster-cidr: Invalid value …`.
 * A problem of something that no flag sets stays as it is.
 */
export function inFlagWords(problem: string, mode: string): string {
  const path = /^[\w.]+/.exec(problem)?.[0] ?? '';
  const flag = flags[path.replace(/^KubeProxyConfiguration\./, '')];
  if (flag === undefined) return problem;
  const name = mode === 'ipvs' ? flag.replace(/^iptables-(.*sync-period)$/, 'ipvs-$1') : flag;
  return `--${name}${problem.slice(path.length).replace(/^\[\d+\]/, '')}`;
}
