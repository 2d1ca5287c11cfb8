/** `render --check`: everything a node would ignore or refuse, and traffic that will not go where it was meant to. */
import type { EndpointSlice, Family, Service } from '../api/objects.ts';
import { canonicalIP, familyOf, parseCIDR } from '../services/ip.ts';
import { matchingAddresses } from '../services/nodePortAddresses.ts';
import { quote } from '../services/problems.ts';
import type { Problem, Route } from '../services/types.ts';
import { checkEndpoints } from './checkEndpoints.ts';
import { checkSelectors } from './checkSelectors.ts';
import { checkSlices } from './checkSlices.ts';
import { checkHealthCheckPorts, checkSpec, checkType } from './checkSpec.ts';
import type { ClusterObjects } from './cluster.ts';
import { Findings, nameOf, type Finding } from './findings.ts';
import type { Wanted } from './wanted.ts';
import { listOf, mapOf, written } from './written.ts';

/** `--service-node-port-range` of the API server, unless it was changed. */
const nodePortRange = [30000, 32767] as const;

export function check(cluster: ClusterObjects, wanted: Wanted): Finding[] {
  const findings = new Findings(cluster);
  for (const problem of cluster.problems) findings.problem(problem);
  for (const { source, field, reason } of cluster.passedOver) {
    const { namespace, name } = source.object.meta;
    const object = `${source.object.kind} ${namespace === '' ? 'default' : namespace}/${name}`;
    findings.at('note', source, object, field, 'passed_over', `ignored: ${reason}`);
    if (source.object.kind === 'Service')
      checkType(mapOf(source.value['spec']), (severity, ...found) =>
        findings.at(severity, source, object, ...found),
      );
  }
  for (const source of cluster.replaced ?? []) {
    const { kind, meta } = source.object;
    const object = `${kind} ${meta.namespace === '' ? '' : `${meta.namespace}/`}${meta.name}`;
    const message = 'another one of this name comes later: only the last counts';
    findings.at('warning', source, object, 'metadata.name', 'replaced', message);
  }
  for (const problem of wanted.problems) modelProblem(problem, cluster, findings);
  checkNode(cluster, wanted, findings);
  const routes = routesByService(wanted);
  for (const service of cluster.services) {
    const own = routes.get(`${service.meta.namespace}/${service.meta.name}`) ?? [];
    checkService(service, wanted, findings);
    checkSpec(service, cluster, wanted, findings);
    checkFamilies(service, own, findings);
    checkEndpoints(service, own, cluster, wanted, findings);
  }
  checkSelectors(cluster, findings);
  checkSlices(cluster, wanted, findings);
  checkHealthCheckPorts(cluster, findings);
  return findings.sorted();
}

function routesByService({ families }: Wanted): Map<string, Route[]> {
  const routes = new Map<string, Route[]>();
  for (const { table } of families) {
    for (const route of table.routes.values()) {
      const key = `${route.port.namespace}/${route.port.service}`;
      const list = routes.get(key);
      if (list === undefined) routes.set(key, [route]);
      else list.push(route);
    }
  }
  return routes;
}

/** What the service model reports, in the place it reports it for. */
function modelProblem(
  { object, field, reason, message }: Problem,
  cluster: ClusterObjects,
  findings: Findings,
): void {
  const found = [...cluster.services, ...cluster.slices].find((one) => {
    const name = nameOf(one);
    return name === object || quote(name) === object;
  });
  // Two ports of one Service: told as an error of its own.
  if (reason === 'duplicate_frontend' && found?.kind === 'Service') {
    const { namespace, name } = found.meta;
    if (field === 'spec.clusterIPs' && message.includes(` service port ${namespace}/${name}:`)) return;
  }
  findings.at(
    'warning',
    found === undefined ? undefined : cluster.sources.get(found),
    object,
    placeOf(found, field, message),
    reason,
    message,
  );
}

