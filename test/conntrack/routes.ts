/** Routes and entries for the conntrack tests, with only what conntrack looks at. */
import type { Endpoint, Frontend, Route, RouteChange, RoutingTable } from '../../src/services/types.ts';
import type { ConntrackEntry } from '../../src/linux/netlink/conntrack-entry.ts';
import { formatAddressPort } from '../../src/services/ip.ts';

export function endpoint(ip: string, port: number, serving = true): Endpoint {
  return {
    ip,
    port,
    key: formatAddressPort(ip, port),
    ready: serving,
    serving,
    terminating: false,
    isLocal: false,
    nodeName: '',
    zone: '',
    pod: '',
  };
}

export interface RouteSpec {
  readonly name?: string;
  readonly protocol?: 'TCP' | 'UDP' | 'SCTP';
  readonly clusterIP: string;
  readonly port?: number;
  readonly nodePort?: number;
  readonly externalIPs?: readonly string[];
  readonly loadBalancerIPs?: readonly string[];
  readonly endpoints: readonly Endpoint[];
}

export function route(spec: RouteSpec): Route {
  const {
    name = 'dns',
    protocol = 'UDP',
    port = 8000,
    nodePort = 0,
    externalIPs = [],
    loadBalancerIPs = [],
  } = spec;
  const at = (kind: Frontend['kind'], ip: string): Frontend => ({ kind, ip, port, protocol });
  const ready = spec.endpoints.filter((one) => one.ready);
  const frontends = [
    at('clusterIP', spec.clusterIP),
    ...externalIPs.map((ip) => at('externalIP', ip)),
    ...loadBalancerIPs.map((ip) => at('loadBalancerIP', ip)),
    ...(nodePort === 0 ? [] : [{ kind: 'nodePort' as const, ip: '', port: nodePort, protocol }]),
  ];
  return {
    port: {
      id: `default/${name}:/${protocol}`,
      namespace: 'default',
      service: name,
      portName: '',
      protocol,
      family: spec.clusterIP.includes(':') ? 'IPv6' : 'IPv4',
      name: `default/${name}`,
      clusterIP: spec.clusterIP,
      port,
      nodePort,
      externalIPs,
      loadBalancerIPs,
      sourceRanges: [],
      affinitySeconds: 0,
      internalPolicyLocal: false,
      externalPolicyLocal: false,
      healthCheckNodePort: 0,
      creationTimestamp: 0,
    },
    frontends,
    lostFrontends: [],
    internal: ready.length > 0 ? 'cluster' : 'reject',
    external: ready.length > 0 ? 'cluster' : 'reject',
    cluster: ready,
    local: [],
    reachable: ready,
    endpoints: spec.endpoints,
    hasAny: ready.length > 0,
    hasExternal: frontends.length > 1,
  };
}

export function tableOf(...routes: readonly Route[]): RoutingTable {
  return {
    family: routes[0]?.port.family ?? 'IPv4',
    routes: new Map(routes.map((one) => [one.port.id, one])),
  };
}

export function changesBetween(before: RoutingTable, after: RoutingTable): RouteChange[] {
  const ids = new Set([...before.routes.keys(), ...after.routes.keys()]);
  return [...ids]
    .map((id) => ({ id, before: before.routes.get(id), after: after.routes.get(id) }))
    .filter((change) => change.before !== change.after);
}

/** A tracked flow to `destination`, answered from `answers` (both `ip:port`). */
export function flow(
  destination: readonly [ip: string, port: number],
  answers: readonly [ip: string, port: number],
  client: readonly [ip: string, port: number] = ['10.1.1.1', 12345],
  protocol = 17,
): ConntrackEntry {
  return {
    family: destination[0].includes(':') ? 'IPv6' : 'IPv4',
    original: {
      source: client[0],
      destination: destination[0],
      protocol,
      sourcePort: client[1],
      destinationPort: destination[1],
    },
    reply: {
      source: answers[0],
      destination: client[0],
      protocol,
      sourcePort: answers[1],
      destinationPort: client[1],
    },
    status: 0x2 | 0x8,
    timeout: 300,
    mark: 0,
    zone: 0,
    id: 0,
    use: 0,
    unknown: [],
  };
}
