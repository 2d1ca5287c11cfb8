/**
 * The unix socket on which the daemon says what it does: HTTP, JSON, GET only. Only its owner can reach it, nothing of
 * it opens a port, and a start never fails because of it.
 */
import { chmodSync, lstatSync, mkdirSync, rmSync, statSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Logger } from '../log/logger.ts';
import type { AnswerFilter, Answers } from '../status/daemonStatus.ts';
import { closeServer } from './httpListener.ts';
import { pathOf, queryOf, sendJSON } from './httpReply.ts';

/** Milliseconds: a path that is in use (the daemon before us is still ending) is tried again after this. */
const retryInterval = 5000;
const connectionsMax = 16;
/** sun_path, with its terminating zero. */
const pathMax = 107;

export interface SocketServerOptions {
  readonly path: string;
  readonly answers: Answers;
  readonly log: Logger;
  /** Milliseconds; for tests. */
  readonly retryInterval?: number;
}

export class SocketServer {
  readonly #options: SocketServerOptions;
  #server: Server | undefined;
  #inode = -1;
  #timer: NodeJS.Timeout | undefined;
  #warned = false;
  #stopped = false;
  readonly #removeOnExit = (): void => this.#remove();

  constructor(options: SocketServerOptions) {
    this.#options = options;
  }

  /** Resolves after the first attempt; never rejects. */
  async start(): Promise<void> {
    const { path, log } = this.#options;
    try {
      const inUse = await this.#open(path);
      if (inUse === undefined) return;
      this.#warn(`Another daemon answers on the status socket; trying again until it has ended`, { path });
    } catch (err) {
      this.#warn(
        'The status socket cannot be opened: pointsman status, top and explain will not find this daemon',
        {
          path,
          err,
        },
      );
    }
    if (this.#stopped) return;
    this.#timer = setTimeout(() => void this.start(), this.#options.retryInterval ?? retryInterval);
    this.#timer.unref();
    log.info('Trying the status socket again', { path }, 4);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    if (this.#server !== undefined) closeServer(this.#server);
    this.#remove();
    process.removeListener('exit', this.#removeOnExit);
  }

  /** Resolves to a reason if somebody else answers there. */
  async #open(path: string): Promise<'in use' | undefined> {
    if (Buffer.byteLength(path) > pathMax)
      throw new Error(`the path has more than ${pathMax} bytes; give a shorter --socket-path`);
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const found = lstatSync(path, { throwIfNoEntry: false });
    if (found !== undefined) {
      if (!found.isSocket())
        throw new Error(
          'there is something at the path that is no socket; remove it or give another --socket-path',
        );
      if (await answers(path)) return 'in use';
      rmSync(path, { force: true });
    }
    const server = createServer((request, response) => void this.#serve(request, response));
    server.maxConnections = connectionsMax;
    server.keepAliveTimeout = 1000;
    await listenPrivately(server, path);
    if (this.#stopped) {
      closeServer(server);
      return undefined;
    }
    server.on('error', (err) => this.#options.log.error('The status socket failed', { path, err }));
    this.#server = server;
    this.#inode = statSync(path).ino;
    process.on('exit', this.#removeOnExit);
    this.#options.log.info('Answering on the status socket', { path }, 2);
    return undefined;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = pathOf(request);
    try {
      await this.#answer(path, request, response);
    } catch (err) {
      this.#options.log.error('A question on the status socket could not be answered', { path, err });
      if (response.headersSent) response.destroy();
      else sendError(response, 500, err instanceof Error ? err.message : String(err));
    }
  }

  async #answer(path: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method !== 'GET') return sendError(response, 405, 'only GET is answered here');
    const query = queryOf(request);
    const filter: AnswerFilter = {
      namespace: query.get('namespace') ?? '',
      service: query.get('service') ?? '',
    };
    const { answers } = this.#options;
    switch (path) {
      case '/v1/status':
        return reply(response, answers.status());
      case '/v1/routes':
        return await replyInPieces(response, answers.routes(filter));
      case '/v1/objects':
        return reply(response, answers.objects(filter));
      case '/v1/changes':
        return reply(response, answers.changes(filter));
      case '/v1/counters':
        return reply(response, await answers.counters());
      case '/v1/config':
        return reply(response, answers.config());
      default:
        return sendError(
          response,
          404,
          'there are /v1/status, /v1/routes, /v1/objects, /v1/changes, /v1/counters and /v1/config',
        );
    }
  }

  /** Once: what follows is only repetition. */
  #warn(message: string, fields: Readonly<Record<string, unknown>>): void {
    if (!this.#warned) this.#options.log.warn(message, fields);
    this.#warned = true;
  }

  /** Only the socket we made: the path may be another daemon's by now. */
  #remove(): void {
    const { path } = this.#options;
    if (this.#inode < 0) return;
    if (lstatSync(path, { throwIfNoEntry: false })?.ino === this.#inode) rmSync(path, { force: true });
    this.#inode = -1;
  }
}

/** The socket is nobody else's from its first moment on. */
function listenPrivately(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    const mask = process.umask(0o177);
    try {
      // Binds before it returns.
      server.listen(path, () => {
        server.removeListener('error', reject);
        resolve();
      });
    } finally {
      process.umask(mask);
    }
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true) chmodSync(path, 0o600);
  });
}

/** A socket that nobody listens on refuses. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      resolve(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT');
    });
  });
}

function reply(response: ServerResponse, document: unknown): void {
  sendJSON(response, 200, `${JSON.stringify(document)}\n`);
}

function sendError(response: ServerResponse, status: number, error: string): void {
  sendJSON(response, status, `${JSON.stringify({ error })}\n`);
}

/** Others get a turn between two pieces: a large table must not hold up a sync. */
async function replyInPieces(response: ServerResponse, pieces: Iterable<string>): Promise<void> {
  response.setHeader('Content-Type', 'application/json');
  for (const piece of pieces) {
    if (response.destroyed) return;
    if (!response.write(piece)) await drained(response);
    await nextTurn();
  }
  response.end();
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.removeListener('drain', done);
      response.removeListener('close', done);
      resolve();
    };
    response.once('drain', done);
    response.once('close', done);
  });
}
