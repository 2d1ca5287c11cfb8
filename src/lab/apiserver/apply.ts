/**
 * Server-side apply and field ownership (KEP-555), compactly: who set which field is kept in
 * `metadata.managedFields`; an apply may not change what others own unless forced, and what it no longer names
 * goes away if nobody else owns it.
 *
 * A field's path is a list of elements as in FieldsV1: `f:name` for a field, `k:{…}` for a list item by its keys,
 * `v:…` for an item of a set, `.` for the item itself. Paths are kept as text, joined by a separator.
 */
import { clone, isObject, now, sameJson } from './objects.ts';
import type { Json, JsonObject, KubeObject, ManagedFieldsEntry } from './objects.ts';
import { childSchema, type ListSchema, type Schema, type StructSchema } from './schema.ts';
import { applyConflict } from './status.ts';

const separator = '\u0000';

/** Leaf values by path. */
type Leaves = Map<string, Json>;

/** Set by the server, so nobody's. */
const unowned = new Set([
  'f:apiVersion',
  'f:kind',
  ...[
    'name',
    'namespace',
    'generateName',
    'uid',
    'resourceVersion',
    'generation',
    'creationTimestamp',
    'deletionTimestamp',
    'deletionGracePeriodSeconds',
    'selfLink',
    'managedFields',
  ].map((field) => `f:metadata${separator}f:${field}`),
]);

function itemKey(item: JsonObject, schema: ListSchema): string {
  const keys: JsonObject = {};
  for (const name of [...schema.keys].sort()) {
    const fallback = schema.items.type === 'struct' ? schema.items.fields.get(name)?.defaultValue : undefined;
    keys[name] = item[name] ?? fallback ?? null;
  }
  return `k:${JSON.stringify(keys)}`;
}

function collect(value: Json | undefined, schema: Schema, path: string, leaves: Leaves): void {
  if (value === undefined || value === null || unowned.has(path)) return;
  const down = path === '' ? '' : path + separator;
  if (isObject(value) && (schema.type === 'struct' || schema.type === 'map')) {
    const fields = Object.keys(value);
    if (fields.length === 0) leaves.set(path, value);
    for (const field of fields) {
      collect(value[field], childSchema(schema, field) ?? { type: 'any' }, `${down}f:${field}`, leaves);
    }
    return;
  }
  if (Array.isArray(value) && schema.type === 'list' && schema.listType !== 'atomic' && value.length > 0) {
    for (const item of value) {
      if (schema.listType === 'set') leaves.set(`${down}v:${JSON.stringify(item)}`, item);
      else if (isObject(item)) {
        const itemPath = down + itemKey(item, schema);
        leaves.set(`${itemPath}${separator}.`, null);
        collect(item, schema.items, itemPath, leaves);
      }
    }
    return;
  }
  leaves.set(path, value);
}

export function leavesOf(object: KubeObject, schema: StructSchema): Leaves {
  const leaves: Leaves = new Map();
  collect(object, schema, '', leaves);
  leaves.delete('');
  return leaves;
}

export function toFieldsV1(paths: Iterable<string>): JsonObject {
  const root: JsonObject = {};
  for (const path of paths) {
    let node = root;
    for (const element of path.split(separator)) node = (node[element] ??= {}) as JsonObject;
  }
  return root;
}

export function fromFieldsV1(fields: JsonObject): Set<string> {
  const paths = new Set<string>();
  const walk = (node: JsonObject, path: string): void => {
    const elements = Object.keys(node);
    if (elements.length === 0 && path !== '') paths.add(path);
    for (const element of elements) {
      // `.` of a map says that the map itself was set; its fields say the same.
      if (element === '.' && !path.slice(path.lastIndexOf(separator) + 1).startsWith('k:')) continue;
      walk(node[element] as JsonObject, path === '' ? element : path + separator + element);
    }
  };
  walk(fields, '');
  return paths;
}

/** `.spec.ports[port=80,protocol="TCP"].name`: how conflicts name a field. */
function readable(path: string): string {
  return path
    .split(separator)
    .map((element) => {
      if (element.startsWith('f:')) return `.${element.slice(2)}`;
      if (element.startsWith('v:')) return `[=${element.slice(2)}]`;
      if (!element.startsWith('k:')) return '';
      const keys = JSON.parse(element.slice(2)) as JsonObject;
      return `[${Object.entries(keys)
        .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
        .join(',')}]`;
    })
    .join('');
}

export interface Manager {
  readonly name: string;
  readonly operation: 'Apply' | 'Update';
  readonly apiVersion: string;
  readonly subresource: string;
}

function isManager(entry: ManagedFieldsEntry, manager: Manager): boolean {
  return (
    entry.manager === manager.name &&
    entry.operation === manager.operation &&
    (entry.subresource ?? '') === manager.subresource
  );
}

function makeEntry(manager: Manager, paths: Iterable<string>, time: string): ManagedFieldsEntry {
  return {
    manager: manager.name,
    operation: manager.operation,
    apiVersion: manager.apiVersion,
    time,
    fieldsType: 'FieldsV1',
    fieldsV1: toFieldsV1(paths),
    ...(manager.subresource === '' ? {} : { subresource: manager.subresource }),
  };
}

