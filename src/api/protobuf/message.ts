/**
 * How Kubernetes objects are written in protobuf: JSON field name to field number and type, and the messages that all
 * kinds share (`generated.proto` of k8s.io/apimachinery meta/v1 and k8s.io/api core/v1).
 */

export type FieldType =
  | 'string'
  | 'int'
  | 'bool'
  /** RFC 3339 text in JSON, {seconds 1, nanos 2} on the wire. */
  | 'time'
  /** map<string, string> */
  | 'stringMap'
  /** map<string, bytes>; base64 in JSON */
  | 'bytesMap'
  /** map<string, resource.Quantity {string 1}> */
  | 'quantityMap'
  /** intstr.IntOrString {type 1, intVal 2, strVal 3} */
  | 'intOrString'
  /** metav1.FieldsV1 {Raw 1}: the JSON text itself. */
  | 'rawJson'
  | MessageSchema;

export interface FieldSchema {
  readonly number: number;
  readonly type: FieldType;
  readonly repeated: boolean;
}

/** Fields in ascending order of their numbers. */
export type MessageSchema = ReadonlyMap<string, FieldSchema>;

/** A message by its fields: `name: [number, type]`, `repeated` behind it for lists. */
export function message(
  fields: Readonly<Record<string, readonly [number, FieldType, 'repeated'?]>>,
): MessageSchema {
  const entries = Object.entries(fields).map(([name, [number, type, repeated]]): [string, FieldSchema] => [
    name,
    { number, type, repeated: repeated === 'repeated' },
  ]);
  return new Map(entries.sort((a, b) => a[1].number - b[1].number));
}

const ownerReference = message({
  kind: [1, 'string'],
  name: [3, 'string'],
  uid: [4, 'string'],
  apiVersion: [5, 'string'],
  controller: [6, 'bool'],
  blockOwnerDeletion: [7, 'bool'],
});

const managedFieldsEntry = message({
  manager: [1, 'string'],
  operation: [2, 'string'],
  apiVersion: [3, 'string'],
  time: [4, 'time'],
  fieldsType: [6, 'string'],
  fieldsV1: [7, 'rawJson'],
  subresource: [8, 'string'],
});

export const objectMeta = message({
  name: [1, 'string'],
  generateName: [2, 'string'],
  namespace: [3, 'string'],
  selfLink: [4, 'string'],
  uid: [5, 'string'],
  resourceVersion: [6, 'string'],
  generation: [7, 'int'],
  creationTimestamp: [8, 'time'],
  deletionTimestamp: [9, 'time'],
  deletionGracePeriodSeconds: [10, 'int'],
  labels: [11, 'stringMap'],
  annotations: [12, 'stringMap'],
  ownerReferences: [13, ownerReference, 'repeated'],
  finalizers: [14, 'string', 'repeated'],
  managedFields: [17, managedFieldsEntry, 'repeated'],
});

export const listMeta = message({
  selfLink: [1, 'string'],
  resourceVersion: [2, 'string'],
  continue: [3, 'string'],
  remainingItemCount: [4, 'int'],
});

export const objectReference = message({
  kind: [1, 'string'],
  namespace: [2, 'string'],
  name: [3, 'string'],
  uid: [4, 'string'],
  apiVersion: [5, 'string'],
  resourceVersion: [6, 'string'],
  fieldPath: [7, 'string'],
});
