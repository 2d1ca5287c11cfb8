/**
 * The objects of one resource as last heard, and what a handler is told about them: each object is added once, updated
 * only while it is known, deleted only if it was known.
 */
import { objectKey } from '../api/objects.ts';
import type { ApiObject } from '../api/objects.ts';
import type { ListSink } from './decode/listStream.ts';

/** Called synchronously, in the order of events. */
export interface ObjectHandler<T> {
  add(object: T): void;
  /** `old`: the last known state, or what was kept of it. */
  update(old: T, object: T): void;
  /** With the last known state, or what was kept of it. */
  delete(last: T): void;
  /** Once, when everything that was there at the start has been added. */
  synced(): void;
}

/** `onError`: what a handler threw; the object is stored all the same. */
export class ObjectStore<T extends ApiObject> implements ListSink {
  readonly objects = new Map<string, T>();
  private readonly handler: ObjectHandler<T>;
  private readonly onError: (error: unknown) => void;
  private readonly keep: ((object: T) => T) | undefined;
  /** Keys seen in the listing under way. */
  private seen: Set<string> | undefined;
  private isSynced = false;
  /** Calls of the handler so far. */
  calls = 0;

  /** `keep`: what is kept of an object once the handler has it (default: all); `meta` must be in it. */
  constructor(handler: ObjectHandler<T>, onError: (error: unknown) => void, keep?: (object: T) => T) {
    this.handler = handler;
    this.onError = onError;
    this.keep = keep;
  }

  get listing(): boolean {
    return this.seen !== undefined;
  }

  get synced(): boolean {
    return this.isSynced;
  }

  /** From here to `endListing`, what is put is all there is. A listing that breaks off is begun again. */
  beginListing(): void {
    this.seen = new Set();
  }

  endListing(): void {
    const { seen } = this;
    this.seen = undefined;
    if (seen !== undefined && seen.size < this.objects.size) {
      const missing = [...this.objects.keys()].filter((key) => !seen.has(key));
      for (const key of missing) this.remove(key);
    }
    this.markSynced();
  }

  /** Given up: what was known stays known. */
  abandonListing(): void {
    this.seen = undefined;
  }

  markSynced(): void {
    if (this.isSynced) return;
    this.isSynced = true;
    this.calls++;
    try {
      this.handler.synced();
    } catch (error) {
      this.onError(error);
    }
  }

  put(object: ApiObject): void {
    const next = object as T;
    const key = objectKey(next.meta);
    this.seen?.add(key);
    const old = this.objects.get(key);
    if (
      old !== undefined &&
      old.meta.resourceVersion === next.meta.resourceVersion &&
      next.meta.resourceVersion !== '' &&
      old.meta.uid === next.meta.uid
    ) {
      return;
    }
    this.objects.set(key, this.keep === undefined ? next : this.keep(next));
    this.calls++;
    try {
      if (old === undefined) this.handler.add(next);
      else this.handler.update(old, next);
    } catch (error) {
      this.onError(error);
    }
  }

  /** There, but unusable: the last usable state stays. */
  skip(key: string): void {
    this.seen?.add(key);
  }

  remove(key: string): void {
    const last = this.objects.get(key);
    if (last === undefined) return;
    this.objects.delete(key);
    this.calls++;
    try {
      this.handler.delete(last);
    } catch (error) {
      this.onError(error);
    }
  }
}
