import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Registry } from 'prom-client';
import { endpointChain, serviceHash } from '../../src/dataplane/iptables/names.ts';
import { silentLogger } from '../../src/log/logger.ts';
import { expose } from '../../src/metrics/exposition.ts';
import type { Reading } from '../../src/dataplane/counts.ts';
import { IptablesCounterReader, IptablesCounts } from '../../src/dataplane/iptables/counts.ts';
import { FrontendOwners, meaningOfRule as ipvsMeaning } from '../../src/dataplane/ipvs/counts.ts';
import {
  meaningOfRule as userspaceMeaning,
  ServicePortCounts,
} from '../../src/dataplane/userspace/counts.ts';
import { CounterAccumulator } from '../../src/status/counters/accumulate.ts';
import { ServiceCounters, seriesMax } from '../../src/status/counters/serviceCounters.ts';
import { endpoint, route, table } from './support/routes.ts';

const id = 'default/web:http/TCP';
const reading = (rule: string, packets: number): Reading => ({
  rule,
  packets,
  meaning: { kind: 'service', id },
});
const totalOf = (counts: CounterAccumulator): number =>
  [...counts.totals()].reduce((sum, { packets }) => sum + packets, 0);

test('a rule that is written anew begins at 0; its total does not', () => {
  const counts = new CounterAccumulator('IPv4');
  for (const [packets, total] of [
    [10, 10],
    [15, 15],
    [3, 18],
    [3, 18],
    [0, 18],
    [7, 25],
  ] as const) {
    counts.take([reading('r', packets)]);
    assert.equal(totalOf(counts), total);
  }
});

test('a rule that is gone for one reading begins at 0 again', () => {
  const counts = new CounterAccumulator('IPv4');
  counts.take([reading('r', 10)]);
  counts.take([]);
  counts.take([reading('r', 12)]);
  assert.equal(totalOf(counts), 22);
});

test('the same rule twice in one reading: both count', () => {
  const counts = new CounterAccumulator('IPv4');
  counts.take([reading('r', 2), reading('r', 3)]);
  assert.equal(totalOf(counts), 5);
});

test('the same rule twice in each of two readings: only what came in between is added', () => {
  const counts = new CounterAccumulator('IPv4');
  counts.take([reading('r', 2), reading('r', 3)]);
  counts.take([reading('r', 2), reading('r', 4)]);
  assert.equal(totalOf(counts), 6);
});

test('a last word counts what came since the reading before, and its key begins anew', () => {
  const counts = new CounterAccumulator('IPv4', true);
  counts.take([reading('r', 10)]);
  counts.take([{ ...reading('r', 14), last: true }, reading('r', 3)]);
  assert.equal(totalOf(counts), 17);
  // One incarnation came and went between two readings; another is there.
  counts.take([{ ...reading('r', 5), last: true }, { ...reading('r', 2), last: true }, reading('r', 9)]);
  assert.equal(totalOf(counts), 17 + 2 + 2 + 9);
  // Read, and then gone.
  counts.take([reading('r', 10), { ...reading('r', 12), last: true }]);
  assert.equal(totalOf(counts), 33);
});

test('what a reading may miss is not counted again when it is back; missing twice, it is gone', () => {
  const counts = new CounterAccumulator('IPv4', true);
  counts.take([reading('r', 10)]);
  counts.take([]);
  counts.take([reading('r', 11)]);
  assert.equal(totalOf(counts), 11);
  counts.take([]);
  counts.take([]);
  counts.take([reading('r', 4)]);
  assert.equal(totalOf(counts), 15);
});

test('a rule that is known to be written anew counts in full, even where it has counted more than before', () => {
  const counts = new CounterAccumulator('IPv4');
  counts.take([reading('r', 3)]);
  counts.take([{ ...reading('r', 5), fresh: true }]);
  assert.equal(totalOf(counts), 8);
});

test('law: totals never shrink, and with a reading before every reset nothing is lost', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ rule: fc.constantFrom('a', 'b', 'c'), more: fc.nat(9), reset: fc.boolean() }), {
        maxLength: 60,
      }),
      (steps) => {
        const kernel = new Map<string, number>();
        const counts = new CounterAccumulator('IPv4');
        let truth = 0;
        let last = 0;
        for (const { rule, more, reset } of steps) {
          if (reset) {
            // Seen at 0 before it counts again: a reset that comes between two readings and outgrows the old count cannot be told.
            kernel.set(rule, 0);
            counts.take([...kernel].map(([name, packets]) => reading(name, packets)));
          }
          kernel.set(rule, (kernel.get(rule) ?? 0) + more);
          truth += more;
          counts.take([...kernel].map(([name, packets]) => reading(name, packets)));
          assert.ok(totalOf(counts) >= last);
          last = totalOf(counts);
        }
        assert.equal(last, truth);
      },
    ),
  );
});

