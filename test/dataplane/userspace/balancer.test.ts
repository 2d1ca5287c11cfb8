import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Balancer, clientsMax } from '../../../src/dataplane/userspace/balancer.ts';
import type { Route } from '../../../src/services/types.ts';
import { makeRoute } from '../iptables/routes.ts';

const a = '10.0.0.1:80';
const b = '10.0.0.2:80';
const c = '10.0.0.3:80';

function route(endpoints: readonly string[], affinitySeconds = 0, externalPolicyLocal = false): Route {
  return makeRoute({
    name: 'ns/s',
    clusterIP: '10.96.0.1',
    port: 80,
    nodePort: 30080,
    endpoints,
    affinitySeconds,
    externalPolicyLocal,
  });
}

function balancer(endpoints: readonly string[], affinitySeconds = 0): Balancer {
  const one = new Balancer(() => 0.5);
  one.set(route(endpoints, affinitySeconds));
  return one;
}

function picks(one: Balancer, count: number, client = ''): string[] {
  return Array.from({ length: count }, () => one.pick('cluster', client, 0, false)?.key ?? 'none');
}

test('without endpoints there is nothing to pick', () => {
  assert.deepEqual(picks(balancer([]), 2), ['none', 'none']);
});

test('three endpoints, four picks: a round, and again from its first', () => {
  const [first, second, third, fourth] = picks(balancer([a, b, c]), 4);
  assert.equal(new Set([first, second, third]).size, 3);
  assert.equal(fourth, first);
});

test('the same set goes on where it was, another one begins anew', () => {
  const one = balancer([a, b, c]);
  const order = picks(one, 3);
  picks(one, 1);
  one.set(route([c, b, a]));
  assert.equal(picks(one, 1)[0], order[1]);
  one.set(route([a, b]));
  assert.deepEqual(picks(one, 4).slice(0, 2).sort(), [a, b]);
});

test('clients keep their endpoint; one whose endpoint left gets another; the others keep theirs', () => {
  const one = balancer([a, b, c], 100);
  const chosen = ['1', '2', '3'].map((client) => one.pick('cluster', client, 0, false)?.key as string);
  assert.equal(new Set(chosen).size, 3);
  assert.equal(one.pick('cluster', '1', 1000, false)?.key, chosen[0]);
  one.set(
    route(
      [a, b, c].filter((key) => key !== chosen[1]),
      100,
    ),
  );
  assert.equal(one.clients, 2);
  assert.notEqual(one.pick('cluster', '2', 2000, false)?.key, chosen[1]);
  assert.equal(one.pick('cluster', '1', 2000, false)?.key, chosen[0]);
});

test('affinity ends when its time has passed since the last use', () => {
  const one = balancer([a, b, c], 10);
  const first = one.pick('cluster', 'x', 0, false);
  assert.equal(one.pick('cluster', 'x', 9_999, false), first);
  assert.equal(one.pick('cluster', 'x', 19_998, false), first);
  assert.notEqual(one.pick('cluster', 'x', 29_998, false), first);
  one.sweep(39_997);
  assert.equal(one.clients, 1);
  one.sweep(39_998);
  assert.equal(one.clients, 0);
});

test('an attempt after a failure takes the next, which becomes the record', () => {
  const one = balancer([a, b], 100);
  const first = one.pick('cluster', 'x', 0, false);
  const second = one.pick('cluster', 'x', 0, true);
  assert.notEqual(second, first);
  assert.equal(one.pick('cluster', 'x', 1, false), second);
  one.forget('x');
  assert.equal(one.clients, 0);
});

test('affinity holds over both pools, where the endpoint may serve in both', () => {
  const one = new Balancer();
  one.set(route([`${a}L`, b], 100, true));
  for (let i = 0; i < 4; i++) {
    const client = `c${i}`;
    const inside = one.pick('cluster', client, 0, false)?.key;
    const outside = one.pick('local', client, 0, false)?.key;
    assert.equal(outside, a);
    if (inside === a) assert.equal(one.pick('cluster', client, 0, false)?.key, a);
  }
});

test('a flood of clients makes those forgotten who have not come for the longest time', () => {
  const one = balancer([a, b, c], 10_000);
  const keptBy = (client: string): string | undefined => one.pick('cluster', client, 1, false)?.key;
  one.pick('cluster', 'idle', 0, false);
  const busy = keptBy('busy');
  for (let i = 0; i < clientsMax; i++) {
    one.pick('cluster', `flood ${i}`, 1, false);
    if (i % 1000 === 0) assert.equal(keptBy('busy'), busy);
  }
  assert.ok(one.clients <= clientsMax);
  assert.equal(keptBy('busy'), busy);
  const { hits } = one;
  one.pick('cluster', 'idle', 1, false);
  assert.equal(one.hits, hits, 'not known any more');
});

test('affinity turned off forgets all clients', () => {
  const one = balancer([a, b], 100);
  one.pick('cluster', 'x', 0, false);
  one.set(route([a, b]));
  assert.equal(one.clients, 0);
});

test('law: over any changes only endpoints of the set are picked, and shares are even', () => {
  const set = fc.uniqueArray(fc.integer({ min: 1, max: 30 }), { maxLength: 12 });
  fc.assert(
    fc.property(
      fc.array(set, { minLength: 1, maxLength: 8 }),
      fc.integer({ min: 1, max: 4 }),
      (sets, rounds) => {
        const one = new Balancer();
        for (const numbers of sets) {
          const keys = numbers.map((n) => `10.0.0.${n}:80`);
          one.set(route(keys));
          const counts = new Map<string, number>(keys.map((key) => [key, 0]));
          for (let i = 0; i < keys.length * rounds; i++) {
            const key = one.pick('cluster', '', 0, false)?.key as string;
            counts.set(key, (counts.get(key) as number) + 1);
          }
          assert.deepEqual(
            [...counts.values()],
            keys.map(() => rounds),
          );
        }
      },
    ),
  );
});

test('law: within its time a client meets one endpoint as long as that is there', () => {
  const step = fc.record({
    client: fc.constantFrom('1', '2', '3'),
    seconds: fc.integer({ min: 0, max: 20 }),
    endpoints: fc.option(fc.uniqueArray(fc.constantFrom(a, b, c), { minLength: 1 }), { nil: undefined }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const one = balancer([a, b, c], 10);
      let present = [a, b, c];
      let now = 0;
      const model = new Map<string, { key: string; at: number }>();
      for (const { client, seconds, endpoints } of steps) {
        now += seconds * 1000;
        if (endpoints !== undefined) {
          present = endpoints;
          one.set(route(endpoints, 10));
          for (const [name, { key }] of model) if (!present.includes(key)) model.delete(name);
        }
        const key = one.pick('cluster', client, now, false)?.key as string;
        assert.ok(present.includes(key));
        const before = model.get(client);
        if (before !== undefined && now - before.at < 10_000) assert.equal(key, before.key);
        model.set(client, { key, at: now });
      }
    }),
  );
});
