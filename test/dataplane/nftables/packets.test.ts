/** Real connections through a node with the mode's rules: the decision table, source ranges, affinity, even shares. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { DataplaneOptions } from '../../../src/dataplane/dataplane.ts';
import { nodeOwnAddresses, podAddress6 } from '../../../src/lab/net/layout.ts';
import { LabNetwork } from '../../../src/lab/net/network.ts';
import { startEchoServer } from '../../../src/lab/pod/echoServer.ts';
import { runProbe, type ProbeContext } from '../../../src/lab/probe/probe.ts';
import type { ProbeSpec } from '../../../src/lab/scenario/types.ts';
import { makeRoute, makeTable, type Spec } from '../iptables/routes.ts';
import { World } from './harness.ts';

const network = new LabNetwork({}, [
  { name: 'a', node: 'node-1', ip: '10.244.1.10' },
  { name: 'b', node: 'node-2', ip: '10.244.2.10' },
  { name: 'c', node: 'node-1', ip: '10.244.1.20' },
]);
const ports = [8080, 8081, 8082, 8083, 8084].map((port) => ({ kind: 'tcp' as const, port }));
const servers = ['a', 'b'].map((name) =>
  startEchoServer(network.namespaces, { name, namespace: `pod-${name}`, ports }),
);
const context: ProbeContext = {
  network,
  namespaceOf: (from) =>
    from === 'client' ? from : from.startsWith('node/') ? from.slice(5) : `pod-${from.slice(4)}`,
  nameOfAddress: (ip) =>
    nodeOwnAddresses(network.node('node-1')).includes(ip) ? 'node-ip/node-1' : `other/${ip}`,
  // Eight seconds for an answer: this machine may have other things to do.
  timeFactor: 10,
};
const node = network.namespaces.fullName('node-1');
const worlds: World[] = [];
after(async () => {
  for (const world of worlds) await world.close();
  for (const server of servers) server.close();
  network.close();
});

interface Result {
  readonly outcome: string;
  readonly backends: readonly string[];
  readonly counts: Readonly<Record<string, number>>;
  readonly source: string;
}

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; !(await holds()); i++) {
    if (i === 300) assert.fail(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function dial(from: string, to: string, count: number, src?: string): Promise<Result> {
  const spec: ProbeSpec = {
    id: 'p',
    proto: 'tcp',
    from,
    to,
    count,
    src,
    sources: undefined,
    sport: undefined,
    parallel: undefined,
    sticky: false,
    sameAs: undefined,
    pool: [],
    stream: undefined,
    expect: undefined,
  };
  const { record } = await runProbe(context, spec);
  return {
    outcome: Object.keys(record.outcomes).toSorted().join('+'),
    backends: Object.keys(record.backends).toSorted(),
    counts: record.backends,
    source: Object.keys(record.sources).toSorted().join('+'),
  };
}

/** Addresses of one family, by what they are for. */
function places(family: 'IPv4' | 'IPv6') {
  const v6 = family === 'IPv6';
  const bracket = (ip: string): string => (v6 ? `[${ip}]` : ip);
  const pod = { a: '10.244.1.10', b: '10.244.2.10' };
  return {
    vip: (n: number) => (v6 ? `fd00:10:96::${n}` : `10.96.0.${n}`),
    external: (n: number) => (v6 ? `2001:db8:1::${n}` : `192.0.2.${n}`),
    node: v6 ? 'fd00:31::11' : '172.31.0.11',
    secondNode: v6 ? 'fd00:31:1::11' : '172.31.1.11',
    loopback: v6 ? '::1' : '127.0.0.1',
    client: (n: number) => (v6 ? `fd00:31::${100 + n}` : `172.31.0.${100 + n}`),
    at: (ip: string, port: number) => `${bracket(ip)}:${port}`,
    endpoint: (name: 'a' | 'b', port = 8080) =>
      `${bracket(v6 ? podAddress6(pod[name]) : pod[name])}:${port}${name === 'a' ? 'L' : ''}`,
    bits: v6 ? 128 : 32,
    options: {
      nodeIP: v6 ? 'fd00:31::11' : '172.31.0.11',
      nodePortAddresses: [v6 ? 'fd00:31::11/128' : '172.31.0.11/32'],
      localDetector: { kind: 'cidr', cidr: v6 ? 'fd00:10:244::/48' : '10.244.0.0/16' },
    } satisfies Partial<DataplaneOptions>,
    serviceCIDR: v6 ? 'fd00:10:96::/112' : '10.96.0.0/16',
  };
}

type Places = ReturnType<typeof places>;

function makeWorld(family: 'IPv4' | 'IPv6'): World {
  const world = new World(family, node);
  world.addresses = [places(family).node, places(family).secondNode, places(family).loopback];
  worlds.push(world);
  return world;
}

/** Connections of which chance sends none to one of two endpoints less often than once in 10¹⁰ runs of all lines. */
const draws = 40;

