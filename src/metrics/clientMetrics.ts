/**
 * `rest_client_*`: how requests to the API server fare, under the names, labels and buckets of Kubernetes' own client
 * library (k8s.io/component-base/metrics/prometheus/restclient). As there, `verb` is the HTTP method, and a watch counts
 * in `requests_total` but has neither duration nor size.
 */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { RequestObservation } from '../cluster/apiClient.ts';
import type { ConnectionObservation } from '../cluster/observation.ts';

const durationBuckets = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60];
/** 64 bytes to 16 MiB */
const sizeBuckets = [64, 256, 512, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216];
const hour = 3600;
const day = 24 * hour;
const ageBuckets = [
  600,
  1800,
  hour,
  4 * hour,
  day,
  7 * day,
  30 * day,
  90 * day,
  180 * day,
  360 * day,
  1440 * day,
];

type VerbHistogram = Histogram<'verb' | 'host'>;

export class ClientMetrics {
  private readonly requests: Counter<'code' | 'host' | 'method'>;
  private readonly retries: Counter<'code' | 'verb' | 'host'>;
  private readonly duration: VerbHistogram;
  private readonly limited: VerbHistogram;
  private readonly sent: VerbHistogram;
  private readonly received: VerbHistogram;
  private readonly execCalls: Counter<'code' | 'call_status'>;
  private readonly rotationAge: Histogram;
  private readonly timeToLive: Gauge;
  private readonly resolver: Histogram<'host'>;
  private readonly transports: Gauge;
  private readonly transportCalls: Counter<'result'>;
  private readonly authorityReloads: Counter<'result' | 'reason'>;
  /** Milliseconds since the epoch. */
  private certificateExpires = Infinity;

  constructor(registry: Registry) {
    const registers = [registry];
    const byVerb = (name: string, help: string, buckets: number[]): VerbHistogram =>
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
    this.retries = new Counter({
      name: 'rest_client_request_retries_total',
      help: '[ALPHA] Number of request retries, partitioned by status code, verb, and host.',
      labelNames: ['code', 'verb', 'host'],
      registers,
    });
    this.duration = byVerb(
      'request_duration_seconds',
      'Request latency in seconds. Broken down by verb, and host.',
      durationBuckets,
    );
    this.limited = byVerb(
      'rate_limiter_duration_seconds',
      'Client side rate limiter latency in seconds. Broken down by verb, and host.',
      durationBuckets,
    );
    this.sent = byVerb(
      'request_size_bytes',
      'Request size in bytes. Broken down by verb and host.',
      sizeBuckets,
    );
    this.received = byVerb(
      'response_size_bytes',
      'Response size in bytes. Broken down by verb and host.',
      sizeBuckets,
    );
    this.execCalls = new Counter({
      name: 'rest_client_exec_plugin_call_total',
      help: '[ALPHA] Number of calls to an exec plugin, partitioned by the type of event encountered (no_error, plugin_execution_error, plugin_not_found_error, client_internal_error) and an optional exit code.',
      labelNames: ['code', 'call_status'],
      registers,
    });
    this.rotationAge = new Histogram({
      name: 'rest_client_exec_plugin_certificate_rotation_age',
      help: '[ALPHA] Seconds that the last client certificate of an exec plugin lived before it was replaced.',
      buckets: ageBuckets,
      registers,
    });
    this.timeToLive = new Gauge({
      name: 'rest_client_exec_plugin_ttl_seconds',
      help: '[ALPHA] Seconds until the client certificate of the exec plugin expires, negative if it has; +Inf where there is none.',
      registers,
      collect: () => this.timeToLive.set((this.certificateExpires - Date.now()) / 1000),
    });
    this.resolver = new Histogram({
      name: 'rest_client_dns_resolution_duration_seconds',
      help: '[ALPHA] DNS resolver latency in seconds. Broken down by host; there is none where the server is given by its address.',
      labelNames: ['host'],
      buckets: durationBuckets.filter((seconds) => seconds < 60),
      registers,
    });
    this.transports = new Gauge({
      name: 'rest_client_transport_cache_entries',
      help: '[ALPHA] Number of sets of connections to the API server that are kept for requests to come.',
      registers,
    });
    this.transportCalls = new Counter({
      name: 'rest_client_transport_create_calls_total',
      help: '[ALPHA] Number of times connections to the API server were asked for, partitioned by the result: hit (those that are kept), miss (new ones: the first time, other certificates).',
      labelNames: ['result'],
      registers,
    });
    this.authorityReloads = new Counter({
      name: 'rest_client_transport_ca_reload_total',
      help: '[ALPHA] Number of times the file of the certificate authority was looked at again, partitioned by result and reason (unchanged, updated; read_error, empty, ca_parse_error).',
      labelNames: ['result', 'reason'],
      registers,
    });
  }

  observe(observation: RequestObservation): void {
    const { host, method } = observation;
    const labels = { verb: method, host };
    switch (observation.kind) {
      case 'answered':
        this.requests.inc({ code: observation.code, host, method });
        break;
      case 'finished':
        if (observation.verb === 'watch') break;
        this.duration.observe(labels, observation.seconds);
        this.sent.observe(labels, observation.sent);
        if (observation.received !== undefined) this.received.observe(labels, observation.received);
        break;
      case 'retried':
        this.retries.inc({ code: observation.code, verb: method, host });
        break;
      case 'limited':
        this.limited.observe(labels, observation.seconds);
    }
  }

  observeConnection(observation: ConnectionObservation): void {
    switch (observation.kind) {
      case 'called':
        this.execCalls.inc({ code: String(observation.exitCode), call_status: observation.status });
        break;
      case 'certificate':
        this.certificateExpires = observation.expires;
        if (observation.replacedAge !== undefined) this.rotationAge.observe(observation.replacedAge);
        break;
      case 'resolved':
        this.resolver.observe({ host: observation.host }, observation.seconds);
        break;
      case 'transport':
        this.transportCalls.inc({ result: observation.result });
        break;
      case 'transports':
        this.transports.set(observation.kept);
        break;
      case 'authority':
        this.authorityReloads.inc({ result: observation.result, reason: observation.reason });
    }
  }
}
