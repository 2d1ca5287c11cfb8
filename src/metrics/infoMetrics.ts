/** What every Kubernetes component says of itself in its metrics: build, feature gates, and the metrics it has. */
import { Counter, Gauge, type Registry } from 'prom-client';

export interface BuildInfo {
  /** Ours, e.g. `0.1.0`. */
  readonly version: string;
  /** Kubernetes version we are compatible with, e.g. `v1.36.2`. */
  readonly kubernetesVersion: string;
}

export interface FeatureInfo {
  readonly name: string;
  /** `ALPHA`, `BETA`, `DEPRECATED` or empty for GA. */
  readonly stage: string;
  readonly enabled: boolean;
}

export function registerBuildInfo(registry: Registry, build: BuildInfo): void {
  const [, major = '', minor = ''] = /^v(\d+)\.(\d+)/.exec(build.kubernetesVersion) ?? [];
  new Gauge({
    name: 'kubernetes_build_info',
    help: '[ALPHA] Always 1; the labels say which Kubernetes version this component is compatible with.',
    labelNames: ['major', 'minor', 'git_version', 'platform'],
    registers: [registry],
  })
    .labels(major, minor, build.kubernetesVersion, platform())
    .set(1);
  new Gauge({
    name: 'pointsman_build_info',
    help: 'Always 1; the labels say which pointsman on which Node.js this is.',
    labelNames: ['version', 'node_version'],
    registers: [registry],
  })
    .labels(build.version, process.version)
    .set(1);
}

export function registerFeatures(registry: Registry, features: readonly FeatureInfo[]): void {
  const gauge = new Gauge({
    name: 'kubernetes_feature_enabled',
    help: '[BETA] Whether a feature gate is on (1) or off (0), and its stage.',
    labelNames: ['name', 'stage'],
    registers: [registry],
  });
  for (const { name, stage, enabled } of features) gauge.labels(name, stage).set(enabled ? 1 : 0);
}

/** Counts what the registry holds at scrape time, by the stability level that helps begin with. */
export function registerMetricCounts(registry: Registry): void {
  const collect = (): void => {
    registered.reset();
    for (const metric of registry.getMetricsAsArray()) {
      const level = /^\[(ALPHA|BETA|STABLE)\] /.exec(metric.help)?.[1];
      if (level !== undefined) registered.inc({ stability_level: level, deprecated_version: '' });
    }
  };
  const registered = new Counter({
    name: 'registered_metrics_total',
    help: '[BETA] The count of registered metrics by stability level and deprecation version.',
    labelNames: ['stability_level', 'deprecated_version'],
    registers: [registry],
    collect,
  });
  // Ours are never disabled or hidden; the two are there because dashboards ask for them.
  for (const state of ['disabled', 'hidden'])
    registry.registerMetric(
      new Counter({
        name: `${state}_metrics_total`,
        help: `[BETA] The count of ${state} metrics.`,
        registers: [],
      }),
    );
}

/** As Go names it, e.g. `linux/amd64`. */
function platform(): string {
  const architectures: Record<string, string> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' };
  return `linux/${architectures[process.arch] ?? process.arch}`;
}
