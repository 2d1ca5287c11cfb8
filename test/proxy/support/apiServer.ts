/**
 * A tiny API server in the test's own process: list and watch in JSON, events taken in. Its listening socket is in a
 * network namespace, where the daemon under test is.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { withNetworkNamespace } from '../../../src/linux/netlink/namespace.ts';

export interface ApiObject {
  apiVersion?: string;
  kind: string;
  metadata: { name: string; namespace?: string; resourceVersion?: string; [key: string]: unknown };
  [key: string]: unknown;
}

const resources: Readonly<Record<string, { kind: string; apiVersion: string }>> = {
  '/api/v1/services': { kind: 'Service', apiVersion: 'v1' },
  '/api/v1/nodes': { kind: 'Node', apiVersion: 'v1' },
  '/apis/discovery.k8s.io/v1/endpointslices': {
    kind: 'EndpointSlice',
    apiVersion: 'discovery.k8s.io/v1',
  },
};

export class TinyApiServer {
  readonly port: number;
  /** Bodies of the events that were posted. */
  readonly events: Record<string, unknown>[] = [];
  private readonly server: Server;
  private readonly objects = new Map<string, ApiObject>();
  private readonly watches: { path: string; response: ServerResponse }[] = [];
  private version = 1;

  constructor(namespace: string, port = 6443) {
    this.port = port;
    this.server = createServer((request, response) => void this.handle(request, response));
    // Without a host name, listen() binds before it returns: inside the namespace.
    withNetworkNamespace(`/run/netns/${namespace}`, () => this.server.listen(port));
  }

  apply(object: ApiObject): void {
    const key = keyOf(object);
    const type = this.objects.has(key) ? 'MODIFIED' : 'ADDED';
    const stored = this.stamp(object);
    this.objects.set(key, stored);
    this.send(type, stored);
  }

  delete(object: ApiObject): void {
    this.objects.delete(keyOf(object));
    this.send('DELETED', this.stamp(object));
  }

  close(): void {
    this.server.close();
    this.server.closeAllConnections();
  }

  private stamp(object: ApiObject): ApiObject {
    this.version++;
    return {
      ...object,
      apiVersion: pathAndType(object.kind)[1].apiVersion,
      metadata: { ...object.metadata, resourceVersion: String(this.version) },
    };
  }

  private send(type: string, object: ApiObject): void {
    const [path] = pathAndType(object.kind);
    for (const watch of this.watches)
      if (watch.path === path) watch.response.write(`${JSON.stringify({ type, object })}\n`);
  }

  private async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://api');
    const path = url.pathname;
    response.setHeader('content-type', 'application/json');
    if (request.method === 'POST') {
      let body = '';
      for await (const chunk of request) body += String(chunk);
      this.events.push(JSON.parse(body) as Record<string, unknown>);
      response.statusCode = 201;
      response.end(body);
      return;
    }
    const type = resources[path];
    if (type === undefined) {
      response.statusCode = path === '/version' ? 200 : 404;
      response.end(JSON.stringify({ kind: 'Status', apiVersion: 'v1', code: 404, reason: 'NotFound' }));
      return;
    }
    const items = [...this.objects.values()].filter((object) => object.kind === type.kind);
    if (url.searchParams.get('watch') !== 'true') {
      const metadata = { resourceVersion: String(this.version) };
      response.end(
        JSON.stringify({ kind: `${type.kind}List`, apiVersion: type.apiVersion, metadata, items }),
      );
      return;
    }
    response.flushHeaders();
    if (url.searchParams.get('sendInitialEvents') === 'true') {
      for (const object of items) response.write(`${JSON.stringify({ type: 'ADDED', object })}\n`);
      const metadata = {
        resourceVersion: String(this.version),
        annotations: { 'k8s.io/initial-events-end': 'true' },
      };
      const object = { kind: type.kind, apiVersion: type.apiVersion, metadata };
      response.write(`${JSON.stringify({ type: 'BOOKMARK', object })}\n`);
    }
    this.watches.push({ path, response });
  }
}

function pathAndType(kind: string): [string, { kind: string; apiVersion: string }] {
  const found = Object.entries(resources).find(([, type]) => type.kind === kind);
  if (found === undefined) throw new Error(`the tiny API server has no kind ${kind}`);
  return found;
}

function keyOf(object: ApiObject): string {
  return `${object.kind} ${object.metadata.namespace ?? ''}/${object.metadata.name}`;
}
