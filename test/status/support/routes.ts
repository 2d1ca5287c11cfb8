/** Routes as values, with no tracker behind them. */
import type { Endpoint, Route, RoutingTable, ServicePort } from '../../../src/services/types.ts';
import * as build from '../../services/build.ts';

export function endpoint(ip: string, more: Partial<Endpoint> = {}): Endpoint {
  return build.endpoint(ip, {
    nodeName: 'node-2',
    pod: `default/pod-${ip.slice(ip.lastIndexOf('.') + 1)}`,
    ...more,
  });
}

export function route(
  service: string,
  endpoints: readonly Endpoint[],
  more: Partial<Route> & { readonly servicePort?: Partial<ServicePort> } = {},
): Route {
  const { servicePort, ...rest } = more;
  const usable = endpoints.filter(({ ready }) => ready);
  const verdict = usable.length === 0 ? 'reject' : 'cluster';
  const port: ServicePort = {
    id: `default/${service}:http/TCP`,
    namespace: 'default',
    service,
    portName: 'http',
    protocol: 'TCP',
    family: 'IPv4',
    name: `default/${service}:http`,
    clusterIP: '10.96.0.10',
    port: 80,
    nodePort: 0,
    externalIPs: [],
    loadBalancerIPs: [],
    sourceRanges: [],
    affinitySeconds: 0,
    internalPolicyLocal: false,
    externalPolicyLocal: false,
    healthCheckNodePort: 0,
    creationTimestamp: 0,
    ...servicePort,
  };
  return {
    port,
    frontends: [{ kind: 'clusterIP', ip: port.clusterIP, port: port.port, protocol: port.protocol }],
    lostFrontends: [],
    internal: verdict,
    external: verdict,
    cluster: usable,
    local: [],
    reachable: usable,
    endpoints,
    hasAny: usable.length > 0,
    hasExternal: false,
    ...rest,
  };
}

export function table(...routes: Route[]): RoutingTable {
  return { family: 'IPv4', routes: new Map(routes.map((one) => [one.port.id, one])) };
}
