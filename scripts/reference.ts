/**
 * Fills the generated parts of docs/reference.md from the program itself: `node --import tsx scripts/reference.ts`.
 * With `--check` it writes nothing and ends with 1 if the file is not up to date.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { Counter, Gauge, Histogram, Summary, type Registry } from 'prom-client';
import { commands } from '../src/commands/index.ts';
import { flagTable, type FlagSpec } from '../src/config/flag-table.ts';
import { loadConfig } from '../src/config/load.ts';
import type { Mode } from '../src/dataplane/dataplane.ts';
import { SliMetrics } from '../src/metrics/sliMetrics.ts';
import { createMetrics } from '../src/proxy/daemonMetrics.ts';
import type { ModeSupport } from '../src/proxy/dataplanes.ts';
import type { CounterSource } from '../src/dataplane/counts.ts';
import { ServiceCounters } from '../src/status/counters/serviceCounters.ts';

const root = new URL('..', import.meta.url);
const file = new URL('docs/reference.md', root);
const modes: readonly Mode[] = ['iptables', 'nftables', 'ipvs', 'userspace'];

/** Of each interface or type: its name and the file that declares it. */
const shapes: Readonly<Record<string, readonly (readonly [file: string, ...names: string[]])[]>> = {
  socket: [
    [
      'src/status/documents.ts',
      'StatusDocument',
      'FamilyStatus',
      'EndpointCounts',
      'SyncStatus',
      'RoutesDocument',
      'FamilyRoutes',
      'RouteDocument',
      'ObjectsDocument',
      'ConfigDocument',
      'ChangesDocument',
      'ChangeRecord',
      'CountersDocument',
      'ServiceLabels',
      'ServiceCount',
      'EndpointCount',
      'RefusedCount',
    ],
    ['src/dataplane/counts.ts', 'RefusalReason'],
    ['src/services/types.ts', 'ServicePort', 'Frontend', 'Verdict', 'Endpoint', 'Problem'],
  ],
  connections: [
    ['src/status/withoutDaemon.ts', 'KernelFacts'],
    ['src/status/connections.ts', 'ConnectionsDocument', 'ServiceConnections', 'EndpointConnections'],
    ['src/status/chiSquare.ts', 'SpreadTest'],
  ],
  top: [['src/status/rates.ts', 'Rates', 'ServiceRate', 'EndpointRate', 'RefusalRate']],
  explain: [
    [
      'src/explain/explanation.ts',
      'Explanation',
      'ToldOutcome',
      'ToldHook',
      'ToldStep',
      'ToldWay',
      'ToldPossibility',
    ],
    ['src/explain/findings/finding.ts', 'Finding'],
    ['src/explain/outcome.ts', 'OutcomeKind'],
    ['src/explain/flow.ts', 'HookName'],
    ['src/explain/live.ts', 'Observation', 'ObservedEnd', 'ObservedWay'],
    ['src/explain/live/layOver.ts', 'LaidPacket', 'LaidHook', 'LaidStep', 'LaidEnd', 'Judgement'],
  ],
  check: [
    ['src/render/render.ts', 'Rendering'],
    ['src/render/findings.ts', 'Finding', 'Severity'],
  ],
  difference: [
    ['src/diff/difference.ts', 'Difference'],
    ['src/diff/neighbours.ts', 'Neighbour'],
  ],
};

const blocks: Readonly<Record<string, () => string | Promise<string>>> = {
  commands: () =>
    table(
      ['command', 'what it does'],
      commands.filter(({ hidden }) => hidden !== true).map(({ name, summary }) => [`\`${name}\``, summary]),
    ),
  flags: () => flags(),
  metrics: () => metrics(),
  'help explain': () => help('explain'),
  'help render': () => help('render'),
  'help diff': () => help('diff'),
  'help status': () => help('status'),
  'help top': () => help('top'),
  'help demo': () => help('demo'),
  'help lab': () => help('lab'),
  'help lab up': () => help('lab', 'up'),
  'help lab run': () => help('lab', 'run'),
  ...Object.fromEntries(Object.keys(shapes).map((name) => [`shape ${name}`, () => shape(name)])),
};

