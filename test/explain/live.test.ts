/** `explain --live` on a real kernel: what its traces say of real packets, in both modes, families and protocols. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ObservedWay } from '../../src/explain/live.ts';
import { markingBatch, markingTable } from '../../src/explain/live/marking.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';
import { LiveNode, type RuleProgram } from './liveNode.ts';

const endpoints = { IPv4: /^10\.244\.1\.1[01]:8080$/, IPv6: /^\[fd00:10:244:1::1[01]\]:8080$/ } as const;
const addresses = {
  IPv4: { node: '172.31.0.11', client: '172.31.0.100', service: '10.96.0.20', front: '10.244.1.50' },
  IPv6: {
    node: 'fd00:31::11',
    client: 'fd00:31::100',
    service: 'fd00:10:96::20',
    front: 'fd00:10:244:1::50',
  },
} as const;
const ports = { tcp: { service: 80, node: 30080 }, udp: { service: 53, node: 30053 } } as const;

function place(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

function steps({ hooks }: ObservedWay) {
  return hooks.flatMap((one) => one.steps);
}

/** Where the rule that rewrites the destination is. */
const translatingChain: Readonly<Record<RuleProgram, RegExp>> = {
  nft: /^ip6? kube-proxy (node-port-)?pick-/,
  'iptables-nft': /^nat KUBE-SEP-/,
  'iptables-legacy': /^nat KUBE-SEP-/,
};

for (const program of ['nft', 'iptables-nft', 'iptables-legacy'] as const) {
  test(`${program}: packets from a Pod and from outside are followed through the kernel`, async (context) => {
    const live = await LiveNode.make(context, program);
    const combinations =
      program === 'iptables-legacy'
        ? ([
            ['IPv4', 'tcp'],
            ['IPv6', 'udp'],
          ] as const)
        : ([
            ['IPv4', 'tcp'],
            ['IPv4', 'udp'],
            ['IPv6', 'tcp'],
            ['IPv6', 'udp'],
          ] as const);
    for (const [family, protocol] of combinations) {
      const { node, client, service, front } = addresses[family];
      const what = `${program} ${family} ${protocol}`;

      // From inside the Pod.
      const inside = await live.explain([
        '--from',
        'pod/shop/front',
        '--to',
        place(service, ports[protocol].service),
        '--proto',
        protocol,
        '--count',
        '8',
      ]);
      assert.equal(inside.status, 0, what);
      assert.equal(inside.live.how, 'dialled');
      assert.equal(inside.live.from, 'the network namespace of Pod shop/front on node-1');
      assert.equal(inside.live.connections, 8);
      assert.deepEqual(inside.live.remarks, [], what);
      assert.equal(inside.live.agrees, true, `${what}: ${JSON.stringify(inside.live)}`);
      for (const { end, predicted } of inside.live.ends) {
        assert.match(end, endpoints[family], what);
        assert.equal(predicted, 0.5);
      }
      assert.equal(
        inside.live.ways.reduce((sum, { packets }) => sum + packets, 0),
        8,
        what,
      );
      for (const way of inside.live.ways) {
        assert.equal(way.agrees, true);
        assert.equal(way.end, 'left');
        assert.match(way.destination, endpoints[family]);
        assert.ok(way.client.startsWith(place(front, 1).slice(0, -1)), way.client);
        // Nobody rewrites a Pod's address.
        assert.ok(way.ended.includes(way.client), way.ended);
        const translating = steps(way).filter(({ chain }) => translatingChain[program].test(chain));
        assert.deepEqual(
          translating.map(({ judgement }) => judgement),
          ['predicted'],
          JSON.stringify(way),
        );
      }

      // From outside, to the node port: whoever comes.
      const outside = await live.explain(
        [
          '--from',
          'outside',
          '--to',
          place(node, ports[protocol].node),
          '--proto',
          protocol,
          '--count',
          '4',
          '--seconds',
          '120',
        ],
        () => {
          live.dial(live.client, protocol, node, ports[protocol].node, 4);
          // Other traffic is not asked about.
          live.dial(live.client, protocol === 'tcp' ? 'udp' : 'tcp', node, ports[protocol].node, 2);
          live.dial(live.client, protocol, service, ports[protocol].service, 2);
        },
      );
      assert.equal(outside.live.how, 'watched');
      assert.equal(outside.live.from, 'anybody');
      assert.equal(outside.live.connections, 4, `${what}: ${JSON.stringify(outside.live)}`);
      assert.deepEqual(outside.live.remarks, [], what);
      assert.equal(outside.live.agrees, true, `${what}: ${JSON.stringify(outside.live)}`);
      assert.ok(outside.live.ways.length > 0);
      for (const way of outside.live.ways) {
        assert.ok(way.client.startsWith(place(client, 1).slice(0, -1)), way.client);
        assert.match(way.destination, endpoints[family]);
        assert.deepEqual(
          way.hooks.map(({ hook }) => hook),
          ['prerouting', 'forward', 'postrouting'],
        );
        // The endpoint sees an address of the node.
        assert.ok(!way.ended.includes(client), way.ended);
        assert.ok(
          steps(way).some(({ rule, judgement }) => /masquerade/i.test(rule) && judgement === 'predicted'),
        );
      }
    }
    assert.equal(live.inNode(['nft', 'list', 'tables']).includes('pointsman-trace'), false);
  });
}

