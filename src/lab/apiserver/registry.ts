/**
 * The API's verbs on objects, without HTTP: decode checks, defaults, validation, allocation, ownership, the store.
 * Synchronous from start to end, so every write is atomic. What it throws is an `ApiError`.
 */
import { randomUUID } from 'node:crypto';
import { Allocators } from './allocators.ts';
import { applyConfiguration, ownershipAfterUpdate, type Manager } from './apply.ts';
import { toStored, viewAs } from './events.ts';
import { listObjects, type ListQuery, type ListResult } from './listing.ts';
import { asObjectOf, generateName, validateMetadata } from './metadata.ts';
import { clone, now, sameJson, type JsonObject, type KubeObject, type Metadata } from './objects.ts';
import { patchedObject } from './patch.ts';
import { resourceOfKind, resources, type Resource } from './resources.ts';
import { scaleOf, withReplicas } from './scale.ts';
import { checkAgainstSchema, type SchemaFindings } from './schema.ts';
import {
  alreadyExists,
  ApiError,
  badRequest,
  conflict,
  invalid,
  modifiedMeanwhile,
  notFound,
} from './status.ts';
import { Store } from './store.ts';

export interface WriteOptions {
  readonly dryRun?: boolean;
  readonly fieldManager?: string;
  readonly fieldValidation?: 'Strict' | 'Warn' | 'Ignore';
  readonly subresource?: '' | 'status' | 'scale';
  /** Warnings for the client are pushed here. */
  readonly warnings?: string[];
  /** Server-side apply takes over what others own. */
  readonly force?: boolean;
}

export interface DeleteOptions {
  readonly gracePeriodSeconds?: number;
  readonly propagationPolicy?: string;
  readonly orphanDependents?: boolean;
  readonly preconditions?: { uid?: string; resourceVersion?: string };
  readonly dryRun?: boolean;
}

export interface Deletion {
  readonly object: KubeObject;
  /** False: the object stays until its Pods' grace period is over or its finalizers are done. */
  readonly gone: boolean;
}

const immortalNamespaces = new Set(['default', 'kube-system', 'kube-public']);

/** Removes nulls and fields the schema does not know, in place. */
function prune(value: unknown): void {
  if (Array.isArray(value)) for (const item of value) prune(item);
  else if (typeof value === 'object' && value !== null) {
    const object = value as JsonObject;
    for (const key of Object.keys(object)) {
      if (object[key] === null) delete object[key];
      else prune(object[key]);
    }
  }
}

/** Empty maps and lists of metadata are not kept. */
function dropEmpty(metadata: Metadata): void {
  for (const field of ['labels', 'annotations', 'finalizers', 'ownerReferences', 'managedFields'] as const) {
    if (metadata[field] !== undefined && Object.keys(metadata[field]).length === 0) delete metadata[field];
  }
}

function removeField(object: KubeObject, path: string): void {
  const steps = path.match(/[^.[\]]+/g) ?? [];
  let at: unknown = object;
  for (const step of steps.slice(0, -1)) at = (at as JsonObject | undefined)?.[step];
  const last = steps.at(-1);
  if (last !== undefined && typeof at === 'object' && at !== null) delete (at as JsonObject)[last];
}

export class Registry {
  readonly storage: Store;
  readonly allocators: Allocators;

  constructor(store: Store = new Store()) {
    this.storage = store;
    this.allocators = new Allocators(store);
  }

  /** Throws 404. */
  get(resource: Resource, namespace: string, name: string): KubeObject {
    return viewAs(resource, this.#stored(resource, namespace, name));
  }

  /** As `get`; undefined if there is none. */
  find(resource: Resource, namespace: string, name: string): KubeObject | undefined {
    const found = this.storage.get(resource.storage, namespace, name);
    return found === undefined ? undefined : viewAs(resource, found);
  }

  #stored(resource: Resource, namespace: string, name: string): KubeObject {
    const found = this.storage.get(resource.storage, namespace, name);
    if (found === undefined) throw notFound(resource, name);
    return found;
  }

  list(resource: Resource, query: ListQuery = {}): ListResult {
    const { meta, items } = listObjects(this.storage, resource, query);
    return {
      meta,
      items: resource.storage === resource.id ? items : items.map((one) => viewAs(resource, one)),
    };
  }

