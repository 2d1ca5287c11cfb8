/** Services: defaults, carried-over values, and allocation, as kube-apiserver does it. */
import type { Family } from '../../../api/objects.ts';
import { parseIp } from '../addresses.ts';
import { nodePortRange } from '../allocators.ts';
import type { KubeObject } from '../objects.ts';
import type { FieldError } from '../status.ts';
import type { ServiceObject, ServiceSpec } from './serviceTypes.ts';
import { validateService } from './serviceValidation.ts';
import type { Strategy, StrategyContext } from './strategy.ts';

function asService(object: KubeObject): ServiceObject & { spec: ServiceSpec } {
  object.spec ??= {};
  return object as unknown as ServiceObject & { spec: ServiceSpec };
}

function isHeadless(spec: ServiceSpec): boolean {
  return spec.clusterIP === 'None' || spec.clusterIPs?.[0] === 'None';
}

function isExternallyAccessible(spec: ServiceSpec): boolean {
  return (
    spec.type === 'LoadBalancer' ||
    spec.type === 'NodePort' ||
    (spec.type === 'ClusterIP' && (spec.externalIPs?.length ?? 0) > 0)
  );
}

function needsHealthCheckPort(spec: ServiceSpec): boolean {
  return spec.type === 'LoadBalancer' && spec.externalTrafficPolicy === 'Local';
}

function wantsNodePorts(spec: ServiceSpec): boolean {
  return (
    spec.type === 'NodePort' || (spec.type === 'LoadBalancer' && spec.allocateLoadBalancerNodePorts !== false)
  );
}

function defaultService(object: KubeObject): void {
  const service = asService(object);
  const { spec } = service;
  spec.type ??= 'ClusterIP';
  spec.sessionAffinity ??= 'None';
  if (spec.sessionAffinity === 'None') delete spec.sessionAffinityConfig;
  if (spec.sessionAffinity === 'ClientIP') {
    const timeoutSeconds = spec.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? 10800;
    spec.sessionAffinityConfig = { clientIP: { timeoutSeconds } };
  }
  for (const port of spec.ports ?? []) {
    port.protocol ??= 'TCP';
    if (port.targetPort === undefined || port.targetPort === 0 || port.targetPort === '') {
      port.targetPort = port.port;
    }
  }
  if (isExternallyAccessible(spec)) spec.externalTrafficPolicy ??= 'Cluster';
  if (spec.type !== 'ExternalName') spec.internalTrafficPolicy ??= 'Cluster';
  if (spec.type === 'LoadBalancer') spec.allocateLoadBalancerNodePorts ??= true;
  for (const ingress of service.status?.loadBalancer?.ingress ?? []) {
    if (ingress.ip) ingress.ipMode ??= 'VIP';
  }
  // One of the two was given: they say the same.
  if (!spec.clusterIP && spec.clusterIPs?.[0] !== undefined) spec.clusterIP = spec.clusterIPs[0];
  if (spec.clusterIP && spec.clusterIPs === undefined) spec.clusterIPs = [spec.clusterIP];
  service.status ??= {};
  service.status.loadBalancer ??= {};
}

