/** At the time of each probe of a scenario, the rules that our modes have in the kernel explain what it sees. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { iptablesChains } from '../../src/explain/iptables/evaluate.ts';
import { nftChains } from '../../src/explain/nft/evaluate.ts';
import { parseRuleset } from '../../src/explain/nft/fromJson.ts';
import type { RuleMode } from '../../src/explain/routes.ts';
import { walk } from '../../src/explain/walk.ts';
import { clientAddresses4, clientAddresses6 } from '../../src/lab/net/layout.ts';
import { sweepNamespaces } from '../../src/lab/net/namespaces.ts';
import type { ScenarioCluster } from '../../src/lab/scenario/cluster.ts';
import { readScenario } from '../../src/lab/scenario/parse.ts';
import { loadTruth } from '../../src/lab/scenario/runCommand.ts';
import { playScenario } from '../../src/lab/scenario/runner.ts';
import type { ProbeRecord, ProbeSpec, Scenario, ScenarioRecord } from '../../src/lab/scenario/types.ts';
import { parseSave } from '../../src/linux/iptables/save.ts';
import { buildProgram, dataDirectory, ownDirectory } from '../scenarios/support.ts';
import { isWithin, nodeWorld, predicted, seenIn, union, type Machine, type Seen } from './twoNodes.ts';

/** Public ones and our own; EXPLAIN_SCENARIOS="NAME …" names others, `all` takes every one that sends packets. */
const asked = (process.env['EXPLAIN_SCENARIOS'] ?? '').split(' ').filter((name) => name !== '');
const usual: readonly string[] = [
  'clusterip-tcp',
  'clusterip-udp',
  'dual-stack',
  'external-policy-local',
  'load-balancer',
  'multi-port',
  'multi-slice',
  'no-endpoints',
  'nodeport',
  'nodeport-addresses',
  'readiness',
  'session-affinity',
  'dual-stack-halves',
  'many-ports',
  'node-addresses',
  'slices-overlap',
];
const files = [dataDirectory, ownDirectory].flatMap((directory) =>
  readdirSync(directory)
    .filter((file) => file.endsWith('.yaml'))
    .map((file) => join(directory, file)),
);

function isChosen(name: string): boolean {
  return asked.includes('all') || (asked.length === 0 ? usual : asked).includes(name);
}

/** Clients that `-m recent` remembers in a node, by list. */
function recentOn({ network }: ScenarioCluster, node: string): Map<string, Set<string>> {
  const { stdout } = network.namespaces.run(node, ['grep', '-rs', '^src=', '/proc/net/xt_recent']);
  const lists = new Map<string, Set<string>>();
  for (const [, list = '', client = ''] of stdout.matchAll(/\/([^/\n]+):src=(\S+)/g)) {
    const clients = lists.get(list) ?? new Set();
    lists.set(list, clients.add(client));
  }
  return lists;
}

/** Reads what both nodes have in the kernel now. */
function machinesNow(cluster: ScenarioCluster, mode: RuleMode, isV6: boolean): Machine[] {
  const command =
    mode === 'nftables' ? ['nft', '-j', 'list', 'ruleset'] : [isV6 ? 'ip6tables-save' : 'iptables-save'];
  return [1, 2].map((n) => {
    const name = `node-${n}`;
    const { status, stdout, stderr } = cluster.network.namespaces.run(name, command, { env: cluster.env });
    assert.equal(status, 0, stderr);
    const chains =
      mode === 'nftables'
        ? nftChains(parseRuleset(stdout), isV6 ? 'IPv6' : 'IPv4')
        : iptablesChains(parseSave(stdout));
    const recent = recentOn(cluster, name);
    return {
      name,
      world: (family) => nodeWorld(n, family, recent),
      predict: (packet, world) => walk(packet, chains, world),
    };
  });
}

function sourcesOf({ src, sources, to }: ProbeSpec): readonly (string | undefined)[] {
  if (src !== undefined || sources === undefined) return [src];
  return typeof sources === 'number'
    ? (to.startsWith('[') ? clientAddresses6 : clientAddresses4).slice(0, sources)
    : sources;
}

function isProbe(record: ScenarioRecord | undefined): record is ProbeRecord {
  return record?.kind === 'probe';
}

sweepNamespaces();
const proxyCommand = buildProgram();
const scenarios: { readonly scenario: Scenario; readonly mode: RuleMode }[] = [];

for (const file of files) {
  const scenario = readScenario(file);
  if (!isChosen(scenario.name)) continue;
  const hasProbes = scenario.steps.some(({ actions }) => actions.some(({ kind }) => kind === 'probe'));
  if (!hasProbes) continue;
  for (const mode of ['iptables', 'nftables'] as const) {
    if (scenario.modes !== undefined && !scenario.modes.includes(mode)) continue;
    scenarios.push({ scenario, mode });
  }
}

// One at a time: rules are read between probes, and Pods and clients of this process cannot answer meanwhile.
describe('the rules in the kernel explain what each probe sees', () => {
  for (const { scenario, mode } of scenarios) test(`${scenario.name} (${mode})`, () => play(scenario, mode));
});

async function play(scenario: Scenario, mode: RuleMode): Promise<void> {
  const truth = loadTruth(join(dataDirectory, 'truth'), scenario.name, mode);
  // Some Pods come while it is played.
  const pods = [
    ...scenario.pods,
    ...scenario.steps.flatMap(({ actions }) =>
      actions.flatMap((action) => (action.kind === 'listen' ? [action.pod] : [])),
    ),
  ];
  const predictions = new Map<string, Seen>();
  const specs = new Map<string, ProbeSpec>();
  const result = await playScenario(scenario, {
    mode,
    proxyCommand,
    iptables: mode === 'iptables' ? 'nft' : undefined,
    api: 'auto',
    timeFactor: Number(process.env['TIME_FACTOR'] ?? '1'),
    truth,
    rules: undefined,
    beforeProbe: (spec, cluster) => {
      const machines = machinesNow(cluster, mode, spec.to.startsWith('['));
      const all = sourcesOf(spec).map((source) => predicted(pods, machines, spec, source));
      const isKnown = all.every(({ backends }) => backends.length === 1);
      // Where clients were to be kept, they have to be known; where affinity has run out, they are not.
      if (spec.sameAs !== undefined && spec.expect?.['kept'] !== 'not all') assert.ok(isKnown, spec.id);
      specs.set(spec.id, { ...spec, sameAs: isKnown ? spec.sameAs : undefined });
      predictions.set(spec.id, union(all));
    },
  });
  assert.deepEqual(result.errors, []);
  let compared = 0;
  for (const { id, record } of result.steps) {
    if (!isProbe(record)) continue;
    const spec = specs.get(id)!;
    const expected = predictions.get(id)!;
    const recorded: ScenarioRecord | undefined = truth?.probes.find((each) => each.id === id);
    const found = [seenIn(record), ...(isProbe(recorded) ? [seenIn(recorded)] : [])];
    // Whom a client that is new to an affinity meets is chance; later it is known. Of many, chance leaves some out.
    if ((spec.sticky && spec.sameAs === undefined) || expected.backends.length > 20) {
      for (const seen of found) {
        assert.ok(isWithin(seen, expected), `${id}: ${JSON.stringify({ seen, expected })}`);
      }
    } else {
      assert.deepEqual({ id, ...found[0] }, { id, ...expected }, 'seen now, predicted');
      if (!spec.sticky && found[1] !== undefined)
        assert.deepEqual({ id, ...found[1] }, { id, ...expected }, 'recorded, predicted');
    }
    compared++;
  }
  assert.ok(compared > 0);
}
