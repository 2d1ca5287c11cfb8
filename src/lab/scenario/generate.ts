/** Expands the shorthand of scenario files: `generate` blocks, `${i…}` arithmetic and `endpointRange`. Pure. */
import { addToIp } from '../net/address.ts';

export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json;
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A scalar as text, anything else as JSON; absent is empty. */
export function asText(value: Json | undefined): string {
  if (value === undefined) return '';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

const expression = /\$\{\s*([^}]*?)\s*\}/g;

/** `i/250+20` with i given: integer arithmetic, strictly from left to right. Throws on anything else. */
export function evaluate(text: string, i: number): number {
  const tokens = text.match(/\d+|i|[-+*/%]|\S/g) ?? [];
  const operand = (token: string | undefined): number => {
    if (token === 'i') return i;
    if (token !== undefined && /^\d+$/.test(token)) return Number(token);
    throw new Error(`"\${${text}}" is not arithmetic with i and whole numbers`);
  };
  let value = operand(tokens[0]);
  for (let at = 1; at < tokens.length; at += 2) {
    const right = operand(tokens[at + 1]);
    switch (tokens[at]) {
      case '+':
        value += right;
        break;
      case '-':
        value -= right;
        break;
      case '*':
        value *= right;
        break;
      case '/':
        value = Math.trunc(value / right);
        break;
      case '%':
        value %= right;
        break;
      default:
        throw new Error(`"\${${text}}": "${tokens[at]}" is not an operator`);
    }
    if (!Number.isFinite(value)) throw new Error(`"\${${text}}" divides by zero`);
  }
  return value;
}

/** Fields that are numbers in the API: a text of digits made from `${…}` becomes one there. */
const numeric = new Set(['port', 'nodePort', 'targetPort', 'healthCheckNodePort', 'timeoutSeconds', 'count']);

/** A copy of `value` with every `${…}` replaced. */
export function substitute(value: Json, i: number, key = ''): Json {
  if (typeof value === 'string') {
    if (!value.includes('${')) return value;
    const text = value.replace(expression, (_, inner: string) => String(evaluate(inner, i)));
    return numeric.has(key) && /^\d+$/.test(text) ? Number(text) : text;
  }
  if (Array.isArray(value)) return value.map((item: Json) => substitute(item, i, key));
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, field]) => [
      name.includes('${') ? asText(substitute(name, i)) : name,
      substitute(field, i, name),
    ]),
  );
}

/** `endpointRange: {first, count, …}` → `count` ready endpoints with consecutive addresses and the other fields. */
function expandEndpointRange(object: JsonObject): JsonObject {
  const range = object['endpointRange'];
  if (range === undefined) return object;
  if (!isObject(range) || typeof range['first'] !== 'string') {
    throw new Error('endpointRange needs "first" (an address) and "count"');
  }
  const { first, count, ...rest } = range;
  const endpoints: Json[] = Array.isArray(object['endpoints']) ? [...(object['endpoints'] as Json[])] : [];
  for (let i = 0; i < Number(count); i++) {
    endpoints.push({ conditions: { ready: true }, ...rest, addresses: [addToIp(first, i)] });
  }
  const { endpointRange: _, ...others } = object;
  return { ...others, endpoints };
}

/** All objects of a list that may hold `generate` blocks (also nested ones). */
export function expandObjects(list: readonly Json[]): JsonObject[] {
  const objects: JsonObject[] = [];
  for (const item of list) {
    if (!isObject(item)) throw new Error(`an object was expected, not ${JSON.stringify(item)}`);
    const generate = item['generate'];
    if (generate === undefined) {
      objects.push(expandEndpointRange(item));
      continue;
    }
    if (!isObject(generate) || !Array.isArray(generate['objects'])) {
      throw new Error('generate needs "count" and "objects"');
    }
    const start = Number(generate['start'] ?? 0);
    const count = Number(generate['count']);
    if (!Number.isInteger(start) || !Number.isInteger(count)) {
      throw new Error('generate: "start" and "count" are whole numbers');
    }
    for (let i = start; i < start + count; i++) {
      objects.push(...expandObjects(substitute(generate['objects'] as Json[], i) as Json[]));
    }
  }
  return objects;
}

/** RFC 7396. Null deletes. */
export function mergePatch(target: Json, patch: Json): Json {
  if (!isObject(patch)) return patch;
  const merged: Record<string, Json> = isObject(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else merged[key] = mergePatch(merged[key] ?? null, value);
  }
  return merged;
}
