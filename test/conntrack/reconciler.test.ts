import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { ConntrackReconciler, type ConntrackResult } from '../../src/conntrack/reconciler.ts';
import { printEntry, type ConntrackEntry } from '../../src/linux/netlink/conntrack-entry.ts';
import { ConntrackTable } from '../../src/linux/netlink/ctnetlink.ts';
import { withNetworkNamespace } from '../../src/linux/netlink/namespace.ts';
import { silentLogger } from '../../src/log/logger.ts';
import type { RoutingTable } from '../../src/services/types.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';
import { changesBetween, endpoint, flow, route, tableOf } from './routes.ts';

let namespace = '';
before(() => {
  namespace = makeNamespace();
});
after(() => removeNamespace(namespace));

/** The reconciler opens its socket when it first needs it, synchronously inside `afterSync`. */
function inside<T>(action: () => T): T {
  return withNetworkNamespace(`/run/netns/${namespace}`, action);
}

function conntrackList(family: string): string[] {
  return inNamespace(namespace, ['conntrack', '-L', '-f', family], { stdio: ['ignore', 'pipe', 'ignore'] })
    .trim()
    .split('\n')
    .filter((line) => line !== '');
}

const client = (i: number): readonly [string, number] => [`10.1.${i >>> 8}.${i & 255}`, 20_000];

test('reconciler: among 20,000 flows only the stale ones go, and conntrack -L agrees', async () => {
  const table = inside(() => new ConntrackTable());
  const flows: ConntrackEntry[] = [];
  // Two services; the endpoint 10.244.0.3 is to go away.
  for (let i = 0; i < 20_000; i++) {
    const to = i % 2 === 0 ? '10.96.0.10' : '10.96.0.11';
    flows.push(flow([to, 53], [`10.244.0.${i % 5}`, 5353], client(i)));
  }
  const other = flow(['198.51.100.1', 53], ['198.51.100.1', 53]);
  const tcp = { ...flow(['10.96.0.10', 53], ['10.244.0.3', 5353], ['10.9.9.9', 1], 6), tcpState: 3 };
  table.create([...flows, other, tcp]);
  assert.equal(conntrackList('ipv4').length, 20_002);

  const endpointsOf = (...last: readonly number[]) => last.map((i) => endpoint(`10.244.0.${i}`, 5353));
  const make = (...last: readonly number[]): RoutingTable =>
    tableOf(
      route({ name: 'a', clusterIP: '10.96.0.10', port: 53, endpoints: endpointsOf(...last) }),
      route({ name: 'b', clusterIP: '10.96.0.11', port: 53, endpoints: endpointsOf(0, 1, 2, 3, 4) }),
    );
  const looks: ConntrackResult[] = [];
  const reconciler = new ConntrackReconciler({
    family: 'IPv4',
    log: silentLogger,
    onMetrics: (result) => looks.push(result),
  });
  const sync = (old: RoutingTable, now: RoutingTable, restart: boolean): Promise<ConntrackResult> =>
    inside(() =>
      reconciler.afterSync({
        table: now,
        changes: {
          family: 'IPv4',
          changes: changesBetween(old, now),
          udpEndpointsChanged: true,
          triggerTimes: [],
        },
        serviceCIDRs: ['10.96.0.0/16'],
        localAddresses: ['10.0.0.1'],
        restart,
      }),
    );

  const all = make(0, 1, 2, 3, 4);
  assert.equal((await sync(tableOf(), all, true)).deleted, 0, 'everything is as it should be');
  const fewer = make(0, 1, 2, 4);
  const result = await sync(all, fewer, false);
  assert.equal(result.deleted, 2000);
  assert.ok(result.milliseconds < 60_000, `${result.milliseconds} ms`);
  const left = conntrackList('ipv4');
  assert.equal(left.length, 18_002);
  assert.equal(
    left.filter((line) => /dst=10\.96\.0\.10 .*src=10\.244\.0\.3 /.test(line)).length,
    1,
    'the TCP flow',
  );
  assert.equal(left.filter((line) => /dst=10\.96\.0\.11 .*src=10\.244\.0\.3 /.test(line)).length, 2000);
  assert.ok(left.some((line) => line.includes('dst=198.51.100.1')));

  // Both services deleted: no more flows to their endpoints, and what is nobody's stays.
  assert.equal((await sync(fewer, tableOf(), false)).deleted, 18_000);
  assert.equal(conntrackList('ipv4').length, 2);
  assert.equal(looks.length, 3);
  reconciler.close();
  table.close();
});

