/** A small API server over real HTTP for one collection: list, pages, watch, bookmarks, streaming lists, compaction, faults. */
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { ServerOptions } from 'node:https';
import { encodeList, encodeWatchFrame } from '../../../src/api/protobuf/encode.ts';
import type { JsonObject, WatchEventType } from '../../../src/api/protobuf/encode.ts';

interface HistoryEntry {
  readonly version: number;
  readonly type: WatchEventType;
  readonly object: JsonObject;
}

interface Watcher {
  readonly response: ServerResponse;
  readonly protobuf: boolean;
}

export interface FakeOptions {
  /** Answers in protobuf if asked for it. */
  readonly protobuf?: boolean;
  readonly streamingLists?: boolean;
  readonly tls?: ServerOptions;
  readonly kind?: 'Service' | 'EndpointSlice' | 'Node' | 'ServiceCIDR';
}

/** Takes a request over; true if it has done so. */
export type Intercept = (request: IncomingMessage, response: ServerResponse, url: URL) => boolean;

export class FakeApiServer {
  readonly requests: { readonly url: URL; readonly request: IncomingMessage }[] = [];
  readonly objects = new Map<string, JsonObject>();
  readonly watchers = new Set<Watcher>();
  readonly sockets = new Set<Socket>();
  intercept: Intercept | undefined;
  version = 100;
  private compactedBelow = 0;
  private history: HistoryEntry[] = [];
  private readonly options: FakeOptions;
  private readonly server: Server;
  private readonly pages = new Map<string, { readonly items: JsonObject[]; readonly version: number }>();

  constructor(options: FakeOptions = {}) {
    this.options = options;
    const listener = (request: IncomingMessage, response: ServerResponse): void =>
      this.serve(request, response);
    this.server = options.tls === undefined ? createServer(listener) : createTlsServer(options.tls, listener);
    this.server.on('connection', (socket: Socket) => {
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
    });
  }

  get kind(): NonNullable<FakeOptions['kind']> {
    return this.options.kind ?? 'Service';
  }

  async listen(port = 0, address = '127.0.0.1'): Promise<string> {
    await new Promise<void>((resolve) => this.server.listen(port, address, resolve));
    return this.url;
  }

  get url(): string {
    const { address, port } = this.server.address() as AddressInfo;
    const scheme = this.options.tls === undefined ? 'http' : 'https';
    return `${scheme}://${address}:${port}`;
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise<void>((resolve) => {
      this.server.close(() => resolve());
    });
  }

  /** Creates or changes an object and tells the watchers. */
  put(name: string, spec: JsonObject = {}, extra: JsonObject = {}): void {
    const key = `default/${name}`;
    this.version++;
    const known = this.objects.has(key);
    const object = {
      apiVersion: 'v1',
      kind: this.kind,
      metadata: {
        name,
        namespace: 'default',
        uid: `uid-${name}`,
        resourceVersion: String(this.version),
      },
      spec: { clusterIP: '10.0.0.1', ...spec },
      ...extra,
    };
    this.objects.set(key, object);
    this.record(known ? 'MODIFIED' : 'ADDED', object);
  }

  delete(name: string): void {
    const key = `default/${name}`;
    const object = this.objects.get(key);
    if (object === undefined) return;
    this.objects.delete(key);
    this.version++;
    const metadata = { ...(object['metadata'] as JsonObject), resourceVersion: String(this.version) };
    this.record('DELETED', { ...object, metadata });
  }

  /** Forgets everything that happened so far: older versions answer 410. */
  compact(): void {
    this.compactedBelow = this.version;
    this.history = [];
  }

  /** Ends all watches: in order, or by breaking the connection. */
  cutWatches(how: 'end' | 'destroy' | 'mid-line'): void {
    for (const watcher of this.watchers) {
      if (how === 'end') watcher.response.end();
      else if (how === 'destroy') watcher.response.destroy();
      else {
        const bytes = this.event(watcher, 'ADDED', { kind: this.kind, metadata: { name: 'half-an-object' } });
        watcher.response.write(bytes.subarray(0, bytes.length - 7), () => watcher.response.destroy());
      }
    }
    this.watchers.clear();
  }

  /** Raw bytes to all watchers. */
  writeRaw(bytes: string | Uint8Array): void {
    for (const watcher of this.watchers) watcher.response.write(bytes);
  }

  bookmark(): void {
    for (const watcher of this.watchers) this.send(watcher, 'BOOKMARK', this.bookmarkObject(false));
  }