test('iptables-save -c: endpoints, affinity, refusals, masquerading; everything else is passed over', () => {
  const web = route('web', [endpoint('10.244.1.5'), endpoint('10.244.2.7')]);
  const reader = new IptablesCounterReader(table(web));
  const sep = endpointChain('default/web:http', 'TCP', '10.244.1.5:8080');
  const svc = `KUBE-SVC-${serviceHash('default/web:http', 'TCP')}`;
  const lines = `# Generated by iptables-save
*nat
:PREROUTING ACCEPT [5:300]
:${sep} - [0:0]
[9:540] -A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
[4:240] -A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
[90:540] -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
[1:60] -A ${sep} -s 10.244.1.5/32 -m comment --comment "default/web:http" -j KUBE-MARK-MASQ
[7:420] -A ${sep} -p tcp -m comment --comment "default/web:http" -m tcp -j DNAT --to-destination 10.244.1.5:8080
[3:180] -A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -m tcp -j DNAT --to-destination 10.244.9.9:1
[2:120] -A ${svc} -m comment --comment "default/web:http -> 10.244.1.5:8080" -m recent --rcheck --seconds 10800 --reap --name ${sep} --mask 255.255.255.255 --rsource -j ${sep}
COMMIT
*filter
[5:300] -A KUBE-SERVICES -d 10.96.0.20/32 -p tcp -m comment --comment "default/empty has no endpoints" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
[6:360] -A KUBE-EXTERNAL-SERVICES -d 203.0.113.1/32 -p udp -m comment --comment "default/lb:dns has no local endpoints" -m udp --dport 53 -j DROP
[8:480] -A KUBE-PROXY-FIREWALL -d 203.0.113.1/32 -p tcp -m comment --comment "default/lb:https traffic not accepted by KUBE-FW-X" -m tcp --dport 443 -j DROP
[1:60] -A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
[2:60] -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
[100:6000] -A INPUT -j DROP
COMMIT`;
  for (const line of lines.split('\n')) reader.line(line);
  assert.deepEqual(
    reader.readings.map(({ meaning, packets }) => [packets, meaning]),
    [
      [4, { kind: 'masqueraded' }],
      [7, { kind: 'endpoint', id, endpoint: '10.244.1.5:8080' }],
      [2, { kind: 'affinity', id }],
      [5, { kind: 'refused', reason: 'no_endpoints', verdict: 'reject', id: 'default/empty:/TCP' }],
      [6, { kind: 'refused', reason: 'no_local_endpoints', verdict: 'drop', id: 'default/lb:dns/UDP' }],
      [8, { kind: 'refused', reason: 'source_range', verdict: 'drop', id: 'default/lb:https/TCP' }],
      [1, { kind: 'refused', reason: 'localnet', verdict: 'drop', id: undefined }],
    ],
  );
});

/** A kernel's refusals in chain KUBE-SERVICES, and `during`, which runs while they are read. */
function refusals(): {
  packets: number;
  during: () => Promise<void>;
  readonly counts: IptablesCounts;
  total(): Promise<number>;
} {
  const totals = new CounterAccumulator('IPv4');
  const it = {
    packets: 0,
    during: () => Promise.resolve(),
    counts: new IptablesCounts(() => ({
      async saveCounted(name, onLine) {
        if (name !== 'filter') return;
        const rule =
          'KUBE-SERVICES -d 10.96.0.9/32 -p tcp -m comment --comment "default/gone:http has no endpoints" -m tcp --dport 80 -j REJECT';
        const line = `[${it.packets}:0] -A ${rule}`;
        await it.during();
        onLine('*filter');
        onLine(line);
      },
    })),
    async total() {
      totals.take(await it.counts.read(table()));
      return totalOf(totals);
    },
  };
  return it;
}

const rewrite = (name: string): string =>
  `*${name}\n:KUBE-SERVICES - [0:0]\n-A KUBE-SERVICES -j RETURN\nCOMMIT\n`;
const succeeds = (): Promise<void> => Promise.resolve();

test('iptables mode: a chain of one table that is written anew says nothing of its namesake in the other', async () => {
  const it = refusals();
  it.packets = 5;
  assert.equal(await it.total(), 5);
  await it.counts.writing(rewrite('nat'), succeeds);
  assert.equal(await it.total(), 5);
  await it.counts.writing(rewrite('filter'), succeeds);
  it.packets = 6;
  assert.equal(await it.total(), 11);
});

