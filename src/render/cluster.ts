/** The objects of a cluster as a node's proxy would see them, from whatever they were read from. */
import type { EndpointSlice, Node, Service, ServiceCIDR } from '../api/objects.ts';
import type { ManifestObject, ManifestProblem, Manifests, OtherObject } from '../cluster/manifests.ts';

export interface ClusterObjects {
  readonly services: readonly Service[];
  readonly slices: readonly EndpointSlice[];
  readonly nodes: readonly Node[];
  readonly serviceCIDRs: readonly ServiceCIDR[];
  /** Where an object was written down; absent for objects of a live cluster. */
  readonly sources: ReadonlyMap<Service | EndpointSlice | Node | ServiceCIDR, ManifestObject>;
  /** Pods and what makes them, where the manifests have them. */
  readonly others: readonly OtherObject[];
  /** Objects of kind Endpoints, which nobody reads but the control plane. */
  readonly legacyEndpoints?: readonly OtherObject[];
  /** Objects that a later one of the same name replaces. */
  readonly replaced?: readonly ManifestObject[];
  /** Services and slices that no node's proxy looks at, by their labels or because they are headless. */
  readonly passedOver: readonly PassedOver[];
  readonly problems: readonly ManifestProblem[];
}

export interface PassedOver {
  readonly source: ManifestObject;
  readonly field: string;
  readonly reason: string;
}

const proxyNameLabel = 'service.kubernetes.io/service-proxy-name';
const headlessLabel = 'service.kubernetes.io/headless';

/** What the watches of a proxy would bring of these manifests; a later object of the same name replaces an earlier one. */
export function clusterOf(manifests: Manifests): ClusterObjects {
  const services = new Map<string, Service>();
  const slices = new Map<string, EndpointSlice>();
  const nodes = new Map<string, Node>();
  const serviceCIDRs = new Map<string, ServiceCIDR>();
  const sources = new Map<Service | EndpointSlice | Node | ServiceCIDR, ManifestObject>();
  const passedOver: PassedOver[] = [];
  const replaced: ManifestObject[] = [];
  const latest = new Map<string, ManifestObject>();
  for (const source of manifests.objects) {
    const { object } = source;
    const identity = `${object.kind} ${source.object.meta.namespace || 'default'}/${object.meta.name}`;
    const earlier = latest.get(identity);
    if (earlier !== undefined) replaced.push(earlier);
    latest.set(identity, source);
    if (object.kind === 'Service') {
      const field = labelField(source, proxyNameLabel);
      const service = withClusterIPs(inNamespace(object));
      const key = `${service.meta.namespace}/${service.meta.name}`;
      services.delete(key);
      if (field !== undefined) {
        passedOver.push({ source, field, reason: `label ${proxyNameLabel} gives it to another proxy` });
      } else if (service.clusterIP === 'None') {
        passedOver.push({
          source,
          field: 'spec.clusterIP',
          reason: 'it is headless: DNS answers with the Pods',
        });
      } else {
        services.set(key, service);
        sources.set(service, source);
      }
    } else if (object.kind === 'EndpointSlice') {
      const field = labelField(source, headlessLabel);
      const slice = withPortNames(inNamespace(object));
      const key = `${slice.meta.namespace}/${slice.meta.name}`;
      slices.delete(key);
      if (field !== undefined) {
        passedOver.push({ source, field, reason: `label ${headlessLabel} says it is of a headless Service` });
      } else {
        slices.set(key, slice);
        sources.set(slice, source);
      }
    } else if (object.kind === 'Node') {
      nodes.set(object.meta.name, object);
      sources.set(object, source);
    } else {
      serviceCIDRs.set(object.meta.name, object);
      sources.set(object, source);
    }
  }
  return {
    services: sorted(services),
    slices: sorted(slices),
    nodes: sorted(nodes),
    serviceCIDRs: sorted(serviceCIDRs),
    sources,
    others: manifests.others.filter(({ kind }) => kind !== 'Endpoints'),
    legacyEndpoints: manifests.others.filter(({ kind }) => kind === 'Endpoints'),
    replaced,
    passedOver: passedOver.filter(({ source }) => !replaced.includes(source)),
    problems: manifests.problems,
  };
}

/** An object without a namespace goes where kubectl would put it. */
function inNamespace<T extends Service | EndpointSlice>(object: T): T {
  if (object.meta.namespace !== '') return object;
  return { ...object, meta: { ...object.meta, namespace: 'default' } };
}

/** An API server writes the one cluster IP into the list as well. */
function withClusterIPs(service: Service): Service {
  const { clusterIP, clusterIPs, ipFamilies } = service;
  if (clusterIP === '' || clusterIPs.length > 0 || ipFamilies.length === 0) return service;
  return { ...service, clusterIPs: [clusterIP] };
}

/** An API server gives ports without a name the empty one; proxies skip those that have none at all. */
function withPortNames(slice: EndpointSlice): EndpointSlice {
  if (slice.ports.every(({ name }) => name !== null)) return slice;
  return { ...slice, ports: slice.ports.map((port) => ({ ...port, name: port.name ?? '' })) };
}

/** By name, so that the order of files decides nothing. */
function sorted<T>(objects: ReadonlyMap<string, T>): T[] {
  return [...objects].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, object]) => object);
}

function labelField({ value }: ManifestObject, label: string): string | undefined {
  const { metadata } = value as { metadata?: { labels?: Readonly<Record<string, unknown>> | null } | null };
  const labels = metadata?.labels;
  return labels !== undefined && labels !== null && Object.hasOwn(labels, label)
    ? `metadata.labels["${label}"]`
    : undefined;
}
