import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { listLocalAddresses, watchAddresses } from '../../src/linux/addresses.ts';
import { withNetworkNamespace } from '../../src/linux/netlink/namespace.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';

let namespace = '';
before(() => {
  namespace = makeNamespace();
  const ip = (...argv: string[]): string => inNamespace(namespace, ['ip', ...argv]);
  ip('link', 'add', 'west', 'type', 'veth', 'peer', 'name', 'east');
  ip('addr', 'add', '192.0.2.1/24', 'dev', 'west');
  ip('addr', 'add', '192.0.2.2/24', 'dev', 'west');
  ip('addr', 'add', '198.51.100.1', 'peer', '198.51.100.2/32', 'dev', 'east');
  ip('addr', 'add', '2001:db8::1/64', 'dev', 'west', 'nodad');
  ip('addr', 'add', '203.0.113.5/32', 'dev', 'lo');
});
after(() => removeNamespace(namespace));

function inside<T>(action: () => T): T {
  return withNetworkNamespace(`/run/netns/${namespace}`, action);
}

test('addresses: every address of every interface is listed, as ip(8) lists it', () => {
  const listed = inside(listLocalAddresses);
  const lines = listed.map((one) => `${one.interface} ${one.address}/${one.prefixLength} ${one.loopback}`);
  assert.deepEqual(lines.toSorted(), [
    'east 198.51.100.1/32 false',
    'lo 127.0.0.1/8 true',
    'lo 203.0.113.5/32 true',
    'lo ::1/128 true',
    'west 192.0.2.1/24 false',
    'west 192.0.2.2/24 false',
    'west 2001:db8::1/64 false',
  ]);
});

test('addresses: listing them is quick enough to be done at every sync', () => {
  inside(() => {
    const times: number[] = [];
    for (let i = 0; i < 30; i++) {
      const start = performance.now();
      listLocalAddresses();
      times.push(performance.now() - start);
    }
    // Well under a millisecond on a machine that has time for us; the bound is for one that has not.
    assert.ok(Math.min(...times) < 20, `${times.map((time) => time.toFixed(2)).join(' ')} ms`);
  });
});

test('addresses: a watcher is told once for a burst of changes', async () => {
  let stop: () => void = () => undefined;
  let calls = 0;
  const told = new Promise<void>((resolve) => {
    stop = inside(() =>
      watchAddresses(() => {
        calls++;
        resolve();
      }),
    );
  });
  inNamespace(namespace, ['ip', '-batch', '-'], {
    input: Array.from({ length: 20 }, (_, i) => `addr add 192.0.2.${i + 100}/24 dev west`).join('\n'),
  });
  await told;
  stop();
  assert.equal(calls, 1);
  assert.equal(inside(listLocalAddresses).length, 27);
});

test('addresses: a watcher that has ended is not told of what came just before', async () => {
  const told: string[] = [];
  const stops: (() => void)[] = [];
  const some = new Promise<void>((resolve) => {
    for (const name of ['first', 'second'])
      stops.push(
        inside(() =>
          watchAddresses(() => {
            told.push(name);
            for (const stop of stops) stop();
            resolve();
          }),
        ),
      );
  });
  inNamespace(namespace, ['ip', 'addr', 'add', '192.0.2.200/24', 'dev', 'west']);
  await some;
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(told.length, 1);
});
