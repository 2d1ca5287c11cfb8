/**
 * One description of every type the API server knows, from which come: unknown-field checks, merge keys of
 * strategic merge patches, list types of server-side apply, and the OpenAPI documents (`kubectl explain`).
 *
 * The notation of `schemas.ts`: `package P` starts a package, an unindented line a type (`kind NAME` for what has
 * an endpoint of its own), an indented line a field:
 *
 *     name!  []Type  map=key,key merge=key set retain default=VALUE  // what it means
 *
 * `!` marks required fields. Types: string, int32, int64, boolean, intOrString, quantity, time, microTime, bytes,
 * any (free form), `[]T`, `map[T]`, or the name of a type (of the same package first, then of any).
 */
import { isObject } from './objects.ts';
import { schemaText } from './schemas.ts';

export type ScalarType =
  'string' | 'int32' | 'int64' | 'boolean' | 'intOrString' | 'quantity' | 'time' | 'microTime' | 'bytes';

export type Schema = ScalarSchema | AnySchema | ListSchema | MapSchema | StructSchema;

export interface ScalarSchema {
  readonly type: ScalarType;
}
export interface AnySchema {
  readonly type: 'any';
}
export interface ListSchema {
  readonly type: 'list';
  readonly items: Schema;
  readonly listType: 'atomic' | 'set' | 'map';
  /** Keys of a `map` list. */
  readonly keys: readonly string[];
  /** Strategic merge: items are merged by this field; `''` = primitive items are merged as a set; undefined = replaced. */
  readonly mergeKey: string | undefined;
}
export interface MapSchema {
  readonly type: 'map';
  readonly values: Schema;
}
export interface StructSchema {
  readonly type: 'struct';
  /** `io.k8s.api.core.v1.Service` */
  readonly name: string;
  readonly description: string;
  readonly isKind: boolean;
  readonly fields: Map<string, FieldSchema>;
}
export interface FieldSchema {
  readonly schema: Schema;
  readonly required: boolean;
  readonly defaultValue: string | undefined;
  readonly description: string;
}

const scalars = new Set<string>([
  'string',
  'int32',
  'int64',
  'boolean',
  'intOrString',
  'quantity',
  'time',
  'microTime',
  'bytes',
]);

function parseSchemas(text: string): Map<string, StructSchema> {
  const types = new Map<string, StructSchema>();
  const byShortName = new Map<string, StructSchema>();
  const pending: { owner: StructSchema; packageName: string; line: string }[] = [];
  let packageName = '';
  let current: StructSchema | undefined;
  for (const line of text.split('\n')) {
    if (line.trim() === '') continue;
    if (line.startsWith('package ')) {
      packageName = line.slice('package '.length).trim();
    } else if (!line.startsWith(' ')) {
      const [head = '', description = ''] = line.split(' // ');
      const isKind = head.startsWith('kind ');
      const shortName = head.replace(/^kind /, '').trim();
      const name = `${packageName}.${shortName}`;
      current = { type: 'struct', name, description: description.trim(), isKind, fields: new Map() };
      types.set(name, current);
      if (!byShortName.has(shortName)) byShortName.set(shortName, current);
    } else if (current !== undefined) {
      pending.push({ owner: current, packageName, line: line.trim() });
    }
  }
  const resolve = (type: string, from: string, attributes: readonly string[]): Schema => {
    if (scalars.has(type)) return { type: type as ScalarType };
    if (type === 'any') return { type: 'any' };
    if (type.startsWith('[]')) {
      const keys = attributes.find((one) => one.startsWith('map='))?.slice(4);
      const mergeKey = attributes.find((one) => one.startsWith('merge='))?.slice(6);
      const isSet = attributes.includes('set');
      return {
        type: 'list',
        items: resolve(type.slice(2), from, []),
        listType: keys !== undefined ? 'map' : isSet ? 'set' : 'atomic',
        keys: keys?.split(',') ?? [],
        mergeKey: mergeKey ?? (attributes.includes('mergeSet') ? '' : undefined),
      };
    }
    if (type.startsWith('map[')) return { type: 'map', values: resolve(type.slice(4, -1), from, []) };
    const found = types.get(`${from}.${type}`) ?? byShortName.get(type);
    if (found === undefined) throw new Error(`schemas.ts: unknown type ${type} in package ${from}`);
    return found;
  };
  for (const { owner, packageName: from, line } of pending) {
    const at = line.indexOf(' // ');
    const words = (at < 0 ? line : line.slice(0, at)).split(/\s+/);
    const [name = '', type = '', ...attributes] = words;
    owner.fields.set(name.replace(/!$/, ''), {
      schema: resolve(type, from, attributes),
      required: name.endsWith('!'),
      defaultValue: attributes.find((one) => one.startsWith('default='))?.slice(8),
      description: at < 0 ? '' : line.slice(at + 4),
    });
  }
  return types;
}