/** The file's text with every generated part made anew. Throws if a part has no maker, or a maker no part. */
export async function generateReference(text: string): Promise<string> {
  const parts = text.split(/(<!-- generated: .*? -->\n[\s\S]*?<!-- end -->)/);
  const unused = new Set(Object.keys(blocks));
  let result = '';
  for (const part of parts) {
    const name = /^<!-- generated: (.*?) -->\n/.exec(part)?.[1];
    const make = name === undefined ? undefined : blocks[name];
    if (name !== undefined && make === undefined) throw new Error(`nothing generates "${name}"`);
    unused.delete(name ?? '');
    result += make === undefined ? part : `<!-- generated: ${name} -->\n\n${await make()}\n\n<!-- end -->`;
  }
  if (unused.size > 0) throw new Error(`docs/reference.md has no part ${[...unused].join(', ')}`);
  return result;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

function flags(): string {
  const groups = new Map<string, FlagSpec[]>();
  for (const flag of flagTable as readonly FlagSpec[])
    groups.set(flag.group, [...(groups.get(flag.group) ?? []), flag]);
  return [...groups]
    .map(([group, list]) => {
      const rows = list.map((flag) => [
        `\`--${flag.name}\`${flag.withFile === true ? ' *' : ''}`,
        flag.kind,
        flag.default === '' ? '' : `\`${flag.default}\``,
        flag.deprecated === undefined ? flag.help : `${flag.help} (deprecated: ${flag.deprecated})`,
      ]);
      return `**${group}**\n\n${table(['flag', 'kind', 'default', 'meaning'], rows)}`;
    })
    .join('\n\n');
}

interface Described {
  readonly help: string;
  readonly type: string;
  readonly labels: readonly string[];
  readonly modes: Set<string>;
}

async function metrics(): Promise<string> {
  const found = new Map<string, Described>();
  for (const mode of modes) {
    const loaded = await loadConfig([`--proxy-mode=${mode}`]);
    if (loaded.kind !== 'config') throw new Error('the default configuration is not usable');
    const { registry } = createMetrics({ ...loaded.config, mode }, modeSupport(mode)).metrics;
    connectionMetrics(registry);
    describe(registry, mode, found);
  }
  describe(new SliMetrics().registry, '', found);
  const rows = [...found]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, { help: meaning, type, labels, modes: where }]) => [
      `\`${name}\``,
      type,
      labels.map((label) => `\`${label}\``).join(', '),
      where.size === modes.length || where.has('') ? 'all' : [...where].join(', '),
      meaning.replace(/^\[\w+\] /, ''),
    ]);
  return table(['metric', 'type', 'labels', 'modes', 'meaning'], rows);
}

/** What a mode has to say about metrics, without its kernel. */
function modeSupport(mode: Mode): ModeSupport {
  const never = (): Promise<never> => Promise.reject(new Error(`${mode} is only described here`));
  return {
    usable: never,
    prepare: never,
    create: never,
    packetCounters: () => ({
      ctStateInvalidDropped: () => undefined,
      localhostNodePortsAccepted: () => undefined,
    }),
  };
}

function connectionMetrics(registry: Registry): void {
  const never = (): never => {
    throw new Error('nothing is read here');
  };
  const source: CounterSource = { name: 'nftables', notes: [], read: never };
  const log = { enabled: () => false, info: never, warn: never, error: never };
  new ServiceCounters({
    families: [{ family: 'IPv4', table: never, source }],
    level: 'endpoints',
    log: log as never,
  }).register(registry);
}

function describe(registry: Registry, mode: string, found: Map<string, Described>): void {
  for (const metric of registry.getMetricsAsArray()) {
    // The typings leave out what every metric of the library has.
    const {
      name,
      help: meaning,
      labelNames,
    } = metric as unknown as {
      name: string;
      help: string;
      labelNames?: readonly string[];
    };
    const known = found.get(name) ?? {
      help: meaning,
      type: typeOf(metric),
      labels: (labelNames ?? []).filter((label) => label !== 'absent' && label !== 'le'),
      modes: new Set<string>(),
    };
    known.modes.add(mode);
    found.set(name, known);
  }
}

function typeOf(metric: unknown): string {
  if (metric instanceof Counter) return 'counter';
  if (metric instanceof Gauge) return 'gauge';
  if (metric instanceof Histogram) return 'histogram';
  if (metric instanceof Summary) return 'summary';
  throw new Error('a metric of no known type');
}

/** What `pointsman COMMAND… --help` prints. */
async function help(name: string, ...words: string[]): Promise<string> {
  const command = commands.find((one) => one.name === name);
  if (command === undefined) throw new Error(`there is no command ${name}`);
  const { run } = await command.load();
  const { stdout } = process;
  const { isTTY } = stdout;
  const write = Object.getOwnPropertyDescriptor(stdout, 'write');
  let text = '';
  // As into a pipe: 80 columns, whoever calls.
  stdout.isTTY = false;
  stdout.write = (chunk: string | Uint8Array): boolean => {
    text += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString();
    return true;
  };
  try {
    await run([...words, '--help']);
  } finally {
    stdout.isTTY = isTTY;
    if (write === undefined) Reflect.deleteProperty(stdout, 'write');
    else Object.defineProperty(stdout, 'write', write);
  }
  return `\`\`\`\n${text.trimEnd()}\n\`\`\``;
}

function shape(name: string): string {
  const text = (shapes[name] ?? [])
    .flatMap(([path, ...names]) => {
      const source = readFileSync(new URL(path, root), 'utf8');
      return names.map((one) => declaration(source, one, path));
    })
    .join('\n\n');
  return `\`\`\`ts\n${text}\n\`\`\``;
}

/** An exported interface or type with its comment; what only TypeScript needs is left out. */
function declaration(source: string, name: string, path: string): string {
  const pattern = String.raw`(?:^/\*\*(?:(?!\*/)[\s\S])*?\*/\n)?^export (?:interface ${name}\b[\s\S]*?^\}|type ${name} =[\s\S]*?;$)`;
  const found = new RegExp(pattern, 'm').exec(source)?.[0];
  if (found === undefined) throw new Error(`${path} declares no ${name}`);
  return found.replace(/^export /m, '').replaceAll(/\breadonly /g, '');
}

if (process.argv[1] !== undefined && import.meta.url === new URL(`file://${process.argv[1]}`).href) {
  const before = readFileSync(file, 'utf8');
  const after = await generateReference(before);
  if (process.argv.includes('--check')) {
    if (after !== before) {
      process.stderr.write('docs/reference.md is not up to date: node --import tsx scripts/reference.ts\n');
      process.exit(1);
    }
  } else writeFileSync(file, after);
}
