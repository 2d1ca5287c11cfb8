/**
 * What a kubelet and a container runtime do for the Pods of the lab's nodes: gives each Pod that is bound to a node a
 * namespace, an address and a server, reports its status, and ends it gracefully: for a while after its deletion it
 * still serves, so that connections that were sent to it before the proxies heard of it are answered.
 */
import type { LabNetwork } from '../net/network.ts';
import { podNamespace } from '../net/network.ts';
import { podAddress6 } from '../net/layout.ts';
import { startEchoServer, type EchoServer, type PodPort } from '../pod/echoServer.ts';
import { ApiError, resourcePath, type ApiClient } from '../scenario/apiClient.ts';
import { asText, isObject, type Json, type JsonObject } from '../scenario/generate.ts';

export interface KubeletOptions {
  /** Seconds that a Pod goes on serving after its deletion, if its own grace period is not shorter. Default 3. */
  readonly lingerSeconds?: number;
  /** Something went wrong with one Pod; the others go on. */
  readonly onError: (message: string, error: unknown) => void;
  /** Called for each HTTP request a Pod answers. */
  readonly onRequest?: (pod: string) => void;
}

interface RunningPod {
  readonly place: { readonly name: string; readonly node: string; readonly ip: string };
  readonly server: EchoServer;
  ending: NodeJS.Timeout | undefined;
}

function objectAt(object: Json | undefined, key: string): JsonObject {
  const value = isObject(object) ? object[key] : undefined;
  return isObject(value) ? value : {};
}

function items(value: Json | undefined): JsonObject[] {
  return Array.isArray(value) ? (value as Json[]).filter(isObject) : [];
}

/** A Pod's name within the lab: that of its namespace on the kernel, after `pod-`. */
export function labPodName(namespace: string, name: string): string {
  return namespace === 'default' ? name : `${namespace}.${name}`;
}

/** What the Pod's server listens on: its containers' ports; HTTP over TCP, an echo over UDP. */
export function podPorts(spec: JsonObject): PodPort[] {
  const ports = items(spec['containers']).flatMap((container) => items(container['ports']));
  const parsed = ports.map((port): PodPort => ({
    kind: port['protocol'] === 'UDP' ? 'udp' : 'http',
    port: Number(port['containerPort']),
  }));
  return parsed.length > 0 ? parsed : [{ kind: 'http', port: 8080 }];
}

export function runningStatus(pod: JsonObject, ip: string, hostIP: string, now: string): JsonObject {
  const condition = (type: string): JsonObject => ({ type, status: 'True', lastTransitionTime: now });
  return {
    phase: 'Running',
    hostIP,
    hostIPs: [{ ip: hostIP }],
    podIP: ip,
    podIPs: [{ ip }, { ip: podAddress6(ip) }],
    startTime: now,
    conditions: ['PodScheduled', 'Initialized', 'ContainersReady', 'Ready'].map(condition),
    containerStatuses: items(objectAt(pod, 'spec')['containers']).map((container) => ({
      name: container['name'] ?? 'server',
      image: container['image'] ?? '',
      imageID: '',
      ready: true,
      started: true,
      restartCount: 0,
      state: { running: { startedAt: now } },
    })),
  };
}

/** What has to change in a Pod's status so that its containers are as ready as the Pod is; undefined if they are. */
export function readinessFollowed(status: JsonObject): JsonObject | undefined {
  const conditions = items(status['conditions']);
  const ready = conditions.find((one) => one['type'] === 'Ready')?.['status'];
  const containers = items(status['containerStatuses']);
  if (ready === undefined || containers.every((one) => one['ready'] === (ready === 'True'))) return undefined;
  return {
    conditions: conditions.map((one) =>
      one['type'] === 'ContainersReady' ? { ...one, status: ready } : one,
    ),
    containerStatuses: containers.map((one) => ({ ...one, ready: ready === 'True' })),
  };
}

export class Kubelet {
  private readonly network: LabNetwork;
  private readonly client: ApiClient;
  private readonly options: KubeletOptions;
  private readonly pods = new Map<string, RunningPod>();
  private readonly stopped = new AbortController();

  constructor(network: LabNetwork, client: ApiClient, options: KubeletOptions) {
    this.network = network;
    this.client = client;
    this.options = options;
  }

  /** Follows the Pods of all nodes until `stop`. */
  start(): void {
    const follow = async (): Promise<void> => {
      while (!this.stopped.signal.aborted) {
        try {
          await this.client.watch('/api/v1/pods', this.stopped.signal, (type, pod) => this.heard(type, pod));
        } catch (error) {
          if (this.stopped.signal.aborted) return;
          this.options.onError('watching Pods', error);
          await new Promise((resolve) => setTimeout(resolve, 500));
        }
      }
    };
    void follow();
  }