test('iptables mode: what is written anew during a reading counts once, whichever of the two was read', async () => {
  for (const read of ['old', 'new'] as const) {
    const it = refusals();
    it.packets = 2;
    assert.equal(await it.total(), 2);
    it.packets = read === 'old' ? 3 : 4;
    it.during = () => it.counts.writing(rewrite('filter'), succeeds);
    await it.total();
    it.during = succeeds;
    it.packets = 6;
    assert.equal(await it.total(), 8);
  }
});

test('iptables mode: a document on its way during a reading, which arrives or does not', async () => {
  for (const arrives of [true, false]) {
    const it = refusals();
    it.packets = 2;
    assert.equal(await it.total(), 2);
    let end: (error?: Error) => void = () => undefined;
    const written = it.counts.writing(
      rewrite('filter'),
      () =>
        new Promise(
          (resolve, reject) => (end = (error) => (error === undefined ? resolve() : reject(error))),
        ),
    );
    it.packets = 4;
    await it.total();
    end(arrives ? undefined : new Error('refused'));
    await written.catch(() => undefined);
    it.packets = 6;
    assert.equal(await it.total(), arrives ? 8 : 6);
  }
});

test('iptables mode: a reading that fails does not forget which rules began anew', async () => {
  const it = refusals();
  it.packets = 3;
  assert.equal(await it.total(), 3);
  await it.counts.writing(rewrite('filter'), succeeds);
  it.during = () => Promise.reject(new Error('iptables-save failed'));
  await assert.rejects(it.total(), /iptables-save failed/);
  it.during = succeeds;
  it.packets = 7;
  assert.equal(await it.total(), 10);
});

test('IPVS mode: whose a virtual server is, and what its rules count', () => {
  const web = route('web', [], {
    frontends: [
      { kind: 'clusterIP', ip: '10.96.0.10', port: 80, protocol: 'TCP' },
      { kind: 'loadBalancerIP', ip: '192.0.2.7', port: 80, protocol: 'TCP' },
      { kind: 'nodePort', ip: '', port: 30_080, protocol: 'TCP' },
    ],
  });
  const owners = new FrontendOwners(table(web));
  for (const [address, port, protocol, owner] of [
    ['10.96.0.10', 80, 'TCP', id],
    ['172.31.0.11', 30_080, 'TCP', id],
    ['172.31.0.11', 30_080, 'UDP', undefined],
    ['10.96.0.10', 81, 'TCP', undefined],
  ] as const)
    assert.equal(owners.of({ address, port, protocol }), owner, `${address}:${port}`);
  const refusedBy = (reason: string, verdict: string, owner?: string): object => ({
    kind: 'refused',
    reason,
    verdict,
    id: owner,
  });
  for (const [rule, meaning] of [
    ['KUBE-POSTROUTING -j MASQUERADE --random-fully', { kind: 'masqueraded' }],
    ['KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN', undefined],
    ['KUBE-SOURCE-RANGES-FIREWALL -j DROP', refusedBy('source_range', 'drop')],
    [
      'KUBE-IPVS-OUT-FILTER -s 192.0.2.7/32 -m ipvs --vaddr 192.0.2.7 --vproto 6 --vport 80 -j DROP',
      refusedBy('source_range', 'drop', id),
    ],
    [
      'KUBE-IPVS-FILTER -m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst -j REJECT --reject-with icmp-port-unreachable',
      refusedBy('no_such_port', 'reject'),
    ],
    [
      'KUBE-IPVS-DROP -m conntrack --ctstate NEW -m set --match-set KUBE-DROP-INTERNAL dst,dst -j DROP',
      refusedBy('no_local_endpoints', 'drop'),
    ],
    ['INPUT -j DROP', undefined],
  ] as const)
    assert.deepEqual(ipvsMeaning(rule, owners), meaning, rule);
});

test('userspace mode: why a rule refuses, and whom', () => {
  const web = route('web', [], { internal: 'cluster', external: 'drop' });
  const routes = new Map([['default/web:http tcp', web]]);
  for (const [rule, reason] of [
    [
      'KUBE-PORTALS-REFUSE -d 10.96.0.10/32 -p tcp -m comment --comment "default/web:http" -m tcp --dport 80 -j REJECT',
      'no_endpoints',
    ],
    [
      'KUBE-NODEPORT-REFUSE -p tcp -m comment --comment "default/web:http" -m tcp --dport 30080 -j DROP',
      'no_local_endpoints',
    ],
    [
      'KUBE-PORTALS-REFUSE -d 10.96.0.10/32 -p tcp -m comment --comment "default/web:http" -m tcp --dport 80 -j DROP',
      'source_range',
    ],
    [
      'KUBE-PORTALS-REFUSE -d 10.96.0.11/32 -p tcp -m comment --comment "default/gone:http" -m tcp --dport 80 -j DROP',
      undefined,
    ],
    [
      'KUBE-NODEPORT-NON-LOCAL -p tcp -m comment --comment "default/web:http" -m tcp --dport 4711 -j REJECT',
      undefined,
    ],
  ] as const) {
    const meaning = userspaceMeaning(rule, routes);
    assert.equal(meaning?.kind === 'refused' ? meaning.reason : undefined, reason, rule);
  }
});

