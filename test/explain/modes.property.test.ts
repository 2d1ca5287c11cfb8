/** Every mode, one truth: the wanted route and what each mode puts into the kernel come to the same. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { DataplaneOptions } from '../../src/dataplane/dataplane.ts';
import type { Prediction } from '../../src/explain/outcome.ts';
import type { Packet } from '../../src/explain/packet.ts';
import { predictFromRoutes, type RuleMode, type Wanted } from '../../src/explain/routes.ts';
import { wantedMachine, type Machine } from '../../src/explain/sources/rules.ts';
import { isListener } from '../../src/explain/userspace/relay.ts';
import { walk } from '../../src/explain/walk.ts';
import { World } from '../../src/explain/world.ts';
import { userspacePorts } from '../../src/render/userspace.ts';
import type { Endpoint } from '../../src/services/types.ts';
import type { Family } from '../../src/api/objects.ts';
import { canonicalIP, isLoopback } from '../../src/services/ip.ts';
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
        // What the node sends to itself, IPVS mode marks by its port alone; nobody sees a difference.
        masqueraded && kind !== 'node' ? 'masqueraded' : '',
        probability.toFixed(3),
      ].join(' '),
    )
    .sort();
}

const modes = ['iptables', 'nftables', 'ipvs', 'userspace'] as const satisfies readonly RuleMode[];
const anywhere = { bindAddress: '0.0.0.0', portRange: '' };

/** What rules, and in IPVS mode virtual servers, make of the packet. */
function predictFromKernel(packet: Packet, { chains, world }: Machine, wanted: Wanted): Prediction {
  const prediction = walk(packet, chains, world);
  return wanted.mode === 'userspace' ? behindListeners(prediction, wanted) : prediction;
}

/** In place of each listener the endpoints that it chooses from: by its port, whatever the route says of the packet. */
function behindListeners(prediction: Prediction, { options, table }: Wanted): Prediction {
  const pools = new Map<number, readonly Endpoint[]>();
  const ports = userspacePorts({ config: anywhere }, { family: table.family, options, table });
  for (const { route, targets } of ports) {
    for (const pool of ['cluster', 'local'] as const) {
      const target = targets[pool];
      if (target !== undefined) pools.set(target.port, route[pool]);
    }
  }
  const possibilities = prediction.possibilities.map((possibility) => ({
    ...possibility,
    outcomes: possibility.outcomes.flatMap((outcome) => {
      if (!isListener(outcome)) return [outcome];
      const port = Number(outcome.destination.split(':').at(-1));
      const pool = pools.get(port);
      assert.ok(pool !== undefined, `nobody listens at ${outcome.destination}`);
      return pool.map(({ key }) => ({
        ...outcome,
        destination: key,
        masqueraded: true,
        probability: outcome.probability / pool.length,
      }));
    }),
  }));
  return { ...prediction, possibilities };
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
  family: fc.constantFrom('IPv4', 'IPv6'),
  detector: fc.constantFrom('cidr', 'cidr', 'none', 'interface'),
  masqueradeAll: fc.integer({ min: 0, max: 4 }).map((n) => n === 0),
  addresses: fc.constantFrom(
    ['0.0.0.0/0'],
    ['0.0.0.0/0'],
    ['172.31.0.0/24'],
    ['127.0.0.0/8', '172.31.1.0/24'],
  ),
  localhost: fc.boolean(),
});