function exampleRoutes(p: Places) {
  const { endpoint } = p;
  const both = [endpoint('a'), endpoint('b')];
  const make = (n: number, spec: Partial<Spec>) =>
    makeRoute({ name: `default/s${n}`, clusterIP: p.vip(n), port: 80, nodePort: 30000 + n, ...spec });
  return [
    make(1, { externalIPs: [p.external(1)], endpoints: both }),
    make(2, { externalIPs: [p.external(2)] }),
    make(3, { internalPolicyLocal: true, endpoints: both }),
    make(4, { internalPolicyLocal: true, endpoints: [endpoint('b')] }),
    make(5, { externalPolicyLocal: true, loadBalancerIPs: [p.external(5)], endpoints: both }),
    make(6, { externalPolicyLocal: true, loadBalancerIPs: [p.external(6)], endpoints: [endpoint('b')] }),
    make(7, {
      loadBalancerIPs: [p.external(7)],
      sourceRanges: [`${p.client(0)}/${p.bits}`, `${p.node}/${p.bits}`],
      endpoints: both,
    }),
    make(8, { loadBalancerIPs: [p.external(8)], sourceRanges: [`${p.client(0)}/${p.bits}`] }),
    make(9, { endpoints: [endpoint('a')] }),
  ];
}

for (const family of ['IPv4', 'IPv6'] as const) {
  const p = places(family);
  const { at, vip, external } = p;
  const all = ['a:8080', 'b:8080'];
  const np = (n: number): string => at(p.node, 30000 + n);
  type Row = readonly [
    from: string,
    to: string,
    expected: string | readonly [readonly string[], string],
    src?: string,
  ];
  const rows: readonly Row[] = [
    ['client', at(vip(1), 80), [all, 'node-ip/node-1']],
    ['node/node-1', at(vip(1), 80), [all, 'node-ip/node-1']],
    ['pod/c', at(vip(1), 80), [all, 'client-ip']],
    ['client', np(1), [all, 'node-ip/node-1']],
    ['client', at(external(1), 80), [all, 'node-ip/node-1']],
    ['pod/c', at(external(1), 80), [all, 'node-ip/node-1']],
    ['node/node-1', np(1), [all, 'node-ip/node-1']],
    ['client', at(p.secondNode, 30001), 'refused'],
    ['node/node-1', at(p.loopback, 30001), 'refused'],
    ['client', at(vip(1), 81), 'refused'],
    ['pod/c', at(vip(77), 80), 'timeout'],
    ['client', at(vip(2), 80), 'refused'],
    ['client', np(2), 'refused'],
    ['node/node-1', np(2), 'refused'],
    ['pod/c', at(external(2), 80), 'refused'],
    ['pod/c', at(vip(3), 80), [['a:8080'], 'client-ip']],
    ['client', at(vip(3), 80), [['a:8080'], 'node-ip/node-1']],
    ['pod/c', np(3), [all, 'node-ip/node-1']],
    ['pod/c', at(vip(4), 80), 'timeout'],
    ['client', np(4), [['b:8080'], 'node-ip/node-1']],
    ['client', np(5), [['a:8080'], 'client-ip']],
    ['client', at(external(5), 80), [['a:8080'], 'client-ip']],
    ['pod/c', np(5), [all, 'client-ip']],
    ['pod/c', at(external(5), 80), [all, 'client-ip']],
    ['pod/c', at(vip(5), 80), [all, 'client-ip']],
    ['node/node-1', np(5), [all, 'node-ip/node-1']],
    ['node/node-1', at(external(5), 80), [all, 'node-ip/node-1']],
    ['client', np(6), 'timeout'],
    ['client', at(external(6), 80), 'timeout'],
    ['pod/c', at(external(6), 80), [['b:8080'], 'client-ip']],
    ['node/node-1', np(6), [['b:8080'], 'node-ip/node-1']],
    ['client', at(external(7), 80), [all, 'node-ip/node-1'], p.client(0)],
    ['client', at(external(7), 80), 'timeout', p.client(1)],
    ['pod/c', at(external(7), 80), 'timeout'],
    ['node/node-1', at(external(7), 80), [all, 'node-ip/node-1']],
    ['client', np(7), [all, 'node-ip/node-1'], p.client(1)],
    ['client', at(external(8), 80), 'refused', p.client(0)],
    ['client', at(external(8), 80), 'timeout', p.client(1)],
    ['pod/a', at(vip(9), 80), [['a:8080'], 'hairpin']],
  ];

  test(`${family}: every line of the decision table`, async () => {
    const world = makeWorld(family);
    const driver = await world.start(p.options);
    driver.serviceCIDRs = [p.serviceCIDR];
    await driver.to(makeTable(exampleRoutes(p), family), true);
    await Promise.all(
      rows.map(async ([from, to, expected, src]) => {
        const what = `${from}${src === undefined ? '' : ` (${src})`} → ${to}`;
        const answers = typeof expected !== 'string';
        const result = await dial(from, to, answers ? draws : 1, src);
        if (!answers) return assert.equal(result.outcome, expected, what);
        assert.equal(result.outcome, 'ok', what);
        assert.deepEqual(result.backends, expected[0], what);
        if (expected[1] === 'hairpin') assert.notEqual(result.source, 'client-ip', what);
        else assert.equal(result.source, expected[1], what);
      }),
    );
    await driver.dataplane.stop();

    // Without local detection Pods are outsiders, and cluster IPs are never masqueraded.
    const blind = await world.start({ ...p.options, localDetector: undefined });
    await blind.to(makeTable(exampleRoutes(p), family), true);
    const pod = await dial('pod/c', np(5), 16);
    assert.deepEqual([pod.backends, pod.source], [['a:8080'], 'client-ip']);
    await blind.dataplane.stop();
    // With masqueradeAll a Pod's traffic is masqueraded too.
    const masked = await world.start({ ...p.options, masqueradeAll: true });
    await masked.to(makeTable(exampleRoutes(p), family), true);
    assert.equal((await dial('pod/c', at(vip(1), 80), 4)).source, 'node-ip/node-1');
    await masked.dataplane.stop();
  });

  test(`${family}: affinity holds over all frontends and a restart, and ends with its time or its endpoint`, async () => {
    const world = makeWorld(family);
    const route = (seconds: number, ...endpoints: string[]) =>
      makeTable(
        [
          makeRoute({
            name: 'default/sticky',
            clusterIP: vip(20),
            port: 80,
            nodePort: 30020,
            affinitySeconds: seconds,
            endpoints,
          }),
        ],
        family,
      );
    const everyone = ports.flatMap(({ port }) => [p.endpoint('a', port), p.endpoint('b', port)]);
    const clients = (): number =>
      world.nft('list', 'map', world.table, 'kube-proxy', 'sticky-clients').match(/expires/g)?.length ?? 0;
    let driver = await world.start(p.options);
    await driver.to(route(10_800, ...everyone), true);
    const first = await dial('client', at(vip(20), 80), 8, p.client(2));
    assert.equal(first.backends.length, 1, 'one client, one endpoint');
    assert.deepEqual((await dial('client', np(20), 8, p.client(2))).backends, first.backends);
    const fromNode = await dial('node/node-1', at(vip(20), 80), 8);
    assert.equal(fromNode.backends.length, 1, 'in the output hook too');
    const others = new Set<string>();
    for (const n of [0, 1, 3]) {
      for (const name of (await dial('client', at(vip(20), 80), 2, p.client(n))).backends) others.add(name);
    }
    assert.ok(others.size >= 1 && clients() === 5, `${clients()} clients are remembered`);

    await driver.dataplane.stop();
    driver = await world.start(p.options);
    await driver.to(route(10_800, ...everyone), true);
    assert.deepEqual((await dial('client', at(vip(20), 80), 4, p.client(2))).backends, first.backends);

    // Its endpoint goes: another one, and again only one.
    const [name = '', port = ''] = first.backends[0]!.split(':');
    const gone = p.endpoint(name as 'a' | 'b', Number(port));
    const rest = everyone.filter((one) => one !== gone);
    assert.deepEqual(await driver.to(route(10_800, ...rest)), { full: false });
    const second = await dial('client', at(vip(20), 80), 8, p.client(2));
    assert.equal(second.backends.length, 1);
    assert.notDeepEqual(second.backends, first.backends);
    // Nobody is remembered for a service that is gone.
    await driver.to(makeTable([], family));
    assert.equal(clients(), 0);

    // It may be forgotten before it is looked for; some time it is not.
    await driver.to(route(2, ...rest));
    await until('a client to be remembered', async () => {
      await dial('client', at(vip(20), 80), 2, p.client(2));
      return clients() === 1;
    });
    await until('it to be forgotten', () => clients() === 0);
    await driver.to(makeTable([], family));
    await driver.dataplane.stop();
  });
}

test('every endpoint gets its share, whatever part of its size class is in use', async () => {
  const p = places('IPv4');
  const world = makeWorld('IPv4');
  const driver = await world.start(p.options);
  for (const count of [2, 3, 5]) {
    const endpoints = ports.slice(0, count).map(({ port }) => p.endpoint('a', port));
    await driver.to(
      makeTable([makeRoute({ name: 'default/even', clusterIP: p.vip(30), port: 80, endpoints })]),
    );
    const { counts } = await dial('pod/c', p.at(p.vip(30), 80), 400 * count);
    // Seven standard deviations; a slot too many or too few would make more.
    for (const { port } of ports.slice(0, count)) {
      const share = counts[`a:${port}`] ?? 0;
      assert.ok(Math.abs(share - 400) < 130, `${count} endpoints: ${JSON.stringify(counts)}`);
    }
  }
  await driver.dataplane.stop();
});
