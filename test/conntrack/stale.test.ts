import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { UDPFrontends } from '../../src/conntrack/stale.ts';
import type { ConntrackEntry } from '../../src/linux/netlink/conntrack-entry.ts';
import type { Frontend, Route, RoutingTable } from '../../src/services/types.ts';
import { changesBetween, endpoint, flow, route, tableOf } from './routes.ts';

const node = '192.168.1.10';
const context = { localAddresses: new Set([node, '127.0.0.1']), serviceCIDRs: [] };
const spec = {
  clusterIP: '172.30.1.1',
  nodePort: 32000,
  externalIPs: ['192.168.99.100'],
  loadBalancerIPs: ['1.2.3.4'],
  endpoints: [endpoint('10.240.0.4', 9090), endpoint('10.240.1.5', 9090, false)],
};
const addresses = [spec.clusterIP, ...spec.externalIPs, ...spec.loadBalancerIPs];

function judgeOf(...routes: readonly Route[]): (entry: ConntrackEntry) => boolean {
  const frontends = new UDPFrontends();
  frontends.rebuild(tableOf(...routes));
  return frontends.judge(context);
}

describe('stale flows: the table of the reference', () => {
  const isStale = judgeOf(
    route(spec),
    route({ ...spec, protocol: 'TCP' }),
    route({ ...spec, protocol: 'SCTP' }),
  );
  for (const address of addresses) {
    test(`stale flows: to ${address}:8000`, () => {
      assert.equal(isStale(flow([address, 8000], ['10.240.0.4', 9090])), false, 'to the serving endpoint');
      assert.equal(isStale(flow([address, 8000], ['10.240.0.4', 8080])), true, 'to its old port');
      assert.equal(isStale(flow([address, 8000], ['10.240.1.5', 9090])), true, 'to one that does not serve');
      assert.equal(isStale(flow([address, 8000], ['10.240.2.6', 9090])), true, 'to one that is gone');
      assert.equal(isStale(flow([address, 8000], [address, 8000])), true, 'never translated');
      assert.equal(isStale(flow([address, 3000], ['10.240.2.6', 9090])), false, 'to no port of a service');
      for (const protocol of [6, 132]) {
        assert.equal(isStale(flow([address, 8000], ['10.240.2.6', 9090], ['10.1.1.1', 1], protocol)), false);
      }
    });
  }

  test('stale flows: to the node port, on addresses of this node only', () => {
    assert.equal(isStale(flow([node, 32000], ['10.240.0.4', 9090])), false);
    assert.equal(isStale(flow([node, 32000], ['10.240.2.6', 9090])), true);
    assert.equal(isStale(flow([node, 32000], [node, 32000])), true, 'sent before there were rules');
    assert.equal(
      isStale(flow(['198.51.100.7', 32000], ['198.51.100.7', 32000])),
      false,
      'passes through to a host',
    );
    assert.equal(
      isStale(flow(['198.51.100.7', 32000], ['10.240.2.6', 9090])),
      false,
      "another machine's NAT",
    );
  });

  test('stale flows: an entry of a conntrack zone is left alone', () => {
    assert.equal(isStale({ ...flow([spec.clusterIP, 8000], ['10.240.2.6', 9090]), zone: 3 }), false);
  });
});

