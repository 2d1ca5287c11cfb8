/** Routing tables as JSON and back, and the API objects they stand for. */
import type { EndpointSlice, Node, ObjectMeta, Service, ServiceCIDR } from '../api/objects.ts';
import type { Endpoint, Route, RoutingTable } from '../services/types.ts';
import type { FamilyRoutes, ObjectsDocument, RouteDocument, RoutesDocument } from './documents.ts';

export interface TableSource {
  readonly table: RoutingTable;
  readonly serviceCIDRs: readonly string[];
}

export function routeDocument(route: Route): RouteDocument {
  const { port, frontends, lostFrontends, internal, external, hasAny, hasExternal, endpoints } = route;
  const index = new Map(endpoints.map((endpoint, i) => [endpoint.key, i]));
  const indexes = (list: readonly Endpoint[]): number[] =>
    list.flatMap(({ key }) => {
      const i = index.get(key);
      return i === undefined ? [] : [i];
    });
  return {
    port,
    frontends,
    lostFrontends,
    internal,
    external,
    endpoints,
    cluster: indexes(route.cluster),
    local: indexes(route.local),
    reachable: indexes(route.reachable),
    hasAny,
    hasExternal,
  };
}

export function routeFromDocument(document: RouteDocument): Route {
  const { endpoints } = document;
  const pick = (indexes: readonly number[]): Endpoint[] =>
    indexes.flatMap((index) => {
      const endpoint = endpoints[index];
      return endpoint === undefined ? [] : [endpoint];
    });
  return {
    ...document,
    cluster: pick(document.cluster),
    local: pick(document.local),
    reachable: pick(document.reachable),
  };
}

export function tableFromDocument({ family, routes }: FamilyRoutes): RoutingTable {
  return {
    family,
    routes: new Map(routes.map((route) => [route.port.id, routeFromDocument(route)])),
  };
}

/** The document in pieces, so that a large table holds up nobody else for long. */
export function* routesText(
  head: Pick<RoutesDocument, 'node' | 'mode'>,
  sources: readonly TableSource[],
  matches: (route: Route) => boolean,
): Generator<string> {
  yield `${JSON.stringify(head).slice(0, -1)},"families":[`;
  let separator = '';
  for (const { table, serviceCIDRs } of sources) {
    const { family } = table;
    yield `${separator}${JSON.stringify({ family, serviceCIDRs }).slice(0, -1)},"routes":[`;
    separator = ',';
    let text = '';
    let first = true;
    for (const route of table.routes.values()) {
      if (!matches(route)) continue;
      text += (first ? '' : ',') + JSON.stringify(routeDocument(route));
      first = false;
      if (text.length > 64 * 1024) {
        yield text;
        text = '';
      }
    }
    yield `${text}]}`;
  }
  yield ']}\n';
}

/** The objects that would give these routes. */
export function objectsDocument(
  node: Node | undefined,
  sources: readonly TableSource[],
  matches: (route: Route) => boolean,
): ObjectsDocument {
  const services = new Map<string, Route[]>();
  const slices: EndpointSlice[] = [];
  for (const { table } of sources) {
    for (const route of table.routes.values()) {
      if (!matches(route)) continue;
      const key = `${route.port.namespace}/${route.port.service}`;
      const routes = services.get(key);
      if (routes === undefined) services.set(key, [route]);
      else routes.push(route);
      slices.push(...slicesOf(route));
    }
  }
  const cidrs = sources.flatMap(({ serviceCIDRs }) => serviceCIDRs);
  return {
    node: node ?? null,
    services: [...services.values()].map(serviceOf),
    slices,
    serviceCIDRs: cidrs.length === 0 ? [] : [serviceCIDROf(cidrs)],
  };
}

function metaOf(namespace: string, name: string, creationTimestamp = 0): ObjectMeta {
  return { namespace, name, uid: '', resourceVersion: '', creationTimestamp };
}

function serviceCIDROf(cidrs: readonly string[]): ServiceCIDR {
  return { kind: 'ServiceCIDR', meta: metaOf('', 'in-use'), cidrs };
}

/** The routes are those of one Service, in one or two families. */
function serviceOf(routes: readonly Route[]): Service {
  const ports = routes.map(({ port }) => port);
  const [first] = ports as [(typeof ports)[number]];
  const unique = (values: readonly string[]): string[] =>
    [...new Set(values)].filter((value) => value !== '');
  const clusterIPs = unique(ports.map(({ clusterIP }) => clusterIP));
  const loadBalancerIPs = unique(ports.flatMap((port) => port.loadBalancerIPs));
  const byPort = new Map(ports.map((port) => [`${port.portName}/${port.protocol}`, port]));
  const external = routes.some(({ hasExternal }) => hasExternal);
  return {
    kind: 'Service',
    meta: metaOf(first.namespace, first.service, first.creationTimestamp),
    type:
      loadBalancerIPs.length > 0
        ? 'LoadBalancer'
        : ports.some(({ nodePort }) => nodePort !== 0)
          ? 'NodePort'
          : 'ClusterIP',
    clusterIP: clusterIPs[0] ?? '',
    clusterIPs,
    ipFamilies: unique(ports.map(({ family }) => family)),
    ports: [...byPort.values()].map(({ portName, protocol, port, nodePort }) => ({
      name: portName,
      protocol,
      port,
      nodePort,
    })),
    externalIPs: unique(ports.flatMap(({ externalIPs }) => externalIPs)),
    loadBalancerIngress: loadBalancerIPs.map((ip) => ({ ip, ipMode: undefined })),
    loadBalancerSourceRanges: unique(ports.flatMap(({ sourceRanges }) => sourceRanges)),
    sessionAffinity: first.affinitySeconds > 0 ? 'ClientIP' : 'None',
    sessionAffinityTimeoutSeconds: first.affinitySeconds > 0 ? first.affinitySeconds : 10_800,
    externalTrafficPolicy: external ? (first.externalPolicyLocal ? 'Local' : 'Cluster') : '',
    internalTrafficPolicy: first.internalPolicyLocal ? 'Local' : 'Cluster',
    healthCheckNodePort: first.healthCheckNodePort,
  };
}

/** A slice has one list of ports for all its endpoints, so there is one for each target port (named ports differ by Pod). */
function slicesOf({ port, endpoints }: Route): EndpointSlice[] {
  const { family, portName, protocol, namespace, service } = port;
  const base = `${service}-${family.toLowerCase()}-${portName === '' ? port.port : portName}-${protocol.toLowerCase()}`;
  const numbers = [...new Set(endpoints.map((endpoint) => endpoint.port))];
  return numbers.map((number) => ({
    kind: 'EndpointSlice',
    meta: metaOf(namespace, `${base}-${number}`),
    serviceName: service,
    addressType: family,
    ports: [{ name: portName, protocol, port: number }],
    endpoints: endpoints
      .filter((endpoint) => endpoint.port === number)
      .map((endpoint) => ({
        address: endpoint.ip,
        ready: endpoint.ready,
        serving: endpoint.serving,
        terminating: endpoint.terminating,
        nodeName: endpoint.nodeName,
        zone: endpoint.zone,
        zoneHints: endpoint.zoneHints ?? [],
        nodeHints: endpoint.nodeHints ?? [],
        pod: endpoint.pod,
      })),
    lastChangeTriggerTime: 0,
  }));
}
