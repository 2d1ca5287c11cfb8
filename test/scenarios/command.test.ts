/** `pointsman lab run` as a command: its exit codes, its words, its JSON; with another proxy, and with the plain API server. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import type { ScenarioResult } from '../../src/lab/scenario/runner.ts';
import { buildProgram, dataDirectory } from './support.ts';

const [node = '', program = ''] = buildProgram();
const directory = makeOwnedDirectory('test');
after(() => rmSync(directory, { recursive: true, force: true }));

function lab(...argv: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(node, [program, 'lab', ...argv], { encoding: 'utf8' });
}

const multiPort = join(dataDirectory, 'multi-port.yaml');

test('a scenario that agrees: a line a probe, exit code 0', () => {
  const { status, stdout, stderr } = lab('run', multiPort);
  assert.equal(status, 0, stdout + stderr);
  assert.match(stdout, /^ {2}ok +named-per-slice +ok 40 \| a1:8080 \d+, b1:9090 \d+/m);
  assert.match(stdout, /^ {2}ok +rules as recorded$/m);
  assert.match(stdout, /^1 of 1 scenarios agree$/m);
});

test('JSON, the plain API server, and a scenario judged by its expectations alone', () => {
  const { status, stdout, stderr } = lab(
    'run',
    '--json',
    '--api',
    'plain',
    '--truth',
    directory,
    '--rules',
    directory,
    multiPort,
  );
  assert.equal(status, 0, stdout + stderr);
  const [result] = JSON.parse(stdout) as ScenarioResult[];
  assert.deepEqual(
    result?.steps.map((step) => [step.id, step.verdict]),
    ['http', 'metrics', 'dns-tcp', 'dns-udp', 'named-per-slice'].map((id) => [id, 'agrees']),
  );
});

test('an expectation that does not hold: what was wanted and what was seen, exit code 1', () => {
  const file = join(directory, 'wrong.yaml');
  writeFileSync(
    file,
    `name: wrong
pods:
  - {name: a, node: node-1, ip: 10.244.1.10, ports: [tcp/80]}
steps:
  - probe: {id: direct, from: node/node-2, to: '10.244.1.10:80', expect: {backends: [b]}}
`,
  );
  const { status, stdout } = lab('run', file);
  assert.equal(status, 1, stdout);
  assert.match(
    stdout,
    /DIFFERS direct +ok 1 \| a:80 1 \| seen as node-ip\/node-2\n +backends: wanted \["b"\], got \["a:80"\]/,
  );
});

test('another proxy, one that ends at once, is said to have ended, with its last words', () => {
  const { status, stdout } = lab(
    'run',
    '--proxy',
    `sh -c 'echo no rules from me on {node}; exit 3'`,
    multiPort,
  );
  assert.equal(status, 1, stdout);
  assert.match(stdout, /the proxy of node-1 ended; its last words:\n +no rules from me on node-1/);
});

test('what cannot be done at all: exit code 2', () => {
  const absent = lab('run', join(directory, 'absent.yaml'));
  assert.equal(absent.status, 2);
  assert.match(absent.stderr, /absent\.yaml/);
  assert.equal(lab('run').status, 2);
  assert.equal(lab('nonsense').status, 2);
  assert.equal(lab('--help').status, 0);
});
