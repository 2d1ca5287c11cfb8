/** `pointsman diff`: wanted against kernel. Exit codes: 0 the same, 1 different, 2 usage, or something cannot be read. */
import { readFileSync } from 'node:fs';
import { withFile } from '../config/fileError.ts';
import { UsageError } from '../config/flags.ts';
import { parseSave } from '../linux/iptables/save.ts';
import { inputHelp, parseArguments, type InputArguments } from '../render/arguments.ts';
import { refuse, standardOutput, type CommandOutput } from '../render/cli.ts';
import { readInputs, type Inputs } from '../render/inputs.ts';
import { stderrLogger } from '../render/stderrLogger.ts';
import type { Wanted, WantedFamily } from '../render/wanted.ts';
import { printDifference, type Difference } from './difference.ts';
import { diffIptables } from './iptablesDiff.ts';
import {
  iptablesNeighbours,
  nftNeighbours,
  printNeighbour,
  ServiceAddresses,
  type Neighbour,
} from './neighbours.ts';
import { parseRuleset } from '../explain/nft/fromJson.ts';
import { diffNftables } from './nftablesDiff.ts';
import { diffSavedNftables, savedNftNote } from './nftablesSaved.ts';
import { isOwnChain } from '../dataplane/iptables/names.ts';
import { chainsOf as ipvsChains } from '../dataplane/ipvs/names.ts';
import { chains as userspaceChains } from '../dataplane/userspace/names.ts';
import { diffIpvs } from './ipvsDiff.ts';
import type { KernelState } from './kernel.ts';
import { diffUserspace, userspaceNote } from './userspaceDiff.ts';
import { programName } from '../programName.ts';

const help = `Usage: ${programName} diff [-f PATH ... | --kubeconfig FILE | --socket-path PATH] [flags]

Compares what a node's proxy wants with what the kernel has: rule by rule and element by element, by what they do. Run it
on the node, as root (or in its network namespace). Then it says who else has rules where Service traffic passes.
Without -f and --kubeconfig, the daemon of this node says what it wants.

  ${programName} diff
  ${programName} diff --mode nftables --node node-1 --kubeconfig /etc/kubernetes/admin.conf
  ${programName} diff --node node-1 -f manifests.yaml --saved dump.txt     (no root: against saved rules)

  - is what the kernel has, + what is wanted. What history decides is not compared: order in maps, handles, slots.

What to do:
  --saved FILE          instead of the kernel: output of iptables-save (or ip6tables-save with --family IPv6), in nftables
                        mode of "nft -j list ruleset"
  --json                the answer as JSON

${inputHelp}
Exit status: 0 the same, 1 different, 2 usage, or something cannot be read.
`;

interface Comparison {
  readonly differences: Difference[];
  readonly neighbours: Neighbour[];
  readonly notes: readonly string[];
}

/** Resolves to the exit code. */
export async function runDiff(argv: readonly string[], io: CommandOutput = standardOutput): Promise<number> {
  try {
    const parsed = parseArguments(argv, { values: { saved: 1 }, switches: ['json'] });
    if (parsed.help) {
      io.out(help);
      return 0;
    }
    const given = await parsed.inputs();
    for (const warning of given.warnings) io.err(`${warning}\n`);
    const { wanted } = await readWanted(given, io);
    const { mode } = wanted.config;
    const saved = parsed.extra.get('saved')?.at(-1);
    if (saved !== undefined && mode !== 'nftables' && (mode === 'ipvs' || wanted.families.length !== 1))
      throw new UsageError(
        '--saved is for iptables and userspace mode with one family (add --family IPv4 or IPv6), and for nftables mode',
      );
    const answers: Comparison[] = [];
    for (const family of wanted.families)
      answers.push(saved === undefined ? await compare(wanted, family) : compareSaved(wanted, family, saved));
    const differences = answers.flatMap((one) => one.differences);
    const neighbours = answers.flatMap((one) => one.neighbours);
    const notes = [...new Set(answers.flatMap((one) => one.notes))];
    if (parsed.switches.has('json'))
      io.out(
        `${JSON.stringify({ mode, node: wanted.node.name, differences, neighbours, notes }, null, 2)}\n`,
      );
    else io.out(print(wanted, { differences, neighbours, notes }));
    return differences.length > 0 ? 1 : 0;
  } catch (error) {
    refuse(error, 'diff', io);
    return 2;
  }
}

/** Of the objects that were named; else of the daemon. Throws a sentence if there is neither. */
async function readWanted(given: InputArguments, io: CommandOutput): Promise<Inputs> {
  if (given.paths.length > 0 || given.live)
    return readInputs(given, { log: stderrLogger(io.err), err: io.err });
  const { askDaemon } = await import('../render/daemon.ts');
  const { inputs, refusal } = await askDaemon(given, io.err);
  if (inputs !== undefined) return inputs;
  throw new UsageError(
    `${refusal}; name objects with -f, a cluster with --kubeconfig, or the daemon's socket with --socket-path`,
  );
}

