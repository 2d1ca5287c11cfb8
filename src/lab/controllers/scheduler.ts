/** The scheduler: Pods go round robin over the Ready nodes that fit their node selector. */
import { clone, type JsonObject, type KubeObject } from '../apiserver/objects.ts';
import {
  keyOf,
  makeController,
  nodes,
  pods,
  splitKey,
  type Controller,
  type ControllerBase,
} from './controller.ts';

function isReady(node: KubeObject): boolean {
  if (node.spec?.['unschedulable'] === true || node.metadata.deletionTimestamp !== undefined) return false;
  const conditions = node.status?.['conditions'] as JsonObject[] | undefined;
  const ready = conditions?.find((one) => one['type'] === 'Ready');
  // A node that says nothing about itself is taken to be ready: lab nodes need no heartbeat.
  return ready === undefined || ready['status'] === 'True';
}

function toleratesTaints(node: KubeObject, pod: KubeObject): boolean {
  const taints = (node.spec?.['taints'] as { key: string; effect: string }[] | undefined) ?? [];
  const tolerations = (pod.spec?.['tolerations'] as { key?: string; effect?: string }[] | undefined) ?? [];
  return taints
    .filter(({ effect }) => effect !== 'PreferNoSchedule')
    .every(({ key, effect }) =>
      tolerations.some(
        (one) =>
          (one.key === undefined || one.key === key) && (one.effect === undefined || one.effect === effect),
      ),
    );
}

function fits(node: KubeObject, pod: KubeObject): boolean {
  const labels: Record<string, string> = {
    'kubernetes.io/hostname': node.metadata.name,
    ...node.metadata.labels,
  };
  const selector = (pod.spec?.['nodeSelector'] as Record<string, string> | undefined) ?? {};
  return (
    Object.entries(selector).every(([key, value]) => labels[key] === value) && toleratesTaints(node, pod)
  );
}

export function startScheduler(base: ControllerBase): Controller {
  const { registry } = base;
  let turn = 0;
  const waiting = new Set<string>();

  const work = (key: string): void => {
    const [namespace, name] = splitKey(key);
    const pod = registry.find(pods, namespace, name);
    waiting.delete(key);
    if (pod === undefined || pod.spec?.['nodeName'] || pod.metadata.deletionTimestamp !== undefined) return;
    const candidates = registry.storage
      .list(nodes.storage)
      .filter((node) => isReady(node) && fits(node, pod));
    const node = candidates[turn++ % Math.max(1, candidates.length)];
    if (node === undefined) {
      waiting.add(key);
      return;
    }
    const bound = clone(pod);
    bound.spec = { ...bound.spec, nodeName: node.metadata.name };
    registry.update(pods, namespace, name, bound, { fieldManager: 'kube-scheduler' });
  };

  return makeController(
    base,
    'scheduler',
    {
      [pods.storage]: ({ type, object }) =>
        type === 'DELETED' || object.spec?.['nodeName'] ? [] : [keyOf(object)],
      [nodes.storage]: ({ type }) => (type === 'DELETED' ? [] : [...waiting]),
    },
    work,
  );
}
