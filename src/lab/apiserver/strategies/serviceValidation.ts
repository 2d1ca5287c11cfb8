/** What a Service must satisfy, in Kubernetes' words. */
import { parseCidr, parseIp } from '../addresses.ts';
import type { FieldError } from '../status.ts';
import type { ServicePort, ServiceSpec } from './serviceTypes.ts';

const portDetail = 'must be between 1 and 65535, inclusive';
const ipDetail = 'must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)';

export function isPort(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 1 && (value as number) <= 65535;
}

/** IANA service names: how ports are referred to by name. */
export function isPortName(name: string): boolean {
  return name.length <= 15 && /^[a-z0-9]+(-[a-z0-9]+)*$/.test(name) && /[a-z]/.test(name);
}

export function oneOf(field: string, value: unknown, supported: readonly string[]): FieldError[] {
  if (typeof value === 'string' && supported.includes(value)) return [];
  const detail = `supported values: ${supported.map((one) => JSON.stringify(one)).join(', ')}`;
  return [{ type: 'NotSupported', field, value, detail }];
}

function validatePorts(ports: readonly ServicePort[], type: string): FieldError[] {
  const errors: FieldError[] = [];
  const names = new Set<string>();
  const pairs = new Set<string>();
  const nodePorts = new Set<string>();
  for (const [index, port] of ports.entries()) {
    const field = `spec.ports[${index}]`;
    if (!port.name) {
      if (ports.length > 1) errors.push({ type: 'Required', field: `${field}.name`, detail: '' });
    } else if (!/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(port.name)) {
      const detail =
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
      errors.push({ type: 'Invalid', field: `${field}.name`, value: port.name, detail });
    } else if (names.has(port.name)) {
      errors.push({ type: 'Duplicate', field: `${field}.name`, value: port.name, detail: '' });
    }
    names.add(port.name ?? '');
    if (!isPort(port.port)) {
      errors.push({ type: 'Invalid', field: `${field}.port`, value: port.port ?? 0, detail: portDetail });
    }
    errors.push(...oneOf(`${field}.protocol`, port.protocol, ['SCTP', 'TCP', 'UDP']));
    if (typeof port.targetPort === 'number' && !isPort(port.targetPort)) {
      errors.push({
        type: 'Invalid',
        field: `${field}.targetPort`,
        value: port.targetPort,
        detail: portDetail,
      });
    } else if (typeof port.targetPort === 'string' && !isPortName(port.targetPort)) {
      const detail = 'must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)';
      errors.push({ type: 'Invalid', field: `${field}.targetPort`, value: port.targetPort, detail });
    }
    const pair = `${port.port}/${port.protocol}`;
    if (pairs.has(pair)) errors.push({ type: 'Duplicate', field, value: port, detail: '' });
    pairs.add(pair);
    if (port.nodePort) {
      if (type !== 'NodePort' && type !== 'LoadBalancer') {
        const detail = `may not be used when \`type\` is '${type}'`;
        errors.push({ type: 'Forbidden', field: `${field}.nodePort`, detail });
      }
      const nodePair = `${port.nodePort}/${port.protocol}`;
      if (nodePorts.has(nodePair)) {
        errors.push({ type: 'Duplicate', field: `${field}.nodePort`, value: port.nodePort, detail: '' });
      }
      nodePorts.add(nodePair);
    }
  }
  return errors;
}

function validateAddresses(spec: ServiceSpec): FieldError[] {
  const errors: FieldError[] = [];
  const clusterIPs = spec.clusterIPs ?? [];
  if (spec.type === 'ExternalName') {
    if (clusterIPs.length > 0) {
      const detail = 'may not be set for ExternalName services';
      errors.push({ type: 'Forbidden', field: 'spec.clusterIPs', detail });
    }
  } else {
    if (spec.clusterIP && spec.clusterIP !== clusterIPs[0]) {
      const detail = 'first value must match `clusterIP`';
      errors.push({ type: 'Invalid', field: 'spec.clusterIPs', value: clusterIPs, detail });
    }
    if (clusterIPs.length > 2) {
      const detail = 'may only hold up to 2 values';
      errors.push({ type: 'Invalid', field: 'spec.clusterIPs', value: clusterIPs, detail });
    }
    for (const [index, ip] of clusterIPs.entries()) {
      if (ip === 'None') {
        if (index > 0) {
          const detail = "'None' must be the first and only value";
          errors.push({ type: 'Invalid', field: `spec.clusterIPs[${index}]`, value: ip, detail });
        } else if (spec.type !== 'ClusterIP') {
          const detail = `may not be set to 'None' for ${spec.type} services`;
          errors.push({ type: 'Invalid', field: 'spec.clusterIPs[0]', value: 'None', detail });
        }
      } else if (parseIp(ip) === undefined) {
        errors.push({ type: 'Invalid', field: `spec.clusterIPs[${index}]`, value: ip, detail: ipDetail });
      }
    }
    const families = clusterIPs.map((ip) => parseIp(ip)?.family);
    if (families.length === 2 && families[0] === families[1] && families[0] !== undefined) {
      const detail = 'may specify no more than one IP for each IP family, i.e. 192.168.1.1 and 2001:db8::1';
      errors.push({ type: 'Invalid', field: 'spec.clusterIPs', value: clusterIPs, detail });
    }
    for (const [index, family] of (spec.ipFamilies ?? []).entries()) {
      errors.push(...oneOf(`spec.ipFamilies[${index}]`, family, ['IPv4', 'IPv6']));
      const actual = families[index];
      if (actual !== undefined && actual !== family) {
        const detail = `expected an ${family} value as indicated by \`ipFamilies[${index}]\``;
        errors.push({
          type: 'Invalid',
          field: `spec.clusterIPs[${index}]`,
          value: clusterIPs[index],
          detail,
        });
      }
    }
  }
  for (const [index, ip] of (spec.externalIPs ?? []).entries()) {
    if (parseIp(ip) === undefined) {
      errors.push({ type: 'Invalid', field: `spec.externalIPs[${index}]`, value: ip, detail: ipDetail });
    }
  }
  if (spec.loadBalancerSourceRanges !== undefined && spec.loadBalancerSourceRanges.length > 0) {
    if (spec.type !== 'LoadBalancer') {
      const detail = "may only be used when `type` is 'LoadBalancer'";
      errors.push({ type: 'Forbidden', field: 'spec.LoadBalancerSourceRanges', detail });
    }
    for (const [index, cidr] of spec.loadBalancerSourceRanges.entries()) {
      if (parseCidr(cidr) !== undefined) continue;
      const detail = 'must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)';
      errors.push({ type: 'Invalid', field: `spec.loadBalancerSourceRanges[${index}]`, value: cidr, detail });
    }
  }
  return errors;
}

