/** The kinds that need little: Nodes, Namespaces, ServiceCIDRs, Events and plain storage. */
import { parseCidr } from '../addresses.ts';
import { now, sameJson, type JsonObject } from '../objects.ts';
import type { FieldError } from '../status.ts';
import type { Strategy } from './strategy.ts';

export const plainStrategy: Strategy = { keepStatusOnCreate: true };

export const nodeStrategy: Strategy = {
  keepStatusOnCreate: true,
  defaults: (object) => {
    object.spec ??= {};
    object.status ??= {};
    const cidrs = object.spec['podCIDRs'] as string[] | undefined;
    if (cidrs?.[0] !== undefined) object.spec['podCIDR'] ??= cidrs[0];
    else if (object.spec['podCIDR']) object.spec['podCIDRs'] = [object.spec['podCIDR']];
  },
  validate: (object, old) => {
    const errors: FieldError[] = [];
    const cidrs = (object.spec?.['podCIDRs'] as string[] | undefined) ?? [];
    for (const [index, cidr] of cidrs.entries()) {
      if (parseCidr(cidr) !== undefined) continue;
      const detail = 'must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)';
      errors.push({ type: 'Invalid', field: `spec.podCIDRs[${index}]`, value: cidr, detail });
    }
    const before = (old?.spec?.['podCIDRs'] as string[] | undefined) ?? [];
    if (before.length > 0 && !sameJson(before, cidrs)) {
      const detail = 'node updates may not change podCIDR except from "" to valid';
      errors.push({ type: 'Forbidden', field: 'spec.podCIDRs', detail });
    }
    return errors;
  },
};

export const namespaceStrategy: Strategy = {
  nameFormat: 'dns1123label',
  prepareCreate: (object) => {
    object.spec = { finalizers: ['kubernetes'] };
    object.status = { phase: 'Active' };
    object.metadata.labels = {
      ...object.metadata.labels,
      'kubernetes.io/metadata.name': object.metadata.name,
    };
  },
  prepareUpdate: (object, old) => {
    if (old.spec !== undefined) object.spec = old.spec;
  },
};

export const serviceCidrStrategy: Strategy = {
  prepareCreate: (object) => {
    const message = 'Kubernetes Service CIDR is ready';
    const condition = { type: 'Ready', status: 'True', lastTransitionTime: now(), reason: '', message };
    object.status = { conditions: [condition] };
  },
  validate: (object, old) => {
    const cidrs = (object.spec?.['cidrs'] as string[] | undefined) ?? [];
    const errors: FieldError[] = [];
    if (cidrs.length === 0) {
      errors.push({ type: 'Required', field: 'spec.cidrs', detail: 'at least one CIDR required' });
    }
    const ranges = cidrs.map(parseCidr);
    for (const [index, range] of ranges.entries()) {
      if (range !== undefined) continue;
      const detail = 'must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)';
      errors.push({ type: 'Invalid', field: `spec.cidrs[${index}]`, value: cidrs[index], detail });
    }
    if (cidrs.length > 2 || (cidrs.length === 2 && ranges[0]?.family === ranges[1]?.family)) {
      const detail =
        'may specify no more than one IP for each IP family, i.e. 192.168.0.0/24 and 2001:db8::/64';
      errors.push({ type: 'Invalid', field: 'spec.cidrs', value: cidrs, detail });
    }
    if (old !== undefined && !sameJson(old.spec?.['cidrs'], cidrs)) {
      errors.push({ type: 'Invalid', field: 'spec.cidrs', value: cidrs, detail: 'field is immutable' });
    }
    return errors;
  },
};

export const secretStrategy: Strategy = {
  defaults: (object) => {
    object['type'] ??= 'Opaque';
    const strings = object['stringData'] as JsonObject | undefined;
    if (strings === undefined) return;
    const data: JsonObject = { ...(object['data'] as JsonObject | undefined) };
    for (const [key, value] of Object.entries(strings)) {
      data[key] = Buffer.from(value as string).toString('base64');
    }
    object['data'] = data;
    delete object['stringData'];
  },
};

export const eventStrategy: Strategy = { nameFormat: 'any' };
