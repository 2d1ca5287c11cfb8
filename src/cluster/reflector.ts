/**
 * Keeps a handler told of every change of one resource: list, watch, resume, and list again where the server no longer
 * keeps what is needed. Failures are retried for ever, with backoff; they never end the process.
 *
 * The first choice is a streaming list (KEP-3157: a watch that begins with all objects and goes on with changes); a
 * server that refuses it gets a paged list and a watch. Semantics as in client-go's reflector (v0.36).
 */
import type { ApiObject } from '../api/objects.ts';
import type { Logger } from '../log/logger.ts';
import * as trace from '../log/trace.ts';
import type { ApiClient, Query } from './apiClient.ts';
import { ApiError } from './apiError.ts';
import { Backoff } from './backoff.ts';
import { sleep, systemClock } from './clock.ts';
import type { Clock } from './clock.ts';
import { createListReader } from './decode/listStream.ts';
import type { ListEnd, ListReader } from './decode/listStream.ts';
import type { ObjectProblem } from './decode/problem.ts';
import { createWatchReader } from './decode/watchStream.ts';
import type { WatchReader, WatchSink } from './decode/watchStream.ts';
import { ObjectStore } from './objectStore.ts';
import type { ObjectHandler } from './objectStore.ts';
import { ProblemLog } from './problemLog.ts';
import type { Resource } from './resources.ts';
import { SilentPeer, WatchRenewal, Watchdog } from './watchdog.ts';

export type { ObjectHandler } from './objectStore.ts';

export interface ReflectorHooks {
  /** After the handler's calls for everything that arrived together, in the same turn. */
  batchEnd?(): void;
  /** An object or an entry of one was left out. */
  problem?(problem: ObjectProblem): void;
  /** A line or frame of a watch was no event. */
  malformed?(message: string): void;
}

/** All in milliseconds unless said otherwise. */
export interface ReflectorTimings {
  readonly backoffFirst: number;
  readonly backoffLongest: number;
  /** A watch without a byte for this long makes us ask the server whether it is alive. */
  readonly silence: number;
  /** A watch without a byte for this long is replaced though the server is alive. API servers send a bookmark a minute. */
  readonly renewal: number;
  /** A streaming list that says nothing for this long before it is complete is given up for a paged one. */
  readonly listSilence: number;
  /** Length of a watch asked of the server, in seconds: this to twice this. */
  readonly watchSeconds: number;
}

export const defaultReflectorTimings: ReflectorTimings = {
  backoffFirst: 800,
  backoffLongest: 30_000,
  silence: 30_000,
  renewal: 90_000,
  listSilence: 5_000,
  watchSeconds: 300,
};

export interface ReflectorOptions<T extends ApiObject> {
  readonly client: ApiClient;
  readonly resource: Resource<T>;
  readonly handler: ObjectHandler<T>;
  readonly log: Logger;
  readonly hooks?: ReflectorHooks;
  readonly clock?: Clock;
  readonly random?: () => number;
  readonly timings?: Partial<ReflectorTimings>;
  /** False: always a paged list and a watch. */
  readonly streamingList?: boolean;
  /** What is kept of an object once the handler has it; by default all of it. `meta` must be in it. */
  readonly keep?: (object: T) => T;
  /** Objects a page (default 500). */
  readonly pageSize?: number;
  /** configSyncPeriod, in milliseconds. Accepted and not needed: a resync re-delivers what has not changed. */
  readonly resyncPeriod?: number;
}

/** What has happened since the start; for metrics and tests. */
export interface ReflectorStats {
  lists: number;
  watches: number;
  failures: number;
  /** Objects and entries left out. */
  problems: number;
  /** Lines and frames that were no event. */
  malformed: number;
}

/** A server refuses a streaming list in one of these ways. */
const streamingRefused = new Set([400, 404, 405, 406, 415, 422, 501]);

/** A watch that ends sooner than this without a word counts as failed. Milliseconds. */
const shortWatch = 1_000;

/** Until a resource that may not be read, and is not needed, is asked for again. Milliseconds. */
const forbiddenPause = 300_000;

class StreamingListUnsupported extends Error {
  override readonly name = 'StreamingListUnsupported';
}

