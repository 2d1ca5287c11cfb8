/** Asks the daemon of this node, over its unix socket. */
import { request } from 'node:http';
import type { RoutingTable } from '../services/types.ts';
import {
  defaultSocketPath,
  type ChangesDocument,
  type ConfigDocument,
  type CountersDocument,
  type ObjectsDocument,
  type RoutesDocument,
  type StatusDocument,
} from './documents.ts';
import { tableFromDocument } from './routesDocument.ts';

/** Nobody answers; the message says why and what to do. */
export class DaemonUnreachable extends Error {
  override readonly name = 'DaemonUnreachable';
}

export interface DaemonClientOptions {
  /** Default: the environment's POINTSMAN_SOCKET, else the daemon's own default. */
  readonly socketPath?: string;
  /** Milliseconds without a byte. */
  readonly timeout?: number;
}

/** What to show; empty or absent = all. */
export interface ServiceFilter {
  readonly namespace?: string;
  /** A Service's name. */
  readonly service?: string;
}

const hints: Readonly<Record<string, string>> = {
  ENOENT: 'no pointsman runs on this node, or it has another --socket-path: give that with --socket',
  ECONNREFUSED: 'the daemon that made it has ended',
  EACCES: 'only the user that runs the daemon may ask: use sudo',
};

export class DaemonClient {
  readonly socketPath: string;
  readonly #timeout: number;

  constructor(options: DaemonClientOptions = {}) {
    const { POINTSMAN_SOCKET: fromEnvironment = '' } = process.env;
    this.socketPath = options.socketPath ?? (fromEnvironment === '' ? defaultSocketPath : fromEnvironment);
    this.#timeout = options.timeout ?? 30_000;
  }

  status(): Promise<StatusDocument> {
    return this.#get('/v1/status');
  }

  routes(filter?: ServiceFilter): Promise<RoutesDocument> {
    return this.#get('/v1/routes', filter);
  }

  /** The routing tables as the modes see them, IPv4 first. */
  async tables(filter?: ServiceFilter): Promise<RoutingTable[]> {
    return (await this.routes(filter)).families.map(tableFromDocument);
  }

  objects(filter?: ServiceFilter): Promise<ObjectsDocument> {
    return this.#get('/v1/objects', filter);
  }

  changes(filter?: ServiceFilter): Promise<ChangesDocument> {
    return this.#get('/v1/changes', filter);
  }

  counters(): Promise<CountersDocument> {
    return this.#get('/v1/counters');
  }

  config(): Promise<ConfigDocument> {
    return this.#get('/v1/config');
  }

  async #get<T>(path: string, filter: ServiceFilter = {}): Promise<T> {
    const query = new URLSearchParams();
    if (filter.namespace !== undefined && filter.namespace !== '') query.set('namespace', filter.namespace);
    if (filter.service !== undefined && filter.service !== '') query.set('service', filter.service);
    const { status, body } = await this.#fetch(query.size === 0 ? path : `${path}?${query.toString()}`);
    if (status !== 200)
      throw new Error(`the daemon at ${this.socketPath} answered ${path} with ${status}: ${body.trim()}`);
    return JSON.parse(body) as T;
  }

  #fetch(path: string): Promise<{ readonly status: number; readonly body: string }> {
    const { socketPath } = this;
    return new Promise((resolve, reject) => {
      const fail = (error: NodeJS.ErrnoException): void => {
        const hint = hints[error.code ?? ''];
        const why = hint === undefined ? error.message : `${error.code}: ${hint}`;
        reject(new DaemonUnreachable(`nobody answers at ${socketPath} (${why})`, { cause: error }));
      };
      const asked = request({ socketPath, path, agent: false, timeout: this.#timeout }, (response) => {
        const parts: Buffer[] = [];
        response.on('data', (part: Buffer) => parts.push(part));
        response.on('error', fail);
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, body: Buffer.concat(parts).toString('utf8') }),
        );
      });
      asked.on('timeout', () =>
        asked.destroy(new Error(`no answer for ${this.#timeout / 1000} s: the daemon is very busy`)),
      );
      asked.on('error', fail);
      asked.end();
    });
  }
}
