import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IPS_SEEN_REPLY, type ConntrackEntry } from '../../src/linux/netlink/conntrack-entry.ts';
import { testSpread } from '../../src/status/chiSquare.ts';
import { ConnectionTally, connectionFindings } from '../../src/status/connections.ts';
import { FlowTally } from '../../src/status/flowCounter.ts';
import { FlowIndex } from '../../src/status/flowIndex.ts';
import { connectionLines } from '../../src/status/text/statusText.ts';
import { endpoint, route, table } from './support/routes.ts';

function flow(
  client: string,
  to: string,
  toPort: number,
  served: string,
  more: Partial<ConntrackEntry> = {},
): ConntrackEntry {
  const protocol = more.original?.protocol ?? 6;
  return {
    family: 'IPv4',
    original: { source: client, destination: to, protocol, sourcePort: 40000, destinationPort: toPort },
    reply: { source: served, destination: client, protocol, sourcePort: 8080, destinationPort: 40000 },
    status: IPS_SEEN_REPLY,
    timeout: 100,
    mark: 0,
    zone: 0,
    id: 1,
    use: 1,
    tcpState: 3,
    unknown: [],
    ...more,
  };
}

const draining = endpoint('10.244.2.7', { ready: false, terminating: true });
const web = route('web', [endpoint('10.244.1.5'), draining], {
  servicePort: { nodePort: 30080 },
  frontends: [
    { kind: 'clusterIP', ip: '10.96.0.10', port: 80, protocol: 'TCP' },
    { kind: 'nodePort', ip: '', port: 30080, protocol: 'TCP' },
  ],
});
const index = new FlowIndex([table(web)]);

test('a flow belongs to the service port of its frontend and the endpoint of its answers', () => {
  assert.equal(index.find(flow('10.0.0.1', '10.96.0.10', 80, '10.244.1.5'))?.known?.key, '10.244.1.5:8080');
  assert.equal(index.find(flow('10.0.0.1', '192.0.2.1', 30080, '10.244.1.5'))?.via, 'nodePort');
  assert.equal(index.find(flow('10.0.0.1', '10.96.0.10', 80, '10.244.9.9'))?.known, undefined);
  assert.equal(index.find(flow('10.0.0.1', '10.96.0.10', 81, '10.244.1.5')), undefined, 'another port');
  const untranslated = flow('10.0.0.1', '192.0.2.1', 30080, '192.0.2.1');
  const plain = { ...untranslated, reply: { ...untranslated.reply, sourcePort: 30080 } };
  assert.equal(index.find(plain), undefined, 'somebody else who listens at a node port');
});

test('findings name who hangs on an endpoint that is draining or gone; others are counted', () => {
  const tally = new ConnectionTally(index);
  tally.add(flow('10.0.0.1', '10.96.0.10', 80, '10.244.1.5'));
  tally.add(flow('10.0.0.2', '10.96.0.10', 80, '10.244.2.7'));
  tally.add(flow('10.0.0.2', '10.96.0.10', 80, '10.244.2.7'));
  tally.add(flow('10.0.0.3', '10.96.0.10', 80, '10.244.9.9'));
  tally.add(flow('10.0.0.4', '10.96.0.10', 80, '10.244.9.9', { tcpState: 7 }));
  tally.add(flow('10.0.0.5', '10.96.0.10', 80, '10.244.1.5', { tcpState: 1 }));
  tally.add(flow('10.0.0.5', '8.8.8.8', 53, '8.8.8.8'));
  const document = tally.document();
  assert.equal(document.others, 1);
  assert.deepEqual(connectionFindings(document), [
    'default/web:http/TCP: 2 open to 10.244.2.7:8080, which is draining: 10.0.0.2 (2)',
    'default/web:http/TCP: 1 open to 10.244.9.9:8080, which is gone: 10.0.0.3',
  ]);
  assert.deepEqual(connectionLines(document, 1), [
    '! default/web:http/TCP: 2 open to 10.244.2.7:8080, which is draining: 10.0.0.2 (2)',
    '! default/web:http/TCP: 1 open to 10.244.9.9:8080, which is gone: 10.0.0.3',
    '',
    'default/web:http/TCP  IPv4  4 open',
    '  10.244.1.5:8080  ready     1 open  1 opening             default/pod-5',
    '      10.0.0.1  1',
    '  10.244.2.7:8080  draining  2 open                        default/pod-7',
    '      10.0.0.2  2',
    '  10.244.9.9:8080  gone      1 open             1 closing',
    '      10.0.0.3  1',
  ]);
  tally.clear();
  assert.deepEqual(tally.document(), { services: [], others: 0 });
});

