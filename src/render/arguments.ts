/**
 * The command line that render, diff and explain share: where objects come from, for which node, and every flag of the
 * daemon that decides about rules.
 */
import { readFileSync } from 'node:fs';
import type { Family } from '../api/objects.ts';
import { decodeFile } from '../config/file.ts';
import { flagTable } from '../config/flag-table.ts';
import { UsageError } from '../config/flags.ts';
import { loadConfig } from '../config/load.ts';
import { completeForPlatform, withDefaults } from '../config/settings.ts';
import { meant } from '../config/spelling.ts';
import type { ProxyConfig } from '../config/types.ts';
import type { Mode } from '../dataplane/dataplane.ts';
import type { NodeFlags, RuleConfig } from './node.ts';
import type { ApiAccess } from './live.ts';
import { programName } from '../programName.ts';

export interface InputArguments {
  /** Files, folders, `-`; empty = a live cluster. */
  readonly paths: readonly string[];
  readonly node: NodeFlags;
  readonly families: readonly Family[] | undefined;
  readonly config: RuleConfig;
  readonly api: ApiAccess;
  /** A cluster to ask was named. */
  readonly live: boolean;
  /** Where to ask the daemon of this node; empty = its usual place. */
  readonly socketPath: string;
  /** As `--mode` says; empty = it was not given. */
  readonly modeFlag: string;
  /** What was said that has no effect; for stderr. */
  readonly warnings: readonly string[];
}

export interface ExtraFlags {
  /** Flags that take a value, with the number of values. */
  readonly values: Readonly<Record<string, number>>;
  readonly switches: readonly string[];
}

export interface ParsedArguments {
  readonly help: boolean;
  readonly extra: ReadonlyMap<string, readonly string[]>;
  readonly switches: ReadonlySet<string>;
  inputs(): Promise<InputArguments>;
}

const inputValues = [
  'filename',
  'mode',
  'node',
  'node-ip',
  'zone',
  'pod-cidr',
  'family',
  'socket-path',
  'socket',
] as const;
const short: Readonly<Record<string, string>> = { f: 'filename', h: 'help', o: 'output' };
const daemonFlags: ReadonlySet<string> = new Set(flagTable.map(({ name }) => name));
const modes: readonly string[] = ['iptables', 'nftables', 'ipvs', 'userspace'];

/** The part of a command's help that these flags make. */
export const inputHelp = `Objects:
  -f, --filename PATH   manifests: a file, a folder, - for standard input; repeatable. kubectl get -o yaml output is fine
  --kubeconfig FILE     without -f: ask this live cluster
  --socket-path PATH    explain and diff without either: ask the daemon of this node here
Node (a Node object among the objects wins over the flags):
  --node NAME           which node; not needed where there is only one Node object
  --node-ip LIST        its addresses          --zone NAME   its topology zone
  --pod-cidr LIST       its Pods' networks (for --detect-local-mode NodeCIDR)
Rules:
  --mode MODE           iptables (default), nftables, ipvs, userspace
  --family FAMILY       IPv4, IPv6 or both; default: those the node has addresses of
  --config FILE         KubeProxyConfiguration; --mode wins over its mode
  and pointsman run's --cluster-cidr, --detect-local-mode, --pod-bridge-interface, --pod-interface-name-prefix,
  --nodeport-addresses, --masquerade-all, --iptables-localhost-nodeports, --feature-gates, …
`;