for (const program of ['nft', 'iptables-nft'] as const) {
  test(`${program}: a rule that came behind the prediction's back is shown where it is`, async (context) => {
    const live = await LiveNode.make(context, program);
    const dump = join(live.folder, 'dump');
    writeFileSync(
      dump,
      live.inNode(program === 'nft' ? ['nft', '-j', 'list', 'ruleset'] : ['iptables-nft-save']),
    );
    live.inNode(
      ['nft', '-f', '-'],
      'table inet firewall {\n chain forward {\n type filter hook forward priority 5\n tcp dport 8080 counter drop\n }\n}\n',
    );
    const args = ['--from', 'pod/shop/front', '--to', '10.96.0.20:80', '--dump', dump, '--count', '2'];
    const { live: seen, status, outcomes } = await live.explain(args);
    assert.equal(outcomes[0]?.kind, 'endpoint');
    assert.equal(status, 1);
    assert.equal(seen.agrees, false);
    for (const way of seen.ways) {
      assert.equal(way.agrees, false);
      assert.equal(way.end, 'dropped');
      assert.equal(way.ended, 'dropped by a rule of inet firewall forward');
      const differing = steps(way).filter(({ judgement }) => judgement === 'differs');
      assert.deepEqual(
        differing.map(({ chain, rule, did }) => [chain, rule, did]),
        [['inet firewall forward', 'tcp dport 8080 counter drop', 'drop']],
      );
      // What came before was right.
      assert.ok(
        steps(way).some(
          ({ chain, judgement }) => translatingChain[program].test(chain) && judgement === 'predicted',
        ),
      );
    }
    const page = join(live.folder, 'page.html');
    const { out } = await live.explainText(args, ['--html', page]);
    assert.match(out, /✗ tcp dport 8080 counter drop/);
    assert.match(out, /HERE IT DIFFERS: no rule of this chain was predicted to decide/);
    for (const line of out.split('\n').filter((one) => !one.startsWith('Written'))) {
      assert.ok(line.length <= 80, line);
    }
    const html = readFileSync(page, 'utf8');
    assert.match(html, /<h2>What really happened<\/h2>/);
    assert.match(
      html,
      /<li class="differs"><span class="sign">✗<\/span><code>inet firewall forward: tcp dport 8080 counter drop/,
    );
    assert.doesNotMatch(html, /<script/);
  });
}

test(
  'a Pod on a bridge with br_netfilter: the trace goes on behind it',
  { skip: existsSync('/proc/sys/net/bridge') ? false : 'br_netfilter is not loaded' },
  async (context) => {
    const live = await LiveNode.make(context, 'nft');
    const commands = [
      'ip link add cni0 type bridge',
      'ip link set cni0 up',
      'ip addr del 10.244.1.1/32 dev front',
      'ip route flush dev front',
      'ip link set front master cni0',
      'ip addr add 10.244.1.1/32 dev cni0',
      'ip route add 10.244.1.50/32 dev cni0',
      'sysctl -qw net.bridge.bridge-nf-call-iptables=1',
    ];
    for (const command of commands) live.inNode(command.split(' '));
    const args = ['--from', 'pod/shop/front', '--to', '10.96.0.20:80', '--count', '4'];
    const { live: seen, status } = await live.explain(args);
    assert.equal(status, 0, JSON.stringify(seen));
    assert.equal(seen.agrees, true);
    for (const way of seen.ways) {
      assert.equal(way.end, 'left', JSON.stringify(way));
      assert.equal(way.agrees, true);
      assert.deepEqual(
        way.hooks.map(({ hook }) => hook),
        ['prerouting', 'forward', 'postrouting'],
      );
    }
  },
);

test('what rules refuse is seen too, though nobody remembers it', async (context) => {
  const live = await LiveNode.make(context, 'nft');
  const refused = await live.explain(['--from', 'pod/shop/front', '--to', '10.96.0.22:80', '--count', '2']);
  assert.deepEqual(refused.live.ends, [{ end: 'refused', connections: 2, predicted: 1 }]);
  assert.equal(refused.live.agrees, true);
  assert.deepEqual(
    refused.live.ways.map(({ end, packets }) => [end, packets]),
    [['rejected', 2]],
  );
  const watched = await live.explain(['--from', '10.244.1.77', '--to', '10.96.0.22:80', '--seconds', '1']);
  assert.equal(watched.live.agrees, undefined);
  assert.equal(watched.live.connections, 0);
  assert.match(
    watched.live.remarks.join(),
    /No network namespace to be seen from here has the address 10\.244\.1\.77/,
  );
});

