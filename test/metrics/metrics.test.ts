import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expose, formatValue } from '../../src/metrics/exposition.ts';
import { Metrics } from '../../src/metrics/metrics.ts';
import { registerMetricCounts, registerBuildInfo } from '../../src/metrics/infoMetrics.ts';
import { registerProcessMetrics } from '../../src/metrics/processMetrics.ts';
import { programmingBuckets, syncBuckets } from '../../src/metrics/buckets.ts';

const b15 = '0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048 4.096 8.192 16.384';

/** `name type label,label` of each metric of the text, with a check of the help's prefix. */
function shape(text: string): string[] {
  const shapes: string[] = [];
  let type = '';
  let name = '';
  for (const line of text.split('\n')) {
    const typed = /^# TYPE (\S+) (\S+)$/.exec(line);
    if (typed !== null) {
      [, name = '', type = ''] = typed;
      continue;
    }
    if (line === '' || line.startsWith('#')) continue;
    const labels = [...line.matchAll(/[{,]([a-z_]+)="/g)].map((match) => match[1]).join(',');
    const one = `${name} ${type} ${labels.replace(/,?le$/, '')}`.trim();
    if (!shapes.includes(one)) shapes.push(one);
  }
  return shapes;
}

function useAll(metrics: Metrics): void {
  const family = metrics.family('IPv4');
  family.syncAttempted(0.003, true);
  family.syncAttempted(0.003, false);
  family.syncSucceeded(1000);
  family.syncRequested(1001);
  family.programmed(1);
  family.noLocalEndpoints('internal', 0);
  family.noLocalEndpoints('external', 2);
  family.report({ kind: 'iptablesRules', table: 'nat', total: 7, last: 3 });
  family.report({ kind: 'iptablesRules', table: 'filter', total: 5, last: 5 });
  family.report({ kind: 'iptablesRestoreFailure', partial: true });
  family.report({ kind: 'iptablesRestoreFailure', partial: false });
  family.report({ kind: 'nftablesSyncFailure' });
  family.report({ kind: 'nftablesCleanupFailure' });
  family.conntrackReconciled(0.01, 4);
  metrics.endpointEvent(true);
  metrics.serviceEvent(3);
  metrics.probed('healthz', 200);
  metrics.probed('livez', 503);
}

test('iptables mode: names, types and labels of the reference', async () => {
  const metrics = new Metrics({
    mode: 'iptables',
    packetCounters: {
      ctStateInvalidDropped: () => 5,
      localhostNodePortsAccepted: () => undefined,
    },
  });
  useAll(metrics);
  const text = await expose(metrics.registry);
  assert.deepEqual(
    shape(text).filter((one) => one.startsWith('kubeproxy_')),
    [
      'kubeproxy_conntrack_reconciler_deleted_entries_total counter ip_family',
      'kubeproxy_conntrack_reconciler_sync_duration_seconds histogram ip_family',
      'kubeproxy_iptables_ct_state_invalid_dropped_packets_total counter',
      'kubeproxy_network_programming_duration_seconds histogram ip_family',
      'kubeproxy_proxy_healthz_total counter code',
      'kubeproxy_proxy_livez_total counter code',
      'kubeproxy_sync_full_proxy_rules_duration_seconds histogram ip_family',
      'kubeproxy_sync_partial_proxy_rules_duration_seconds histogram ip_family',
      'kubeproxy_sync_proxy_rules_duration_seconds histogram ip_family',
      'kubeproxy_sync_proxy_rules_endpoint_changes_pending gauge',
      'kubeproxy_sync_proxy_rules_endpoint_changes_total counter',
      'kubeproxy_sync_proxy_rules_iptables_last gauge table,ip_family',
      'kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total counter ip_family',
      'kubeproxy_sync_proxy_rules_iptables_restore_failures_total counter ip_family',
      'kubeproxy_sync_proxy_rules_iptables_total gauge table,ip_family',
      'kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds gauge ip_family',
      'kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge ip_family',
      'kubeproxy_sync_proxy_rules_no_local_endpoints_total gauge traffic_policy,ip_family',
      'kubeproxy_sync_proxy_rules_service_changes_pending gauge',
      'kubeproxy_sync_proxy_rules_service_changes_total counter',
    ],
  );
  for (const help of text.match(/^# HELP kubeproxy_.*$/gm) ?? [])
    assert.match(help, /^# HELP \S+ \[ALPHA\] /);
  assert.match(text, /^kubeproxy_iptables_ct_state_invalid_dropped_packets_total 5$/m);
  assert.match(text, /restore_failures_total\{ip_family="IPv4"\} 2$/m);
  assert.match(text, /partial_restore_failures_total\{ip_family="IPv4"\} 1$/m);
  assert.match(
    text,
    /^kubeproxy_sync_proxy_rules_duration_seconds_bucket\{ip_family="IPv4",le="0\.004"\} 2$/m,
  );
  assert.match(
    text,
    /^kubeproxy_sync_proxy_rules_duration_seconds_bucket\{ip_family="IPv4",le="\+Inf"\} 2$/m,
  );
  metrics.changesTaken();
  const taken = await expose(metrics.registry);
  assert.match(taken, /^kubeproxy_sync_proxy_rules_endpoint_changes_pending 0$/m);
  assert.match(taken, /^kubeproxy_sync_proxy_rules_service_changes_pending 0$/m);
  assert.match(taken, /^kubeproxy_sync_proxy_rules_service_changes_total 1$/m);
});

test('a vector shows up after its first use only', async () => {
  const text = await expose(new Metrics({ mode: 'iptables' }).registry);
  assert.deepEqual(shape(text), [
    'kubeproxy_sync_proxy_rules_endpoint_changes_pending gauge',
    'kubeproxy_sync_proxy_rules_endpoint_changes_total counter',
    'kubeproxy_sync_proxy_rules_service_changes_pending gauge',
    'kubeproxy_sync_proxy_rules_service_changes_total counter',
  ]);
  assert.ok(!text.includes('duration'));
});

test('other modes leave out what is not theirs', async () => {
  const nftables = new Metrics({ mode: 'nftables' });
  useAll(nftables);
  const text = await expose(nftables.registry);
  assert.ok(!text.includes('kubeproxy_sync_proxy_rules_iptables'));
  assert.match(text, /^kubeproxy_sync_proxy_rules_nftables_sync_failures_total\{/m);
  assert.match(text, /^kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total\{/m);
  assert.match(text, /^kubeproxy_sync_partial_proxy_rules_duration_seconds_count\{/m);
  const ipvs = new Metrics({ mode: 'ipvs' });
  useAll(ipvs);
  const ipvsText = await expose(ipvs.registry);
  assert.ok(!ipvsText.includes('full_proxy_rules'));
  assert.ok(ipvsText.includes('iptables_restore_failures_total'));
  assert.ok(!ipvsText.includes('partial_restore_failures_total'));
});

test('buckets', () => {
  assert.equal(syncBuckets.join(' '), b15);
  assert.equal(programmingBuckets.length, 2 + 59 + 12 + 7);
  assert.deepEqual(programmingBuckets.slice(0, 4), [0.25, 0.5, 1, 2]);
  assert.deepEqual(programmingBuckets.slice(59, 64), [58, 59, 60, 65, 70]);
  assert.deepEqual(programmingBuckets.slice(-9), [110, 115, 120, 150, 180, 210, 240, 270, 300]);
});

test('problems are counted by reason', async () => {
  const metrics = new Metrics({ mode: 'iptables' });
  metrics.skipped('invalid_address');
  assert.match(
    await expose(metrics.registry),
    /^pointsman_skipped_objects_total\{reason="invalid_address"\} 1$/m,
  );
});

test('process metrics and counts read the truth', async () => {
  const metrics = new Metrics({ mode: 'iptables' });
  registerProcessMetrics(metrics.registry);
  registerBuildInfo(metrics.registry, { version: '0.1.0', kubernetesVersion: 'v1.36.2' });
  registerMetricCounts(metrics.registry);
  const text = await expose(metrics.registry);
  const value = (name: string) => Number(new RegExp(`^${name} (.*)$`, 'm').exec(text)?.[1]);
  assert.ok(value('process_resident_memory_bytes') > 1e6);
  assert.ok(value('process_open_fds') > 2);
  assert.ok(value('process_max_fds') > 2);
  assert.ok(Math.abs(value('process_start_time_seconds') * 1000 - Date.now()) < 600_000);
  assert.match(text, /^kubernetes_build_info\{major="1",minor="36",git_version="v1\.36\.2",/m);
  assert.match(text, /^registered_metrics_total\{stability_level="ALPHA",deprecated_version=""\} \d+$/m);
  assert.match(text, /^disabled_metrics_total 0$/m);
});

test('numbers and labels are spelled as the format wants', async () => {
  assert.equal(formatValue(Infinity), '+Inf');
  assert.equal(formatValue(NaN), 'NaN');
  const metrics = new Metrics({ mode: 'iptables' });
  metrics.skipped('a"b\\c\nd');
  assert.ok((await expose(metrics.registry)).includes('reason="a\\"b\\\\c\\nd"'));
});
