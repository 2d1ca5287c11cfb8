/** The words of the command line that are no flags: who sends the packet, and where it goes. */
import { flagTable } from '../config/flag-table.ts';
import { UsageError } from '../config/flags.ts';

/** Flags of explain itself, as `parseArguments` wants them. */
export const explainFlags = {
  values: {
    from: 1,
    to: 1,
    proto: 1,
    sport: 1,
    'in-interface': 1,
    dump: 1,
    conntrack: 1,
    html: 1,
    count: 1,
    seconds: 1,
  },
  switches: ['json', 'live', 'kernel'],
} as const;

/** Flags that stand alone; every other one takes the word behind it. */
const alone: ReadonlySet<string> = new Set([
  ...explainFlags.switches,
  'help',
  ...flagTable.filter(({ kind }) => kind === 'bool' || kind === 'version').map(({ name }) => name),
]);

const arrows: ReadonlySet<string> = new Set(['->', '→', '=>', '⇒', 'to']);

const takenByShell = 'the shell takes the > of -> for a redirection; write "to" or →, or put -> in quotes';

export interface Words {
  /** FROM and TO, or TO alone. */
  readonly names: readonly string[];
  /** Everything else, in its order. */
  readonly flags: readonly string[];
}

/** `A → B`, `A -> B`, `A to B`, `A B` or `B`, in front of the flags, behind them or among them. Throws `UsageError`. */
export function takeNames(argv: readonly string[]): Words {
  const names: string[] = [];
  const flags: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i]!;
    if (arrows.has(word)) continue;
    if (word === '-') {
      // Typed without quotes, the shell makes `-` and a redirection of `->`.
      throw new UsageError(`a single "-": ${takenByShell}`);
    }
    if (!word.startsWith('-')) {
      names.push(...word.split(/\s*(?:→|->|⇒|=>|\sto\s)\s*/).filter((part) => part !== ''));
      continue;
    }
    flags.push(word);
    const value = argv[i + 1];
    if (value !== undefined && takesNext(word)) {
      flags.push(value);
      i++;
    }
  }
  if (names.length === 3 && names[0] === 'from') names.shift();
  if (names.length === 1 && names[0]!.endsWith('-'))
    throw new UsageError(`"${names[0]}" alone: ${takenByShell}`);
  if (names.length > 2)
    throw new UsageError(`what is "${names[2]}"? One packet is explained at a time: FROM → TO`);
  return { names, flags };
}

function takesNext(word: string): boolean {
  if (word.includes('=')) return false;
  if (word.startsWith('--')) return !alone.has(word.slice(2).replaceAll('_', '-'));
  // -f FILE, -v 2; but -v2, and -h.
  return word.length === 2 && word !== '-h';
}
