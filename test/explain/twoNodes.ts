/** What a probe of the lab's two nodes must see, if each node's rules mean what the engine says. */
import assert from 'node:assert/strict';
import type { Family } from '../../src/api/objects.ts';
import type { Step } from '../../src/explain/flow.ts';
import type { Prediction } from '../../src/explain/outcome.ts';
import type { Origin, Packet } from '../../src/explain/packet.ts';
import { World } from '../../src/explain/world.ts';
import type { ProbeRecord, ProbeSpec, ScenarioPod } from '../../src/lab/scenario/types.ts';
import { canonicalIP, cidrContains, isLoopback, parseCIDR } from '../../src/services/ip.ts';

export interface Machine {
  readonly name: string;
  world(family: Family): World;
  predict(packet: Packet, world: World): Prediction;
}

/** Outcomes, backends (`POD:PORT`) and sources as backends see them; each as a sorted set. */
export interface Seen {
  readonly outcomes: readonly string[];
  readonly backends: readonly string[];
  readonly sources: readonly string[];
}

interface Backend {
  /** As its answers carry it. */
  readonly name: string;
  readonly node: string;
  readonly listens: boolean;
}

/** What probes ask for, as far as it decides where packets go. */
export type Question = Pick<ProbeSpec, 'from' | 'to' | 'proto' | 'sport'>;

type Recent = ReadonlyMap<string, ReadonlySet<string>>;

/** The lab's node as its rules see it. @param n 1 or 2 */
export function nodeWorld(n: number, family: Family, recent: Recent = new Map<string, Set<string>>()): World {
  return new World({
    nodeName: `node-${n}`,
    family,
    nodeIP: family === 'IPv4' ? `172.31.0.1${n}` : `fd00:31::1${n}`,
    localAddresses:
      family === 'IPv4'
        ? ['127.0.0.1', `172.31.1.1${n}`, `10.244.${n}.1`]
        : ['::1', `fd00:31:1::1${n}`, `fd00:10:244:${n}::1`],
    podNetworksHere: [`10.244.${n}.0/24`, `fd00:10:244:${n}::/64`],
    podNetworks: ['10.244.0.0/16', 'fd00:10:244::/48'],
    outInterface: 'eth0',
    podInterface: 'vethX',
    recent,
  });
}

/** What the client's routes say (see the scenarios' README). */
function nodeFor(address: string): number {
  const second = ['198.51.100.0/24', '2001:db8:2::/64'];
  if (second.some((text) => cidrContains(parseCIDR(text)!, address))) return 1;
  return /^(172\.31\.[01]\.12|fd00:31:(1:)?:?12|fd00:31::12|fd00:31:1::12)$/.test(address) ? 1 : 0;
}

export function split(text: string): { address: string; port: number } {
  const colon = text.lastIndexOf(':');
  return { address: text.slice(0, colon).replace(/[[\]]/g, ''), port: Number(text.slice(colon + 1)) };
}

export function seenIn(record: ProbeRecord): Seen {
  const { outcomes, backends, sources } = record;
  return {
    outcomes: Object.keys(outcomes).sort(),
    backends: Object.keys(backends).sort(),
    sources: Object.keys(sources).sort(),
  };
}

export function union(all: readonly Seen[]): Seen {
  const merge = (of: (one: Seen) => readonly string[]): string[] => [...new Set(all.flatMap(of))].sort();
  return {
    outcomes: merge((one) => one.outcomes),
    backends: merge((one) => one.backends),
    sources: merge((one) => one.sources),
  };
}

/** Everything in `part` is in `whole`. */
export function isWithin(part: Seen, whole: Seen): boolean {
  return (['outcomes', 'backends', 'sources'] as const).every((field) =>
    part[field].every((one) => whole[field].includes(one)),
  );
}

/** Clients tell "port unreachable" and a reset from all other refusals. */
function refusalSeen(last: Step | undefined): string {
  if (last?.effect.kind !== 'reject') return 'refused';
  return /port-unreach|tcp[ -]reset/.test(last.effect.with) ? 'refused' : 'unreachable';
}

