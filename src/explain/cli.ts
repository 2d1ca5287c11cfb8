/** `pointsman explain`: from the command line to an explanation, and from that to text, JSON or a page. */
import { writeFileSync } from 'node:fs';
import { withFile } from '../config/fileError.ts';
import { UsageError } from '../config/flags.ts';
import { inputHelp, parseArguments } from '../render/arguments.ts';
import { sayProblems } from '../render/inputs.ts';
import { refuse, type CommandOutput as Output } from '../render/cli.ts';
import { readTyped } from './typed.ts';
import { explainFlags, takeNames } from './arguments.ts';
import { canonicalIP } from '../services/ip.ts';
import { buildCase, type CaseInputs } from './build.ts';
import type { Case } from './case.ts';
import { tell } from './explanation.ts';
import type { Observation } from './live.ts';
import { dependence } from './outcome.ts';
import { printExplanation } from './output/terminal.ts';
import { readDumps, readFlows } from './sources/dump.ts';
import { isThisMachine, readObjects } from './sources/objects.ts';
import { programName } from '../programName.ts';

interface CommandOutput extends Output {
  readonly colour: boolean;
}

const standardOutput: CommandOutput = {
  out: (text) => process.stdout.write(text),
  err: (text) => process.stderr.write(text),
  // Any value but an empty one (no-color.org).
  colour: process.stdout.isTTY && (process.env['NO_COLOR'] ?? '') === '',
};

const help = `Usage: ${programName} explain [FROM →] TO [flags]          (also FROM to TO, FROM TO, or --from FROM --to TO)

Follows a packet through the rules of a node and says where it goes, and why.

  ${programName} explain -f manifests.yaml --from outside --to 172.31.0.11:30777
  ${programName} explain -f manifests.yaml default/frontend-7d9 → shop/checkout:http
  ${programName} explain --dump rules.txt --from 10.244.1.5 --to 10.96.0.10:53 --proto udp
  ${programName} explain 10.96.0.10:443                       (on a node: what its daemon wants, and its kernel's rules)

Packet:
  --from FROM           pod/NAMESPACE/NAME, an address, node, localhost, outside (default)
  --to TO               ADDRESS:PORT, NAMESPACE/SERVICE:PORT (name or number), node:PORT
  --proto PROTOCOL      tcp, udp, sctp; default: that of the Service's port, else tcp
  --sport PORT          its source port           --in-interface NAME   where it comes in
Rules:
  --dump FILE           output of iptables-save or nft -j list ruleset; objects from -f, if given. Repeatable: for IPVS
                        mode also that of ipvsadm --save --numeric and of ipset save
  --kernel              the rules of this machine's kernel (default without -f and --dump; needs root)
  --conntrack FILE      output of conntrack -L: flows that the kernel remembers
  --live                dial it (--from node, or a Pod of this machine), or watch real connections of others, let the
                        kernel trace them, and compare rule by rule (needs root)
  --count N             how many connections --live makes or waits for (default 10)
  --seconds N           how long it waits for them (default 10)
Output:
  --json                for programs              --html FILE   one page with a picture (- = standard output)
Exit status: 0 it arrives, 1 it does not (or not always), or something cannot be read, 2 usage.
`;

/** 0 = the packet arrives, 1 = it does not (or not always), or something cannot be read; 2 = usage. */
export async function runExplain(
  argv: readonly string[],
  io: CommandOutput = standardOutput,
): Promise<number> {
  try {
    return await explain(argv, io);
  } catch (error) {
    return refuse(error, 'explain', io);
  }
}