test('a UDP flow that is remembered goes on where it went, and the trace says why', async (context) => {
  const live = await LiveNode.make(context, 'nft');
  // One socket that goes on and on.
  live.start(live.client, [
    'node',
    '-e',
    `const u = require('dgram').createSocket('udp4');
u.on('error', () => {}); setInterval(() => u.send('x', 30053, '172.31.0.11'), 100);`,
  ]);
  const known = (): string => live.inNode(['conntrack', '-L', '-p', 'udp', '--orig-port-dst', '30053']);
  for (let i = 0; i < 600 && !known().includes('dport=30053'); i++)
    await new Promise((resolve) => setTimeout(resolve, 100));
  const { live: seen } = await live.explain([
    '--from',
    'outside',
    '--to',
    '172.31.0.11:30053',
    '--proto',
    'udp',
    '--seconds',
    '120',
    '--count',
    '1',
  ]);
  assert.equal(seen.connections, 1, JSON.stringify(seen));
  assert.match(seen.ends[0]!.end, endpoints.IPv4);
  const notes = steps(seen.ways[0]!).map(({ note }) => note);
  assert.ok(
    notes.some((note) => note.startsWith('not asked: its connection was known already')),
    JSON.stringify(seen),
  );
});

test('nft can read the table that marks', () => {
  const namespace = makeNamespace();
  for (const family of ['IPv4', 'IPv6'] as const) {
    for (const hook of ['prerouting', 'output'] as const) {
      const packet = {
        family,
        protocol: 'TCP',
        origin: { kind: 'outside', address: addresses[family].client, name: '', interface: undefined },
        sourcePort: 4711,
        destination: addresses[family].service,
        destinationPort: 80,
      } as const;
      const batch = markingBatch(markingTable(packet, 1), {
        packet,
        hook,
        source: addresses[family].client,
        sourcePorts: [4711, 4712],
        most: 2,
      });
      inNamespace(namespace, ['nft', '-c', '-f', '-'], {
        input: batch.toScript(),
        stdio: ['pipe', 'pipe', 'pipe'],
      });
    }
  }
  removeNamespace(namespace);
});

for (const program of ['nft', 'iptables-legacy'] as const) {
  test(`${program}: nothing is left of a watch that was killed`, async (context) => {
    const live = await LiveNode.make(context, program);
    const logger = ['cat', '/proc/sys/net/netfilter/nf_log/2'];
    const before = live.inNode(logger);
    const watch = live.startExplain(['--from', 'outside', '--to', '172.31.0.11:30080', '--seconds', '60']);
    const tables = (): string => live.inNode(['nft', 'list', 'tables']);
    await once(watch.stderr!, 'data');
    for (let i = 0; i < 600 && !tables().includes('pointsman-trace'); i++)
      await new Promise((resolve) => setTimeout(resolve, 100));
    assert.match(tables(), /table ip pointsman-trace-/);
    const listening = program === 'nft' ? before.trim() : 'nfnetlink_log';
    for (let i = 0; i < 600 && live.inNode(logger).trim() !== listening; i++)
      await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(live.inNode(logger).trim(), listening);
    watch.kill('SIGKILL');
    await once(watch, 'exit');
    assert.doesNotMatch(tables(), /pointsman-trace/);
    for (let i = 0; i < 600 && live.inNode(logger) !== before; i++)
      await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(live.inNode(logger), before);
  });
}

test('where another program has the log of legacy iptables, connection tracking answers, and it is said', async (context) => {
  const live = await LiveNode.make(context, 'iptables-legacy');
  const door = join(import.meta.dirname, '../../src/linux/netlink/nflog.ts');
  const other = live.start(live.node, [
    'node',
    '--import',
    'tsx',
    '--input-type=module',
    '-e',
    `const { watchLog } = await import(${JSON.stringify(door)}); watchLog(0, () => {}, () => {}); console.log('listens');`,
  ]);
  await once(other.stdout!, 'data');
  const { live: seen, status } = await live.explain([
    '--from',
    'node',
    '--to',
    '10.96.0.20:80',
    '--count',
    '3',
  ]);
  assert.equal(status, 0, JSON.stringify(seen));
  assert.equal(seen.from, 'this machine');
  assert.equal(seen.agrees, true);
  assert.equal(seen.remarks.length, 1);
  assert.match(
    seen.remarks[0]!,
    /^Rules of legacy iptables are not in the trace: .*another program listens to log group 0.* taken from connection tracking\.$/,
  );
  for (const way of seen.ways) {
    assert.equal(way.agrees, undefined);
    assert.match(way.destination, endpoints.IPv4);
  }
});
