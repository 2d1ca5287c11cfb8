/** Events have two faces: core/v1 (kept in the store) and events.k8s.io/v1. */
import type { KubeObject } from './objects.ts';
import type { Resource } from './resources.ts';

/** events.k8s.io name → core name */
const renamed: readonly (readonly [string, string])[] = [
  ['regarding', 'involvedObject'],
  ['note', 'message'],
  ['reportingController', 'reportingComponent'],
  ['deprecatedSource', 'source'],
  ['deprecatedFirstTimestamp', 'firstTimestamp'],
  ['deprecatedLastTimestamp', 'lastTimestamp'],
  ['deprecatedCount', 'count'],
];
const toCore = new Map(renamed);
const fromCore = new Map(renamed.map(([event, core]) => [core, event]));

function rename(object: KubeObject, apiVersion: string, names: ReadonlyMap<string, string>): KubeObject {
  const result: KubeObject = { kind: 'Event', apiVersion, metadata: object.metadata };
  for (const [field, value] of Object.entries(object)) {
    if (field !== 'kind' && field !== 'apiVersion') result[names.get(field) ?? field] = value;
  }
  return result;
}

const views = new WeakMap<KubeObject, KubeObject>();

/** The object as a resource shows it. */
export function viewAs(resource: Resource, stored: KubeObject): KubeObject {
  if (resource.storage === resource.id) return stored;
  let view = views.get(stored);
  if (view === undefined) {
    view = rename(stored, resource.apiVersion, fromCore);
    views.set(stored, view);
  }
  return view;
}

/** The object as it is stored. */
export function toStored(resource: Resource, object: KubeObject): KubeObject {
  return resource.storage === resource.id ? object : rename(object, 'v1', toCore);
}
