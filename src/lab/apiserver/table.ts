/** `meta.k8s.io/v1` Table and PartialObjectMetadata: what kubectl asks for to print. */
import { listMetaOf, type ListMeta } from './encoding.ts';
import { toStored } from './events.ts';
import type { JsonObject, KubeObject } from './objects.ts';
import { columnsOf } from './printers.ts';
import type { Resource } from './resources.ts';

export type IncludeObject = 'Metadata' | 'Object' | 'None';

export function partialMetadata(object: KubeObject): JsonObject {
  return {
    kind: 'PartialObjectMetadata',
    apiVersion: 'meta.k8s.io/v1',
    metadata: object.metadata,
  };
}

export function partialMetadataList(objects: readonly KubeObject[], meta: ListMeta): JsonObject {
  return {
    kind: 'PartialObjectMetadataList',
    apiVersion: 'meta.k8s.io/v1',
    metadata: listMetaOf(meta),
    items: objects.map(partialMetadata),
  };
}

export function tableOf(
  resource: Resource,
  objects: readonly KubeObject[],
  meta: JsonObject,
  include: IncludeObject,
  withHeader = true,
): JsonObject {
  const columns = columnsOf(resource.storage);
  return {
    kind: 'Table',
    apiVersion: 'meta.k8s.io/v1',
    metadata: meta,
    columnDefinitions: withHeader
      ? columns.map((column) => ({
          name: column.name,
          type: column.type ?? 'string',
          format: column.format ?? '',
          description: '',
          priority: column.wide === true ? 1 : 0,
        }))
      : [],
    rows: objects.map((object) => {
      const stored = toStored(resource, object);
      return {
        cells: columns.map((column) => column.cell(stored)),
        ...(include === 'None' ? {} : { object: include === 'Object' ? object : partialMetadata(object) }),
      };
    }),
  };
}
