/** What the objects say beyond what a proxy reads: selectors, target ports, Pods. For explanations only. */
import type { EndpointSlice, Node, Protocol, Service } from '../api/objects.ts';
import type { ClusterObjects } from '../render/cluster.ts';
import { canonicalIP } from '../services/ip.ts';
import { list, map, text, textMap, type Json } from './json.ts';

export interface ContainerPort {
  readonly name: string;
  readonly port: number;
  readonly protocol: Protocol;
}

/** A Pod, or the Pods that a Deployment or the like makes (then without address). */
export interface PodInfo {
  /** `Pod default/web-1`, `Deployment default/web` */
  readonly name: string;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Canonical; empty if it has none (yet). */
  readonly ips: readonly string[];
  readonly node: string;
  /** Undefined: it does not say. */
  readonly ready: boolean | undefined;
  /** `Running`, `Pending`, …; empty if it does not say. */
  readonly phase: string;
  readonly ports: readonly ContainerPort[];
}

export interface PortInfo {
  readonly name: string;
  readonly port: number;
  readonly protocol: Protocol;
  readonly nodePort: number;
  /** As published: a number, or the name of a container port; undefined = the same as `port`, or not known. */
  readonly targetPort: string | number | undefined;
}

export interface ServiceInfo {
  /** `namespace/name` */
  readonly name: string;
  readonly namespace: string;
  readonly service: Service;
  readonly ports: readonly PortInfo[];
  /** Undefined: none, or not known. */
  readonly selector: Readonly<Record<string, string>> | undefined;
  /** Why no proxy looks at it. */
  readonly passedOver: { readonly field: string; readonly reason: string } | undefined;
  readonly slices: readonly EndpointSlice[];
  /** spec.publishNotReadyAddresses */
  readonly publishesUnready: boolean;
  /** spec.loadBalancerIP, spec.loadBalancerClass; empty if it has none, or it is not known. */
  readonly wantedBalancer: { readonly ip: string; readonly className: string };
  /** status.loadBalancer.ingress[].hostname */
  readonly balancerNames: readonly string[];
  /** spec.externalName; empty if it has none, or it is not known. */
  readonly externalName: string;
  /** The object is known as published, not only what a proxy keeps of it. */
  readonly published: boolean;
}

export class Catalog {
  readonly services: readonly ServiceInfo[];
  readonly pods: readonly PodInfo[];
  readonly nodes: readonly Node[];
  /** `namespace/name` of Services that slices say they are of, and that are not there. */
  readonly strayOwners: readonly string[];
  /** EndpointSlices that no Service has: without the label, or of a Service that is not there. */
  readonly straySlices: readonly EndpointSlice[];
  /** EndpointSlices that no proxy looks at, by a label of theirs; with the Service they say they are of. */
  readonly slicesPassedOver: readonly {
    readonly owner: string;
    readonly name: string;
    readonly field: string;
  }[];

  constructor(cluster: ClusterObjects) {
    const slices = new Map<string, EndpointSlice[]>();
    for (const slice of cluster.slices) {
      const owner = `${slice.meta.namespace}/${slice.serviceName}`;
      slices.set(owner, [...(slices.get(owner) ?? []), slice]);
    }
    const services = cluster.services.map((service) =>
      describe(service, cluster.sources.get(service)?.value, slices),
    );
    for (const { source, field, reason } of cluster.passedOver) {
      if (source.object.kind !== 'Service') continue;
      services.push(describe(source.object, source.value, slices, { field, reason }));
    }
    this.services = services;
    const owned = new Set(services.map(({ name }) => name));
    this.strayOwners = [...slices.keys()].filter((owner) => !owned.has(owner));
    this.straySlices = this.strayOwners.flatMap((owner) => slices.get(owner) ?? []);
    this.slicesPassedOver = cluster.passedOver.flatMap(({ source: { object }, field }) => {
      if (object.kind !== 'EndpointSlice') return [];
      const namespace = object.meta.namespace || 'default';
      return [
        { owner: `${namespace}/${object.serviceName}`, name: `${namespace}/${object.meta.name}`, field },
      ];
    });
    this.pods = cluster.others.map(({ kind, value }) => podOf(kind, value));
    this.nodes = cluster.nodes;
  }

