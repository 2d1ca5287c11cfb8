/** Everything the metrics server of this process exposes. */
import { featureEnabled, featureGates } from '../config/features.ts';
import type { ProxyConfig } from '../config/types.ts';
import { ClientMetrics } from '../metrics/clientMetrics.ts';
import { registerBuildInfo, registerFeatures, registerMetricCounts } from '../metrics/infoMetrics.ts';
import { Metrics } from '../metrics/metrics.ts';
import { registerProcessMetrics } from '../metrics/processMetrics.ts';
import { pointsmanVersion } from '../version.ts';
import type { ModeSupport } from './dataplanes.ts';

export interface DaemonMetrics {
  readonly metrics: Metrics;
  readonly client: ClientMetrics;
}

export function createMetrics(config: ProxyConfig, mode: ModeSupport): DaemonMetrics {
  const metrics = new Metrics({
    mode: config.mode,
    ...(mode.packetCounters !== undefined && { packetCounters: mode.packetCounters() }),
  });
  const { registry } = metrics;
  const client = new ClientMetrics(registry);
  registerProcessMetrics(registry);
  registerBuildInfo(registry, {
    version: pointsmanVersion,
    kubernetesVersion: config.reportedVersion,
  });
  const features = Object.entries(featureGates).map(([name, { stage }]) => ({
    name,
    stage,
    enabled: featureEnabled(config.featureGates, name),
  }));
  registerFeatures(registry, features);
  registerMetricCounts(registry);
  return { metrics, client };
}