test('routes and the kernel state of every mode agree on every packet', () => {
  fc.assert(
    fc.property(
      fc.array(serviceArbitrary, { minLength: 1, maxLength: 3 }),
      fc.array(packetArbitrary, { minLength: 1, maxLength: 6 }),
      setupArbitrary,
      (specs, packets, setup) => {
        const { family } = setup;
        const of = <T>(value: T): T => inFamily(family, value);
        const tracker = new RouteTracker({ family, nodeName: 'node-1' });
        specs.forEach((spec, n) => {
          const [object, endpoints] = objectsOf(spec, n);
          tracker.upsertService(of(object));
          tracker.upsertSlice({ ...of(endpoints), addressType: family });
        });
        tracker.take();
        const options: DataplaneOptions = of({
          family,
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
        });
        const world = new World({
          ...of({
            nodeName: 'node-1',
            family,
            nodeIP: '172.31.0.11',
            localAddresses: ['127.0.0.1', '172.31.0.11', '172.31.1.11', '10.244.1.1'],
            podNetworksHere: ['10.244.1.0/24'],
            podNetworks: ['10.244.0.0/16'],
            outInterface: 'eth0',
            podInterface: 'cni0',
          }),
          recent: new Map(),
        });
        const machines = modes.map((mode) => {
          const wanted: Wanted = {
            mode,
            table: tracker.table,
            options,
            localhostNodePorts:
              mode === 'userspace'
                ? setup.localhost
                : family === 'IPv4' &&
                  setup.addresses.some((cidr) => cidr === '0.0.0.0/0' || cidr.startsWith('127.')),
            serviceCIDRs: of(['10.96.0.0/16']),
            listeners: anywhere,
          };
          return { wanted, machine: wantedMachine(wanted, world) };
        });
        for (const one of packets) {
          for (const { wanted, machine } of machines) {
            const packet = makePacket(one, specs, machine.world);
            assert.deepEqual(
              summary(predictFromKernel(packet, machine, wanted)),
              summary(predictFromRoutes(packet, machine.world, wanted)),
              `${wanted.mode}: ${JSON.stringify(packet)}`,
            );
          }
        }
      },
    ),
    { numRuns: Number(process.env['EXPLAIN_RUNS'] ?? 200), includeErrorInReport: true },
  );
});

/** The same with IPv6 addresses, wherever in it there are IPv4 ones. */
function inFamily<T>(family: Family, value: T): T {
  if (family === 'IPv4') return value;
  if (typeof value === 'string') return toIPv6(value) as T;
  if (Array.isArray(value)) return value.map((one: unknown) => inFamily(family, one)) as T;
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, one]: [string, unknown]) => [key, inFamily(family, one)]),
  ) as T;
}

/** 10.244.1.10 = fd00:10:244:1::10, and networks of whole numbers likewise. */
function toIPv6(text: string): string {
  const [, a, b, c, d, prefix] = /^(\d+)\.(\d+)\.(\d+)\.(\d+)(?:\/(\d+))?$/.exec(text) ?? [];
  if (a === undefined) return text;
  if (a === '127') return prefix === undefined ? '::1' : '::1/128';
  const ip = canonicalIP(a === '0' ? '::' : `fd00:${a}:${b}:${c}::${d}`)!;
  return prefix === undefined ? ip : `${ip}/${{ 0: 0, 15: 48, 16: 48, 24: 64 }[prefix]}`;
}

/** The address of a Service, where the machine has it, is the source of what its own programs send to it. */
function sourceOf(world: World, destination: string, usual: string): string {
  if (world.serviceAddresses.has(destination)) return destination;
  return isLoopback(usual) ? world.nodeIP : usual;
}

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
  const { family } = world;
  const destination = inFamily(
    family,
    {
      cluster: `10.96.0.${number + 10}`,
      external: `192.0.2.${number + 1}`,
      balancer: `203.0.113.${number + 1}`,
      node: '172.31.0.11',
      second: '172.31.1.11',
      loopback: kind === 'localhost' || kind === 'node' ? '127.0.0.1' : '172.31.0.11',
      nobody: '10.96.5.5',
    }[to],
  );
  const ofNode = to === 'node' || to === 'second' || to === 'loopback';
  // From 127.0.0.1 one reaches only addresses of this machine, and the other way round.
  const source = isLoopback(destination)
    ? destination
    : kind === 'localhost' || kind === 'node'
      ? sourceOf(world, destination, inFamily(family, address))
      : inFamily(family, address);
  return {
    family,
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
