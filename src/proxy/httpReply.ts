/** Replies with the headers kube-proxy's servers send. */
import type { IncomingMessage, ServerResponse } from 'node:http';

export const textPlain = 'text/plain; charset=utf-8';

/** The path of a request, without its query. */
export function pathOf(request: IncomingMessage): string {
  const url = request.url ?? '/';
  const query = url.indexOf('?');
  return query < 0 ? url : url.slice(0, query);
}

/** The query of a request. */
export function queryOf(request: IncomingMessage): URLSearchParams {
  const url = request.url ?? '/';
  const query = url.indexOf('?');
  return new URLSearchParams(query < 0 ? '' : url.slice(query + 1));
}

/** Sends a whole body. `nosniff` is the header that tells browsers to believe the type. */
export function send(
  response: ServerResponse,
  status: number,
  contentType: string,
  body: string,
  nosniff = true,
): void {
  response.statusCode = status;
  response.setHeader('Content-Type', contentType);
  if (nosniff) response.setHeader('X-Content-Type-Options', 'nosniff');
  response.setHeader('Content-Length', Buffer.byteLength(body));
  response.end(body);
}

export function sendJSON(response: ServerResponse, status: number, body: string): void {
  send(response, status, 'application/json', body);
}

export function notFound(response: ServerResponse): void {
  send(response, 404, textPlain, '404 page not found\n');
}