export class Reflector<T extends ApiObject> {
  readonly stats: ReflectorStats = { lists: 0, watches: 0, failures: 0, problems: 0, malformed: 0 };
  private readonly client: ApiClient;
  private readonly resource: Resource<T>;
  private readonly log: Logger;
  private readonly hooks: ReflectorHooks;
  private readonly clock: Clock;
  private readonly random: () => number;
  private readonly timings: ReflectorTimings;
  private readonly pageSize: number;
  private readonly store: ObjectStore<T>;
  private readonly problems: ProblemLog;
  private readonly backoff: Backoff;
  private readonly life = new AbortController();
  private running: Promise<void> | undefined;
  private streaming: boolean;
  private pathIndex = 0;
  /** Where to go on watching; empty = list with the newest state first. */
  private resourceVersion = '';
  private mustList = true;
  /** 410s in a row. */
  private goneInARow = 0;
  private batchPending = false;
  private watchdog: Watchdog | undefined;
  /** The server said yes to the watch under way, or to the last one. */
  private watchAccepted = false;
  private lastFailure = '';
  private lastFailureAt = 0;

  constructor(options: ReflectorOptions<T>) {
    this.client = options.client;
    this.resource = options.resource;
    this.log = options.log.with({ resource: options.resource.name });
    this.hooks = options.hooks ?? {};
    this.clock = options.clock ?? systemClock;
    this.random = options.random ?? Math.random;
    this.timings = { ...defaultReflectorTimings, ...options.timings };
    this.pageSize = options.pageSize ?? 500;
    this.streaming = options.streamingList ?? true;
    const handlingFailed = (error: unknown): void => {
      this.log.error('Handling an object failed; the next one is not affected', { err: error });
    };
    this.store = new ObjectStore(options.handler, handlingFailed, options.keep);
    this.problems = new ProblemLog(this.log);
    this.backoff = new Backoff(this.timings.backoffFirst, this.timings.backoffLongest, this.random);
  }

  get size(): number {
    return this.store.objects.size;
  }

  /** @param key `namespace/name`, or `name` for cluster-scoped objects */
  get(key: string): T | undefined {
    return this.store.objects.get(key);
  }

  values(): IterableIterator<T> {
    return this.store.objects.values();
  }

  start(): void {
    this.running ??= this.run();
  }

  /** Resolves when no more calls of the handler will come. */
  async stop(): Promise<void> {
    this.life.abort(new Error('stopped'));
    await this.running;
  }

  private get stopped(): boolean {
    return this.life.signal.aborted;
  }

  private async run(): Promise<void> {
    while (!this.stopped) {
      let delay: number;
      try {
        delay = await this.listAndWatch();
      } catch (error) {
        if (this.stopped) return;
        delay = this.afterFailure(error);
      }
      if (delay === Number.POSITIVE_INFINITY) return;
      if (delay > 0) await sleep(this.clock, delay, this.life.signal);
    }
  }

  /** One list, if one is due, and one watch. Resolves to the milliseconds to wait before the next; Infinity = for ever. */
  private async listAndWatch(): Promise<number> {
    const streamed = this.mustList && this.streaming;
    if (this.mustList && !streamed) await this.pagedList();
    const started = this.clock.now();
    const callsBefore = this.store.calls;
    try {
      await this.watch(streamed);
    } catch (error) {
      if (error instanceof WatchRenewal) return 0;
      if (error instanceof SilentPeer || error instanceof ApiError || !this.watchAccepted) throw error;
      if (error instanceof StreamingListUnsupported) throw error;
      // The connection broke under a watch that was in order: that is not the server saying no.
      this.log.info('The watch was cut; going on where it stopped', { reason: (error as Error).message }, 2);
    } finally {
      if (streamed) this.store.abandonListing();
    }
    const healthy = this.store.calls > callsBefore || this.clock.now() - started >= shortWatch;
    return healthy ? 0 : this.backoff.next();
  }

  private get path(): string {
    return this.resource.paths[this.pathIndex] ?? '';
  }

  private selectors(): Query {
    return { labelSelector: this.resource.labelSelector, fieldSelector: this.resource.fieldSelector };
  }

  private readonly report = (problem: ObjectProblem): void => {
    this.stats.problems++;
    this.problems.object(problem);
    this.hooks.problem?.(problem);
  };

