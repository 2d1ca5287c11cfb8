/** Command line → effective configuration, in kube-proxy's order: flags, file, completion, validation. */
import { readFileSync } from 'node:fs';
import { checkReportedVersion, kubernetesVersion, versionLine, versionStructure } from '../version.ts';
import { withPort } from './address.ts';
import { inFlagWords } from './flagWords.ts';
import { flagHelp, parseFlags, printFlags, UsageError, type ParsedFlags } from './flags.ts';
import { completeForPlatform, splitClusterCIDR, withDefaults, type Settings } from './settings.ts';
import type { ProxyConfig } from './types.ts';
import { validate, validateLogging } from './validate.ts';
import { emptyFlagWarnings, extraWarnings, fileWarnings, flagWarnings } from './warnings.ts';

/** Configuration that cannot be used; the message begins with the step that failed, as kube-proxy's does. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  /** One sentence each, with its field path; empty if the message says it all. */
  readonly problems: readonly string[];
  /** The message for somebody who typed flags: those are named in place of fields. */
  readonly asTyped: string;

  constructor(
    message: string,
    options?: ErrorOptions & { readonly problems?: readonly string[]; readonly asTyped?: string },
  ) {
    super(message, options);
    this.problems = options?.problems ?? [];
    this.asTyped = options?.asTyped ?? message;
  }
}

export type LoadResult =
  /** To be printed on stdout before ending with 0. */
  | { readonly kind: 'text'; readonly text: string }
  | {
      readonly kind: 'config';
      readonly config: ProxyConfig;
      /** For stderr, before anything else. */
      readonly deprecations: readonly string[];
    };

/** Throws `UsageError` (the command line) or `ConfigError` (file, values: all problems in one message). */
export async function loadConfig(argv: readonly string[]): Promise<LoadResult> {
  const flags = parseFlags(argv);
  if (flags.help) return { kind: 'text', text: flagHelp() };
  const version = flags.values.version;
  if (version === 'true') return { kind: 'text', text: `${versionLine()}\n` };
  if (version === 'raw') return { kind: 'text', text: `${versionStructure()}\n` };
  const { settings, warnings } = await settle(flags);
  // Nothing is proxied by a clean-up, which is of all modes.
  const notices = settings.mode === '' && !flags.values.cleanup ? ['Using iptables proxy'] : [];
  completeForPlatform(settings);
  setHostname(settings, flags);
  refuseInvalid(settings, flags);
  return {
    kind: 'config',
    deprecations: flags.deprecations,
    config: finish(settings, flags, notices, [
      ...emptyFlagWarnings(argv),
      ...extraWarnings(flags, settings),
      ...warnings(settings),
    ]),
  };
}

type WarningsOf = (settings: Readonly<Settings>) => string[];

/** Settings from the file, or from the flags if there is none. */
async function settle(flags: ParsedFlags): Promise<{ settings: Settings; warnings: WarningsOf }> {
  const path = flags.values.config;
  if (path === '') {
    const settings = withDefaults({});
    applyFlags(settings, flags);
    return { settings, warnings: (final) => flagWarnings(flags, final) };
  }
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new ConfigError(`failed complete: cannot read --config ${path}: ${reason(error)}`, {
      cause: error,
    });
  }
  const { decodeFile } = await import('./file.ts');
  try {
    const { document, strictErrors } = decodeFile(text);
    const settings = withDefaults(document);
    applyLoggingFlags(settings, flags);
    const lenient =
      strictErrors.length > 0
        ? [`Using lenient decoding as strict decoding failed: ${strictErrors.join(', ')} (ignored)`]
        : [];
    return { settings, warnings: (final) => [...lenient, ...fileWarnings(flags, document, final)] };
  } catch (error) {
    throw new ConfigError(`failed complete: ${path}: ${reason(error)}`, { cause: error });
  }
}

