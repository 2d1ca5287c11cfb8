/** `explain --live` on a node in userspace mode: the process in the middle, and where it goes on to. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LiveNode, type LiveAnswer } from './liveNode.ts';

function ends({ live }: LiveAnswer) {
  return live.ends
    .map(({ end, predicted }) => [end, predicted] as const)
    .sort(([a], [b]) => a.localeCompare(b));
}

function whole({ live }: LiveAnswer): string {
  return JSON.stringify(live, undefined, 1);
}

const both = {
  IPv4: [
    ['10.244.1.10:8080', 0.5],
    ['10.244.1.11:8080', 0.5],
  ],
  IPv6: [
    ['[fd00:10:244:1::10]:8080', 0.5],
    ['[fd00:10:244:1::11]:8080', 0.5],
  ],
};

for (const program of ['iptables-nft', 'iptables-legacy'] as const) {
  test(`${program}: a connection is followed to the process, and to the endpoint behind it`, async (context) => {
    const node = await LiveNode.make(context, program, true);
    for (const [from, to, proto, family] of [
      ['pod/shop/front', '10.96.0.20:80', 'tcp', 'IPv4'],
      ['pod/shop/front', '[fd00:10:96::20]:53', 'udp', 'IPv6'],
      ['node', '[fd00:10:96::20]:80', 'tcp', 'IPv6'],
      ['node', '172.31.0.11:30053', 'udp', 'IPv4'],
      ['localhost', '127.0.0.1:30080', 'tcp', 'IPv4'],
    ] as const) {
      const what = `${program} ${from} ${to} ${proto}`;
      const seen = await node.explain(['--from', from, '--to', to, '--proto', proto, '--count', '4']);
      assert.equal(seen.status, 0, `${what}: ${whole(seen)}`);
      assert.deepEqual(seen.live.remarks, [], what);
      assert.equal(seen.live.agrees, true, `${what}: ${whole(seen)}`);
      // They take turns.
      assert.deepEqual(ends(seen), both[family], `${what}: ${whole(seen)}`);
      assert.ok(seen.live.ways.length > 0, what);
      for (const way of seen.live.ways) {
        // Also what this node sends to itself is seen to come in again.
        assert.equal(way.end, 'here', `${what}: ${whole(seen)}`);
        assert.equal(way.hooks.at(-1)?.hook, 'input', what);
      }
    }
  });
}

test('an endpoint that refuses: the process takes the connection and gives it up', async (context) => {
  const node = await LiveNode.make(context, 'iptables-nft', true);
  const seen = await node.explain(['--from', 'pod/shop/front', '--to', 'shop/wrong', '--count', '2']);
  assert.equal(seen.status, 1, whole(seen));
  assert.equal(seen.live.agrees, false);
  assert.deepEqual(
    seen.live.ends,
    [{ end: 'reset by the process', connections: 2, predicted: undefined }].map(({ end, connections }) => ({
      end,
      connections,
    })),
  );
  const args = ['--from', 'node', '--to', 'shop/wrong', '--count', '1'];
  const { out } = await node.explainText(args, []);
  assert.match(
    out.replaceAll(/\s+/g, ' '),
    /Not as predicted: the proxy's process takes the connection, reaches no endpoint, and resets it\./,
  );
});

test('of connections of others it is said what cannot be told', async (context) => {
  const node = await LiveNode.make(context, 'iptables-nft', true);
  const seen = await node.explain(
    ['--from', 'outside', '--to', '172.31.0.11:30080', '--count', '2', '--seconds', '60'],
    () => node.dial(node.client, 'tcp', '172.31.0.11', 30080, 8),
  );
  assert.equal(seen.live.agrees, true, whole(seen));
  assert.equal(seen.live.connections, 2);
  assert.match(seen.live.ends[0]!.end, /^172\.31\.0\.11:\d+$/);
  assert.deepEqual(seen.live.remarks, [
    'To which endpoints the process took them on is told of connections only that --live dials itself.',
  ]);
});
