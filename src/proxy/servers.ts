/** The health server and the metrics server, each listening for as long as the process lives. */
import { toDocument } from '../config/document.ts';
import { featureEnabled } from '../config/features.ts';
import type { ProxyConfig } from '../config/types.ts';
import type { Logger } from '../log/logger.ts';
import type { Metrics } from '../metrics/metrics.ts';
import { SliMetrics } from '../metrics/sliMetrics.ts';
import { pointsmanVersion } from '../version.ts';
import { healthHandler } from './healthServer.ts';
import { HttpListener } from './httpListener.ts';
import { metricsHandler } from './metricsServer.ts';
import type { ProxyHealth } from './proxyHealth.ts';

/** The log the daemon is given; verbosity can be changed where it allows it. */
export type DaemonLog = Logger & { setVerbosity?(level: number): void };

export interface ServerOptions {
  readonly config: ProxyConfig;
  readonly health: ProxyHealth;
  readonly metrics: Metrics;
  readonly log: DaemonLog;
  /** A port could not be opened and the configuration says that this ends the process. */
  readonly hardFailed: (server: 'healthz' | 'metrics', error: Error) => void;
}

export class Servers {
  private readonly listeners: HttpListener[] = [];
  private readonly options: ServerOptions;

  constructor(options: ServerOptions) {
    this.options = options;
  }

  /** Opens both in the background. */
  start(): void {
    const { config, health, metrics, log } = this.options;
    if (config.healthzBindAddress !== '') {
      const handler = healthHandler({
        health,
        probed: (probe, status) => metrics.probed(probe, status),
        now: Date.now,
      });
      this.open('healthz', config.healthzBindAddress, handler);
    }
    const startTime = Date.now();
    const serve = metricsHandler({
      registry: metrics.registry,
      slis: new SliMetrics(),
      mode: config.mode,
      document: toDocument(config),
      flags: featureEnabled(config.featureGates, 'ComponentFlagz') ? config.flags : undefined,
      status: featureEnabled(config.featureGates, 'ComponentStatusz')
        ? () => ({
            startTime,
            now: Date.now(),
            version: pointsmanVersion,
            kubernetesVersion: config.reportedVersion,
          })
        : undefined,
      profiling: config.enableProfiling,
      setVerbosity: log.setVerbosity === undefined ? undefined : (level) => log.setVerbosity?.(level),
      log,
    });
    this.open('metrics', config.metricsBindAddress, (request, response) => {
      void serve(request, response);
    });
  }

  stop(): void {
    for (const listener of this.listeners) listener.stop();
  }

  private open(
    name: 'healthz' | 'metrics',
    address: string,
    handler: ConstructorParameters<typeof HttpListener>[0]['handler'],
  ): void {
    const { config, log, hardFailed } = this.options;
    const bindFailed = (error: Error): boolean => {
      if (config.bindAddressHardFail) hardFailed(name, error);
      return config.bindAddressHardFail;
    };
    const listener = new HttpListener({ name, address, handler, log, bindFailed });
    this.listeners.push(listener);
    void listener.start();
  }
}
