/**
 * Values that kube-proxy would take and then ignore or read otherwise than they look: one sentence each, for the log.
 * A zero in a file says nothing (kubeadm writes every field, most as zero), and neither does a default.
 */
import { formatDuration } from './duration.ts';
import { checkFeatureGates } from './features.ts';
import { flagTable, type FlagName, type FlagSpec } from './flag-table.ts';
import type { ParsedFlags } from './flags.ts';
import type { Document } from './schema.ts';
import { healthzPort, metricsPort, type Settings } from './settings.ts';

const specs: readonly FlagSpec[] = flagTable;

/** About the command line when there is no file. */
export function flagWarnings(flags: ParsedFlags, settings: Readonly<Settings>): string[] {
  const { given, values } = flags;
  const warnings: string[] = [];
  const ignored = (name: FlagName, why: string): void => {
    if (given.has(name)) warnings.push(`--${name} is ignored: ${why}`);
  };
  for (const spec of specs) {
    const name = spec.name as FlagName;
    if (name.startsWith('ipvs-') && settings.mode !== 'ipvs') ignored(name, `the mode is ${settings.mode}`);
  }
  if (settings.mode === 'ipvs') {
    ignored('iptables-sync-period', 'in mode ipvs it is --ipvs-sync-period');
    ignored('iptables-min-sync-period', 'in mode ipvs it is --ipvs-min-sync-period');
  }
  if (settings.mode === 'nftables') {
    ignored('iptables-masquerade-bit', 'the mode is nftables, whose bit is nftables.masqueradeBit of a file');
  }
  if (settings.mode !== 'iptables' && values['iptables-localhost-nodeports']) {
    ignored('iptables-localhost-nodeports', `the mode is ${settings.mode}`);
  }
  ignored('machine-id-file', 'nothing needs it');
  ignored('boot-id-file', 'nothing needs it');
  for (const [port, address, standard] of [
    ['healthz-port', 'healthz-bind-address', healthzPort],
    ['metrics-port', 'metrics-bind-address', metricsPort],
  ] as const) {
    if (values[port] !== 0 && values[port] !== standard && hasPort(values[address])) {
      ignored(port, `--${address} ${values[address]} has a port already`);
    }
  }
  return [...warnings, ...commonWarnings(settings)];
}

/** About settings of ours that the mode does not have, with or without a file. */
export function extraWarnings(flags: ParsedFlags, settings: Readonly<Settings>): string[] {
  const nftables = settings.mode === 'nftables';
  const names: FlagName[] = nftables ? ['drift-check-period'] : ['nftables-localhost-nodeports'];
  // Both proxy UDP in this process, the second on localhost.
  const proxies = settings.mode === 'userspace' || (nftables && flags.values['nftables-localhost-nodeports']);
  if (!proxies) names.push('udp-timeout');
  return names
    .filter((name) => flags.given.has(name))
    .map((name) => `--${name} is ignored: the mode is ${settings.mode}`);
}

/** About flags that were set to nothing, with or without a file. */
export function emptyFlagWarnings(argv: readonly string[]): string[] {
  const addresses = ['bind-address', 'healthz-bind-address', 'metrics-bind-address'];
  return addresses
    .filter((name) =>
      argv.some((word, i) => {
        const spelled = word.replaceAll('_', '-');
        return spelled === `--${name}=` || (spelled === `--${name}` && argv[i + 1] === '');
      }),
    )
    .map((name) => `--${name} without a value is ignored: the default stays in force`);
}

