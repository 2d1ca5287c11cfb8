/** Names, namespaces, labels and the rest of `metadata`: what holds for every kind. */
import { randomInt } from 'node:crypto';
import { isObject, type KubeObject } from './objects.ts';
import type { Resource } from './resources.ts';
import { badRequest, type FieldError } from './status.ts';

const dns1035 = {
  pattern: /^[a-z]([-a-z0-9]*[a-z0-9])?$/,
  longest: 63,
  detail:
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
};
const dns1123label = {
  pattern: /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/,
  longest: 63,
  detail:
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
};
const dns1123subdomain = {
  pattern: /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/,
  longest: 253,
  detail:
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
};
/** Anything that can be one segment of a path. */
const pathSegment = {
  pattern: /^(?!\.{1,2}$)[^/%\s]+$/,
  longest: 253,
  detail: "may not be '.' or '..' and may not contain '/' or '%'",
};

const labelKey = /^([a-z0-9]([-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
const labelValue = /^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/;
const labelKeyDetail =
  "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const labelValueDetail =
  "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

function nameRule(resource: Resource): typeof dns1035 {
  switch (resource.strategy.nameFormat) {
    case 'dns1035':
      return dns1035;
    case 'dns1123label':
      return dns1123label;
    case 'any':
      return pathSegment;
    default:
      return dns1123subdomain;
  }
}

export function validateMetadata(resource: Resource, object: KubeObject): FieldError[] {
  const { name, labels, annotations } = object.metadata;
  const errors: FieldError[] = [];
  const rule = nameRule(resource);
  if (name === '') {
    const detail = 'name or generateName is required';
    errors.push({ type: 'Required', field: 'metadata.name', detail });
  } else if (name.length > rule.longest) {
    const detail = `must be no more than ${rule.longest} characters`;
    errors.push({ type: 'Invalid', field: 'metadata.name', value: name, detail });
  } else if (!rule.pattern.test(name)) {
    errors.push({ type: 'Invalid', field: 'metadata.name', value: name, detail: rule.detail });
  }
  for (const [key, value] of Object.entries(labels ?? {})) {
    if (!labelKey.test(key)) {
      errors.push({ type: 'Invalid', field: 'metadata.labels', value: key, detail: labelKeyDetail });
    }
    if (!labelValue.test(value)) {
      errors.push({ type: 'Invalid', field: 'metadata.labels', value, detail: labelValueDetail });
    }
  }
  for (const key of Object.keys(annotations ?? {})) {
    if (labelKey.test(key.toLowerCase())) continue;
    errors.push({ type: 'Invalid', field: 'metadata.annotations', value: key, detail: labelKeyDetail });
  }
  return errors;
}

const suffixLetters = 'bcdfghjklmnpqrstvwxz2456789';

/** A name as `generateName` makes it: five random letters after the prefix. */
export function generateName(prefix: string): string {
  let name = prefix.slice(0, 58);
  for (let count = 0; count < 5; count++) name += suffixLetters[randomInt(suffixLetters.length)];
  return name;
}

/** Reads a request's body as an object of the resource: kind, version and namespace agree, metadata is there. Throws 400. */
export function asObjectOf(resource: Resource, value: unknown, namespace: string): KubeObject {
  if (!isObject(value))
    throw badRequest(`the object provided is not a ${resource.kind}: expected a JSON object`);
  value['apiVersion'] ??= resource.apiVersion;
  value['kind'] ??= resource.kind;
  const { apiVersion, kind } = value as { apiVersion: string; kind: string };
  if (apiVersion !== resource.apiVersion || kind !== resource.kind) {
    throw badRequest(
      `${kind} in version ${JSON.stringify(apiVersion)} cannot be handled as a ${resource.kind}: converting (${apiVersion}.${kind}) to (${resource.apiVersion}.${resource.kind}): unknown conversion`,
    );
  }
  if (value['metadata'] === undefined || value['metadata'] === null) value['metadata'] = {};
  if (!isObject(value['metadata'])) throw badRequest('metadata: must be an object');
  const { metadata } = value as unknown as KubeObject;
  metadata.name ??= '';
  if (!resource.namespaced) delete metadata.namespace;
  else if (!metadata.namespace) metadata.namespace = namespace;
  else if (metadata.namespace !== namespace) {
    throw badRequest('the namespace of the provided object does not match the namespace sent on the request');
  }
  return value as unknown as KubeObject;
}
