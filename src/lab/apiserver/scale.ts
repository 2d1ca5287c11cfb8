/** The scale subresource (autoscaling/v1) of Deployments and ReplicaSets. */
import { clone, isObject, type JsonObject, type KubeObject } from './objects.ts';
import { ApiError, badRequest } from './status.ts';

function selectorText(object: KubeObject): string {
  const selector = object.spec?.['selector'] as { matchLabels?: Record<string, string> } | undefined;
  return Object.entries(selector?.matchLabels ?? {})
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
}

export function scaleOf(object: KubeObject): KubeObject {
  const { name, namespace = '', uid = '', resourceVersion = '', creationTimestamp = '' } = object.metadata;
  return {
    kind: 'Scale',
    apiVersion: 'autoscaling/v1',
    metadata: { name, namespace, uid, resourceVersion, creationTimestamp },
    spec: { replicas: object.spec?.['replicas'] ?? 0 },
    status: { replicas: object.status?.['replicas'] ?? 0, selector: selectorText(object) },
  };
}

/** The object with the number of replicas of a Scale. Throws 400, 422. */
export function withReplicas(object: KubeObject, scale: unknown): KubeObject {
  if (!isObject(scale) || scale['kind'] !== 'Scale') throw badRequest('expected a Scale of autoscaling/v1');
  const replicas = (scale['spec'] as JsonObject | undefined)?.['replicas'] ?? 0;
  if (typeof replicas !== 'number' || !Number.isInteger(replicas) || replicas < 0) {
    const message = `Scale.autoscaling "${object.metadata.name}" is invalid: spec.replicas: Invalid value: ${JSON.stringify(replicas)}: must be greater than or equal to 0`;
    throw new ApiError(422, 'Invalid', message);
  }
  const result = clone(object);
  result.spec = { ...result.spec, replicas };
  const version = (scale['metadata'] as JsonObject | undefined)?.['resourceVersion'];
  if (typeof version === 'string' && version !== '') result.metadata.resourceVersion = version;
  return result;
}
