import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { formatTime } from '../../src/proxy/goTime.ts';
import { healthHandler, healthReply } from '../../src/proxy/healthServer.ts';
import { ProxyHealth } from '../../src/proxy/proxyHealth.ts';

const start = Date.UTC(2026, 0, 2, 3, 4, 5, 678);
const plain = { deleting: false, taintKeys: [] };

interface Body {
  lastUpdated: string;
  currentTime: string;
  nodeEligible?: boolean;
  healthy: boolean;
  status?: Record<string, { lastUpdated: string; healthy: boolean }>;
}

function ask(health: ProxyHealth, probe: 'healthz' | 'livez', now: number) {
  const reply = healthReply(health, probe, now);
  return { code: reply.status, ...(JSON.parse(reply.body) as Body) };
}

test('the state table: queued, late, updated, idle', () => {
  const health = new ProxyHealth(10_000);
  health.setNode(plain);
  assert.equal(ask(health, 'healthz', start).code, 200);
  health.updated('IPv4', start);
  health.updated('IPv6', start);
  assert.equal(ask(health, 'healthz', start).code, 200);

  health.queued('IPv4', start);
  health.queued('IPv4', start + 9000);
  assert.equal(ask(health, 'healthz', start + 9999).code, 200);
  const late = ask(health, 'healthz', start + 25_000);
  assert.equal(late.code, 503);
  assert.equal(late.healthy, false);
  assert.equal(late.code, ask(health, 'livez', start + 25_000).code);
  const state = health.state(start + 25_000);
  assert.equal(state.families.get('IPv4')?.healthy, false);
  assert.equal(state.families.get('IPv6')?.healthy, true);

  health.updated('IPv4', start + 26_000);
  assert.equal(ask(health, 'healthz', start + 26_000).code, 200);
  assert.equal(ask(health, 'healthz', start + 51_000).code, 200);
});

test('a late family is not excused by the other', () => {
  const health = new ProxyHealth(10_000);
  health.setNode(plain);
  health.updated('IPv4', start);
  health.updated('IPv6', start);
  health.queued('IPv6', start);
  health.updated('IPv4', start + 20_000);
  assert.equal(ask(health, 'healthz', start + 20_000).code, 503);
});

test('a family queued before its first update counts as healthy', () => {
  const health = new ProxyHealth(10_000);
  health.setNode(plain);
  health.queued('IPv4', start);
  const reply = ask(health, 'healthz', start + 60_000);
  assert.equal(reply.code, 200);
  assert.equal(reply.status, undefined);
  assert.ok(!healthReply(health, 'healthz', start).body.includes('"status"'));
});

test('node eligibility counts for healthz only', () => {
  const cases = [
    { node: undefined, healthz: 503 },
    { node: plain, healthz: 200 },
    { node: { deleting: false, taintKeys: ['other'] }, healthz: 200 },
    {
      node: { deleting: false, taintKeys: ['ToBeDeletedByClusterAutoscaler'] },
      healthz: 503,
    },
    { node: { deleting: true, taintKeys: [] }, healthz: 503 },
  ];
  for (const { node, healthz } of cases) {
    const health = new ProxyHealth(10_000);
    if (node !== undefined) health.setNode(node);
    health.updated('IPv4', start);
    const reply = ask(health, 'healthz', start);
    assert.equal(reply.code, healthz);
    assert.equal(reply.healthy, true);
    assert.equal(reply.nodeEligible, healthz === 200);
    const live = ask(health, 'livez', start);
    assert.equal(live.code, 200);
    assert.equal(live.nodeEligible, undefined);
  }
});

test('bodies, byte for byte', () => {
  const health = new ProxyHealth(10_000);
  health.setNode(plain);
  health.updated('IPv4', start);
  health.updated('IPv6', start + 322);
  const now = start + 1000;
  assert.equal(
    healthReply(health, 'healthz', now).body,
    `{"lastUpdated":"${formatTime(now)}","currentTime":"${formatTime(now)}","nodeEligible":true,"healthy":true,` +
      `"status":{"IPv4":{"lastUpdated":"${formatTime(start)}","healthy":true},"IPv6":{"lastUpdated":"${formatTime(start + 322)}","healthy":true}}}`,
  );
  health.queued('IPv4', now);
  const late = now + 10_000;
  assert.equal(
    healthReply(health, 'livez', late).body,
    `{"lastUpdated":"${formatTime(start + 322)}","currentTime":"${formatTime(late)}","healthy":false,` +
      `"status":{"IPv4":{"lastUpdated":"${formatTime(start)}","healthy":false},"IPv6":{"lastUpdated":"${formatTime(start + 322)}","healthy":true}}}`,
  );
});

test('times lose the trailing zeros of their fraction and name the same instant', () => {
  assert.match(formatTime(start + 322), /T\d\d:\d\d:06(Z|[+-]\d\d:\d\d)$/);
  assert.match(formatTime(start - 178), /:05\.5(Z|[+-]\d\d:\d\d)$/);
  assert.equal(Date.parse(formatTime(start)), start);
  assert.equal(formatTime(undefined), '0001-01-01T00:00:00Z');
});

test('over HTTP: headers, counted probes, and 404 for any other path', async () => {
  const health = new ProxyHealth(10_000);
  const probes: string[] = [];
  const server = createServer(
    healthHandler({
      health,
      probed: (probe, status) => probes.push(`${probe} ${status}`),
      now: () => start,
    }),
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    const healthz = await fetch(`${base}/healthz?x=1`, { method: 'POST' });
    assert.equal(healthz.status, 503);
    assert.equal(healthz.headers.get('content-type'), 'application/json');
    assert.equal(healthz.headers.get('x-content-type-options'), 'nosniff');
    assert.equal((await healthz.text()).endsWith('\n'), false);
    assert.equal((await fetch(`${base}/livez`)).status, 200);
    const other = await fetch(`${base}/healthz/`);
    assert.equal(other.status, 404);
    assert.equal(await other.text(), '404 page not found\n');
    assert.deepEqual(probes, ['healthz 503', 'livez 200']);
  } finally {
    server.close();
    server.closeAllConnections();
  }
});
