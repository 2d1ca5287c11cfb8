/** Protobuf answers, for the kinds that have an encoder. Frames are made once an object, as JSON ones are. */
import * as encoders from '../../api/protobuf/encode.ts';
import { kinds } from '../../api/protobuf/schema.ts';
import type { ListMeta } from './encoding.ts';
import type { KubeObject } from './objects.ts';
import type { Resource } from './resources.ts';

type ListKind = Exclude<keyof typeof kinds, 'Status'>;

/** Whether objects of this resource can go out as `application/vnd.kubernetes.protobuf`. */
export function hasProtobuf({ kind }: Resource): boolean {
  return kind !== 'Status' && Object.hasOwn(kinds, kind);
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function encodeObject(object: KubeObject): Buffer {
  return asBuffer(encoders.encodeObject(object.kind as ListKind, object));
}

export function encodeList(resource: Resource, meta: ListMeta, items: readonly KubeObject[]): Buffer {
  const listMeta = {
    resourceVersion: meta.resourceVersion,
    ...(meta.continue === '' ? {} : { continue: meta.continue }),
    ...(meta.remainingItemCount === undefined ? {} : { remainingItemCount: meta.remainingItemCount }),
  };
  return asBuffer(encoders.encodeList(resource.kind as ListKind, items, listMeta));
}

const frames = new WeakMap<KubeObject, { type: string; frame: Buffer }>();

export function encodeWatchFrame(type: encoders.WatchEventType, object: KubeObject): Buffer {
  const known = frames.get(object);
  if (known !== undefined && known.type === type) return known.frame;
  const frame = asBuffer(encoders.encodeWatchFrame(type, object));
  frames.set(object, { type, frame });
  return frame;
}
