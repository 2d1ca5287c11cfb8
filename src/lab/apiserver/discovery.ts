/** What the server offers, in the forms clients ask for: the lists of old and aggregated discovery (v2). */
import type { JsonObject } from './objects.ts';
import { resources, type Resource, type Subresource } from './resources.ts';

export const kubernetesVersion: JsonObject = {
  major: '1',
  minor: '36',
  emulationMajor: '1',
  emulationMinor: '36',
  minCompatibilityMajor: '1',
  minCompatibilityMinor: '35',
  gitVersion: 'v1.36.2',
  gitCommit: '',
  gitTreeState: 'clean',
  buildDate: '1970-01-01T00:00:00Z',
  goVersion: 'none',
  compiler: 'pointsman-lab',
  platform: `${process.platform}/${process.arch === 'x64' ? 'amd64' : process.arch}`,
};

const verbs = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'];

function verbsOf(subresource: Subresource): string[] {
  return subresource === 'eviction' ? ['create'] : ['get', 'patch', 'update'];
}

/** Reviews have no storage: they answer a question about the asking user. */
const reviews = [
  { group: 'authorization.k8s.io', plural: 'selfsubjectaccessreviews', kind: 'SelfSubjectAccessReview' },
  { group: 'authentication.k8s.io', plural: 'selfsubjectreviews', kind: 'SelfSubjectReview' },
];

const groups: readonly string[] = [
  ...new Set([...resources.map((one) => one.group), ...reviews.map((one) => one.group)]),
];

function responseKindOf(
  subresource: Subresource,
  resource: Resource,
): { group: string; version: string; kind: string } {
  if (subresource === 'scale') return { group: 'autoscaling', version: 'v1', kind: 'Scale' };
  if (subresource === 'eviction') return { group: 'policy', version: 'v1', kind: 'Eviction' };
  return { group: resource.group, version: 'v1', kind: resource.kind };
}

/** `/api/v1`, `/apis/GROUP/v1`; undefined if there is no such group. */
export function resourceList(group: string): JsonObject | undefined {
  if (!groups.includes(group)) return undefined;
  const list: JsonObject[] = [];
  for (const resource of resources.filter((one) => one.group === group)) {
    list.push({
      name: resource.plural,
      singularName: resource.singular,
      namespaced: resource.namespaced,
      kind: resource.kind,
      verbs,
      ...(resource.shortNames.length === 0 ? {} : { shortNames: [...resource.shortNames] }),
      ...(resource.categories.length === 0 ? {} : { categories: [...resource.categories] }),
    });
    for (const subresource of resource.subresources) {
      const name = `${resource.plural}/${subresource}`;
      const { namespaced } = resource;
      const kind = responseKindOf(subresource, resource);
      const foreign = subresource === 'status' ? {} : { group: kind.group, version: kind.version };
      list.push({
        name,
        singularName: '',
        namespaced,
        ...foreign,
        kind: kind.kind,
        verbs: verbsOf(subresource),
      });
    }
  }
  for (const review of reviews.filter((one) => one.group === group)) {
    const singularName = review.kind.toLowerCase();
    list.push({ name: review.plural, singularName, namespaced: false, kind: review.kind, verbs: ['create'] });
  }
  const groupVersion = group === '' ? 'v1' : `${group}/v1`;
  return { kind: 'APIResourceList', apiVersion: 'v1', groupVersion, resources: list };
}

function groupOf(name: string): JsonObject {
  const version = { groupVersion: `${name}/v1`, version: 'v1' };
  return { name, versions: [version], preferredVersion: version };
}

/** `/apis/GROUP` */
export function apiGroup(name: string): JsonObject | undefined {
  if (name === '' || !groups.includes(name)) return undefined;
  return { kind: 'APIGroup', apiVersion: 'v1', ...groupOf(name) };
}

/** `/apis` */
export function apiGroupList(): JsonObject {
  return { kind: 'APIGroupList', apiVersion: 'v1', groups: groups.filter((one) => one !== '').map(groupOf) };
}

/** `/api` */
export function apiVersions(): JsonObject {
  return { kind: 'APIVersions', apiVersion: 'v1', versions: ['v1'], serverAddressByClientCIDRs: [] };
}

function discoveryOf(resource: Resource): JsonObject {
  return {
    resource: resource.plural,
    responseKind: { group: resource.group, version: 'v1', kind: resource.kind },
    scope: resource.namespaced ? 'Namespaced' : 'Cluster',
    singularResource: resource.singular,
    verbs,
    ...(resource.shortNames.length === 0 ? {} : { shortNames: [...resource.shortNames] }),
    ...(resource.categories.length === 0 ? {} : { categories: [...resource.categories] }),
    ...(resource.subresources.length === 0
      ? {}
      : {
          subresources: resource.subresources.map((subresource) => ({
            subresource,
            responseKind: responseKindOf(subresource, resource),
            verbs: verbsOf(subresource),
          })),
        }),
  };
}

/** Aggregated discovery (KEP-3352) of `/api` (core) or `/apis` (all other groups). */
export function aggregatedDiscovery(core: boolean, version: 'v2' | 'v2beta1'): JsonObject {
  const items = groups
    .filter((name) => (name === '') === core)
    .map((name) => ({
      metadata: name === '' ? {} : { name },
      versions: [
        {
          version: 'v1',
          freshness: 'Current',
          resources: [
            ...resources.filter((one) => one.group === name).map(discoveryOf),
            ...reviews
              .filter((one) => one.group === name)
              .map((one) => ({
                resource: one.plural,
                responseKind: { group: name, version: 'v1', kind: one.kind },
                scope: 'Cluster',
                singularResource: one.kind.toLowerCase(),
                verbs: ['create'],
              })),
          ],
        },
      ],
    }));
  return { kind: 'APIGroupDiscoveryList', apiVersion: `apidiscovery.k8s.io/${version}`, metadata: {}, items };
}
