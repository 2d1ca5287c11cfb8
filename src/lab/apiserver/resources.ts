/** The table of resources: names, types, what can be done with them, and by which fields they are selected. */
import { isObject, type KubeObject } from './objects.ts';
import { schemaOf, type StructSchema } from './schema.ts';
import type { ResourceName } from './status.ts';
import { endpointSliceStrategy } from './strategies/endpointslice.ts';
import {
  eventStrategy,
  namespaceStrategy,
  nodeStrategy,
  plainStrategy,
  secretStrategy,
  serviceCidrStrategy,
} from './strategies/others.ts';
import { serviceStrategy } from './strategies/service.ts';
import type { Strategy } from './strategies/strategy.ts';
import { deploymentStrategy, podStrategy, replicaSetStrategy } from './strategies/workloads.ts';

export type Subresource = 'status' | 'scale' | 'eviction';

export type FieldReaders = Readonly<Record<string, (object: KubeObject) => string>>;

export interface Resource extends ResourceName {
  /** `services`, `endpointslices.discovery.k8s.io`: unique, also the name in the store. */
  readonly id: string;
  /** Where the objects are kept: another resource's id for a second view of the same objects. */
  readonly storage: string;
  readonly version: string;
  /** `v1`, `apps/v1` */
  readonly apiVersion: string;
  readonly singular: string;
  readonly namespaced: boolean;
  readonly shortNames: readonly string[];
  readonly categories: readonly string[];
  readonly subresources: readonly Subresource[];
  readonly schema: StructSchema;
  readonly strategy: Strategy;
  readonly fields: FieldReaders;
}

function read(object: unknown, path: readonly string[]): string {
  let value: unknown = object;
  for (const step of path) value = isObject(value) ? value[step] : undefined;
  if (typeof value === 'string') return value;
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : '';
}

function readers(...paths: string[]): FieldReaders {
  return Object.fromEntries(
    ['metadata.name', 'metadata.namespace', ...paths].map((path) => {
      const steps = path.split('.');
      return [path, (object: KubeObject): string => read(object, steps)];
    }),
  );
}

interface Entry {
  readonly group?: string;
  readonly package: string;
  readonly kind: string;
  readonly plural: string;
  readonly cluster?: boolean;
  readonly short?: readonly string[];
  readonly all?: boolean;
  readonly sub?: readonly Subresource[];
  readonly strategy?: Strategy;
  readonly fields?: FieldReaders;
  readonly storage?: string;
}

const core = 'io.k8s.api.core.v1';
const involved = ['kind', 'namespace', 'name', 'uid', 'apiVersion', 'resourceVersion', 'fieldPath'];