  stop(): void {
    this.stopped.abort();
    for (const pod of this.pods.values()) {
      clearTimeout(pod.ending);
      pod.server.close();
    }
    this.pods.clear();
  }

  private heard(type: string, pod: JsonObject): void {
    const metadata = objectAt(pod, 'metadata');
    const name = asText(metadata['name']);
    const namespace = asText(metadata['namespace'] ?? 'default');
    const key = labPodName(namespace, name);
    try {
      if (type === 'DELETED') this.remove(key);
      else if (type === 'ADDED' || type === 'MODIFIED') this.update(key, namespace, name, pod);
    } catch (error) {
      this.options.onError(`Pod ${namespace}/${name}`, error);
    }
  }

  private update(key: string, namespace: string, name: string, pod: JsonObject): void {
    const spec = objectAt(pod, 'spec');
    const metadata = objectAt(pod, 'metadata');
    const running = this.pods.get(key);
    if (metadata['deletionTimestamp'] !== undefined) {
      const grace = Number(metadata['deletionGracePeriodSeconds'] ?? 30);
      const linger = running === undefined ? 0 : Math.min(grace, this.options.lingerSeconds ?? 3);
      if (running === undefined) this.finish(key, namespace, name);
      else running.ending ??= setTimeout(() => this.finish(key, namespace, name), linger * 1000);
      return;
    }
    if (running !== undefined) this.followReadiness(namespace, name, pod);
    if (running !== undefined || typeof spec['nodeName'] !== 'string') return;
    if (!this.network.nodes.some((node) => node.name === spec['nodeName'])) return;
    this.run(key, spec['nodeName'], pod);
    this.report(namespace, name, key, pod);
  }

  private run(key: string, node: string, pod: JsonObject): void {
    const place = { name: key, node, ip: this.freeAddress(node) };
    this.network.attachPod(place);
    const { onRequest } = this.options;
    const server = startEchoServer(this.network.namespaces, {
      name: key,
      namespace: podNamespace(key),
      ports: podPorts(objectAt(pod, 'spec')),
      ...(onRequest === undefined ? {} : { onRequest: () => onRequest(key) }),
    });
    this.pods.set(key, { place, server, ending: undefined });
  }

  private freeAddress(node: string): string {
    const { number } = this.network.node(node);
    const taken = new Set([...this.pods.values()].map((pod) => pod.place.ip));
    for (let last = 10; last < 255; last++) {
      const ip = `10.244.${number}.${last}`;
      if (!taken.has(ip)) return ip;
    }
    throw new Error(`${node} has no free Pod address left`);
  }

  private report(namespace: string, name: string, key: string, pod: JsonObject): void {
    const running = this.pods.get(key);
    if (running === undefined) return;
    const hostIP = this.network.node(running.place.node).addresses[0];
    const now = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
    const status = runningStatus(pod, running.place.ip, hostIP, now);
    this.client.patch('Pod', name, { status }, namespace).catch((error: unknown) => {
      if (error instanceof ApiError && error.status === 404) return; // Deleted meanwhile: nobody to report on.
      this.options.onError(`status of Pod ${namespace}/${name}`, error);
    });
  }

  /** Somebody patched the condition Ready, to play a failing probe: the containers say the same. */
  private followReadiness(namespace: string, name: string, pod: JsonObject): void {
    const status = readinessFollowed(objectAt(pod, 'status'));
    if (status === undefined) return;
    this.client.patch('Pod', name, { status }, namespace).catch((error: unknown) => {
      if (error instanceof ApiError && error.status === 404) return; // Deleted meanwhile.
      this.options.onError(`readiness of Pod ${namespace}/${name}`, error);
    });
  }

  /** Ends the Pod and tells the API server that it is gone. */
  private finish(key: string, namespace: string, name: string): void {
    this.remove(key);
    const path = resourcePath('Pod', namespace, name);
    const options = { kind: 'DeleteOptions', apiVersion: 'v1', gracePeriodSeconds: 0 };
    this.client.request('DELETE', path, options).catch((error: unknown) => {
      if (error instanceof ApiError && error.status === 404) return; // Somebody forced its deletion.
      this.options.onError(`deletion of Pod ${namespace}/${name}`, error);
    });
  }

  private remove(key: string): void {
    const running = this.pods.get(key);
    if (running === undefined) return;
    this.pods.delete(key);
    clearTimeout(running.ending);
    running.server.close();
    this.network.detachPod(key);
  }
}
