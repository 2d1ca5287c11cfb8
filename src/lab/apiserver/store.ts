/**
 * The store: objects by resource, one revision counter, and a bounded history of changes, so that watches resume
 * and paged lists stay at their revision. Stored objects are never changed: a write puts a new object in place.
 * Everything is synchronous, so a write and its events are one step.
 */
import type { KubeObject } from './objects.ts';
import { storageKey } from './objects.ts';
import { expired } from './status.ts';

export interface StoreEvent {
  readonly revision: number;
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly key: string;
  /** For DELETED: the last state, with the revision of the deletion. */
  readonly object: KubeObject;
  readonly previous: KubeObject | undefined;
}

export type StoreListener = (event: StoreEvent) => void;

class Collection {
  readonly objects = new Map<string, KubeObject>();
  history: StoreEvent[] = [];
  readonly listeners = new Set<StoreListener>();
  /** Everything up to this revision is forgotten. */
  compacted = 0;
  sorted: readonly KubeObject[] | undefined;
  snapshots = new Map<number, readonly KubeObject[]>();
}

const keptSnapshots = 4;

export class Store {
  readonly #collections = new Map<string, Collection>();
  readonly #historyLimit: number;
  #revision: number;

  /** `historyLimit`: how many events of each resource are remembered. */
  constructor(historyLimit = 20_000, firstRevision = 1) {
    this.#historyLimit = historyLimit;
    this.#revision = firstRevision;
  }

  get revision(): number {
    return this.#revision;
  }

  #collection(resource: string): Collection {
    let collection = this.#collections.get(resource);
    if (collection === undefined) {
      collection = new Collection();
      this.#collections.set(resource, collection);
    }
    return collection;
  }

  get(resource: string, namespace: string, name: string): KubeObject | undefined {
    return this.#collection(resource).objects.get(storageKey(namespace, name));
  }

  count(resource: string): number {
    return this.#collection(resource).objects.size;
  }

  /** Current objects in no particular order. */
  values(resource: string): IterableIterator<KubeObject> {
    return this.#collection(resource).objects.values();
  }

  /** Creates or replaces; sets `metadata.resourceVersion` of the object given, which belongs to the store from now on. */
  put(resource: string, object: KubeObject): KubeObject {
    const collection = this.#collection(resource);
    const key = storageKey(object.metadata.namespace ?? '', object.metadata.name);
    const previous = collection.objects.get(key);
    object.metadata.resourceVersion = String(++this.#revision);
    collection.objects.set(key, object);
    this.#record(collection, {
      revision: this.#revision,
      type: previous === undefined ? 'ADDED' : 'MODIFIED',
      key,
      object,
      previous,
    });
    return object;
  }

  /** Removes the object and returns its last state with the revision of the deletion; undefined if there is none. */
  remove(resource: string, namespace: string, name: string): KubeObject | undefined {
    const collection = this.#collection(resource);
    const key = storageKey(namespace, name);
    const previous = collection.objects.get(key);
    if (previous === undefined) return undefined;
    collection.objects.delete(key);
    const revision = ++this.#revision;
    const object = { ...previous, metadata: { ...previous.metadata, resourceVersion: String(revision) } };
    this.#record(collection, { revision, type: 'DELETED', key, object, previous });
    return object;
  }

  #record(collection: Collection, event: StoreEvent): void {
    collection.sorted = undefined;
    const { history } = collection;
    history.push(event);
    if (history.length > this.#historyLimit * 1.25) {
      const dropped = history.splice(0, history.length - this.#historyLimit);
      collection.compacted = dropped.at(-1)?.revision ?? collection.compacted;
    }
    for (const listener of collection.listeners) listener(event);
  }

  /** All objects of a resource, sorted by namespace and name. */
  list(resource: string): readonly KubeObject[] {
    const collection = this.#collection(resource);
    collection.sorted ??= [...collection.objects.keys()]
      .sort()
      .map((key) => collection.objects.get(key) as KubeObject);
    return collection.sorted;
  }

  /** As `list`, at an earlier revision. Throws 410 if history no longer reaches back there. */
  listAt(resource: string, revision: number, goneMessage: string): readonly KubeObject[] {
    const collection = this.#collection(resource);
    if (revision < collection.compacted) throw expired(goneMessage);
    const from = firstAfter(collection.history, revision);
    if (from === collection.history.length) return this.list(resource);
    const known = collection.snapshots.get(revision);
    if (known !== undefined) return known;
    const objects = new Map(collection.objects);
    for (let index = collection.history.length - 1; index >= from; index--) {
      const { key, previous } = collection.history[index] as StoreEvent;
      if (previous === undefined) objects.delete(key);
      else objects.set(key, previous);
    }
    const snapshot = [...objects.keys()].sort().map((key) => objects.get(key) as KubeObject);
    collection.snapshots.set(revision, snapshot);
    for (const old of collection.snapshots.keys()) {
      if (collection.snapshots.size <= keptSnapshots) break;
      collection.snapshots.delete(old);
    }
    return snapshot;
  }

  /** Events after a revision. Throws 410 if history no longer reaches back there. */
  eventsSince(resource: string, revision: number): readonly StoreEvent[] {
    const { history, compacted } = this.#collection(resource);
    if (revision < compacted) {
      throw expired(`too old resource version: ${revision} (${compacted})`);
    }
    return history.slice(firstAfter(history, revision));
  }

  /** Calls the listener with every later event, in the step that makes it. Returns how to stop. */
  subscribe(resource: string, listener: StoreListener): () => void {
    const { listeners } = this.#collection(resource);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }

  /** Forgets all history: lists and watches at earlier revisions answer 410 from now on. */
  compact(): void {
    this.#revision++;
    for (const collection of this.#collections.values()) {
      collection.history = [];
      collection.snapshots.clear();
      collection.compacted = this.#revision;
    }
  }
}

/** Index of the first event after a revision (binary search). */
function firstAfter(history: readonly StoreEvent[], revision: number): number {
  let low = 0;
  let high = history.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((history[middle] as StoreEvent).revision <= revision) low = middle + 1;
    else high = middle;
  }
  return low;
}
