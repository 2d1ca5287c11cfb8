/**
 * Prometheus text exposition, format 0.0.4, laid out as kube-proxy's: metrics sorted by name, `le` last, no metric
 * without a sample (a vector shows up after its first use only).
 */
import type { MetricObjectWithValues, MetricValue, Registry } from 'prom-client';

export const expositionContentType = 'text/plain; version=0.0.4; charset=utf-8';

type Sample = MetricValue<string> & { readonly metricName?: string };

/** Reads every metric of the registry (this runs their `collect` functions) and prints it. */
export async function expose(registry: Registry): Promise<string> {
  const metrics = (await registry.getMetricsAsJSON()) as MetricObjectWithValues<Sample>[];
  metrics.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  const lines: string[] = [];
  for (const metric of metrics) {
    if (metric.values.length === 0) continue;
    lines.push(`# HELP ${metric.name} ${escapeHelp(metric.help)}`);
    // The typings say MetricType, a numeric enum; the library's values are the words of the format.
    lines.push(`# TYPE ${metric.name} ${String(metric.type)}`);
    for (const sample of metric.values) lines.push(sampleLine(metric.name, sample));
  }
  return lines.length === 0 ? '' : `${lines.join('\n')}\n`;
}

function sampleLine(metric: string, sample: Sample): string {
  const labels: string[] = [];
  let bound: string | undefined;
  for (const [name, value] of Object.entries(sample.labels)) {
    if (name === 'le') bound = typeof value === 'number' ? formatValue(value) : String(value);
    else labels.push(`${name}="${escapeLabel(String(value))}"`);
  }
  if (bound !== undefined) labels.push(`le="${bound}"`);
  const braces = labels.length === 0 ? '' : `{${labels.join(',')}}`;
  return `${sample.metricName ?? metric}${braces} ${formatValue(sample.value)}`;
}

/** A number as the format spells it. */
export function formatValue(value: number): string {
  if (value === Infinity) return '+Inf';
  if (value === -Infinity) return '-Inf';
  return String(value);
}

function escapeHelp(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
}

function escapeLabel(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"');
}