/** Values the server had allotted stay unless the update names others; those the new type has no use for go. */
function carryOver(object: KubeObject, oldObject: KubeObject): void {
  const { spec } = asService(object);
  const old = asService(oldObject).spec;
  if (spec.type !== 'ExternalName') {
    if (!spec.clusterIP && !spec.clusterIPs?.length && old.clusterIP) {
      spec.clusterIP = old.clusterIP;
      spec.clusterIPs = [...(old.clusterIPs ?? [old.clusterIP])];
    } else if (spec.clusterIP === old.clusterIP && spec.clusterIPs?.length === 1) {
      // A client that knows only the singular field means no change to the second family.
      if ((old.clusterIPs?.length ?? 0) > 1 && spec.ipFamilyPolicy !== 'SingleStack') {
        spec.clusterIPs = [...(old.clusterIPs ?? [])];
      }
    }
  } else if (old.type !== 'ExternalName') {
    if (spec.clusterIP === old.clusterIP) {
      delete spec.clusterIP;
      delete spec.clusterIPs;
      delete spec.ipFamilies;
      delete spec.ipFamilyPolicy;
      delete spec.internalTrafficPolicy;
    }
  }
  if (wantsNodePorts(spec)) {
    for (const port of spec.ports ?? []) {
      if (port.nodePort) continue;
      const before = old.ports?.find((one) => one.port === port.port && one.protocol === port.protocol);
      const inUse = spec.ports?.some(
        (one) => one.nodePort === before?.nodePort && one.protocol === port.protocol,
      );
      if (before?.nodePort && inUse !== true) port.nodePort = before.nodePort;
    }
  } else if (spec.type !== 'LoadBalancer' && old.type !== spec.type) {
    const had = new Set(old.ports?.map((port) => port.nodePort));
    for (const port of spec.ports ?? []) if (had.has(port.nodePort)) delete port.nodePort;
  }
  if (needsHealthCheckPort(spec)) {
    if (needsHealthCheckPort(old)) spec.healthCheckNodePort ||= old.healthCheckNodePort ?? 0;
  } else if (spec.healthCheckNodePort === old.healthCheckNodePort || spec.healthCheckNodePort === 0) {
    delete spec.healthCheckNodePort;
  }
  if (!isExternallyAccessible(spec) && spec.externalTrafficPolicy === old.externalTrafficPolicy) {
    delete spec.externalTrafficPolicy;
  }
  if (spec.type !== 'LoadBalancer' && old.type === 'LoadBalancer') {
    delete spec.allocateLoadBalancerNodePorts;
    if (spec.loadBalancerClass === old.loadBalancerClass) delete spec.loadBalancerClass;
    (object as unknown as ServiceObject).status = { loadBalancer: {} };
  }
}

/** Settles `ipFamilies` and `ipFamilyPolicy` (KEP-563). */
function settleFamilies(spec: ServiceSpec, cluster: readonly Family[]): FieldError[] {
  const headlessWithoutSelector = isHeadless(spec) && Object.keys(spec.selector ?? {}).length === 0;
  if (spec.ipFamilyPolicy === undefined) {
    const two = (spec.clusterIPs?.length ?? 0) > 1 || (spec.ipFamilies?.length ?? 0) > 1;
    spec.ipFamilyPolicy =
      two || (headlessWithoutSelector && cluster.length > 1) ? 'RequireDualStack' : 'SingleStack';
  }
  const fromIps = (spec.clusterIPs ?? [])
    .map((ip) => parseIp(ip)?.family)
    .filter((family) => family !== undefined);
  const families: string[] = [...new Set<string>([...(spec.ipFamilies ?? []), ...fromIps])];
  if (families.length === 0) families.push(cluster[0] ?? 'IPv4');
  if (spec.ipFamilyPolicy === 'SingleStack') {
    families.length = 1;
    if (spec.clusterIPs !== undefined && spec.clusterIPs.length > 1) spec.clusterIPs.length = 1;
  } else {
    for (const family of cluster) if (!families.includes(family)) families.push(family);
    if (spec.ipFamilyPolicy === 'RequireDualStack' && cluster.length < 2 && !headlessWithoutSelector) {
      const detail = 'this cluster is not configured for dual-stack services';
      return [{ type: 'Invalid', field: 'spec.ipFamilyPolicy', value: spec.ipFamilyPolicy, detail }];
    }
  }
  spec.ipFamilies = families;
  if (isHeadless(spec)) return [];
  const missing = families.findIndex((family) => !cluster.includes(family as Family));
  if (missing < 0) return [];
  const detail = 'not configured on this cluster';
  return [{ type: 'Invalid', field: `spec.ipFamilies[${missing}]`, value: families[missing], detail }];
}

