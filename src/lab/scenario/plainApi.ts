/**
 * The small API server of scenario runs: plain HTTP, JSON, and no opinion about what it is given, so that a scenario can
 * publish what a real server would refuse. Lists, watches with bookmarks, and streamed lists (`sendInitialEvents`).
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { asText, isObject, mergePatch, type Json, type JsonObject } from './generate.ts';

interface Event {
  readonly version: number;
  readonly collection: string;
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly object: JsonObject;
  readonly before: JsonObject | undefined;
}

interface Watcher {
  readonly collection: string;
  readonly namespace: string;
  readonly accepts: (object: JsonObject) => boolean;
  readonly response: ServerResponse;
}

const kinds: Readonly<Record<string, readonly [apiVersion: string, kind: string]>> = {
  services: ['v1', 'Service'],
  nodes: ['v1', 'Node'],
  namespaces: ['v1', 'Namespace'],
  events: ['v1', 'Event'],
  endpointslices: ['discovery.k8s.io/v1', 'EndpointSlice'],
  servicecidrs: ['networking.k8s.io/v1', 'ServiceCIDR'],
};

const pathPattern =
  /^\/(?:api\/v1|apis\/[^/]+\/v1)\/(?:namespaces\/([^/]+)\/)?([a-z]+)(?:\/([^/]+))?(?:\/(status))?$/;

function metadataOf(object: JsonObject): JsonObject {
  return isObject(object['metadata']) ? object['metadata'] : {};
}

/** One requirement of a selector: `a=b`, `a==b`, `a!=b`, `a`, `!a`. */
function meets(term: string, valueOf: (key: string) => Json | undefined): boolean {
  const match = /^(!)?([^!=]+)(?:(!=|==?)(.*))?$/.exec(term.trim());
  const [, not, key = '', operator, value] = match ?? [];
  const own = valueOf(key);
  if (not !== undefined) return own === undefined;
  if (operator === undefined) return own !== undefined;
  return operator === '!=' ? own !== value : own === value;
}

/** Label and field selectors as far as service proxies send them. */
function selector(labels: string | null, fields: string | null): (object: JsonObject) => boolean {
  const terms = (text: string | null): string[] => (text ?? '').split(',').filter((term) => term !== '');
  const [labelTerms, fieldTerms] = [terms(labels), terms(fields)];
  return (object) => {
    const field = (path: string): Json | undefined =>
      path
        .split('.')
        .reduce<Json | undefined>((value, key) => (isObject(value) ? value[key] : undefined), object);
    const own = metadataOf(object)['labels'];
    return (
      labelTerms.every((term) => meets(term, (key) => (isObject(own) ? own[key] : undefined))) &&
      fieldTerms.every((term) => meets(term, field))
    );
  };
}

function readBody(request: IncomingMessage): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => resolve(Buffer.concat(chunks).toString()));
    request.on('error', reject);
  });
}

export class PlainApi {
  private readonly server = createServer((request, response) => {
    this.answer(request, response).catch((error: unknown) => {
      this.send(response, 500, { kind: 'Status', message: String(error), code: 500 });
    });
  });
  private readonly collections = new Map<string, Map<string, JsonObject>>();
  private readonly events: Event[] = [];
  private readonly watchers = new Set<Watcher>();
  private version = 1;

