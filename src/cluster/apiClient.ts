/**
 * HTTP to the API server: who we are, how often we may ask, which form we prefer, and what went wrong. Answers are
 * handed on chunk by chunk as they arrive, without a stream in between, so that an event costs no extra turn.
 */
import type { Dispatcher } from 'undici';
import { silentLogger } from '../log/logger.ts';
import type { Logger } from '../log/logger.ts';
import { ApiError, TransportError, parseRetryAfter, transportError } from './apiError.ts';
import { systemClock } from './clock.ts';
import type { Clock } from './clock.ts';
import { ConnectionError } from './connection.ts';
import type { Connection } from './connection.ts';
import { statusFromBody } from './decode/status.ts';
import { RateLimiter } from './rateLimiter.ts';

export { ApiError, TransportError } from './apiError.ts';

/** `list`, `watch`, `get` … as Kubernetes names what is done. */
export type Verb = 'get' | 'list' | 'watch' | 'create' | 'patch';

/** What happens to requests, for metrics. Times are in seconds. */
export type RequestObservation = {
  /** `host:port` of the server. */
  readonly host: string;
  /** GET, POST … */
  readonly method: string;
  readonly verb: Verb;
} & (
  | {
      /** The headers of the answer are there, or it is known that there will be none. */
      readonly kind: 'answered';
      /** HTTP status as text; `<error>` if there was no answer. */
      readonly code: string;
      readonly seconds: number;
    }
  | {
      /** The answer has ended, well or not. */
      readonly kind: 'finished';
      readonly seconds: number;
      /** Bytes of the request's body. */
      readonly sent: number;
      /** Bytes of the answer's body; undefined if there was no answer. */
      readonly received: number | undefined;
    }
  /** Sent once more because of this answer. */
  | { readonly kind: 'retried'; readonly code: string }
  /** Held back so that no more than `qps` go out. */
  | { readonly kind: 'limited'; readonly seconds: number }
);

/** All in milliseconds; 0 = never. */
export interface ClientTimings {
  /** Until the headers of an answer. */
  readonly headers: number;
  /** Between two chunks of an answer that is not a watch. */
  readonly body: number;
  /** For the question whether the server is alive. */
  readonly probe: number;
}

export interface ApiClientOptions {
  readonly connection: Connection;
  /** Preferred form of answers: `application/vnd.kubernetes.protobuf` (default) or `application/json`. */
  readonly contentType?: string;
  /** The Accept header as it is; empty = from contentType, JSON always being welcome. */
  readonly acceptContentTypes?: string;
  /** Requests a second, below 0 = no limit (default 5). */
  readonly qps?: number;
  /** Default 10. */
  readonly burst?: number;
  /** Default `pointsman`. */
  readonly userAgent?: string;
  readonly onRequest?: (observation: RequestObservation) => void;
  readonly log?: Logger;
  readonly clock?: Clock;
  readonly timings?: Partial<ClientTimings>;
}

export type Query = Readonly<Record<string, string | undefined>>;

/** Takes the body of a successful answer. What it throws ends the request and is what the request fails with. */
export interface BodyConsumer {
  start(contentType: string): void;
  data(chunk: Buffer): void;
}

export interface StreamRequest {
  readonly verb: Verb;
  readonly path: string;
  readonly query?: Query;
  readonly consumer: BodyConsumer;
  /** Its reason is what the request fails with. */
  readonly signal?: AbortSignal;
  /** Later pages of a list do not count against qps. */
  readonly unlimited?: boolean;
}

export interface WriteRequest {
  readonly verb: 'create' | 'patch';
  readonly path: string;
  readonly body: unknown;
  readonly signal?: AbortSignal;
}

interface Exchange {
  readonly method: Dispatcher.HttpMethod;
  readonly verb: Verb;
  readonly path: string;
  readonly body?: string;
  readonly contentType?: string;
  readonly consumer: BodyConsumer;
  readonly signal?: AbortSignal | undefined;
  readonly headersTimeout: number;
  readonly bodyTimeout: number;
}

const protobuf = 'application/vnd.kubernetes.protobuf';
const largestErrorBody = 1 << 20;
const largestObject = 64 << 20;

export class ApiClient {
  readonly connection: Connection;
  private readonly accept: string;
  private readonly userAgent: string;
  private readonly limiter: RateLimiter;
  private readonly onRequest: ((observation: RequestObservation) => void) | undefined;
  private readonly log: Logger;
  private readonly clock: Clock;
  private readonly timings: ClientTimings;
  private probing: Promise<void> | undefined;
  private heardAt = 0;

