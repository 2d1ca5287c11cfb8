/** Deployment → ReplicaSets, one for each Pod template; a new template takes over step by step. */
import { createHash } from 'node:crypto';
import {
  clone,
  now,
  sameJson,
  type JsonObject,
  type KubeObject,
  type Metadata,
} from '../apiserver/objects.ts';
import {
  controllerOf,
  deleteIfThere,
  deployments,
  keyOf,
  makeController,
  replicaSets,
  splitKey,
  type Controller,
  type ControllerBase,
} from './controller.ts';

const hashLabel = 'pod-template-hash';
const revisionAnnotation = 'deployment.kubernetes.io/revision';

function templateHash(template: unknown): string {
  const hex = createHash('sha256').update(JSON.stringify(template)).digest('hex');
  return BigInt(`0x${hex.slice(0, 13)}`)
    .toString(36)
    .slice(0, 10);
}

/** `25%` or `2`, of a number of replicas. */
function share(value: unknown, replicas: number, round: (x: number) => number): number {
  if (typeof value === 'number') return value;
  const percent = typeof value === 'string' && value.endsWith('%') ? Number(value.slice(0, -1)) : 0;
  return round((percent * replicas) / 100);
}

function templateOf(set: KubeObject): unknown {
  const template = clone(set.spec?.['template']) as { metadata?: { labels?: Record<string, string> } };
  delete template.metadata?.labels?.[hashLabel];
  return template;
}

function replicasOf(set: KubeObject): number {
  return Number(set.spec?.['replicas'] ?? 0);
}

function statusOf(set: KubeObject, field: string): number {
  return Number(set.status?.[field] ?? 0);
}

/** Pods that are available and will stay: a set that was just made smaller has not yet said so in its status. */
function availableOf(set: KubeObject): number {
  return Math.min(statusOf(set, 'availableReplicas'), replicasOf(set));
}

function sum(sets: readonly KubeObject[], of: (set: KubeObject) => number): number {
  return sets.reduce((total, set) => total + of(set), 0);
}

