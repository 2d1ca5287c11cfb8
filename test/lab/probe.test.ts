import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { LabNetwork } from '../../src/lab/net/network.ts';
import { httpGet, HttpFailure } from '../../src/lab/net/http.ts';
import { startEchoServer } from '../../src/lab/pod/echoServer.ts';
import {
  checkConnections,
  closeConnections,
  openProbe,
  runProbe,
  type ProbeContext,
} from '../../src/lab/probe/probe.ts';
import type { ProbeSpec } from '../../src/lab/scenario/types.ts';

const network = new LabNetwork({}, [
  { name: 'a', node: 'node-1', ip: '10.244.1.10' },
  { name: 'b', node: 'node-2', ip: '10.244.2.10' },
  { name: 'c', node: 'node-1', ip: '10.244.1.20' },
]);
const servers = ['a', 'b'].map((name) =>
  startEchoServer(network.namespaces, {
    name,
    namespace: `pod-${name}`,
    ports: [
      { kind: 'tcp', port: 8080 },
      { kind: 'udp', port: 8080 },
      { kind: 'http', port: 80 },
    ],
  }),
);
after(() => {
  for (const server of servers) server.close();
  network.close();
});

const context: ProbeContext = {
  network,
  namespaceOf: (from) =>
    from === 'client' ? from : from.startsWith('node/') ? from.slice(5) : `pod-${from.slice(4)}`,
  nameOfAddress: (ip) => `other/${ip}`,
  timeFactor: 1,
};

function spec(fields: Partial<ProbeSpec> & Pick<ProbeSpec, 'from' | 'to'>): ProbeSpec {
  const absent = {
    src: undefined,
    sources: undefined,
    sport: undefined,
    parallel: undefined,
    sameAs: undefined,
    stream: undefined,
    expect: undefined,
  };
  return { id: 'p', proto: 'tcp', count: 1, sticky: false, pool: [], ...absent, ...fields };
}

function iptables(rule: string): void {
  const { status, stderr } = network.namespaces.run('node-1', ['iptables', ...rule.split(' ')]);
  assert.equal(status, 0, stderr);
}

iptables(
  '-t nat -A PREROUTING -d 10.96.0.1 -p tcp -m statistic --mode random --probability 0.5 -j DNAT --to-destination 10.244.1.10:8080',
);
iptables('-t nat -A PREROUTING -d 10.96.0.1 -p tcp -j DNAT --to-destination 10.244.2.10:8080');
iptables('-t nat -A PREROUTING -d 10.96.0.1 -p udp -j DNAT --to-destination 10.244.2.10:8080');
iptables('-t nat -A OUTPUT -d 10.96.0.1 -p tcp -j DNAT --to-destination 10.244.2.10:8080');
iptables('-t nat -A POSTROUTING -s 172.31.0.96/28 -j MASQUERADE');
iptables('-A FORWARD -d 10.96.0.2 -j REJECT');
iptables('-A OUTPUT -d 10.96.0.2 -j REJECT');
iptables('-A FORWARD -d 10.96.0.3 -j DROP');
iptables('-A FORWARD -d 10.96.0.4 -j REJECT --reject-with icmp-admin-prohibited');
iptables('-A FORWARD -d 10.96.0.5 -p tcp -j REJECT --reject-with tcp-reset');

test('a record counts outcomes, backends by the port they were reached at, and sources', async () => {
  const { record } = await runProbe(context, spec({ from: 'pod/c', to: '10.96.0.1:80', count: 60 }));
  assert.deepEqual(record.outcomes, { ok: 60 });
  assert.deepEqual(Object.keys(record.backends).sort(), ['a:8080', 'b:8080']);
  assert.deepEqual(record.sources, { 'client-ip': 60 });
});

test("translated sources are told from untranslated ones, and a node's own address is the node", async () => {
  const masqueraded = await runProbe(
    context,
    spec({ from: 'client', to: '10.96.0.1:80', src: '172.31.0.101' }),
  );
  assert.match(Object.keys(masqueraded.record.sources).join(), /^other\/(172\.31\.0\.11|10\.244\.1\.1)$/);
  const node = await runProbe(context, spec({ from: 'node/node-1', to: '10.96.0.1:80' }));
  assert.deepEqual(node.record.sources, { 'node-ip/node-1': 1 });
});

test('outcomes: refused by reset and by ICMP, unreachable, lost; over TCP and UDP, forwarded and local', async () => {
  const table: [Partial<ProbeSpec> & Pick<ProbeSpec, 'from' | 'to'>, string, string[] | undefined][] = [
    [{ from: 'pod/c', to: '10.96.0.2:80' }, 'refused', ['icmp-port']],
    [{ from: 'pod/c', to: '10.96.0.2:80', proto: 'udp' }, 'refused', ['icmp-port']],
    [{ from: 'node/node-1', to: '10.96.0.2:80' }, 'refused', ['icmp-port']],
    [{ from: 'node/node-1', to: '10.96.0.2:80', proto: 'udp' }, 'refused', ['icmp-port']],
    [{ from: 'pod/c', to: '10.96.0.3:80' }, 'timeout', undefined],
    [{ from: 'pod/c', to: '10.96.0.3:80', proto: 'udp' }, 'timeout', undefined],
    [{ from: 'pod/c', to: '10.96.0.4:80' }, 'unreachable', ['icmp-admin-prohibited']],
    [{ from: 'pod/c', to: '10.96.0.4:80', proto: 'udp' }, 'unreachable', ['icmp-admin-prohibited']],
    [{ from: 'pod/c', to: '10.96.0.5:80' }, 'refused', ['rst']],
    [{ from: 'client', to: '172.31.0.11:9' }, 'refused', ['rst']],
    [{ from: 'client', to: '[fd00:31::11]:9', proto: 'udp' }, 'refused', ['icmp-port']],
    [{ from: 'node/node-1', to: '127.0.0.1:9' }, 'refused', ['rst']],
  ];
  await Promise.all(
    table.map(async ([fields, outcome, by]) => {
      const { record } = await runProbe(context, spec({ ...fields, count: 3 }));
      const what = `${fields.from} ${fields.to} ${fields.proto ?? 'tcp'}`;
      assert.deepEqual(record.outcomes, { [outcome]: 3 }, what);
      assert.deepEqual(record.by, by, what);
    }),
  );
});

