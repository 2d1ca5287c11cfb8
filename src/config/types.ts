/**
 * The effective configuration: what flags, file and defaults come to after precedence and validation. Immutable.
 * All durations are milliseconds (fractions possible), whatever the flags and the file write them in.
 *
 * Field names follow KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1); what that document holds once per mode
 * and only one of which counts (`syncPeriod`, `minSyncPeriod`, `masqueradeAll`, `masqueradeBit`) is here once, already chosen.
 * The document itself, for /configz and --write-config-to, is made by `document.ts`.
 */
import type { Mode } from '../dataplane/dataplane.ts';

export type DetectLocalMode = 'ClusterCIDR' | 'NodeCIDR' | 'BridgeInterface' | 'InterfaceNamePrefix';

export interface ClientConnectionConfig {
  /** Path; empty (and no `master`) = in-cluster. */
  readonly kubeconfig: string;
  readonly acceptContentTypes: string;
  readonly contentType: string;
  /** Requests per second over all requests of the process; negative = unlimited. */
  readonly qps: number;
  readonly burst: number;
}

export interface VModuleRule {
  readonly filePattern: string;
  readonly verbosity: number;
}

export interface LogOutputOptions {
  /** Information on stdout, errors on stderr, instead of all on stderr. */
  readonly splitStream: boolean;
  /** Kubernetes quantity as written, `"0"` = unbuffered. */
  readonly infoBufferSize: string;
}

export interface LoggingConfig {
  readonly format: 'text' | 'json';
  readonly flushFrequency: number;
  readonly verbosity: number;
  readonly vmodule: readonly VModuleRule[];
  readonly text: LogOutputOptions;
  readonly json: LogOutputOptions;
}

export interface ConntrackConfig {
  /** 0 = leave the kernel's limit alone. */
  readonly maxPerCore: number;
  readonly min: number;
  /** 0 = leave the kernel's value alone; likewise the other time-outs. */
  readonly tcpEstablishedTimeout: number;
  readonly tcpCloseWaitTimeout: number;
  readonly tcpBeLiberal: boolean;
  readonly udpTimeout: number;
  readonly udpStreamTimeout: number;
}

export interface IpvsConfig {
  /** Empty = `rr`. */
  readonly scheduler: string;
  readonly excludeCIDRs: readonly string[];
  readonly strictARP: boolean;
  /** 0 = keep the kernel's value; likewise the other two. */
  readonly tcpTimeout: number;
  readonly tcpFinTimeout: number;
  readonly udpTimeout: number;
}

/** Accepted so that a file shared with Windows nodes works; nothing on Linux reads it but a plausibility check. */
export interface WinkernelConfig {
  readonly networkName: string;
  readonly sourceVip: string;
  readonly enableDSR: boolean;
  readonly rootHnsEndpointName: string;
  readonly forwardHealthCheckVip: boolean;
}

/** Settings kube-proxy does not have: flags only, never in the file, never needed. */
export interface ExtraConfig {
  /** New connections in the metrics: by service port, by endpoint too, or not at all. */
  readonly serviceCounters: 'off' | 'services' | 'endpoints';
  /** Where the daemon answers `pointsman status`; empty = nowhere. */
  readonly socketPath: string;
  /** Node ports answer on 127.0.0.1 and ::1 in nftables mode too (iptables mode has `localhostNodePorts`). */
  readonly nftablesLocalhostNodePorts: boolean;
  /** Rules that somebody else removed or changed are put back. */
  readonly repairDrift: boolean;
  /** How often iptables, IPVS and userspace mode look for such changes. */
  readonly driftCheckPeriod: number;
  /** Without a datagram for so long, a UDP session of userspace mode ends. */
  readonly udpTimeout: number;
}

export interface FlagValue {
  readonly name: string;
  readonly value: string;
}

export interface ProxyConfig {
  /** Remove all rules of all modes and exit. */
  readonly cleanup: boolean;
  /** Privileged set-up only, then exit 0. */
  readonly initOnly: boolean;
  /** Path to write the effective document to and exit; empty = do not. */
  readonly writeConfigTo: string;
  /** The Kubernetes version to report, `v1.36.2` unless `--version=v1.36.2-…` says otherwise. */
  readonly reportedVersion: string;
  /** Path of the configuration file; empty = flags only. */
  readonly configFile: string;
  /** API server URL, overrides the kubeconfig's; empty = none. */
  readonly master: string;

  readonly mode: Mode;
  /** Longest time between syncs and retry interval. */
  readonly syncPeriod: number;
  /** Shortest time between syncs; 0 = at once. Default 0 in nftables mode. */
  readonly minSyncPeriod: number;
  readonly masqueradeAll: boolean;
  /** 0..31; the mark is `1 << bit`. */
  readonly masqueradeBit: number;
  /** iptables mode: node ports answer on 127.0.0.0/8. */
  readonly localhostNodePorts: boolean;
  readonly ipvs: IpvsConfig;
  readonly extras: ExtraConfig;

  readonly clientConnection: ClientConnectionConfig;
  readonly logging: LoggingConfig;
  /** As configured; ask `featureEnabled` of features.ts for a gate's effective value. */
  readonly featureGates: Readonly<Record<string, boolean>>;
  /** Trimmed and lower-cased; empty = the machine's host name. */
  readonly hostnameOverride: string;
  readonly bindAddress: string;
  /** `IP:port`, `[IP]:port`; empty = no health server. */
  readonly healthzBindAddress: string;
  readonly metricsBindAddress: string;
  readonly bindAddressHardFail: boolean;
  readonly enableProfiling: boolean;
  readonly showHiddenMetricsForVersion: string;
  readonly detectLocalMode: DetectLocalMode;
  readonly bridgeInterface: string;
  readonly interfaceNamePrefix: string;
  /** Empty, one CIDR, or a dual-stack pair. */
  readonly clusterCIDRs: readonly string[];
  /** CIDRs, or `['primary']` (not yet expanded); empty = all local addresses. */
  readonly nodePortAddresses: readonly string[];
  readonly oomScoreAdj: number;
  readonly conntrack: ConntrackConfig;
  /** Resync interval of the informers. */
  readonly configSyncPeriod: number;
  readonly portRange: string;
  readonly winkernel: WinkernelConfig;
  /** What is shown of both `masqueradeBit`s in the document: the one of the mode not chosen is kept for the round trip. */
  readonly iptablesMasqueradeBit: number;
  readonly nftablesMasqueradeBit: number;

  /** For the log: what was decided by default, one sentence each. */
  readonly notices: readonly string[];
  /** For the log: values accepted and then ignored, misread or deprecated; each is one sentence. */
  readonly warnings: readonly string[];
  /** Every flag with the value it has after parsing, sorted by name: for /flagz and `FLAG:` lines. */
  readonly flags: readonly FlagValue[];
}
