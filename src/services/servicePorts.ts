/** What a Service says about its ports, for one IP family: checked, canonical, one `ServicePort` a port. */
import type { Family, Protocol, Service } from '../api/objects.ts';
import { canonicalIP, familyOf, parseCIDR } from './ip.ts';
import { isLabel, isObjectName, isPort } from './names.ts';
import { quote } from './problems.ts';
import type { Frontend, Problem, ServicePort, ServicePortId } from './types.ts';

export interface ServicePortOptions {
  readonly family: Family;
  /** Feature gate AllowServiceExternalIPs; default true. */
  readonly allowExternalIPs?: boolean;
}

/** The API server's default for `sessionAffinityConfig.clientIP.timeoutSeconds`. */
const DEFAULT_AFFINITY_SECONDS = 10800;
const MAX_AFFINITY_SECONDS = 86400;
const NONE: readonly string[] = [];

/** `namespace/name:port/PROTOCOL` */
export function servicePortId(
  namespace: string,
  service: string,
  portName: string,
  protocol: Protocol,
): ServicePortId {
  return `${namespace}/${service}:${portName}/${protocol}`;
}

/**
 * Service ports of a Service in one family. Empty for headless, ExternalName and other-family Services, and for one
 * whose name or cluster IP cannot be used; bad entries of lists cost themselves. What was wrong goes to `problems`.
 */
export function servicePorts(
  service: Service,
  options: ServicePortOptions,
  problems: Problem[] = [],
): readonly ServicePort[] {
  if (service.clusterIP === '' || service.clusterIP === 'None' || service.type === 'ExternalName') return [];
  const { family } = options;
  const { namespace, name } = service.meta;
  const object = `Service ${namespace}/${name}`;
  const report = (field: string, reason: string, message: string): void => {
    problems.push({ object: isPlainKey(namespace, name) ? object : quote(object), field, reason, message });
  };
  if (!isLabel(namespace) || !isObjectName(name)) {
    report('metadata', 'invalid_name', 'the namespace or name is not a DNS name: the Service is skipped');
    return [];
  }
  const published = clusterIPOf(service, family);
  if (published === undefined) return [];
  const clusterIP = canonicalIP(published);
  if (clusterIP === undefined || familyOf(clusterIP) !== family) {
    report(
      'spec.clusterIPs',
      'invalid_address',
      `${quote(published)} is no ${family} address: the Service is skipped in this family`,
    );
    return [];
  }

  const external = addresses(service.externalIPs, family, (i, text) =>
    report(`spec.externalIPs[${i}]`, 'invalid_address', `${quote(text)} is no IP address: skipped`),
  );
  const virtual: string[] = [];
  for (const ingress of service.loadBalancerIngress) {
    if (ingress.ip !== '' && (ingress.ipMode === undefined || ingress.ipMode === 'VIP'))
      virtual.push(ingress.ip);
  }
  const loadBalancerIPs = addresses(virtual, family, (_i, text) =>
    report('status.loadBalancer.ingress', 'invalid_address', `${quote(text)} is no IP address: skipped`),
  );
  const sourceRanges = ranges(service.loadBalancerSourceRanges, family, (i, text) =>
    report(`spec.loadBalancerSourceRanges[${i}]`, 'invalid_cidr', `${quote(text)} is no CIDR: skipped`),
  );
  const externalPolicyLocal =
    service.externalTrafficPolicy === 'Local' &&
    (service.type === 'LoadBalancer' ||
      service.type === 'NodePort' ||
      // A Service without a type is a ClusterIP Service. All families' external IPs count here.
      ((service.type === 'ClusterIP' || service.type === '') && service.externalIPs.length > 0));
  let healthCheckNodePort = 0;
  if (service.type === 'LoadBalancer' && externalPolicyLocal) {
    if (isPort(service.healthCheckNodePort)) healthCheckNodePort = service.healthCheckNodePort;
    else {
      report(
        'spec.healthCheckNodePort',
        'invalid_port',
        `${quote(service.healthCheckNodePort)} is no port, though externalTrafficPolicy is Local: no health check server`,
      );
    }
  }
  const disabled = options.allowExternalIPs === false && external.length > 0;
  const common = {
    namespace,
    service: name,
    family,
    clusterIP,
    externalIPs: disabled ? NONE : external,
    ...(disabled ? { externalIPsDisabled: true } : {}),
    loadBalancerIPs,
    sourceRanges,
    affinitySeconds: affinitySeconds(service, report),
    internalPolicyLocal: service.internalTrafficPolicy === 'Local',
    externalPolicyLocal,
    healthCheckNodePort,
    // Must order: NaN would make claims depend on who came first.
    creationTimestamp: Number.isFinite(service.meta.creationTimestamp) ? service.meta.creationTimestamp : 0,
  };

  const result: ServicePort[] = [];
  const ids = new Set<ServicePortId>();
  for (const [i, spec] of service.ports.entries()) {
    const field = `spec.ports[${i}]`;
    if (spec.name !== '' && !isLabel(spec.name)) {
      report(`${field}.name`, 'invalid_name', `${quote(spec.name)} is no port name: the port is skipped`);
      continue;
    }
    if (!isProtocol(spec.protocol)) {
      report(
        `${field}.protocol`,
        'invalid_protocol',
        `${quote(spec.protocol)} is not TCP, UDP or SCTP: the port is skipped`,
      );
      continue;
    }
    if (!isPort(spec.port) || (spec.nodePort !== 0 && !isPort(spec.nodePort))) {
      report(
        field,
        'invalid_port',
        `port ${quote(spec.port)} or node port ${quote(spec.nodePort)} is not in 1..65535: the port is skipped`,
      );
      continue;
    }
    const id = servicePortId(namespace, name, spec.name, spec.protocol);
    if (ids.has(id)) {
      report(
        field,
        'duplicate_port',
        `a port of this name and protocol comes before it: the port is skipped`,
      );
      continue;
    }
    ids.add(id);
    result.push({
      id,
      portName: spec.name,
      protocol: spec.protocol,
      name: spec.name === '' ? `${namespace}/${name}` : `${namespace}/${name}:${spec.name}`,
      port: spec.port,
      nodePort: spec.nodePort,
      ...common,
    });
  }
  return result;
}

