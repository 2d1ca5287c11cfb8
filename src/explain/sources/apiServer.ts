/**
 * What a proxy does not keep and an explanation wants: Services with their selectors and target ports, headless ones and
 * ExternalNames, Pods with labels and ports. Asked once, of the namespaces in question alone.
 */
import type { Service } from '../../api/objects.ts';
import { ApiClient, ApiError } from '../../cluster/apiClient.ts';
import { loadConnection } from '../../cluster/connection.ts';
import { decodeJsonObject } from '../../cluster/decode/json.ts';
import type { ManifestObject, ManifestProblem, OtherObject } from '../../cluster/manifests.ts';
import type { Logger } from '../../log/logger.ts';
import { clusterOf, type ClusterObjects } from '../../render/cluster.ts';
import type { ApiAccess } from '../../render/live.ts';
import { canonicalIP } from '../../services/ip.ts';
import { pointsmanVersion } from '../../version.ts';
import { list, map, text, type Json } from '../json.ts';
import {
  parseAddressPort,
  parseNodePort,
  parsePodName,
  parseServiceName,
  type Question,
} from '../subject.ts';

/** Milliseconds for all questions together. */
const patience = 10_000;
/** Objects a page. */
const pageSize = 500;

export interface Enriched {
  readonly cluster: ClusterObjects;
  /** What could not be had, in sentences. */
  readonly remarks: readonly string[];
}

/** Never rejects: what the API server does not tell becomes a remark. @param cluster what is known already */
export async function enrich(
  cluster: ClusterObjects,
  question: Question,
  { clientConnection, master }: ApiAccess,
  log: Logger,
): Promise<Enriched> {
  const remarks: string[] = [];
  try {
    const { kubeconfig, qps, burst } = clientConnection;
    const connection = await loadConnection({ kubeconfig, master, log });
    try {
      const client = new ApiClient({
        connection,
        contentType: 'application/json',
        qps,
        burst,
        userAgent: `pointsman/${pointsmanVersion}`,
        log,
      });
      const reader = new Reader(client, AbortSignal.timeout(patience));
      return { cluster: await reader.enrich(cluster, question, remarks), remarks };
    } finally {
      await connection.close();
    }
  } catch (error) {
    const said = (error as Error).message;
    remarks.push(
      `Selectors, headless Services, and labels and ports of Pods are not known, because the API server could not be asked: ${said}.`,
    );
    return { cluster, remarks };
  }
}

class Reader {
  readonly #client: ApiClient;
  readonly #signal: AbortSignal;
  readonly #problems: ManifestProblem[] = [];

  constructor(client: ApiClient, signal: AbortSignal) {
    this.#client = client;
    this.#signal = signal;
  }

