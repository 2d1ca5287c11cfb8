/** HTTP requests to the registry and back. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { parse as parseYaml } from 'yaml';
import type { Authenticator, User } from './auth.ts';
import * as discovery from './discovery.ts';
import { jsonList, jsonOf } from './encoding.ts';
import { handleFaultRequest } from './faultrequests.ts';
import type { Faults } from './faults.ts';
import { negotiate, parseAccept, protobufType, type Wanted } from './negotiation.ts';
import { isObject, type JsonObject, type KubeObject } from './objects.ts';
import { openApiIndex, openApiV2, openApiV2Document, openApiV3 } from './openapi.ts';
import { encodeOpenApiV2 } from './openapiprotobuf.ts';
import { patchMediaTypes } from './patch.ts';
import { encodeList, encodeObject, hasProtobuf } from './protobuf.ts';
import { decodeProtobufBody } from './protobufdecode.ts';
import type { DeleteOptions, Registry, WriteOptions } from './registry.ts';
import { parsePath, type ResourcePath } from './paths.ts';
import { answerReview } from './reviews.ts';
import { scaleOf } from './scale.ts';
import {
  ApiError,
  badRequest,
  methodNotAllowed,
  pathNotFound,
  unauthorized,
  unsupportedMediaType,
} from './status.ts';
import { partialMetadata, partialMetadataList, tableOf, type IncludeObject } from './table.ts';
import { startWatch } from './watch.ts';

const mostBodyBytes = 16 << 20;

export interface HandlerOptions {
  readonly registry: Registry;
  readonly faults: Faults;
  readonly authenticate: Authenticator;
}

export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

export function makeHandler(options: HandlerOptions): Handler {
  return (request, response) => {
    void answer(options, request, response).catch((error: unknown) => {
      const known =
        error instanceof ApiError
          ? error
          : new ApiError(500, 'InternalError', `Internal error occurred: ${String(error)}`);
      if (response.headersSent) response.destroy();
      else sendJson(response, known.code, known.toStatus(), retryAfter(known));
    });
  };
}

function retryAfter(error: ApiError): Record<string, string> {
  const seconds = error.details?.['retryAfterSeconds'];
  return typeof seconds === 'number' ? { 'Retry-After': String(seconds) } : {};
}

function sendText(
  response: ServerResponse,
  code: number,
  contentType: string,
  body: string | Buffer,
  headers: Record<string, string | string[]> = {},
): void {
  response.writeHead(code, {
    ...headers,
    'Content-Type': contentType,
    'Content-Length': Buffer.byteLength(body),
    'Cache-Control': 'no-cache, private',
  });
  response.end(body);
}

function sendJson(
  response: ServerResponse,
  code: number,
  body: JsonObject,
  headers: Record<string, string | string[]> = {},
): void {
  sendText(response, code, 'application/json', JSON.stringify(body), headers);
}

async function answer(
  options: HandlerOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://lab');
  const { faults } = options;
  const isControl = url.pathname.startsWith('/lab/');
  if (!isControl) {
    if (faults.refuse) {
      request.socket.destroy();
      return;
    }
    if (faults.stall) return;
  }
  if (
    ['/healthz', '/livez', '/readyz'].some(
      (one) => url.pathname === one || url.pathname.startsWith(`${one}/`),
    )
  ) {
    sendText(response, 200, 'text/plain; charset=utf-8', 'ok');
    return;
  }
  const user = options.authenticate(request);
  if (user === undefined) throw unauthorized();
  if (isControl) {
    const reply = handleFaultRequest(options, url, (await readBody(request)).toString());
    sendJson(response, 200, reply);
    return;
  }
  const fault = faults.nextAnswer();
  if (fault !== undefined) throw faultError(fault.code, fault.retryAfterSeconds);
  if (answerDocument(request, url, response)) return;
  const path = parsePath(url.pathname);
  if (path === undefined) throw pathNotFound();
  if (path.kind === 'review') {
    if (request.method !== 'POST') throw methodNotAllowed();
    sendJson(
      response,
      201,
      answerReview(path.name, parseBody(await readBody(request), mediaTypeOf(request)), user),
    );
    return;
  }
  await answerResource(options, path, request, url, response, user);
}

function faultError(code: number, retryAfterSeconds: number | undefined): ApiError {
  const reason = code === 429 ? 'TooManyRequests' : code === 503 ? 'ServiceUnavailable' : 'InternalError';
  const details = retryAfterSeconds === undefined ? undefined : { retryAfterSeconds };
  return new ApiError(code, reason, `the lab was told to answer ${code}`, details);
}

/** Discovery, OpenAPI and the version. */
function answerDocument(request: IncomingMessage, url: URL, response: ServerResponse): boolean {
  const { pathname } = url;
  const accepts = parseAccept(request.headers.accept);
  if (pathname === '/api' || pathname === '/apis') {
    const wanted = accepts.find((one) => one.parameters.get('as') === 'APIGroupDiscoveryList');
    const version = wanted?.parameters.get('v');
    if (version === 'v2' || version === 'v2beta1') {
      const type = `application/json;g=apidiscovery.k8s.io;v=${version};as=APIGroupDiscoveryList`;
      const body = discovery.aggregatedDiscovery(pathname === '/api', version);
      sendText(response, 200, type, JSON.stringify(body), { Vary: 'Accept' });
    } else sendJson(response, 200, pathname === '/api' ? discovery.apiVersions() : discovery.apiGroupList());
    return true;
  }
  if (pathname === '/version') {
    sendJson(response, 200, discovery.kubernetesVersion);
    return true;
  }
  if (pathname === '/openapi/v3') {
    sendJson(response, 200, openApiIndex());
    return true;
  }
  if (pathname.startsWith('/openapi/v3/')) {
    const text = openApiV3(pathname.slice('/openapi/v3/'.length));
    if (text === undefined) throw pathNotFound();
    sendText(response, 200, 'application/json', text);
    return true;
  }
  if (pathname === '/openapi/v2') {
    // Asked for with an @, which no media type may hold; answered with a dot, as kube-apiserver does.
    const asked = 'application/com.github.proto-openapi.spec.v2@v1.0+protobuf';
    const type = asked.replace('@', '.');
    if (accepts[0]?.type === asked || accepts[0]?.type === type)
      sendText(response, 200, type, encodeOpenApiV2(openApiV2Document()));
    else sendText(response, 200, 'application/json', openApiV2());
    return true;
  }
  const list = /^\/(?:api|apis\/([^/]+))(?:\/(v1))?\/?$/.exec(pathname);
  if (list === null) return false;
  const group = list[1] ?? '';
  const body = list[2] === undefined ? discovery.apiGroup(group) : discovery.resourceList(group);
  if (body === undefined) throw pathNotFound();
  sendJson(response, 200, body);
  return true;
}