  sendStatus(status: JsonObject): void {
    for (const watcher of this.watchers)
      this.send(watcher, 'ERROR', { kind: 'Status', apiVersion: 'v1', ...status });
  }

  private bookmarkObject(end: boolean): JsonObject {
    const annotations = end ? { annotations: { 'k8s.io/initial-events-end': 'true' } } : {};
    return {
      apiVersion: 'v1',
      kind: this.kind,
      metadata: { resourceVersion: String(this.version), ...annotations },
    };
  }

  private record(type: WatchEventType, object: JsonObject): void {
    this.history.push({ version: this.version, type, object });
    for (const watcher of this.watchers) this.send(watcher, type, object);
  }

  private event(watcher: Watcher, type: WatchEventType, object: JsonObject): Buffer {
    if (watcher.protobuf) return Buffer.from(encodeWatchFrame(type, object));
    return Buffer.from(`${JSON.stringify({ type, object })}\n`);
  }

  private send(watcher: Watcher, type: WatchEventType, object: JsonObject): void {
    watcher.response.write(this.event(watcher, type, object));
  }

  private serve(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? '/', 'http://server');
    this.requests.push({ url, request });
    if (this.intercept?.(request, response, url) === true) return;
    if (url.pathname === '/version') {
      this.json(response, 200, { gitVersion: 'v1.36.2' });
      return;
    }
    const protobuf =
      this.options.protobuf === true &&
      (request.headers.accept ?? '').includes('application/vnd.kubernetes.protobuf');
    if (url.searchParams.get('watch') === 'true') this.watch(url, response, protobuf);
    else this.list(url, response, protobuf);
  }

  json(response: ServerResponse, code: number, body: unknown, headers: Record<string, string> = {}): void {
    response.writeHead(code, { 'content-type': 'application/json', ...headers });
    response.end(JSON.stringify(body));
  }

  status(response: ServerResponse, code: number, reason: string, headers: Record<string, string> = {}): void {
    this.json(response, code, { kind: 'Status', apiVersion: 'v1', code, reason, message: reason }, headers);
  }

  private list(url: URL, response: ServerResponse, protobuf: boolean): void {
    const token = url.searchParams.get('continue');
    const limit = Number(url.searchParams.get('limit') ?? '0');
    let items: JsonObject[];
    let { version } = this;
    if (token === null) items = [...this.objects.values()];
    else {
      const rest = this.pages.get(token);
      this.pages.delete(token);
      if (rest === undefined) {
        this.status(response, 410, 'Expired');
        return;
      }
      ({ items, version } = rest);
    }
    const meta: { resourceVersion: string; continue?: string } = { resourceVersion: String(version) };
    if (limit > 0 && items.length > limit) {
      const next = `page-${this.requests.length}-${this.pages.size}`;
      this.pages.set(next, { items: items.slice(limit), version });
      items = items.slice(0, limit);
      meta.continue = next;
    }
    if (protobuf) {
      response.writeHead(200, { 'content-type': 'application/vnd.kubernetes.protobuf' });
      response.end(encodeList(this.kind, items, meta));
    } else this.json(response, 200, { kind: `${this.kind}List`, apiVersion: 'v1', metadata: meta, items });
  }

  /** Pages handed out so far are no longer to be had. */
  expirePages(): void {
    this.pages.clear();
  }

  private watch(url: URL, response: ServerResponse, protobuf: boolean): void {
    const from = url.searchParams.get('resourceVersion') ?? '';
    const streaming = url.searchParams.get('sendInitialEvents') === 'true';
    if (streaming && this.options.streamingLists !== true) {
      this.status(response, 422, 'Invalid');
      return;
    }
    if (!streaming && Number(from) < this.compactedBelow) {
      this.status(response, 410, 'Expired');
      return;
    }
    const type = protobuf ? 'application/vnd.kubernetes.protobuf;stream=watch' : 'application/json';
    response.writeHead(200, { 'content-type': type });
    response.flushHeaders();
    const watcher = { response, protobuf };
    if (streaming) {
      for (const object of this.objects.values()) this.send(watcher, 'ADDED', object);
      this.send(watcher, 'BOOKMARK', this.bookmarkObject(true));
    } else {
      for (const entry of this.history) {
        if (entry.version > Number(from)) this.send(watcher, entry.type, entry.object);
      }
    }
    this.watchers.add(watcher);
    response.on('close', () => this.watchers.delete(watcher));
  }
}
