/** The rules that kube-proxy had at the end of a scenario explain what the last probes saw. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { iptablesChains } from '../../src/explain/iptables/evaluate.ts';
import { walk } from '../../src/explain/walk.ts';
import { parseScenario } from '../../src/lab/scenario/parse.ts';
import type { ProbeRecord, Truth } from '../../src/lab/scenario/types.ts';
import { parseSave } from '../../src/linux/iptables/save.ts';
import { nodeWorld, predicted, seenIn, union, type Machine } from './twoNodes.ts';

const data = join(import.meta.dirname, '../scenarios/data');
const names = readdirSync(join(data, 'rules')).map((file) => file.split('.')[0]!);

function machines(rules: string): Machine[] {
  const sections = new Map<string, string>();
  for (const part of rules.split(/^## /m).slice(1)) {
    const [title = ''] = part.split('\n', 1);
    sections.set(title, part);
  }
  return [1, 2].map((n) => {
    const name = `node-${n}`;
    const chains = {
      IPv4: iptablesChains(parseSave(sections.get(`${name}: iptables-save`) ?? '')),
      IPv6: iptablesChains(parseSave(sections.get(`${name}: ip6tables-save`) ?? '')),
    };
    return {
      name,
      world: (family) => nodeWorld(n, family),
      predict: (packet, world) => walk(packet, chains[packet.family], world),
    };
  });
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
        const seen = union(sources.map((source) => predicted(scenario.pods, all, spec, source)));
        assert.deepEqual({ id: spec.id, ...seen }, { id: spec.id, ...seenIn(record) });
        compared++;
      }
    }
    assert.ok(compared > 0);
  });
}