function readBody(request: IncomingMessage): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    request.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size <= mostBodyBytes) chunks.push(chunk);
    });
    request.on('end', () => {
      if (size > mostBodyBytes) {
        reject(new ApiError(413, 'RequestEntityTooLarge', `limit is ${mostBodyBytes} bytes`));
      } else resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks));
    });
    request.on('error', reject);
  });
}

function parseBody(body: Buffer, mediaType: string): unknown {
  if (mediaType === protobufType) return decodeProtobufBody(body);
  const text = body.toString();
  // JSON.parse makes it an own field, but copies would not: no object of ours has one.
  if (text.includes('"__proto__"')) throw badRequest('a field named __proto__ is not accepted');
  try {
    return mediaType.includes('yaml') && !text.startsWith('{') ? parseYaml(text) : JSON.parse(text);
  } catch (error) {
    throw badRequest(
      `the object provided is unreadable: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

function mediaTypeOf(request: IncomingMessage): string {
  return (request.headers['content-type'] ?? 'application/json').split(';')[0]?.trim().toLowerCase() ?? '';
}

function flag(value: string | null): boolean {
  return value === 'true' || value === '1';
}

function writeOptionsOf(
  request: IncomingMessage,
  url: URL,
  subresource: string,
): WriteOptions & { warnings: string[] } {
  const { searchParams } = url;
  const dryRun = searchParams.getAll('dryRun');
  if (dryRun.some((one) => one !== 'All' && one !== '')) {
    throw badRequest(`dryRun: Unsupported value: ${JSON.stringify(dryRun)}: supported values: "All"`);
  }
  const agent = (request.headers['user-agent'] ?? 'unknown').split('/')[0] ?? 'unknown';
  return {
    dryRun: dryRun.includes('All'),
    fieldManager: searchParams.get('fieldManager') ?? agent,
    fieldValidation: (searchParams.get('fieldValidation') ?? 'Warn') as 'Strict' | 'Warn' | 'Ignore',
    subresource: subresource as '' | 'status' | 'scale',
    force: flag(searchParams.get('force')),
    warnings: [],
  };
}

function listQueryOf(path: ResourcePath, { searchParams }: URL) {
  return {
    namespace: path.namespace,
    labelSelector: searchParams.get('labelSelector') ?? undefined,
    fieldSelector: searchParams.get('fieldSelector') ?? undefined,
    limit: Number(searchParams.get('limit') ?? 0) || 0,
    continue: searchParams.get('continue') ?? undefined,
    resourceVersion: searchParams.get('resourceVersion') ?? undefined,
    resourceVersionMatch: searchParams.get('resourceVersionMatch') ?? undefined,
  };
}

function includeOf({ searchParams }: URL): IncludeObject {
  const include = searchParams.get('includeObject');
  return include === 'Object' || include === 'None' ? include : 'Metadata';
}

function sendObject(
  response: ServerResponse,
  path: ResourcePath,
  url: URL,
  wanted: Wanted,
  object: KubeObject,
  code = 200,
  warnings: readonly string[] = [],
): void {
  const headers: Record<string, string | string[]> =
    warnings.length === 0
      ? {}
      : { Warning: warnings.map((one) => `299 - ${JSON.stringify(one.replace(/[^\x20-\x7e]/g, '?'))}`) };
  if (wanted.shape === 'Table' && object.kind === path.resource.kind) {
    const meta = { resourceVersion: object.metadata.resourceVersion ?? '' };
    sendJson(response, code, tableOf(path.resource, [object], meta, includeOf(url)), headers);
  } else if (wanted.shape === 'PartialObjectMetadata') {
    sendJson(response, code, partialMetadata(object), headers);
  } else if (wanted.protobuf && object.kind === path.resource.kind) {
    sendText(response, code, protobufType, encodeObject(object), headers);
  } else {
    sendText(response, code, 'application/json', jsonOf(object), headers);
  }
}

async function answerResource(
  options: HandlerOptions,
  path: ResourcePath,
  request: IncomingMessage,
  url: URL,
  response: ServerResponse,
  _user: User,
): Promise<void> {
  const { registry, faults } = options;
  const { resource, namespace, name, subresource } = path;
  const wanted = negotiate(request.headers.accept, hasProtobuf(resource));
  if (wanted === undefined) {
    const message = `only the following media types are accepted: application/json, application/yaml, ${protobufType}`;
    throw new ApiError(406, 'NotAcceptable', message);
  }
  const { method } = request;
  if (method === 'GET') {
    if (subresource === 'eviction') throw methodNotAllowed();
    const body = faults.nextBody();
    if (body !== undefined) sendText(response, 200, 'application/json', body);
    else if (name !== '') {
      const object = registry.get(resource, namespace, name);
      sendObject(response, path, url, wanted, subresource === 'scale' ? scaleOf(object) : object);
    } else if (flag(url.searchParams.get('watch'))) {
      const initial = url.searchParams.get('sendInitialEvents');
      const query = {
        ...listQueryOf(path, url),
        timeoutSeconds: Number(url.searchParams.get('timeoutSeconds') ?? 0) || 0,
        allowWatchBookmarks: flag(url.searchParams.get('allowWatchBookmarks')),
        sendInitialEvents: initial === null ? undefined : flag(initial),
        includeObject: includeOf(url),
      };
      startWatch(registry, resource, query, wanted, response, faults);
    } else sendList(registry, path, url, wanted, response);
    return;
  }
  const mediaType = mediaTypeOf(request);
  const bytes = await readBody(request);
  const write = writeOptionsOf(request, url, subresource);
  if (method === 'DELETE') {
    const body = bytes.length === 0 ? {} : parseBody(bytes, mediaType);
    const deletion = deleteOptionsOf(body, url, write.dryRun === true);
    if (name === '') {
      const { meta, items } = registry.list(resource, listQueryOf(path, url));
      for (const item of items)
        registry.delete(resource, item.metadata.namespace ?? '', item.metadata.name, deletion);
      sendText(
        response,
        200,
        'application/json',
        jsonList(`${resource.kind}List`, resource.apiVersion, meta, items),
      );
      return;
    }
    const { object, gone } = registry.delete(resource, namespace, name, deletion);
    if (gone && resource.id !== 'pods') sendJson(response, 200, deletedStatus(path, object));
    else sendObject(response, path, url, wanted, object);
    return;
  }
  const body = parseBody(bytes, mediaType);
  if (subresource === 'eviction') {
    if (method !== 'POST') throw methodNotAllowed();
    const given = isObject(body) ? body['deleteOptions'] : undefined;
    registry.delete(resource, namespace, name, deleteOptionsOf(given, url, write.dryRun === true));
    sendJson(response, 201, { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', code: 201 });
  } else if (method === 'POST' && name === '') {
    const object = registry.create(resource, namespace, body, write);
    sendObject(response, path, url, wanted, object, 201, write.warnings);
  } else if (method === 'PUT' && name !== '') {
    const object = registry.update(resource, namespace, name, body, write);
    sendObject(response, path, url, wanted, object, 200, write.warnings);
  } else if (method === 'PATCH' && name !== '') {
    if (!(patchMediaTypes as readonly string[]).includes(mediaType))
      throw unsupportedMediaType(patchMediaTypes);
    const existed = registry.find(resource, namespace, name) !== undefined;
    const object = registry.patch(resource, namespace, name, mediaType, body, write);
    sendObject(response, path, url, wanted, object, existed ? 200 : 201, write.warnings);
  } else throw methodNotAllowed();
}

function sendList(
  registry: Registry,
  path: ResourcePath,
  url: URL,
  wanted: Wanted,
  response: ServerResponse,
): void {
  const { resource } = path;
  const { meta, items } = registry.list(resource, listQueryOf(path, url));
  if (wanted.shape === 'Table') {
    const listMeta = { ...meta } as unknown as JsonObject;
    sendJson(response, 200, tableOf(resource, items, listMeta, includeOf(url)));
  } else if (wanted.shape === 'PartialObjectMetadata') {
    sendJson(response, 200, partialMetadataList(items, meta));
  } else if (wanted.protobuf) {
    sendText(response, 200, protobufType, encodeList(resource, meta, items));
  } else {
    sendText(
      response,
      200,
      'application/json',
      jsonList(`${resource.kind}List`, resource.apiVersion, meta, items),
    );
  }
}

function deleteOptionsOf(body: unknown, { searchParams }: URL, dryRun: boolean): DeleteOptions {
  const given: JsonObject = isObject(body) ? body : {};
  const grace = searchParams.get('gracePeriodSeconds') ?? given['gracePeriodSeconds'];
  const propagation = searchParams.get('propagationPolicy') ?? given['propagationPolicy'];
  const inBody = Array.isArray(given['dryRun']) && given['dryRun'].includes('All');
  return {
    ...(grace === undefined || grace === null ? {} : { gracePeriodSeconds: Number(grace) }),
    ...(typeof propagation === 'string' ? { propagationPolicy: propagation } : {}),
    ...(given['orphanDependents'] === true ? { orphanDependents: true } : {}),
    ...(isObject(given['preconditions']) ? { preconditions: given['preconditions'] } : {}),
    dryRun: dryRun || inBody,
  };
}

function deletedStatus({ resource }: ResourcePath, object: KubeObject): JsonObject {
  return {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Success',
    details: {
      name: object.metadata.name,
      ...(resource.group === '' ? {} : { group: resource.group }),
      kind: resource.plural,
      uid: object.metadata.uid ?? '',
    },
  };
}
