/** The table as the kernel has it: its listing, taking it over and giving it up, repair, changes of the node. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { canUseNftables } from '../../../src/dataplane/nftables/probe.ts';
import { Batch } from '../../../src/linux/netlink/nftables/batch.ts';
import { chain, table } from '../../../src/linux/netlink/nftables/objects.ts';
import { printTable } from '../../../src/linux/netlink/nftables/print.ts';
import { NftSocket } from '../../../src/linux/netlink/nftables/socket.ts';
import { withNetworkNamespace } from '../../../src/linux/netlink/namespace.ts';
import { makeRoute, makeTable } from '../iptables/routes.ts';
import { workedExample } from './examples.ts';
import { World, type Driver } from './harness.ts';
import { listTable } from './listing.ts';

const worlds: World[] = [];
after(async () => {
  for (const world of worlds) await world.close();
});

function makeWorld(family: 'IPv4' | 'IPv6' = 'IPv4'): World {
  const world = new World(family);
  worlds.push(world);
  return world;
}

const example = makeTable(workedExample);

async function startExample(world: World): Promise<Driver> {
  const driver = await world.start();
  driver.serviceCIDRs = ['10.96.0.0/12'];
  await driver.to(example, true);
  return driver;
}

/** How many transactions the kernel has seen in the namespace. */
function generation(world: World): number {
  return withNetworkNamespace(`/run/netns/${world.namespace}`, () => {
    const nft = new NftSocket();
    try {
      return nft.generation().id;
    } finally {
      nft.close();
    }
  });
}

/** A listing with the elements of each set in order: the kernel gives them in that of a hash table. */
function inOrder(listing: string): string {
  return listing.replace(/elements = \{([^}]*)\}/g, (_, elements: string) => {
    const sorted = elements
      .split(',')
      .map((one) => one.trim())
      .toSorted();
    return `elements = { ${sorted.join(',\n\t\t\t     ')} }`;
  });
}

/** Without regard to how many elements share a line. */
function oneLineEach(listing: string): string {
  return inOrder(listing)
    .replaceAll(/[ \t]+/g, ' ')
    .trim();
}

/** kube-proxy's layout of the same services, as the reference has it. */
const kubeProxyLayout = readFileSync(new URL('kube-proxy.nft', import.meta.url), 'utf8');

test('the worked example lists as it was written down', async () => {
  const world = makeWorld();
  await startExample(world);
  const expected = readFileSync(new URL('worked-example.nft', import.meta.url), 'utf8');
  assert.equal(inOrder(world.list()), expected);
  // It prints itself as nft does.
  const nft = withNetworkNamespace(`/run/netns/${world.namespace}`, () => new NftSocket());
  const printed = printTable(nft.readTable({ family: 'ip', name: 'kube-proxy' })!);
  nft.close();
  assert.equal(oneLineEach(printed), oneLineEach(expected));
  // What nft lists it also reads.
  const copy = makeWorld();
  copy.nftScript(world.list());
  assert.deepEqual(listTable(copy), listTable(world));
});

test('a restart and a full sync over a table that is right change nothing', async () => {
  const world = makeWorld();
  const first = await startExample(world);
  await first.dataplane.stop();
  const second = await world.start();
  second.serviceCIDRs = ['10.96.0.0/12'];
  const before = generation(world);
  assert.deepEqual(await second.to(example, true), { full: true });
  await second.full();
  assert.equal(generation(world), before);
  assert.deepEqual(world.resyncs, []);
});

test('a name that is too long for a comment is cut, and not written again and again', async () => {
  const world = makeWorld();
  const name = `${'n'.repeat(63)}/${'s'.repeat(63)}`;
  const table = makeTable([
    makeRoute({ name, portName: 'a-port', clusterIP: '10.96.0.1', port: 80, endpoints: ['10.0.0.1:80'] }),
  ]);
  const driver = await world.start();
  await driver.to(table, true);
  assert.ok(world.list().includes(`comment "${name}" : goto pick-1`));
  const before = generation(world);
  await driver.full();
  assert.equal(generation(world), before);
});

