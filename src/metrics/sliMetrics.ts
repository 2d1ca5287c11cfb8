/** `/metrics/slis`: the results of the component's own health checks (KEP-3466). */
import { Counter, Gauge, Registry } from 'prom-client';

export class SliMetrics {
  readonly registry = new Registry();
  private readonly last = new Gauge({
    name: 'kubernetes_healthcheck',
    help: '[STABLE] This metric records the result of a single healthcheck.',
    labelNames: ['name', 'type'],
    registers: [this.registry],
  });
  private readonly results = new Counter({
    name: 'kubernetes_healthchecks_total',
    help: '[STABLE] This metric records the results of all healthcheck.',
    labelNames: ['name', 'status', 'type'],
    registers: [this.registry],
  });

  /** A health check of the metrics server was asked and passed. */
  passed(name: string): void {
    this.last.set({ name, type: 'healthz' }, 1);
    this.results.inc({ name, status: 'success', type: 'healthz' });
  }

  reset(): void {
    this.registry.resetMetrics();
  }
}
