/** ReplicaSet → Pods. */
import { sameJson, type JsonObject, type KubeObject, type Metadata } from '../apiserver/objects.ts';
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

export function startReplicaSetController(base: ControllerBase): Controller {
  const { registry } = base;
  const options = { fieldManager: 'kube-controller-manager' };
  const podsByOwner = new Map<string, Set<string>>();
  const ownerKeys = new Map<string, string>();

  const index = ({ type, object, key }: StoreEvent): void => {
    const owner = controllerOf(object);
    if (owner === undefined) return;
    let keys = podsByOwner.get(owner);
    if (keys === undefined) podsByOwner.set(owner, (keys = new Set()));
    if (type === 'DELETED') keys.delete(key);
    else keys.add(key);
    if (keys.size === 0) podsByOwner.delete(owner);
  };

  const work = (key: string): void => {
    const [namespace, name] = splitKey(key);
    const set = registry.find(replicaSets, namespace, name);
    if (set === undefined || set.metadata.deletionTimestamp !== undefined) return;
    const uid = set.metadata.uid ?? '';
    const owned: KubeObject[] = [];
    for (const podKey of podsByOwner.get(uid) ?? []) {
      const pod = registry.find(pods, ...splitKey(podKey));
      if (pod !== undefined && pod.metadata.deletionTimestamp === undefined && !isPodFinished(pod))
        owned.push(pod);
    }
    const wanted = Number(set.spec?.['replicas'] ?? 1);
    const template = set.spec?.['template'] as { metadata?: Metadata; spec?: JsonObject } | undefined;
    let count = owned.length;
    for (; count < wanted; count++) {
      const metadata: JsonObject = {
        generateName: `${name}-`,
        labels: { ...template?.metadata?.labels },
        ...(template?.metadata?.annotations ? { annotations: { ...template.metadata.annotations } } : {}),
        ownerReferences: [
          {
            apiVersion: 'apps/v1',
            kind: 'ReplicaSet',
            name,
            uid,
            controller: true,
            blockOwnerDeletion: true,
          },
        ],
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
        const owner = ownerKeys.get(controllerOf(event.object) ?? '');
        return owner === undefined ? [] : [owner];
      },
    },
    work,
  );
}
