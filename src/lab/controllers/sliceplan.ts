/** What a Service's EndpointSlices should hold: pure, from the Service, its Pods and their nodes' zones. */
import { isIP } from 'node:net';
import { sameJson, type JsonObject, type KubeObject } from '../apiserver/objects.ts';
import type { ServiceObject, ServicePort } from '../apiserver/strategies/serviceTypes.ts';
import type { PodSpec } from '../apiserver/strategies/workloads.ts';
import { isPodFinished, isPodReady } from './controller.ts';

export const mostEndpointsPerSlice = 100;

/** Endpoints that share a family and their ports: they may stand in the same slices. */
export interface SliceGroup {
  readonly addressType: 'IPv4' | 'IPv6';
  readonly ports: readonly JsonObject[];
  readonly endpoints: JsonObject[];
}

function podIps(pod: KubeObject): string[] {
  const many = pod.status?.['podIPs'] as { ip: string }[] | undefined;
  if (many !== undefined && many.length > 0) return many.map((one) => one.ip);
  const one = pod.status?.['podIP'];
  return typeof one === 'string' && one !== '' ? [one] : [];
}

/** The number behind a target port, which may be the name of a container's port. */
function resolvePort(port: ServicePort, pod: KubeObject): number | undefined {
  const target = port.targetPort ?? port.port;
  if (typeof target === 'number') return target;
  for (const container of (pod.spec as PodSpec | undefined)?.containers ?? []) {
    for (const one of container.ports ?? []) {
      if (one.name === target && (one.protocol ?? 'TCP') === (port.protocol ?? 'TCP'))
        return one.containerPort;
    }
  }
  return undefined;
}

function portsFor(service: ServiceObject, pod: KubeObject): JsonObject[] {
  return (service.spec?.ports ?? []).flatMap((port) => {
    const number = resolvePort(port, pod);
    if (number === undefined) return [];
    return {
      name: port.name ?? '',
      protocol: port.protocol ?? 'TCP',
      port: number,
      ...(port.appProtocol === undefined ? {} : { appProtocol: port.appProtocol }),
    };
  });
}

function hintsFor(service: ServiceObject, nodeName: string, zone: string): JsonObject | undefined {
  const wanted = service.spec?.trafficDistribution;
  const forZones = zone === '' ? {} : { forZones: [{ name: zone }] };
  if (wanted === 'PreferSameNode') return { ...forZones, forNodes: [{ name: nodeName }] };
  if ((wanted === 'PreferClose' || wanted === 'PreferSameZone') && zone !== '') return forZones;
  return undefined;
}

function endpointFor(service: ServiceObject, pod: KubeObject, ip: string, zone: string): JsonObject {
  const { name, namespace = '', uid = '' } = pod.metadata;
  const serving = isPodReady(pod);
  const terminating = pod.metadata.deletionTimestamp !== undefined;
  const ready = service.spec?.publishNotReadyAddresses === true || (serving && !terminating);
  const nodeName = (pod.spec?.['nodeName'] ?? '') as string;
  const hints = ready ? hintsFor(service, nodeName, zone) : undefined;
  return {
    addresses: [ip],
    conditions: { ready, serving, terminating },
    ...(pod.spec?.['hostname'] === undefined ? {} : { hostname: pod.spec['hostname'] }),
    ...(hints === undefined ? {} : { hints }),
    nodeName,
    targetRef: { kind: 'Pod', namespace, name, uid },
    ...(zone === '' ? {} : { zone }),
  };
}

/** One group a family and set of ports; a family without endpoints gives one group with nothing in it. */
export function planSlices(
  service: ServiceObject,
  pods: readonly KubeObject[],
  zoneOf: (nodeName: string) => string,
): SliceGroup[] {
  const groups: SliceGroup[] = [];
  for (const family of service.spec?.ipFamilies ?? []) {
    if (family !== 'IPv4' && family !== 'IPv6') continue;
    const ofFamily: SliceGroup[] = [];
    for (const pod of pods) {
      const nodeName = pod.spec?.['nodeName'];
      if (isPodFinished(pod) || typeof nodeName !== 'string') continue;
      const ip = podIps(pod).find((one) => isIP(one) === (family === 'IPv4' ? 4 : 6));
      if (ip === undefined) continue;
      const ports = portsFor(service, pod);
      let group = ofFamily.find((one) => sameJson(one.ports, ports));
      if (group === undefined) ofFamily.push((group = { addressType: family, ports, endpoints: [] }));
      group.endpoints.push(endpointFor(service, pod, ip, zoneOf(nodeName)));
    }
    if (ofFamily.length === 0) ofFamily.push({ addressType: family, ports: [], endpoints: [] });
    groups.push(...ofFamily);
  }
  return groups;
}

export interface SliceContent {
  readonly addressType: string;
  readonly ports: readonly JsonObject[];
  readonly endpoints: readonly JsonObject[];
}

export interface SlicePlan {
  readonly create: SliceContent[];
  readonly update: { readonly slice: KubeObject; readonly content: SliceContent }[];
  readonly remove: KubeObject[];
}

function identity(endpoint: JsonObject): string {
  return (endpoint['addresses'] as string[])[0] ?? '';
}

/** How to get from the slices there are to the groups wanted, touching as few slices as possible. */
export function reconcileSlices(existing: readonly KubeObject[], groups: readonly SliceGroup[]): SlicePlan {
  const plan: SlicePlan = { create: [], update: [], remove: [] };
  const unused = new Set(existing);
  for (const group of groups) {
    const missing = new Map(group.endpoints.map((one) => [identity(one), one]));
    const kept: { slice: KubeObject; endpoints: JsonObject[] }[] = [];
    for (const slice of existing) {
      const samePorts = sameJson(slice['ports'] ?? [], group.ports);
      if (slice['addressType'] !== group.addressType || !samePorts || !unused.has(slice)) continue;
      unused.delete(slice);
      const endpoints: JsonObject[] = [];
      for (const endpoint of (slice['endpoints'] as JsonObject[] | undefined) ?? []) {
        const wanted = missing.get(identity(endpoint));
        if (wanted !== undefined) endpoints.push(wanted);
        missing.delete(identity(endpoint));
      }
      kept.push({ slice, endpoints });
    }
    const rest = [...missing.values()];
    for (const { endpoints } of kept)
      endpoints.push(...rest.splice(0, mostEndpointsPerSlice - endpoints.length));
    const { addressType, ports } = group;
    for (const [index, { slice, endpoints }] of kept.entries()) {
      const isSpare = endpoints.length === 0 && (index > 0 || group.endpoints.length > 0);
      if (isSpare) plan.remove.push(slice);
      else if (!sameJson(slice['endpoints'], endpoints)) {
        plan.update.push({ slice, content: { addressType, ports, endpoints } });
      }
    }
    while (rest.length > 0) {
      plan.create.push({ addressType, ports, endpoints: rest.splice(0, mostEndpointsPerSlice) });
    }
    if (kept.length === 0 && group.endpoints.length === 0)
      plan.create.push({ addressType, ports, endpoints: [] });
  }
  plan.remove.push(...unused);
  return plan;
}
