/** The rules that kube-proxy had at the end of a scenario explain what the last probes saw. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { iptablesChains } from '../../src/explain/iptables/evaluate.ts';
import type { Origin, Packet } from '../../src/explain/packet.ts';
import { walk, type BaseChain } from '../../src/explain/walk.ts';
import { World } from '../../src/explain/world.ts';
import { parseScenario } from '../../src/lab/scenario/parse.ts';
import type { ProbeRecord, ProbeSpec, Scenario, Truth } from '../../src/lab/scenario/types.ts';
import { parseSave } from '../../src/linux/iptables/save.ts';
import { canonicalIP, cidrContains, parseCIDR } from '../../src/services/ip.ts';

const data = join(import.meta.dirname, '../scenarios/data');
const names = readdirSync(join(data, 'rules')).map((file) => file.split('.')[0]!);

interface Machine {
  readonly name: string;
  readonly rules: Readonly<Record<'IPv4' | 'IPv6', readonly BaseChain[]>>;
  world(family: 'IPv4' | 'IPv6'): World;
}

/** What was seen: outcomes, backends, sources; each as a set. */
interface Seen {
  readonly outcomes: readonly string[];
  readonly backends: readonly string[];
  readonly sources: readonly string[];
}

function machines(rules: string): Machine[] {
  const sections = new Map<string, string>();
  for (const part of rules.split(/^## /m).slice(1)) {
    const [title = ''] = part.split('\n', 1);
    sections.set(title, part);
  }
  return [1, 2].map((n) => {
    const name = `node-${n}`;
    return {
      name,
      rules: {
        IPv4: iptablesChains(parseSave(sections.get(`${name}: iptables-save`) ?? '')),
        IPv6: iptablesChains(parseSave(sections.get(`${name}: ip6tables-save`) ?? '')),
      },
      world: (family) =>
        new World({
          nodeName: name,
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
          recent: new Map(),
        }),
    };
  });
}

/** What the client's routes say (see the scenarios' README). */
function nodeFor(address: string): number {
  const second = ['198.51.100.0/24', '2001:db8:2::/64'];
  if (second.some((text) => cidrContains(parseCIDR(text)!, address))) return 1;
  return /^(172\.31\.[01]\.12|fd00:31:(1:)?:?12|fd00:31::12|fd00:31:1::12)$/.test(address) ? 1 : 0;
}

function predicted(
  scenario: Scenario,
  all: readonly Machine[],
  probe: ProbeSpec,
  source: string | undefined,
): Seen {
  const outcomes = new Set<string>();
  const backends = new Set<string>();
  const sources = new Set<string>();
  const { address, port } = split(probe.to);
  const family = address.includes(':') ? 'IPv6' : 'IPv4';
  const pod = scenario.pods.find(({ name }) => probe.from === `pod/${name}`);
  const podAddress = (ip: string): string =>
    family === 'IPv4' ? ip : `fd00:10:244:${ip.split('.')[2]}::${ip.split('.')[3]}`;
  const nodeName = probe.from.startsWith('node/') ? probe.from.slice(5) : pod?.node;
  const first = nodeName === undefined ? nodeFor(address) : all.findIndex(({ name }) => name === nodeName);

  const isPod = (place: string): boolean =>
    scenario.pods.some(({ ip }) => podAddress(ip) === split(place).address);
  const visit = (index: number, packet: Packet, seenAs: string, hops: number): void => {
    const machine = all[index]!;
    const world = machine.world(family);
    const prediction = walk(packet, machine.rules[family], world);
    assert.equal(prediction.possibilities.length, 1, 'nothing in these rules is unknown');
    for (const { kind, destination, masqueraded } of prediction.possibilities[0]!.outcomes) {
      const from = masqueraded ? `node-ip/${machine.name}` : seenAs;
      if (kind === 'drop') outcomes.add('timeout');
      else if (kind === 'reject' || kind === 'unknown') outcomes.add('refused');
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
        } else if (kind === 'node') outcomes.add('refused');
        else outcomes.add('timeout');
      } else {
        const end = split(destination);
        const backend = scenario.pods.find((one) => podAddress(one.ip) === end.address);
        const listens =
          backend?.ports.some((text) => text === `${packet.protocol.toLowerCase()}/${end.port}`) === true;
        if (backend === undefined) outcomes.add('timeout');
        else if (!listens) outcomes.add('refused');
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
    interface: pod !== undefined ? 'vethX' : nodeName === undefined ? 'eth0' : undefined,
  };
  const protocol = probe.proto.toUpperCase() as 'TCP' | 'UDP';
  const packet: Packet = {
    family,
    protocol,
    origin,
    sourcePort: probe.sport,
    destination: dialled,
    destinationPort: port,
  };
  visit(first, packet, origin.kind === 'node' ? `node-ip/${nodeName}` : 'client-ip', 0);
  return { outcomes: [...outcomes].sort(), backends: [...backends].sort(), sources: [...sources].sort() };
}

function split(text: string): { address: string; port: number } {
  const colon = text.lastIndexOf(':');
  return { address: text.slice(0, colon).replace(/[[\]]/g, ''), port: Number(text.slice(colon + 1)) };
}

for (const name of names) {
  test(`${name}: kube-proxy's rules explain what the probes saw`, () => {
    const scenario = parseScenario(readFileSync(join(data, `${name}.yaml`), 'utf8'));
    const truth = JSON.parse(readFileSync(join(data, 'truth', `${name}.iptables.json`), 'utf8')) as Truth;
    const all = machines(readFileSync(join(data, 'rules', `${name}.iptables.rules.txt`), 'utf8'));
    const steps = scenario.steps.filter(({ modes }) => modes === undefined || modes.includes('iptables'));
    const last = steps.findLastIndex(({ actions }) =>
      actions.some(({ kind }) => ['apply', 'delete', 'patch', 'proxy', 'exec', 'listen'].includes(kind)),
    );
    let compared = 0;
    for (const { actions } of steps.slice(last + 1)) {
      for (const action of actions) {
        if (action.kind !== 'probe') continue;
        const { spec } = action;
        const record = truth.probes.find(({ id }) => id === spec.id) as ProbeRecord;
        const sources = Array.isArray(spec.sources) ? (spec.sources as string[]) : [spec.src];
        const seen = sources.map((source) => predicted(scenario, all, spec, source));
        const union = (of: (one: Seen) => readonly string[]): string[] =>
          [...new Set(seen.flatMap(of))].sort();
        assert.deepEqual(
          {
            id: spec.id,
            outcomes: union((one) => one.outcomes),
            backends: union((one) => one.backends),
            sources: union((one) => one.sources),
          },
          {
            id: spec.id,
            outcomes: Object.keys(record.outcomes).sort(),
            backends: Object.keys(record.backends).sort(),
            sources: Object.keys(record.sources).sort(),
          },
        );
        compared++;
      }
    }
    assert.ok(compared > 0);
  });
}