test('an uneven spread is named where chance would hardly give it, and only there', () => {
  const three = route('three', [endpoint('10.244.1.1'), endpoint('10.244.1.2'), endpoint('10.244.1.3')]);
  const uneven = (counts: readonly number[], sticky = 0): string[] => {
    const made = sticky === 0 ? three : { ...three, port: { ...three.port, affinitySeconds: sticky } };
    const tally = new ConnectionTally(new FlowIndex([table(made)]));
    for (const [i, count] of counts.entries())
      for (let n = 0; n < count; n++) tally.add(flow(`10.0.1.${n}`, '10.96.0.10', 80, `10.244.1.${i + 1}`));
    return connectionFindings(tally.document());
  };
  assert.deepEqual(uneven([30, 35, 28]), []);
  assert.deepEqual(uneven([120, 40, 41]), [
    'default/three:http/TCP: uneven: 120 open to 10.244.1.1:8080; equal chances for ' +
      '3 endpoints would hardly give that (chi-square 62.9, p < 0.000001)',
  ]);
  assert.deepEqual(uneven([120, 40, 41], 600), [], 'affinity may be as uneven as its clients');
  assert.deepEqual(uneven([4, 0, 0]), [], 'too few to tell');
});

test('an endpoint that gets none of the connections is listed beside those that have some', () => {
  const two = route('two', [endpoint('10.244.1.1'), endpoint('10.244.1.2')]);
  const tally = new ConnectionTally(new FlowIndex([table(two)]));
  tally.add(flow('10.0.0.1', '10.96.0.10', 80, '10.244.1.1'));
  assert.deepEqual(connectionLines(tally.document(), 0), [
    'default/two:http/TCP  IPv4  1 open',
    '  10.244.1.1:8080  ready  1 open      default/pod-1',
    '  10.244.1.2:8080  ready  0 open      default/pod-2',
  ]);
});

test('chi-square: probabilities of printed tables', () => {
  // NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.4: upper 5 % and 0.1 % points.
  for (const [freedom, statistic, probability] of [
    [1, 3.841, 0.05],
    [2, 5.991, 0.05],
    [10, 18.307, 0.05],
    [99, 123.225, 0.05],
    [3, 16.266, 0.001],
    [50, 86.661, 0.001],
  ] as const) {
    // Two counts above and below the mean give any statistic wanted.
    const expected = 1e6;
    const off = Math.sqrt((statistic * expected) / 2);
    const counts = [expected + off, expected - off, ...Array.from({ length: freedom - 1 }, () => expected)];
    const result = testSpread(counts);
    assert.equal(result?.freedom, freedom);
    assert.ok(
      Math.abs((result?.probability ?? 0) - probability) < 2e-5 + probability * 1e-3,
      `${freedom}: ${result?.probability}`,
    );
  }
});

test('announced flows are counted by service port and endpoint', () => {
  const tally = new FlowTally();
  for (const served of ['10.244.1.5', '10.244.1.5', '10.244.2.7']) {
    const found = index.find(flow('10.0.0.1', '10.96.0.10', 80, served));
    assert.ok(found !== undefined);
    tally.add(found);
  }
  const { services, endpoints } = tally.counts();
  assert.deepEqual(
    services.map((one) => one.connections),
    [3],
  );
  assert.deepEqual(
    endpoints.map((one) => [one.endpoint, one.connections]),
    [
      ['10.244.1.5:8080', 2],
      ['10.244.2.7:8080', 1],
    ],
  );
});
