/** `pointsman top`: new connections per second, by service port and endpoint, as they come. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, Option } from 'commander';
import {
  exitCodesHelp,
  exitError,
  exitNothingFound,
  exitOK,
  isFiltered,
  parseFilter,
  runCommand,
  socketOption,
} from './arguments.ts';
import { DaemonClient, type ServiceFilter } from './client.ts';
import { connectionFindings } from './connections.ts';
import { needsEndpointsInConntrack, readConnections, whereDaemonIs } from './conntrackView.ts';
import type { CountersDocument, StatusDocument } from './documents.ts';
import { FlowCounter } from './flowCounter.ts';
import { FlowIndex } from './flowIndex.ts';
import { nothingFound } from './nothingFound.ts';
import { ratesBetween, sortings, type Counts, type Rates, type Sorting } from './rates.ts';
import { connectionLines } from './text/statusText.ts';
import { fit } from './text/table.ts';
import { topLines, type TopHead } from './text/topText.ts';
import { programName } from '../programName.ts';

interface TopFlags {
  readonly socketPath?: string;
  readonly namespace?: string;
  readonly interval: string;
  readonly sort: Sorting;
  readonly source: 'auto' | 'rules' | 'conntrack';
  readonly once?: true;
  readonly json?: true;
  readonly connections?: true;
}

export function runTop(argv: readonly string[]): Promise<number> {
  let code = exitError;
  const command = new Command(`${programName} top`)
    .description(
      'New connections per second by service port and endpoint, and what is refused, as it happens.',
    )
    .argument('[service]', 'NAMESPACE/NAME, or NAMESPACE: only these Services')
    .option('-n, --namespace <name>', 'only Services of this namespace')
    .option('-i, --interval <seconds>', 'time between two readings', '2')
    .addOption(new Option('--sort <by>', 'order of service ports').choices([...sortings]).default('rate'))
    .addOption(
      new Option(
        '--source <source>',
        'rules: the counters of the rules; conntrack: its announcements, in every mode',
      )
        .choices(['auto', 'rules', 'conntrack'])
        .default('auto'),
    )
    .option('--connections', 'open connections instead of new ones')
    .option('--once', 'one interval, then the end')
    .option('--json', 'JSON, one document a line')
    .addOption(socketOption())
    .addHelpText('after', exitCodesHelp)
    .action(async (service: string | undefined, flags: TopFlags) => {
      code = await showTop(parseFilter(service, flags.namespace), flags);
    });
  return runCommand(command, argv, () => code);
}

/** Reads counts; made for one source. */
interface Meter {
  readonly source: string;
  /** Resolves to a new reading; `at` is when it was made, milliseconds. */
  read(): Promise<Counts & { readonly notes: readonly string[]; readonly at: number }>;
  close(): void;
}

async function showTop(filter: ServiceFilter, flags: TopFlags): Promise<number> {
  const interval = Number(flags.interval);
  if (!(interval >= 0.1 && interval <= 3600))
    throw new Error(`--interval "${flags.interval}" is not a number of seconds from 0.1 to 3600`);
  const client = new DaemonClient(flags.socketPath === undefined ? {} : { socketPath: flags.socketPath });
  const status = await client.status();
  if (isFiltered(filter) && (await client.tables(filter)).every(({ routes }) => routes.size === 0)) {
    process.stderr.write(`Error: ${await nothingFound(client, filter)}\n`);
    return exitNothingFound;
  }
  const screen = new Screen(flags.json === true || flags.once === true);
  try {
    if (flags.connections === true) await watchConnections(client, status, filter, flags, interval, screen);
    else await watchRates(client, status, filter, flags, interval, screen);
  } finally {
    screen.close();
  }
  return exitOK;
}

async function watchRates(
  client: DaemonClient,
  status: StatusDocument,
  filter: ServiceFilter,
  flags: TopFlags,
  interval: number,
  screen: Screen,
): Promise<void> {
  const meter = await openMeter(client, status, filter, flags.source);
  try {
    let before = await meter.read();
    screen.notice(
      `${status.node}: counting new connections; the first numbers come in ${interval} s. q ends.`,
    );
    while (await screen.wait(interval)) {
      const after = await meter.read();
      const rates = ratesBetween(before, after, (after.at - before.at) / 1000, flags.sort);
      before = after;
      const head = { node: status.node, mode: status.mode, source: meter.source, notes: after.notes };
      show(head, rates, flags.json === true, screen);
      if (flags.once === true) return;
    }
  } finally {
    meter.close();
  }
}

function show(head: TopHead, rates: Rates, json: boolean, screen: Screen): void {
  if (json) screen.line(JSON.stringify({ time: new Date().toISOString(), ...head, ...rates }));
  else screen.frame(topLines(head, rates, screen.width, screen.height));
}

async function watchConnections(
  client: DaemonClient,
  status: StatusDocument,
  filter: ServiceFilter,
  flags: TopFlags,
  interval: number,
  screen: Screen,
): Promise<void> {
  needsEndpointsInConntrack(status.mode);
  do {
    const connections = await readConnections(status.pid, await client.tables(filter));
    if (flags.json === true) {
      const findings = connectionFindings(connections);
      screen.line(JSON.stringify({ time: new Date().toISOString(), ...connections, findings }));
    } else screen.frame(connectionLines(connections, isFiltered(filter) ? 10 : 0, screen.width));
    if (flags.once === true) return;
  } while (await screen.wait(interval));
}

