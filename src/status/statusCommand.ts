/** `pointsman status`: asks the daemon, and says what can be said without it. */
import { Command, Option } from 'commander';
import type { RoutingTable } from '../services/types.ts';
import {
  exitCodesHelp,
  exitError,
  exitNoDaemon,
  exitNothingFound,
  exitOK,
  exitUnhealthy,
  isFiltered,
  parseFilter,
  runCommand,
  socketOption,
} from './arguments.ts';
import { DaemonClient, DaemonUnreachable, type ServiceFilter } from './client.ts';
import { connectionFindings } from './connections.ts';
import { needsEndpointsInConntrack, readConnections } from './conntrackView.ts';
import type { CountersDocument, StatusDocument } from './documents.ts';
import { nothingFound } from './nothingFound.ts';
import {
  changeLines,
  connectionLines,
  noteLines,
  routeLines,
  routeTable,
  statusLines,
} from './text/statusText.ts';
import { conntrackFill, kernelFacts, kernelLines } from './withoutDaemon.ts';
import { programName } from '../programName.ts';

interface StatusFlags {
  readonly socketPath?: string;
  readonly namespace?: string;
  readonly output?: 'wide' | 'json';
  readonly json?: true;
  readonly connections?: true;
  readonly changes?: string;
}

/** Changes shown unless asked for more. */
const changesShown = 5;

export function runStatus(argv: readonly string[]): Promise<number> {
  let code = exitError;
  const command = new Command(`${programName} status`)
    .description(
      'What the proxy of this node does: health, syncs, Services, endpoints, problems, the last changes.',
    )
    .argument('[service]', 'NAMESPACE/NAME, or NAMESPACE: all about these Services')
    .option('-n, --namespace <name>', 'only Services of this namespace')
    .addOption(
      new Option('-o, --output <form>', 'wide: a line for each service port').choices(['wide', 'json']),
    )
    .option('--json', 'the same as -o json')
    .option(
      '--connections',
      'open connections: to which endpoints, and who hangs on one that is going or gone',
    )
    .option('--changes <n>', 'only the last changes and their way into the kernel, so many (at most 256)')
    .addOption(socketOption())
    .addHelpText('after', exitCodesHelp)
    .action(async (service: string | undefined, flags: StatusFlags) => {
      code = await showStatus(parseFilter(service, flags.namespace), flags);
    });
  return runCommand(command, argv, () => code);
}

/** Lines are not broken for programs that read them. */
function terminalWidth(): number {
  return process.stdout.isTTY ? process.stdout.columns : Number.POSITIVE_INFINITY;
}

function print(lines: readonly string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}

async function showStatus(filter: ServiceFilter, flags: StatusFlags): Promise<number> {
  const client = new DaemonClient(flags.socketPath === undefined ? {} : { socketPath: flags.socketPath });
  const json = flags.json === true || flags.output === 'json';
  try {
    const status = await client.status();
    if (flags.connections === true) return await showConnections(client, status, filter, json);
    if (flags.changes !== undefined) return await showChanges(client, filter, flags.changes, json);
    return await showNode(client, status, filter, json, flags.output === 'wide');
  } catch (error) {
    if (!(error instanceof DaemonUnreachable)) throw error;
    await showKernel(error, json);
    return exitNoDaemon;
  }
}

async function showNode(
  client: DaemonClient,
  status: StatusDocument,
  filter: ServiceFilter,
  json: boolean,
  wide: boolean,
): Promise<number> {
  const filtered = isFiltered(filter);
  const detailed = wide || filtered || json;
  const [changes, tables, counters] = await Promise.all([
    client.changes(filter),
    detailed ? client.tables(filter) : [],
    detailed ? countersOf(client) : undefined,
  ]);
  const code = status.healthy ? exitOK : exitUnhealthy;
  const found = tables.some(({ routes }) => routes.size > 0);
  if (json) {
    const routes = (await client.routes(filter)).families;
    const document = { status, routes, counters: filteredCounters(counters, tables), changes };
    print([JSON.stringify(document, null, 2)]);
    return filtered && !found ? exitNothingFound : code;
  }
  if (filtered) {
    if (!found) {
      const name = [filter.namespace, filter.service].filter((part) => part !== undefined).join('/');
      const skipped = status.problems.filter(({ object }) => object.endsWith(` ${name}`));
      print([
        await nothingFound(client, filter),
        ...skipped.map(({ field, message }) => `  ${field}: ${message}`),
      ]);
      return exitNothingFound;
    }
    const lines = tables.flatMap((table) =>
      wide ? [] : [...table.routes.values()].flatMap((route) => [...routeLines(route, counters), '']),
    );
    if (wide) lines.push(...routeTable(tables, counters), '');
    const notes = noteLines(counters, status.mode);
    if (notes.length > 0) lines.push(...notes, '');
    print([...lines, ...changeLines(changes.changes.slice(-changesShown))]);
    return code;
  }
  print([
    ...statusLines(status),
    ...(wide ? ['', ...routeTable(tables, counters)] : []),
    '',
    ...changeLines(changes.changes.slice(-changesShown)),
  ]);
  return code;
}

/** Undefined where they cannot be read: the rest is worth showing. */
async function countersOf(client: DaemonClient): Promise<CountersDocument | undefined> {
  try {
    return await client.counters();
  } catch (error) {
    process.stderr.write(
      `Connections are not shown: ${error instanceof Error ? error.message : String(error)}\n`,
    );
    return undefined;
  }
}

function filteredCounters(
  counters: CountersDocument | undefined,
  tables: readonly RoutingTable[],
): CountersDocument | null {
  if (counters === undefined) return null;
  const ids = new Set(
    tables.flatMap(({ family, routes }) => [...routes.keys()].map((id) => `${family} ${id}`)),
  );
  const wanted = ({ family, id }: { family: string; id?: string }): boolean =>
    id === undefined || ids.has(`${family} ${id}`);
  return {
    ...counters,
    services: counters.services.filter(wanted),
    endpoints: counters.endpoints.filter(wanted),
    refused: counters.refused.filter(wanted),
  };
}

async function showChanges(
  client: DaemonClient,
  filter: ServiceFilter,
  text: string,
  json: boolean,
): Promise<number> {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new Error(`--changes "${text}" is not a number from 1 on`);
  const { changes, forgotten } = await client.changes(filter);
  const last = changes.slice(-Number(text));
  print(json ? [JSON.stringify({ changes: last, forgotten }, null, 2)] : changeLines(last));
  return exitOK;
}

async function showConnections(
  client: DaemonClient,
  status: StatusDocument,
  filter: ServiceFilter,
  json: boolean,
): Promise<number> {
  needsEndpointsInConntrack(status.mode);
  const tables = await client.tables(filter);
  if (isFiltered(filter) && tables.every(({ routes }) => routes.size === 0)) {
    print([await nothingFound(client, filter)]);
    return exitNothingFound;
  }
  const connections = await readConnections(status.pid, tables);
  if (json) print([JSON.stringify({ ...connections, findings: connectionFindings(connections) }, null, 2)]);
  else print(connectionLines(connections, isFiltered(filter) ? 10 : 0, terminalWidth()));
  return exitOK;
}

async function showKernel(error: DaemonUnreachable, json: boolean): Promise<void> {
  const facts = await kernelFacts();
  if (json) {
    const document = {
      daemon: null,
      error: error.message,
      kernel: facts,
      conntrack: conntrackFill() ?? null,
    };
    print([JSON.stringify(document, null, 2)]);
    return;
  }
  print([
    `No daemon: ${error.message}.`,
    'What the kernel holds in this network namespace:',
    ...kernelLines(facts),
  ]);
}
