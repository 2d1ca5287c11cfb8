/** What kube-proxy refuses is refused, in the same words and with the same paths; all problems at once. */
import { addressFamily, cidrFamily, isPort, splitHostPort } from './address.ts';
import { formatDuration } from './duration.ts';
import { checkFeatureGates, featureEnabled } from './features.ts';
import { parsePortRange } from './portRange.ts';
import type { Settings } from './settings.ts';

/** kube-proxy has the first three; it had `userspace` up to 1.25. */
export const modes = ['iptables', 'ipvs', 'nftables', 'userspace'];
export const detectLocalModes = ['ClusterCIDR', 'NodeCIDR', 'BridgeInterface', 'InterfaceNamePrefix'];

/** The only version whose hidden metrics can be shown: the minor release before ours. */
const previousMinor = '1.35';
const maxInt32 = 2 ** 31 - 1;
const hour = 3600_000;

const notNegative = 'must be greater than or equal to 0';
const positive = 'must be greater than 0';
const validCIDR = 'must be a valid CIDR';
const clusterCIDRsShape =
  'must be a either a single CIDR or dual-stack pair of CIDRs (e.g. [10.100.0.0/16, fde4:8dba:82e1::/48])';
const clusterCIDRShape = 'must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)';

/** Each is `PATH: what is wrong`, the path beginning with `KubeProxyConfiguration.`. */
export function validate(settings: Readonly<Settings>): string[] {
  const problems = new Problems('KubeProxyConfiguration');
  validateFeatureGates(settings, problems);
  validateModes(settings, problems);
  validateLinux(settings, problems);
  validatePeriods(settings, problems);
  validateAddresses(settings, problems);
  validateDetection(settings, problems);
  return problems.list;
}

/** Paths begin with `logging.`. */
export function validateLogging(settings: Readonly<Settings>): string[] {
  const { logging, featureGates } = settings;
  const problems = new Problems('logging');
  const text = logging.format === 'text';
  if (!text && logging.format !== 'json')
    problems.invalid('format', quote(logging.format), 'Unsupported log format');
  if (!(logging.flushFrequency > 0)) {
    problems.invalid('flushFrequency', formatDuration(logging.flushFrequency), positive);
  }
  if (logging.verbosity > maxInt32 || logging.verbosity < 0) {
    problems.invalid('verbosity', String(logging.verbosity), `Must be between 0 and ${maxInt32}`);
  }
  if (logging.vmodule.length > 0 && !text)
    problems.add('vmodule', 'Forbidden: Only supported for text log format');
  for (const [i, rule] of logging.vmodule.entries()) {
    const path = `vmodule[${i}]`;
    if (rule.filePattern === '') problems.add(path, 'Required value: File pattern must not be empty');
    if (/[=,]/.test(rule.filePattern)) {
      problems.invalid(path, quote(rule.filePattern), 'File pattern must not contain equal sign or comma');
    }
    if (rule.verbosity > maxInt32) problems.invalid(path, String(rule.verbosity), `Must be <= ${maxInt32}`);
  }
  if (!featureEnabled(featureGates, 'LoggingAlphaOptions')) {
    for (const format of ['text', 'json'] as const) {
      const forbidden = 'Forbidden: Feature LoggingAlphaOptions is disabled';
      if (logging[format].splitStream) problems.add(`options.${format}.splitStream`, forbidden);
      if (!isZero(logging[format].infoBufferSize))
        problems.add(`options.${format}.infoBufferSize`, forbidden);
    }
  }
  return problems.list;
}

function validateFeatureGates(settings: Readonly<Settings>, problems: Problems): void {
  for (const { value, text } of checkFeatureGates(settings.featureGates).errors) {
    problems.invalid('featureGates', String(value), text);
  }
}