  /** Listens on a port of 127.0.0.1 and resolves to it. */
  async start(): Promise<number> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    return (this.server.address() as AddressInfo).port;
  }

  close(): void {
    this.server.close();
    this.server.closeAllConnections();
  }

  private send(response: ServerResponse, status: number, body: JsonObject): void {
    if (response.headersSent) return;
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  }

  private fail(response: ServerResponse, code: number, reason: string, message: string): void {
    this.send(response, code, { kind: 'Status', apiVersion: 'v1', status: 'Failure', reason, message, code });
  }

  private emit(type: Event['type'], collection: string, object: JsonObject, before?: JsonObject): void {
    const event = { version: this.version, collection, type, object, before };
    this.events.push(event);
    for (const watcher of this.watchers) {
      if (watcher.collection === collection) this.tellEvent(watcher, event);
    }
  }

  /** What is selected comes into being and goes for a watcher when a change makes it match or no longer match. */
  private tellEvent(watcher: Watcher, { type, object, before }: Event): void {
    const selected = before !== undefined && watcher.accepts(before);
    if (type === 'MODIFIED' && selected !== watcher.accepts(object)) {
      if (selected) this.write(watcher, 'DELETED', object);
      else this.write(watcher, 'ADDED', object);
    } else this.tell(watcher, type, object);
  }

  private tell(watcher: Watcher, type: string, object: JsonObject): void {
    if (type === 'BOOKMARK' || watcher.accepts(object)) this.write(watcher, type, object);
  }

  private write(watcher: Watcher, type: string, object: JsonObject): void {
    const namespace = metadataOf(object)['namespace'] ?? '';
    if (type !== 'BOOKMARK' && watcher.namespace !== '' && namespace !== watcher.namespace) return;
    watcher.response.write(`${JSON.stringify({ type, object })}\n`);
  }

  private store(collection: string, key: string, object: JsonObject): JsonObject {
    const objects = this.collections.get(collection) ?? new Map<string, JsonObject>();
    this.collections.set(collection, objects);
    const before = objects.get(key);
    const old = before === undefined ? {} : metadataOf(before);
    this.version++;
    const stored: JsonObject = {
      ...object,
      metadata: {
        ...metadataOf(object),
        uid: old['uid'] ?? `00000000-0000-4000-8000-${String(this.version).padStart(12, '0')}`,
        creationTimestamp: old['creationTimestamp'] ?? new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
        resourceVersion: String(this.version),
      },
    };
    objects.set(key, stored);
    this.emit(before === undefined ? 'ADDED' : 'MODIFIED', collection, stored, before);
    return stored;
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://api');
    const match = pathPattern.exec(url.pathname);
    const collection = match?.[2] ?? '';
    if (match === null || kinds[collection] === undefined) {
      if (url.pathname === '/version')
        this.send(response, 200, { major: '1', minor: '36', gitVersion: 'v1.36.2' });
      else this.fail(response, 404, 'NotFound', 'the server could not find the requested resource');
      return;
    }
    const namespace = match[1] ?? '';
    const name = match[3];
    const key = `${namespace}/${name}`;
    const objects = this.collections.get(collection);
    switch (request.method) {
      case 'GET':
        if (name === undefined) this.list(url, collection, namespace, response);
        else {
          const object = objects?.get(key);
          if (object === undefined) this.fail(response, 404, 'NotFound', `${collection} "${name}" not found`);
          else this.send(response, 200, object);
        }
        return;
      case 'POST': {
        const object = JSON.parse(await readBody(request)) as JsonObject;
        const own = `${namespace}/${asText(metadataOf(object)['name'])}`;
        if (this.collections.get(collection)?.has(own) === true) {
          this.fail(response, 409, 'AlreadyExists', `${collection} "${own}" already exists`);
        } else this.send(response, 201, this.store(collection, own, object));
        return;
      }
      case 'PUT':
      case 'PATCH': {
        const before = objects?.get(key);
        const body = JSON.parse(await readBody(request)) as JsonObject;
        if (before === undefined) {
          this.fail(response, 404, 'NotFound', `${collection} "${name}" not found`);
          return;
        }
        const status = before['status'];
        let after = request.method === 'PATCH' ? (mergePatch(before, body) as JsonObject) : body;
        if (match[4] === 'status') after = { ...before, status: after['status'] ?? {} };
        else if (status !== undefined) after = { ...after, status };
        this.send(response, 200, this.store(collection, key, after));
        return;
      }
      case 'DELETE': {
        const before = objects?.get(key);
        if (before === undefined || objects === undefined) {
          this.fail(response, 404, 'NotFound', `${collection} "${name}" not found`);
          return;
        }
        objects.delete(key);
        this.version++;
        const gone = {
          ...before,
          metadata: { ...metadataOf(before), resourceVersion: String(this.version) },
        };
        this.emit('DELETED', collection, gone);
        this.send(response, 200, { kind: 'Status', apiVersion: 'v1', status: 'Success' });
        return;
      }
      default:
        this.fail(response, 405, 'MethodNotAllowed', `${request.method} is not supported`);
    }
  }

  private list(url: URL, collection: string, namespace: string, response: ServerResponse): void {
    const query = url.searchParams;
    const accepts = selector(query.get('labelSelector'), query.get('fieldSelector'));
    const [apiVersion = '', kind = ''] = kinds[collection] ?? [];
    const all = [...(this.collections.get(collection)?.values() ?? [])].filter(
      (object) => accepts(object) && (namespace === '' || metadataOf(object)['namespace'] === namespace),
    );
    if (query.get('watch') !== 'true' && query.get('watch') !== '1') {
      const metadata = { resourceVersion: String(this.version) };
      this.send(response, 200, { kind: `${kind}List`, apiVersion, metadata, items: all });
      return;
    }
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    const watcher: Watcher = { collection, namespace, accepts, response };
    const bookmark = (annotations: Readonly<Record<string, Json>>): void => {
      const metadata = { resourceVersion: String(this.version), ...annotations };
      this.tell(watcher, 'BOOKMARK', { kind, apiVersion, metadata });
    };
    if (query.get('sendInitialEvents') === 'true') {
      for (const object of all) this.tell(watcher, 'ADDED', object);
      bookmark({ annotations: { 'k8s.io/initial-events-end': 'true' } });
    } else {
      const since = Number(query.get('resourceVersion') ?? '0');
      if (since === 0) for (const object of all) this.tell(watcher, 'ADDED', object);
      else {
        for (const event of this.events) {
          if (event.version > since && event.collection === collection) this.tellEvent(watcher, event);
        }
      }
    }
    this.watchers.add(watcher);
    const timer = setInterval(() => bookmark({}), 10_000);
    const limit = Number(query.get('timeoutSeconds') ?? '0');
    const end = limit > 0 ? setTimeout(() => response.end(), limit * 1000) : undefined;
    response.on('close', () => {
      this.watchers.delete(watcher);
      clearInterval(timer);
      clearTimeout(end);
    });
  }
}
