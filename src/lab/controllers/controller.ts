/** What the lab's controllers have in common. */
import type { JsonObject, KubeObject } from '../apiserver/objects.ts';
import type { Registry } from '../apiserver/registry.ts';
import { resourceById } from '../apiserver/resources.ts';
import { ApiError } from '../apiserver/status.ts';
import type { StoreEvent } from '../apiserver/store.ts';
import { WorkQueue } from './queue.ts';

export interface Controller {
  stop(): void;
}

export type Report = (controller: string, key: string, error: unknown) => void;

export interface ControllerBase {
  readonly registry: Registry;
  readonly report: Report;
}

export const pods = resourceById('pods');
export const services = resourceById('services');
export const nodes = resourceById('nodes');
export const namespaces = resourceById('namespaces');
export const endpoints = resourceById('endpoints');
export const endpointSlices = resourceById('endpointslices.discovery.k8s.io');
export const deployments = resourceById('deployments.apps');
export const replicaSets = resourceById('replicasets.apps');

/** Watches resources, derives keys from their events, and works on those keys. Existing objects count as added. */
export function makeController(
  { registry, report }: ControllerBase,
  name: string,
  keysOf: Readonly<Record<string, (event: StoreEvent) => Iterable<string>>>,
  work: (key: string) => void,
): Controller {
  const queue = new WorkQueue(work, (key, error) => {
    if (!isAboutSomethingGone(error)) report(name, key, error);
  });
  const stops = Object.entries(keysOf).map(([resource, keys]) => {
    const enqueue = (event: StoreEvent): void => {
      for (const key of keys(event)) queue.add(key);
    };
    for (const object of registry.storage.list(resource)) {
      enqueue({ revision: 0, type: 'ADDED', key: keyOf(object), object, previous: undefined });
    }
    return registry.storage.subscribe(resource, enqueue);
  });
  return {
    stop: () => {
      for (const stop of stops) stop();
      queue.stop();
    },
  };
}

/** The object or its namespace went away while it was worked on: there is nothing left to do. */
function isAboutSomethingGone(error: unknown): boolean {
  return error instanceof ApiError && (error.code === 404 || error.message.endsWith('is being terminated'));
}

export function keyOf({ metadata }: KubeObject): string {
  return metadata.namespace === undefined ? metadata.name : `${metadata.namespace}/${metadata.name}`;
}

/** Namespace and name of a key. */
export function splitKey(key: string): [string, string] {
  const at = key.indexOf('/');
  return at < 0 ? ['', key] : [key.slice(0, at), key.slice(at + 1)];
}

/** The uid of the controlling owner. */
export function controllerOf(object: KubeObject): string | undefined {
  return object.metadata.ownerReferences?.find((one) => one.controller === true)?.uid;
}

export function isPodReady(pod: KubeObject): boolean {
  const conditions = (pod.status?.['conditions'] as JsonObject[] | undefined) ?? [];
  return conditions.some((one) => one['type'] === 'Ready' && one['status'] === 'True');
}

export function isPodFinished(pod: KubeObject): boolean {
  const phase = pod.status?.['phase'];
  return phase === 'Succeeded' || phase === 'Failed';
}

/** Deletes what may already be gone. */
export function deleteIfThere(
  registry: Registry,
  resource: Parameters<Registry['delete']>[0],
  object: KubeObject,
): void {
  try {
    registry.delete(resource, object.metadata.namespace ?? '', object.metadata.name);
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== 404) throw error;
  }
}