async function differencesOf(
  wanted: Wanted,
  family: WantedFamily,
  kernel: KernelState,
): Promise<Difference[]> {
  const { randomFully, tcpBeLiberal, localAddresses } = kernel;
  const iptables = kernel.iptables ?? [];
  switch (wanted.config.mode) {
    case 'nftables':
      return diffNftables(family, kernel.nftables, localAddresses, wanted.config.extras.serviceCounters);
    case 'iptables':
      return diffIptables(wanted, family, iptables, { randomFully, tcpBeLiberal }, localAddresses);
    case 'ipvs': {
      const { readIpvs } = await import('./ipvsKernel.ts');
      return diffIpvs(wanted, family, readIpvs(family.family), iptables, randomFully);
    }
    case 'userspace':
      return diffUserspace(wanted, family, iptables);
  }
}

async function compare(wanted: Wanted, family: WantedFamily): Promise<Comparison> {
  const { mode } = wanted.config;
  // Only here the kernel's doors are needed.
  const { readKernel } = await import('./kernel.ts');
  const kernel = await readKernel(family.family, mode);
  const notes = mode === 'userspace' ? [...kernel.notes, userspaceNote] : kernel.notes;
  const differences = await differencesOf(wanted, family, kernel);
  const addresses = new ServiceAddresses(family);
  return {
    differences,
    neighbours: [
      ...iptablesNeighbours(family.family, kernel.iptables ?? [], addresses, ownIn(mode)),
      ...nftNeighbours(family.family, kernel.foreign, addresses),
    ],
    notes,
  };
}

function compareSaved(wanted: Wanted, family: WantedFamily, path: string): Comparison {
  const text = withFile(`--saved ${path}: cannot be read`, () => readFileSync(path, 'utf8'));
  const { mode } = wanted.config;
  const isNft = text.trimStart().startsWith('{');
  if (isNft !== (mode === 'nftables')) {
    const needed = mode === 'nftables' ? '"nft -j list ruleset"' : 'iptables-save';
    throw new UsageError(`--saved ${path}: in ${mode} mode it has to be the output of ${needed}`);
  }
  if (isNft) {
    const { localAddresses } = wanted.node;
    const { serviceCounters } = wanted.config.extras;
    const differences = diffSavedNftables(family, parseRuleset(text), localAddresses, serviceCounters);
    return { differences, neighbours: [], notes: [savedNftNote] };
  }
  const tables = parseSave(text);
  const neighbours = iptablesNeighbours(family.family, tables, new ServiceAddresses(family), ownIn(mode));
  return mode === 'userspace'
    ? { differences: diffUserspace(wanted, family, tables), neighbours, notes: [userspaceNote] }
    : { differences: diffIptables(wanted, family, tables), neighbours, notes: [] };
}

/** Chains of ours: in nftables mode there are none among those of iptables. */
function ownIn(mode: string): (chain: string) => boolean {
  const fixedChains = mode === 'ipvs' ? ipvsChains : mode === 'userspace' ? userspaceChains : undefined;
  if (fixedChains !== undefined) {
    const own: ReadonlySet<string> = new Set(Object.values(fixedChains).flat());
    return (chain) => own.has(chain);
  }
  if (mode !== 'iptables') return () => false;
  const fixed =
    /^KUBE-(SERVICES|EXTERNAL-SERVICES|NODEPORTS|POSTROUTING|MARK-MASQ|FORWARD|PROXY-FIREWALL|PROXY-CANARY)$/;
  return (chain) => fixed.test(chain) || isOwnChain(chain);
}

function print({ config, node, families }: Wanted, { differences, neighbours, notes }: Comparison): string {
  let text = differences.map(printDifference).join('');
  if (neighbours.length > 0) {
    text += `${text === '' ? '' : '\n'}Others with rules where Service traffic passes:\n`;
    text += neighbours.map(printNeighbour).join('');
  }
  for (const note of notes) text += `${note}\n`;
  const services = families
    .map(({ family, table }) => `${table.routes.size} ${family} service ports`)
    .join(', ');
  const verdict =
    differences.length === 0
      ? 'the kernel has what is wanted'
      : `${differences.length} ${differences.length === 1 ? 'difference' : 'differences'}`;
  return `${text}${text === '' ? '' : '\n'}${config.mode} mode, node ${node.name === '' ? '(no name)' : node.name}, ${services}: ${verdict}\n`;
}
