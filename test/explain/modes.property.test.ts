/** Every mode, one truth: the wanted route, the rules of iptables mode and those of nftables mode come to the same. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { DataplaneOptions } from '../../src/dataplane/dataplane.ts';
import type { Prediction } from '../../src/explain/outcome.ts';
import type { Packet } from '../../src/explain/packet.ts';
import { predictFromRoutes, type RuleMode, type Wanted } from '../../src/explain/routes.ts';
import { wantedChains } from '../../src/explain/sources/rules.ts';
import { walk } from '../../src/explain/walk.ts';
import { World } from '../../src/explain/world.ts';
import { RouteTracker } from '../../src/services/routeTracker.ts';
import { objectsOf, serviceArbitrary, type Spec } from './generated.ts';

/** Kind, set of endpoints with shares, and whether the source is rewritten, as text. */
function summary(prediction: Prediction): string[] {
  const [usual] = prediction.possibilities;
  return usual!.outcomes
    .map(({ kind, destination, masqueraded, probability }) =>
      [
        kind,
        kind === 'endpoint' ? destination : '',
        masqueraded ? 'masqueraded' : '',
        probability.toFixed(3),
      ].join(' '),
    )
    .sort();
}

const packetArbitrary = fc.record({
  from: fc.constantFrom(
    ['podHere', '10.244.1.10'] as const,
    ['podHere', '10.244.1.50'] as const,
    ['podElsewhere', '10.244.2.10'] as const,
    ['node', '172.31.0.11'] as const,
    ['localhost', '127.0.0.1'] as const,
    ['outside', '172.31.0.100'] as const,
    ['outside', '198.18.0.1'] as const,
  ),
  to: fc.constantFrom('cluster', 'cluster', 'external', 'balancer', 'node', 'second', 'loopback', 'nobody'),
  wrongPort: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
  service: fc.integer({ min: 0, max: 2 }),
});

const setupArbitrary = fc.record({
  detector: fc.constantFrom('cidr', 'cidr', 'none', 'interface'),
  masqueradeAll: fc.integer({ min: 0, max: 4 }).map((n) => n === 0),
  addresses: fc.constantFrom(
    ['0.0.0.0/0'],
    ['0.0.0.0/0'],
    ['172.31.0.0/24'],
    ['127.0.0.0/8', '172.31.1.0/24'],
  ),
});

test('routes, iptables rules and nftables rules agree on every packet', () => {
  fc.assert(
    fc.property(
      fc.array(serviceArbitrary, { minLength: 1, maxLength: 3 }),
      fc.array(packetArbitrary, { minLength: 1, maxLength: 6 }),
      setupArbitrary,
      (specs, packets, setup) => {
        const tracker = new RouteTracker({ family: 'IPv4', nodeName: 'node-1' });
        specs.forEach((spec, n) => {
          const [object, endpoints] = objectsOf(spec, n);
          tracker.upsertService(object);
          tracker.upsertSlice(endpoints);
        });
        tracker.take();
        const options: DataplaneOptions = {
          family: 'IPv4',
          masqueradeBit: 14,
          masqueradeAll: setup.masqueradeAll,
          localDetector:
            setup.detector === 'cidr'
              ? { kind: 'cidr', cidr: '10.244.0.0/16' }
              : setup.detector === 'interface'
                ? { kind: 'interface', name: 'cni0' }
                : undefined,
          nodeIP: '172.31.0.11',
          nodePortAddresses: setup.addresses,
          syncPeriod: 30_000,
        };
        const world = new World({
          nodeName: 'node-1',
          family: 'IPv4',
          nodeIP: '172.31.0.11',
          localAddresses: ['127.0.0.1', '172.31.0.11', '172.31.1.11', '10.244.1.1'],
          podNetworksHere: ['10.244.1.0/24'],
          podNetworks: ['10.244.0.0/16'],
          outInterface: 'eth0',
          podInterface: 'cni0',
          recent: new Map(),
        });
        for (const packet of packets.map((one) => makePacket(one, specs, world))) {
          for (const mode of ['iptables', 'nftables'] as const satisfies readonly RuleMode[]) {
            const wanted: Wanted = {
              mode,
              table: tracker.table,
              options,
              localhostNodePorts: setup.addresses.some(
                (cidr) => cidr === '0.0.0.0/0' || cidr.startsWith('127.'),
              ),
              serviceCIDRs: ['10.96.0.0/16'],
            };
            const byRules = walk(packet, wantedChains(wanted, world), world);
            assert.deepEqual(
              summary(byRules),
              summary(predictFromRoutes(packet, world, wanted)),
              `${mode}: ${JSON.stringify(packet)}`,
            );
          }
        }
      },
    ),
    { numRuns: Number(process.env['EXPLAIN_RUNS'] ?? 200), includeErrorInReport: true },
  );
});

function makePacket(
  {
    from: [kind, address],
    to,
    wrongPort,
    service: n,
  }: typeof packetArbitrary extends fc.Arbitrary<infer T> ? T : never,
  specs: readonly Spec[],
  world: World,
): Packet {
  const spec = specs[n] ?? specs[0]!;
  const number = specs[n] === undefined ? 0 : n;
  const destination = {
    cluster: `10.96.0.${number + 10}`,
    external: `192.0.2.${number + 1}`,
    balancer: `203.0.113.${number + 1}`,
    node: '172.31.0.11',
    second: '172.31.1.11',
    loopback: kind === 'localhost' || kind === 'node' ? '127.0.0.1' : '172.31.0.11',
    nobody: '10.96.5.5',
  }[to];
  const ofNode = to === 'node' || to === 'second' || to === 'loopback';
  // From 127.0.0.1 one reaches only addresses of this machine, and the other way round.
  const source = destination === '127.0.0.1' ? '127.0.0.1' : kind === 'localhost' ? '172.31.0.11' : address;
  return {
    family: 'IPv4',
    protocol: spec.protocol,
    origin: {
      kind,
      address: source,
      name: kind,
      interface:
        kind === 'podHere'
          ? 'cni0'
          : kind === 'node' || kind === 'localhost'
            ? undefined
            : world.outInterface,
    },
    sourcePort: undefined,
    destination,
    destinationPort: wrongPort ? 9999 : ofNode ? 30000 + number : 80,
  };
}
