/** ReplicaSet → Pods. */
import {
  clone,
  sameJson,
  type JsonObject,
  type KubeObject,
  type Metadata,
  type OwnerReference,
} from '../apiserver/objects.ts';
import { labelSelectorMatcher, type LabelMatcher, type LabelSelectorObject } from '../apiserver/selectors.ts';
import type { StoreEvent } from '../apiserver/store.ts';
import {
  controllerOf,
  deleteIfThere,
  isPodFinished,
  isPodReady,
  keyOf,
  makeController,
  pods,
  replicaSets,
  splitKey,
  type Controller,
  type ControllerBase,
} from './controller.ts';

/** Which Pod goes first when there are too many: unscheduled, then unready, then the youngest. */
function byUsefulness(a: KubeObject, b: KubeObject): number {
  const rank = (pod: KubeObject): number => (isPodReady(pod) ? 2 : pod.spec?.['nodeName'] ? 1 : 0);
  return rank(a) - rank(b) || Number(b.metadata.resourceVersion) - Number(a.metadata.resourceVersion);
}

function selectorOf(set: KubeObject): LabelMatcher {
  return labelSelectorMatcher((set.spec?.['selector'] ?? {}) as LabelSelectorObject);
}

function reference({ metadata: { name, uid = '' } }: KubeObject): OwnerReference {
  return { apiVersion: 'apps/v1', kind: 'ReplicaSet', name, uid, controller: true, blockOwnerDeletion: true };
}

export function startReplicaSetController(base: ControllerBase): Controller {
  const { registry } = base;
  const options = { fieldManager: 'kube-controller-manager' };
  const podsByOwner = new Map<string, Set<string>>();
  const ownerKeys = new Map<string, string>();

  /** Pods without a controller, by namespace. */
  const orphans = new Map<string, Set<string>>();

  const index = ({ type, object, key }: StoreEvent): void => {
    const owner = controllerOf(object);
    const namespace = object.metadata.namespace ?? '';
    if (owner !== undefined || type === 'DELETED') orphans.get(namespace)?.delete(key);
    if (owner === undefined) {
      if (type === 'DELETED') return;
      let keys = orphans.get(namespace);
      if (keys === undefined) orphans.set(namespace, (keys = new Set()));
      keys.add(key);
      return;
    }
    let keys = podsByOwner.get(owner);
    if (keys === undefined) podsByOwner.set(owner, (keys = new Set()));
    if (type === 'DELETED') keys.delete(key);
    else keys.add(key);
    if (keys.size === 0) podsByOwner.delete(owner);
  };

  /** Makes the set the Pod's controller; undefined leaves it without one. */
  const own = (pod: KubeObject, set: KubeObject | undefined): KubeObject => {
    const changed = clone(pod);
    const others = (changed.metadata.ownerReferences ?? []).filter((one) => one.controller !== true);
    changed.metadata.ownerReferences = set === undefined ? others : [...others, reference(set)];
    return registry.update(pods, pod.metadata.namespace ?? '', pod.metadata.name, changed, options);
  };

  const work = (key: string): void => {
    const [namespace, name] = splitKey(key);
    const set = registry.find(replicaSets, namespace, name);
    if (set === undefined || set.metadata.deletionTimestamp !== undefined) return;
    const uid = set.metadata.uid ?? '';
    const selects = selectorOf(set);
    const owned: KubeObject[] = [];
    for (const podKey of podsByOwner.get(uid) ?? []) {
      const pod = registry.find(pods, ...splitKey(podKey));
      if (pod === undefined || pod.metadata.deletionTimestamp !== undefined || isPodFinished(pod)) continue;
      if (controllerOf(pod) !== uid) continue;
      // Relabelled: it is its own master from now on, and another one takes its place.
      if (!selects(pod.metadata.labels)) own(pod, undefined);
      else owned.push(pod);
    }
    for (const podKey of orphans.get(namespace) ?? []) {
      const pod = registry.find(pods, ...splitKey(podKey));
      if (pod === undefined || pod.metadata.deletionTimestamp !== undefined || isPodFinished(pod)) continue;
      if (controllerOf(pod) === undefined && selects(pod.metadata.labels)) owned.push(own(pod, set));
    }
    const wanted = Number(set.spec?.['replicas'] ?? 1);
    const template = set.spec?.['template'] as { metadata?: Metadata; spec?: JsonObject } | undefined;
    let count = owned.length;
    for (; count < wanted; count++) {
      const metadata: JsonObject = {
        generateName: `${name}-`,
        labels: { ...template?.metadata?.labels },
        ...(template?.metadata?.annotations ? { annotations: { ...template.metadata.annotations } } : {}),
        ownerReferences: [reference(set)],
      };
      registry.create(pods, namespace, structuredClone({ metadata, spec: template?.spec ?? {} }), options);
    }
    for (const pod of owned.sort(byUsefulness).slice(0, Math.max(0, owned.length - wanted))) {
      deleteIfThere(registry, pods, pod);
      count--;
    }
    const ready = owned.slice(Math.max(0, owned.length - wanted)).filter(isPodReady).length;
    const status: JsonObject = {
      replicas: count,
      fullyLabeledReplicas: count,
      readyReplicas: ready,
      availableReplicas: ready,
      observedGeneration: set.metadata.generation ?? 1,
    };
    const now = registry.find(replicaSets, namespace, name);
    if (now !== undefined && !sameJson(now.status, status)) {
      const { resourceVersion: _resourceVersion, ...metadata } = now.metadata;
      registry.update(
        replicaSets,
        namespace,
        name,
        { ...now, metadata, status },
        { ...options, subresource: 'status' },
      );
    }
  };

  return makeController(
    base,
    'replicaset',
    {
      [replicaSets.storage]: ({ type, object }) => {
        const uid = object.metadata.uid ?? '';
        if (type === 'DELETED') ownerKeys.delete(uid);
        else ownerKeys.set(uid, keyOf(object));
        return [keyOf(object)];
      },
      [pods.storage]: (event) => {
        index(event);
        const controller = controllerOf(event.object);
        const owner = ownerKeys.get(controller ?? '');
        if (owner !== undefined) return [owner];
        if (controller !== undefined || event.type === 'DELETED') return [];
        const { namespace, labels } = event.object.metadata;
        return [...registry.storage.values(replicaSets.storage)]
          .filter((set) => set.metadata.namespace === namespace && selectorOf(set)(labels))
          .map(keyOf);
      },
    },
    work,
  );
}