/** Follows a probe's first packet through the rules of one node, and of the next where it goes on to one. */
export function predicted(
  pods: readonly ScenarioPod[],
  all: readonly Machine[],
  probe: Question,
  source: string | undefined,
): Seen {
  const outcomes = new Set<string>();
  const backends = new Set<string>();
  const sources = new Set<string>();
  const { address, port } = split(probe.to);
  const family = address.includes(':') ? 'IPv6' : 'IPv4';
  const pod = pods.find(({ name }) => probe.from === `pod/${name}`);
  const podAddress = (ip: string): string =>
    family === 'IPv4' ? ip : `fd00:10:244:${ip.split('.')[2]}::${ip.split('.')[3]}`;
  const nodeName = probe.from.startsWith('node/') ? probe.from.slice(5) : pod?.node;
  const first = nodeName === undefined ? nodeFor(address) : all.findIndex(({ name }) => name === nodeName);

  const backendAt = ({ address: ip, port: number }: ReturnType<typeof split>): Backend | undefined => {
    for (const one of pods) {
      const host = one.hostNetwork ? all.find(({ name }) => name === one.node) : undefined;
      const inRange = one.ranges.some((range) => cidrContains(parseCIDR(range)!, ip));
      if (host === undefined ? !inRange && podAddress(one.ip) !== ip : !isAddressOf(host, ip)) continue;
      const listens = one.ports.includes(`${probe.proto}/${number}`);
      // Several programs of a node share its addresses.
      if (one.hostNetwork && !listens) continue;
      const name = inRange ? `${one.name}-${ip.split(/[.:]/).at(-1)}` : one.name;
      return { name, node: one.node, listens };
    }
    return undefined;
  };
  const isAddressOf = (machine: Machine, ip: string): boolean =>
    machine.world(family).isLocal(ip) && !isLoopback(ip);
  const isPod = (place: string): boolean => {
    const end = split(place);
    return backendAt(end) !== undefined && !all.some((one) => isAddressOf(one, end.address));
  };
  const programAt = ({ name }: Machine, number: number): string | undefined => {
    const found = pods.find(
      ({ hostNetwork, node, ports }) =>
        hostNetwork && node === name && ports.includes(`${probe.proto}/${number}`),
    );
    return found === undefined ? undefined : `${found.name}:${number}`;
  };
  const visit = (index: number, packet: Packet, seenAs: string, hops: number): void => {
    const machine = all[index]!;
    const world = machine.world(family);
    const prediction = machine.predict(packet, world);
    const questions = prediction.possibilities.flatMap(({ assumptions }) =>
      assumptions.map(({ question }) => question),
    );
    assert.deepEqual(questions, [], 'nothing in these rules is unknown');
    for (const { kind, destination, masqueraded, steps } of prediction.possibilities[0]!.outcomes) {
      const from = masqueraded ? `node-ip/${machine.name}` : seenAs;
      if (kind === 'drop') outcomes.add('timeout');
      else if (kind === 'reject' || kind === 'unknown') outcomes.add(refusalSeen(steps.at(-1)));
      else if (kind === 'node' || (kind === 'forward' && !isPod(destination))) {
        const other = all.findIndex((one) => one.world(family).isLocal(split(destination).address));
        if (kind === 'forward' && other >= 0 && hops < 3) {
          const origin: Origin = {
            kind: seenAs === 'client-ip' && pod !== undefined ? 'podElsewhere' : 'outside',
            address: masqueraded ? world.nodeIP : packet.origin.address,
            name: '',
            interface: 'eth0',
          };
          visit(other, { ...packet, origin }, from, hops + 1);
        } else if (kind === 'node') {
          const program = programAt(machine, split(destination).port);
          if (program === undefined) outcomes.add('refused');
          else {
            outcomes.add('ok');
            backends.add(program);
            sources.add(from);
          }
        } else outcomes.add('timeout');
      } else {
        const end = split(destination);
        const backend = backendAt(end);
        // An answer that does not come back through the node that translated the packet is nobody's answer.
        const isPassedBy =
          kind === 'endpoint' && !masqueraded && ![backend?.node, nodeName].includes(machine.name);
        if (backend === undefined || isPassedBy) outcomes.add('timeout');
        else if (!backend.listens) outcomes.add('refused');
        else {
          outcomes.add('ok');
          backends.add(`${backend.name}:${end.port}`);
          sources.add(from);
        }
      }
    }
  };

  const world = all[first]!.world(family);
  const own =
    pod === undefined
      ? nodeName === undefined
        ? family === 'IPv4'
          ? '172.31.0.100'
          : 'fd00:31::100'
        : world.nodeIP
      : podAddress(pod.ip);
  const dialled = canonicalIP(address)!;
  const isLocal = nodeName !== undefined && pod === undefined && world.isLocal(dialled);
  const origin: Origin = {
    kind: pod !== undefined ? 'podHere' : nodeName === undefined ? 'outside' : 'node',
    // A node that dials an address of its own uses it as source.
    address: source ?? (isLocal ? dialled : own),
    name: probe.from,
    interface:
      pod !== undefined ? `veth${pod.ip.split('.').at(-1)}` : nodeName === undefined ? 'eth0' : undefined,
  };
  const packet: Packet = {
    family,
    protocol: probe.proto.toUpperCase() as 'TCP' | 'UDP',
    origin,
    sourcePort: probe.sport,
    destination: dialled,
    destinationPort: port,
  };
  visit(first, packet, origin.kind === 'node' ? `node-ip/${nodeName}` : 'client-ip', 0);
  return { outcomes: [...outcomes].sort(), backends: [...backends].sort(), sources: [...sources].sort() };
}
