/** Every flag of kube-proxy 1.36 on Linux, and ours. What a flag means is here; how argv is read is in flags.ts. */

/** How a flag's text becomes a value; see `FlagTypes` for the value's shape. */
export type FlagKind = keyof FlagTypes;

export interface FlagTypes {
  bool: boolean;
  int32: number;
  float: number;
  string: string;
  /** Milliseconds. */
  duration: number;
  /** Comma separated, repeatable. */
  strings: readonly string[];
  /** An address; setting it to nothing leaves the default. */
  ip: string;
  /** An address with or without port; setting it to nothing leaves the default. */
  ipPort: string;
  gates: Readonly<Record<string, boolean>>;
  vmodule: readonly { readonly filePattern: string; readonly verbosity: number }[];
  /** A Kubernetes quantity, as written. */
  quantity: string;
  version: string;
  counterLevel: 'off' | 'services' | 'endpoints';
}

export interface FlagSpec {
  readonly name: string;
  readonly kind: FlagKind;
  /** As it would be written on the command line. */
  readonly default: string;
  readonly group: string;
  readonly help: string;
  /** Still counts when --config is given. */
  readonly withFile?: true;
  /** Printed on stderr when the flag is used. */
  readonly deprecated?: string;
}

const start = 'What to do';
const api = 'API server';
const mode = 'Mode and rules';
const node = 'Node and Pods';
const conntrack = 'Connection tracking';
const serve = 'Health and metrics';
const log = 'Logging';
const extra = 'Settings of pointsman (kube-proxy has none of these)';