  /** Creates an object; the input belongs to the registry from now on. */
  create(resource: Resource, namespace: string, input: unknown, options: WriteOptions = {}): KubeObject {
    const object = this.#decode(resource, namespace, input, options);
    const { metadata } = object;
    if (metadata.resourceVersion)
      throw badRequest('resourceVersion should not be set on objects to be created');
    if (metadata.name === '' && metadata.generateName) metadata.name = generateName(metadata.generateName);
    this.#checkNamespace(resource, metadata.namespace ?? '', metadata.name);
    if (metadata.name !== '' && this.storage.get(resource.storage, metadata.namespace ?? '', metadata.name)) {
      throw alreadyExists(resource, metadata.name);
    }
    const { strategy } = resource;
    delete metadata.deletionTimestamp;
    delete metadata.deletionGracePeriodSeconds;
    delete metadata.generation;
    dropEmpty(metadata);
    metadata.uid = randomUUID();
    metadata.creationTimestamp = now();
    strategy.prepareCreate?.(object, this.#context());
    strategy.defaults?.(object);
    this.#validate(resource, object, undefined);
    this.#allocate(resource, object, undefined);
    metadata.managedFields ??= ownershipAfterUpdate(
      object,
      undefined,
      resource.schema,
      this.#manager(resource, options, 'Update'),
      [],
    );
    return this.#put(resource, object, options);
  }

  /** Replaces an object (or its status). */
  update(
    resource: Resource,
    namespace: string,
    name: string,
    input: unknown,
    options: WriteOptions = {},
  ): KubeObject {
    const old = this.get(resource, namespace, name);
    if (options.subresource === 'scale') {
      const object = withReplicas(old, input);
      return scaleOf(this.#replace(resource, old, object, options, true));
    }
    return this.#replace(resource, old, this.#decode(resource, namespace, input, options), options, true);
  }

  /** Changes an object with a patch of the given media type. */
  patch(
    resource: Resource,
    namespace: string,
    name: string,
    mediaType: string,
    patch: unknown,
    options: WriteOptions = {},
  ): KubeObject {
    if (mediaType === 'application/apply-patch+yaml')
      return this.apply(resource, namespace, name, patch, options);
    const old = this.get(resource, namespace, name);
    if (options.subresource === 'scale') {
      const scale = patchedObject(scaleOf(old), mediaType, patch, undefined);
      return scaleOf(this.#replace(resource, old, withReplicas(old, scale), options, true));
    }
    const patched = patchedObject(old, mediaType, patch, resource.schema);
    const object = this.#decode(resource, namespace, patched, options);
    return this.#replace(resource, old, object, options, true);
  }

  /** Server-side apply: creates what is not there. */
  apply(
    resource: Resource,
    namespace: string,
    name: string,
    input: unknown,
    options: WriteOptions,
  ): KubeObject {
    const config = this.#decode(resource, namespace, input, options);
    if (config.metadata.name === '') config.metadata.name = name;
    if (config.metadata.managedFields !== undefined && config.metadata.managedFields.length > 0) {
      throw badRequest('metadata.managedFields must be nil');
    }
    delete config.metadata.managedFields;
    const manager = this.#manager(resource, options, 'Apply');
    const live = this.find(resource, namespace, name);
    if (live === undefined) {
      if (options.subresource) throw notFound(resource, name);
      const empty: KubeObject = { kind: config.kind, apiVersion: config.apiVersion, metadata: { name } };
      const { object } = applyConfiguration(empty, config, resource.schema, manager, true);
      return this.create(resource, namespace, object, options);
    }
    const { object } = applyConfiguration(live, config, resource.schema, manager, options.force === true);
    if (config.metadata.resourceVersion) object.metadata.resourceVersion = config.metadata.resourceVersion;
    return this.#replace(resource, live, object, options, false);
  }

  /** Asks for an object's deletion. */
  delete(resource: Resource, namespace: string, name: string, options: DeleteOptions = {}): Deletion {
    const old = this.#stored(resource, namespace, name);
    const { uid, resourceVersion } = options.preconditions ?? {};
    if (uid !== undefined && uid !== old.metadata.uid) {
      const why = `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${old.metadata.uid}`;
      throw conflict(resource, name, why);
    }
    if (resourceVersion !== undefined && resourceVersion !== old.metadata.resourceVersion) {
      const why = `Precondition failed: ResourceVersion in precondition: ${resourceVersion}, ResourceVersion in object meta: ${old.metadata.resourceVersion}`;
      throw conflict(resource, name, why);
    }
    if (resource.id === 'namespaces' && immortalNamespaces.has(name)) {
      const message = `namespaces "${name}" is forbidden: this namespace may not be deleted`;
      throw new ApiError(403, 'Forbidden', message, { name, kind: 'namespaces' });
    }
    if (!options.dryRun) {
      const orphan = options.propagationPolicy === 'Orphan' || options.orphanDependents === true;
      if (orphan) this.#orphan(old);
      else if (options.propagationPolicy === 'Foreground') this.#deleteDependents(old);
    }
    const grace = this.#gracePeriod(resource, old, options);
    const stays = grace > 0 || (old.metadata.finalizers?.length ?? 0) > 0 || resource.id === 'namespaces';
    if (!stays) {
      if (options.dryRun) return { object: viewAs(resource, old), gone: true };
      const object = this.storage.remove(resource.storage, namespace, name) ?? old;
      return { object: viewAs(resource, object), gone: true };
    }
    if (old.metadata.deletionTimestamp !== undefined) {
      if (grace >= (old.metadata.deletionGracePeriodSeconds ?? 0))
        return { object: viewAs(resource, old), gone: false };
    }
    const object = clone(old);
    const end = Date.now() + grace * 1000;
    object.metadata.deletionTimestamp = `${new Date(end).toISOString().slice(0, 19)}Z`;
    object.metadata.deletionGracePeriodSeconds = grace;
    if (resource.id === 'namespaces') object.status = { ...object.status, phase: 'Terminating' };
    return {
      object: viewAs(resource, options.dryRun ? object : this.storage.put(resource.storage, object)),
      gone: false,
    };
  }

  /** Removes an object at once, without asking finalizers: the end of a namespace. */
  remove(resource: Resource, namespace: string, name: string): void {
    this.storage.remove(resource.storage, namespace, name);
  }

  /**
   * Puts many objects in place quickly, replacing those of the same name: with defaults and allocation, but
   * without unknown-field checks, validation and field ownership. Status is kept as given.
   */
  load(objects: readonly KubeObject[]): void {
    for (const input of objects) {
      const resource = resourceOfKind(input.apiVersion, input.kind);
      if (resource === undefined) throw new Error(`load: no resource for ${input.apiVersion} ${input.kind}`);
      const object = clone(input);
      const { metadata } = object;
      if (resource.namespaced) metadata.namespace ??= 'default';
      const old = this.storage.get(resource.storage, metadata.namespace ?? '', metadata.name);
      metadata.uid ??= old?.metadata.uid ?? randomUUID();
      metadata.creationTimestamp ??= old?.metadata.creationTimestamp ?? now();
      resource.strategy.defaults?.(object);
      this.#allocate(resource, object, old);
      this.storage.put(resource.storage, toStored(resource, object));
    }
  }

  /** Forgets history, as etcd compaction does. */
  compact(): void {
    this.storage.compact();
  }

  #context(): { store: Store; allocators: Allocators } {
    return { store: this.storage, allocators: this.allocators };
  }

  #manager(resource: Resource, options: WriteOptions, operation: Manager['operation']): Manager {
    const name =
      options.fieldManager === undefined || options.fieldManager === '' ? 'unknown' : options.fieldManager;
    return { name, operation, apiVersion: resource.apiVersion, subresource: options.subresource ?? '' };
  }

  #decode(resource: Resource, namespace: string, input: unknown, options: WriteOptions): KubeObject {
    const object = asObjectOf(resource, input, namespace);
    const findings: SchemaFindings = { wrongTypes: [], unknownFields: [] };
    checkAgainstSchema(object, resource.schema, '', findings);
    const about = `${resource.kind} in version "${resource.version}" cannot be handled as a ${resource.kind}`;
    if (findings.wrongTypes.length > 0) throw badRequest(`${about}: ${findings.wrongTypes.join(', ')}`);
    const unknown = findings.unknownFields.map((path) => `unknown field ${JSON.stringify(path)}`);
    if (unknown.length > 0) {
      if (options.fieldValidation === 'Strict') {
        throw badRequest(`${about}: strict decoding error: ${unknown.join(', ')}`);
      }
      if (options.fieldValidation !== 'Ignore') options.warnings?.push(...unknown);
      for (const path of findings.unknownFields) removeField(object, path);
    }
    prune(object);
    return object;
  }

