/**
 * argv → flag values, with the manners of Kubernetes' command lines (pflag): `--x`, `--x=v`, `--x v`, booleans without
 * a value of their own, `-v2`, underscores for hyphens, lists that grow with each use. The spelling is normalised here;
 * commander then collects the values and prints the help.
 */
import { Command, Help, Option } from 'commander';
import {
  flagTable,
  type FlagKind,
  type FlagName,
  type FlagSpec,
  type FlagTypes,
  type FlagValues,
} from './flag-table.ts';
import { parsers, printers } from './flag-values.ts';
import { edits } from './spelling.ts';
import type { FlagValue } from './types.ts';
import { programName } from '../programName.ts';

/** A command line that cannot be understood. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

export interface ParsedFlags {
  readonly help: boolean;
  readonly values: FlagValues;
  /** Flags that were given, defaults not counted. */
  readonly given: ReadonlySet<FlagName>;
  /** For stderr: one line a deprecated flag that was used. */
  readonly deprecations: readonly string[];
}

const specs: ReadonlyMap<string, FlagSpec> = new Map(flagTable.map((spec) => [spec.name, spec]));

interface Assignment {
  readonly spec: FlagSpec;
  readonly text: string;
}

/** Throws `UsageError`. */
export function parseFlags(argv: readonly string[]): ParsedFlags {
  const { assignments, help } = normalise(argv);
  const command = flagCommand();
  if (!help) {
    command.parse(
      assignments.map(({ spec, text }) => `--${spec.name}=${text}`),
      { from: 'user' },
    );
  }
  const values = Object.fromEntries(
    flagTable.map((spec) => [spec.name, command.getOptionValue(attribute(spec.name))]),
  ) as FlagValues;
  const used = new Set(assignments.map(({ spec }) => spec));
  return {
    help,
    values,
    given: new Set([...used].map((spec) => spec.name as FlagName)),
    deprecations: [...used]
      .filter((spec) => spec.deprecated !== undefined)
      .map((spec) => `Flag --${spec.name} has been deprecated, ${spec.deprecated}`),
  };
}

