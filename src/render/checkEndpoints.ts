/** Service ports that nobody answers for, here or anywhere, and hints that do not count. */
import type { EndpointSlice, Service } from '../api/objects.ts';
import { isPort } from '../services/names.ts';
import { isReady, topologyMode } from '../services/selection.ts';
import type { Endpoint, Route } from '../services/types.ts';
import type { ClusterObjects } from './cluster.ts';
import type { Findings } from './findings.ts';
import type { RenderNode } from './node.ts';
import type { Wanted } from './wanted.ts';
import { mapOf, written } from './written.ts';

/** A port of a Service as written. */
type PublishedPort =
  { readonly name?: unknown; readonly protocol?: unknown; readonly targetPort?: unknown } | null | undefined;

export function checkEndpoints(
  service: Service,
  routes: readonly Route[],
  cluster: ClusterObjects,
  { node }: Wanted,
  findings: Findings,
): void {
  const slices = cluster.slices.filter(
    ({ meta, serviceName }) => meta.namespace === service.meta.namespace && serviceName === service.meta.name,
  );
  if (routes.length > 0 && slices.length === 0) {
    const message = hasSelector(service, cluster)
      ? 'no EndpointSlice names this Service: connections are refused (the control plane makes slices of the Pods that the selector finds; a file with Services alone has none)'
      : 'the Service has no selector, so its EndpointSlices have to be written by hand, and none names it: connections are refused';
    findings.about('warning', service, 'spec.selector', 'no_slices', message);
    return;
  }
  for (const route of routes) {
    const field = portField(service, route, cluster);
    const { port } = route;
    const which = `${port.family}: port ${port.portName === '' ? port.port : port.portName}`;
    if (!route.hasAny) {
      const { reason, message } = whyNobody(route, slices);
      findings.about('warning', service, field, reason, `${which}: connections are refused: ${message}`);
      continue;
    }
    if (route.hasExternal && route.external === 'drop')
      findings.about(
        'warning',
        service,
        'spec.externalTrafficPolicy',
        'no_local_endpoints',
        `${which}: Local, and no ready endpoint is on ${nodeText(node)}: packets from outside are dropped here${elsewhere(route)}`,
      );
    if (route.internal === 'drop')
      findings.about(
        'warning',
        service,
        'spec.internalTrafficPolicy',
        'no_local_endpoints',
        `${which}: Local, and no ready endpoint is on ${nodeText(node)}: packets from here are dropped${elsewhere(route)}`,
      );
    if (route.cluster.length > 0 && !route.endpoints.some(isReady))
      findings.about(
        'warning',
        service,
        field,
        'terminating_only',
        `${which}: all endpoints that serve are terminating: they are used until they are gone`,
      );
    checkHints(service, route, field, which, node, findings);
  }
  checkDistribution(service, routes, cluster, findings);
  checkPortNumbers(service, slices, cluster, findings);
}

function nodeText(node: RenderNode): string {
  return node.name === '' ? 'this node' : node.name;
}

/** ` (node-2 has 2, node-3 has 1)` */
function elsewhere(route: Route): string {
  const counts = new Map<string, number>();
  for (const endpoint of route.endpoints) {
    if (!isReady(endpoint) || endpoint.isLocal || endpoint.nodeName === '') continue;
    counts.set(endpoint.nodeName, (counts.get(endpoint.nodeName) ?? 0) + 1);
  }
  const nodes = [...counts].sort(([a], [b]) => (a < b ? -1 : 1));
  const nowhere = route.endpoints.filter((one) => isReady(one) && one.nodeName === '').length;
  if (nodes.length === 0)
    return nowhere === 0
      ? ''
      : ` (${nowhere} of the ready endpoints ${nowhere === 1 ? 'has' : 'have'} no nodeName)`;
  const more = nodes.length > 3 ? `, and ${nodes.length - 3} more nodes have some` : '';
  return ` (${nodes
    .slice(0, 3)
    .map(([name, count]) => `${name} has ${count}`)
    .join(', ')}${more})`;
}

function whyNobody(
  { port, endpoints }: Route,
  slices: readonly EndpointSlice[],
): { reason: string; message: string } {
  if (endpoints.length > 0) {
    const count =
      endpoints.length === 1 ? 'the only endpoint is' : `none of the ${endpoints.length} endpoints is`;
    return { reason: 'no_ready_endpoints', message: `${count}${endpoints.length === 1 ? ' not' : ''} ready` };
  }
  const own = slices.filter(({ addressType }) => addressType === port.family);
  if (own.length === 0) {
    const types = [...new Set(slices.map(({ addressType }) => addressType || '(none)'))].join(', ');
    return {
      reason: 'no_slices',
      message: `its EndpointSlices are of type ${types}, none is ${port.family}`,
    };
  }
  const ports = own.flatMap((slice) => slice.ports);
  const same = ports.some(
    ({ name, protocol }) => (name ?? '') === port.portName && protocol === port.protocol,
  );
  if (ports.length === 0) return { reason: 'no_endpoints', message: 'its EndpointSlices have no ports' };
  if (same) return { reason: 'no_endpoints', message: 'its EndpointSlices have no endpoint for this port' };
  const names = [
    ...new Set(
      ports.map(({ name, protocol }) => `${name === null || name === '' ? '(no name)' : name}/${protocol}`),
    ),
  ];
  return {
    reason: 'port_name_mismatch',
    message: `its EndpointSlices have no port ${port.portName === '' ? '(no name)' : port.portName}/${port.protocol}, only ${names.slice(0, 5).join(', ')}: port names and protocols of both must be the same`,
  };
}