  #checkNamespace(resource: Resource, namespace: string, name: string): void {
    if (!resource.namespaced) return;
    const found = this.storage.get('namespaces', '', namespace);
    if (found === undefined) {
      throw new ApiError(404, 'NotFound', `namespaces "${namespace}" not found`, {
        name: namespace,
        kind: 'namespaces',
      });
    }
    if (found.metadata.deletionTimestamp === undefined) return;
    const message = `${resource.id} "${name}" is forbidden: unable to create new content in namespace ${namespace} because it is being terminated`;
    throw new ApiError(403, 'Forbidden', message, { name, kind: resource.plural });
  }

  #validate(resource: Resource, object: KubeObject, old: KubeObject | undefined): void {
    const errors = old === undefined ? validateMetadata(resource, object) : [];
    errors.push(...(resource.strategy.validate?.(object, old) ?? []));
    if (errors.length > 0) throw invalid(resource, object.metadata.name, errors);
  }

  #allocate(resource: Resource, object: KubeObject, old: KubeObject | undefined): void {
    const errors = resource.strategy.allocate?.(object, old, this.#context()) ?? [];
    if (errors.length > 0) throw invalid(resource, object.metadata.name, errors);
  }

  #put(resource: Resource, object: KubeObject, options: WriteOptions): KubeObject {
    if (options.dryRun) return object;
    return viewAs(resource, this.storage.put(resource.storage, toStored(resource, object)));
  }

  /** Everything between the wanted state of an existing object and the store. */
  #replace(
    resource: Resource,
    old: KubeObject,
    wanted: KubeObject,
    options: WriteOptions,
    trackOwnership: boolean,
  ): KubeObject {
    const { name } = old.metadata;
    if (wanted.metadata.name !== name) {
      throw badRequest(
        `the name of the object (${wanted.metadata.name}) does not match the name on the URL (${name})`,
      );
    }
    const { resourceVersion, uid } = wanted.metadata;
    if (resourceVersion && resourceVersion !== old.metadata.resourceVersion) {
      throw conflict(resource, name, modifiedMeanwhile);
    }
    if (uid && uid !== old.metadata.uid) {
      const why = `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${old.metadata.uid ?? ''}`;
      throw conflict(resource, name, why);
    }
    const isStatus = options.subresource === 'status';
    const object = isStatus ? clone(old) : wanted;
    if (isStatus) {
      delete object.status;
      if (wanted.status !== undefined) object.status = wanted.status;
      if (wanted.metadata.managedFields !== undefined)
        object.metadata.managedFields = wanted.metadata.managedFields;
    } else if (resource.subresources.includes('status')) {
      delete object.status;
      if (old.status !== undefined) object.status = clone(old.status);
    }
    this.#keepSystemMetadata(object, old);
    resource.strategy.defaults?.(object);
    if (!isStatus) {
      resource.strategy.prepareUpdate?.(object, old, this.#context());
      resource.strategy.defaults?.(object);
    }
    if (!isStatus) {
      this.#validate(resource, object, old);
      this.#allocate(resource, object, old);
    }
    if (trackOwnership) {
      const before = object.metadata.managedFields ?? old.metadata.managedFields ?? [];
      const manager = this.#manager(resource, options, 'Update');
      object.metadata.managedFields = ownershipAfterUpdate(object, old, resource.schema, manager, before);
    }
    if (sameJson(object, old)) return old;
    const finished = object.metadata.deletionTimestamp !== undefined && !object.metadata.finalizers?.length;
    const stored = this.#put(resource, object, options);
    const waits = (object.metadata.deletionGracePeriodSeconds ?? 0) > 0 || resource.id === 'namespaces';
    if (finished && !waits && !options.dryRun) {
      this.storage.remove(resource.storage, object.metadata.namespace ?? '', name);
    }
    return stored;
  }

  #keepSystemMetadata(object: KubeObject, old: KubeObject): void {
    const { metadata } = object;
    const before = old.metadata;
    const kept = ['uid', 'creationTimestamp', 'generation', 'resourceVersion', 'generateName'] as const;
    for (const field of [...kept, 'deletionTimestamp', 'deletionGracePeriodSeconds'] as const) {
      delete metadata[field];
      if (before[field] !== undefined) Object.assign(metadata, { [field]: before[field] });
    }
    dropEmpty(metadata);
  }

  /** Seconds; 0 = gone at once. */
  #gracePeriod(resource: Resource, object: KubeObject, options: DeleteOptions): number {
    if (resource.id !== 'pods') return 0;
    const phase = object.status?.['phase'];
    if (!object.spec?.['nodeName'] || phase === 'Succeeded' || phase === 'Failed') return 0;
    return options.gracePeriodSeconds ?? Number(object.spec['terminationGracePeriodSeconds'] ?? 30);
  }

  /** Objects that name this one as an owner. */
  *dependentsOf(uid: string): Generator<{ resource: Resource; object: KubeObject }> {
    for (const resource of resources) {
      if (!resource.namespaced || resource.storage !== resource.id) continue;
      for (const object of this.storage.values(resource.storage)) {
        if (object.metadata.ownerReferences?.some((owner) => owner.uid === uid)) yield { resource, object };
      }
    }
  }

  #orphan(owner: KubeObject): void {
    for (const { resource, object } of this.dependentsOf(owner.metadata.uid ?? '')) {
      const free = clone(object);
      free.metadata.ownerReferences = (free.metadata.ownerReferences ?? []).filter(
        (one) => one.uid !== owner.metadata.uid,
      );
      this.storage.put(resource.storage, free);
    }
  }

  #deleteDependents(owner: KubeObject): void {
    for (const { resource, object } of this.dependentsOf(owner.metadata.uid ?? '')) {
      const { namespace = '', name } = object.metadata;
      if (this.storage.get(resource.storage, namespace, name) !== undefined) {
        this.delete(resource, namespace, name, { propagationPolicy: 'Foreground' });
      }
    }
  }
}
