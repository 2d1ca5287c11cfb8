/** The metrics server: metrics, and what this process is and how it is configured. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Registry } from 'prom-client';
import { stringify } from 'yaml';
import type { Logger } from '../log/logger.ts';
import { expose, expositionContentType } from '../metrics/exposition.ts';
import type { SliMetrics } from '../metrics/sliMetrics.ts';
import { notFound, pathOf, queryOf, send, sendJSON, textPlain } from './httpReply.ts';
import { profilingPath, serveProfile } from './profiling.ts';
import {
  flagzObject,
  flagzText,
  negotiate,
  statuszObject,
  statuszText,
  type FlagValue,
  type StatusFacts,
  type ZPageKind,
} from './zpages.ts';

export interface MetricsServerOptions {
  readonly registry: Registry;
  readonly slis: SliMetrics;
  readonly mode: string;
  /** The v1alpha1 document. */
  readonly document: unknown;
  /** undefined = the page is switched off by its feature gate. */
  readonly flags: readonly FlagValue[] | undefined;
  /** undefined = the page is switched off by its feature gate. */
  readonly status: (() => Omit<StatusFacts, 'paths'>) | undefined;
  readonly profiling: boolean;
  /** Changes the log's verbosity; undefined = not possible. Served only with profiling. */
  readonly setVerbosity: ((level: number) => void) | undefined;
  readonly log: Logger;
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

/** The request handler of the metrics server. */
export function metricsHandler(options: MetricsServerOptions): Handler {
  const routes = makeRoutes(options);
  return async (request, response) => {
    const path = pathOf(request);
    try {
      const handler = routes.get(path);
      if (handler !== undefined) await handler(request, response);
      else if (options.profiling && path === '/debug/pprof') redirect(response, profilingPath);
      else if (options.profiling && path.startsWith(profilingPath))
        await serveProfile(path, request, response);
      else notFound(response);
    } catch (err) {
      options.log.error('Request failed', { path, err });
      if (!response.headersSent) send(response, 500, textPlain, 'internal error\n');
      else response.destroy();
    }
  };
}

function makeRoutes(options: MetricsServerOptions): Map<string, Handler> {
  const { registry, slis } = options;
  const configz = JSON.stringify({ 'kubeproxy.config.k8s.io': options.document });
  const routes = new Map<string, Handler>();
  routes.set('/metrics', async (_request, response) => {
    send(response, 200, expositionContentType, await expose(registry), false);
  });
  routes.set('/metrics/slis', async (request, response) => {
    if (request.method === 'DELETE') {
      slis.reset();
      return send(response, 200, textPlain, 'metrics reset\n');
    }
    send(response, 200, expositionContentType, await expose(slis.registry), false);
  });
  for (const path of ['/healthz', '/healthz/ping'])
    routes.set(path, (request, response) => {
      slis.passed('ping');
      const verbose = path === '/healthz' && queryOf(request).has('verbose');
      send(response, 200, textPlain, verbose ? '[+]ping ok\nhealthz check passed\n' : 'ok');
    });
  routes.set('/proxyMode', (_request, response) => send(response, 200, textPlain, options.mode));
  routes.set('/configz', (_request, response) => sendJSON(response, 200, configz));
  const { flags, status } = options;
  if (flags !== undefined)
    routes.set('/flagz', (request, response) =>
      sendZPage(
        'Flagz',
        request,
        response,
        () => flagzText(flags),
        (v) => flagzObject(flags, v),
      ),
    );
  if (status !== undefined) {
    const facts = (): StatusFacts => ({ ...status(), paths: firstSegments(routes.keys()) });
    routes.set('/statusz', (request, response) =>
      sendZPage(
        'Statusz',
        request,
        response,
        () => statuszText(facts()),
        (v) => statuszObject(facts(), v),
      ),
    );
  }
  if (options.profiling) {
    routes.set('/debug/flags/v', (request, response) => setVerbosity(options, request, response));
    routes.set('/debug/flags', (_request, response) =>
      send(response, 200, textPlain, 'v: PUT a number to /debug/flags/v\n'),
    );
  }
  return routes;
}

function firstSegments(paths: Iterable<string>): string[] {
  const segments = new Set<string>();
  for (const path of paths) segments.add(`/${path.split('/')[1] ?? ''}`);
  segments.delete('/statusz');
  return [...segments].toSorted();
}

function sendZPage(
  kind: ZPageKind,
  request: IncomingMessage,
  response: ServerResponse,
  text: () => string,
  structured: (version: string) => object,
): void {
  const format = negotiate(request.headers.accept, kind);
  if (format.kind === 'text') return send(response, 200, textPlain, text());
  if (format.kind === 'notAcceptable')
    return send(response, 406, textPlain, 'the server could not produce the requested format\n');
  if (format.deprecated)
    response.setHeader(
      'Warning',
      `299 - "config.k8s.io/v1alpha1 ${kind} is deprecated; use config.k8s.io/v1beta1 ${kind}"`,
    );
  const body = structured(format.version);
  if (format.kind === 'yaml') return send(response, 200, 'application/yaml', stringify(body));
  sendJSON(response, 200, JSON.stringify(body));
}

async function setVerbosity(
  options: MetricsServerOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (request.method !== 'PUT' || options.setVerbosity === undefined)
    return send(response, 406, textPlain, 'unsupported http method\n');
  let body = '';
  for await (const chunk of request) {
    body += String(chunk);
    if (body.length > 64) break;
  }
  if (!/^\d{1,9}$/.test(body.trim()))
    return send(
      response,
      400,
      textPlain,
      `error parsing verbosity ${JSON.stringify(body)}: a number is wanted\n`,
    );
  options.setVerbosity(Number(body));
  send(response, 200, textPlain, `successfully set klog.logging.verbosity to ${body.trim()}\n`);
}

function redirect(response: ServerResponse, location: string): void {
  response.setHeader('Location', location);
  send(response, 302, textPlain, '', false);
}
