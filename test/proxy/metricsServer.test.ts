import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { Gauge, Registry } from 'prom-client';
import { silentLogger } from '../../src/log/logger.ts';
import { SliMetrics } from '../../src/metrics/sliMetrics.ts';
import { metricsHandler, type MetricsServerOptions } from '../../src/proxy/metricsServer.ts';
import { formatUnixDate, formatUptime, negotiate } from '../../src/proxy/zpages.ts';

const registry = new Registry();
new Gauge({ name: 'one', help: 'One.', registers: [registry] }).set(1);
let verbosity = 0;

const options: MetricsServerOptions = {
  registry,
  slis: new SliMetrics(),
  mode: 'iptables',
  document: { kind: 'KubeProxyConfiguration', mode: 'iptables' },
  flags: [
    { name: 'v', value: '2' },
    { name: 'config', value: '/c' },
  ],
  status: () => ({ startTime: 0, now: 3_723_000, version: '0.1.0', kubernetesVersion: 'v1.36.2' }),
  profiling: true,
  setVerbosity: (level) => (verbosity = level),
  log: silentLogger,
};

const server = createServer((request, response) => void metricsHandler(options)(request, response));
let base = '';
before(async () => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
after(() => {
  server.close();
  server.closeAllConnections();
});

async function get(path: string, init: RequestInit = {}) {
  const response = await fetch(base + path, { redirect: 'manual', ...init });
  return { status: response.status, headers: response.headers, body: await response.text() };
}

test('metrics', async () => {
  const { status, headers, body } = await get('/metrics');
  assert.equal(status, 200);
  assert.match(headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/);
  assert.equal(body, '# HELP one One.\n# TYPE one gauge\none 1\n');
});

test('healthz, ping, proxyMode, configz', async () => {
  for (const path of ['/healthz', '/healthz/ping']) {
    const { status, headers, body } = await get(path);
    assert.deepEqual([status, body], [200, 'ok']);
    assert.equal(headers.get('content-type'), 'text/plain; charset=utf-8');
    assert.equal(headers.get('x-content-type-options'), 'nosniff');
  }
  assert.equal((await get('/healthz?verbose')).body, '[+]ping ok\nhealthz check passed\n');
  const mode = await get('/proxyMode');
  assert.equal(mode.body, 'iptables');
  assert.equal(mode.headers.get('content-type'), 'text/plain; charset=utf-8');
  const configz = await get('/configz');
  assert.equal(configz.headers.get('content-type'), 'application/json');
  assert.deepEqual(JSON.parse(configz.body), {
    'kubeproxy.config.k8s.io': { kind: 'KubeProxyConfiguration', mode: 'iptables' },
  });
});

test('slis count health checks and can be reset', async () => {
  await get('/metrics/slis', { method: 'DELETE' });
  await get('/healthz');
  await get('/healthz');
  const { body } = await get('/metrics/slis');
  assert.match(body, /^kubernetes_healthcheck\{name="ping",type="healthz"\} 1$/m);
  assert.match(body, /^kubernetes_healthchecks_total\{name="ping",status="success",type="healthz"\} 2$/m);
  const reset = await get('/metrics/slis', { method: 'DELETE' });
  assert.equal(reset.status, 200);
  assert.equal((await get('/metrics/slis')).body, '');
});

test('unknown paths are 404', async () => {
  const { status, body } = await get('/metrics/');
  assert.deepEqual([status, body], [404, '404 page not found\n']);
});

test('flagz and statusz: text by default, JSON by name, 406 for plain JSON', async () => {
  const flagz = await get('/flagz', { headers: { accept: '*/*' } });
  assert.match(flagz.body, /kube-proxy flagz\nWarning: .*\n\nconfig=\/c\nv=2\n$/);
  const statusz = await get('/statusz', { headers: { accept: 'text/plain' } });
  assert.match(statusz.body, /kube-proxy statusz\nWarning: /);
  assert.match(statusz.body, /^Started: Thu Jan  1 00:00:00 UTC 1970$/m);
  assert.match(statusz.body, /^Go version: none \(Node\.js v\d+\.\d+\.\d+\)$/m);
  assert.match(statusz.body, /^Up: 1 hr 02 min 03 sec$/m);
  assert.match(statusz.body, /^Paths: \/configz \/debug \/flagz \/healthz \/metrics \/proxyMode$/m);
  const refused = await get('/statusz', { headers: { accept: 'application/json' } });
  assert.equal(refused.status, 406);
  const json = await get('/statusz', {
    headers: { accept: 'application/json;v=v1beta1;g=config.k8s.io;as=Statusz' },
  });
  assert.equal(json.headers.get('warning'), null);
  const document = JSON.parse(json.body) as { kind: string; goVersion: string };
  assert.equal(document.kind, 'Statusz');
  assert.equal(document.goVersion, `none (Node.js ${process.version})`);
  const yaml = await get('/flagz', {
    headers: { accept: 'application/yaml;v=v1beta1;g=config.k8s.io;as=Flagz' },
  });
  assert.equal(yaml.headers.get('content-type'), 'application/yaml');
  assert.equal(
    yaml.body,
    'kind: Flagz\napiVersion: config.k8s.io/v1beta1\nmetadata:\n  name: kube-proxy\nflags:\n  v: "2"\n  config: /c\n',
  );
  const old = await get('/flagz', {
    headers: { accept: 'application/json;v=v1alpha1;g=config.k8s.io;as=Flagz' },
  });
  assert.match(old.headers.get('warning') ?? '', /deprecated/);
  assert.deepEqual((JSON.parse(old.body) as { flags: unknown }).flags, { config: '/c', v: '2' });
});

test('negotiation refuses the structured form of another page', () => {
  assert.deepEqual(negotiate('application/json;v=v1beta1;g=config.k8s.io;as=Flagz', 'Statusz'), {
    kind: 'notAcceptable',
  });
  assert.deepEqual(negotiate(undefined, 'Statusz'), { kind: 'text' });
});

test('profiling: verbosity, index, redirect, heap', async () => {
  const put = await get('/debug/flags/v', { method: 'PUT', body: '4' });
  assert.equal(put.status, 200);
  assert.equal(verbosity, 4);
  assert.equal((await get('/debug/flags/v', { method: 'PUT', body: 'x' })).status, 400);
  assert.equal((await get('/debug/flags/v')).status, 406);
  const redirect = await get('/debug/pprof');
  assert.deepEqual([redirect.status, redirect.headers.get('location')], [302, '/debug/pprof/']);
  assert.equal((await get('/debug/pprof/')).status, 200);
  assert.equal((await get('/debug/pprof/nothing')).status, 404);
  const profile = await get('/debug/pprof/profile?seconds=0.05');
  assert.ok(Array.isArray((JSON.parse(profile.body) as { nodes: unknown[] }).nodes));
});

test('start time as Go and date(1) write it', () => {
  assert.equal(formatUnixDate(Date.UTC(2024, 9, 16, 21, 3, 43)), 'Wed Oct 16 21:03:43 UTC 2024');
  assert.equal(formatUnixDate(Date.UTC(2026, 1, 2, 3, 4, 5)), 'Mon Feb  2 03:04:05 UTC 2026');
});

test('up time', () => {
  assert.equal(formatUptime(0), '0 hr 00 min 00 sec');
  assert.equal(formatUptime(100 * 3_600_000), '100 hr 00 min 00 sec');
});