  constructor(options: ApiClientOptions) {
    this.connection = options.connection;
    this.accept = acceptHeader(options.contentType ?? protobuf, options.acceptContentTypes ?? '');
    this.userAgent = options.userAgent ?? 'pointsman';
    this.clock = options.clock ?? systemClock;
    this.limiter = new RateLimiter(options.qps ?? 5, options.burst ?? 10, this.clock);
    this.onRequest = options.onRequest;
    this.log = options.log ?? silentLogger;
    this.timings = { headers: 30_000, body: 60_000, probe: 10_000, ...options.timings };
  }

  /** GET whose body is handed to the consumer as it comes; resolves at its end. @throws ApiError, TransportError */
  async stream(request: StreamRequest): Promise<void> {
    if (request.unlimited !== true) await this.limit('GET', request.verb, request.signal);
    await this.exchange({
      method: 'GET',
      verb: request.verb,
      path: withQuery(request.path, request.query),
      consumer: request.consumer,
      signal: request.signal,
      headersTimeout: this.timings.headers,
      bodyTimeout: request.verb === 'watch' ? 0 : this.timings.body,
    });
  }

  /** POST or merge PATCH of a JSON object; resolves to the answer. @throws ApiError, TransportError */
  async write(request: WriteRequest): Promise<unknown> {
    const method = request.verb === 'create' ? 'POST' : 'PATCH';
    await this.limit(method, request.verb, request.signal);
    const body = new WholeBody();
    await this.exchange({
      method,
      verb: request.verb,
      path: request.path,
      body: JSON.stringify(request.body),
      contentType: request.verb === 'create' ? 'application/json' : 'application/merge-patch+json',
      consumer: body,
      signal: request.signal,
      headersTimeout: this.timings.headers,
      bodyTimeout: this.timings.body,
    });
    return body.json();
  }

  /** GET of one JSON answer. @throws ApiError, TransportError */
  async get(path: string, query?: Query, signal?: AbortSignal): Promise<unknown> {
    const body = new WholeBody();
    await this.stream({
      verb: 'get',
      path,
      consumer: body,
      ...(query && { query }),
      ...(signal && { signal }),
    });
    return body.json();
  }

  /**
   * Asks whether the server answers at all; all callers at a time share one question, and an answer counts for
   * `freshness` milliseconds. An answer of any status is a sign of life. @throws TransportError
   */
  async probe(freshness: number): Promise<void> {
    if (this.clock.now() - this.heardAt < freshness) return;
    this.probing ??= this.ask().finally(() => {
      this.probing = undefined;
    });
    await this.probing;
  }

  private async ask(): Promise<void> {
    try {
      await this.exchange({
        method: 'GET',
        verb: 'get',
        path: '/version',
        consumer: new WholeBody(),
        signal: AbortSignal.timeout(this.timings.probe),
        headersTimeout: this.timings.probe,
        bodyTimeout: this.timings.probe,
      });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
    }
    this.heardAt = this.clock.now();
  }

  private async limit(method: string, verb: Verb, signal: AbortSignal | undefined): Promise<void> {
    const seconds = (await this.limiter.take(signal)) / 1000;
    this.onRequest?.({ kind: 'limited', host: this.connection.host, method, verb, seconds });
  }

  private async exchange(exchange: Exchange): Promise<void> {
    try {
      await this.attempt(exchange);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) throw error;
      if (!this.connection.unauthorized()) throw error;
      const { method, verb } = exchange;
      this.onRequest?.({ kind: 'retried', host: this.connection.host, method, verb, code: '401' });
      await this.attempt(exchange);
    }
  }

  private async attempt(exchange: Exchange): Promise<void> {
    const { connection } = this;
    const headers: Record<string, string | string[]> = {
      ...(await connection.headers()),
      accept: this.accept,
      'user-agent': this.userAgent,
    };
    if (exchange.contentType !== undefined) headers['content-type'] = exchange.contentType;
    const started = performance.now();
    const { method, verb, path } = exchange;
    const request = { host: connection.host, method, verb };
    const observer: ExchangeObserver = {
      answered: (code) => {
        const seconds = (performance.now() - started) / 1000;
        if (this.log.enabled(6)) this.log.info('API request', { method, path, code, seconds }, 6);
        this.onRequest?.({ kind: 'answered', ...request, code, seconds });
      },
      finished: (received) => {
        const seconds = (performance.now() - started) / 1000;
        const sent = exchange.body === undefined ? 0 : Buffer.byteLength(exchange.body);
        this.onRequest?.({ kind: 'finished', ...request, seconds, sent, received });
      },
    };
    const what = `${exchange.method} ${connection.access.server}${exchange.path.split('?', 1)[0]}`;
    await new Promise<void>((resolve, reject) => {
      const handler = new ResponseHandler(
        exchange,
        what,
        connection.access.origin,
        observer,
        resolve,
        reject,
      );
      connection.dispatcher().dispatch(
        {
          origin: connection.origin,
          path: connection.basePath + exchange.path,
          method: exchange.method,
          headers,
          body: exchange.body ?? null,
          headersTimeout: exchange.headersTimeout,
          bodyTimeout: exchange.bodyTimeout,
        },
        handler,
      );
    });
  }
}

