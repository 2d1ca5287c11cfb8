/** `rest_client_*`: how requests to the API server fare, under the names of Kubernetes' own client library. */
import { Counter, Histogram, type Registry } from 'prom-client';
import type { RequestObservation } from '../cluster/apiClient.ts';

const durationBuckets = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60];

export class ClientMetrics {
  private readonly requests: Counter<'code' | 'host' | 'method'>;
  private readonly duration: Histogram<'verb' | 'host'>;

  constructor(registry: Registry) {
    const registers = [registry];
    this.requests = new Counter({
      name: 'rest_client_requests_total',
      help: '[ALPHA] Number of HTTP requests, partitioned by status code, method, and host.',
      labelNames: ['code', 'host', 'method'],
      registers,
    });
    this.duration = new Histogram({
      name: 'rest_client_request_duration_seconds',
      help: '[ALPHA] Request latency in seconds. Broken down by verb, and host.',
      labelNames: ['verb', 'host'],
      buckets: durationBuckets,
      registers,
    });
  }

  observe(request: RequestObservation): void {
    const { code, host, method } = request;
    this.requests.inc({ code, host, method });
    this.duration.observe({ verb: method, host }, request.seconds);
  }
}