describe('stale flows: where the reference keeps them and we do not', () => {
  test('stale flows: a service without serving endpoints keeps only flows to endpoints it still has', () => {
    const isStale = judgeOf(route({ ...spec, endpoints: [endpoint('10.240.1.5', 9090, false)] }));
    assert.equal(isStale(flow([spec.clusterIP, 8000], ['10.240.0.4', 9090])), true, 'gone');
    assert.equal(isStale(flow([spec.clusterIP, 8000], ['10.240.1.5', 9090])), false, 'known, not serving');
    assert.equal(isStale(flow([spec.clusterIP, 8000], [spec.clusterIP, 8000])), false, 'never translated');
  });

  test('stale flows: a deleted service leaves none to its endpoints, and others alone', () => {
    const frontends = new UDPFrontends();
    const before = tableOf(route(spec));
    frontends.rebuild(before);
    const suspects = frontends.apply(changesBetween(before, tableOf()));
    assert.equal(suspects.length, 4);
    const isStale = frontends.judge(context);
    assert.equal(isStale(flow([spec.clusterIP, 8000], ['10.240.0.4', 9090])), true);
    assert.equal(isStale(flow([node, 32000], ['10.240.0.4', 9090])), true);
    assert.equal(isStale(flow([spec.clusterIP, 8000], ['10.240.7.7', 9090])), false, 'not known to be ours');
    assert.equal(isStale(flow([spec.clusterIP, 8000], [spec.clusterIP, 8000])), false, 'never translated');
    assert.equal(isStale(flow(['198.51.100.7', 32000], ['10.240.0.4', 9090])), false, 'not on this node');
    frontends.forgetRemoved();
    assert.equal(frontends.judge(context)(flow([spec.clusterIP, 8000], ['10.240.0.4', 9090])), false);
  });

  test('stale flows: after a restart, translated flows into a ServiceCIDR where nobody answers go', () => {
    const frontends = new UDPFrontends();
    frontends.rebuild(tableOf(route(spec)));
    const restarted = frontends.judge({ ...context, serviceCIDRs: ['172.30.0.0/16'] });
    assert.equal(restarted(flow(['172.30.9.9', 53], ['10.240.0.4', 9090])), true);
    assert.equal(restarted(flow(['172.30.9.9', 53], ['172.30.9.9', 53])), false, 'never translated');
    assert.equal(restarted(flow(['172.31.9.9', 53], ['10.240.0.4', 9090])), false, 'not in it');
    const later = frontends.judge(context);
    assert.equal(later(flow(['172.30.9.9', 53], ['10.240.0.4', 9090])), false);
  });

  test('stale flows: a frontend that moved to another service keeps only flows to the new one', () => {
    const frontends = new UDPFrontends();
    const other = { clusterIP: '172.30.2.2', name: 'other', endpoints: [endpoint('10.240.9.9', 53)] };
    const before = tableOf(route(spec), route(other));
    frontends.rebuild(before);
    const after = tableOf(
      route({ ...spec, externalIPs: [] }),
      route({ ...other, externalIPs: spec.externalIPs }),
    );
    const keys = frontends.apply(changesBetween(before, after)).map((frontend) => frontend.ip);
    assert.deepEqual(keys, spec.externalIPs);
    const isStale = frontends.judge(context);
    assert.equal(isStale(flow([spec.externalIPs[0]!, 8000], ['10.240.0.4', 9090])), true);
    assert.equal(isStale(flow([spec.externalIPs[0]!, 8000], ['10.240.9.9', 53])), false);
    assert.equal(isStale(flow([spec.clusterIP, 8000], ['10.240.0.4', 9090])), false);
  });
});

test('stale flows: those that a relay of this process answers are none, as long as it does', () => {
  const frontends = new UDPFrontends();
  const one = route(spec);
  frontends.rebuild(tableOf(one));
  const relays = (id: string, port: number): boolean => id === one.port.id && port === 41_001;
  const isStale = frontends.judge({ ...context, relays });
  for (const address of [...addresses, node]) {
    const port = address === node ? 32_000 : 8000;
    assert.equal(isStale(flow([address, port], [node, 41_001])), false);
    assert.equal(isStale(flow([address, port], [node, 41_002])), true, 'a listener of an earlier process');
    assert.equal(frontends.judge(context)(flow([address, port], [node, 41_001])), true);
  }
});

test('stale flows: changes that can make no flow stale ask for no look at the table', () => {
  const one = endpoint('10.240.0.4', 9090);
  const two = endpoint('10.240.0.5', 9090);
  const suspectsOf = (before: RoutingTable, after: RoutingTable): Frontend[] => {
    const frontends = new UDPFrontends();
    frontends.rebuild(before);
    return frontends.apply(changesBetween(before, after));
  };
  const single = { clusterIP: '172.30.1.1' };
  const none = route({ ...single, endpoints: [] });
  const withOne = route({ ...single, endpoints: [one] });
  const withBoth = route({ ...single, endpoints: [one, two] });
  const draining = route({ ...single, endpoints: [one, { ...two, ready: false, terminating: true }] });
  assert.equal(suspectsOf(tableOf(withOne), tableOf(withBoth)).length, 0, 'endpoint added');
  assert.equal(suspectsOf(tableOf(withBoth), tableOf(draining)).length, 0, 'endpoint drains');
  assert.equal(suspectsOf(tableOf(), tableOf(none)).length, 0, 'new service without endpoints');
  assert.equal(suspectsOf(tableOf(withBoth), tableOf(withOne)).length, 1, 'endpoint removed');
  assert.equal(suspectsOf(tableOf(none), tableOf(withOne)).length, 1, 'first endpoint');
  assert.equal(suspectsOf(tableOf(), tableOf(withOne)).length, 1, 'new service');
  assert.equal(suspectsOf(tableOf(withOne), tableOf()).length, 1, 'service deleted');
  const tcp = route({ ...single, protocol: 'TCP', endpoints: [one] });
  assert.equal(suspectsOf(tableOf(tcp), tableOf()).length, 0, 'TCP');
});