export function startDeploymentController(base: ControllerBase): Controller {
  const { registry } = base;
  const options = { fieldManager: 'kube-controller-manager' };

  const setsOf = (deployment: KubeObject): KubeObject[] =>
    [...registry.storage.values(replicaSets.storage)].filter(
      (set) => controllerOf(set) === deployment.metadata.uid && set.metadata.deletionTimestamp === undefined,
    );

  const scale = (set: KubeObject, replicas: number): KubeObject => {
    if (replicasOf(set) === replicas) return set;
    const wanted = clone(set);
    wanted.spec = { ...wanted.spec, replicas };
    return registry.update(replicaSets, set.metadata.namespace ?? '', set.metadata.name, wanted, options);
  };

  const createSet = (deployment: KubeObject, revision: number): KubeObject => {
    const { name, namespace = '', uid = '' } = deployment.metadata;
    const template = clone(deployment.spec?.['template']) as { metadata?: Metadata } & JsonObject;
    const hash = templateHash(template);
    const labels = { ...template.metadata?.labels, [hashLabel]: hash };
    const selector = clone(deployment.spec?.['selector']) as { matchLabels?: Record<string, string> };
    const input = {
      metadata: {
        name: `${name}-${hash}`,
        labels,
        annotations: { [revisionAnnotation]: String(revision) },
        ownerReferences: [
          {
            apiVersion: 'apps/v1',
            kind: 'Deployment',
            name,
            uid,
            controller: true,
            blockOwnerDeletion: true,
          },
        ],
      },
      spec: {
        replicas: 0,
        selector: { ...selector, matchLabels: { ...selector.matchLabels, [hashLabel]: hash } },
        template: { ...template, metadata: { ...template.metadata, labels } },
      },
    };
    return registry.create(replicaSets, namespace, input, options);
  };

  const work = (key: string): void => {
    const [namespace, name] = splitKey(key);
    const deployment = registry.find(deployments, namespace, name);
    if (deployment === undefined || deployment.metadata.deletionTimestamp !== undefined) return;
    const spec = deployment.spec ?? {};
    const replicas = Number(spec['replicas'] ?? 1);
    const sets = setsOf(deployment);
    const revisions = sets.map((set) => Number(set.metadata.annotations?.[revisionAnnotation] ?? 0));
    const newest = Math.max(0, ...revisions);
    let current = sets.find((set) => sameJson(templateOf(set), spec['template']));
    if (current === undefined && spec['paused'] !== true) current = createSet(deployment, newest + 1);
    else if (
      current !== undefined &&
      Number(current.metadata.annotations?.[revisionAnnotation] ?? 0) < newest
    ) {
      // An earlier template is wanted again.
      const renewed = clone(current);
      renewed.metadata.annotations = {
        ...renewed.metadata.annotations,
        [revisionAnnotation]: String(newest + 1),
      };
      current = registry.update(replicaSets, namespace, current.metadata.name, renewed, options);
    }
    const old = sets.filter((set) => set.metadata.uid !== current?.metadata.uid);
    if (current !== undefined) current = roll(deployment, current, old, replicas);
    const revision = current?.metadata.annotations?.[revisionAnnotation];
    writeStatus(namespace, name, current, setsOf(deployment), replicas, revision);
    trimHistory(old, Number(spec['revisionHistoryLimit'] ?? 10));
  };

  /** One step of a rolling update; further steps follow as Pods become ready. */
  const roll = (
    deployment: KubeObject,
    current: KubeObject,
    old: readonly KubeObject[],
    replicas: number,
  ): KubeObject => {
    const strategy = deployment.spec?.['strategy'] as JsonObject | undefined;
    if (strategy?.['type'] === 'Recreate') {
      for (const set of old) scale(set, 0);
      return sum(old, (set) => statusOf(set, 'replicas')) > 0 ? current : scale(current, replicas);
    }
    const rolling = strategy?.['rollingUpdate'] as JsonObject | undefined;
    let surge = share(rolling?.['maxSurge'] ?? '25%', replicas, Math.ceil);
    const unavailable = share(rolling?.['maxUnavailable'] ?? '25%', replicas, Math.floor);
    if (surge === 0 && unavailable === 0) surge = 1;
    const oldTotal = sum(old, replicasOf);
    const room = replicas + surge - oldTotal;
    const grown = Math.min(
      replicas,
      Math.max(replicasOf(current) > replicas ? replicas : replicasOf(current), room),
    );
    const next = scale(current, oldTotal === 0 ? replicas : grown);
    const available = availableOf(current) + sum(old, availableOf);
    let spare = available - (replicas - unavailable);
    for (const set of old) {
      const size = replicasOf(set);
      if (size === 0) continue;
      const idle = size - availableOf(set);
      const cut = Math.min(size, idle + Math.max(0, spare));
      spare -= Math.max(0, cut - idle);
      scale(set, size - cut);
    }
    return next;
  };

  const writeStatus = (
    namespace: string,
    name: string,
    current: KubeObject | undefined,
    sets: readonly KubeObject[],
    replicas: number,
    revision: string | undefined,
  ): void => {
    let deployment = registry.find(deployments, namespace, name);
    if (deployment === undefined) return;
    if (revision !== undefined && deployment.metadata.annotations?.[revisionAnnotation] !== revision) {
      const annotated = clone(deployment);
      annotated.metadata.annotations = { ...annotated.metadata.annotations, [revisionAnnotation]: revision };
      deployment = registry.update(deployments, namespace, name, annotated, options);
    }
    const total = sum(sets, (set) => statusOf(set, 'replicas'));
    const available = sum(sets, (set) => statusOf(set, 'availableReplicas'));
    const updated =
      current === undefined
        ? 0
        : statusOf(registry.get(replicaSets, namespace, current.metadata.name), 'replicas');
    const done = updated === replicas && total === replicas && available >= replicas;
    const before = (deployment.status?.['conditions'] as JsonObject[] | undefined) ?? [];
    const condition = (type: string, status: string, reason: string, message: string): JsonObject => {
      const last = before.find((one) => one['type'] === type);
      if (last?.['status'] === status && last['reason'] === reason) return last;
      const changed = last?.['status'] === status ? (last['lastTransitionTime'] ?? now()) : now();
      return { type, status, lastUpdateTime: now(), lastTransitionTime: changed, reason, message };
    };
    const enough = available >= replicas - share('25%', replicas, Math.floor);
    const status: JsonObject = {
      observedGeneration: deployment.metadata.generation ?? 1,
      replicas: total,
      updatedReplicas: updated,
      readyReplicas: sum(sets, (set) => statusOf(set, 'readyReplicas')),
      availableReplicas: available,
      unavailableReplicas: Math.max(0, replicas - available),
      conditions: [
        enough
          ? condition('Available', 'True', 'MinimumReplicasAvailable', 'Deployment has minimum availability.')
          : condition(
              'Available',
              'False',
              'MinimumReplicasUnavailable',
              'Deployment does not have minimum availability.',
            ),
        done
          ? condition(
              'Progressing',
              'True',
              'NewReplicaSetAvailable',
              `ReplicaSet "${current?.metadata.name ?? ''}" has successfully progressed.`,
            )
          : condition(
              'Progressing',
              'True',
              'ReplicaSetUpdated',
              `ReplicaSet "${current?.metadata.name ?? ''}" is progressing.`,
            ),
      ],
    };
    for (const field of [
      'replicas',
      'updatedReplicas',
      'readyReplicas',
      'availableReplicas',
      'unavailableReplicas',
    ]) {
      if (status[field] === 0) delete status[field];
    }
    if (sameJson(deployment.status, status)) return;
    registry.update(
      deployments,
      namespace,
      name,
      { ...deployment, status },
      { ...options, subresource: 'status' },
    );
  };

  const trimHistory = (old: readonly KubeObject[], limit: number): void => {
    const empty = old
      .filter((set) => replicasOf(set) === 0 && statusOf(set, 'replicas') === 0)
      .sort(
        (a, b) =>
          Number(a.metadata.annotations?.[revisionAnnotation]) -
          Number(b.metadata.annotations?.[revisionAnnotation]),
      );
    for (const set of empty.slice(0, Math.max(0, empty.length - limit)))
      deleteIfThere(registry, replicaSets, set);
  };

  return makeController(
    base,
    'deployment',
    {
      [deployments.storage]: ({ object }) => [keyOf(object)],
      [replicaSets.storage]: ({ object }) => {
        const owner = object.metadata.ownerReferences?.find((one) => one.kind === 'Deployment');
        return owner === undefined ? [] : [`${object.metadata.namespace ?? ''}/${owner.name}`];
      },
    },
    work,
  );
}
