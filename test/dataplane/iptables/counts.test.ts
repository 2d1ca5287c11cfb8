/** Rules in nf_tables: every first packet is counted once, whatever happens to the rules that count it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { IptablesDataplane } from '../../../src/dataplane/iptables/iptablesDataplane.ts';
import type { CounterAccumulator } from '../../../src/status/counters/accumulate.ts';
import { NetlinkSocket } from '../../../src/linux/netlink/socket.ts';
import { addWayOut, countedOnce, countFlows, dns, sumOf } from '../countedTraffic.ts';
import { Driver, World } from './harness.ts';
import { makeRoute, makeTable } from './routes.ts';

interface Counting {
  readonly world: World;
  readonly dataplane: IptablesDataplane;
  readonly driver: Driver;
  /** Netlink sockets opened so far. */
  readonly sockets: { listening: number };
}

async function counting(
  serviceCounters: 'off' | 'endpoints',
  use: (counting: Counting) => Promise<void>,
): Promise<void> {
  const world = new World('nft');
  const sockets = { listening: 0 };
  const dataplane = world.dataplane(
    { serviceCounters },
    {
      netlink: (options) => {
        if (options.groups !== undefined) sockets.listening++;
        return world.inside(() => new NetlinkSocket(options));
      },
    },
  );
  try {
    addWayOut(world.namespace);
    await dataplane.start();
    await use({ world, dataplane, driver: new Driver(dataplane), sockets });
  } finally {
    await dataplane.stop();
    world.close();
  }
}

async function withTraffic(
  affinitySeconds: number,
  endpointsAt: (round: number) => number[],
): Promise<{ counts: CounterAccumulator; flows: number }> {
  let counted: { counts: CounterAccumulator; flows: number } | undefined;
  await counting('endpoints', async ({ world, dataplane, driver }) => {
    await driver.to(makeTable([dns([1, 2, 3], { affinitySeconds })]), true);
    counted = await countFlows({
      namespace: world.namespace,
      rounds: 30,
      step: (round) => driver.to(makeTable([dns(endpointsAt(round), { affinitySeconds })]), round % 10 === 9),
      read: () => dataplane.counters.read(driver.table),
    });
  });
  assert.ok(counted !== undefined);
  return counted;
}

test('endpoints come and go under traffic and readings: every flow is counted once', async () => {
  const { counts, flows } = await withTraffic(0, (round) =>
    Array.from({ length: 1 + ((round * 7) % 11) }, (_, i) => 1 + ((round + i) % 200)),
  );
  countedOnce(sumOf(counts, 'endpoint'), flows);
});

test('with affinity: all flows but those of a client without an endpoint are hits', async () => {
  const { counts, flows } = await withTraffic(100, (round) =>
    Array.from({ length: 1 + ((round * 5) % 7) }, (_, i) => 1 + ((round >> 2) + i)),
  );
  countedOnce(sumOf(counts, 'endpoint'), flows);
  const hits = sumOf(counts, 'affinity');
  // One client, sent to another endpoint in a round at most.
  assert.ok(hits <= flows && hits >= flows - 36 - flows / 100, `${hits} hits of ${flows}`);
});

test('refusals: what the rule counted that goes with the first endpoint is kept', async () => {
  await counting('endpoints', async ({ world, dataplane, driver }) => {
    const other = makeRoute({ name: 'default/other', clusterIP: '10.96.0.11', port: 53, endpoints: [] });
    await driver.to(makeTable([dns([]), other]), true);
    const { counts, flows } = await countFlows({
      namespace: world.namespace,
      rounds: 12,
      step: (round) => driver.to(makeTable([dns(round % 2 === 0 ? [1] : []), other])),
      read: () => dataplane.counters.read(driver.table),
    });
    const refused = sumOf(counts, 'refused');
    assert.ok(refused > 0, 'some were refused');
    countedOnce(refused + sumOf(counts, 'endpoint'), flows);
  });
});

test('what rules have counted that somebody else removes is kept', async () => {
  await counting('endpoints', async ({ world, dataplane, driver }) => {
    await driver.to(makeTable([dns([1, 2, 3])]), true);
    const { counts, flows } = await countFlows({
      namespace: world.namespace,
      rounds: 10,
      step: () => sleep(50),
      read: () => Promise.resolve([]),
    });
    for (const key of Object.keys(world.rules()))
      if (key.startsWith('nat KUBE-SEP-')) world.iptables(`-t nat -F ${key.slice('nat '.length)}`);
    counts.take(await dataplane.counters.read(driver.table));
    countedOnce(sumOf(counts, 'endpoint'), flows);
  });
});

test('with counters off nobody listens', async () => {
  await counting('off', async ({ dataplane, driver, sockets }) => {
    await driver.to(makeTable([dns([1])]), true);
    await driver.to(makeTable([dns([2])]));
    const readings = await dataplane.counters.read(driver.table);
    assert.deepEqual(
      readings.flatMap(({ meaning }) => (meaning.kind === 'endpoint' ? meaning.endpoint : [])),
      ['10.244.0.2:53'],
    );
    assert.equal(sockets.listening, 0);
  });
});

test('a sync that outlives the stop does not listen again', async () => {
  await counting('endpoints', async ({ dataplane, driver, sockets }) => {
    await driver.to(makeTable([dns([1])]), true);
    assert.equal(sockets.listening, 1);
    const last = driver.to(makeTable([dns([2])]));
    await dataplane.stop();
    await last.catch(() => undefined);
    assert.equal(sockets.listening, 1);
  });
});
