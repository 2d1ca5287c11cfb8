/** Services with a selector → EndpointSlices of the Pods it selects. */
import { clone, sameJson, type JsonObject, type KubeObject } from '../apiserver/objects.ts';
import type { LabelMatcher } from '../apiserver/selectors.ts';
import { labelSelectorMatcher } from '../apiserver/selectors.ts';
import type { StoreEvent } from '../apiserver/store.ts';
import type { ServiceObject } from '../apiserver/strategies/serviceTypes.ts';
import {
  deleteIfThere,
  endpointSlices,
  keyOf,
  makeController,
  nodes,
  pods,
  services,
  splitKey,
  type Controller,
  type ControllerBase,
} from './controller.ts';
import { planSlices, reconcileSlices } from './sliceplan.ts';

export const serviceNameLabel = 'kubernetes.io/service-name';
const managedByLabel = 'endpointslice.kubernetes.io/managed-by';
const managedBy = 'endpointslice-controller.k8s.io';
const triggerTimeAnnotation = 'endpoints.kubernetes.io/last-change-trigger-time';
const zoneLabel = 'topology.kubernetes.io/zone';

function selectorOf(service: KubeObject): LabelMatcher | undefined {
  const { spec } = service as unknown as ServiceObject;
  const matchLabels = spec?.selector ?? {};
  if (Object.keys(matchLabels).length === 0 || spec?.type === 'ExternalName') return undefined;
  return labelSelectorMatcher({ matchLabels });
}

export function startEndpointSliceController(base: ControllerBase): Controller {
  const { registry } = base;
  const options = { fieldManager: 'kube-controller-manager' };
  /** Selectors by namespace and key of their Service. */
  const selectors = new Map<string, Map<string, LabelMatcher>>();
  /** Names of the managed slices by key of their Service. */
  const slicesOf = new Map<string, Set<string>>();

  const onService = ({ type, object }: StoreEvent): string[] => {
    const namespace = object.metadata.namespace ?? '';
    const key = keyOf(object);
    const selector = type === 'DELETED' ? undefined : selectorOf(object);
    let ofNamespace = selectors.get(namespace);
    if (ofNamespace === undefined) selectors.set(namespace, (ofNamespace = new Map()));
    if (selector === undefined) ofNamespace.delete(key);
    else ofNamespace.set(key, selector);
    return selector !== undefined || slicesOf.has(key) ? [key] : [];
  };

  const onPod = ({ object, previous }: StoreEvent): string[] => {
    const keys: string[] = [];
    for (const [key, matches] of selectors.get(object.metadata.namespace ?? '') ?? []) {
      const did = previous !== undefined && matches(previous.metadata.labels);
      if (did || matches(object.metadata.labels)) keys.push(key);
    }
    return keys;
  };

  const onSlice = ({ type, object }: StoreEvent): string[] => {
    const { labels, namespace = '', name } = object.metadata;
    if (labels?.[managedByLabel] !== managedBy) return [];
    const key = `${namespace}/${labels[serviceNameLabel] ?? ''}`;
    let names = slicesOf.get(key);
    if (names === undefined) slicesOf.set(key, (names = new Set()));
    if (type === 'DELETED') names.delete(name);
    else names.add(name);
    if (names.size === 0) slicesOf.delete(key);
    return type === 'DELETED' ? [key] : [];
  };

  const onNode = ({ object, previous }: StoreEvent): string[] =>
    previous?.metadata.labels?.[zoneLabel] === object.metadata.labels?.[zoneLabel]
      ? []
      : [...selectors.values()].flatMap((ofNamespace) => [...ofNamespace.keys()]);

  const zoneOf = (nodeName: string): string =>
    registry.find(nodes, '', nodeName)?.metadata.labels?.[zoneLabel] ?? '';

  const work = (key: string): void => {
    const [namespace, name] = splitKey(key);
    const existing = [...(slicesOf.get(key) ?? [])]
      .map((slice) => registry.find(endpointSlices, namespace, slice))
      .filter((slice) => slice !== undefined);
    const service = registry.find(services, namespace, name);
    const matches = selectors.get(namespace)?.get(key);
    if (service === undefined || matches === undefined) {
      for (const slice of existing) deleteIfThere(registry, endpointSlices, slice);
      return;
    }
    const members: KubeObject[] = [];
    for (const pod of registry.storage.values(pods.storage)) {
      if (pod.metadata.namespace === namespace && matches(pod.metadata.labels)) members.push(pod);
    }
    const typed = service as unknown as ServiceObject;
    const plan = reconcileSlices(existing, planSlices(typed, members, zoneOf));
    const { labels, ownerReferences } = identityOf(service);
    const annotations = { [triggerTimeAnnotation]: new Date().toISOString() };
    for (const content of plan.create) {
      const metadata = { generateName: `${name}-`, labels, ownerReferences, annotations };
      registry.create(endpointSlices, namespace, structuredClone({ metadata, ...content }), options);
    }
    for (const { slice, content } of plan.update) {
      const changed = Object.assign(clone(slice), structuredClone(content));
      changed.metadata.annotations = { ...changed.metadata.annotations, ...annotations };
      changed.metadata.labels = labels;
      registry.update(endpointSlices, namespace, slice.metadata.name, changed, options);
    }
    for (const slice of plan.remove) deleteIfThere(registry, endpointSlices, slice);
    for (const slice of existing) {
      const now = registry.find(endpointSlices, namespace, slice.metadata.name);
      if (now === undefined || sameJson(now.metadata.labels, labels)) continue;
      const changed = clone(now);
      changed.metadata.labels = labels;
      registry.update(endpointSlices, namespace, slice.metadata.name, changed, options);
    }
  };

  return makeController(
    base,
    'endpointslice',
    {
      [nodes.storage]: onNode,
      [endpointSlices.storage]: onSlice,
      [services.storage]: onService,
      [pods.storage]: onPod,
    },
    work,
  );
}

/** What a slice says of its Service: its labels, and who owns it. */
function identityOf(service: KubeObject): {
  labels: { [key: string]: string };
  ownerReferences: JsonObject[];
} {
  const { name, uid = '' } = service.metadata;
  const headless = service.spec?.['clusterIP'] === 'None';
  return {
    labels: {
      ...service.metadata.labels,
      [serviceNameLabel]: name,
      [managedByLabel]: managedBy,
      ...(headless ? { 'service.kubernetes.io/headless': '' } : {}),
    },
    ownerReferences: [
      { apiVersion: 'v1', kind: 'Service', name, uid, controller: true, blockOwnerDeletion: true },
    ],
  };
}
