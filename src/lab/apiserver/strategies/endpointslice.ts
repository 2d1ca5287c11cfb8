/** EndpointSlices: defaults and validation. */
import { isIPv4, isIPv6 } from 'node:net';
import { sameJson, type JsonObject, type KubeObject } from '../objects.ts';
import type { FieldError } from '../status.ts';
import { isPort, oneOf } from './serviceValidation.ts';
import type { Strategy } from './strategy.ts';

const headlessLabel = 'service.kubernetes.io/headless';

type SliceShape = {
  addressType?: string;
  endpoints?: { addresses?: string[]; conditions?: JsonObject }[];
  ports?: { name?: string; protocol?: string; port?: number }[];
};

function defaults(object: KubeObject): void {
  const slice = object as SliceShape;
  slice.endpoints ??= [];
  for (const endpoint of slice.endpoints) endpoint.conditions ??= {};
  for (const port of slice.ports ?? []) {
    port.name ??= '';
    port.protocol ??= 'TCP';
  }
}

function validate(object: KubeObject, oldObject: KubeObject | undefined): FieldError[] {
  const slice = object as SliceShape;
  const type = slice.addressType;
  if (oldObject !== undefined && oldObject['addressType'] !== type) {
    return [{ type: 'Invalid', field: 'addressType', value: type, detail: 'field is immutable' }];
  }
  if (type === undefined || type === '') return [{ type: 'Required', field: 'addressType', detail: '' }];
  const errors = oneOf('addressType', type, ['FQDN', 'IPv4', 'IPv6']);
  const endpoints = slice.endpoints ?? [];
  if (endpoints.length > 1000) {
    const detail = 'must have at most 1000 items';
    errors.push({ type: 'Invalid', field: 'endpoints', value: endpoints.length, detail });
  }
  for (const [index, { addresses }] of endpoints.entries()) {
    const field = `endpoints[${index}].addresses`;
    if (addresses === undefined || addresses.length === 0) {
      errors.push({ type: 'Required', field, detail: 'must contain at least 1 address' });
      continue;
    }
    if (addresses.length > 100) {
      errors.push({ type: 'Invalid', field, value: addresses.length, detail: 'must have at most 100 items' });
    }
    for (const [position, address] of addresses.entries()) {
      const fits = type === 'IPv4' ? isIPv4(address) : type === 'IPv6' ? isIPv6(address) : address !== '';
      if (fits) continue;
      const detail = type === 'FQDN' ? 'must be a domain name' : `must be an ${type} address`;
      errors.push({ type: 'Invalid', field: `${field}[${position}]`, value: address, detail });
    }
  }
  const names = new Set<string>();
  for (const [index, port] of (slice.ports ?? []).entries()) {
    const field = `ports[${index}]`;
    if (names.has(port.name ?? '')) {
      errors.push({ type: 'Duplicate', field: `${field}.name`, value: port.name, detail: '' });
    }
    names.add(port.name ?? '');
    errors.push(...oneOf(`${field}.protocol`, port.protocol, ['SCTP', 'TCP', 'UDP']));
    if (port.port !== undefined && port.port !== null && !isPort(port.port)) {
      const detail = 'must be between 1 and 65535, inclusive';
      errors.push({ type: 'Invalid', field: `${field}.port`, value: port.port, detail });
    }
  }
  return errors;
}

/** kube-proxy and others select on a label that says the Service is headless; the slice's writer sets it. */
export { headlessLabel };

export const endpointSliceStrategy: Strategy = {
  defaults,
  validate,
  prepareCreate: (object) => {
    object.metadata.generation = 1;
  },
  prepareUpdate: (object, old) => {
    const same = (['endpoints', 'ports', 'addressType'] as const).every((field) =>
      sameJson(object[field], old[field]),
    );
    const sameMeta = sameJson(object.metadata.labels, old.metadata.labels);
    object.metadata.generation = (old.metadata.generation ?? 0) + (same && sameMeta ? 0 : 1);
  },
};