/** All frontends a service port asks for, in the order in which modes look at them. */
export function frontendsOf(port: ServicePort): Frontend[] {
  const { protocol } = port;
  const frontends: Frontend[] = [{ kind: 'clusterIP', ip: port.clusterIP, port: port.port, protocol }];
  for (const ip of port.externalIPs) frontends.push({ kind: 'externalIP', ip, port: port.port, protocol });
  for (const ip of port.loadBalancerIPs)
    frontends.push({ kind: 'loadBalancerIP', ip, port: port.port, protocol });
  if (port.nodePort !== 0) frontends.push({ kind: 'nodePort', ip: '', port: port.nodePort, protocol });
  return frontends;
}

/** The service port answers elsewhere than at its cluster IP (disabled external IPs count, as in kube-proxy). */
export function hasExternalFrontend(port: ServicePort): boolean {
  return (
    port.nodePort !== 0 ||
    port.loadBalancerIPs.length > 0 ||
    port.externalIPs.length > 0 ||
    port.externalIPsDisabled === true
  );
}

/** Same content. */
export function equalServicePorts(a: ServicePort, b: ServicePort): boolean {
  return (
    a === b ||
    (a.id === b.id &&
      a.family === b.family &&
      a.clusterIP === b.clusterIP &&
      a.port === b.port &&
      a.nodePort === b.nodePort &&
      a.externalIPsDisabled === b.externalIPsDisabled &&
      a.affinitySeconds === b.affinitySeconds &&
      a.internalPolicyLocal === b.internalPolicyLocal &&
      a.externalPolicyLocal === b.externalPolicyLocal &&
      a.healthCheckNodePort === b.healthCheckNodePort &&
      a.creationTimestamp === b.creationTimestamp &&
      equalTexts(a.externalIPs, b.externalIPs) &&
      equalTexts(a.loadBalancerIPs, b.loadBalancerIPs) &&
      equalTexts(a.sourceRanges, b.sourceRanges))
  );
}

/** Same texts in the same order. */
export function equalTexts(a: readonly string[], b: readonly string[]): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

export function isProtocol(protocol: string): protocol is Protocol {
  return protocol === 'TCP' || protocol === 'UDP' || protocol === 'SCTP';
}

/** The cluster IP published for a family, unread; undefined if there is none. */
function clusterIPOf(service: Service, family: Family): string | undefined {
  if (service.ipFamilies.length === 0) {
    const looksLike = service.clusterIP.includes(':') ? canonicalIP(service.clusterIP) : service.clusterIP;
    return familyOf(looksLike ?? '') === family ? service.clusterIP : undefined;
  }
  const index = service.ipFamilies.indexOf(family);
  return index < 0 ? undefined : service.clusterIPs[index];
}

function addresses(
  texts: readonly string[],
  family: Family,
  bad: (index: number, text: string) => void,
): readonly string[] {
  if (texts.length === 0) return NONE;
  const result = new Set<string>();
  for (const [i, text] of texts.entries()) {
    const ip = canonicalIP(text);
    if (ip === undefined) {
      if (text.trim() !== '') bad(i, text);
    } else if (familyOf(ip) === family) result.add(ip);
  }
  return [...result];
}

/** Empty = unrestricted: also where one of the ranges is everything. */
function ranges(
  texts: readonly string[],
  family: Family,
  bad: (index: number, text: string) => void,
): readonly string[] {
  if (texts.length === 0) return NONE;
  const result = new Set<string>();
  let everything = false;
  for (const [i, text] of texts.entries()) {
    const trimmed = text.trim();
    const cidr = parseCIDR(trimmed);
    if (cidr === undefined) {
      if (trimmed !== '') bad(i, text);
    } else if (cidr.family === family) {
      if (cidr.prefix === 0) everything = true;
      result.add(cidr.text);
    }
  }
  return everything ? NONE : [...result];
}

function affinitySeconds(
  service: Service,
  report: (field: string, reason: string, message: string) => void,
): number {
  if (service.sessionAffinity !== 'ClientIP') return 0;
  const seconds = service.sessionAffinityTimeoutSeconds;
  if (Number.isInteger(seconds) && seconds >= 1 && seconds <= MAX_AFFINITY_SECONDS) return seconds;
  report(
    'spec.sessionAffinityConfig.clientIP.timeoutSeconds',
    'invalid_timeout',
    `${quote(seconds)} is not in 1..${MAX_AFFINITY_SECONDS}: ${DEFAULT_AFFINITY_SECONDS} is used`,
  );
  return DEFAULT_AFFINITY_SECONDS;
}

function isPlainKey(namespace: string, name: string): boolean {
  return isLabel(namespace) && isObjectName(name);
}