  private async pagedList(): Promise<void> {
    this.stats.lists++;
    // Not older than what is known; from the server's cache the first time; the newest after a 410.
    const version: Query = this.store.synced
      ? this.resourceVersion === ''
        ? {}
        : { resourceVersion: this.resourceVersion, resourceVersionMatch: 'NotOlderThan' }
      : this.goneInARow > 0
        ? {}
        : { resourceVersion: '0' };
    let end: ListEnd;
    this.store.beginListing();
    try {
      end = await this.pages(version);
    } catch (error) {
      this.store.abandonListing();
      throw error;
    }
    this.endListing(end.resourceVersion);
    this.flushBatch();
  }

  private async pages(version: Query): Promise<ListEnd> {
    let end = await this.page({ ...version, limit: String(this.pageSize) }, false);
    const { resourceVersion } = end;
    while (end.continueToken !== '') {
      try {
        end = await this.page({ limit: String(this.pageSize), continue: end.continueToken }, true);
      } catch (error) {
        if (!(error instanceof ApiError) || !error.gone) throw error;
        this.log.info('The list took longer than the server keeps its pages: listing in one piece', {}, 2);
        this.store.beginListing();
        return await this.page(version, true);
      }
    }
    // All pages are of one moment, the first one's; watching from there misses nothing even if they are not.
    return { resourceVersion: resourceVersion || end.resourceVersion, continueToken: '' };
  }

  private async page(query: Query, unlimited: boolean): Promise<ListEnd> {
    let reader: ListReader | undefined;
    await this.client.stream({
      verb: 'list',
      path: this.path,
      query: { ...this.selectors(), ...query },
      signal: this.life.signal,
      unlimited,
      consumer: {
        start: (contentType) => {
          reader = createListReader(contentType, this.resource.kind, this.store, this.report);
        },
        data: (chunk) => reader?.push(chunk),
      },
    });
    if (reader === undefined) throw new Error(`GET ${this.path}: the answer is empty`);
    const end = reader.finish();
    this.flushBatch();
    return end;
  }

  private async watch(streamed: boolean): Promise<void> {
    this.stats.watches++;
    this.watchAccepted = false;
    let reader: WatchReader | undefined;
    const { timings } = this;
    const watchdog = new Watchdog({
      clock: this.clock,
      client: this.client,
      silence: timings.silence,
      renewal: timings.renewal,
      parent: this.life.signal,
    });
    this.watchdog = watchdog;
    if (streamed) {
      this.stats.lists++;
      this.store.beginListing();
      watchdog.expect(timings.listSilence, () => new StreamingListUnsupported('the list was not completed'));
    }
    const streamedQuery: Query = { sendInitialEvents: 'true', resourceVersionMatch: 'NotOlderThan' };
    try {
      await this.client.stream({
        verb: 'watch',
        path: this.path,
        query: {
          ...this.selectors(),
          watch: 'true',
          allowWatchBookmarks: 'true',
          resourceVersion: this.resourceVersion,
          timeoutSeconds: String(Math.floor(timings.watchSeconds * (1 + this.random()))),
          ...(streamed ? streamedQuery : {}),
        },
        signal: watchdog.signal,
        consumer: {
          start: (contentType) => {
            reader = createWatchReader(contentType, this.resource.kind, this.sink, this.report);
            this.watchAccepted = true;
            watchdog.start();
          },
          data: (chunk) => {
            trace.passed(trace.received, this.resource.name);
            watchdog.heard();
            reader?.push(chunk);
            this.scheduleBatchEnd();
          },
        },
      });
      if (this.store.listing)
        throw new StreamingListUnsupported('the watch ended before the list was complete');
    } finally {
      watchdog.stop();
    }
  }

  /** The rest of what arrived with this chunk is delivered before the microtask runs. */
  private scheduleBatchEnd(): void {
    if (this.batchPending || this.hooks.batchEnd === undefined) return;
    this.batchPending = true;
    queueMicrotask(() => this.flushBatch());
  }

  private flushBatch(): void {
    this.batchPending = false;
    try {
      this.hooks.batchEnd?.();
    } catch (error) {
      this.log.error('Handling a batch of changes failed', { err: error });
    }
  }

