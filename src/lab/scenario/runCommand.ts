/** `pointsman lab run FILE…`: plays scenario files and compares them with their recorded truth. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Command, Option } from 'commander';
import { positiveInteger, positiveNumber } from '../arguments.ts';
import { sweepNamespaces } from '../net/namespaces.ts';
import type { IptablesVariant } from './iptablesVariant.ts';
import type { ApiKind } from './labApi.ts';
import { derivedTruth, modeDifferences } from './modeDifferences.ts';
import { readScenario } from './parse.ts';
import { ownProxyCommand, splitCommand } from './proxyProcess.ts';
import { resultLines, stepLines } from './report.ts';
import { playScenario, type ScenarioResult } from './runner.ts';
import type { Scenario, Truth } from './types.ts';

interface Flags {
  readonly mode: string;
  readonly truth?: string;
  readonly rules?: string;
  readonly json?: true;
  readonly timeFactor: number;
  readonly proxy?: string;
  readonly iptables?: IptablesVariant;
  readonly api: ApiKind | 'auto';
  readonly keep?: true;
  readonly quiet?: true;
  readonly jobs: number;
}

/** The truth recorded in this mode; else what follows from that of a mode like it. */
export function loadTruth(directory: string, scenario: string, mode: string): Truth | undefined {
  const file = join(directory, `${scenario}.${mode}.json`);
  if (existsSync(file)) return JSON.parse(readFileSync(file, 'utf8')) as Truth;
  const like = modeDifferences[mode]?.like;
  const truth = like === undefined ? undefined : loadTruth(directory, scenario, like);
  return truth === undefined ? undefined : derivedTruth(truth, mode);
}

export function loadRules(directory: string, scenario: Scenario, mode: string): string | undefined {
  const file = join(directory, `${scenario.name}.${mode}.rules.txt`);
  return scenario.dump && existsSync(file) ? readFileSync(file, 'utf8') : undefined;
}

async function keepUp(name: string, prefix: string): Promise<void> {
  process.stderr.write(`${name} stays up; its namespaces are ${prefix}*. Ctrl-C ends it.\n`);
  await new Promise(() => setInterval(() => undefined, 60_000));
}

async function runFile(
  file: string,
  flags: Flags,
  say: (line: string) => void,
): Promise<ScenarioResult | undefined> {
  const scenario = readScenario(file);
  for (const remark of scenario.remarks) process.stderr.write(`${file}: ${remark}\n`);
  if (scenario.modes !== undefined && !scenario.modes.includes(flags.mode)) {
    say(`${scenario.name} (${flags.mode}): not for this mode`);
    return undefined;
  }
  say(`${scenario.name}: ${scenario.description}`);
  const result = await playScenario(scenario, {
    mode: flags.mode,
    proxyCommand: flags.proxy === undefined ? ownProxyCommand() : splitCommand(flags.proxy),
    iptables: flags.iptables,
    api: flags.api,
    timeFactor: flags.timeFactor,
    truth: loadTruth(flags.truth ?? join(dirname(file), 'truth'), scenario.name, flags.mode),
    rules: loadRules(flags.rules ?? join(dirname(file), 'rules'), scenario, flags.mode),
    onNote: (line) => say(`  (${line})`),
    onStep: (step) => {
      if (flags.quiet === undefined || step.verdict === 'differs') stepLines(step).forEach(say);
    },
    ...(flags.keep === undefined
      ? {}
      : { beforeClose: (cluster) => keepUp(scenario.name, cluster.network.namespaces.prefix) }),
  });
  resultLines(result).forEach(say);
  say('');
  return result;
}

async function runFiles(files: readonly string[], flags: Flags): Promise<number> {
  sweepNamespaces();
  const print = (line: string): void => {
    if (flags.json === undefined) process.stdout.write(`${line}\n`);
  };
  const results: ScenarioResult[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < files.length) {
      const file = files[next++] ?? '';
      // Side by side, each scenario's lines are kept together.
      const lines: string[] = [];
      const result = await runFile(file, flags, flags.jobs > 1 ? (line) => lines.push(line) : print);
      lines.forEach(print);
      if (result !== undefined) results.push(result);
    }
  };
  await Promise.all(Array.from({ length: flags.jobs }, worker));
  const agreed = results.filter((result) => result.agreed).length;
  print(`${agreed} of ${results.length} scenarios agree`);
  if (flags.json === true) process.stdout.write(`${JSON.stringify(results, null, 2)}\n`);
  return agreed === results.length ? 0 : 1;
}

export function runCommand(setExit: (code: number) => void): Command {
  return new Command('run')
    .description('play scenario files and compare what clients see with the recorded truth')
    .argument('<file...>', 'scenario files')
    .option('--mode <mode>', 'proxy mode', 'iptables')
    .option('--truth <dir>', 'recorded truth (default: truth/ beside the file)')
    .option('--rules <dir>', 'recorded rule sets (default: rules/ beside the file)')
    .option('--json', 'print results as JSON')
    .option('--jobs <n>', 'so many scenarios at once', positiveInteger, 1)
    .option('--quiet', 'print only what differs')
    .option('--time-factor <n>', 'multiplies every time-out, for slow machines', positiveNumber, 1)
    .option('--proxy <command>', 'another proxy: its command line, with {config} and {node} in it')
    .addOption(new Option('--iptables <variant>', 'which iptables').choices(['nft', 'legacy']))
    .addOption(
      new Option(
        '--api <kind>',
        'API server: the whole one over TLS, a small plain one that takes any object, or that only if need be',
      )
        .choices(['auto', 'full', 'plain'])
        .default('auto'),
    )
    .option('--keep', "keep the first scenario's cluster up at its end")
    .action(async (files: string[], flags: Flags) => setExit(await runFiles(files, flags)));
}