/** Throws `UsageError`. Flags of the daemon are only looked at in `inputs`. */
export function parseArguments(argv: readonly string[], extraFlags: ExtraFlags): ParsedArguments {
  const given = new Map<string, string[]>();
  const extra = new Map<string, string[]>();
  const switches = new Set<string>();
  const rest: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const argument = argv[i] ?? '';
    const match = /^--?([a-z][a-z-]*)(?:=(.*))?$/s.exec(argument);
    const name = argument.startsWith('--') ? match?.[1] : short[match?.[1] ?? ''];
    if (name === 'help') return { help: true, extra, switches, inputs: unasked };
    const count =
      name === undefined ? 0 : inputValues.includes(name as never) ? 1 : (extraFlags.values[name] ?? 0);
    if (name !== undefined && extraFlags.switches.includes(name)) {
      if (match?.[2] !== undefined) throw new UsageError(`--${name} takes no value`);
      switches.add(name);
    } else if (name === undefined || count === 0) {
      if (!argument.startsWith('-') && !takesNext(rest.at(-1), argv[i - 1]))
        throw new UsageError(`what is "${argument}"? Manifests are named with -f`);
      if (argument.startsWith('--') && name !== undefined) refuseUnknown(name, extraFlags);
      rest.push(argument);
    } else {
      const values: string[] = match?.[2] === undefined ? [] : [match[2]];
      while (values.length < count) {
        const value = argv[++i];
        // A second value that looks like a flag was forgotten.
        if (value === undefined || (values.length > 0 && value.startsWith('--')))
          throw new UsageError(`flag needs ${count === 1 ? 'a value' : `${count} values`}: --${name}`);
        values.push(value);
      }
      const target = inputValues.includes(name as never) ? given : extra;
      target.set(name, [...(target.get(name) ?? []), ...values]);
    }
  }
  return { help: false, extra, switches, inputs: () => inputsOf(given, rest) };
}

/** Of all flags that may be given here, not only the daemon's, the nearest is named. */
function refuseUnknown(name: string, { values, switches }: ExtraFlags): void {
  if (daemonFlags.has(name)) return;
  const near = meant(name, [...Object.keys(values), ...switches, ...inputValues, ...daemonFlags], 2);
  throw new UsageError(`unknown flag: --${name}${near === undefined ? '' : ` (did you mean --${near}?)`}`);
}

/** A word may follow a flag of the daemon that has no `=`. */
function takesNext(last: string | undefined, before: string | undefined): boolean {
  return last !== undefined && last === before && last.startsWith('-') && !last.includes('=');
}

function unasked(): Promise<InputArguments> {
  return Promise.reject(new UsageError('only help was asked for'));
}

async function inputsOf(
  given: ReadonlyMap<string, readonly string[]>,
  rest: readonly string[],
): Promise<InputArguments> {
  const one = (name: string): string => given.get(name)?.at(-1) ?? '';
  const many = (name: string): string[] =>
    (given.get(name) ?? []).flatMap((text) => text.split(',')).map((text) => text.trim());
  const mode = one('mode');
  if (mode !== '' && !modes.includes(mode))
    throw new UsageError(`--mode: "${mode}" is none of ${modes.join(', ')}`);
  const loaded = await loadConfig(mode === '' ? rest : [...rest, `--proxy-mode=${mode}`]);
  if (loaded.kind === 'text')
    throw new UsageError(`--version is a command of its own: ${programName} version`);
  const { config } = loaded;
  const paths = given.get('filename') ?? [];
  return {
    paths,
    node: {
      name: one('node') || (config.hostnameOverride ?? ''),
      ips: many('node-ip'),
      zone: one('zone'),
      podCIDRs: many('pod-cidr'),
    },
    families: familiesFrom(one('family')),
    config: mode === '' || mode === config.mode ? config : inMode(config, mode as Mode),
    api: config,
    socketPath: one('socket-path') || one('socket'),
    modeFlag: mode,
    live: paths.length === 0 && (config.clientConnection.kubeconfig !== '' || config.master !== ''),
    // --mode is ours, and wins over the file.
    warnings: config.warnings.filter((text) => mode === '' || !text.includes('proxy-mode')),
  };
}

function familiesFrom(text: string): readonly Family[] | undefined {
  switch (text.toLowerCase()) {
    case '':
      return undefined;
    case 'ipv4':
      return ['IPv4'];
    case 'ipv6':
      return ['IPv6'];
    case 'both':
      return ['IPv4', 'IPv6'];
    default:
      throw new UsageError(`--family: "${text}" is none of IPv4, IPv6, both`);
  }
}

/** The file's settings as they are in another mode: some of them have their own place for each mode. */
function inMode(config: ProxyConfig, mode: Mode): ProxyConfig {
  const { document } = decodeFile(readFileSync(config.configFile, 'utf8'));
  const settings = withDefaults({ ...document, mode });
  completeForPlatform(settings);
  return {
    ...config,
    mode,
    masqueradeAll: settings.masqueradeAll,
    nodePortAddresses: settings.nodePortAddresses,
    masqueradeBit: mode === 'nftables' ? settings.nftablesMasqueradeBit : settings.iptablesMasqueradeBit,
  };
}