// A small world, so that collisions are frequent.
const clusterIPs = ['172.30.0.1', '172.30.0.2', '172.30.0.3'];
const pods = ['10.240.0.1', '10.240.0.2', '10.240.0.3'];
const arbitraryRoute = (name: string): fc.Arbitrary<Route | undefined> =>
  fc.option(
    fc
      .record({
        protocol: fc.constantFrom('UDP' as const, 'TCP' as const),
        port: fc.constantFrom(53, 54),
        nodePort: fc.constantFrom(0, 30000 + Number(name)),
        pods: fc.array(fc.record({ ip: fc.constantFrom(...pods), serving: fc.boolean() }), { maxLength: 3 }),
      })
      .map((value) => {
        const unique = new Map(value.pods.map((pod) => [pod.ip, pod]));
        const endpoints = [...unique.values()].map((pod) => endpoint(pod.ip, 5353, pod.serving));
        return route({ ...value, name, clusterIP: clusterIPs[Number(name)]!, endpoints });
      }),
    { nil: undefined },
  );
const arbitraryTable = fc
  .tuple(arbitraryRoute('0'), arbitraryRoute('1'), arbitraryRoute('2'))
  .map((routes) => tableOf(...routes.filter((one) => one !== undefined)));
const place = fc.tuple(
  fc.constantFrom(...clusterIPs, ...pods, node, '203.0.113.9'),
  fc.constantFrom(53, 54, 5353, 30000, 30001),
);
const arbitraryFlow = fc.record({ to: place, from: place, protocol: fc.constantFrom(17, 17, 17, 6) });

test('stale flows: nothing is ever deleted that is not provably stale', () => {
  fc.assert(
    fc.property(
      fc.array(arbitraryTable, { minLength: 1, maxLength: 5 }),
      fc.array(arbitraryFlow, { maxLength: 40 }),
      fc.boolean(),
      (tables, flows, restart) => {
        const frontends = new UDPFrontends();
        frontends.rebuild(tables[0]!);
        for (let i = 1; i < tables.length; i++) frontends.apply(changesBetween(tables[i - 1]!, tables[i]!));
        const serviceCIDRs = restart ? ['172.30.0.0/24'] : [];
        const isStale = frontends.judge({ ...context, serviceCIDRs });
        const now = [...tables.at(-1)!.routes.values()].filter((one) => one.port.protocol === 'UDP');
        const ever = tables.flatMap((table) => [...table.routes.values()]);
        for (const { to, from, protocol } of flows) {
          if (!isStale(flow(to, from, ['10.1.1.1', 9], protocol))) continue;
          assert.equal(protocol, 17);
          const reaches = (one: Route): boolean =>
            one.frontends.some((frontend) =>
              frontend.kind === 'nodePort'
                ? frontend.port === to[1] && context.localAddresses.has(to[0])
                : frontend.ip === to[0] && frontend.port === to[1],
            );
          const goesTo = (one: Route): boolean =>
            one.endpoints.some((each) => each.ip === from[0] && each.port === from[1]);
          const owner = now.find(reaches);
          if (owner !== undefined) {
            assert.ok(
              !owner.endpoints.some((each) => each.serving && each.ip === from[0] && each.port === from[1]),
            );
            continue;
          }
          assert.notDeepEqual(to, from, 'a flow without NAT and without a service is not ours');
          const wasOurs = ever.some((one) => one.port.protocol === 'UDP' && reaches(one) && goesTo(one));
          assert.ok(wasOurs || (restart && to[0].startsWith('172.30.0.')));
        }
      },
    ),
    { numRuns: 300 },
  );
});

test('stale flows: kept up to date change by change, the judgement is that of a fresh table', () => {
  fc.assert(
    fc.property(
      fc.array(arbitraryTable, { minLength: 2, maxLength: 6 }),
      fc.array(arbitraryFlow, { maxLength: 40 }),
      (tables, flows) => {
        const kept = new UDPFrontends();
        kept.rebuild(tables[0]!);
        for (let i = 1; i < tables.length; i++) {
          const before = kept.judge(context);
          const suspects = kept.apply(changesBetween(tables[i - 1]!, tables[i]!));
          const after = kept.judge(context);
          for (const { to, from, protocol } of flows) {
            const entry = flow(to, from, ['10.1.1.1', 9], protocol);
            // Whatever became stale by this change is reached by a suspect.
            if (before(entry) || !after(entry)) continue;
            assert.ok(
              suspects.some((one) => one.port === to[1] && (one.kind === 'nodePort' || one.ip === to[0])),
              JSON.stringify({ to, from }),
            );
          }
          kept.forgetRemoved();
        }
        const fresh = new UDPFrontends();
        fresh.rebuild(tables.at(-1)!);
        for (const { to, from, protocol } of flows) {
          const entry = flow(to, from, ['10.1.1.1', 9], protocol);
          assert.equal(kept.judge(context)(entry), fresh.judge(context)(entry));
        }
      },
    ),
    { numRuns: 300 },
  );
});