function allocateIps(
  spec: ServiceSpec,
  old: ServiceSpec | undefined,
  context: StrategyContext,
): FieldError[] {
  const errors = settleFamilies(spec, context.allocators.families());
  if (errors.length > 0) return errors;
  if (isHeadless(spec)) {
    spec.clusterIP = 'None';
    spec.clusterIPs = ['None'];
    return [];
  }
  const ips = spec.clusterIPs ?? [];
  const had = new Set(old?.clusterIPs);
  for (const ip of ips) {
    if (had.has(ip)) continue;
    const why = context.allocators.ipTaken(ip)
      ? 'provided IP is already allocated'
      : context.allocators.inServiceRange(ip)
        ? undefined
        : `the provided IP (${ip}) is not in the valid range. The range of valid IPs is ${context.allocators
            .serviceRanges()
            .map((range) => range.cidr)
            .join(',')}`;
    if (why === undefined) continue;
    const detail = `failed to allocate IP ${ip}: ${why}`;
    return [{ type: 'Invalid', field: 'spec.clusterIPs', value: ips, detail }];
  }
  for (const family of (spec.ipFamilies ?? []).slice(ips.length)) {
    const ip = context.allocators.nextClusterIp(family as Family);
    if (ip === undefined) {
      const detail = `failed to allocate a serviceIP: range is full`;
      return [{ type: 'InternalError', field: 'spec.clusterIPs', value: ips, detail }];
    }
    ips.push(ip);
  }
  spec.clusterIPs = ips;
  spec.clusterIP = ips[0] ?? '';
  return [];
}

function allocatePorts(
  spec: ServiceSpec,
  old: ServiceSpec | undefined,
  { allocators }: StrategyContext,
): FieldError[] {
  const mine = new Set<number>(old?.ports?.map((port) => port.nodePort ?? 0));
  mine.add(old?.healthCheckNodePort ?? 0);
  const usable = (port: number, field: string): FieldError[] => {
    if (mine.has(port)) return [];
    if (port < nodePortRange.first || port > nodePortRange.last) {
      const range = `${nodePortRange.first}-${nodePortRange.last}`;
      const detail = `provided port is not in the valid range. The range of valid ports is ${range}`;
      return [{ type: 'Invalid', field, value: port, detail }];
    }
    if (!allocators.nodePortTaken(port)) return [];
    return [{ type: 'Invalid', field, value: port, detail: 'provided port is already allocated' }];
  };
  const errors: FieldError[] = [];
  const given = new Map<number, string>();
  for (const [index, port] of (spec.ports ?? []).entries()) {
    if (!port.nodePort) continue;
    errors.push(...usable(port.nodePort, `spec.ports[${index}].nodePort`));
    given.set(port.nodePort, port.protocol ?? 'TCP');
  }
  if (spec.healthCheckNodePort) errors.push(...usable(spec.healthCheckNodePort, 'spec.healthCheckNodePort'));
  if (errors.length > 0) return errors;
  const avoid = new Set<number>([...mine, ...given.keys(), spec.healthCheckNodePort ?? 0]);
  if (wantsNodePorts(spec)) {
    for (const port of spec.ports ?? []) {
      if (port.nodePort) continue;
      // One number for the same port in TCP and UDP, as kube-apiserver chooses.
      const twin = spec.ports?.find(
        (one) => one.port === port.port && one.protocol !== port.protocol && one.nodePort,
      );
      const next = twin?.nodePort ?? allocators.nextNodePort(avoid);
      if (next === undefined) {
        const detail = 'failed to allocate a nodePort: range is full';
        return [{ type: 'InternalError', field: 'spec.ports', detail }];
      }
      port.nodePort = next;
      avoid.add(next);
    }
  }
  if (needsHealthCheckPort(spec) && !spec.healthCheckNodePort) {
    const next = allocators.nextNodePort(avoid);
    if (next === undefined) {
      const detail = 'failed to allocate a healthCheckNodePort: range is full';
      return [{ type: 'InternalError', field: 'spec.healthCheckNodePort', detail }];
    }
    spec.healthCheckNodePort = next;
  }
  return [];
}

function allocateService(
  object: KubeObject,
  oldObject: KubeObject | undefined,
  context: StrategyContext,
): FieldError[] {
  const { spec } = asService(object);
  if (spec.type === 'ExternalName') return [];
  const old = oldObject === undefined ? undefined : (oldObject as unknown as ServiceObject).spec;
  const errors = allocateIps(spec, old, context);
  return errors.length > 0 ? errors : allocatePorts(spec, old, context);
}

export const serviceStrategy: Strategy = {
  nameFormat: 'dns1035',
  defaults: defaultService,
  prepareCreate: (object) => {
    (object as unknown as ServiceObject).status = { loadBalancer: {} };
  },
  prepareUpdate: carryOver,
  validate: (object, old) =>
    validateService(asService(object).spec, old === undefined ? undefined : asService(old).spec),
  allocate: allocateService,
};