/** About a file, and the flags beside it. */
export function fileWarnings(flags: ParsedFlags, document: Document, settings: Readonly<Settings>): string[] {
  const warnings: string[] = [];
  const names = specs
    .filter((spec) => !spec.withFile && flags.given.has(spec.name as FlagName))
    .map((spec) => `--${spec.name}`);
  if (names.length > 0)
    warnings.push(`${names.join(', ')}: ignored, because --config is given and the file replaces them`);
  const { iptables = {}, ipvs = {}, nftables = {}, winkernel = {} } = document;
  const { mode } = settings;
  const inactive = `the mode is ${mode}`;
  const ignored = (path: string, isSet: boolean, why = inactive): void => {
    if (isSet) warnings.push(`${path} is ignored: ${why}`);
  };
  // Userspace mode has no section of its own: its periods are those of iptables mode, as they always were.
  if (mode !== 'iptables' && mode !== 'userspace') {
    ignored('iptables.syncPeriod', differs(iptables.syncPeriod, 30_000));
    ignored('iptables.minSyncPeriod', differs(iptables.minSyncPeriod, 1000));
    ignored(
      'iptables.localhostNodePorts',
      iptables.localhostNodePorts === true && mode === 'nftables',
      `${inactive}; there it is --nftables-localhost-nodeports`,
    );
  }
  if (mode === 'nftables') {
    ignored(
      'iptables.masqueradeAll',
      iptables.masqueradeAll === true,
      `${inactive}; there it is nftables.masqueradeAll`,
    );
    ignored(
      'iptables.masqueradeBit',
      differs(iptables.masqueradeBit, 14),
      `${inactive}; there it is nftables.masqueradeBit`,
    );
  } else {
    ignored('nftables.masqueradeAll', nftables.masqueradeAll === true);
    ignored('nftables.masqueradeBit', differs(nftables.masqueradeBit, 14));
    ignored('nftables.syncPeriod', differs(nftables.syncPeriod, 30_000));
    ignored('nftables.minSyncPeriod', differs(nftables.minSyncPeriod, 1000));
  }
  if (mode !== 'ipvs') {
    ignored('ipvs.syncPeriod', differs(ipvs.syncPeriod, 30_000));
    const { syncPeriod: _, ...others } = ipvs;
    for (const [field, value] of Object.entries(others)) ignored(`ipvs.${field}`, isMeant(value));
  }
  if (mode === 'iptables' && iptables.minSyncPeriod === 0 && iptables.syncPeriod) {
    warnings.push(
      'iptables.minSyncPeriod: 0s in a file means 1s; only --iptables-min-sync-period=0s without --config means at once',
    );
  }
  for (const [field, value] of Object.entries(winkernel))
    ignored(`winkernel.${field}`, isMeant(value), 'this is Linux');
  ignored('windowsRunAsService', document.windowsRunAsService === true, 'this is Linux');
  return [...warnings, ...commonWarnings(settings)];
}

function commonWarnings(settings: Readonly<Settings>): string[] {
  const { detectLocalMode } = settings;
  const warnings = [...checkFeatureGates(settings.featureGates).warnings];
  const why = `detectLocalMode is ${detectLocalMode}`;
  if (detectLocalMode !== 'BridgeInterface' && settings.bridgeInterface !== '') {
    warnings.push(`detectLocal.bridgeInterface is ignored: ${why}`);
  }
  if (detectLocalMode !== 'InterfaceNamePrefix' && settings.interfaceNamePrefix !== '') {
    warnings.push(`detectLocal.interfaceNamePrefix is ignored: ${why}`);
  }
  if (settings.portRange !== '' && settings.mode !== 'userspace')
    warnings.push(`portRange is ignored: the mode is ${settings.mode}`);
  if (settings.mode === 'ipvs') {
    for (const [name, value] of Object.entries(settings.ipvs)) {
      if (typeof value === 'number' && value > 0 && value % 1000 !== 0) {
        warnings.push(
          `ipvs.${name} ${formatDuration(value)} counts as ${Math.floor(value / 1000)}s: the kernel takes whole seconds, 0 leaves it alone`,
        );
      }
    }
  }
  return warnings;
}

function differs(value: number | undefined, standard: number): boolean {
  return value !== undefined && value !== 0 && value !== standard;
}

function isMeant(value: unknown): boolean {
  return Array.isArray(value) ? value.length > 0 : Boolean(value);
}

function hasPort(address: string): boolean {
  return /^[^:]*:\d+$|^\[.*\]:\d+$/.test(address);
}