/** All types by full name. */
export const schemas: ReadonlyMap<string, StructSchema> = parseSchemas(schemaText);

export function schemaOf(fullName: string): StructSchema {
  const found = schemas.get(fullName);
  if (found === undefined) throw new Error(`no schema ${fullName}`);
  return found;
}

/** Schema of a field of a struct or map; `any` inside free-form values, undefined if there is no such field. */
export function childSchema(schema: Schema, field: string): Schema | undefined {
  if (schema.type === 'struct') return schema.fields.get(field)?.schema;
  if (schema.type === 'map') return schema.values;
  return schema.type === 'any' ? schema : undefined;
}

const typeWords: Record<ScalarType, string> = {
  string: 'string',
  int32: 'int32',
  int64: 'int64',
  boolean: 'bool',
  intOrString: 'int or string',
  quantity: 'quantity',
  time: 'time',
  microTime: 'time',
  bytes: 'base64 string',
};

function scalarFits(type: ScalarType, value: unknown): boolean {
  switch (type) {
    case 'boolean':
      return typeof value === 'boolean';
    case 'int32':
      return Number.isInteger(value) && Math.abs(value as number) <= 2147483648;
    case 'int64':
      return Number.isInteger(value);
    case 'intOrString':
      return typeof value === 'string' || Number.isInteger(value);
    case 'quantity':
      return typeof value === 'string' || typeof value === 'number';
    default:
      return typeof value === 'string';
  }
}

export interface SchemaFindings {
  /** Values of the wrong type: always refused, as Kubernetes cannot decode them. */
  readonly wrongTypes: string[];
  /** Paths of unknown fields: refused, warned of or ignored, as `fieldValidation` says. */
  readonly unknownFields: string[];
}

/** Compares a value with its schema. */
export function checkAgainstSchema(
  value: unknown,
  schema: Schema,
  path: string,
  findings: SchemaFindings,
): void {
  if (value === null || value === undefined || schema.type === 'any') return;
  switch (schema.type) {
    case 'struct':
    case 'map':
      if (!isObject(value)) {
        findings.wrongTypes.push(`${path}: must be an object`);
        return;
      }
      for (const key of Object.keys(value)) {
        const child = childSchema(schema, key);
        const childPath = path === '' ? key : `${path}.${key}`;
        if (child === undefined) findings.unknownFields.push(childPath);
        else checkAgainstSchema(value[key], child, childPath, findings);
      }
      return;
    case 'list':
      if (!Array.isArray(value)) {
        findings.wrongTypes.push(`${path}: must be a list`);
        return;
      }
      for (let index = 0; index < value.length; index++) {
        checkAgainstSchema(value[index], schema.items, `${path}[${index}]`, findings);
      }
      return;
    default:
      if (!scalarFits(schema.type, value)) {
        findings.wrongTypes.push(`${path}: must be of type ${typeWords[schema.type]}`);
      }
  }
}