  /** What the reader of a watch reports. */
  private readonly sink: WatchSink = {
    put: (object) => {
      this.store.put(object);
      this.passed(object.meta.resourceVersion);
    },
    remove: (key, resourceVersion) => {
      this.store.remove(key);
      this.passed(resourceVersion);
    },
    skip: (key, resourceVersion) => {
      this.store.skip(key);
      this.passed(resourceVersion);
    },
    bookmark: (resourceVersion, initialEventsEnd) => {
      if (initialEventsEnd && this.store.listing) {
        this.watchdog?.expected();
        this.goneInARow = 0;
        this.endListing(resourceVersion);
      } else this.passed(resourceVersion);
    },
    malformed: (message) => {
      this.stats.malformed++;
      this.problems.stream(message);
      this.hooks.malformed?.(message);
    },
    failure: (status) => {
      throw new ApiError(`watch ${this.path}`, status.code, status);
    },
  };

  /** Everything up to this version has been delivered. Versions in an unfinished listing say nothing of the kind. */
  private passed(resourceVersion: string): void {
    if (this.store.listing || resourceVersion === '') return;
    this.resourceVersion = resourceVersion;
    this.goneInARow = 0;
    this.recovered();
  }

  private endListing(resourceVersion: string): void {
    this.resourceVersion = resourceVersion;
    this.mustList = false;
    // A watch that answers 410 after every list is not recovered by the list.
    if (this.goneInARow <= 1) this.recovered();
    this.store.endListing();
    this.log.info('Listed', { objects: this.store.objects.size, resourceVersion }, 2);
  }

  private recovered(): void {
    this.backoff.reset();
    if (this.lastFailure !== '') this.log.info('The API server answers again');
    this.lastFailure = '';
  }

  /** Decides what is tried next. Resolves to the milliseconds to wait before it; Infinity = never. */
  private afterFailure(error: unknown): number {
    if (error instanceof StreamingListUnsupported) return this.withoutStreaming(error.message);
    if (error instanceof ApiError) {
      if (error.gone) return this.afterGone();
      if (error.status === 404 && this.pathIndex + 1 < this.resource.paths.length) {
        this.pathIndex++;
        return 0;
      }
      if (error.status === 404 && this.resource.optional) {
        this.log.info('The API server does not know this resource: going without it');
        this.store.markSynced();
        return Number.POSITIVE_INFINITY;
      }
      if (error.status === 403 && this.resource.optional && !this.store.synced) {
        this.log.info('This resource may not be read (RBAC): going without it', { err: error.message });
        this.store.markSynced();
      }
      if (error.status === 403 && this.resource.optional) return forbiddenPause * (1 + this.random());
      if (this.mustList && this.streaming && streamingRefused.has(error.status)) {
        return this.withoutStreaming(error.message);
      }
      // The server does not know the version we know (it lags, or was restored from a backup): take what it has.
      if (error.status === 504 && (this.mustList || /too large resource version/i.test(error.message))) {
        this.mustList = true;
        this.resourceVersion = '';
      }
    }
    this.stats.failures++;
    this.logFailure(error as Error);
    if (error instanceof SilentPeer) return 0;
    if (error instanceof ApiError && error.retryAfter !== undefined) {
      return Math.max(100, error.retryAfter * 1000 * (1 + 0.1 * this.random()));
    }
    return this.backoff.next();
  }

  private withoutStreaming(reason: string): number {
    this.log.info('The server does not do streaming lists: listing page by page', { reason }, 2);
    this.streaming = false;
    return 0;
  }

  private afterGone(): number {
    this.log.info(
      'The server no longer keeps the version we have: listing anew',
      {
        resourceVersion: this.resourceVersion,
      },
      2,
    );
    this.mustList = true;
    this.resourceVersion = '';
    this.goneInARow++;
    return this.goneInARow === 1 ? 0 : this.backoff.next();
  }

  /** The same failure over and over is one line a minute. */
  private logFailure(error: Error): void {
    const now = this.clock.now();
    if (error.message === this.lastFailure && now - this.lastFailureAt < 60_000) return;
    this.lastFailure = error.message;
    this.lastFailureAt = now;
    this.log.error('Listing or watching failed; trying again', { err: error.message });
  }
}