test('more than eight attempts end with the first that is lost, unless asked to go at once', async () => {
  const inTurn = await runProbe(context, spec({ from: 'pod/c', to: '10.96.0.3:80', count: 9 }));
  assert.deepEqual(inTurn.record.outcomes, { timeout: 1 });
  const atOnce = await runProbe(context, spec({ from: 'pod/c', to: '10.96.0.3:80', count: 9, parallel: 9 }));
  assert.deepEqual(atOnce.record.outcomes, { timeout: 9 });
});

test('sources are used in turn, a source port is kept, and meetings are remembered', async () => {
  const fields = {
    from: 'client',
    to: '10.96.0.1:80',
    proto: 'udp' as const,
    count: 6,
    sources: 3,
    sticky: true,
  };
  const { record, meetings } = await runProbe(context, spec(fields));
  assert.deepEqual([...meetings.keys()], ['172.31.0.100', '172.31.0.101', '172.31.0.102']);
  assert.equal(record.sticky, true);
  const again = await runProbe(context, spec({ ...fields, sameAs: 'p' }), meetings);
  assert.equal(again.record.kept, 'all');
  const stranger = await runProbe(
    context,
    spec({ ...fields, sources: ['172.31.0.110'], sameAs: 'p' }),
    meetings,
  );
  assert.equal(stranger.record.kept, 'not all');
  const fixed = await runProbe(
    context,
    spec({ from: 'pod/c', to: '10.244.2.10:8080', sport: 45_678, count: 5 }),
  );
  assert.deepEqual(fixed.record.outcomes, { ok: 5 });
});

test('held connections are talked over again: same, moved, refused, gone', async () => {
  const tcp = await openProbe(context, spec({ from: 'pod/c', to: '10.96.0.1:80', count: 8 }));
  const udp = await openProbe(
    context,
    spec({ from: 'pod/c', to: '10.96.0.1:80', proto: 'udp', count: 4, stream: 0.02 }),
  );
  const unheard = await openProbe(
    context,
    spec({ from: 'pod/c', to: '10.96.0.6:80', proto: 'udp', count: 2 }),
  );
  const fatesOf = async (held: typeof tcp): Promise<string[]> => {
    const { fates } = await checkConnections(context, 'c', held.connections);
    return [...new Set(Object.values(fates).flatMap((counts) => Object.keys(counts)))].sort();
  };
  assert.deepEqual(await fatesOf(tcp), ['same']);
  assert.deepEqual(await fatesOf(udp), ['same']);

  // New flows go to a; what conntrack knows of the old ones is removed, so theirs do too.
  iptables('-t nat -I PREROUTING -d 10.96.0.1 -p udp -j DNAT --to-destination 10.244.1.10:8080');
  iptables('-t nat -I PREROUTING -d 10.96.0.6 -p udp -j DNAT --to-destination 10.244.1.10:8080');
  network.namespaces.run('node-1', ['conntrack', '-D', '-p', 'udp']);
  const moved = await checkConnections(context, 'c', udp.connections);
  assert.deepEqual(moved.fates, { 'b:8080': { moved: 4 } });
  assert.deepEqual(moved.now, { 'a:8080': 4 });
  const answered = await checkConnections(context, 'c', unheard.connections);
  assert.deepEqual(answered.fates, { none: { answered: 2 } });

  iptables('-I FORWARD -s 10.244.1.20 -p tcp -j REJECT --reject-with tcp-reset');
  assert.deepEqual(await fatesOf(tcp), ['reset']);
  iptables('-D FORWARD -s 10.244.1.20 -p tcp -j REJECT --reject-with tcp-reset');
  for (const each of [tcp, udp, unheard]) closeConnections(each.connections);
});

test('http from a namespace: an answer, a refusal', async () => {
  const answer = await httpGet(network.namespaces, 'pod-c', 'http://10.244.2.10/', 1000);
  assert.equal(answer.status, 200);
  assert.equal(answer.headers['x-pod'], 'b');
  assert.match(
    answer.body,
    /^Hello from b\. You are 10\.244\.1\.20:\d+, you reached me at 10\.244\.2\.10:80\.\n$/,
  );
  await assert.rejects(
    httpGet(network.namespaces, 'pod-c', 'http://10.244.2.10:81/', 1000),
    (error: unknown) => error instanceof HttpFailure && error.code === 'ECONNREFUSED',
  );
});