const entries: readonly Entry[] = [
  {
    package: core,
    kind: 'Namespace',
    plural: 'namespaces',
    cluster: true,
    short: ['ns'],
    sub: ['status'],
    strategy: namespaceStrategy,
    fields: readers('status.phase'),
  },
  {
    package: core,
    kind: 'Node',
    plural: 'nodes',
    cluster: true,
    short: ['no'],
    sub: ['status'],
    strategy: nodeStrategy,
    fields: readers('spec.unschedulable'),
  },
  {
    package: core,
    kind: 'Service',
    plural: 'services',
    short: ['svc'],
    all: true,
    sub: ['status'],
    strategy: serviceStrategy,
    fields: readers('spec.clusterIP', 'spec.type'),
  },
  {
    package: core,
    kind: 'Pod',
    plural: 'pods',
    short: ['po'],
    all: true,
    sub: ['status', 'eviction'],
    strategy: podStrategy,
    fields: readers(
      'spec.nodeName',
      'spec.restartPolicy',
      'spec.schedulerName',
      'spec.serviceAccountName',
      'spec.hostNetwork',
      'status.phase',
      'status.podIP',
      'status.nominatedNodeName',
    ),
  },
  { package: core, kind: 'Endpoints', plural: 'endpoints', short: ['ep'], strategy: plainStrategy },
  {
    package: core,
    kind: 'Event',
    plural: 'events',
    short: ['ev'],
    strategy: eventStrategy,
    fields: readers(
      ...involved.map((field) => `involvedObject.${field}`),
      'reason',
      'type',
      'source',
      'reportingComponent',
    ),
  },
  { package: core, kind: 'ConfigMap', plural: 'configmaps', short: ['cm'], strategy: plainStrategy },
  { package: core, kind: 'Secret', plural: 'secrets', strategy: secretStrategy, fields: readers('type') },
  {
    package: core,
    kind: 'ServiceAccount',
    plural: 'serviceaccounts',
    short: ['sa'],
    strategy: plainStrategy,
  },
  {
    group: 'apps',
    package: 'io.k8s.api.apps.v1',
    kind: 'Deployment',
    plural: 'deployments',
    short: ['deploy'],
    all: true,
    sub: ['status', 'scale'],
    strategy: deploymentStrategy,
  },
  {
    group: 'apps',
    package: 'io.k8s.api.apps.v1',
    kind: 'ReplicaSet',
    plural: 'replicasets',
    short: ['rs'],
    all: true,
    sub: ['status', 'scale'],
    strategy: replicaSetStrategy,
    fields: readers('status.replicas'),
  },
  {
    group: 'events.k8s.io',
    package: 'io.k8s.api.events.v1',
    kind: 'Event',
    plural: 'events',
    short: ['ev'],
    strategy: eventStrategy,
    storage: 'events',
    fields: {
      ...readers('reason', 'type'),
      ...Object.fromEntries(
        involved.map((field) => [
          `regarding.${field}`,
          (object: KubeObject): string => read(object, ['involvedObject', field]),
        ]),
      ),
    },
  },
  {
    group: 'networking.k8s.io',
    package: 'io.k8s.api.networking.v1',
    kind: 'ServiceCIDR',
    plural: 'servicecidrs',
    cluster: true,
    sub: ['status'],
    strategy: serviceCidrStrategy,
  },
  {
    group: 'networking.k8s.io',
    package: 'io.k8s.api.networking.v1',
    kind: 'IPAddress',
    plural: 'ipaddresses',
    cluster: true,
    short: ['ip'],
    strategy: { nameFormat: 'any' },
    fields: readers('spec.parentRef.name'),
  },
  {
    group: 'coordination.k8s.io',
    package: 'io.k8s.api.coordination.v1',
    kind: 'Lease',
    plural: 'leases',
    strategy: plainStrategy,
  },
  {
    group: 'discovery.k8s.io',
    package: 'io.k8s.api.discovery.v1',
    kind: 'EndpointSlice',
    plural: 'endpointslices',
    strategy: endpointSliceStrategy,
  },
];

function toResource(entry: Entry): Resource {
  const group = entry.group ?? '';
  const id = group === '' ? entry.plural : `${entry.plural}.${group}`;
  return {
    id,
    storage: entry.storage ?? id,
    group,
    version: 'v1',
    apiVersion: group === '' ? 'v1' : `${group}/v1`,
    kind: entry.kind,
    plural: entry.plural,
    singular: entry.kind.toLowerCase(),
    namespaced: entry.cluster !== true,
    shortNames: entry.short ?? [],
    categories: entry.all === true ? ['all'] : [],
    subresources: entry.sub ?? [],
    schema: schemaOf(`${entry.package}.${entry.kind}`),
    strategy: entry.strategy ?? plainStrategy,
    fields: entry.fields ?? readers(),
  };
}

export const resources: readonly Resource[] = entries.map(toResource);

const byPath = new Map(resources.map((one) => [`${one.group}/${one.plural}`, one]));
const byKind = new Map(resources.map((one) => [`${one.apiVersion}/${one.kind}`, one]));
const byId = new Map(resources.map((one) => [one.id, one]));

export function resourceAt(group: string, version: string, plural: string): Resource | undefined {
  return version === 'v1' ? byPath.get(`${group}/${plural}`) : undefined;
}

export function resourceOfKind(apiVersion: string, kind: string): Resource | undefined {
  return byKind.get(`${apiVersion}/${kind}`);
}

/** Throws if there is none: for names written in code. */
export function resourceById(id: string): Resource {
  const found = byId.get(id);
  if (found === undefined) throw new Error(`no resource ${id}`);
  return found;
}