  service(name: string): ServiceInfo | undefined {
    return this.services.find((one) => one.name === name);
  }

  podAt(ip: string): PodInfo | undefined {
    return this.pods.find(({ ips }) => ips.includes(ip));
  }

  /** By its name, or the beginning of it if only one Pod has it. */
  podNamed(namespace: string, name: string): PodInfo | undefined {
    const near = this.podsLike(namespace, name);
    return (
      near.find((pod) => pod.name === `Pod ${namespace}/${name}`) ?? (near.length === 1 ? near[0] : undefined)
    );
  }

  /** Those with an address whose names begin so. */
  podsLike(namespace: string, name: string): PodInfo[] {
    return this.pods.filter((pod) => pod.name.startsWith(`Pod ${namespace}/${name}`) && pod.ips.length > 0);
  }

  /** The Node that has the address, as its Node object says. */
  nodeAt(ip: string): Node | undefined {
    return this.nodes.find(({ addresses }) => addresses.some(({ address }) => canonicalIP(address) === ip));
  }

  /** `node/NAME` or `NAME`, as people write it. */
  nodeNamed(word: string): Node | undefined {
    return this.nodes.find(({ meta }) => meta.name === word.replace(/^node\//, ''));
  }

  selected({ namespace, selector }: ServiceInfo): PodInfo[] {
    if (selector === undefined) return [];
    const wanted = Object.entries(selector);
    return this.pods.filter(
      (pod) => pod.namespace === namespace && wanted.every(([key, value]) => pod.labels[key] === value),
    );
  }
}

function describe(
  service: Service,
  value: Json | undefined,
  slices: ReadonlyMap<string, readonly EndpointSlice[]>,
  passedOver?: { readonly field: string; readonly reason: string },
): ServiceInfo {
  const namespace = service.meta.namespace === '' ? 'default' : service.meta.namespace;
  const name = `${namespace}/${service.meta.name}`;
  const spec = map(value?.['spec']);
  const published = list(spec['ports']);
  const selector = textMap(spec['selector']);
  return {
    name,
    namespace,
    service,
    ports: service.ports.map((port, i) => {
      const target = map(published[i])['targetPort'];
      return {
        ...port,
        targetPort: typeof target === 'string' || typeof target === 'number' ? target : undefined,
      };
    }),
    selector: Object.keys(selector).length === 0 ? undefined : selector,
    passedOver,
    slices: slices.get(name) ?? [],
    publishesUnready: spec['publishNotReadyAddresses'] === true,
    externalName: text(spec['externalName']),
    wantedBalancer: {
      ip: canonicalIP(text(spec['loadBalancerIP'])) ?? '',
      className: text(spec['loadBalancerClass']),
    },
    balancerNames: list(map(map(value?.['status'])['loadBalancer'])['ingress']).flatMap(
      (entry) => text(map(entry)['hostname']) || [],
    ),
    published: value !== undefined,
  };
}

function podOf(kind: string, value: Json): PodInfo {
  const metadata = map(value['metadata']);
  const pod = kind === 'Pod' ? value : map(map(value['spec'])['template']);
  const spec = map(pod['spec']);
  const status = map(value['status']);
  const namespace = text(metadata['namespace']) || 'default';
  const addresses = [...list(status['podIPs']).map((entry) => map(entry)['ip']), status['podIP']];
  const sidecars = list(spec['initContainers']).filter((one) => map(one)['restartPolicy'] === 'Always');
  const condition = list(status['conditions'])
    .map(map)
    .find(({ type }) => type === 'Ready');
  return {
    name: `${kind} ${namespace}/${text(metadata['name'])}`,
    namespace,
    labels: textMap(map(pod['metadata'])['labels']),
    ips: kind === 'Pod' ? [...new Set(addresses.flatMap((ip) => canonicalIP(text(ip)) ?? []))] : [],
    node: text(spec['nodeName']),
    phase: text(status['phase']),
    ready: condition === undefined ? undefined : condition['status'] === 'True',
    ports: [...list(spec['containers']), ...sidecars]
      .flatMap((container) => list(map(container)['ports']))
      .map(map)
      .map((port) => ({
        name: text(port['name']),
        port: Number(port['containerPort'] ?? 0),
        protocol: (text(port['protocol']) || 'TCP') as Protocol,
      })),
  };
}
