/** A small client for the lab's API server: what the runner, the demo and the lab's kubelet need. */
import { Pool } from 'undici';
import { asText, isObject, type Json, type JsonObject } from './generate.ts';

interface Resource {
  readonly path: string;
  readonly plural: string;
  readonly namespaced: boolean;
}

const resources: Readonly<Record<string, Resource>> = {
  Service: { path: '/api/v1', plural: 'services', namespaced: true },
  Pod: { path: '/api/v1', plural: 'pods', namespaced: true },
  Node: { path: '/api/v1', plural: 'nodes', namespaced: false },
  Namespace: { path: '/api/v1', plural: 'namespaces', namespaced: false },
  EndpointSlice: { path: '/apis/discovery.k8s.io/v1', plural: 'endpointslices', namespaced: true },
  ServiceCIDR: { path: '/apis/networking.k8s.io/v1', plural: 'servicecidrs', namespaced: false },
  Deployment: { path: '/apis/apps/v1', plural: 'deployments', namespaced: true },
};

/** The URL path of a kind's collection, or of one object. */
export function resourcePath(kind: string, namespace: string, name?: string): string {
  const resource = resources[kind];
  if (resource === undefined) throw new Error(`the lab does not know the kind "${kind}"`);
  const scope = resource.namespaced ? `/namespaces/${namespace}` : '';
  return `${resource.path}${scope}/${resource.plural}${name === undefined ? '' : `/${name}`}`;
}

/** An answer of the API server that is an error. */
export class ApiError extends Error {
  readonly status: number;

  constructor(method: string, path: string, status: number, body: string) {
    let message = body.slice(0, 300);
    try {
      const parsed = JSON.parse(body) as { message?: string };
      message = parsed.message ?? message;
    } catch {
      // Not a Status object: its text says what there is to say.
    }
    super(`${method} ${path}: ${status}: ${message}`);
    this.name = 'ApiError';
    this.status = status;
  }
}

export interface ApiAccess {
  /** e.g. `https://127.0.0.1:40001` */
  readonly url: string;
  /** PEM; empty for plain HTTP. */
  readonly ca: string;
  readonly token: string;
}

export class ApiClient {
  private readonly pool: Pool;
  private readonly token: string;

  constructor(access: ApiAccess) {
    this.token = access.token;
    this.pool = new Pool(access.url, {
      connections: 8,
      bodyTimeout: 0,
      ...(access.ca === '' ? {} : { connect: { ca: access.ca } }),
    });
  }

  async request(
    method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE',
    path: string,
    body?: Json,
    type = 'application/json',
  ): Promise<JsonObject> {
    const answer = await this.pool.request({
      method,
      path,
      headers: {
        authorization: `Bearer ${this.token}`,
        accept: 'application/json',
        ...(body === undefined ? {} : { 'content-type': type }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.body.text();
    if (answer.statusCode >= 300) throw new ApiError(method, path, answer.statusCode, text);
    return JSON.parse(text) as JsonObject;
  }

  get(kind: string, name: string, namespace = 'default'): Promise<JsonObject> {
    return this.request('GET', resourcePath(kind, namespace, name));
  }

  /** Creates or replaces an object; its `status` goes through the status subresource. */
  async apply(object: JsonObject): Promise<void> {
    const { status, ...main } = object;
    const metadata = object['metadata'] as JsonObject;
    const kind = asText(object['kind']);
    const name = asText(metadata['name']);
    const namespace = asText(metadata['namespace'] ?? 'default');
    const path = resourcePath(kind, namespace, name);
    try {
      await this.request('POST', resourcePath(kind, namespace), main);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 409) throw error;
      const before = await this.request('GET', path);
      const old = before['metadata'] as JsonObject;
      const kept = { resourceVersion: old['resourceVersion'] ?? null, uid: old['uid'] ?? null };
      await this.request('PUT', path, { ...main, metadata: { ...metadata, ...kept } });
    }
    if (status === undefined) return;
    const now = await this.request('GET', path);
    await this.request('PUT', `${path}/status`, { ...now, status });
  }

  /** JSON merge patch; a `status` in it goes through the status subresource. */
  async patch(kind: string, name: string, patch: JsonObject, namespace = 'default'): Promise<void> {
    const { status, ...main } = patch;
    const path = resourcePath(kind, namespace, name);
    const type = 'application/merge-patch+json';
    if (Object.keys(main).length > 0) await this.request('PATCH', path, main, type);
    if (status !== undefined) await this.request('PATCH', `${path}/status`, { status }, type);
  }

  /** Deleting what is not there is no error. */
  async delete(kind: string, name: string, namespace = 'default'): Promise<void> {
    try {
      await this.request('DELETE', resourcePath(kind, namespace, name));
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) throw error;
    }
  }

  /** Follows a collection from now on: first every object as `ADDED`, then what changes. Ends when `stop` fires. */
  async watch(
    path: string,
    stop: AbortSignal,
    callback: (type: string, object: JsonObject) => void,
  ): Promise<void> {
    const list = await this.request('GET', path);
    const items = Array.isArray(list['items']) ? (list['items'] as JsonObject[]) : [];
    for (const item of items) callback('ADDED', item);
    const version = isObject(list['metadata']) ? asText(list['metadata']['resourceVersion']) : '';
    const answer = await this.pool.request({
      method: 'GET',
      path: `${path}${path.includes('?') ? '&' : '?'}watch=true&resourceVersion=${version}`,
      headers: { authorization: `Bearer ${this.token}`, accept: 'application/json' },
      signal: stop,
      bodyTimeout: 0,
    });
    let rest = '';
    for await (const chunk of answer.body) {
      const lines = (rest + String(chunk)).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        if (line === '') continue;
        const event = JSON.parse(line) as { type: string; object: JsonObject };
        callback(event.type, event.object);
      }
    }
  }

  async close(): Promise<void> {
    await this.pool.destroy();
  }
}