export const flagTable = [
  {
    name: 'config',
    kind: 'string',
    default: '',
    group: start,
    withFile: true,
    help: 'KubeProxyConfiguration file (YAML or JSON); it replaces all flags but those marked *',
  },
  {
    name: 'write-config-to',
    kind: 'string',
    default: '',
    group: start,
    withFile: true,
    help: 'write the effective configuration to this file and exit',
  },
  {
    name: 'cleanup',
    kind: 'bool',
    default: 'false',
    group: start,
    withFile: true,
    help: 'remove all rules of all modes and exit',
  },
  {
    name: 'init-only',
    kind: 'bool',
    default: 'false',
    group: start,
    withFile: true,
    help: 'only do what needs full root privileges, then exit; then run again with fewer',
  },
  {
    name: 'version',
    kind: 'version',
    default: 'false',
    group: start,
    withFile: true,
    help: 'print the version and exit; raw prints a structure; v1.36.2-… sets what is reported',
  },
  {
    name: 'feature-gates',
    kind: 'gates',
    default: '',
    group: start,
    help: 'feature gates, as Name=true,Other=false',
  },
  {
    name: 'config-sync-period',
    kind: 'duration',
    default: '15m0s',
    group: api,
    help: 'how often everything known from the API server is gone through again; > 0',
  },
  {
    name: 'kubeconfig',
    kind: 'string',
    default: '',
    group: api,
    help: 'kubeconfig file; without it and --master, the in-cluster configuration',
  },
  {
    name: 'master',
    kind: 'string',
    default: '',
    group: api,
    withFile: true,
    help: "the API server's URL, instead of the kubeconfig's",
  },
  {
    name: 'kube-api-content-type',
    kind: 'string',
    default: 'application/vnd.kubernetes.protobuf',
    group: api,
    help: 'form of the objects asked for',
  },
  {
    name: 'kube-api-qps',
    kind: 'float',
    default: '5',
    group: api,
    help: 'requests per second to the API server',
  },
  {
    name: 'kube-api-burst',
    kind: 'int32',
    default: '10',
    group: api,
    help: 'requests that may be sent at once',
  },

  {
    name: 'proxy-mode',
    kind: 'string',
    default: '',
    group: mode,
    help: 'iptables (default), nftables, ipvs or userspace',
  },
  {
    name: 'masquerade-all',
    kind: 'bool',
    default: 'false',
    group: mode,
    help: 'SNAT all traffic to cluster IPs',
  },
  {
    name: 'iptables-masquerade-bit',
    kind: 'int32',
    default: '14',
    group: mode,
    help: 'mark bit for packets to be SNATed (iptables and ipvs), 0 to 31',
  },
  {
    name: 'iptables-localhost-nodeports',
    kind: 'bool',
    default: 'true',
    group: mode,
    help: 'node ports answer on 127.0.0.0/8 (iptables, userspace; there on ::1, too)',
  },
  {
    name: 'iptables-sync-period',
    kind: 'duration',
    default: '30s',
    group: mode,
    help: 'retry interval and longest time between checks (all modes but ipvs); > 0',
  },
  {
    name: 'iptables-min-sync-period',
    kind: 'duration',
    default: '1s',
    group: mode,
    help: 'shortest time between syncs (all modes but ipvs); nftables: 0s if not given',
  },
  { name: 'ipvs-sync-period', kind: 'duration', default: '30s', group: mode, help: 'the same for ipvs; > 0' },
  {
    name: 'ipvs-min-sync-period',
    kind: 'duration',
    default: '1s',
    group: mode,
    help: 'the same for ipvs; 0s = at once',
  },
  { name: 'ipvs-scheduler', kind: 'string', default: '', group: mode, help: 'IPVS scheduler (default rr)' },
  {
    name: 'ipvs-exclude-cidrs',
    kind: 'strings',
    default: '',
    group: mode,
    help: 'virtual servers in these CIDRs are never removed',
  },
  {
    name: 'ipvs-strict-arp',
    kind: 'bool',
    default: 'false',
    group: mode,
    help: 'set arp_ignore to 1 and arp_announce to 2',
  },
  {
    name: 'ipvs-tcp-timeout',
    kind: 'duration',
    default: '0s',
    group: mode,
    help: 'time-out of idle TCP connections; 0s = leave alone',
  },
  {
    name: 'ipvs-tcpfin-timeout',
    kind: 'duration',
    default: '0s',
    group: mode,
    help: 'time-out after a FIN; 0s = leave alone',
  },
  {
    name: 'ipvs-udp-timeout',
    kind: 'duration',
    default: '0s',
    group: mode,
    help: 'time-out of UDP flows; 0s = leave alone',
  },

  {
    name: 'hostname-override',
    kind: 'string',
    default: '',
    group: node,
    withFile: true,
    help: "this node's name, instead of the host name; wins over the file",
  },
  {
    name: 'bind-address',
    kind: 'ip',
    default: '0.0.0.0',
    group: node,
    help: "this node's primary address and family, if not unspecified (nothing is bound to it)",
  },
  {
    name: 'cluster-cidr',
    kind: 'string',
    default: '',
    group: node,
    help: 'the Pod CIDR, or a dual-stack pair separated by a comma',
  },
  {
    name: 'detect-local-mode',
    kind: 'string',
    default: '',
    group: node,
    help: 'how traffic from Pods is told: ClusterCIDR (default), NodeCIDR, BridgeInterface, InterfaceNamePrefix',
  },
  {
    name: 'pod-bridge-interface',
    kind: 'string',
    default: '',
    group: node,
    help: 'the bridge, for BridgeInterface',
  },
  {
    name: 'pod-interface-name-prefix',
    kind: 'string',
    default: '',
    group: node,
    help: "how Pods' interfaces begin, for InterfaceNamePrefix",
  },
  {
    name: 'nodeport-addresses',
    kind: 'strings',
    default: '',
    group: node,
    help: 'CIDRs of addresses that answer node ports, or primary; nftables: primary if not given, else all',
  },
  {
    name: 'oom-score-adj',
    kind: 'int32',
    default: '-999',
    group: node,
    help: "this process' oom_score_adj, -1000 to 1000",
  },

  {
    name: 'conntrack-max-per-core',
    kind: 'int32',
    default: '32768',
    group: conntrack,
    help: 'tracked connections per CPU core; 0 = leave the limit alone',
  },
  {
    name: 'conntrack-min',
    kind: 'int32',
    default: '131072',
    group: conntrack,
    help: 'tracked connections at least, whatever the number of cores',
  },
  {
    name: 'conntrack-tcp-timeout-established',
    kind: 'duration',
    default: '24h0m0s',
    group: conntrack,
    help: 'time-out of idle TCP connections; 0s = leave alone',
  },
  {
    name: 'conntrack-tcp-timeout-close-wait',
    kind: 'duration',
    default: '1h0m0s',
    group: conntrack,
    help: 'time-out in CLOSE_WAIT; 0s = leave alone',
  },
  {
    name: 'conntrack-tcp-be-liberal',
    kind: 'bool',
    default: 'false',
    group: conntrack,
    help: 'track packets outside the TCP window too',
  },
  {
    name: 'conntrack-udp-timeout',
    kind: 'duration',
    default: '0s',
    group: conntrack,
    help: 'time-out of UDP flows without an answer; 0s = leave alone',
  },
  {
    name: 'conntrack-udp-timeout-stream',
    kind: 'duration',
    default: '0s',
    group: conntrack,
    help: 'time-out of answered UDP flows; 0s = leave alone',
  },

  {
    name: 'healthz-bind-address',
    kind: 'ipPort',
    default: '0.0.0.0:10256',
    group: serve,
    help: 'where /healthz and /livez are served',
  },
  {
    name: 'metrics-bind-address',
    kind: 'ipPort',
    default: '127.0.0.1:10249',
    group: serve,
    help: 'where /metrics, /configz, /proxyMode … are served',
  },
  {
    name: 'bind-address-hard-fail',
    kind: 'bool',
    default: 'false',
    group: serve,
    help: 'end if one of these ports cannot be had',
  },
  {
    name: 'healthz-port',
    kind: 'int32',
    default: '10256',
    group: serve,
    deprecated: 'use --healthz-bind-address',
    help: 'port for a --healthz-bind-address without one; 0 = no health server',
  },
  {
    name: 'metrics-port',
    kind: 'int32',
    default: '10249',
    group: serve,
    deprecated: 'use --metrics-bind-address',
    help: 'port for a --metrics-bind-address without one',
  },
  {
    name: 'profiling',
    kind: 'bool',
    default: 'false',
    group: serve,
    help: 'serve /debug on the metrics port',
  },
  {
    name: 'show-hidden-metrics-for-version',
    kind: 'string',
    default: '',
    group: serve,
    help: 'show metrics hidden since this version; only 1.35 is possible',
  },

  { name: 'v', kind: 'int32', default: '0', group: log, withFile: true, help: 'verbosity: 0 to 9' },
  {
    name: 'vmodule',
    kind: 'vmodule',
    default: '',
    group: log,
    withFile: true,
    help: 'verbosity of single components, as name=N,…; patterns with * and ? (text format only)',
  },
  {
    name: 'logging-format',
    kind: 'string',
    default: 'text',
    group: log,
    withFile: true,
    help: 'text or json',
  },
  {
    name: 'log-flush-frequency',
    kind: 'duration',
    default: '5s',
    group: log,
    withFile: true,
    help: 'how often buffered lines are written',
  },
  {
    name: 'log-text-split-stream',
    kind: 'bool',
    default: 'false',
    group: log,
    withFile: true,
    help: 'information to stdout, errors to stderr (gate LoggingAlphaOptions)',
  },
  {
    name: 'log-text-info-buffer-size',
    kind: 'quantity',
    default: '0',
    group: log,
    withFile: true,
    help: 'bytes of information held back with split streams (gate LoggingAlphaOptions)',
  },
  {
    name: 'log-json-split-stream',
    kind: 'bool',
    default: 'false',
    group: log,
    withFile: true,
    help: 'the same for json',
  },
  {
    name: 'log-json-info-buffer-size',
    kind: 'quantity',
    default: '0',
    group: log,
    withFile: true,
    help: 'the same for json',
  },
  {
    name: 'machine-id-file',
    kind: 'string',
    default: '/etc/machine-id,/var/lib/dbus/machine-id',
    group: log,
    help: 'taken and ignored, as by kube-proxy',
  },
  {
    name: 'boot-id-file',
    kind: 'string',
    default: '/proc/sys/kernel/random/boot_id',
    group: log,
    help: 'taken and ignored, as by kube-proxy',
  },

  {
    name: 'service-counters',
    kind: 'counterLevel',
    default: 'off',
    group: extra,
    withFile: true,
    help: 'new connections in the metrics: off, services (by service port) or endpoints (by endpoint too)',
  },
  {
    name: 'socket-path',
    kind: 'string',
    default: '/run/pointsman/pointsman.sock',
    group: extra,
    withFile: true,
    help: 'unix socket for pointsman status, top and explain; empty = none',
  },
  {
    name: 'nftables-localhost-nodeports',
    kind: 'bool',
    default: 'false',
    group: extra,
    withFile: true,
    help: 'node ports answer on 127.0.0.1 and ::1 (nftables)',
  },
  {
    name: 'repair-drift',
    kind: 'bool',
    default: 'true',
    group: extra,
    withFile: true,
    help: 'put back rules that somebody else removed or changed',
  },
  {
    name: 'drift-check-period',
    kind: 'duration',
    default: '4s',
    group: extra,
    withFile: true,
    help: 'how often iptables, ipvs and userspace mode look for such changes',
  },
  {
    name: 'udp-timeout',
    kind: 'duration',
    default: '1m0s',
    group: extra,
    withFile: true,
    help: 'how long userspace mode keeps a UDP session without a datagram',
  },
] as const satisfies readonly FlagSpec[];

type Row = (typeof flagTable)[number];
export type FlagName = Row['name'];

/** All flags by name, each with the type of its kind. */
export type FlagValues = { [R in Row as R['name']]: FlagTypes[R['kind']] };