test('userspace mode: a client that is tried on two endpoints is one connection', () => {
  const counts = new ServicePortCounts();
  const [one, two] = [endpoint('10.0.0.1'), endpoint('10.0.0.2')];
  counts.chosen(one, false);
  counts.chosen(two, true);
  counts.chosen(undefined, true);
  assert.equal(counts.connections, 1);
  assert.deepEqual([...counts.endpoints.values()], [1, 1]);
  counts.set(route('web', [two]));
  assert.deepEqual([...counts.endpoints.keys()], [two.key]);
});

interface World {
  routes: ReturnType<typeof table>;
  readings: Reading[];
  readonly counters: ServiceCounters;
  readonly warnings: string[];
}

function world(level: 'services' | 'endpoints'): World {
  let now = 0;
  const warnings: string[] = [];
  const made: World = {
    routes: table(),
    readings: [],
    warnings,
    counters: new ServiceCounters({
      level,
      log: { ...silentLogger, warn: (message) => void warnings.push(message) },
      now: () => (now += 60_000),
      families: [
        {
          family: 'IPv4',
          table: () => made.routes,
          source: { name: 'iptables', notes: [], read: () => Promise.resolve(made.readings) },
        },
      ],
    }),
  };
  return made;
}

const ofEndpoint = (key: string, packets: number): Reading => ({
  rule: key,
  packets,
  meaning: { kind: 'endpoint', id, endpoint: key },
});

test('a service port keeps what an endpoint that is gone has counted; a Service that is gone takes all along', async () => {
  const it = world('endpoints');
  it.routes = table(route('web', [endpoint('10.0.0.1'), endpoint('10.0.0.2')]));
  it.readings = [ofEndpoint('10.0.0.1:8080', 5), ofEndpoint('10.0.0.2:8080', 7)];
  assert.equal((await it.counters.read()).services[0]?.connections, 12);
  it.routes = table(route('web', [endpoint('10.0.0.2')]));
  it.readings = [ofEndpoint('10.0.0.2:8080', 8)];
  const second = await it.counters.read();
  assert.equal(second.services[0]?.connections, 13);
  assert.deepEqual(
    second.endpoints.map((one) => [one.endpoint, one.connections]),
    [['10.0.0.2:8080', 8]],
  );
  it.routes = table(route('web', [endpoint('10.0.0.1'), endpoint('10.0.0.2')]));
  it.readings = [ofEndpoint('10.0.0.1:8080', 1), ofEndpoint('10.0.0.2:8080', 8)];
  assert.equal((await it.counters.read()).services[0]?.connections, 14);
  it.routes = table();
  it.readings = [];
  assert.deepEqual((await it.counters.read()).services, []);
});

test('metrics: one series for each service port, and for each endpoint only where asked for', async () => {
  for (const level of ['services', 'endpoints'] as const) {
    const it = world(level);
    it.routes = table(route('web', [endpoint('10.0.0.1')]));
    it.readings = [ofEndpoint('10.0.0.1:8080', 5)];
    const registry = new Registry();
    it.counters.register(registry);
    const text = await expose(registry);
    const labels = 'namespace="default",service="web",port="http",protocol="TCP",ip_family="IPv4"';
    assert.ok(text.includes(`pointsman_service_connections_total{${labels}} 5\n`), text);
    const one = `pointsman_endpoint_connections_total{${labels},endpoint="10.0.0.1:8080"} 5\n`;
    assert.equal(text.includes(one), level === 'endpoints', text);
  }
});

test('there is a limit to series: sums stay right, and it is said once', async () => {
  const it = world('endpoints');
  const endpoints = Array.from({ length: seriesMax + 10 }, (_, i) =>
    endpoint(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`),
  );
  it.routes = table(route('web', endpoints));
  it.readings = endpoints.map(({ key }) => ofEndpoint(key, 1));
  const registry = new Registry();
  it.counters.register(registry);
  const text = await expose(registry);
  const series = text.split('\n').filter((line) => line.startsWith('pointsman_endpoint_connections_total{'));
  assert.equal(series.length, seriesMax);
  assert.ok(series.at(-1)?.endsWith('endpoint="other"} 11'), series.at(-1));
  await expose(registry);
  assert.equal(it.warnings.length, 1);
});