/** Fields that the service model names without their place in a list. */
function placeOf(found: Service | EndpointSlice | undefined, field: string, message: string): string {
  const service = /^metadata\.labels\[([^"\]]+)\]$/.exec(field)?.[1];
  if (service !== undefined) return `metadata.labels["${service}"]`;
  if (!field.includes('[]') || found?.kind !== 'Service') return field;
  const nodePort = Number(/^\*:(\d+)\//.exec(message)?.[1]);
  const index = found.ports.findLastIndex((port) => port.nodePort === nodePort);
  return field.replace('[]', index < 0 ? '' : `[${index}]`);
}

function checkNode(cluster: ClusterObjects, { node, config, families }: Wanted, findings: Findings): void {
  const warn = (reason: string, message: string): void => {
    findings.at('warning', undefined, node.name === '' ? '' : `Node ${node.name}`, '', reason, message);
  };
  if (!node.known && cluster.nodes.length > 0 && node.name !== '') {
    const names = cluster.nodes.slice(0, 5).map(({ meta }) => meta.name);
    warn('unknown_node', `there is no Node of this name among the objects (${names.join(', ')})`);
  }
  if (node.name === '')
    warn('no_node', 'no node is named: every endpoint counts as on another node; use --node');
  const object = cluster.nodes.find(({ meta }) => meta.name === node.name);
  const raw = object === undefined ? {} : (written(object, cluster) ?? {});
  listOf(mapOf(raw['status'])['addresses']).forEach((entry, i) => {
    const { type, address } = mapOf(entry);
    if ((type !== 'InternalIP' && type !== 'ExternalIP') || canonicalIP(String(address)) !== undefined)
      return;
    const message = `${JSON.stringify(address)} is no IP address: skipped`;
    findings.about('warning', object!, `status.addresses[${i}].address`, 'invalid_address', message);
  });
  node.podCIDRs.forEach((text, i) => {
    if (object === undefined || parseCIDR(text) !== undefined) return;
    const message = `${JSON.stringify(text)} is no CIDR: skipped`;
    findings.about('warning', object, `spec.podCIDRs[${i}]`, 'invalid_cidr', message);
  });
  for (const { family, options, table } of families) {
    const local = node.localAddresses.filter((ip) => familyOf(ip) === family);
    const published = [...table.routes.values()].some(({ port }) => port.nodePort !== 0);
    if (published && matchingAddresses(options.nodePortAddresses, local).length === 0)
      warn(
        'no_node_port_address',
        `${family}: node ports answer nowhere: no known address of the node is in --nodeport-addresses (${options.nodePortAddresses.join(', ')})`,
      );
    if (options.localDetector === undefined)
      warn(
        'no_local_detector',
        `${family}: Pods cannot be told from other clients (detect-local-mode ${config.detectLocalMode} has nothing to go by): rules that need it are left out; set --cluster-cidr`,
      );
  }
}

function checkService(service: Service, { families }: Wanted, findings: Findings): void {
  const tell = findings.about.bind(findings);
  if (service.type === 'ExternalName') {
    tell('note', service, 'spec.type', 'external_name', 'no rules are made: DNS answers with the other name');
    return;
  }
  if (service.clusterIP === '') {
    const message =
      'has no address yet (the API server gives it one): no rules are made for this Service; give it one here to see them';
    tell('warning', service, 'spec.clusterIP', 'no_cluster_ip', message);
    return;
  }
  if (service.ports.length === 0)
    tell('warning', service, 'spec.ports', 'no_ports', 'there is no usable port: no rules are made');
  const wantedFamilies = families.map(({ family }) => family);
  const own = familiesOf(service);
  if (own.length > 0 && own.every((family) => !wantedFamilies.includes(family)))
    tell(
      'warning',
      service,
      'spec.ipFamilies',
      'other_family',
      `the Service is ${own.join(' and ')} only, and this node serves ${wantedFamilies.join(' and ')}`,
    );
  service.ports.forEach(({ nodePort, name }, i) => {
    if (nodePort !== 0 && (nodePort < nodePortRange[0] || nodePort > nodePortRange[1])) {
      const message = `${nodePort} is outside ${nodePortRange[0]}-${nodePortRange[1]}: the API server refuses it unless its --service-node-port-range says otherwise`;
      tell('warning', service, `spec.ports[${i}].nodePort`, 'node_port_range', message);
    }
    if (name === '' && service.ports.length > 1)
      tell(
        'error',
        service,
        `spec.ports[${i}].name`,
        'no_port_name',
        'a Service of several ports names them all',
      );
  });
  if (service.type === 'LoadBalancer') {
    if (service.loadBalancerIngress.length === 0)
      tell(
        'note',
        service,
        'status.loadBalancer',
        'no_load_balancer',
        'no address yet: nothing is made for the load balancer',
      );
  } else if (service.loadBalancerSourceRanges.length > 0) {
    const message = `guards load balancer addresses only, and a ${service.type} Service has none`;
    tell('warning', service, 'spec.loadBalancerSourceRanges', 'unused_source_ranges', message);
  }
  service.loadBalancerIngress.forEach(({ ipMode, ip }, i) => {
    if (ip !== '' && ipMode === 'Proxy') {
      const message = `${ip} is left to the load balancer (ipMode Proxy): nodes make no rules for it`;
      tell('note', service, `status.loadBalancer.ingress[${i}].ipMode`, 'ip_mode_proxy', message);
    }
  });
  if (
    service.externalTrafficPolicy === 'Local' &&
    service.type === 'ClusterIP' &&
    service.externalIPs.length === 0
  )
    tell(
      'warning',
      service,
      'spec.externalTrafficPolicy',
      'unused_policy',
      'has no effect: the Service has no address for traffic from outside',
    );
}

function familiesOf(service: Service): Family[] {
  const families = new Set<Family>();
  for (const text of [service.clusterIP, ...service.clusterIPs]) {
    const ip = canonicalIP(text);
    if (ip !== undefined) families.add(familyOf(ip));
  }
  return [...families];
}

/** Addresses and source ranges of a family that the Service does not have. */
function checkFamilies(service: Service, routes: readonly Route[], findings: Findings): void {
  if (service.clusterIP === '' || service.type === 'ExternalName') return;
  const own = familiesOf(service);
  if (own.length === 0) return;
  const strange = (text: string, field: string, what: string): void => {
    const ip = canonicalIP(text);
    if (ip === undefined || own.includes(familyOf(ip))) return;
    const message = `${text} is an ${familyOf(ip)} address, and the Service has only ${own.join(' and ')}: the ${what} is ignored`;
    findings.about('warning', service, field, 'wrong_family', message);
  };
  service.externalIPs.forEach((ip, i) => strange(ip, `spec.externalIPs[${i}]`, 'external IP'));
  service.loadBalancerIngress.forEach(({ ip }, i) => {
    strange(ip, `status.loadBalancer.ingress[${i}].ip`, 'load balancer IP');
  });
  const ranges = service.loadBalancerSourceRanges.flatMap((text) => parseCIDR(text.trim()) ?? []);
  if (ranges.length === 0) return;
  for (const family of new Set(routes.map(({ port }) => port.family))) {
    const guarded = routes.some(({ port }) => port.family === family && port.loadBalancerIPs.length > 0);
    if (!guarded || ranges.some((range) => range.family === family)) continue;
    const message = `no range is ${family}: the ${family} load balancer address is open to everybody`;
    findings.about('warning', service, 'spec.loadBalancerSourceRanges', 'unrestricted_family', message);
  }
}
