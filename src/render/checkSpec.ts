/** Fields of a Service that contradict each other, so that the API server refuses them, or that mean nothing to a node. */
import type { Service } from '../api/objects.ts';
import { canonicalIP, cidrContains, familyOf, parseCIDR } from '../services/ip.ts';
import { isPort } from '../services/names.ts';
import type { ClusterObjects } from './cluster.ts';
import type { Findings, Severity } from './findings.ts';
import { specialAddress } from './specialAddresses.ts';
import type { Wanted } from './wanted.ts';
import { listOf, mapOf, written, type Json } from './written.ts';

type Tell = (severity: Severity, field: string, reason: string, message: string) => void;

/** An IANA service name (RFC 6335), which a named port has to be. */
const portName = /^(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(?:-[a-z0-9]+)*$/;

export function checkSpec(
  service: Service,
  cluster: ClusterObjects,
  wanted: Wanted,
  findings: Findings,
): void {
  const source = written(service, cluster);
  if (source === undefined) return;
  const spec = mapOf(source['spec']);
  const tell: Tell = (...finding) => {
    const [severity, field, reason, message] = finding;
    findings.about(severity, service, field, reason, message);
  };
  checkType(spec, tell);
  checkPorts(spec, wanted, tell);
  if (spec['type'] === 'ExternalName') return;
  checkClusterIPs(spec, tell);
  checkPlaces(service, spec, cluster, wanted, tell);
  checkLoadBalancer(service, spec, source, tell);
}

/** Also for Services that nodes pass over: the API server does not. */
export function checkType(spec: Json, tell: Tell): void {
  const { type = 'ClusterIP' } = spec;
  const isBalanced = type === 'LoadBalancer';
  const refuse = (field: string, message: string): void => {
    tell('error', `spec.${field}`, 'contradiction', message);
  };
  const has = (field: string): boolean => spec[field] !== undefined && spec[field] !== null;
  if (type === 'ExternalName') {
    const name = spec['externalName'];
    if (typeof name !== 'string' || name === '')
      refuse('externalName', 'a Service of type ExternalName has to say the name');
    if (typeof spec['clusterIP'] === 'string' && spec['clusterIP'] !== '')
      refuse('clusterIP', 'a Service of type ExternalName has no address');
  }
  if (spec['clusterIP'] === 'None' && (isBalanced || type === 'NodePort'))
    refuse('clusterIP', `a Service of type ${type} cannot be headless (None)`);
  if (has('sessionAffinityConfig') && spec['sessionAffinity'] !== 'ClientIP')
    refuse('sessionAffinityConfig', 'only with sessionAffinity ClientIP');
  for (const field of ['loadBalancerClass', 'allocateLoadBalancerNodePorts'])
    if (has(field) && !isBalanced) refuse(field, 'only for Services of type LoadBalancer');
  const hasHealthCheck = isPort(Number(spec['healthCheckNodePort'] ?? 0));
  if (hasHealthCheck && !(isBalanced && spec['externalTrafficPolicy'] === 'Local'))
    refuse('healthCheckNodePort', 'only with type LoadBalancer and externalTrafficPolicy Local');
}

function checkPorts(spec: Json, { config }: Wanted, tell: Tell): void {
  const { type = 'ClusterIP' } = spec;
  const seen = new Set<string>();
  listOf(spec['ports']).forEach((entry, i) => {
    const port = mapOf(entry);
    const field = `spec.ports[${i}]`;
    const { protocol = 'TCP', targetPort, nodePort } = port;
    if (isPort(Number(nodePort)) && type !== 'NodePort' && type !== 'LoadBalancer')
      tell(
        'error',
        `${field}.nodePort`,
        'contradiction',
        `a Service of type ${String(type)} has no node ports`,
      );
    const needsNodePort =
      type === 'NodePort' || (type === 'LoadBalancer' && spec['allocateLoadBalancerNodePorts'] !== false);
    if (needsNodePort && !isPort(Number(nodePort ?? 0))) {
      const message = 'has no node port yet (the API server gives it one): nodes answer at none';
      tell('note', `${field}.nodePort`, 'no_node_port', message);
    }
    if (isBadTarget(targetPort)) {
      const message = `${JSON.stringify(targetPort)} is neither a port (1-65535) nor the name of one (at most 15 of a-z, 0-9 and -, with a letter)${/^"\d+"$/.test(JSON.stringify(targetPort)) ? ': write the number without quotes' : ''}`;
      tell('error', `${field}.targetPort`, 'invalid_target_port', message);
    }
    const key = `${String(port['port'])}/${String(protocol)}`;
    if (seen.has(key)) {
      const message = `port ${key} comes before in this Service: the API server refuses it twice`;
      tell('error', field, 'port_twice', message);
    }
    seen.add(key);
    if (protocol === 'SCTP' && config.mode === 'userspace') {
      const message = 'SCTP cannot be proxied in userspace mode: connections are refused';
      tell('warning', `${field}.protocol`, 'sctp_userspace', message);
    }
  });
}

/** 0 and the empty name stand for the Service's own port. */
function isBadTarget(targetPort: unknown): boolean {
  if (typeof targetPort === 'number') return targetPort !== 0 && !isPort(targetPort);
  return typeof targetPort === 'string' && targetPort !== '' && !portName.test(targetPort);
}

function checkClusterIPs(spec: Json, tell: Tell): void {
  const { clusterIP } = spec;
  const all = listOf(spec['clusterIPs']).map(String);
  const refuse = (field: string, message: string): void => tell('error', field, 'contradiction', message);
  if (all.length > 2) refuse('spec.clusterIPs', 'a Service has at most two, one of each family');
  if (typeof clusterIP === 'string' && clusterIP !== '' && all.length > 0 && all[0] !== clusterIP)
    refuse('spec.clusterIPs[0]', `has to be the same as clusterIP, ${clusterIP}`);
  const families = all.map((text) => {
    const ip = canonicalIP(text);
    return ip === undefined ? '' : familyOf(ip);
  });
  if (families.length === 2 && families[0] === families[1] && families[0] !== '')
    refuse('spec.clusterIPs[1]', `is the second ${families[0]} address: there is one of each family at most`);
  listOf(spec['ipFamilies']).forEach((family, i) => {
    const text = all[i] ?? (i === 0 && typeof clusterIP === 'string' ? clusterIP : '');
    const ip = canonicalIP(text);
    if (ip !== undefined && familyOf(ip) !== family)
      refuse(
        `spec.ipFamilies[${i}]`,
        `is ${String(family)}, and the cluster IP in this place, ${text}, is not`,
      );
  });
}

/** Addresses that are somebody else's, or nobody's. */
function checkPlaces(
  service: Service,
  spec: Json,
  { serviceCIDRs }: ClusterObjects,
  { config, families }: Wanted,
  tell: Tell,
): void {
  const podNetworks = config.clusterCIDRs.flatMap((text) => parseCIDR(text.trim()) ?? []);
  const given = new Set([service.clusterIP, ...service.clusterIPs]);
  const several = listOf(spec['clusterIPs']).length > 0;
  // Others only add to the range that an API server starts with.
  const allKnown = serviceCIDRs.some(({ meta }) => meta.name === 'kubernetes');
  for (const text of given) {
    const ip = canonicalIP(text);
    if (ip === undefined) continue;
    const field = several
      ? `spec.clusterIPs[${Math.max(0, service.clusterIPs.indexOf(text))}]`
      : 'spec.clusterIP';
    const special = specialAddress(ip);
    if (special !== undefined)
      tell('warning', field, 'special_address', `${ip} is ${special.what}: clients cannot reach it`);
    const pods = podNetworks.find((cidr) => cidrContains(cidr, ip));
    if (pods !== undefined) {
      const message = `${ip} is in ${pods.text}, where the Pods are: addresses of Services have to lie elsewhere`;
      tell('warning', field, 'cluster_ip_in_pod_network', message);
    }
    const own = families.find(({ family }) => family === familyOf(ip))?.serviceCIDRs ?? [];
    const isOutside = own.every((cidr) => !cidrContains(parseCIDR(cidr)!, ip));
    if (allKnown && own.length > 0 && isOutside) {
      const message = `${ip} is in no ServiceCIDR (${own.join(', ')}): the API server refuses it`;
      tell('error', field, 'cluster_ip_out_of_range', message);
    }
  }
  service.externalIPs.forEach((ip, i) => {
    const special = specialAddress(ip);
    if (special === undefined) return;
    const message = `${ip} is ${special.what}${special.isRefused ? ', which the API server refuses' : ': clients cannot reach it'}`;
    tell(special.isRefused ? 'error' : 'warning', `spec.externalIPs[${i}]`, 'special_address', message);
  });
  const disabled = families.some(({ table }) =>
    [...table.routes.values()].some(
      ({ port }) =>
        port.externalIPsDisabled === true &&
        port.namespace === service.meta.namespace &&
        port.service === service.meta.name,
    ),
  );
  if (disabled) {
    const message = 'ignored: feature gate AllowServiceExternalIPs is off';
    tell('warning', 'spec.externalIPs', 'external_ips_disabled', message);
  }
}

function checkLoadBalancer(service: Service, spec: Json, source: Json, tell: Tell): void {
  if (service.type !== 'LoadBalancer') return;
  const ingress = listOf(mapOf(mapOf(source['status'])['loadBalancer'])['ingress']).map(mapOf);
  const asked = spec['loadBalancerIP'];
  if (typeof asked === 'string' && asked !== '' && !ingress.some(({ ip }) => ip === asked)) {
    const message = `is a wish to the load balancer: nodes go by status.loadBalancer, which does not have ${asked}`;
    tell('note', 'spec.loadBalancerIP', 'wished_address', message);
  }
  ingress.forEach(({ ip, hostname }, i) => {
    if (typeof hostname !== 'string' || hostname === '' || (typeof ip === 'string' && ip !== '')) return;
    const ranges = service.loadBalancerSourceRanges.length > 0;
    const rest = ranges ? ', and loadBalancerSourceRanges are for the load balancer to keep' : '';
    const message = `a name without an address: nodes make no rules for it${rest}`;
    tell('note', `status.loadBalancer.ingress[${i}].hostname`, 'host_name_only', message);
  });
  const ranges = service.loadBalancerSourceRanges.filter((text) => text.trim() !== '');
  if (ranges.length > 0 && ranges.every((text) => parseCIDR(text.trim()) === undefined)) {
    const message = 'none of them is a CIDR: the load balancer addresses are open to everybody';
    tell('warning', 'spec.loadBalancerSourceRanges', 'unrestricted', message);
  }
}

/** Node ports and health-check ports that two Services of the manifests have, of which a node can serve one. */
export function checkHealthCheckPorts(cluster: ClusterObjects, findings: Findings): void {
  const taken = new Map<number, string>();
  for (const { meta, ports } of cluster.services)
    for (const { nodePort, protocol } of ports)
      if (nodePort !== 0 && protocol === 'TCP')
        taken.set(nodePort, `a node port of Service ${meta.namespace}/${meta.name}`);
  for (const service of cluster.services) {
    const { meta, healthCheckNodePort: port } = service;
    if (port === 0) continue;
    const other = taken.get(port);
    if (other === undefined)
      taken.set(port, `the health-check port of Service ${meta.namespace}/${meta.name}`);
    else {
      const message = `${port} is ${other}, too: a node can open it for one of them only`;
      findings.about('warning', service, 'spec.healthCheckNodePort', 'port_taken', message);
    }
  }
}