test('reconciler: after a restart flows into a ServiceCIDR without a service go', async () => {
  const table = inside(() => new ConntrackTable());
  table.create([
    flow(['fd00:96::1', 53], ['fd00:244::1', 53], ['fd00::1', 1]),
    flow(['fd00:96::2', 53], ['fd00:244::1', 53], ['fd00::1', 2]),
    flow(['fd00:97::1', 53], ['fd00:244::1', 53], ['fd00::1', 3]),
  ]);
  const reconciler = new ConntrackReconciler({
    family: 'IPv6',
    log: silentLogger,
    onMetrics: () => undefined,
  });
  const now = tableOf(route({ clusterIP: 'fd00:96::1', port: 53, endpoints: [endpoint('fd00:244::1', 53)] }));
  const result = await inside(() =>
    reconciler.afterSync({
      table: now,
      changes: { family: 'IPv6', changes: [], udpEndpointsChanged: false, triggerTimes: [] },
      serviceCIDRs: ['fd00:96::/112'],
      localAddresses: () => [],
      restart: true,
    }),
  );
  assert.equal(result.deleted, 1);
  const ours = table.listAll('IPv6').map(printEntry);
  assert.deepEqual(ours.toSorted(), conntrackList('ipv6').toSorted());
  assert.equal(ours.length, 2);
  reconciler.close();
  table.close();
});

test('reconciler: the event loop is not held up while a large table is listed', async () => {
  const table = inside(() => new ConntrackTable());
  const flows = Array.from({ length: 60_000 }, (_, i) =>
    flow(['10.96.0.10', 53], ['10.244.0.1', 53], client(i)),
  );
  table.create(flows);
  const reconciler = new ConntrackReconciler({
    family: 'IPv4',
    log: silentLogger,
    onMetrics: () => undefined,
  });
  // In processor time of this process: what other programs take is not ours. It grows and shrinks with the machine.
  const used = (): number => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  };
  const begun = used();
  let longest = 0;
  let last = begun;
  const timer = setInterval(() => {
    const now = used();
    longest = Math.max(longest, now - last);
    last = now;
  }, 1);
  const { deleted } = await inside(() =>
    reconciler.afterSync({
      table: tableOf(route({ clusterIP: '10.96.0.10', port: 53, endpoints: [endpoint('10.244.0.1', 53)] })),
      changes: { family: 'IPv4', changes: [], udpEndpointsChanged: false, triggerTimes: [] },
      serviceCIDRs: [],
      localAddresses: [],
      restart: true,
    }),
  );
  clearInterval(timer);
  const total = used() - begun;
  assert.equal(deleted, 0);
  assert.ok(longest < total / 3, `${longest} ms at a stretch of ${total} ms`);
  reconciler.close();
  table.close();
});

test('reconciler: closing it while it looks lets the look finish', async () => {
  const errors: string[] = [];
  const log = { ...silentLogger, error: (message: string) => errors.push(message) };
  const looks: ConntrackResult[] = [];
  const reconciler = new ConntrackReconciler({
    family: 'IPv4',
    log,
    onMetrics: (result) => looks.push(result),
  });
  const look = inside(() =>
    reconciler.afterSync({
      table: tableOf(route({ clusterIP: '10.96.0.10', port: 53, endpoints: [endpoint('10.244.0.1', 53)] })),
      changes: { family: 'IPv4', changes: [], udpEndpointsChanged: false, triggerTimes: [] },
      serviceCIDRs: [],
      localAddresses: [],
      restart: true,
    }),
  );
  reconciler.close();
  await look;
  reconciler.close();
  assert.deepEqual(errors, []);
  assert.equal(looks.length, 1);
});

test('reconciler: where the table cannot be read it says so, goes on, and looks at everything next time', async () => {
  const errors: string[] = [];
  const log = { ...silentLogger, error: (message: string) => errors.push(message) };
  const reconciler = new ConntrackReconciler({
    family: 'IPv4',
    log,
    onMetrics: () => assert.fail('was not read'),
  });
  const result = await inside(() =>
    reconciler.afterSync({
      table: tableOf(route({ clusterIP: '10.96.0.10', port: 53, endpoints: [] })),
      changes: { family: 'IPv4', changes: [], udpEndpointsChanged: false, triggerTimes: [] },
      serviceCIDRs: [],
      localAddresses: () => {
        throw new Error('no addresses');
      },
      restart: true,
    }),
  );
  assert.equal(result.deleted, 0);
  assert.equal(errors.length, 1);
  reconciler.close();
});