function validateModes(settings: Readonly<Settings>, problems: Problems): void {
  const { mode, ipvs } = settings;
  const bits = 'must be within the range [0, 31]';
  problems.range('KubeProxyIPTablesConfiguration.MasqueradeBit', settings.iptablesMasqueradeBit, 0, 31, bits);
  if (mode === 'nftables') {
    problems.range(
      'KubeProxyNFTablesConfiguration.MasqueradeBit',
      settings.nftablesMasqueradeBit,
      0,
      31,
      bits,
    );
  }
  if (mode === 'ipvs') {
    const path = 'KubeProxyIPVSConfiguration';
    problems.duration(`${path}.TCPTimeout`, ipvs.tcpTimeout);
    problems.duration(`${path}.TCPFinTimeout`, ipvs.tcpFinTimeout);
    problems.duration(`${path}.UDPTimeout`, ipvs.udpTimeout);
    for (const [i, cidr] of ipvs.excludeCIDRs.entries()) {
      if (cidrFamily(cidr) === undefined)
        problems.invalid(`${path}.ExcludeCidrs[${i}]`, quote(cidr), validCIDR);
    }
  }
  if (mode === 'userspace') {
    const { bindAddress, portRange } = settings;
    if (bindAddress.startsWith('127.') || bindAddress === '::1')
      problems.invalid('BindAddress', quote(bindAddress), 'userspace mode cannot proxy on localhost');
    if (parsePortRange(portRange) === 'invalid') {
      const shape = 'must be begin-end, begin+offset or one port, with ports from 1 to 65535';
      problems.invalid('PortRange', quote(portRange), shape);
    }
  }
  if (!modes.includes(mode)) {
    const text = `must be ${modes.join(', ')} or blank (blank means the best-available proxy [currently iptables])`;
    problems.invalid('Mode.ProxyMode', quote(mode), text);
  }
}

function validateLinux(settings: Readonly<Settings>, problems: Problems): void {
  const { conntrack } = settings;
  const path = 'KubeProxyLinuxConfiguration.KubeProxyConntrackConfiguration';
  problems.range(`${path}.MaxPerCore`, conntrack.maxPerCore, 0, Infinity, notNegative);
  problems.range(`${path}.Min`, conntrack.min, 0, Infinity, notNegative);
  problems.duration(`${path}.TCPEstablishedTimeout`, conntrack.tcpEstablishedTimeout);
  problems.duration(`${path}.TCPCloseWaitTimeout`, conntrack.tcpCloseWaitTimeout);
  problems.duration(`${path}.UDPTimeout`, conntrack.udpTimeout);
  problems.duration(`${path}.UDPStreamTimeout`, conntrack.udpStreamTimeout);
  problems.range(
    'KubeProxyLinuxConfiguration.OOMScoreAdj',
    settings.oomScoreAdj,
    -1000,
    1000,
    'must be within the range [-1000, 1000]',
  );
  problems.range('ClientConnection.Burst', settings.clientConnection.burst, 0, Infinity, notNegative);
}

function validatePeriods(settings: Readonly<Settings>, problems: Problems): void {
  const { syncPeriod, minSyncPeriod, configSyncPeriod } = settings;
  const minShown = formatDuration(minSyncPeriod);
  if (!(configSyncPeriod > 0))
    problems.invalid('ConfigSyncPeriod', formatDuration(configSyncPeriod), positive);
  if (!(syncPeriod > 0)) problems.invalid('SyncPeriod', formatDuration(syncPeriod), positive);
  problems.duration('MinSyncPeriod', minSyncPeriod);
  if (minSyncPeriod > syncPeriod) {
    problems.invalid(
      'SyncPeriod',
      minShown,
      'must be greater than or equal to KubeProxyConfiguration.MinSyncPeriod',
    );
  }
  // kube-proxy takes it and then panics.
  if (minSyncPeriod > hour)
    problems.invalid('MinSyncPeriod', minShown, 'must be less than or equal to 1h0m0s');
}