async function openMeter(
  client: DaemonClient,
  status: StatusDocument,
  filter: ServiceFilter,
  source: TopFlags['source'],
): Promise<Meter> {
  const counters = source === 'conntrack' ? undefined : await client.counters();
  if (counters !== undefined && counters.source !== 'none') return ruleMeter(client, filter, counters.source);
  if (source === 'rules')
    throw new Error(
      `no rule of ${status.mode} mode counts at --service-counters=${status.serviceCounters}; use --source=conntrack`,
    );
  return conntrackMeter(client, status, filter);
}

/** Where they are not those of rules. */
const counterNames: Readonly<Record<string, string>> = {
  ipvs: "IPVS's counters",
  userspace: "the daemon's own counters",
};

function ruleMeter(client: DaemonClient, filter: ServiceFilter, name: string): Meter {
  let last = '';
  return {
    source: counterNames[name] ?? `the counters of ${name} rules`,
    async read() {
      for (;;) {
        const counters = await client.counters();
        if (counters.read !== last) {
          last = counters.read;
          return { ...filterCounts(counters, filter), at: Date.parse(counters.read) };
        }
        // Where a reading takes long, the daemon gives the same one for a while.
        await sleep(100);
      }
    },
    close: () => undefined,
  };
}

async function conntrackMeter(
  client: DaemonClient,
  status: StatusDocument,
  filter: ServiceFilter,
): Promise<Meter> {
  needsEndpointsInConntrack(status.mode);
  const index = new FlowIndex(await client.tables(filter));
  const counter = whereDaemonIs(status.pid, () => new FlowCounter(index));
  return {
    source: "conntrack's announcements",
    async read() {
      counter.setIndex(new FlowIndex(await client.tables(filter)));
      const lost =
        counter.lost === 0 ? [] : ['More connections than could be followed: the numbers are too low.'];
      return { ...counter.tally.counts(), refused: [], masqueraded: [], notes: lost, at: performance.now() };
    },
    close: () => counter.close(),
  };
}

function filterCounts(counters: CountersDocument, filter: ServiceFilter): CountersDocument {
  if (!isFiltered(filter)) return counters;
  const { namespace = '', service = '' } = filter;
  const wanted = (id: string): boolean =>
    (namespace === '' || id.startsWith(`${namespace}/`)) &&
    (service === '' || id.split(/[/:]/)[1] === service);
  return {
    ...counters,
    services: counters.services.filter(({ id }) => wanted(id)),
    endpoints: counters.endpoints.filter(({ id }) => wanted(id)),
    refused: counters.refused.filter(({ id }) => id !== undefined && wanted(id)),
  };
}

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** A terminal is drawn anew for each reading; anything else gets one after the other. `q`, Ctrl-C or a signal ends. */
class Screen {
  readonly #terminal: boolean;
  #ended = false;
  readonly #end = new AbortController();
  readonly #stop = (): void => {
    this.#ended = true;
    this.#end.abort();
  };

  constructor(plain: boolean) {
    this.#terminal = !plain && process.stdout.isTTY && process.stdin.isTTY;
    if (!this.#terminal) return;
    process.stdout.write('\u001b[?1049h\u001b[?25l');
    process.stdin.setRawMode(true);
    process.stdin.on('data', (keys: Buffer) => {
      // Ctrl-C and Ctrl-D come as what they are: the terminal is raw.
      if (keys.some((key) => key === 0x71 || key === 3 || key === 4)) this.#stop();
    });
    // The terminal has to be given back as it was.
    for (const signal of signals) process.on(signal, this.#stop);
  }

  get width(): number {
    return this.#terminal ? process.stdout.columns : 200;
  }

  get height(): number {
    return this.#terminal ? process.stdout.rows : 10_000;
  }

  line(text: string): void {
    process.stdout.write(`${text}\n`);
  }

  frame(lines: readonly string[]): void {
    if (!this.#terminal) return void process.stdout.write(`${lines.join('\n')}\n\n`);
    const shown = lines.slice(0, this.height - 1).map((line) => fit(line, this.width));
    process.stdout.write(`\u001b[H${shown.map((line) => `${line}\u001b[K`).join('\n')}\u001b[J`);
  }

  /** For the time until there is something to show; a terminal only. */
  notice(text: string): void {
    if (this.#terminal) this.frame([text.slice(0, this.width)]);
  }

  /** False: somebody wants to end. */
  async wait(seconds: number): Promise<boolean> {
    try {
      await sleep(seconds * 1000, undefined, { signal: this.#end.signal });
    } catch {
      // Ended while waiting: the answer says so.
    }
    return !this.#ended;
  }

  close(): void {
    if (!this.#terminal) return;
    process.stdin.setRawMode(false);
    process.stdin.pause();
    for (const signal of signals) process.off(signal, this.#stop);
    process.stdout.write('\u001b[?25h\u001b[?1049l');
  }
}