/** Hints that some endpoints have, but that do not count here. */
function checkHints(
  service: Service,
  route: Route,
  field: string,
  which: string,
  node: RenderNode,
  findings: Findings,
): void {
  if (route.cluster.length === 0) return;
  const ready = route.endpoints.filter(isReady);
  const hinted = ready.filter((one) => hasZones(one) || hasNodes(one));
  if (hinted.length === 0) return;
  if (topologyMode(route.endpoints, { nodeName: node.name, zone: node.zone }) !== 'all') return;
  const bare = ready.find((one) => !hasZones(one) && !hasNodes(one));
  const zones = [...new Set(hinted.flatMap((one) => one.zoneHints ?? []))].sort();
  let why: string;
  if (bare !== undefined) why = `${bare.key} has none, and they count only if every ready endpoint has one`;
  else if (zones.length > 0 && node.zone === '')
    why = `the zone of ${nodeText(node)} is not known (label topology.kubernetes.io/zone, or --zone)`;
  else if (zones.length > 0) why = `none is for zone ${node.zone} of this node, only for ${zones.join(', ')}`;
  else why = `none is for ${nodeText(node)}`;
  findings.about(
    'warning',
    service,
    field,
    'hints_ignored',
    `${which}: the endpoints' topology hints are ignored: ${why}`,
  );
}

/** A wish of the Service that only hints of its endpoints fulfil. */
function checkDistribution(
  service: Service,
  routes: readonly Route[],
  cluster: ClusterObjects,
  findings: Findings,
): void {
  const wish = mapOf(written(service, cluster)?.['spec'])['trafficDistribution'];
  if (typeof wish !== 'string' || !wish.startsWith('Prefer')) return;
  const endpoints = routes.flatMap((route) => route.endpoints);
  if (endpoints.length === 0 || endpoints.some((one) => hasZones(one) || hasNodes(one))) return;
  const message = `${wish} has no effect here: nodes go by the hints of endpoints, which the control plane writes, and none has any`;
  findings.about('warning', service, 'spec.trafficDistribution', 'no_hints', message);
}

function hasZones(endpoint: Endpoint): boolean {
  return (endpoint.zoneHints?.length ?? 0) > 0;
}

function hasNodes(endpoint: Endpoint): boolean {
  return (endpoint.nodeHints?.length ?? 0) > 0;
}

/** A number as targetPort that the slices do not have. */
function checkPortNumbers(
  service: Service,
  slices: readonly EndpointSlice[],
  cluster: ClusterObjects,
  findings: Findings,
): void {
  const { spec } = (cluster.sources.get(service)?.value ?? {}) as {
    spec?: { ports?: readonly PublishedPort[] };
  };
  spec?.ports?.forEach?.((published, i) => {
    const target = published?.targetPort ?? undefined;
    if (typeof target !== 'number' || !isPort(target)) return;
    const name = typeof published?.name === 'string' ? published.name : '';
    const numbers = new Set<number>();
    for (const slice of slices)
      for (const one of slice.ports)
        if ((one.name ?? '') === name && one.port !== null) numbers.add(one.port);
    if (numbers.size === 0 || numbers.has(target)) return;
    const message = `is ${target}, but the EndpointSlices say ${[...numbers].join(', ')}: the slices count`;
    findings.about('warning', service, `spec.ports[${i}].targetPort`, 'target_port_mismatch', message);
  });
}

/** `spec.ports[1]`, counted as written: entries that cannot be used are not in the compact form. */
function portField(service: Service, { port }: Route, { sources }: ClusterObjects): string {
  const { spec } = (sources.get(service)?.value ?? {}) as { spec?: { ports?: readonly PublishedPort[] } };
  const index = (spec?.ports ?? service.ports).findIndex(
    (one) => (one?.name ?? '') === port.portName && (one?.protocol ?? 'TCP') === port.protocol,
  );
  return index < 0 ? 'spec.ports' : `spec.ports[${index}]`;
}

function hasSelector(service: Service, { sources }: ClusterObjects): boolean {
  const source = sources.get(service);
  // Of a live object only the compact form is known: most have one.
  if (source === undefined) return true;
  const { spec } = source.value as { spec?: { selector?: unknown } };
  const selector = spec?.selector;
  return typeof selector === 'object' && selector !== null && Object.keys(selector).length > 0;
}
