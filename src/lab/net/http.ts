/** One HTTP request from inside a namespace. */
import { request } from 'node:http';
import { Socket } from 'node:net';
import { closeDescriptor, describeErrno } from '../../linux/ffi.ts';
import { canonicalIp, type SocketAddress } from './address.ts';
import type { Namespaces } from './namespaces.ts';
import { connect, openClient } from './sockets.ts';

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** An error of the connection; `code` is the errno's name, or `ETIMEDOUT`. */
export class HttpFailure extends Error {
  readonly code: string;

  constructor(url: string, code: string, cause?: unknown) {
    super(`GET ${url} failed: ${code}`, { cause });
    this.name = 'HttpFailure';
    this.code = code;
  }
}

function addressOf(url: URL): SocketAddress {
  const ip = url.hostname.replace(/^\[|\]$/g, '');
  return { ip: canonicalIp(ip), port: url.port === '' ? 80 : Number(url.port) };
}

/** GET; resolves with any status. Rejects with HttpFailure; `patience` in ms covers the whole exchange. */
export function httpGet(
  namespaces: Namespaces,
  namespace: string,
  address: string,
  patience: number,
  source?: string,
): Promise<HttpAnswer> {
  const url = new URL(address);
  const to = addressOf(url);
  let errno = 0;
  const fd = namespaces.enter(namespace, () => {
    const made = openClient('tcp', to, source === undefined ? undefined : { ip: source, port: 0 });
    errno = connect(made, to);
    return made;
  });
  if (errno !== 0) {
    closeDescriptor(fd);
    return Promise.reject(new HttpFailure(address, describeErrno(errno)[0]));
  }
  const socket = new Socket({ fd });
  return new Promise((resolve, reject) => {
    const fail = (code: string, cause?: unknown): void => {
      clearTimeout(timer);
      socket.destroy();
      reject(new HttpFailure(address, code, cause));
    };
    const timer = setTimeout(() => fail('ETIMEDOUT'), patience);
    const outgoing = request(
      {
        createConnection: () => socket,
        method: 'GET',
        host: to.ip,
        port: to.port,
        path: `${url.pathname}${url.search}`,
        headers: { host: url.host, connection: 'close' },
      },
      (answer) => {
        const chunks: Buffer[] = [];
        answer.on('data', (chunk: Buffer) => chunks.push(chunk));
        answer.on('error', (error: NodeJS.ErrnoException) => fail(error.code ?? 'ECONNRESET', error));
        answer.on('end', () => {
          clearTimeout(timer);
          socket.destroy();
          const headers = Object.entries(answer.headers).map(
            ([name, value]) => [name, String(value)] as const,
          );
          resolve({
            status: answer.statusCode ?? 0,
            headers: Object.fromEntries(headers),
            body: Buffer.concat(chunks).toString(),
          });
        });
      },
    );
    outgoing.on('error', (error: NodeJS.ErrnoException) => fail(error.code ?? 'ECONNRESET', error));
    outgoing.end();
  });
}
