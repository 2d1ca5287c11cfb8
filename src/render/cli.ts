/** `pointsman render`: rules without a kernel. Exit codes: 0 fine, 1 errors or differences found, 2 a usage mistake. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { withFile } from '../config/fileError.ts';
import { UsageError } from '../config/flags.ts';
import { ConfigError } from '../config/load.ts';
import { stderrLogger } from './stderrLogger.ts';
import { inputHelp, parseArguments, type InputArguments, type ParsedArguments } from './arguments.ts';
import { changesBetween, printChanges } from './changes.ts';
import { check } from './check.ts';
import { printFinding } from './findings.ts';
import { readInputs } from './inputs.ts';
import { render } from './render.ts';
import { programName } from '../programName.ts';

const help = `Usage: ${programName} render [-f PATH ...] [flags]

Prints the rules that the proxy of a node makes of Services and EndpointSlices, as iptables-restore or nft read them.
No root, no kernel, and the same text every time.

  ${programName} render --mode nftables --node node-1 --cluster-cidr 10.244.0.0/16 -f manifests.yaml
  kubectl get svc,endpointslices,nodes -A -o yaml | ${programName} render --node node-1 -f -

What to do:
  -o, --output DIR      write one file for each family into a folder instead
  --check               print no rules: check the objects, and say what the node would ignore, and why
  --strict              with --check: warnings count as errors
  --diff A B            what changes in the rules, and for traffic, from manifests A to B (-f adds to both)
  --json                the answer as JSON

${inputHelp}
Exit status: 0 fine, 1 errors (--check; with --strict warnings too) or differences (--diff) or objects that cannot be
read, 2 usage.
`;

export interface CommandOutput {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
}

export const standardOutput: CommandOutput = {
  out: (text) => process.stdout.write(text),
  err: (text) => process.stderr.write(text),
};

/** Resolves to the exit code. */
export async function runRender(
  argv: readonly string[],
  io: CommandOutput = standardOutput,
): Promise<number> {
  try {
    const parsed = parseArguments(argv, {
      values: { output: 1, diff: 2 },
      switches: ['check', 'strict', 'json'],
    });
    if (parsed.help) {
      io.out(help);
      return 0;
    }
    const given = await parsed.inputs();
    for (const warning of given.warnings) io.err(`${warning}\n`);
    refuseTogether(parsed, given);
    if (parsed.extra.has('diff')) return await runDiff(parsed, given, io);
    return parsed.switches.has('check')
      ? await runCheck(parsed, given, io)
      : await runRules(parsed, given, io);
  } catch (error) {
    return refuse(error, 'render', io);
  }
}

/** Throws UsageError where one flag would silently win over another. */
function refuseTogether({ switches, extra }: ParsedArguments, { paths }: InputArguments): void {
  if (switches.has('strict') && !switches.has('check')) throw new UsageError('--strict needs --check');
  const asked = [
    ...['check', 'json'].filter((name) => switches.has(name)),
    ...['diff', 'output'].filter((name) => extra.has(name)),
  ];
  for (const [one, other] of [
    ['check', 'diff'],
    ['check', 'output'],
    ['diff', 'output'],
    ['json', 'output'],
  ] as const)
    if (asked.includes(one) && asked.includes(other))
      throw new UsageError(`--${one} and --${other} cannot be given together`);
  const sides = extra.get('diff') ?? [];
  if ([...paths, ...sides].filter((path) => path === '-').length > 1)
    throw new UsageError('standard input (-) can be read once only');
}

/** Says what was wrong; 2 for mistakes of the command line, 1 for everything else. */
export function refuse(error: unknown, command: string, io: CommandOutput): number {
  const message =
    error instanceof ConfigError ? error.asTyped : error instanceof Error ? error.message : String(error);
  const usage = error instanceof UsageError || error instanceof ConfigError;
  io.err(`Error: ${message}\n${usage ? `${programName} ${command} --help says more.\n` : ''}`);
  return usage ? 2 : 1;
}

async function runRules(parsed: ParsedArguments, given: InputArguments, io: CommandOutput): Promise<number> {
  const { cluster, wanted } = await readInputs(given, { log: stderrLogger(io.err), err: io.err });
  for (const { object, field, message } of wanted.problems) io.err(`${object} ${field}: ${message}\n`);
  const renderings = render(wanted);
  const directory = parsed.extra.get('output')?.at(-1);
  if (parsed.switches.has('json')) {
    io.out(`${JSON.stringify({ mode: wanted.config.mode, node: wanted.node.name, renderings }, null, 2)}\n`);
  } else if (directory !== undefined) {
    withFile(`--output ${directory}: cannot be made`, () => mkdirSync(directory, { recursive: true }));
    for (const { file, text } of renderings) {
      writeFileSync(join(directory, file), text);
      io.err(`${join(directory, file)}\n`);
    }
  } else io.out(renderings.map(({ text }) => text).join('\n'));
  return cluster.problems.length > 0 ? 1 : 0;
}

function plural(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? '' : 's'}`;
}

async function runCheck(parsed: ParsedArguments, given: InputArguments, io: CommandOutput): Promise<number> {
  const { cluster, wanted } = await readInputs(given, { strict: true, log: stderrLogger(io.err) });
  const findings = check(cluster, wanted);
  const count = (severity: string): number => findings.filter((one) => one.severity === severity).length;
  const [errors, warnings] = [count('error'), count('warning')];
  if (parsed.switches.has('json')) io.out(`${JSON.stringify({ errors, warnings, findings }, null, 2)}\n`);
  else {
    for (const finding of findings) io.out(`${printFinding(finding)}\n`);
    const services = cluster.services.length;
    io.out(
      `${plural(services, 'Service')}, ${plural(cluster.slices.length, 'EndpointSlice')}: ` +
        `${plural(errors, 'error')}, ${plural(warnings, 'warning')}\n`,
    );
  }
  return errors > 0 || (warnings > 0 && parsed.switches.has('strict')) ? 1 : 0;
}

async function runDiff(parsed: ParsedArguments, given: InputArguments, io: CommandOutput): Promise<number> {
  const [a, b] = parsed.extra.get('diff') as [string, string];
  const log = stderrLogger(io.err);
  const said = new Set<string>();
  const err = (text: string): void => {
    if (!said.has(text)) io.err(text);
    said.add(text);
  };
  const before = await readInputs(given, { log, err, morePaths: [a] });
  const after = await readInputs(given, { log, err, morePaths: [b] });
  const changes = changesBetween(before.wanted, after.wanted);
  if (parsed.switches.has('json')) io.out(`${JSON.stringify({ changes }, null, 2)}\n`);
  else if (changes.length === 0) io.out('No difference in the rules.\n');
  else io.out(printChanges(changes));
  return changes.length > 0 || said.size > 0 ? 1 : 0;
}
