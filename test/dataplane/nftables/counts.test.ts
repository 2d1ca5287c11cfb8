/** Every packet is counted once, whatever happens to the elements that count it, and whenever they are read. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withNetworkNamespace } from '../../../src/linux/netlink/namespace.ts';
import type { Reading } from '../../../src/dataplane/counts.ts';
import { CounterAccumulator } from '../../../src/status/counters/accumulate.ts';
import { inNamespace } from '../../support/namespace.ts';
import { addWayOut, countedOnce, countFlows, dns, sumOf } from '../countedTraffic.ts';
import { makeTable } from '../iptables/routes.ts';
import { World, type Driver } from './harness.ts';

async function read(world: World, driver: Driver): Promise<Reading[]> {
  const reading = withNetworkNamespace(`/run/netns/${world.namespace}`, () =>
    driver.dataplane.counters?.read(),
  );
  return (await reading) ?? [];
}

async function withTraffic(
  affinitySeconds: number,
  step: (driver: Driver, round: number) => Promise<void>,
): Promise<{ counts: CounterAccumulator; flows: number }> {
  const world = new World();
  try {
    addWayOut(world.namespace);
    const driver = await world.start({ serviceCounters: 'endpoints' });
    await driver.to(makeTable([dns([1, 2, 3], { affinitySeconds })]), true);
    const counted = await countFlows({
      namespace: world.namespace,
      rounds: 150,
      step: (round) => step(driver, round),
      read: () => read(world, driver),
    });
    assert.equal(driver.dataplane.counters?.leaving, 0, 'all that went have been heard');
    return counted;
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
  // Each of the two may lose a packet of its own.
  const drawn = sumOf(counts, 'drawn');
  assert.ok(Math.abs(drawn - missed) <= 5, `${drawn} drawn, ${missed} missed`);
  assert.ok(missed > 0 && missed < flows / 2, `${missed} draws`);
});

test('changes one upon the other, before anything is heard of the first: every flow is counted', async () => {
  const world = new World();
  try {
    addWayOut(world.namespace);
    const driver = await world.start({ serviceCounters: 'endpoints' });
    const counts = new CounterAccumulator('IPv4', true);
    // One endpoint and five: another size, so that the frontend's element is replaced each time.
    const few = makeTable([dns([1])]);
    const many = makeTable([dns([1, 2, 3, 4, 5])]);
    await driver.to(few, true);
    const flow = ['bash', '-c', 'echo x > /dev/udp/10.96.0.10/53'];
    for (let round = 0; round < 10; round++) {
      inNamespace(world.namespace, flow);
      await driver.to(many);
      inNamespace(world.namespace, flow);
      await driver.to(few);
    }
    counts.take(await read(world, driver));
    assert.equal(driver.dataplane.counters?.leaving, 0, 'all that went have been heard');
    assert.equal(sumOf(counts, 'service'), 20);
    assert.equal(sumOf(counts, 'endpoint'), 20);
  } finally {
    await world.close();
  }
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
      await read(world, driver);
    }
    assert.equal(driver.dataplane.counters?.leaving, 0);
  } finally {
    await world.close();
  }
});
