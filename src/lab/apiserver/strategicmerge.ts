/** Merge patches: RFC 7386, and Kubernetes' strategic variant, which merges lists by the keys of the schema. */
import { clone, isObject, sameJson, type Json, type JsonObject } from './objects.ts';
import { childSchema, type ListSchema, type Schema } from './schema.ts';
import { badRequest } from './status.ts';

/** RFC 7386. Neither argument is changed. */
export function mergePatch(target: Json | undefined, patch: Json): Json {
  if (!isObject(patch)) return clone(patch);
  const result: JsonObject = isObject(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null || value === undefined) delete result[key];
    else result[key] = mergePatch(result[key], value);
  }
  return result;
}

const anySchema: Schema = { type: 'any' };

/** Kubernetes' strategic merge patch. Neither argument is changed. Throws 400 for directives that make no sense. */
export function strategicMergePatch(target: Json | undefined, patch: Json, schema: Schema): Json {
  if (!isObject(patch)) return clone(patch);
  return mergeObjects(isObject(target) ? target : {}, patch, schema);
}

function mergeObjects(target: JsonObject, patch: JsonObject, schema: Schema): JsonObject {
  const directive = patch['$patch'];
  if (directive === 'replace') return withoutDirectives(patch);
  if (directive === 'delete') return {};
  if (directive !== undefined && directive !== 'merge') {
    throw badRequest(`Unknown patch type: ${JSON.stringify(directive)} in map`);
  }
  const result: JsonObject = { ...target };
  const retained = patch['$retainKeys'];
  if (Array.isArray(retained)) {
    for (const key of Object.keys(result)) if (!retained.includes(key)) delete result[key];
  }
  for (const [key, value] of Object.entries(patch)) {
    if (value === undefined || key === '$patch' || key === '$retainKeys') continue;
    if (key.startsWith('$deleteFromPrimitiveList/')) {
      const field = key.slice('$deleteFromPrimitiveList/'.length);
      const current = result[field];
      const gone = Array.isArray(value) ? value : [];
      if (Array.isArray(current))
        result[field] = current.filter((item) => !gone.some((one) => sameJson(one, item)));
      continue;
    }
    if (key.startsWith('$setElementOrder/')) continue;
    if (value === null) {
      delete result[key];
      continue;
    }
    const field = childSchema(schema, key) ?? anySchema;
    const order = patch[`$setElementOrder/${key}`];
    if (field.type === 'list' && Array.isArray(value)) {
      const merged = mergeLists(result[key], value, field);
      result[key] = Array.isArray(order) ? ordered(merged, order, field) : merged;
    } else if (isObject(value)) {
      const current = result[key];
      result[key] = mergeObjects(isObject(current) ? current : {}, value, field);
    } else {
      result[key] = clone(value);
    }
  }
  for (const [key, order] of Object.entries(patch)) {
    if (!key.startsWith('$setElementOrder/') || !Array.isArray(order)) continue;
    const name = key.slice('$setElementOrder/'.length);
    const field = childSchema(schema, name);
    const current = result[name];
    if (patch[name] === undefined && field?.type === 'list' && Array.isArray(current)) {
      result[name] = ordered(current, order, field);
    }
  }
  return result;
}

function mergeLists(current: Json | undefined, patch: Json[], schema: ListSchema): Json[] {
  const { mergeKey } = schema;
  const replaces = patch.some((item) => isObject(item) && item['$patch'] === 'replace');
  if (mergeKey === undefined || replaces || !Array.isArray(current)) {
    return patch
      .filter((item) => !isObject(item) || item['$patch'] === undefined)
      .map((item) => (isObject(item) ? mergeObjects({}, item, schema.items) : clone(item)));
  }
  if (mergeKey === '') {
    return [...current, ...patch.filter((item) => !current.some((one) => sameJson(one, item)))];
  }
  let result = [...current];
  for (const item of patch) {
    if (!isObject(item)) throw badRequest(`list item ${JSON.stringify(item)} has no field ${mergeKey}`);
    const key = item[mergeKey];
    if (key === undefined)
      throw badRequest(`map: ${JSON.stringify(item)} does not contain declared merge key: ${mergeKey}`);
    // Ports may share their number between protocols: then all keys of the list must agree.
    const fits = (one: Json): boolean =>
      isObject(one) &&
      sameJson(one[mergeKey], key) &&
      schema.keys.every(
        (name) => item[name] === undefined || one[name] === undefined || one[name] === item[name],
      );
    if (item['$patch'] === 'delete') {
      result = result.filter((one) => !fits(one));
      continue;
    }
    const at = result.findIndex(fits);
    if (at < 0) result.push(mergeObjects({}, item, schema.items));
    else result[at] = mergeObjects(result[at] as JsonObject, item, schema.items);
  }
  return result;
}

/** Items named in `order` in that order; those it does not name keep their place relative to the one before them. */
function ordered(items: Json[], order: Json[], schema: ListSchema): Json[] {
  const { mergeKey } = schema;
  const position = (item: Json): number =>
    order.findIndex((wanted) =>
      mergeKey !== undefined && mergeKey !== '' && isObject(wanted) && isObject(item)
        ? sameJson(wanted[mergeKey], item[mergeKey])
        : sameJson(wanted, item),
    );
  let last = -1;
  return items
    .map((item, index) => {
      const at = position(item);
      if (at >= 0) last = at;
      return { item, index, at: at >= 0 ? at : last + 0.5 };
    })
    .sort((a, b) => a.at - b.at || a.index - b.index)
    .map(({ item }) => item);
}

function withoutDirectives(value: JsonObject): JsonObject {
  const result: JsonObject = {};
  for (const [key, item] of Object.entries(value)) if (!key.startsWith('$')) result[key] = clone(item);
  return result;
}