test('a start over the table of another time changes what differs', async () => {
  const world = makeWorld();
  const first = await startExample(world);
  const expected = listTable(world);
  await first.to(
    makeTable([
      makeRoute({
        name: 'default/old',
        clusterIP: '10.96.7.7',
        port: 1,
        nodePort: 30007,
        endpoints: ['10.0.0.1:1'],
      }),
      ...workedExample.slice(1, 4),
    ]),
  );
  await first.dataplane.stop();
  await startExample(world);
  assert.deepEqual(listTable(world), expected);
});

test('takes the table over from kube-proxy in one transaction, and gives it back', async () => {
  const world = makeWorld();
  world.nftScript(kubeProxyLayout);
  const before = generation(world);
  await startExample(world);
  assert.equal(generation(world), before + 1);
  const fresh = makeWorld();
  await startExample(fresh);
  assert.deepEqual(listTable(world), listTable(fresh));

  // kube-proxy begins by making the base chains anew, and its own chains and sets beside ours.
  const baseChains = [...kubeProxyLayout.matchAll(/chain (\S+)\s*\{ (type [^;]*;)/g)];
  assert.equal(baseChains.length, 8);
  const [first] = worlds.slice(-2);
  await first?.close();
  const remake = baseChains
    .map(
      ([, name, hook]) => `add chain ip kube-proxy ${name} { ${hook} }\ndelete chain ip kube-proxy ${name}\n`,
    )
    .join('');
  fresh.nftScript(remake + kubeProxyLayout);
  const rules = listTable(fresh).chains;
  assert.equal(rules['nat-prerouting']?.rules.length, 1);
  assert.match(JSON.stringify(rules['nat-prerouting']), /"services"/);
});

test('a table of another layout is replaced in one transaction', async () => {
  const world = makeWorld();
  world.nftScript(`table ip kube-proxy {
    map frontends { type inet_service : verdict; elements = { 80 : drop } }
    chain nat-prerouting { type nat hook prerouting priority 5; tcp dport vmap @frontends; }
  }`);
  const before = generation(world);
  await startExample(world);
  assert.equal(generation(world), before + 1);
  const fresh = makeWorld();
  await startExample(fresh);
  assert.deepEqual(listTable(world), listTable(fresh));
});

const vandalism: readonly (readonly string[])[] = [
  ['flush', 'ruleset'],
  ['delete', 'table', 'ip', 'kube-proxy'],
  ['flush', 'table', 'ip', 'kube-proxy'],
  ['flush', 'map', 'ip', 'kube-proxy', 'endpoints'],
  ['delete', 'element', 'ip', 'kube-proxy', 'virtual-ips', '{ 10.96.0.10 }'],
  ['delete', 'element', 'ip', 'kube-proxy', 'service-cidrs', '{ 10.96.0.0/12 }'],
  ['add', 'element', 'ip', 'kube-proxy', 'frontends', '{ 1.2.3.4 . tcp . 5 : drop }'],
  ['flush', 'chain', 'ip', 'kube-proxy', 'pick-4'],
  ['delete', 'chain', 'ip', 'kube-proxy', 'nat-output'],
  ['insert', 'rule', 'ip', 'kube-proxy', 'dispatch', 'drop'],
  ['add', 'chain', 'ip', 'kube-proxy', 'mine'],
  ['add', 'set', 'ip', 'kube-proxy', 'mine', '{ type mark; }'],
];

test('changes by others are seen and put right at once', async (context) => {
  const times: number[] = [];
  // Repairs that follow each other closely are held back: a few for each table.
  for (let i = 0; i < vandalism.length; i += 3) {
    const world = makeWorld();
    const driver = await startExample(world);
    const expected = listTable(world);
    for (const command of vandalism.slice(i, i + 3)) {
      const resync = new Promise<void>((resolve) => {
        world.onResync = resolve;
      });
      world.nft(...command);
      const start = performance.now();
      await resync;
      assert.deepEqual(await driver.full(), { full: true });
      const time = performance.now() - start;
      assert.deepEqual(listTable(world), expected, command.join(' '));
      times.push(time);
      assert.equal(world.reports.at(-1)?.kind, 'repaired');
    }
    assert.ok(world.resyncs.length >= 3);
    await world.close();
  }
  times.sort((a, b) => a - b);
  // A tenth of a second is the promise; a machine busy with other tests is given much more.
  context.diagnostic(`median ${times[times.length >> 1]!.toFixed(1)} ms`);
  assert.ok(times[times.length >> 1]! < 20_000, `${times.join(', ')} ms`);
});

test('a change of ours that comes upon one of others is in force all the same', async () => {
  const world = makeWorld();
  const driver = await startExample(world);
  world.onResync = () => assert.fail('the sync has seen it already');
  // No turn of the event loop between the two: the sync is the first to know.
  world.nft('flush', 'ruleset');
  const changed = makeTable([
    ...workedExample,
    makeRoute({ name: 'default/new', clusterIP: '10.96.1.1', port: 9, endpoints: ['10.0.0.9:9'] }),
  ]);
  assert.deepEqual(await driver.to(changed), { full: true });
  assert.match(world.list(), /10\.96\.1\.1 \. tcp \. 9 comment "default\/new" : goto pick-1/);
  // Other tables are none of our business, but they take part in the generation.
  world.nft('add', 'table', 'ip', 'other');
  assert.deepEqual(await driver.to(example), { full: false });
});

test('node port addresses and ServiceCIDRs follow at once', async () => {
  const world = makeWorld();
  const driver = await world.start({ nodePortAddresses: ['192.0.2.0/24', '127.0.0.0/8'] });
  await driver.to(example, true);
  const members = (set: string): string =>
    world
      .nft('list', 'set', 'ip', 'kube-proxy', set)
      .match(/elements = \{([^}]*)\}/)?.[1]
      ?.trim() ?? '';
  assert.equal(members('node-addresses'), '192.0.2.10');
  world.addresses = ['127.0.0.1', '192.0.2.10', '192.0.2.11', '198.51.100.1'];
  world.addressesChanged();
  assert.equal(members('node-addresses'), '192.0.2.10, 192.0.2.11');
  world.addresses = ['127.0.0.1', '192.0.2.11'];
  world.addressesChanged();
  assert.equal(members('node-addresses'), '192.0.2.11');
  assert.equal(members('service-cidrs'), '');
  driver.serviceCIDRs = ['10.96.0.0/16', '10.97.0.0/16', '10.96.128.0/17', '255.255.255.0/24'];
  assert.deepEqual(await driver.to(example), { full: false });
  assert.equal(members('service-cidrs').replaceAll(/\s+/g, ' '), '10.96.0.0/15, 255.255.255.0/24');
  driver.serviceCIDRs = [];
  await driver.to(example);
  assert.equal(members('service-cidrs'), '');
  await driver.full();
  assert.deepEqual(world.resyncs, []);
});

