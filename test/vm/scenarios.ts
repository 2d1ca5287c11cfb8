/** Plays scenarios in guests, two at once (each has one CPU), one test a scenario. */
import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { after, test } from 'node:test';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { readScenario } from '../../src/lab/scenario/parse.ts';
import { resultLines, stepLines } from '../../src/lab/scenario/report.ts';
import type { ScenarioResult } from '../../src/lab/scenario/runner.ts';
import { runInVm } from '../../src/lab/vm/vm.ts';
import { buildProgram } from '../scenarios/support.ts';

/** Starting a program takes ten times as long in the guest, talking over TCP twenty times. */
const timeFactor = 5;
/** Seconds for all scenarios together; they take 500 where ten processes wait for two CPUs. */
const timeLimit = 1400;
const guests = 2;

/**
 * Plays the files after its own arguments in turn; a line on standard output tells when each is done. One that differs is
 * played once more: a guest that gets no CPU for a second makes any probe late, and a real difference is there again.
 */
const play = `
results=$1
mode=$2
program=$3
shift 3
for file; do
  name=$(basename "$file" .yaml)
  for try in 1 2; do
    node "$program" lab run --json --mode "$mode" --time-factor ${timeFactor} "$file" \\
      >"$results/$name.json" 2>"$results/$name.log" && break
  done
  echo "done $name"
done
`;

/** Scenarios that take longest go first, and alternate between the guests. */
const long = [
  'load-balancer',
  'restart',
  'many-services',
  'readiness',
  'api-outage',
  'no-endpoints',
  'external-policy-local',
];

function rank(file: string): number {
  const place = long.indexOf(basename(file, '.yaml'));
  return place < 0 ? long.length : place;
}

/** What happened to one scenario: nothing if it agrees in everything. */
function complaint(results: string, name: string): string {
  const log = readFileSync(join(results, `${name}.log`), 'utf8');
  const text = readFileSync(join(results, `${name}.json`), 'utf8');
  if (text === '') return `no result\n${log}`;
  const [result] = JSON.parse(text) as ScenarioResult[];
  if (result === undefined) return `it was not played\n${log}`;
  const unchecked = result.steps.filter((step) => step.verdict === 'unchecked').map((step) => step.id);
  if (unchecked.length > 0) return `probes with neither truth nor expectation: ${unchecked.join(', ')}`;
  if (result.agreed) return '';
  return [
    ...result.steps.filter((step) => step.verdict === 'differs').flatMap(stepLines),
    ...resultLines(result),
  ].join('\n');
}

/** One test a file; all guests start when the first test does. `limit`: seconds for all together. */
export function guestScenarioTests(mode: string, files: readonly string[], limit = timeLimit): void {
  const program = buildProgram()[1] ?? '';
  const results = makeOwnedDirectory('vm-scenarios');
  after(() => rmSync(results, { recursive: true, force: true }));

  const own = files.filter((file) => readScenario(file).modes?.includes(mode) ?? true);
  const waiting = new Map<string, { resolve: () => void; reject: (error: Error) => void }>();
  const done = new Map(
    own.map((file) => {
      const name = basename(file, '.yaml');
      return [name, new Promise<void>((resolve, reject) => waiting.set(name, { resolve, reject }))];
    }),
  );
  // A guest that dies before its test waits for it is told to that test.
  for (const promise of done.values()) promise.catch(() => undefined);

  const run = async (share: readonly string[]): Promise<void> => {
    let rest = '';
    const { code, said } = await runInVm(['bash', '-c', play, 'play', results, mode, program, ...share], {
      timeout: limit,
      writable: [results],
      onOutput: (text) => {
        const lines = (rest + text).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) waiting.get(/^done (\S+)/.exec(line)?.[1] ?? '')?.resolve();
      },
    });
    for (const file of share) {
      waiting.get(basename(file, '.yaml'))?.reject(new Error(`the guest ended with ${code}\n${said}`));
    }
  };
  const ordered = [...own].sort((a, b) => rank(a) - rank(b));
  for (let guest = 0; guest < guests; guest++) {
    const share = ordered.filter((_, i) => i % guests === guest);
    if (share.length > 0) {
      run(share).catch((error: unknown) => {
        for (const { reject } of waiting.values()) reject(new Error('no guest', { cause: error }));
      });
    }
  }

  for (const file of ordered) {
    const name = basename(file, '.yaml');
    test(`${name} (${mode}, in a guest)`, async () => {
      await done.get(name);
      const text = complaint(results, name);
      assert.ok(text === '', `\n${text}`);
    });
  }
}