function validatePolicies(spec: ServiceSpec): FieldError[] {
  const errors = oneOf('spec.sessionAffinity', spec.sessionAffinity, ['ClientIP', 'None']);
  const timeout = spec.sessionAffinityConfig?.clientIP?.timeoutSeconds;
  if (timeout !== undefined && (timeout < 1 || timeout > 86400)) {
    const detail = 'must be greater than 0 and less than 86400';
    const field = 'spec.sessionAffinityConfig.clientIP.timeoutSeconds';
    errors.push({ type: 'Invalid', field, value: timeout, detail });
  }
  const external =
    spec.type === 'NodePort' || spec.type === 'LoadBalancer' || (spec.externalIPs?.length ?? 0) > 0;
  if (spec.externalTrafficPolicy !== undefined) {
    if (external)
      errors.push(...oneOf('spec.externalTrafficPolicy', spec.externalTrafficPolicy, ['Cluster', 'Local']));
    else {
      const field = 'spec.externalTrafficPolicy';
      const detail = 'may only be set for externally-accessible services';
      errors.push({ type: 'Invalid', field, value: spec.externalTrafficPolicy, detail });
    }
  }
  if (spec.internalTrafficPolicy !== undefined) {
    errors.push(...oneOf('spec.internalTrafficPolicy', spec.internalTrafficPolicy, ['Cluster', 'Local']));
  }
  if (spec.ipFamilyPolicy !== undefined) {
    const policies = ['SingleStack', 'PreferDualStack', 'RequireDualStack'];
    errors.push(...oneOf('spec.ipFamilyPolicy', spec.ipFamilyPolicy, policies));
  }
  if (spec.healthCheckNodePort && !(spec.type === 'LoadBalancer' && spec.externalTrafficPolicy === 'Local')) {
    const detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
    errors.push({
      type: 'Invalid',
      field: 'spec.healthCheckNodePort',
      value: spec.healthCheckNodePort,
      detail,
    });
  }
  if (spec.trafficDistribution !== undefined) {
    const values = ['PreferClose', 'PreferSameZone', 'PreferSameNode'];
    errors.push(...oneOf('spec.trafficDistribution', spec.trafficDistribution, values));
  }
  return errors;
}

export function validateService(spec: ServiceSpec, old: ServiceSpec | undefined): FieldError[] {
  const types = ['ClusterIP', 'ExternalName', 'LoadBalancer', 'NodePort'];
  const errors = oneOf('spec.type', spec.type, types);
  const ports = spec.ports ?? [];
  if (ports.length === 0 && spec.type !== 'ExternalName' && spec.clusterIP !== 'None') {
    errors.push({ type: 'Required', field: 'spec.ports', detail: '' });
  }
  if (spec.type === 'ExternalName' && !spec.externalName) {
    errors.push({ type: 'Required', field: 'spec.externalName', detail: '' });
  }
  errors.push(...validatePorts(ports, spec.type ?? 'ClusterIP'));
  errors.push(...validateAddresses(spec), ...validatePolicies(spec));
  const before = old?.clusterIPs?.[0];
  if (
    before &&
    old?.type !== 'ExternalName' &&
    spec.type !== 'ExternalName' &&
    spec.clusterIPs?.[0] !== before
  ) {
    const detail = 'may not change once set';
    errors.push({ type: 'Invalid', field: 'spec.clusterIPs[0]', value: spec.clusterIPs ?? [], detail });
  }
  return errors;
}
