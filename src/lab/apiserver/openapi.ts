/** The OpenAPI documents, made from the schemas: v3 a group (explain, validation), v2 in one (older kubectl). */
import type { JsonObject } from './objects.ts';
import { resources, type Resource } from './resources.ts';
import { schemas, type Schema, type StructSchema } from './schema.ts';

type Dialect = 2 | 3;

function reference(name: string, dialect: Dialect): string {
  return dialect === 3 ? `#/components/schemas/${name}` : `#/definitions/${name}`;
}

function render(schema: Schema, dialect: Dialect): JsonObject {
  switch (schema.type) {
    case 'struct':
      return { $ref: reference(schema.name, dialect) };
    case 'any':
      return { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };
    case 'map':
      return { type: 'object', additionalProperties: render(schema.values, dialect) };
    case 'list':
      return {
        type: 'array',
        items: render(schema.items, dialect),
        'x-kubernetes-list-type': schema.listType,
        ...(schema.keys.length === 0 ? {} : { 'x-kubernetes-list-map-keys': [...schema.keys] }),
        ...(schema.mergeKey === undefined ? {} : { 'x-kubernetes-patch-strategy': 'merge' }),
        ...(schema.mergeKey ? { 'x-kubernetes-patch-merge-key': schema.mergeKey } : {}),
      };
    case 'boolean':
      return { type: 'boolean' };
    case 'int32':
    case 'int64':
      return { type: 'integer', format: schema.type };
    case 'intOrString':
      return dialect === 3
        ? { oneOf: [{ type: 'integer' }, { type: 'string' }], format: 'int-or-string' }
        : { type: 'string', format: 'int-or-string' };
    case 'quantity':
      return dialect === 3 ? { oneOf: [{ type: 'string' }, { type: 'number' }] } : { type: 'string' };
    case 'time':
    case 'microTime':
      return { type: 'string', format: 'date-time' };
    case 'bytes':
      return { type: 'string', format: 'byte' };
    default:
      return { type: 'string' };
  }
}

/** A reference may carry nothing beside it, so that what is said of the field goes around it. */
function renderField(schema: Schema, description: string, dialect: Dialect): JsonObject {
  const rendered = render(schema, dialect);
  if (description === '') return rendered;
  if (dialect === 3 && schema.type === 'struct') return { description, allOf: [rendered] };
  return { description, ...rendered };
}

const kinds = new Map(resources.map((one) => [one.schema.name, one]));

function groupVersionKinds(type: StructSchema): JsonObject {
  const resource = kinds.get(type.name);
  if (resource === undefined && type.name !== 'io.k8s.api.autoscaling.v1.Scale') return {};
  const gvk = resource ?? { group: 'autoscaling', version: 'v1', kind: 'Scale' };
  const { group, version, kind } = gvk;
  return { 'x-kubernetes-group-version-kind': [{ group, kind, version }] };
}

function renderStruct(type: StructSchema, dialect: Dialect): JsonObject {
  const properties: JsonObject = {};
  const required: string[] = [];
  for (const [name, field] of type.fields) {
    properties[name] = renderField(field.schema, field.description, dialect);
    if (field.required) required.push(name);
  }
  return {
    ...(type.description === '' ? {} : { description: type.description }),
    type: 'object',
    properties,
    ...(required.length === 0 ? {} : { required }),
    ...groupVersionKinds(type),
  };
}

function definitions(roots: readonly StructSchema[], dialect: Dialect): JsonObject {
  const result: JsonObject = {};
  const visit = (schema: Schema): void => {
    if (schema.type === 'list') visit(schema.items);
    else if (schema.type === 'map') visit(schema.values);
    else if (schema.type === 'struct' && result[schema.name] === undefined) {
      result[schema.name] = renderStruct(schema, dialect);
      for (const field of schema.fields.values()) visit(field.schema);
    }
  };
  for (const root of roots) visit(root);
  return result;
}

const writeParameters = ['dryRun', 'fieldManager', 'fieldValidation'];

function operation(resource: Resource, action: string, parameters: readonly string[]): JsonObject {
  const { group, version, kind } = resource;
  return {
    operationId: `${action}${resource.apiVersion.replace(/\W/g, '')}${kind}`,
    parameters: parameters.map((name) => ({
      name,
      in: 'query',
      schema: { type: 'string', uniqueItems: true },
    })),
    responses: { 200: { description: 'OK' } },
    'x-kubernetes-action': action,
    'x-kubernetes-group-version-kind': { group, version, kind },
  };
}

function pathsOf(resource: Resource): JsonObject {
  const root = resource.group === '' ? '/api/v1' : `/apis/${resource.apiVersion}`;
  const collection = resource.namespaced
    ? `${root}/namespaces/{namespace}/${resource.plural}`
    : `${root}/${resource.plural}`;
  const list = ['labelSelector', 'fieldSelector', 'limit', 'continue', 'watch'];
  return {
    [collection]: {
      get: operation(resource, 'list', list),
      post: operation(resource, 'post', writeParameters),
      delete: operation(resource, 'deletecollection', list),
    },
    [`${collection}/{name}`]: {
      get: operation(resource, 'get', []),
      put: operation(resource, 'put', writeParameters),
      patch: operation(resource, 'patch', [...writeParameters, 'force']),
      delete: operation(resource, 'delete', ['dryRun', 'gracePeriodSeconds', 'propagationPolicy']),
    },
  };
}

function allPaths(): JsonObject {
  return Object.assign({}, ...resources.map(pathsOf)) as JsonObject;
}

const info: JsonObject = { title: 'Kubernetes', version: 'v1.36.2' };
const documents = new Map<string, string>();

function remembered(key: string, make: () => JsonObject | undefined): string | undefined {
  let text = documents.get(key);
  if (text === undefined) {
    const document = make();
    if (document === undefined) return undefined;
    text = JSON.stringify(document);
    documents.set(key, text);
  }
  return text;
}

/** `/openapi/v3`: which documents there are. */
export function openApiIndex(): JsonObject {
  const paths: JsonObject = {};
  for (const { apiVersion, group } of resources) {
    const path = group === '' ? `api/${apiVersion}` : `apis/${apiVersion}`;
    paths[path] = { serverRelativeURL: `/openapi/v3/${path}?hash=1` };
  }
  return { paths };
}

/** `/openapi/v3/api/v1`, `/openapi/v3/apis/GROUP/v1` as JSON text. */
export function openApiV3(path: string): string | undefined {
  return remembered(`v3/${path}`, () => {
    const apiVersion = path.replace(/^apis?\//, '');
    const members = resources.filter((one) => one.apiVersion === apiVersion);
    if (members.length === 0) return undefined;
    const scale = schemas.get('io.k8s.api.autoscaling.v1.Scale');
    const roots = members.map((one) => one.schema);
    if (scale !== undefined && members.some((one) => one.subresources.includes('scale'))) roots.push(scale);
    return {
      openapi: '3.0.0',
      info,
      paths: Object.assign({}, ...members.map(pathsOf)) as JsonObject,
      components: { schemas: definitions(roots, 3) },
    };
  });
}

export function openApiV2Document(): JsonObject {
  return { swagger: '2.0', info, paths: allPaths(), definitions: definitions([...schemas.values()], 2) };
}

/** `/openapi/v2` as JSON text. */
export function openApiV2(): string {
  return remembered('v2', openApiV2Document) as string;
}
