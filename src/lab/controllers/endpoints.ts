/** The former Endpoints objects, kept in step with the EndpointSlices of Services that have a selector. */
import { sameJson, type JsonObject, type KubeObject } from '../apiserver/objects.ts';
import {
  endpoints,
  endpointSlices,
  makeController,
  services,
  splitKey,
  type Controller,
  type ControllerBase,
} from './controller.ts';
import { serviceNameLabel } from './endpointslice.ts';

const managedByLabel = 'endpoints.kubernetes.io/managed-by';
const managedBy = 'endpoint-controller';

function subsetsOf(slices: readonly KubeObject[]): JsonObject[] {
  const subsets: JsonObject[] = [];
  for (const slice of slices) {
    const addresses: JsonObject[] = [];
    const notReadyAddresses: JsonObject[] = [];
    for (const endpoint of (slice['endpoints'] as JsonObject[] | undefined) ?? []) {
      const conditions = endpoint['conditions'] as JsonObject | undefined;
      if (conditions?.['terminating'] === true && conditions['ready'] !== true) continue;
      const { nodeName, targetRef } = endpoint;
      const ip = (endpoint['addresses'] as string[])[0] ?? '';
      (conditions?.['ready'] === false ? notReadyAddresses : addresses).push({
        ip,
        ...(nodeName === undefined ? {} : { nodeName }),
        ...(targetRef === undefined ? {} : { targetRef }),
      });
    }
    if (addresses.length === 0 && notReadyAddresses.length === 0) continue;
    const ports = ((slice['ports'] as JsonObject[] | undefined) ?? []).map(({ name, ...port }) =>
      name === '' || name === undefined ? port : { name, ...port },
    );
    subsets.push({
      ...(addresses.length === 0 ? {} : { addresses }),
      ...(notReadyAddresses.length === 0 ? {} : { notReadyAddresses }),
      ports,
    });
  }
  return subsets;
}

export function startEndpointsController(base: ControllerBase): Controller {
  const { registry } = base;
  const options = { fieldManager: 'kube-controller-manager' };

  const work = (key: string): void => {
    const [namespace, name] = splitKey(key);
    const service = registry.find(services, namespace, name);
    const old = registry.find(endpoints, namespace, name);
    const hasSelector = Object.keys((service?.spec?.['selector'] as JsonObject | undefined) ?? {}).length > 0;
    if (service === undefined || !hasSelector) {
      if (old?.metadata.labels?.[managedByLabel] === managedBy) registry.delete(endpoints, namespace, name);
      return;
    }
    const family = (service.spec?.['ipFamilies'] as string[] | undefined)?.[0] ?? 'IPv4';
    const labelSelector = `${serviceNameLabel}=${name}`;
    const slices = registry
      .list(endpointSlices, { namespace, labelSelector })
      .items.filter((slice) => slice['addressType'] === family);
    const subsets = subsetsOf(slices);
    const wanted = { metadata: { name, labels: { [managedByLabel]: managedBy } }, subsets };
    if (old === undefined) registry.create(endpoints, namespace, structuredClone(wanted), options);
    else if (!sameJson(old['subsets'] ?? [], subsets)) {
      registry.update(endpoints, namespace, name, structuredClone(wanted), options);
    }
  };

  return makeController(
    base,
    'endpoints',
    {
      [endpointSlices.storage]: ({ object }) => {
        const name = object.metadata.labels?.[serviceNameLabel];
        return name === undefined ? [] : [`${object.metadata.namespace ?? ''}/${name}`];
      },
      [services.storage]: ({ key, object }) => (object.spec?.['selector'] === undefined ? [] : [key]),
    },
    work,
  );
}
