import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parsePortRange } from '../../../src/config/portRange.ts';
import { FrontendIndex } from '../../../src/dataplane/userspace/frontendIndex.ts';
import { PortAllocator } from '../../../src/dataplane/userspace/portAllocator.ts';
import { SocketBudget, socketLimit } from '../../../src/dataplane/userspace/socketBudget.ts';
import { UdpSessionTable } from '../../../src/dataplane/userspace/udpSessions.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import { makeEndpoint, makeRoute } from '../iptables/routes.ts';

test('portRange', () => {
  for (const text of ['', '0', '0-0', ' ']) assert.equal(parsePortRange(text), undefined, text);
  assert.deepEqual(parsePortRange('40000-40010'), { first: 40000, last: 40010 });
  assert.deepEqual(parsePortRange('40000+10'), { first: 40000, last: 40010 });
  assert.deepEqual(parsePortRange('65530+100'), { first: 65530, last: 65535 });
  assert.deepEqual(parsePortRange('8080'), { first: 8080, last: 8080 });
  for (const text of ['x', '1-', '10-5', '0-10', '1-70000', '-1', '1-2-3'])
    assert.equal(parsePortRange(text), 'invalid', text);
});

test('ports: each free one of the range is tried once; a released one can be had again', () => {
  const ports = new PortAllocator({ first: 10, last: 14 });
  assert.deepEqual(
    [...ports.candidates()].sort((a, b) => a - b),
    [10, 11, 12, 13, 14],
  );
  ports.claim(12);
  assert.deepEqual(
    [...ports.candidates()].sort((a, b) => a - b),
    [10, 11, 13, 14],
  );
  ports.release(12);
  assert.equal([...ports.candidates()].length, 5);
  assert.deepEqual([...new PortAllocator(undefined).candidates()], [0]);
});

test('the socket budget', () => {
  const lines: string[] = [];
  const budget = new SocketBudget(3, { ...silentLogger, error: (message) => void lines.push(message) });
  assert.ok(budget.take(2));
  assert.ok(!budget.take(2));
  assert.ok(!budget.take(2));
  assert.equal(lines.length, 1, 'said once, not for every client');
  assert.ok(budget.take(1));
  budget.give(2);
  assert.equal(budget.open, 1);
  assert.equal(
    socketLimit('Max open files            20000                30000                files\n'),
    19872,
  );
  assert.equal(socketLimit('Max open files            100                100                files\n'), 64);
});

test('endpoints that would lead back into the proxy', () => {
  const index = new FrontendIndex('192.0.2.10');
  const route = makeRoute({ name: 'ns/a', clusterIP: '10.96.0.1', port: 80, nodePort: 30080 });
  index.replace(undefined, route);
  assert.ok(index.has(makeEndpoint('10.96.0.1:80'), 'TCP'));
  assert.ok(!index.has(makeEndpoint('10.96.0.1:80'), 'UDP'));
  assert.ok(!index.has(makeEndpoint('10.96.0.1:81'), 'TCP'));
  assert.ok(index.has(makeEndpoint('192.0.2.10:30080'), 'TCP'));
  assert.ok(!index.has(makeEndpoint('192.0.2.11:30080'), 'TCP'));
  index.replace(route, undefined);
  assert.ok(!index.has(makeEndpoint('10.96.0.1:80'), 'TCP'));
});

test('law: a UDP session lives exactly as long as its datagrams come in time', () => {
  const step = fc.record({
    client: fc.constantFrom('1', '2', '3'),
    wait: fc.integer({ min: 0, max: 150 }),
    sweep: fc.boolean(),
    gone: fc.option(fc.constantFrom('1', '2', '3'), { nil: undefined }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const table = new UdpSessionTable<string>(100);
      const model = new Map<string, { value: string; at: number }>();
      let now = 0;
      let count = 0;
      for (const { client, wait, sweep, gone } of steps) {
        now += wait;
        if (sweep || gone !== undefined) {
          const taken = table.sweep(now, (value) => value.startsWith(`${gone}/`)).sort();
          const expected: string[] = [];
          for (const [name, { value, at }] of model) {
            if (now - at < 100 && name !== gone) continue;
            model.delete(name);
            expected.push(value);
          }
          assert.deepEqual(taken, expected.sort());
          assert.equal(table.size, model.size);
        }
        const known = model.get(client);
        const alive = known !== undefined && now - known.at < 100 ? known.value : undefined;
        assert.equal(table.use(client, now), alive);
        const value = alive ?? `${client}/${++count}`;
        if (alive === undefined) assert.equal(table.add(client, value, now), known?.value);
        model.set(client, { value, at: now });
      }
      assert.equal(table.clear().length, model.size);
    }),
  );
});

test('a session that was replaced does not take its successor along', () => {
  const table = new UdpSessionTable<string>(100);
  table.add('1', 'old', 0);
  table.add('1', 'new', 0);
  assert.ok(!table.remove('1', 'old'));
  assert.ok(table.remove('1', 'new'));
});
