/** `rest_client_*`: how requests to the API server fare, under the names of Kubernetes' own client library. */
import { Counter, Histogram, type Registry } from 'prom-client';
import { exponentialBuckets } from './buckets.ts';

/** One request as the API client saw it. */
export interface RequestObservation {
  /** HTTP status as text, or `<error>` if there was no answer. */
  readonly code: string;
  /** `host:port` of the server. */
  readonly host: string;
  /** `GET`, `POST` … */
  readonly method: string;
  readonly seconds: number;
  /** Time waited for the client-side rate limit. */
  readonly rateLimiterSeconds: number;
  /** Bytes of the request's body, 0 if none. */
  readonly requestBytes: number;
  /** Bytes of the answer's body; undefined where it is not known (watches). */
  readonly responseBytes: number | undefined;
}

const durationBuckets = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60];
const sizeBuckets = [64, ...exponentialBuckets(256, 2, 2), ...exponentialBuckets(1024, 4, 7)];

export class ClientMetrics {
  private readonly requests: Counter<'code' | 'host' | 'method'>;
  private readonly duration: Histogram<'verb' | 'host'>;
  private readonly rateLimiter: Histogram<'verb' | 'host'>;
  private readonly requestSize: Histogram<'verb' | 'host'>;
  private readonly responseSize: Histogram<'verb' | 'host'>;
  private readonly retries: Counter<'code' | 'verb' | 'host'>;

  constructor(registry: Registry) {
    const registers = [registry];
    const histogram = (name: string, help: string, buckets: number[]) =>
      new Histogram({
        name: `rest_client_${name}`,
        help: `[ALPHA] ${help}`,
        labelNames: ['verb', 'host'],
        buckets,
        registers,
      });
    this.requests = new Counter({
      name: 'rest_client_requests_total',
      help: '[ALPHA] Number of HTTP requests, partitioned by status code, method, and host.',
      labelNames: ['code', 'host', 'method'],
      registers,
    });
    this.duration = histogram(
      'request_duration_seconds',
      'Request latency in seconds. Broken down by verb, and host.',
      durationBuckets,
    );
    this.rateLimiter = histogram(
      'rate_limiter_duration_seconds',
      'Client side rate limiter latency in seconds. Broken down by verb, and host.',
      durationBuckets,
    );
    this.requestSize = histogram(
      'request_size_bytes',
      'Request size in bytes. Broken down by verb and host.',
      sizeBuckets,
    );
    this.responseSize = histogram(
      'response_size_bytes',
      'Response size in bytes. Broken down by verb and host.',
      sizeBuckets,
    );
    this.retries = new Counter({
      name: 'rest_client_request_retries_total',
      help: '[ALPHA] Number of request retries, partitioned by status code, verb, and host.',
      labelNames: ['code', 'verb', 'host'],
      registers,
    });
  }

  observe(request: RequestObservation): void {
    const { code, host, method } = request;
    const labels = { verb: method, host };
    this.requests.inc({ code, host, method });
    this.duration.observe(labels, request.seconds);
    this.rateLimiter.observe(labels, request.rateLimiterSeconds);
    this.requestSize.observe(labels, request.requestBytes);
    if (request.responseBytes !== undefined) this.responseSize.observe(labels, request.responseBytes);
  }

  retried(code: string, host: string, method: string): void {
    this.retries.inc({ code, verb: method, host });
  }
}
