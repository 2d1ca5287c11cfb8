/** Any history of changes leaves the table that a fresh start makes, on the real kernel. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import * as fc from 'fast-check';
import { RouteTracker } from '../../../src/services/routeTracker.ts';
import type { Family } from '../../../src/api/objects.ts';
import { backend, meta, port, service, slice, slicePort } from '../../services/build.ts';
import { removeNamespace, makeNamespace } from '../../support/namespace.ts';
import { World } from './harness.ts';
import { listTable } from './listing.ts';

const serviceNames = ['a', 'b', 'c', 'd'];

const serviceSpec = fc.record({
  name: fc.constantFrom(...serviceNames),
  age: fc.integer({ min: 1, max: 3 }),
  clusterIP: fc.integer({ min: 1, max: 4 }),
  ports: fc.constantFrom([80], [80, 81], [443]),
  protocol: fc.constantFrom('TCP' as const, 'UDP' as const),
  type: fc.constantFrom('ClusterIP', 'NodePort', 'LoadBalancer'),
  nodePort: fc.integer({ min: 30000, max: 30003 }),
  external: fc.uniqueArray(fc.integer({ min: 1, max: 3 }), { maxLength: 2 }),
  balancer: fc.uniqueArray(fc.integer({ min: 1, max: 4 }), { maxLength: 2 }),
  ranges: fc.uniqueArray(fc.constantFrom(0, 1, 2, 3), { maxLength: 3 }),
  affinity: fc.constantFrom(0, 0, 60, 10_800),
  internalLocal: fc.boolean(),
  externalLocal: fc.boolean(),
});
const sliceSpec = fc.record({
  service: fc.constantFrom(...serviceNames),
  part: fc.integer({ min: 0, max: 1 }),
  addresses: fc.uniqueArray(fc.integer({ min: 1, max: 40 }), { maxLength: 12 }),
  local: fc.integer({ min: 0, max: 4 }),
  terminating: fc.boolean(),
});
const step = fc.oneof(
  { weight: 3, arbitrary: serviceSpec.map((spec) => ({ kind: 'service' as const, spec })) },
  { weight: 4, arbitrary: sliceSpec.map((spec) => ({ kind: 'slice' as const, spec })) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(...serviceNames).map((name) => ({ kind: 'delete' as const, name })),
  },
);
const histories = fc.array(fc.array(step, { minLength: 1, maxLength: 4 }), { minLength: 2, maxLength: 10 });

function words(family: Family): { address: (block: number, n: number) => string; ranges: readonly string[] } {
  return family === 'IPv4'
    ? {
        address: (block, n) => `10.${block}.0.${n}`,
        ranges: ['203.0.113.0/24', '203.0.113.128/25', '192.0.2.0/24', '10.3.0.2/32'],
      }
    : {
        address: (block, n) => `fd00:${block}::${n}`,
        ranges: ['fd00:113::/64', 'fd00:113::8000/113', 'fd00:31::/64', 'fd00:3::2/128'],
      };
}

function applyStep(tracker: RouteTracker, family: Family, one: Step): void {
  const { address, ranges } = words(family);
  if (one.kind === 'delete') {
    tracker.deleteService('default', one.name);
    return;
  }
  if (one.kind === 'slice') {
    const { spec } = one;
    tracker.upsertSlice(
      slice(
        `${spec.service}-${spec.part}`,
        spec.service,
        spec.addresses.map((n, i) =>
          backend(address(244, n), {
            nodeName: i < spec.local ? 'node-1' : 'node-2',
            ...(spec.terminating ? { ready: false, terminating: true } : {}),
          }),
        ),
        {
          addressType: family,
          ports: [
            slicePort({ name: 'p80' }),
            slicePort({ name: 'p81', port: 8081 }),
            slicePort({ name: 'p443', port: 8443, protocol: 'TCP' }),
            slicePort({ name: 'p80', port: 8080, protocol: 'UDP' }),
          ],
        },
      ),
    );
    return;
  }
  const { spec } = one;
  tracker.upsertService(
    service(spec.name, {
      meta: meta(spec.name, 'default', spec.age * 1000),
      clusterIP: address(96, spec.clusterIP),
      ipFamilies: [family],
      type: spec.type,
      ports: spec.ports.map((number, i) =>
        port({
          name: `p${number}`,
          port: number,
          protocol: number === 443 ? 'TCP' : spec.protocol,
          nodePort: spec.type === 'ClusterIP' ? 0 : spec.nodePort + i,
        }),
      ),
      externalIPs: spec.external.map((n) => address(3, n)),
      loadBalancerIngress:
        spec.type === 'LoadBalancer'
          ? spec.balancer.map((n) => ({ ip: address(3, n), ipMode: undefined }))
          : [],
      loadBalancerSourceRanges: spec.ranges.map((i) => ranges[i]!),
      ...(spec.affinity > 0
        ? { sessionAffinity: 'ClientIP', sessionAffinityTimeoutSeconds: spec.affinity }
        : {}),
      internalTrafficPolicy: spec.internalLocal ? 'Local' : 'Cluster',
      externalTrafficPolicy: spec.externalLocal ? 'Local' : 'Cluster',
    }),
  );
}
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

for (const family of ['IPv4', 'IPv6'] as const) {
  test(`${family}: changes one by one, a fresh start and a restart leave the same table`, async () => {
    const namespace = makeNamespace();
    after(() => removeNamespace(namespace));
    await fc.assert(
      fc.asyncProperty(histories, async (history) => {
        const world = new World(family, namespace);
        try {
          world.nft('flush', 'ruleset');
          const tracker = new RouteTracker({ family, nodeName: 'node-1' });
          const { dataplane } = await world.start();
          const request = { table: tracker.table, serviceCIDRs: [] };
          await dataplane.sync({ ...request, changes: tracker.take(), full: true });
          for (const turn of history) {
            for (const one of turn) applyStep(tracker, family, one);
            const { full } = await dataplane.sync({ ...request, changes: tracker.take(), full: false });
            assert.equal(full, false, 'the kernel took the change');
          }
          const incremental = listTable(world);
          // A full sync of the same process, and of the next one, finds nothing to change.
          const before = world.nft('-a', 'list', 'table', world.table, 'kube-proxy');
          await dataplane.sync({ ...request, changes: tracker.take(), full: true });
          const next = await world.start();
          await next.dataplane.sync({ ...request, changes: tracker.take(), full: true });
          assert.equal(world.nft('-a', 'list', 'table', world.table, 'kube-proxy'), before);
          await next.dataplane.stop();
          await dataplane.stop();
          world.nft('flush', 'ruleset');
          const fresh = await world.start();
          await fresh.dataplane.sync({ ...request, changes: tracker.take(), full: true });
          assert.deepEqual(incremental, listTable(world));
          assert.deepEqual(world.resyncs, []);
          assert.deepEqual(world.reports, []);
        } finally {
          await world.close();
        }
      }),
      { includeErrorInReport: true, numRuns: Number(process.env['RUNS'] ?? 15) },
    );
  });
}
