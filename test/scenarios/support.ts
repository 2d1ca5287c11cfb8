/** Plays the public scenarios with the program as it is built for users, in the lab. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { sweepNamespaces } from '../../src/lab/net/namespaces.ts';
import type { IptablesVariant } from '../../src/lab/scenario/iptablesVariant.ts';
import { parseScenario, readScenario } from '../../src/lab/scenario/parse.ts';
import { resultLines, stepLines } from '../../src/lab/scenario/report.ts';
import { loadRules, loadTruth } from '../../src/lab/scenario/runCommand.ts';
import { playScenario, type ScenarioResult } from '../../src/lab/scenario/runner.ts';
import type { Scenario, Truth } from '../../src/lab/scenario/types.ts';
import { policyScenario } from './policyTable.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
export const ownDirectory = fileURLToPath(new URL('own', import.meta.url));
export const dataDirectory = fileURLToPath(new URL('data', import.meta.url));

/** Builds the program into a directory of this test's own; removed at the end. Returns the command line of `run`. */
export function buildProgram(): string[] {
  // Inside node_modules' parent, so that the bundle finds its packages.
  const outdir = join(root, 'node_modules', '.cache', `pointsman-scenarios-${process.pid}`);
  mkdirSync(join(root, 'node_modules', '.cache'), { recursive: true });
  execFileSync(process.execPath, [join(root, 'scripts', 'build.mjs')], {
    cwd: root,
    env: { ...process.env, OUTDIR: outdir },
  });
  after(() => rmSync(outdir, { recursive: true, force: true }));
  return [
    process.execPath,
    join(outdir, 'main.js'),
    'run',
    '--config',
    '{config}',
    '--socket-path',
    '{socket}',
  ];
}

export function scenarioNames(): string[] {
  return readdirSync(dataDirectory)
    .filter((file) => file.endsWith('.yaml'))
    .map((file) => file.replace(/\.yaml$/, ''))
    .sort();
}

/** What the test runner shows of a run that does not agree. */
function report(result: ScenarioResult): string {
  return [
    ...result.steps.filter((step) => step.verdict === 'differs').flatMap(stepLines),
    ...resultLines(result),
  ].join('\n');
}

/**
 * Plays one scenario and expects it to agree in everything. One that does not is played once more, and the test says so:
 * a machine that is busy elsewhere makes any probe late, and a real difference is there again, with more patience, too.
 */
export async function expectAgreement(
  scenario: Scenario,
  mode: string,
  iptables: IptablesVariant | undefined,
  proxyCommand: readonly string[],
  truth?: Truth,
  rules?: string,
): Promise<void> {
  const timeFactor = Number(process.env['TIME_FACTOR'] ?? '1');
  const options = { mode, proxyCommand, iptables, api: 'auto' as const, timeFactor, truth, rules };
  assert.deepEqual(scenario.remarks, []);
  let result = await playScenario(scenario, options);
  if (!result.agreed) {
    process.stdout.write(`${scenario.name} (${mode}) is played once more:\n${report(result)}\n`);
    result = await playScenario(scenario, { ...options, timeFactor: 4 * timeFactor });
  }
  assert.ok(result.agreed, `\n${report(result)}`);
  const unchecked = result.steps.filter((step) => step.verdict === 'unchecked').map((step) => step.id);
  assert.deepEqual(unchecked, [], 'probes with neither truth nor expectation');
}

/** One test a scenario: it must agree with the recorded truth, and with the recorded rules where there are some. */
export function scenarioTests(mode: string, iptables: IptablesVariant | undefined): void {
  sweepNamespaces();
  const proxyCommand = buildProgram();
  for (const name of scenarioNames()) {
    const file = join(dataDirectory, `${name}.yaml`);
    const scenario = readScenario(file);
    if (scenario.modes !== undefined && !scenario.modes.includes(mode)) continue;
    test(`${name} (${mode}${iptables === undefined ? '' : `, ${iptables}`})`, async () => {
      const truth = loadTruth(join(dataDirectory, 'truth'), name, mode);
      assert.ok(truth !== undefined, 'there is no recorded truth');
      const rules = loadRules(join(dataDirectory, 'rules'), scenario, mode);
      await expectAgreement(scenario, mode, iptables, proxyCommand, truth, rules);
    });
  }
}

/**
 * One test for each scenario of our own, and for each family and protocol of the table of policies; two at once, for
 * most of their time is spent waiting for time-outs.
 */
export function ownScenarioTests(mode: string, iptables?: IptablesVariant): void {
  sweepNamespaces();
  const proxyCommand = buildProgram();
  const scenarios = [
    ...([4, 6] as const).flatMap((family) =>
      (['tcp', 'udp'] as const).map((proto) => parseScenario(policyScenario(family, proto))),
    ),
    ...readdirSync(ownDirectory)
      .sort()
      .map((file) => readScenario(join(ownDirectory, file))),
  ];
  describe(`own scenarios (${mode})`, { concurrency: 2 }, () => {
    for (const scenario of scenarios) {
      if (scenario.modes !== undefined && !scenario.modes.includes(mode)) continue;
      test(scenario.name, () => expectAgreement(scenario, mode, iptables, proxyCommand));
    }
  });
}
