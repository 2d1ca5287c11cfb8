/** Plays the public scenarios with the program as it is built for users, in the lab. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { sweepNamespaces } from '../../src/lab/net/namespaces.ts';
import type { IptablesVariant } from '../../src/lab/scenario/iptablesVariant.ts';
import { readScenario } from '../../src/lab/scenario/parse.ts';
import { resultLines, stepLines } from '../../src/lab/scenario/report.ts';
import { loadRules, loadTruth } from '../../src/lab/scenario/runCommand.ts';
import { playScenario, type ScenarioResult } from '../../src/lab/scenario/runner.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
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
  return [process.execPath, join(outdir, 'main.js'), 'run', '--config', '{config}'];
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

/** One test a scenario: it must agree with the recorded truth, and with the recorded rules where there are some. */
export function scenarioTests(mode: string, iptables: IptablesVariant | undefined): void {
  sweepNamespaces();
  const proxyCommand = buildProgram();
  const timeFactor = Number(process.env['TIME_FACTOR'] ?? '1');
  for (const name of scenarioNames()) {
    const scenario = readScenario(join(dataDirectory, `${name}.yaml`));
    if (scenario.modes !== undefined && !scenario.modes.includes(mode)) continue;
    test(`${name} (${mode}${iptables === undefined ? '' : `, ${iptables}`})`, async () => {
      const truth = loadTruth(join(dataDirectory, 'truth'), name, mode);
      assert.ok(truth !== undefined, 'there is no recorded truth');
      const rules = loadRules(join(dataDirectory, 'rules'), scenario, mode);
      const options = { mode, proxyCommand, iptables, api: 'full' as const, timeFactor, truth, rules };
      const result = await playScenario(scenario, options);
      assert.ok(result.agreed, `\n${report(result)}`);
      assert.ok(
        result.steps.every((step) => step.verdict !== 'unchecked'),
        'a probe has no recorded truth',
      );
    });
  }
}
