/** Objects for tests, with the API's defaults where a test says nothing. */
import type {
  EndpointSlice,
  Service,
  ServicePortSpec,
  SliceEndpoint,
  SlicePort,
} from '../../src/api/objects.ts';
import { formatAddressPort } from '../../src/services/ip.ts';
import type { Endpoint, Route, RoutingTable } from '../../src/services/types.ts';

export function meta(name: string, namespace = 'default', creationTimestamp = 1000): Service['meta'] {
  return { name, namespace, uid: `uid-${name}`, resourceVersion: '1', creationTimestamp };
}

export function port(spec: Partial<ServicePortSpec> = {}): ServicePortSpec {
  return { name: '', protocol: 'TCP', port: 80, nodePort: 0, ...spec };
}

export function service(name: string, changes: Partial<Service> = {}): Service {
  const clusterIP = changes.clusterIP ?? '10.96.0.10';
  return {
    kind: 'Service',
    meta: meta(name),
    type: 'ClusterIP',
    clusterIP,
    clusterIPs: [clusterIP],
    ipFamilies: [],
    ports: [port()],
    externalIPs: [],
    loadBalancerIngress: [],
    loadBalancerSourceRanges: [],
    sessionAffinity: 'None',
    sessionAffinityTimeoutSeconds: 10800,
    externalTrafficPolicy: '',
    internalTrafficPolicy: '',
    healthCheckNodePort: 0,
    ...changes,
  };
}

export function backend(address: string, changes: Partial<SliceEndpoint> = {}): SliceEndpoint {
  return {
    address,
    ready: true,
    serving: true,
    terminating: false,
    nodeName: 'node-2',
    zone: '',
    zoneHints: [],
    nodeHints: [],
    pod: '',
    ...changes,
  };
}

export function slicePort(spec: Partial<SlicePort> = {}): SlicePort {
  return { name: '', protocol: 'TCP', port: 8080, ...spec };
}

export function slice(
  name: string,
  serviceName: string,
  endpoints: readonly (SliceEndpoint | string)[],
  changes: Partial<EndpointSlice> = {},
): EndpointSlice {
  return {
    kind: 'EndpointSlice',
    meta: meta(name),
    serviceName,
    addressType: 'IPv4',
    ports: [slicePort()],
    endpoints: endpoints.map((endpoint) => (typeof endpoint === 'string' ? backend(endpoint) : endpoint)),
    lastChangeTriggerTime: 0,
    ...changes,
  };
}

export function endpoint(ip: string, changes: Partial<Endpoint> = {}): Endpoint {
  const number = changes.port ?? 8080;
  return {
    ip,
    port: number,
    key: formatAddressPort(ip, number),
    ready: true,
    serving: true,
    terminating: false,
    isLocal: false,
    nodeName: '',
    zone: '',
    pod: '',
    ...changes,
  };
}

export function keys(endpoints: readonly Endpoint[]): string[] {
  return endpoints.map((each) => each.key);
}

/** The table as a plain value, in the order of ids: to compare tables by content. */
export function content(table: RoutingTable): [string, Route][] {
  return [...table.routes].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
}