test('all addresses: node ports answer on every local address but loopback ones', async () => {
  for (const family of ['IPv4', 'IPv6'] as const) {
    const world = makeWorld(family);
    const driver = await world.start({ nodePortAddresses: [family === 'IPv4' ? '0.0.0.0/0' : '::/0'] });
    await driver.to(makeTable([], family), true);
    const loopback = family === 'IPv4' ? 'ip daddr != 127.0.0.0/8' : 'ip6 daddr != ::1';
    assert.ok(
      world.list().includes(`fib daddr type local ${loopback} meta l4proto . th dport vmap @node-ports`),
    );
    assert.doesNotMatch(world.list(), /node-addresses/);
  }
});

test('a frontend passes from one service port to another in one transaction', async () => {
  const world = makeWorld();
  const driver = await world.start();
  const route = (name: string, externalIPs: readonly string[], clusterIP: string) =>
    makeRoute({ name, clusterIP, port: 80, externalIPs, endpoints: ['10.0.0.1:80', '10.0.0.2:80'] });
  await driver.to(makeTable([route('x/a', ['192.0.2.1'], '10.96.0.1'), route('x/b', [], '10.96.0.2')]), true);
  const before = generation(world);
  await driver.to(makeTable([route('x/a', [], '10.96.0.2'), route('x/b', ['192.0.2.1'], '10.96.0.1')]));
  assert.equal(generation(world), before + 1);
  assert.match(world.list(), /192\.0\.2\.1 \. tcp \. 80 comment "x\/b" : goto external-pick-4/);
  assert.deepEqual(world.reports, []);
});

