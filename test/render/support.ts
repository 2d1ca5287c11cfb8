/** Inputs for rendering: the scenarios' objects as they are at the end, and command lines with their output. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { parseManifests } from '../../src/cluster/manifests.ts';
import { clusterOf, type ClusterObjects } from '../../src/render/cluster.ts';
import { parseArguments } from '../../src/render/arguments.ts';
import { wantedFrom } from '../../src/render/inputs.ts';
import { runRender } from '../../src/render/cli.ts';
import type { Wanted } from '../../src/render/wanted.ts';

export const scenarioDirectory = fileURLToPath(new URL('../scenarios/data', import.meta.url));

/** Without the one whose objects are generated. */
export const scenarioNames: readonly string[] = readdirSync(scenarioDirectory)
  .flatMap((file) => /^(.*)\.yaml$/.exec(file)?.[1] ?? [])
  .filter((name) => name !== 'many-services');

interface Thing {
  kind: string;
  metadata: { name: string; namespace?: string };
  [field: string]: unknown;
}

interface Scenario {
  objects?: Thing[];
  steps?: { apply?: Thing[]; delete?: string[]; patch?: { kind: string; name: string; patch: object } }[];
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

const versions: Readonly<Record<string, string>> = {
  Service: 'v1',
  EndpointSlice: 'discovery.k8s.io/v1',
  Node: 'v1',
};

/** node-1 as the lab has it. */
export const labNode = {
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name: 'node-1', labels: { 'topology.kubernetes.io/zone': 'zone-a' } },
  spec: { podCIDRs: ['10.244.1.0/24', 'fd00:10:244:1::/64'] },
  status: {
    addresses: [
      { type: 'InternalIP', address: '172.31.0.11' },
      { type: 'InternalIP', address: 'fd00:31::11' },
    ],
  },
};

/** A List of the objects a scenario ends with, and node-1. */
export function scenarioManifest(name: string): string {
  const scenario = parse(readFileSync(join(scenarioDirectory, `${name}.yaml`), 'utf8')) as Scenario;
  const objects = new Map<string, Thing>();
  for (const object of scenario.objects ?? []) objects.set(`${object.kind}/${object.metadata.name}`, object);
  for (const step of scenario.steps ?? []) {
    for (const object of step.apply ?? []) objects.set(`${object.kind}/${object.metadata.name}`, object);
    for (const key of step.delete ?? []) objects.delete(key);
    if (step.patch === undefined) continue;
    const key = `${step.patch.kind}/${step.patch.name}`;
    objects.set(key, mergePatch(objects.get(key), step.patch.patch) as Thing);
  }
  const items = [...objects.values()].flatMap((object) =>
    versions[object.kind] === undefined ? [] : { apiVersion: versions[object.kind], ...object },
  );
  return JSON.stringify({ apiVersion: 'v1', kind: 'List', items: [labNode, ...items] });
}

export const labFlags = ['--node', 'node-1', '--cluster-cidr', '10.244.0.0/16,fd00:10:244::/48'];

/** What the command line makes of manifests in text. */
export async function wantedOfText(text: string, ...argv: string[]): Promise<Wanted> {
  return (await inputsOfText(text, ...argv)).wanted;
}

export async function inputsOfText(
  text: string,
  ...argv: string[]
): Promise<{ readonly cluster: ClusterObjects; readonly wanted: Wanted }> {
  const given = await parseArguments(argv, { values: {}, switches: [] }).inputs();
  const cluster = clusterOf(parseManifests('test.yaml', text, { strict: true }));
  return { cluster, wanted: wantedFrom(cluster, given) };
}

/** The command with its output. */
export async function renderCommand(
  ...argv: string[]
): Promise<{ readonly code: number; readonly out: string; readonly err: string }> {
  let out = '';
  let err = '';
  const code = await runRender(argv, {
    out: (text) => (out += text),
    err: (text) => (err += text),
  });
  return { code, out, err };
}
