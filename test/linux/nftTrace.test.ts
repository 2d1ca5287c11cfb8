/** What the kernel tells of traced packets, and the heads of packets. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { withNetworkNamespace } from '../../src/linux/netlink/namespace.ts';
import { watchNewConnections } from '../../src/linux/netlink/conntrackEvents.ts';
import type { ConntrackEntry } from '../../src/linux/netlink/conntrack-entry.ts';
import { watchLog, type LoggedPacket } from '../../src/linux/netlink/nflog.ts';
import { watchTraces, type TraceEvent } from '../../src/linux/netlink/nftables/trace.ts';
import { readPacketHeader } from '../../src/linux/packet-header.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';

const namespace = makeNamespace();
after(() => removeNamespace(namespace));

function sendDatagrams(address: string): void {
  const program = `
    const socket = require('dgram').createSocket(process.argv[1].includes(':') ? 'udp6' : 'udp4');
    socket.on('error', () => {});
    socket.bind(4711, () => socket.send('hello', 53, process.argv[1], () => socket.close()));`;
  const { status, stderr } = spawnSync('ip', ['netns', 'exec', namespace, 'node', '-e', program, address]);
  assert.equal(status, 0, stderr.toString());
}

/** Waits until it has been told, and a little for what should not come after it. */
async function told(hasAll: () => boolean): Promise<void> {
  const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 50));
  for (let i = 0; i < 600 && !hasAll(); i++) await pause();
  await pause();
}

for (const [family, address, table] of [
  ['IPv4', '127.0.0.9', 'ip'],
  ['IPv6', '::1', 'ip6'],
] as const) {
  test(`${family}: a traced packet: rules, policies, addresses`, async () => {
    inNamespace(namespace, ['nft', '-f', '-'], {
      input: `table ${table} t {
  chain other { counter return; }
  chain out { type filter hook output priority 0; udp dport 53 meta nftrace set 1; jump other; }
  chain last { type filter hook output priority 5; policy drop; }
}\n`.replaceAll('; ', '\n'),
    });
    const events: TraceEvent[] = [];
    const stop = withNetworkNamespace(`/run/netns/${namespace}`, () =>
      watchTraces((event) => events.push(event), assert.fail),
    );
    try {
      sendDatagrams(address);
      await told(() => events.some(({ chain, type }) => chain === 'last' && type === 'policy'));
    } finally {
      stop();
    }
    inNamespace(namespace, ['nft', 'delete', 'table', table, 't']);
    assert.equal(new Set(events.map(({ id }) => id)).size, 1);
    assert.deepEqual(
      events
        .filter(({ handle, type }) => handle !== undefined || type === 'policy')
        .map(({ table: { family: tableFamily, name }, chain, type, verdict }) => [
          `${tableFamily} ${name} ${chain} ${type}`,
          verdict,
        ]),
      [
        [`${table} t out rule`, { code: 'continue' }],
        [`${table} t out rule`, { code: 'jump', chain: 'other' }],
        [`${table} t other rule`, { code: 'return' }],
        [`${table} t out policy`, { code: 'accept' }],
        [`${table} t last policy`, { code: 'drop' }],
      ],
    );
    const packets = events.flatMap(({ packet, chain }) => (packet === undefined ? [] : [{ chain, packet }]));
    const packet = {
      family,
      protocol: 17,
      source: family === 'IPv4' ? '127.0.0.1' : '::1',
      sourcePort: 4711,
      destination: address,
      destinationPort: 53,
    };
    assert.deepEqual(packets, [
      { chain: 'out', packet },
      { chain: 'last', packet },
    ]);
    assert.ok((events[0]!.outInterface ?? 0) > 0);
  });
}

test('packets that are logged to a group come with their prefix', async () => {
  const program =
    'table ip l {\nchain out {\ntype filter hook output priority 0\nudp dport 53 log prefix "seen " group 3\n}\n}\n';
  inNamespace(namespace, ['nft', '-f', '-'], { input: program });
  const logged: LoggedPacket[] = [];
  const enter = <T>(action: () => T): T => withNetworkNamespace(`/run/netns/${namespace}`, action);
  const stop = enter(() => watchLog(3, (one) => logged.push(one), assert.fail));
  try {
    // One program a group.
    assert.throws(() => enter(() => watchLog(3, () => undefined, assert.fail)), /EPERM/);
    sendDatagrams('127.0.0.9');
    await told(() => logged.length > 0);
  } finally {
    stop();
  }
  inNamespace(namespace, ['nft', 'delete', 'table', 'ip', 'l']);
  assert.deepEqual(logged, [
    {
      prefix: 'seen ',
      hook: 3,
      packet: {
        family: 'IPv4',
        protocol: 17,
        source: '127.0.0.1',
        sourcePort: 4711,
        destination: '127.0.0.9',
        destinationPort: 53,
      },
    },
  ]);
});

test('connections are told when they begin', async () => {
  // Somebody has to ask for connection tracking.
  const program =
    'table ip c {\nchain out {\ntype filter hook output priority 0\nct state new accept\n}\n}\n';
  inNamespace(namespace, ['nft', '-f', '-'], { input: program });
  const entries: ConntrackEntry[] = [];
  const stop = withNetworkNamespace(`/run/netns/${namespace}`, () =>
    watchNewConnections((entry) => entries.push(entry), assert.fail),
  );
  try {
    sendDatagrams('127.0.0.10');
    await told(() => entries.some(({ original }) => original.destination === '127.0.0.10'));
  } finally {
    stop();
  }
  const found = entries.filter(({ original }) => original.destination === '127.0.0.10');
  assert.deepEqual(
    found.map(({ family, original }) => [
      family,
      original.protocol,
      original.source,
      original.destinationPort,
    ]),
    [['IPv4', 17, '127.0.0.1', 53]],
  );
});

test('any bytes are a packet header or none', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 80 }),
      fc.option(fc.uint8Array({ maxLength: 8 })),
      (bytes, more) => {
        const header = readPacketHeader(bytes, more ?? undefined);
        const version = (bytes[0] ?? 0) >>> 4;
        const whole = (version === 4 && bytes.length >= 20) || (version === 6 && bytes.length >= 40);
        assert.equal(header !== undefined, whole);
        if (header !== undefined) assert.ok(header.sourcePort >= 0 && header.destinationPort <= 65535);
      },
    ),
  );
});

test('a later fragment has no ports', () => {
  const bytes = new Uint8Array(28);
  bytes.set([0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x34, 0, 53]);
  const first = readPacketHeader(bytes);
  assert.deepEqual([first?.sourcePort, first?.destinationPort], [0x1234, 53]);
  bytes[7] = 1;
  const later = readPacketHeader(bytes);
  assert.deepEqual([later?.sourcePort, later?.destinationPort], [0, 0]);
  assert.equal(later?.destination, '10.0.0.2');
});