function validateAddresses(settings: Readonly<Settings>, problems: Problems): void {
  const { bindAddress, healthzBindAddress, metricsBindAddress, nodePortAddresses } = settings;
  if (addressFamily(bindAddress) === undefined) {
    problems.invalid(
      'BindAddress',
      quote(bindAddress),
      'not a valid textual representation of an IP address',
    );
  }
  if (healthzBindAddress !== '') validateHostPort('HealthzBindAddress', healthzBindAddress, problems);
  validateHostPort('MetricsBindAddress', metricsBindAddress, problems);
  for (const [i, address] of nodePortAddresses.entries()) {
    if (address === 'primary') {
      if (nodePortAddresses.length > 1) {
        problems.invalid(`NodePortAddresses[${i}]`, quote(address), "can't use both 'primary' and CIDRs");
      }
      break;
    }
    if (cidrFamily(address) === undefined)
      problems.invalid(`NodePortAddresses[${i}]`, quote(address), validCIDR);
  }
  const version = settings.showHiddenMetricsForVersion;
  if (version !== '' && version !== previousMinor) {
    const text = `must be omitted or have the value '${previousMinor}': only the previous minor release is possible`;
    problems.invalid('ShowHiddenMetricsForVersion', quote(version), text);
  }
}

function validateHostPort(path: string, address: string, problems: Problems): void {
  const parts = splitHostPort(address);
  if (parts === undefined) {
    problems.invalid(path, quote(address), 'must be IP:port');
    return;
  }
  if (addressFamily(parts.host) === undefined)
    problems.invalid(path, quote(parts.host), 'must be a valid IP');
  if (!isPort(parts.port)) problems.invalid(path, quote(parts.port), 'must be a valid port');
}

function validateDetection(settings: Readonly<Settings>, problems: Problems): void {
  const { detectLocalMode, clusterCIDRs } = settings;
  if (!detectLocalModes.includes(detectLocalMode)) {
    const supported = [...detectLocalModes, ''].map(quote).join(', ');
    problems.add(
      'DetectLocalMode',
      `Unsupported value: ${quote(detectLocalMode)}: supported values: ${supported}`,
    );
  }
  if (detectLocalMode === 'BridgeInterface' && settings.bridgeInterface === '') {
    problems.invalid('DetectLocalConfiguration.InterfaceName', '""', 'must not be empty');
  }
  if (detectLocalMode === 'InterfaceNamePrefix' && settings.interfaceNamePrefix === '') {
    problems.invalid('DetectLocalConfiguration.InterfacePrefix', '""', 'must not be empty');
  }
  if (detectLocalMode === 'ClusterCIDR') {
    const path = 'DetectLocalConfiguration.ClusterCIDRs';
    const families = clusterCIDRs.map(cidrFamily);
    for (const [i, cidr] of clusterCIDRs.entries()) {
      if (families[i] === undefined) problems.invalid(`${path}[${i}]`, quote(cidr), clusterCIDRShape);
    }
    const samePair = families.length === 2 && families[0] !== undefined && families[0] === families[1];
    if (families.length > 2 || samePair) {
      problems.invalid(path, `[${clusterCIDRs.map(quote).join(', ')}]`, clusterCIDRsShape);
    }
  }
}

class Problems {
  readonly list: string[] = [];
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  add(path: string, text: string): void {
    this.list.push(`${this.#root}.${path}: ${text}`);
  }

  invalid(path: string, value: string, text: string): void {
    this.add(path, `Invalid value: ${value}: ${text}`);
  }

  range(path: string, value: number, min: number, max: number, text: string): void {
    if (!(value >= min && value <= max)) this.invalid(path, String(value), text);
  }

  duration(path: string, value: number): void {
    if (!(value >= 0)) this.invalid(path, formatDuration(value), notNegative);
  }
}

const quote = (text: string): string => JSON.stringify(text);

function isZero(quantity: string): boolean {
  return /^[+-]?0*\.?0*([eE][+-]?\d+|[KMGTPE]i|[numkMGTPE])?$/.test(quantity);
}