  async enrich(cluster: ClusterObjects, question: Question, remarks: string[]): Promise<ClusterObjects> {
    const namespaces = new Set<string>();
    const services: Json[] = [];
    const target = parseAddressPort(question.to) ?? parseNodePort(question.to);
    const named = target === undefined ? parseServiceName(question.to) : undefined;
    if (named !== undefined) namespaces.add(named.namespace);
    const [, podTarget = ''] = /^pod\/(.*?)(?::\d+)?$/.exec(question.to) ?? [];
    if (podTarget !== '') namespaces.add(parsePodName(podTarget)?.namespace ?? 'default');
    if (target !== undefined) {
      const owner = ownerOf(cluster, target.address, target.port);
      if (owner !== undefined) namespaces.add(owner);
      // Nobody the proxy knows: Services of other proxies have addresses, too.
      else services.push(...(await this.#list('/api/v1/services')));
    }
    const nodes: Json[] = [];
    const known = cluster.nodes.flatMap(({ addresses }) =>
      addresses.map(({ address }) => canonicalIP(address)),
    );
    const address = target?.address ?? '';
    // Another node's, perhaps.
    const byName = [question.from, question.to].some((word) => word.startsWith('node/'));
    if (byName || (address !== '' && !known.includes(address) && !hasAddress(cluster, address)))
      nodes.push(...(await this.#list('/api/v1/nodes')));
    for (const namespace of namespaces)
      services.push(...(await this.#list(`/api/v1/namespaces/${encodeURIComponent(namespace)}/services`)));
    for (const service of services)
      if (has(service, target?.address)) namespaces.add(text(map(service['metadata'])['namespace']));

    const slices: Json[] = [];
    for (const namespace of namespaces) {
      const path = `/apis/discovery.k8s.io/v1/namespaces/${encodeURIComponent(namespace)}/endpointslices`;
      slices.push(...(await this.#list(path)));
    }

    const sender = canonicalIP(question.from);
    const pod = sender === undefined ? parsePodName(question.from) : undefined;
    if (pod !== undefined) namespaces.add(pod.namespace);
    const pods = new Map<string, OtherObject>();
    const add = (value: Json): void => {
      const { namespace, name } = map(value['metadata']);
      pods.set(`${text(namespace)}/${text(name)}`, { kind: 'Pod', value: slim(value), file: '', line: 0 });
    };
    try {
      for (const namespace of namespaces)
        for (const one of await this.#list(`/api/v1/namespaces/${encodeURIComponent(namespace)}/pods`))
          add(one);
      if (sender !== undefined)
        for (const one of await this.#list('/api/v1/pods', `status.podIP=${sender}`)) add(one);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 403) throw error;
      remarks.push(
        'The API server does not show Pods to these credentials: their labels and ports are not known. Give a --kubeconfig that may list Pods, or add -f - with the output of kubectl get pods,services,endpointslices,nodes -A -o yaml.',
      );
    }
    // A word that names no Pod and no Service may name a Node.
    const isService = (name: string): boolean =>
      cluster.services.some(({ meta }) => `${meta.namespace}/${meta.name}` === name) ||
      services.some(
        ({ metadata }) => name === `${text(map(metadata)['namespace'])}/${text(map(metadata)['name'])}`,
      );
    const isStrange =
      (pod !== undefined &&
        !question.from.includes('/') &&
        ![...pods.keys()].some((key) => key.startsWith(`default/${pod.name}`))) ||
      (named !== undefined && !question.to.includes('/') && !isService(`default/${named.service}`));
    if (isStrange && nodes.length === 0) nodes.push(...(await this.#list('/api/v1/nodes')));
    const objects = [
      ...services.flatMap((value) => this.#decoded('Service', value)),
      ...slices.flatMap((value) => this.#decoded('EndpointSlice', value)),
      ...nodes.flatMap((value) => this.#decoded('Node', value)),
    ];
    return this.#merged(cluster, namespaces, objects, [...pods.values()]);
  }

  #decoded(kind: 'Service' | 'EndpointSlice' | 'Node', value: Json): ManifestObject[] {
    const object = decodeJsonObject(kind, value, ({ object: name, field, message }) =>
      this.#problems.push({
        file: 'API server',
        line: 0,
        column: 0,
        object: `${kind} ${name}`,
        field,
        message,
      }),
    );
    const position = (): { line: number; column: number } => ({ line: 0, column: 0 });
    return object === undefined ? [] : [{ object, value, file: 'API server', line: 0, position }];
  }

  #merged(
    cluster: ClusterObjects,
    namespaces: ReadonlySet<string>,
    objects: readonly ManifestObject[],
    pods: readonly OtherObject[],
  ): ClusterObjects {
    const added = clusterOf({ objects, problems: [], ignored: new Map(), others: [] });
    const nameOf = ({ meta }: Service): string => `${meta.namespace}/${meta.name}`;
    const names = new Set(added.services.map(nameOf));
    return {
      ...cluster,
      services: [...cluster.services.filter((one) => !names.has(nameOf(one))), ...added.services],
      slices: [...cluster.slices.filter(({ meta }) => !namespaces.has(meta.namespace)), ...added.slices],
      nodes: added.nodes.length > 0 ? added.nodes : cluster.nodes,
      sources: new Map([...cluster.sources, ...added.sources]),
      passedOver: [...cluster.passedOver, ...added.passedOver],
      others: [...cluster.others, ...pods],
      problems: [...cluster.problems, ...this.#problems],
    };
  }

  async #list(path: string, fieldSelector?: string): Promise<Json[]> {
    const items: Json[] = [];
    let next: string | undefined;
    do {
      const page = map(
        await this.#client.get(
          path,
          { limit: String(pageSize), continue: next, fieldSelector },
          this.#signal,
        ),
      );
      items.push(...list(page['items']).map(map));
      next = text(map(page['metadata'])['continue']) || undefined;
    } while (next !== undefined);
    return items;
  }
}

function hasAddress(cluster: ClusterObjects, address: string): boolean {
  return cluster.services.some((service) => addressesOf(service).includes(address));
}

function addressesOf({ clusterIP, clusterIPs, externalIPs, loadBalancerIngress }: Service): string[] {
  return [clusterIP, ...clusterIPs, ...externalIPs, ...loadBalancerIngress.map(({ ip }) => ip)].flatMap(
    (ip) => canonicalIP(ip) ?? [],
  );
}

/** The namespace of the Service that answers there, as far as the proxy's objects say. */
function ownerOf(cluster: ClusterObjects, address: string, port: number): string | undefined {
  const byAddress = cluster.services.find((service) => addressesOf(service).includes(address));
  const owner =
    byAddress ?? cluster.services.find(({ ports }) => ports.some(({ nodePort }) => nodePort === port));
  return owner?.meta.namespace;
}

function has(service: Json, address: string | undefined): boolean {
  const spec = map(service['spec']);
  const ips = [
    spec['clusterIP'],
    ...(Array.isArray(spec['clusterIPs']) ? (spec['clusterIPs'] as unknown[]) : []),
  ];
  return address !== undefined && ips.some((ip) => canonicalIP(text(ip)) === address);
}

/** The fields that the catalog reads; a Pod as published is many kilobytes. */
function slim(pod: Json): Json {
  const metadata = map(pod['metadata']);
  const spec = map(pod['spec']);
  const status = map(pod['status']);
  return {
    metadata: { name: metadata['name'], namespace: metadata['namespace'], labels: metadata['labels'] },
    spec: {
      nodeName: spec['nodeName'],
      hostNetwork: spec['hostNetwork'],
      containers: list(spec['containers']).map((container) => ({ ports: map(container)['ports'] })),
    },
    status: {
      podIP: status['podIP'],
      podIPs: status['podIPs'],
      phase: status['phase'],
      conditions: status['conditions'],
    },
  };
}
