/**
 * Objects as bytes. The text of an object is made once and kept as long as the object, so that many watchers and
 * repeated lists of a large cluster cost no serialisation.
 */
import type { KubeObject } from './objects.ts';

const bodies = new WeakMap<KubeObject, string>();

/** The JSON of everything but `kind` and `apiVersion`, with the closing brace: `"metadata":{…},…}`. */
function jsonBody(object: KubeObject): string {
  let body = bodies.get(object);
  if (body === undefined) {
    const { kind: _kind, apiVersion: _apiVersion, ...rest } = object;
    body = JSON.stringify(rest).slice(1);
    bodies.set(object, body);
  }
  return body;
}

/** The object as JSON. */
export function jsonOf(object: KubeObject): string {
  return `{"kind":"${object.kind}","apiVersion":"${object.apiVersion}",${jsonBody(object)}`;
}

/** The object as an item of a typed list, which has neither kind nor apiVersion, as in Kubernetes. */
export function jsonItemOf(object: KubeObject): string {
  return `{${jsonBody(object)}`;
}

const frames = new WeakMap<KubeObject, { type: string; frame: string }>();

/** One line of a JSON watch. */
export function jsonFrame(type: string, object: KubeObject): string {
  const known = frames.get(object);
  if (known !== undefined && known.type === type) return known.frame;
  const frame = `{"type":"${type}","object":${jsonOf(object)}}\n`;
  frames.set(object, { type, frame });
  return frame;
}

export interface ListMeta {
  readonly resourceVersion: string;
  readonly continue: string;
  readonly remainingItemCount: number | undefined;
}

export function listMetaOf(meta: ListMeta): Record<string, string | number> {
  return {
    resourceVersion: meta.resourceVersion,
    ...(meta.continue === '' ? {} : { continue: meta.continue }),
    ...(meta.remainingItemCount === undefined ? {} : { remainingItemCount: meta.remainingItemCount }),
  };
}

/** A list as JSON. */
export function jsonList(
  kind: string,
  apiVersion: string,
  meta: ListMeta,
  items: readonly KubeObject[],
): string {
  const parts: string[] = [];
  for (const item of items) parts.push(jsonItemOf(item));
  const head = `{"kind":"${kind}","apiVersion":"${apiVersion}","metadata":${JSON.stringify(listMetaOf(meta))}`;
  return `${head},"items":[${parts.join(',')}]}`;
}
