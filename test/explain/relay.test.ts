/** Userspace mode: behind the rules there is a process, and behind that a second connection. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Packet } from '../../src/explain/packet.ts';
import { decide, type Wanted } from '../../src/explain/routes.ts';
import { wantedMachine } from '../../src/explain/sources/rules.ts';
import { followRelays, listenerOf } from '../../src/explain/userspace/relay.ts';
import { walk } from '../../src/explain/walk.ts';
import { World } from '../../src/explain/world.ts';
import { RouteTracker } from '../../src/services/routeTracker.ts';
import { objectsOf, type Spec } from './generated.ts';

const spec: Spec = {
  protocol: 'TCP',
  nodePort: false,
  external: false,
  balancer: false,
  ranges: [],
  affinity: false,
  internalLocal: false,
  externalLocal: false,
  endpoints: [
    { address: '10.244.1.10', state: 'ready' },
    { address: '10.244.2.10', state: 'ready' },
  ],
};

const packet: Packet = {
  family: 'IPv4',
  protocol: 'TCP',
  origin: { kind: 'podHere', address: '10.244.1.50', name: 'a Pod', interface: 'cni0' },
  sourcePort: undefined,
  destination: '10.96.0.10',
  destinationPort: 80,
};

function follow(listening?: ReadonlySet<string>) {
  const tracker = new RouteTracker({ family: 'IPv4', nodeName: 'node-1' });
  const [service, slice] = objectsOf(spec, 0);
  tracker.upsertService(service);
  tracker.upsertSlice(slice);
  tracker.take();
  const world = new World({
    nodeName: 'node-1',
    family: 'IPv4',
    nodeIP: '172.31.0.11',
    localAddresses: ['127.0.0.1', '172.31.0.11'],
    podNetworksHere: ['10.244.1.0/24'],
    ...(listening === undefined ? {} : { listening }),
  });
  const wanted: Wanted = {
    mode: 'userspace',
    table: tracker.table,
    options: {
      family: 'IPv4',
      masqueradeBit: 14,
      masqueradeAll: false,
      localDetector: undefined,
      nodeIP: '172.31.0.11',
      nodePortAddresses: ['0.0.0.0/0'],
      syncPeriod: 30_000,
    },
    localhostNodePorts: false,
    serviceCIDRs: [],
  };
  const { chains } = wantedMachine(wanted, world);
  const decision = decide(packet, world, wanted);
  return followRelays(walk(packet, chains, world), packet, chains, world, decision).prediction
    .possibilities[0]!.outcomes;
}

test('the way leads over the listener to each endpoint in turn, with the node as its source', () => {
  const outcomes = follow();
  assert.deepEqual(
    outcomes.map(({ kind, destination, probability, source, masqueraded }) => ({
      kind,
      destination,
      probability,
      source,
      masqueraded,
    })),
    ['10.244.1.10:8080', '10.244.2.10:8080'].map((destination) => ({
      kind: 'endpoint',
      destination,
      probability: 0.5,
      source: '172.31.0.11',
      masqueraded: true,
    })),
  );
  assert.equal(listenerOf(outcomes[0]!), '172.31.0.11:40000');
  assert.deepEqual(
    outcomes[0]!.steps.filter(({ effect }) => effect.kind === 'enter').map(({ hook }) => hook),
    ['prerouting', 'input', 'output', 'postrouting'],
  );
});

test('rules whose process is gone lead to a refusal; one that listens takes the connection', () => {
  assert.deepEqual(
    follow(new Set()).map(({ kind }) => kind),
    ['reject'],
  );
  assert.deepEqual(
    follow(new Set(['TCP 40000'])).map(({ kind }) => kind),
    ['endpoint', 'endpoint'],
  );
});
