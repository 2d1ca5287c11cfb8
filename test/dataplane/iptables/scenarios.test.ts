/**
 * The scenarios with a recorded rule set: their objects as they are at the end, through the service model and iptables
 * mode into a kernel, which then holds what the reference proxy left there. The scenario files are found in
 * POINTSMAN_SCENARIOS, or in `test/scenarios/data`.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import type { Family } from '../../../src/api/objects.ts';
import { decodeJsonObject } from '../../../src/cluster/decode/json.ts';
import { RouteTracker } from '../../../src/services/routeTracker.ts';
import { World, backends, normalise, type Rules } from './harness.ts';

const directory =
  process.env['POINTSMAN_SCENARIOS'] ?? fileURLToPath(new URL('../../scenarios/data', import.meta.url));
const rulesDirectory = join(directory, 'rules');

interface Thing {
  kind: string;
  metadata: { name: string; namespace?: string };
  [field: string]: unknown;
}

interface Scenario {
  objects: Thing[];
  steps: { apply?: Thing[]; delete?: string[]; patch?: { kind: string; name: string; patch: object } }[];
}

function mergePatch(target: unknown, patch: unknown): unknown {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
  const result: Record<string, unknown> =
    typeof target === 'object' && target !== null && !Array.isArray(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = mergePatch(result[key], value);
  }
  return result;
}

function objectsAtTheEnd(scenario: Scenario): Thing[] {
  const objects = new Map<string, Thing>();
  const put = (object: Thing): void => {
    objects.set(`${object.kind}/${object.metadata.name}`, object);
  };
  put({
    kind: 'Service',
    metadata: { name: 'kubernetes' },
    spec: { clusterIP: '10.96.0.1', clusterIPs: ['10.96.0.1'], ports: [{ name: 'https', port: 443 }] },
  });
  for (const object of scenario.objects) put(object);
  for (const step of scenario.steps) {
    for (const object of step.apply ?? []) put(object);
    for (const name of step.delete ?? []) objects.delete(name);
    if (step.patch !== undefined) {
      const key = `${step.patch.kind}/${step.patch.name}`;
      objects.set(key, mergePatch(objects.get(key), step.patch.patch) as Thing);
    }
  }
  return [...objects.values()];
}

/** `## node-1: iptables-save` and what follows, by node and family. */
function dumps(text: string): { node: string; family: Family; save: string }[] {
  return text
    .split(/^## /m)
    .slice(1)
    .map((part) => {
      const [head = '', ...rest] = part.split('\n');
      const [node = '', program = ''] = head.split(': ');
      return { node, family: program.startsWith('ip6') ? 'IPv6' : 'IPv4', save: rest.join('\n') };
    });
}

/** Comments aside; the recorded dispatch chains have no comment to tell the tail by, so they are sorted whole. */
function withoutComments(rules: Rules): Rules {
  return Object.fromEntries(
    Object.entries(rules).map(([chain, list]) => {
      const plain = list.map((rule) =>
        rule
          .split('\u0001')
          .filter((option) => !option.startsWith('--comment'))
          .join(' '),
      );
      if (chain !== 'nat KUBE-SERVICES')
        return [chain, /KUBE-(\w+-)?(SERVICES|NODEPORTS|FIREWALL)$/.test(chain) ? plain.sort() : plain];
      assert.match(plain.at(-1) ?? '', /-j KUBE-NODEPORTS/, 'the node port tail is last');
      return [chain, [...plain.slice(0, -1).sort(), plain.at(-1) as string]];
    }),
  );
}

const names = existsSync(rulesDirectory)
  ? readdirSync(rulesDirectory).flatMap((file) => /^(.*)\.iptables\.rules\.txt$/.exec(file)?.[1] ?? [])
  : [];

for (const name of names) {
  for (const backend of backends) {
    test(`${backend}: ${name} leaves the recorded rules`, async () => {
      const scenario = parse(readFileSync(join(directory, `${name}.yaml`), 'utf8')) as Scenario;
      for (const { node, family, save } of dumps(
        readFileSync(join(rulesDirectory, `${name}.iptables.rules.txt`), 'utf8'),
      )) {
        const tracker = new RouteTracker({
          family,
          nodeName: node,
          zone: node === 'node-1' ? 'zone-a' : 'zone-b',
        });
        for (const object of objectsAtTheEnd(scenario)) {
          object.metadata.namespace = 'default';
          if (object.kind !== 'Service' && object.kind !== 'EndpointSlice') continue;
          const decoded = decodeJsonObject(object.kind, object, (problem) => assert.fail(problem.message));
          if (decoded?.kind === 'Service') tracker.upsertService(decoded);
          if (decoded?.kind === 'EndpointSlice') tracker.upsertSlice(decoded);
        }
        const world = new World(backend, family);
        try {
          const number = node === 'node-1' ? '11' : '12';
          const dataplane = world.dataplane({
            nodeIP: family === 'IPv4' ? `172.31.0.${number}` : `fd00:31::${number}`,
            localDetector: { kind: 'cidr', cidr: family === 'IPv4' ? '10.244.0.0/16' : 'fd00:10:244::/48' },
          });
          await dataplane.start();
          await dataplane.sync({
            table: tracker.table,
            changes: tracker.take(),
            serviceCIDRs: [],
            full: true,
          });
          await dataplane.stop();
          const mine = withoutComments(world.rules());
          const recorded = withoutComments(normalise(save));
          // Built-in chains show up as far as the tool and the kernel list them.
          const listed = (rules: Rules): string[] =>
            Object.keys(rules).filter((chain) => chain.includes('KUBE-'));
          assert.deepEqual(listed(mine), listed(recorded), `${node} ${family}`);
          for (const [chain, list] of Object.entries(recorded))
            assert.deepEqual(mine[chain], list, `${node} ${family} ${chain}`);
        } finally {
          world.close();
        }
      }
    });
  }
}
