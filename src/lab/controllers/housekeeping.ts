/** Dependents of deleted owners go; deleted namespaces are emptied and then removed. */
import { resources } from '../apiserver/resources.ts';
import {
  deleteIfThere,
  makeController,
  namespaces,
  pods,
  type Controller,
  type ControllerBase,
} from './controller.ts';

const owners = ['deployments.apps', 'replicasets.apps', 'services', 'pods'];

export function startGarbageCollector(base: ControllerBase): Controller {
  const { registry } = base;
  return makeController(
    base,
    'garbage',
    Object.fromEntries(
      owners.map((resource) => [
        resource,
        ({ type, object }) => (type === 'DELETED' ? [object.metadata.uid ?? ''] : []),
      ]),
    ),
    (uid) => {
      for (const { resource, object } of registry.dependentsOf(uid))
        deleteIfThere(registry, resource, object);
    },
  );
}

export function startNamespaceController(base: ControllerBase): Controller {
  const { registry } = base;
  const work = (name: string): void => {
    const namespace = registry.find(namespaces, '', name);
    if (namespace?.metadata.deletionTimestamp === undefined) return;
    let left = 0;
    for (const resource of resources) {
      if (!resource.namespaced || resource.storage !== resource.id) continue;
      for (const object of registry.list(resource, { namespace: name }).items) {
        if (object.metadata.deletionTimestamp === undefined) deleteIfThere(registry, resource, object);
        if (registry.find(resource, name, object.metadata.name) !== undefined) left++;
      }
    }
    if (left === 0) registry.remove(namespaces, '', name);
  };
  return makeController(
    base,
    'namespace',
    {
      [namespaces.storage]: ({ type, object }) => (type === 'DELETED' ? [] : [object.metadata.name]),
      [pods.storage]: ({ type, object }) => (type === 'DELETED' ? [object.metadata.namespace ?? ''] : []),
    },
    work,
  );
}
