import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Registry } from 'prom-client';
import type { RequestObservation } from '../../src/cluster/apiClient.ts';
import { ClientMetrics } from '../../src/metrics/clientMetrics.ts';
import { expose } from '../../src/metrics/exposition.ts';

const host = '10.96.0.1:443';

async function lines(metrics: (client: ClientMetrics) => void): Promise<string[]> {
  const registry = new Registry();
  metrics(new ClientMetrics(registry));
  return (await expose(registry)).split('\n').filter((line) => !line.startsWith('#'));
}

test('a list: one request, its duration, its sizes, its wait', async () => {
  const request = { host, method: 'GET', verb: 'list' } as const;
  const observations: RequestObservation[] = [
    { kind: 'limited', ...request, seconds: 0.2 },
    { kind: 'answered', ...request, code: '200', seconds: 0.01 },
    { kind: 'finished', ...request, seconds: 0.02, sent: 0, received: 5000 },
  ];
  const text = await lines((client) => observations.forEach((one) => client.observe(one)));
  const labels = `verb="GET",host="${host}"`;
  for (const line of [
    `rest_client_requests_total{code="200",host="${host}",method="GET"} 1`,
    `rest_client_request_duration_seconds_bucket{le="0.005",${labels}} 0`,
    `rest_client_request_duration_seconds_bucket{le="0.025",${labels}} 1`,
    `rest_client_request_duration_seconds_bucket{le="60",${labels}} 1`,
    `rest_client_rate_limiter_duration_seconds_bucket{le="0.1",${labels}} 0`,
    `rest_client_rate_limiter_duration_seconds_bucket{le="0.25",${labels}} 1`,
    `rest_client_request_size_bytes_bucket{le="64",${labels}} 1`,
    `rest_client_response_size_bytes_bucket{le="4096",${labels}} 0`,
    `rest_client_response_size_bytes_bucket{le="16384",${labels}} 1`,
    `rest_client_response_size_bytes_sum{${labels}} 5000`,
  ]) {
    const sorted = (one: string): string => one.split(/[{},]/).toSorted().join(' ');
    assert.ok(text.map(sorted).includes(sorted(line)), `${line} in\n${text.join('\n')}`);
  }
});

test('a watch counts as a request and has neither duration nor size, whenever it ends', async () => {
  const request = { host, method: 'GET', verb: 'watch' } as const;
  const text = await lines((client) => {
    client.observe({ kind: 'answered', ...request, code: '200', seconds: 0.01 });
    client.observe({ kind: 'finished', ...request, seconds: 300, sent: 0, received: 1e6 });
  });
  assert.deepEqual(
    text.filter((line) => line.includes(host)),
    [`rest_client_requests_total{code="200",host="${host}",method="GET"} 1`],
  );
});

test('retries, and an exec plugin with its certificates', async () => {
  const none = await lines(() => undefined);
  assert.ok(none.includes('rest_client_exec_plugin_ttl_seconds +Inf'), none.join('\n'));
  const text = await lines((client) => {
    client.observe({ kind: 'retried', host, method: 'GET', verb: 'list', code: '401' });
    client.observeConnection({ kind: 'called', status: 'no_error', exitCode: 0 });
    client.observeConnection({ kind: 'called', status: 'plugin_execution_error', exitCode: 3 });
    client.observeConnection({ kind: 'certificate', expires: Date.now() + 1000_000, replacedAge: undefined });
    client.observeConnection({ kind: 'certificate', expires: Date.now() + 900_000, replacedAge: 7200 });
  });
  assert.ok(text.includes(`rest_client_request_retries_total{code="401",verb="GET",host="${host}"} 1`));
  assert.ok(text.includes('rest_client_exec_plugin_call_total{code="0",call_status="no_error"} 1'));
  assert.ok(
    text.includes('rest_client_exec_plugin_call_total{code="3",call_status="plugin_execution_error"} 1'),
  );
  assert.ok(text.includes('rest_client_exec_plugin_certificate_rotation_age_sum 7200'));
  const ttl = text.find((line) => line.startsWith('rest_client_exec_plugin_ttl_seconds '));
  assert.ok(Math.abs(Number(ttl?.split(' ')[1]) - 900) < 5, ttl);
});

test('names looked up, connections kept and made, the authority read again', async () => {
  const text = await lines((client) => {
    client.observeConnection({ kind: 'resolved', host: 'api.example', seconds: 0.02 });
    client.observeConnection({ kind: 'transport', result: 'miss' });
    client.observeConnection({ kind: 'transports', kept: 1 });
    client.observeConnection({ kind: 'transport', result: 'hit' });
    client.observeConnection({ kind: 'transport', result: 'hit' });
    client.observeConnection({ kind: 'authority', result: 'failure', reason: 'read_error' });
  });
  for (const line of [
    'rest_client_dns_resolution_duration_seconds_bucket{host="api.example",le="0.005"} 0',
    'rest_client_dns_resolution_duration_seconds_bucket{host="api.example",le="0.025"} 1',
    'rest_client_transport_cache_entries 1',
    'rest_client_transport_create_calls_total{result="miss"} 1',
    'rest_client_transport_create_calls_total{result="hit"} 2',
    'rest_client_transport_ca_reload_total{result="failure",reason="read_error"} 1',
  ]) {
    assert.ok(text.includes(line), `${line} in\n${text.join('\n')}`);
  }
});