function applyFlags(settings: Settings, flags: ParsedFlags): void {
  const { values, given } = flags;
  settings.mode = values['proxy-mode'];
  settings.featureGates = { ...values['feature-gates'] };
  settings.clientConnection.kubeconfig = values.kubeconfig;
  settings.clientConnection.contentType = values['kube-api-content-type'];
  settings.clientConnection.burst = values['kube-api-burst'];
  settings.clientConnection.qps = values['kube-api-qps'];
  settings.bindAddress = values['bind-address'];
  settings.healthzBindAddress = addressFromFlags(values['healthz-bind-address'], values['healthz-port']);
  settings.metricsBindAddress = addressFromFlags(values['metrics-bind-address'], values['metrics-port']);
  settings.bindAddressHardFail = values['bind-address-hard-fail'];
  settings.enableProfiling = values.profiling;
  settings.showHiddenMetricsForVersion = values['show-hidden-metrics-for-version'];
  settings.iptablesMasqueradeBit = values['iptables-masquerade-bit'];
  settings.masqueradeAll = values['masquerade-all'];
  settings.localhostNodePorts = values['iptables-localhost-nodeports'];
  const family = settings.mode === 'ipvs' ? 'ipvs' : 'iptables';
  settings.syncPeriod = values[`${family}-sync-period`];
  const minimum = `${family}-min-sync-period` as const;
  settings.minSyncPeriod = settings.mode === 'nftables' && !given.has(minimum) ? 0 : values[minimum];
  settings.ipvs = {
    scheduler: values['ipvs-scheduler'],
    excludeCIDRs: values['ipvs-exclude-cidrs'],
    strictARP: values['ipvs-strict-arp'],
    tcpTimeout: values['ipvs-tcp-timeout'],
    tcpFinTimeout: values['ipvs-tcpfin-timeout'],
    udpTimeout: values['ipvs-udp-timeout'],
  };
  settings.detectLocalMode = values['detect-local-mode'];
  settings.bridgeInterface = values['pod-bridge-interface'];
  settings.interfaceNamePrefix = values['pod-interface-name-prefix'];
  settings.clusterCIDRs = splitClusterCIDR(values['cluster-cidr']);
  settings.nodePortAddresses = values['nodeport-addresses'];
  settings.oomScoreAdj = values['oom-score-adj'];
  settings.conntrack = {
    maxPerCore: values['conntrack-max-per-core'],
    min: values['conntrack-min'],
    tcpEstablishedTimeout: values['conntrack-tcp-timeout-established'],
    tcpCloseWaitTimeout: values['conntrack-tcp-timeout-close-wait'],
    tcpBeLiberal: values['conntrack-tcp-be-liberal'],
    udpTimeout: values['conntrack-udp-timeout'],
    udpStreamTimeout: values['conntrack-udp-timeout-stream'],
  };
  settings.configSyncPeriod = values['config-sync-period'];
  applyLoggingFlags(settings, flags);
}

/** A logging flag that was given wins over the file; vmodule lists are joined, the flag's entries first. */
function applyLoggingFlags({ logging }: Settings, { values, given }: ParsedFlags): void {
  if (given.has('v')) logging.verbosity = values.v;
  if (given.has('logging-format')) logging.format = values['logging-format'];
  if (given.has('log-flush-frequency')) logging.flushFrequency = values['log-flush-frequency'];
  logging.vmodule = [...values.vmodule, ...logging.vmodule];
  for (const format of ['text', 'json'] as const) {
    const split = `log-${format}-split-stream` as const;
    const size = `log-${format}-info-buffer-size` as const;
    if (given.has(split)) logging[format].splitStream = values[split];
    if (given.has(size)) logging[format].infoBufferSize = values[size];
  }
}

/** The deprecated port flags: 0 turns the server off, else the port is for an address without one. */
function addressFromFlags(address: string, port: number): string {
  return port === 0 ? '' : withPort(address, port);
}

/** --hostname-override wins over the file. */
function setHostname(settings: Settings, flags: ParsedFlags): void {
  const wanted = flags.values['hostname-override'] || settings.hostnameOverride;
  settings.hostnameOverride = wanted.trim().toLowerCase();
  if (wanted !== '' && settings.hostnameOverride === '') {
    throw new ConfigError('failed complete: empty hostname-override: it holds only blanks');
  }
}

function refuseInvalid(settings: Settings, flags: ParsedFlags): void {
  const logging = validateLogging(settings);
  const others = validate(settings);
  if (!(flags.values['drift-check-period'] > 0)) others.push('--drift-check-period: must be greater than 0');
  if (!(flags.values['udp-timeout'] > 0)) others.push('--udp-timeout: must be greater than 0');
  const problems = [...others, ...logging];
  if (problems.length === 0) return;
  const step = others.length > 0 ? 'failed validate' : 'initialize logging';
  const joined = problems.length === 1 ? problems[0] : `[${problems.join(', ')}]`;
  const asTyped =
    flags.values.config === ''
      ? { asTyped: problems.map((problem) => inFlagWords(problem, settings.mode)).join('; ') }
      : {};
  throw new ConfigError(`${step}: ${joined}`, { problems, ...asTyped });
}

function finish(settings: Settings, flags: ParsedFlags, notices: string[], warnings: string[]): ProxyConfig {
  const { values } = flags;
  return {
    ...settings,
    // Both were checked by validate().
    mode: settings.mode as ProxyConfig['mode'],
    detectLocalMode: settings.detectLocalMode as ProxyConfig['detectLocalMode'],
    logging: { ...settings.logging, format: settings.logging.format === 'json' ? 'json' : 'text' },
    masqueradeBit:
      settings.mode === 'nftables' ? settings.nftablesMasqueradeBit : settings.iptablesMasqueradeBit,
    cleanup: values.cleanup,
    initOnly: values['init-only'],
    writeConfigTo: values['write-config-to'],
    configFile: values.config,
    master: values.master,
    reportedVersion: reportedVersion(values.version),
    extras: {
      serviceCounters: values['service-counters'],
      socketPath: values['socket-path'],
      nftablesLocalhostNodePorts: values['nftables-localhost-nodeports'],
      repairDrift: values['repair-drift'],
      driftCheckPeriod: values['drift-check-period'],
      udpTimeout: values['udp-timeout'],
    },
    notices,
    warnings,
    flags: printFlags(values),
  };
}

function reportedVersion(flag: string): string {
  if (!flag.startsWith('v')) return kubernetesVersion;
  try {
    return checkReportedVersion(flag);
  } catch (error) {
    throw new UsageError(`--version: ${reason(error)}`, { cause: error });
  }
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
