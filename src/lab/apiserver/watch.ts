/** Watches: events as they happen, in the step that makes them, with bookmarks and streamed lists. */
import type { ServerResponse } from 'node:http';
import { jsonFrame } from './encoding.ts';
import { viewAs } from './events.ts';
import type { Faults } from './faults.ts';
import { matcherOf, parseRevision, type ListQuery } from './listing.ts';
import type { Wanted } from './negotiation.ts';
import type { KubeObject } from './objects.ts';
import { encodeWatchFrame } from './protobuf.ts';
import type { Registry } from './registry.ts';
import type { Resource } from './resources.ts';
import { badRequest, invalid, tooLargeResourceVersion } from './status.ts';
import type { StoreEvent } from './store.ts';
import { partialMetadata, tableOf, type IncludeObject } from './table.ts';

export interface WatchQuery extends ListQuery {
  /** Seconds; 0 = the server's default. */
  readonly timeoutSeconds: number;
  readonly allowWatchBookmarks: boolean;
  readonly sendInitialEvents: boolean | undefined;
  readonly includeObject: IncludeObject;
}

const initialEventsEnd = 'k8s.io/initial-events-end';
const defaultTimeoutSeconds = 3600;
const bookmarkMilliseconds = 60_000;
/** A client that reads this much slower than events come is cut off and has to start again. */
const mostBufferedBytes = 256 << 20;
const burstCharacters = 256 << 10;

type EventType = 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK';

/** Starts a watch on a response. Throws before anything is written; afterwards errors end the stream. */
export function startWatch(
  registry: Registry,
  resource: Resource,
  query: WatchQuery,
  wanted: Wanted,
  response: ServerResponse,
  faults: Faults,
): void {
  const store = registry.storage;
  checkQuery(resource, query);
  const matches = matcherOf(resource, query);
  const text = query.resourceVersion;
  const from = text === undefined || text === '' || text === '0' ? undefined : parseRevision(text);
  if (from !== undefined && from > store.revision) throw tooLargeResourceVersion(from, store.revision);
  const streamsList = query.sendInitialEvents === true;
  // Throws 410 before the headers go out.
  const missed = from === undefined || streamsList ? [] : store.eventsSince(resource.storage, from);
  const startsWithState = streamsList || (from === undefined && query.sendInitialEvents !== false);

  let firstTable = true;
  const frameOf = (type: EventType, stored: KubeObject): string | Buffer => {
    const object = viewAs(resource, stored);
    if (wanted.shape === 'Table') {
      const rows = type === 'BOOKMARK' ? [] : [object];
      const meta = { resourceVersion: object.metadata.resourceVersion ?? '' };
      const table = tableOf(resource, rows, meta, query.includeObject, firstTable);
      firstTable = false;
      return `${JSON.stringify({ type, object: table })}\n`;
    }
    if (wanted.shape === 'PartialObjectMetadata') {
      return `${JSON.stringify({ type, object: partialMetadata(object) })}\n`;
    }
    return wanted.protobuf ? encodeWatchFrame(type, object) : jsonFrame(type, object);
  };

  response.writeHead(200, {
    'Content-Type': wanted.protobuf
      ? 'application/vnd.kubernetes.protobuf;stream=watch'
      : contentTypeOf(wanted),
    'Cache-Control': 'no-cache, private',
  });
  response.flushHeaders();

  let pending: (string | Buffer)[] = [];
  let pendingSize = 0;
  const flush = (): void => {
    if (pending.length === 0) return;
    response.write(wanted.protobuf ? Buffer.concat(pending as Buffer[]) : pending.join(''));
    pending = [];
    pendingSize = 0;
  };
  const push = (frame: string | Buffer): void => {
    pending.push(frame);
    pendingSize += frame.length;
    if (pendingSize > burstCharacters) flush();
  };
  const bookmark = (annotations?: { [key: string]: string }): void => {
    const metadata = {
      name: '',
      resourceVersion: String(store.revision),
      ...(annotations === undefined ? {} : { annotations }),
    };
    const object: KubeObject = { kind: resource.kind, apiVersion: resource.apiVersion, metadata };
    // Required lists are there even in an object that says nothing.
    if (resource.kind === 'EndpointSlice') Object.assign(object, { addressType: '', endpoints: [] });
    push(frameOf('BOOKMARK', resource.storage === resource.id ? object : { ...object, apiVersion: 'v1' }));
    flush();
  };
  const deliver = (event: StoreEvent): void => {
    const is = matches === undefined || (event.type !== 'DELETED' && matches(event.object));
    const was =
      matches === undefined
        ? event.previous !== undefined
        : event.previous !== undefined && matches(event.previous);
    if (event.type === 'DELETED') {
      if (was) push(frameOf('DELETED', event.object));
    } else if (is) {
      push(frameOf(was ? 'MODIFIED' : 'ADDED', event.object));
    } else if (was && event.previous !== undefined) {
      push(frameOf('DELETED', lastMatching(event.previous, event.revision)));
    }
  };

  if (startsWithState) {
    for (const object of store.list(resource.storage)) {
      if (matches === undefined || matches(object)) push(frameOf('ADDED', object));
    }
    if (streamsList && query.allowWatchBookmarks) bookmark({ [initialEventsEnd]: 'true' });
  }
  for (const event of missed) deliver(event);
  flush();

  const unsubscribe = store.subscribe(resource.storage, (event) => {
    if (faults.watchesStalled) return;
    try {
      deliver(event);
    } catch {
      // An object that cannot be encoded as this client wants it costs this watch, never the write.
      response.destroy();
      return;
    }
    flush();
    if (response.writableLength > mostBufferedBytes) response.destroy();
  });
  const bookmarks = query.allowWatchBookmarks ? setInterval(bookmark, bookmarkMilliseconds) : undefined;
  bookmarks?.unref();
  const seconds = query.timeoutSeconds > 0 ? query.timeoutSeconds : defaultTimeoutSeconds;
  const end = setTimeout(() => {
    if (query.allowWatchBookmarks) bookmark();
    response.end();
  }, seconds * 1000);
  end.unref();
  const forget = faults.addWatch(response);
  response.on('close', () => {
    unsubscribe();
    forget();
    clearInterval(bookmarks);
    clearTimeout(end);
  });
}

function contentTypeOf(wanted: Wanted): string {
  return wanted.shape === 'object'
    ? 'application/json'
    : `application/json;as=${wanted.shape};v=v1;g=meta.k8s.io`;
}

/** The last state that a selector matched, with the revision at which it ceased to. */
function lastMatching(previous: KubeObject, revision: number): KubeObject {
  return { ...previous, metadata: { ...previous.metadata, resourceVersion: String(revision) } };
}

function checkQuery(resource: Resource, query: WatchQuery): void {
  const { sendInitialEvents, resourceVersionMatch } = query;
  if (sendInitialEvents !== undefined && resourceVersionMatch !== 'NotOlderThan') {
    const detail = 'sendInitialEvents requires setting resourceVersionMatch to NotOlderThan';
    throw invalid({ ...resource, kind: 'ListOptions', group: 'meta.k8s.io' }, '', [
      { type: 'Forbidden', field: 'resourceVersionMatch', detail },
    ]);
  }
  if (sendInitialEvents === undefined && resourceVersionMatch) {
    throw invalid({ ...resource, kind: 'ListOptions', group: 'meta.k8s.io' }, '', [
      {
        type: 'Forbidden',
        field: 'resourceVersionMatch',
        detail: 'resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided',
      },
    ]);
  }
  if (query.continue) throw badRequest('continue is not allowed for watch');
}
