/** Routes for tests: what the services room would decide, for endpoints that are all ready. */
import type { Family, Protocol } from '../../../src/api/objects.ts';
import type { DataplaneOptions } from '../../../src/dataplane/dataplane.ts';
import { settingsOf, type Settings } from '../../../src/dataplane/iptables/settings.ts';
import type { ChangeSet, Endpoint, Frontend, Route, RoutingTable } from '../../../src/services/types.ts';

export interface Spec {
  readonly name: string;
  readonly portName?: string;
  readonly protocol?: Protocol;
  readonly clusterIP: string;
  readonly port: number;
  readonly nodePort?: number;
  readonly externalIPs?: readonly string[];
  readonly loadBalancerIPs?: readonly string[];
  readonly sourceRanges?: readonly string[];
  readonly affinitySeconds?: number;
  readonly internalPolicyLocal?: boolean;
  readonly externalPolicyLocal?: boolean;
  readonly healthCheckNodePort?: number;
  /** `ip:port`; a trailing `L` marks an endpoint on this node. */
  readonly endpoints?: readonly string[];
}

export function makeEndpoint(text: string): Endpoint {
  const isLocal = text.endsWith('L');
  const key = isLocal ? text.slice(0, -1) : text;
  const colon = key.lastIndexOf(':');
  const host = key.slice(0, colon);
  return {
    ip: host.startsWith('[') ? host.slice(1, -1) : host,
    port: Number(key.slice(colon + 1)),
    key,
    ready: true,
    serving: true,
    terminating: false,
    isLocal,
    nodeName: isLocal ? 'node-a' : 'node-b',
    zone: '',
    pod: '',
  };
}

const byKey = (a: Endpoint, b: Endpoint): number => (a.key < b.key ? -1 : 1);

export function makeRoute(spec: Spec): Route {
  const protocol = spec.protocol ?? 'TCP';
  const portName = spec.portName ?? '';
  const [namespace = '', service = ''] = spec.name.split('/');
  const family: Family = spec.clusterIP.includes(':') ? 'IPv6' : 'IPv4';
  const frontend = (kind: Frontend['kind'], ip: string, port: number): Frontend => ({
    kind,
    ip,
    port,
    protocol,
  });
  const external = [
    ...(spec.externalIPs ?? []).map((ip) => frontend('externalIP', ip, spec.port)),
    ...(spec.loadBalancerIPs ?? []).map((ip) => frontend('loadBalancerIP', ip, spec.port)),
    ...(spec.nodePort === undefined ? [] : [frontend('nodePort', '', spec.nodePort)]),
  ];
  const endpoints = (spec.endpoints ?? []).map(makeEndpoint).sort(byKey);
  const hasExternal = external.length > 0;
  const internalLocal = spec.internalPolicyLocal ?? false;
  const externalLocal = spec.externalPolicyLocal ?? false;
  const usesCluster = !internalLocal || hasExternal;
  const usesLocal = internalLocal || (externalLocal && hasExternal);
  const cluster = usesCluster ? endpoints : [];
  const local = usesLocal ? endpoints.filter((endpoint) => endpoint.isLocal) : [];
  const hasAny = endpoints.length > 0;
  const verdict = (wantsLocal: boolean): Route['internal'] =>
    !hasAny ? 'reject' : !wantsLocal ? 'cluster' : local.length > 0 ? 'local' : 'drop';
  return {
    port: {
      id: `${spec.name}:${portName}/${protocol}`,
      namespace,
      service,
      portName,
      protocol,
      family,
      name: portName === '' ? spec.name : `${spec.name}:${portName}`,
      clusterIP: spec.clusterIP,
      port: spec.port,
      nodePort: spec.nodePort ?? 0,
      externalIPs: spec.externalIPs ?? [],
      loadBalancerIPs: spec.loadBalancerIPs ?? [],
      sourceRanges: spec.sourceRanges ?? [],
      affinitySeconds: spec.affinitySeconds ?? 0,
      internalPolicyLocal: internalLocal,
      externalPolicyLocal: externalLocal,
      healthCheckNodePort: spec.healthCheckNodePort ?? 0,
      creationTimestamp: 0,
    },
    frontends: [frontend('clusterIP', spec.clusterIP, spec.port), ...external],
    lostFrontends: [],
    internal: verdict(internalLocal),
    external: verdict(externalLocal),
    cluster,
    local,
    reachable: cluster.length > 0 ? cluster : local,
    endpoints,
    hasAny,
    hasExternal,
  };
}

export function makeTable(routes: readonly Route[], family: Family = 'IPv4'): RoutingTable {
  return { family, routes: new Map(routes.map((route) => [route.port.id, route])) };
}

export function changesBetween(before: RoutingTable, after: RoutingTable): ChangeSet {
  const changes = [];
  for (const id of new Set([...before.routes.keys(), ...after.routes.keys()])) {
    const old = before.routes.get(id);
    const now = after.routes.get(id);
    if (old !== now) changes.push({ id, before: old, after: now });
  }
  return { family: after.family, changes, udpEndpointsChanged: false, triggerTimes: [] };
}

export const ipv4Options: DataplaneOptions = {
  family: 'IPv4',
  masqueradeBit: 14,
  masqueradeAll: false,
  localDetector: { kind: 'cidr', cidr: '10.244.0.0/16' },
  nodeIP: '192.0.2.10',
  nodePortAddresses: ['0.0.0.0/0'],
  syncPeriod: 30_000,
};

export const ipv6Options: DataplaneOptions = {
  ...ipv4Options,
  family: 'IPv6',
  localDetector: { kind: 'cidr', cidr: 'fd00:10:244::/48' },
  nodeIP: 'fd00:31::10',
  nodePortAddresses: ['::/0'],
};

export function makeSettings(
  options: DataplaneOptions = ipv4Options,
  localhostNodePorts = true,
  probed: Partial<Settings> = {},
): Settings {
  return {
    ...settingsOf(
      { ...options, localhostNodePorts },
      { tcpBeLiberal: false, randomFully: true, countInvalid: true, countLocalhost: true },
    ),
    ...probed,
  };
}

/** The five services of the worked example (worked-example.txt has its document). */
export const workedExample = [
  makeRoute({
    name: 'default/cache',
    clusterIP: '10.96.30.30',
    port: 6379,
    internalPolicyLocal: true,
    affinitySeconds: 10800,
    endpoints: ['10.244.1.6:6379L', '10.244.2.10:6379'],
  }),
  makeRoute({ name: 'default/idle', portName: 'http', clusterIP: '10.96.40.40', port: 80, nodePort: 30999 }),
  makeRoute({
    name: 'default/remote',
    portName: 'tls',
    clusterIP: '10.96.50.50',
    port: 443,
    nodePort: 31000,
    externalIPs: ['198.51.100.77'],
    externalPolicyLocal: true,
    endpoints: ['10.244.2.11:8443'],
  }),
  makeRoute({
    name: 'default/web',
    portName: 'http',
    clusterIP: '10.96.20.20',
    port: 80,
    nodePort: 30080,
    loadBalancerIPs: ['203.0.113.50'],
    sourceRanges: ['198.51.100.0/24', '192.0.2.0/24'],
    externalPolicyLocal: true,
    healthCheckNodePort: 32000,
    endpoints: ['10.244.1.5:8080L', '10.244.2.9:8080'],
  }),
  makeRoute({
    name: 'kube-system/kube-dns',
    portName: 'dns',
    protocol: 'UDP',
    clusterIP: '10.96.0.10',
    port: 53,
    endpoints: ['10.244.1.7:53L', '10.244.2.8:53', '10.244.3.4:53'],
  }),
];
