/** Every packet is counted once, whatever happens to the elements that count it, and whenever they are read. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { withNetworkNamespace } from '../../../src/linux/netlink/namespace.ts';
import type { Route } from '../../../src/services/types.ts';
import { CounterAccumulator } from '../../../src/status/counters/accumulate.ts';
import { inNamespace } from '../../support/namespace.ts';
import { makeRoute, makeTable } from '../iptables/routes.ts';
import { World, type Driver } from './harness.ts';

/** New UDP flows to port 53 of the address, a millisecond apart in tens. */
function send(world: World, address: string, flows: number): Promise<void> {
  const script = `
    const { createSocket } = require('node:dgram');
    let sent = 0;
    const some = () => {
      for (let i = 0; i < 10 && sent < ${flows}; i++, sent++) {
        // A port of its own: one that is used again would be the flow of before.
        const socket = createSocket('udp4');
        const port = 20000 + sent;
        socket.bind(port, () => socket.send('x', 53, '${address}', () => socket.close()));
      }
      if (sent < ${flows}) setTimeout(some, 2);
    };
    some();`;
  const child = spawn('ip', ['netns', 'exec', world.namespace, process.execPath, '-e', script], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`the sender ended with ${code}`)),
    );
  });
}

function dns(endpoints: readonly number[], more: Partial<Parameters<typeof makeRoute>[0]> = {}): Route {
  return makeRoute({
    name: 'default/dns',
    protocol: 'UDP',
    clusterIP: '10.96.0.10',
    port: 53,
    endpoints: endpoints.map((n) => `10.244.0.${n}:53`),
    ...more,
  });
}

async function readInto(world: World, driver: Driver, counts: CounterAccumulator): Promise<void> {
  const reading = withNetworkNamespace(`/run/netns/${world.namespace}`, () =>
    driver.dataplane.counters?.read(),
  );
  counts.take((await reading) ?? []);
}

function sumOf(counts: CounterAccumulator, kind: string): number {
  let sum = 0;
  for (const { meaning, packets } of counts.totals()) if (meaning.kind === kind) sum += packets;
  return sum;
}

/** Never twice; a packet that is looked up on another processor while its element's last word is said is lost. */
function countedOnce(counted: number, flows: number): void {
  assert.ok(counted <= flows && counted >= flows - 5, `${counted} of ${flows}`);
}

async function withTraffic(
  affinitySeconds: number,
  step: (driver: Driver, round: number) => Promise<void>,
): Promise<{ counts: CounterAccumulator; flows: number }> {
  const flows = 3000;
  const world = new World();
  try {
    inNamespace(world.namespace, ['ip', 'link', 'add', 'out', 'type', 'veth', 'peer', 'name', 'in']);
    inNamespace(world.namespace, ['ip', 'addr', 'add', '192.0.2.10/24', 'dev', 'out']);
    for (const name of ['out', 'in']) inNamespace(world.namespace, ['ip', 'link', 'set', name, 'up']);
    inNamespace(world.namespace, ['ip', 'route', 'add', 'default', 'dev', 'out']);
    const driver = await world.start({ serviceCounters: 'endpoints' });
    await driver.to(makeTable([dns([1, 2, 3], { affinitySeconds })]), true);
    const counts = new CounterAccumulator('IPv4', true);
    const sending = { now: true };
    const sent = send(world, '10.96.0.10', flows).finally(() => {
      sending.now = false;
    });
    let reads = 0;
    const reading = (async () => {
      for (; sending.now; reads++) {
        await readInto(world, driver, counts);
        await sleep(reads % 3 === 0 ? 0 : 20);
      }
    })();
    let round = 0;
    while (sending.now) {
      await step(driver, round++);
      await sleep(round % 4);
    }
    await Promise.all([sent, reading]);
    assert.ok(round > 20 && reads > 5, `${round} changes, ${reads} readings`);
    await readInto(world, driver, counts);
    assert.equal(driver.dataplane.counters?.leaving, 0, 'all that went have been heard');
    return { counts, flows };
  } finally {
    await world.close();
  }
}

test('endpoints come and go and sizes change under traffic and readings: every flow is counted once', async () => {
  const { counts, flows } = await withTraffic(0, async (driver, round) => {
    const endpoints = Array.from({ length: 1 + ((round * 7) % 11) }, (_, i) => 1 + ((round + i) % 200));
    await driver.to(makeTable([dns(endpoints)]));
  });
  countedOnce(sumOf(counts, 'service'), flows);
  countedOnce(sumOf(counts, 'endpoint'), flows);
});

test('with affinity: every flow is asked for once, and drawn or remembered', async () => {
  const { counts, flows } = await withTraffic(100, async (driver, round) => {
    const endpoints = Array.from({ length: 1 + ((round * 5) % 7) }, (_, i) => 1 + ((round >> 2) + i));
    await driver.to(makeTable([dns(endpoints, { affinitySeconds: 100 })]));
  });
  countedOnce(sumOf(counts, 'service'), flows);
  countedOnce(sumOf(counts, 'affinityAsked'), flows);
  // A client that was remembered with an endpoint just gone goes there until it is forgotten: no endpoint's count.
  assert.ok(sumOf(counts, 'endpoint') <= flows);
  const missed = sumOf(counts, 'affinityMissed');
  assert.equal(sumOf(counts, 'drawn'), missed);
  assert.ok(missed > 0 && missed < flows / 2, `${missed} draws`);
});

test('nothing is kept of what went, and did not count', async () => {
  const world = new World();
  try {
    const driver = await world.start({ serviceCounters: 'services' });
    for (let round = 0; round < 20; round++) {
      const services = Array.from({ length: 5 }, (_, i) =>
        dns([1, 2 + round], {
          name: `default/dns-${round}-${i}`,
          clusterIP: `10.96.${round}.${i}`,
        }),
      );
      await driver.to(makeTable(services), round === 0);
      await readInto(world, driver, new CounterAccumulator('IPv4', true));
    }
    assert.equal(driver.dataplane.counters?.leaving, 0);
  } finally {
    await world.close();
  }
});
