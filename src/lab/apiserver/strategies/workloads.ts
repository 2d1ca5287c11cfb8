/** Pods, Deployments and ReplicaSets: defaults and the most common validation. */
import { sameJson, type JsonObject, type KubeObject } from '../objects.ts';
import { labelSelectorMatcher, type LabelSelectorObject } from '../selectors.ts';
import type { FieldError } from '../status.ts';
import type { Strategy } from './strategy.ts';

export type Container = {
  name?: string;
  image?: string;
  ports?: { name?: string; containerPort: number; protocol?: string }[];
  [field: string]: unknown;
};

export type PodSpec = {
  containers?: Container[];
  initContainers?: Container[];
  nodeName?: string;
  nodeSelector?: { [key: string]: string };
  hostNetwork?: boolean;
  terminationGracePeriodSeconds?: number;
  tolerations?: { key?: string; operator?: string; effect?: string }[];
  [field: string]: unknown;
};

function defaultContainers(containers: readonly Container[] | undefined): void {
  for (const container of containers ?? []) {
    const image = container.image ?? '';
    const untagged = !image.includes('@') && (image.endsWith(':latest') || !/:[^/]*$/.test(image));
    container['imagePullPolicy'] ??= untagged ? 'Always' : 'IfNotPresent';
    container['terminationMessagePath'] ??= '/dev/termination-log';
    container['terminationMessagePolicy'] ??= 'File';
    container['resources'] ??= {};
    for (const port of container.ports ?? []) port.protocol ??= 'TCP';
  }
}

function defaultPodSpec(value: JsonObject): void {
  const spec = value as PodSpec;
  spec['restartPolicy'] ??= 'Always';
  spec['dnsPolicy'] ??= 'ClusterFirst';
  spec['schedulerName'] ??= 'default-scheduler';
  spec['securityContext'] ??= {};
  spec.terminationGracePeriodSeconds ??= 30;
  defaultContainers(spec.containers);
  defaultContainers(spec.initContainers);
}

function validatePodSpec(value: JsonObject | undefined, path: string): FieldError[] {
  const containers = (value as PodSpec | undefined)?.containers ?? [];
  if (containers.length === 0) return [{ type: 'Required', field: `${path}.containers`, detail: '' }];
  const errors: FieldError[] = [];
  const names = new Set<string>();
  for (const [index, container] of containers.entries()) {
    const field = `${path}.containers[${index}]`;
    if (!container.name) errors.push({ type: 'Required', field: `${field}.name`, detail: '' });
    else if (names.has(container.name)) {
      errors.push({ type: 'Duplicate', field: `${field}.name`, value: container.name, detail: '' });
    }
    names.add(container.name ?? '');
    if (!container.image) errors.push({ type: 'Required', field: `${field}.image`, detail: '' });
    for (const [at, port] of (container.ports ?? []).entries()) {
      if (Number.isInteger(port.containerPort) && port.containerPort > 0 && port.containerPort < 65536)
        continue;
      const detail = 'must be between 1 and 65535, inclusive';
      const value2 = port.containerPort;
      errors.push({ type: 'Invalid', field: `${field}.ports[${at}].containerPort`, value: value2, detail });
    }
  }
  return errors;
}

/** Fields of a running Pod that an update may change; the scheduler's binding is one more. */
function podSpecWithoutMutable(spec: JsonObject | undefined): JsonObject {
  const { containers, initContainers, tolerations, nodeName, terminationGracePeriodSeconds, ...rest } =
    spec ?? {};
  void tolerations;
  void nodeName;
  void terminationGracePeriodSeconds;
  const withoutImages = (list: unknown): JsonObject[] =>
    ((list as JsonObject[] | undefined) ?? []).map(({ image: _image, ...container }) => container);
  return { ...rest, containers: withoutImages(containers), initContainers: withoutImages(initContainers) };
}