/** Told once each. */
interface ExchangeObserver {
  /** @param code HTTP status; `<error>` = no answer */
  answered(code: string): void;
  /** @param received bytes of the body; undefined = no answer */
  finished(received: number | undefined): void;
}

/** One answer: success goes to the consumer, anything else becomes an error. */
class ResponseHandler implements Dispatcher.DispatchHandler {
  private readonly exchange: Exchange;
  private readonly what: string;
  private readonly origin: string;
  private readonly observer: ExchangeObserver;
  private readonly resolve: () => void;
  private readonly reject: (error: Error) => void;
  private controller: Dispatcher.DispatchController | undefined;
  private settled = false;
  private status = 0;
  private contentType = '';
  private retryAfter: number | undefined;
  private errorBody: Buffer[] = [];
  private received = 0;

  constructor(
    exchange: Exchange,
    what: string,
    origin: string,
    observer: ExchangeObserver,
    resolve: () => void,
    reject: (error: Error) => void,
  ) {
    this.exchange = exchange;
    this.what = what;
    this.origin = origin;
    this.observer = observer;
    this.resolve = resolve;
    this.reject = reject;
    const { signal } = exchange;
    if (signal?.aborted === true) this.onAbort();
    else signal?.addEventListener('abort', this.onAbort, { once: true });
  }

  private readonly onAbort = (): void => {
    const reason: unknown = this.exchange.signal?.reason;
    this.fail(reason instanceof Error ? reason : new TransportError(`${this.what}: stopped`));
  };

  private settle(): boolean {
    if (this.settled) return false;
    this.settled = true;
    this.exchange.signal?.removeEventListener('abort', this.onAbort);
    if (this.status === 0) this.observer.answered('<error>');
    this.observer.finished(this.status === 0 ? undefined : this.received);
    return true;
  }

  private fail(error: Error): void {
    if (!this.settle()) return;
    this.reject(error);
    this.controller?.abort(error);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.controller = controller;
    if (this.settled) controller.abort(new TransportError(`${this.what}: stopped`));
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: Readonly<Record<string, string | string[] | undefined>>,
  ): void {
    if (status < 200 || this.settled) return;
    this.status = status;
    this.observer.answered(String(status));
    this.contentType = first(headers['content-type']) ?? '';
    this.retryAfter = parseRetryAfter(first(headers['retry-after']), Date.now());
    if (status >= 300) return;
    try {
      this.exchange.consumer.start(this.contentType);
    } catch (error) {
      this.fail(error as Error);
    }
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.settled) return;
    this.received += chunk.length;
    if (this.status >= 300) {
      if (this.received <= largestErrorBody) this.errorBody.push(chunk);
      return;
    }
    try {
      this.exchange.consumer.data(chunk);
    } catch (error) {
      this.fail(error as Error);
    }
  }

  onResponseEnd(): void {
    if (this.status < 300) {
      if (this.settle()) this.resolve();
      return;
    }
    const status = statusFromBody(this.contentType, Buffer.concat(this.errorBody));
    this.fail(new ApiError(this.what, this.status, status, this.retryAfter));
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    const known = error instanceof TransportError || error instanceof ConnectionError;
    this.fail(known ? error : transportError(this.what, error, this.origin));
  }
}

function first(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header;
}

/** Protobuf is asked for with JSON beside it: aggregated and older servers speak only that. */
function acceptHeader(contentType: string, acceptContentTypes: string): string {
  if (acceptContentTypes !== '') return acceptContentTypes;
  if (contentType === '' || contentType === 'application/json') return 'application/json';
  return `${contentType},application/json`;
}

function withQuery(path: string, query: Query | undefined): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== '') parameters.set(name, value);
  }
  const text = parameters.toString();
  return text === '' ? path : `${path}?${text}`;
}

class WholeBody implements BodyConsumer {
  private readonly chunks: Buffer[] = [];
  private bytes = 0;
  private contentType = '';

  start(contentType: string): void {
    this.contentType = contentType;
  }

  data(chunk: Buffer): void {
    this.bytes += chunk.length;
    if (this.bytes > largestObject) throw new TransportError(`an answer of more than ${largestObject} bytes`);
    this.chunks.push(chunk);
  }

  /** Undefined if the answer is not JSON (written objects may come back as protobuf: nobody reads them). */
  json(): unknown {
    if (!this.contentType.startsWith('application/json')) return undefined;
    return JSON.parse(Buffer.concat(this.chunks).toString('utf8')) as unknown;
  }
}