/** The values as text, sorted by name: /flagz and the FLAG lines of the log. */
export function printFlags(values: FlagValues): FlagValue[] {
  return flagTable
    .map((spec) => ({ name: spec.name, value: printValue(spec.kind, values[spec.name]) }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

export function flagHelp(): string {
  return flagCommand().helpInformation();
}

/** Every argument as flag and value; `--flag value` and `-v 2` are put together. */
function normalise(argv: readonly string[]): { assignments: Assignment[]; help: boolean } {
  const assignments: Assignment[] = [];
  for (let i = 0; i < argv.length; i++) {
    const argument = argv[i] ?? '';
    if (argument === '--help' || argument === '-h') return { assignments, help: true };
    // What follows -- is arguments; of those there are none, but empty ones are let pass.
    if (argument === '--') {
      refuseArgument(argv.slice(i + 1).find((word) => word !== ''));
      break;
    }
    if (argument === '') continue;
    if (!argument.startsWith('-') || argument === '-') refuseArgument(argument);
    const { name, value } = split(argument);
    const spec = specs.get(name.replaceAll('_', '-'));
    if (spec === undefined) throw new UsageError(`unknown flag: --${name}${suggestion(name)}`);
    let text = value;
    if (text === undefined && (spec.kind === 'bool' || spec.kind === 'version')) text = 'true';
    if (text === undefined) {
      i += 1;
      text = argv[i];
      if (text === undefined) throw new UsageError(`flag needs an argument: --${spec.name}`);
    }
    try {
      parsers[spec.kind](text);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new UsageError(`invalid argument "${text}" for "--${spec.name}" flag: ${reason}`, {
        cause: error,
      });
    }
    assignments.push({ spec, text });
  }
  return { assignments, help: false };
}

function refuseArgument(word: string | undefined): void {
  if (word !== undefined) throw new UsageError(`no arguments are taken, got "${word}"; flags begin with --`);
}

function split(argument: string): { name: string; value: string | undefined } {
  if (argument.startsWith('--')) {
    const equals = argument.indexOf('=');
    if (equals === 2 || argument.startsWith('---')) throw new UsageError(`bad flag syntax: ${argument}`);
    return equals < 0
      ? { name: argument.slice(2), value: undefined }
      : { name: argument.slice(2, equals), value: argument.slice(equals + 1) };
  }
  if (argument[1] !== 'v') throw new UsageError(`unknown shorthand flag: '${argument[1]}' in ${argument}`);
  const attached = argument.slice(2).replace(/^=/, '');
  return { name: 'v', value: argument.length === 2 ? undefined : attached };
}

/** ` (did you mean --x?)` for a name that is nearly one of ours. */
function suggestion(name: string): string {
  const wanted = name.replaceAll('_', '-').toLowerCase();
  const near = flagTable.find((spec) => spec.name.startsWith(wanted) || edits(spec.name, wanted) <= 2);
  return near === undefined ? '' : ` (did you mean --${near.name}?)`;
}

function flagCommand(): Command {
  const command = new Command(`${programName} run`)
    .usage('[flags]')
    .description(
      'Runs the service proxy on this node, with the flags and the KubeProxyConfiguration of kube-proxy.\n' +
        'Durations are written as 30s or 1h30m. Flags marked * count even when --config is given.',
    )
    .helpOption(false)
    .configureHelp({ helpWidth: 110, optionTerm: term, optionDescription: (option) => option.description });
  for (const spec of flagTable) command.addOption(toOption(spec));
  command.optionsGroup('Other');
  command.addOption(new Option('-h, --help', 'show this').helpGroup('What to do'));
  return command;
}

function toOption(spec: FlagSpec): Option {
  const shown = spec.default === '' || spec.kind === 'version' ? '' : ` [${spec.default}]`;
  const deprecated = spec.deprecated === undefined ? '' : ` (deprecated: ${spec.deprecated})`;
  return new Option(`--${spec.name} <value>`, `${spec.help}${shown}${deprecated}`)
    .helpGroup(spec.group)
    .default(parsers[spec.kind](spec.kind === 'version' ? 'false' : spec.default), '')
    .argParser((text, previous) => accumulate(spec, text, previous));
}

const wordOf: Readonly<Partial<Record<FlagKind, string>>> = {
  int32: 'N',
  float: 'N',
  string: 'TEXT',
  duration: 'TIME',
  strings: 'LIST',
  ip: 'IP',
  ipPort: 'IP[:PORT]',
  gates: 'LIST',
  vmodule: 'LIST',
  quantity: 'SIZE',
  counterLevel: 'LEVEL',
};

function term(option: Option): string {
  const spec = specs.get(option.name());
  if (spec === undefined) return new Help().optionTerm(option);
  const word = wordOf[spec.kind];
  const name = spec.name === 'v' ? '-v, --v' : `--${spec.name}`;
  return `${name}${word === undefined ? '' : ` ${word}`}${spec.withFile ? ' *' : ''}`;
}

/** Kinds of flags whose values grow with each use. */
const lists: ReadonlySet<FlagKind> = new Set(['strings', 'gates', 'vmodule']);

function accumulate(spec: FlagSpec, text: string, previous: unknown): unknown {
  if ((spec.kind === 'ip' || spec.kind === 'ipPort') && text === '') return previous;
  const value: unknown = parsers[spec.kind](text);
  if (!lists.has(spec.kind)) return value;
  // The defaults of all lists are empty, so adding to them is the same as replacing them.
  if (Array.isArray(value)) return [...(previous as unknown[]), ...(value as unknown[])];
  return { ...(previous as object), ...(value as object) };
}

/** The name under which commander keeps an option's value. */
function attribute(name: string): string {
  return name.replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function printValue<K extends FlagKind>(kind: K, value: FlagTypes[K]): string {
  return printers[kind](value);
}