async function explain(argv: readonly string[], io: CommandOutput): Promise<number> {
  const { names, flags } = takeNames(argv);
  const parsed = parseArguments(flags, explainFlags);
  if (parsed.help) {
    io.out(`${help}\n${inputHelp}`);
    return 0;
  }
  const flag = (name: string): string => parsed.extra.get(name)?.at(-1) ?? '';
  const to = flag('to') || (names.at(-1) ?? '');
  const from = flag('from') || (names.length > 1 || flag('to') !== '' ? (names[0] ?? '') : '');
  if (to === '')
    throw new UsageError('where does the packet go? Give --to ADDRESS:PORT or --to NAMESPACE/SERVICE:PORT');
  const question = readTyped({
    from,
    to,
    protocol: flag('proto'),
    sourcePort: flag('sport'),
    inInterface: flag('in-interface'),
  });
  const dumpFiles = parsed.extra.get('dump') ?? [];
  const asked = await parsed.inputs();
  for (const warning of asked.warnings) io.err(`${warning}\n`);
  const { given, cluster, wanted, remarks } = await readObjects(
    asked,
    question,
    dumpFiles.length > 0,
    io.err,
  );
  if (cluster !== undefined) sayProblems(cluster, io.err);
  const useKernel =
    parsed.switches.has('kernel') ||
    parsed.switches.has('live') ||
    (given.paths.length === 0 && dumpFiles.length === 0 && (!given.live || isThisMachine(given, cluster)));
  const conntrackFile = flag('conntrack');
  const inputs: CaseInputs = {
    question,
    given: wanted === undefined ? given : { ...given, config: wanted.config },
    cluster,
    remarks,
    ...(wanted === undefined ? {} : { daemon: wanted }),
    ...(dumpFiles.length === 0 ? {} : { dump: readDumps(dumpFiles) }),
    ...(useKernel && dumpFiles.length === 0
      ? {
          kernel: once(async (family) => {
            const { readKernel } = await import('./sources/kernel.ts');
            return readKernel(family);
          }),
        }
      : {}),
    ...(conntrackFile === '' ? {} : { flows: readFlows(conntrackFile) }),
  };
  const made = await buildCase(inputs);
  const explanation = tell(made);
  const perhaps = dependence(made.prediction)?.others.flatMap(({ outcomes }) => outcomes) ?? [];
  const arrives =
    [...explanation.outcomes, ...perhaps].every(
      ({ kind }) => kind === 'endpoint' || kind === 'forward' || kind === 'node',
    ) && !explanation.findings.some(({ severity }) => severity === 'cause');

  const live = parsed.switches.has('live')
    ? await observe(
        made,
        inputs,
        number('count', flag('count'), 10),
        number('seconds', flag('seconds'), 10),
        io,
      )
    : undefined;
  const html = flag('html');
  if (html !== '') {
    const { renderPage } = await import('./output/html.ts');
    const page = renderPage(explanation, live);
    if (html === '-') io.out(page);
    else withFile(`--html ${html}: cannot be written`, () => writeFileSync(html, page));
  }
  if (parsed.switches.has('json')) {
    io.out(`${JSON.stringify({ ...explanation, ...(live === undefined ? {} : { live }) }, undefined, 2)}\n`);
  } else if (html !== '-') {
    if (html !== '') io.out(`Written: ${html}\n\n`);
    io.out(printExplanation(explanation, io.colour));
    if (live !== undefined) {
      const { printObservation } = await import('./output/liveText.ts');
      io.out(printObservation(live, io.colour));
    }
  }
  // The endpoint's own no is a no, too.
  const refused = live?.ends.some(({ end }) => / \((refuses|silent)\)$/.test(end)) === true;
  return arrives && !refused && live?.agrees !== false ? 0 : 1;
}

async function observe(
  made: Case,
  inputs: CaseInputs,
  count: number,
  seconds: number,
  io: CommandOutput,
): Promise<Observation> {
  const { observeLive } = await import('./live.ts');
  const { from } = inputs.question;
  return observeLive(made, {
    count,
    milliseconds: seconds * 1000,
    source: canonicalIP(from),
    onWait: (whose) =>
      io.err(`Watching for ${seconds} s: connections of ${whose}. Make one, or wait for one.\n`),
    predict: (source) => buildCase({ ...inputs, question: { ...inputs.question, from: source } }),
  });
}

/** The same answer for every question about the same family. */
function once<K, V>(ask: (key: K) => Promise<V>): (key: K) => Promise<V> {
  const answers = new Map<K, Promise<V>>();
  return (key) => {
    const answer = answers.get(key) ?? ask(key);
    answers.set(key, answer);
    return answer;
  };
}

function number(name: string, text: string, fallback: number): number {
  if (text === '') return fallback;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 10_000)
    throw new UsageError(`--${name}: "${text}" is no number from 1 to 10000`);
  return value;
}