test('the same frontend twice in a route counts once, and is guarded if one of the two is', async () => {
  const world = makeWorld();
  const driver = await world.start();
  const twice = makeRoute({
    name: 'x/twice',
    clusterIP: '10.96.0.1',
    port: 80,
    externalIPs: ['192.0.2.1'],
    loadBalancerIPs: ['192.0.2.1'],
    sourceRanges: ['203.0.113.0/24'],
    endpoints: ['10.0.0.1:80'],
  });
  await driver.to(makeTable([twice]), true);
  assert.match(world.nft('list', 'set', 'ip', 'kube-proxy', 'guarded'), /192\.0\.2\.1 \. tcp \. 80/);
  await driver.to(makeTable([{ ...twice, frontends: [], lostFrontends: twice.frontends }]));
  assert.doesNotMatch(world.list(), /192\.0\.2\.1 /);
  await driver.to(makeTable([]));
  assert.deepEqual(world.reports, []);
});

test('before Linux 6.2: chains are removed a moment after what led to them, and may be wanted again before', async () => {
  const world = makeWorld();
  world.nftScript(kubeProxyLayout);
  const driver = await world.start({}, { removesChainsAtOnce: false });
  driver.serviceCIDRs = ['10.96.0.0/12'];
  await driver.to(example, true);
  const fresh = makeWorld();
  await startExample(fresh);
  const later = async (isDone: () => boolean): Promise<void> => {
    for (let i = 0; i < 300 && !isDone(); i++) await new Promise((resolve) => setTimeout(resolve, 100));
  };
  await later(() => isDeepStrictEqual(listTable(world), listTable(fresh)));
  assert.deepEqual(listTable(world), listTable(fresh));
  await driver.to(makeTable(workedExample.slice(0, 1)));
  assert.match(world.list(), /chain sticky-pick-4/);
  await driver.to(example);
  assert.deepEqual(listTable(world), listTable(fresh));
  await driver.to(makeTable(workedExample.slice(0, 1)));
  await later(() => !world.list().includes('chain sticky-pick-4'));
  assert.doesNotMatch(world.list(), /chain sticky-pick-4/);
  assert.deepEqual(world.reports, []);
});

test('a change of half the cluster goes in several transactions', async () => {
  const world = makeWorld();
  const driver = await world.start();
  const endpoints = Array.from({ length: 250 }, (_, i) => `10.0.${i}.1:80`);
  const routes = Array.from({ length: 100 }, (_, i) =>
    makeRoute({ name: `x/s${i}`, clusterIP: `10.96.0.${i}`, port: 80, endpoints }),
  );
  await driver.to(makeTable([]), true);
  const before = generation(world);
  assert.deepEqual(await driver.to(makeTable(routes)), { full: false });
  assert.equal(generation(world), before + 2);
  const fresh = makeWorld();
  await (await fresh.start()).to(makeTable(routes), true);
  assert.deepEqual(listTable(world), listTable(fresh));
});

test('counters: asked for, every frontend counts; a start with another wish replaces the table', async () => {
  const world = makeWorld();
  const counting = await world.start({ serviceCounters: 'services' });
  await counting.to(example, true);
  const frontends = (): string => world.nft('list', 'map', 'ip', 'kube-proxy', 'frontends');
  assert.match(
    frontends(),
    /10\.96\.0\.10 \. tcp \. 80 counter packets 0 bytes 0 comment "default\/web:http"/,
  );
  const before = generation(world);
  await counting.full();
  assert.equal(generation(world), before);
  await counting.dataplane.stop();
  await startExample(world);
  assert.equal(generation(world), before + 1);
  assert.doesNotMatch(frontends(), /counter/);
});

test('the probe of the start changes nothing, and names what a kernel refuses', async () => {
  const world = makeWorld();
  const before = generation(world);
  await world.start();
  assert.equal(generation(world), before);
  const refused = new Batch().add(table('ip', 'x')).delete(chain(table('ip', 'x'), 'not-there'));
  withNetworkNamespace(`/run/netns/${world.namespace}`, () => {
    const nft = new NftSocket();
    try {
      assert.throws(() => nft.commit(refused, { checkOnly: true }), /not-there.*ENOENT/);
      assert.ok(canUseNftables('IPv4') && canUseNftables('IPv6'));
    } finally {
      nft.close();
    }
  });
  assert.equal(world.nft('list', 'tables'), '');
  assert.equal(generation(world), before);
});

test('a sync needs a start', async () => {
  const world = makeWorld();
  const driver = await startExample(world);
  await driver.dataplane.stop();
  await assert.rejects(driver.full(), /sync before start/);
});