/** The ownership after `manager` replaced `old` (undefined: nothing) by `object` with an ordinary write. */
export function ownershipAfterUpdate(
  object: KubeObject,
  old: KubeObject | undefined,
  schema: StructSchema,
  manager: Manager,
  entries: readonly ManagedFieldsEntry[],
): ManagedFieldsEntry[] {
  const after = leavesOf(object, schema);
  if (old === undefined) return [makeEntry(manager, after.keys(), now())];
  const before = leavesOf(old, schema);
  const changed = new Set<string>();
  for (const [path, value] of after)
    if (!before.has(path) || !sameJson(before.get(path), value)) changed.add(path);
  const gone = [...before.keys()].some((path) => !after.has(path));
  if (changed.size === 0 && !gone) return [...entries];
  const result: ManagedFieldsEntry[] = [];
  let found = false;
  for (const entry of entries) {
    const mine = isManager(entry, manager);
    const had = fromFieldsV1(entry.fieldsV1);
    const keeps = [...had].filter((path) => after.has(path) && (mine || !changed.has(path)));
    if (mine) {
      found = true;
      const all = new Set([...keeps, ...changed]);
      if (all.size > 0) result.push(makeEntry(manager, all, now()));
    } else if (keeps.length === had.size) {
      result.push(entry);
    } else if (keeps.length > 0) {
      result.push({ ...entry, fieldsV1: toFieldsV1(keeps) });
    }
  }
  if (!found && changed.size > 0) result.push(makeEntry(manager, changed, now()));
  return result;
}

/** Lays `config` over `live` by the schema. */
function overlay(live: Json | undefined, config: Json, schema: Schema): Json {
  if (isObject(config) && (schema.type === 'struct' || schema.type === 'map')) {
    const result: JsonObject = isObject(live) ? { ...live } : {};
    for (const [field, value] of Object.entries(config)) {
      if (value === undefined || value === null) continue;
      result[field] = overlay(result[field], value, childSchema(schema, field) ?? { type: 'any' });
    }
    return result;
  }
  if (Array.isArray(config) && schema.type === 'list' && schema.listType !== 'atomic') {
    const rest = Array.isArray(live) ? [...live] : [];
    const keyOf = (item: Json): string =>
      schema.listType === 'map' && isObject(item) ? itemKey(item, schema) : JSON.stringify(item);
    const merged = config.map((item) => {
      const at = rest.findIndex((one) => keyOf(one) === keyOf(item));
      const [before] = at < 0 ? [undefined] : rest.splice(at, 1);
      return overlay(before, item, schema.items);
    });
    return [...merged, ...rest];
  }
  return clone(config);
}

function removePath(value: Json | undefined, elements: readonly string[], schema: Schema): void {
  const [element = '', ...rest] = elements;
  if (isObject(value) && element.startsWith('f:')) {
    const field = element.slice(2);
    if (rest.length === 0) delete value[field];
    else {
      const child = value[field];
      removePath(child, rest, childSchema(schema, field) ?? { type: 'any' });
      if (Array.isArray(child) && child.length === 0) delete value[field];
      else if (isObject(child) && Object.keys(child).length === 0) delete value[field];
    }
  } else if (Array.isArray(value) && schema.type === 'list') {
    const at = value.findIndex((item) =>
      element.startsWith('k:')
        ? isObject(item) && itemKey(item, schema) === element
        : `v:${JSON.stringify(item)}` === element,
    );
    if (at < 0) return;
    if (rest.length === 0 || rest[0] === '.') value.splice(at, 1);
    else removePath(value[at], rest, schema.items);
  }
}

export interface Applied {
  readonly object: KubeObject;
  readonly managedFields: ManagedFieldsEntry[];
}

/** Applies a configuration to the live object. Throws 409 if others own what it changes, unless forced. */
export function applyConfiguration(
  live: KubeObject,
  config: KubeObject,
  schema: StructSchema,
  manager: Manager,
  force: boolean,
): Applied {
  const wanted = leavesOf(config, schema);
  const current = leavesOf(live, schema);
  const entries = live.metadata.managedFields ?? [];
  const own = entries.find((entry) => isManager(entry, manager));
  const others = entries
    .filter((entry) => entry !== own)
    .map((entry) => ({ entry, paths: fromFieldsV1(entry.fieldsV1) }));
  const differing = [...wanted].filter(
    ([path, value]) => current.has(path) && !sameJson(current.get(path), value),
  );
  const conflicts = differing.flatMap(([path]) =>
    others
      .filter(({ paths }) => paths.has(path))
      .map(({ entry }) => ({ manager: describeManager(entry), field: readable(path), path })),
  );
  if (conflicts.length > 0 && !force) throw applyConflict(conflicts);
  const taken = new Set(conflicts.map((one) => one.path));
  const merged = clone(
    overlay(live as unknown as Json, config as unknown as Json, schema),
  ) as unknown as KubeObject;
  const owned = own === undefined ? [] : [...fromFieldsV1(own.fieldsV1)];
  const dropped = owned.filter((path) => !wanted.has(path) && !others.some(({ paths }) => paths.has(path)));
  // List items first: their fields go with them.
  const rank = (path: string): number => (path.endsWith(`${separator}.`) ? 0 : 1);
  for (const path of dropped.sort((a, b) => rank(a) - rank(b))) {
    removePath(merged, path.split(separator), schema);
  }
  const kept = others
    .map(({ entry, paths }) => {
      const left = [...paths].filter((path) => !taken.has(path));
      return left.length === paths.size ? entry : { ...entry, fieldsV1: toFieldsV1(left) };
    })
    .filter((entry) => Object.keys(entry.fieldsV1).length > 0);
  const unchanged = own !== undefined && sameJson(own.fieldsV1, toFieldsV1(wanted.keys()));
  const mine = unchanged ? own : makeEntry(manager, wanted.keys(), now());
  merged.metadata.managedFields = [mine, ...kept];
  return { object: merged, managedFields: [mine, ...kept] };
}

function describeManager(entry: ManagedFieldsEntry): string {
  const using = entry.operation === 'Update' ? ` using ${entry.apiVersion}` : '';
  const subresource = entry.subresource === undefined ? '' : ` with subresource "${entry.subresource}"`;
  return `${JSON.stringify(entry.manager)}${subresource}${using}`;
}