export const podStrategy: Strategy = {
  defaults: (object) => {
    object.spec ??= {};
    defaultPodSpec(object.spec);
    object.spec['enableServiceLinks'] ??= true;
  },
  prepareCreate: (object) => {
    object.metadata.generation = 1;
    object.status = { phase: 'Pending', qosClass: 'BestEffort' };
  },
  validate: (object, old) => {
    const errors = validatePodSpec(object.spec, 'spec');
    if (old === undefined) return errors;
    const nodeBefore = old.spec?.['nodeName'];
    const rebound = nodeBefore !== undefined && nodeBefore !== object.spec?.['nodeName'];
    if (rebound || !sameJson(podSpecWithoutMutable(object.spec), podSpecWithoutMutable(old.spec))) {
      const detail =
        'pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)';
      errors.push({ type: 'Forbidden', field: 'spec', detail });
    }
    return errors;
  },
};

function validateSelectorAndTemplate(object: KubeObject, old: KubeObject | undefined): FieldError[] {
  const spec = object.spec ?? {};
  const errors: FieldError[] = [];
  const selector = spec['selector'] as LabelSelectorObject | undefined;
  const template = spec['template'] as
    { metadata?: { labels?: Record<string, string> }; spec?: JsonObject } | undefined;
  const replicas = spec['replicas'];
  if (typeof replicas === 'number' && replicas < 0) {
    const detail = 'must be greater than or equal to 0';
    errors.push({ type: 'Invalid', field: 'spec.replicas', value: replicas, detail });
  }
  if (selector === undefined) errors.push({ type: 'Required', field: 'spec.selector', detail: '' });
  else if (!labelSelectorMatcher(selector)(template?.metadata?.labels)) {
    const detail = '`selector` does not match template `labels`';
    const value = template?.metadata?.labels ?? {};
    errors.push({ type: 'Invalid', field: 'spec.template.metadata.labels', value, detail });
  }
  errors.push(...validatePodSpec(template?.spec, 'spec.template.spec'));
  if (old !== undefined && !sameJson(old.spec?.['selector'], selector)) {
    errors.push({ type: 'Invalid', field: 'spec.selector', value: selector, detail: 'field is immutable' });
  }
  return errors;
}

function defaultTemplate(object: KubeObject): JsonObject {
  object.spec ??= {};
  const { spec } = object;
  spec['replicas'] ??= 1;
  spec['template'] ??= {};
  const template = spec['template'] as JsonObject;
  template['metadata'] ??= {};
  template['spec'] ??= {};
  defaultPodSpec(template['spec'] as JsonObject);
  return spec;
}

const trackGeneration: Pick<Strategy, 'prepareCreate' | 'prepareUpdate'> = {
  prepareCreate: (object) => {
    object.metadata.generation = 1;
    object.status = {};
  },
  prepareUpdate: (object, old) => {
    const changed = !sameJson(object.spec, old.spec);
    object.metadata.generation = (old.metadata.generation ?? 0) + (changed ? 1 : 0);
  },
};

export const deploymentStrategy: Strategy = {
  ...trackGeneration,
  defaults: (object) => {
    const spec = defaultTemplate(object);
    spec['strategy'] ??= {};
    const strategy = spec['strategy'] as JsonObject;
    strategy['type'] ??= 'RollingUpdate';
    if (strategy['type'] === 'RollingUpdate') {
      const rolling = (strategy['rollingUpdate'] ??= {}) as JsonObject;
      rolling['maxUnavailable'] ??= '25%';
      rolling['maxSurge'] ??= '25%';
    }
    spec['revisionHistoryLimit'] ??= 10;
    spec['progressDeadlineSeconds'] ??= 600;
  },
  validate: validateSelectorAndTemplate,
};

export const replicaSetStrategy: Strategy = {
  ...trackGeneration,
  defaults: (object) => void defaultTemplate(object),
  validate: validateSelectorAndTemplate,
};
