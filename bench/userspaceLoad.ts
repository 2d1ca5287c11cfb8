/**
 * What userspace mode does with N services x M endpoints: the first sync into an empty kernel, the same again over its
 * own rules, looks for changes by others, changed endpoints, Services that come and go; and for how long connections
 * would have waited meanwhile. Runs in a network namespace of its own:
 *
 *   node --import tsx bench/userspaceLoad.ts [--program iptables-nft|iptables-legacy] [--changes 20] [--ballast 40] [--fork] [--direct] N M
 */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { DirectDataplane } from '../src/dataplane/userspace/directDataplane.ts';
import { PortAllocator } from '../src/dataplane/userspace/portAllocator.ts';
import { UserspaceDataplane } from '../src/dataplane/userspace/userspaceDataplane.ts';
import { makeOwnedDirectory } from '../src/lab/net/ownedDirectory.ts';
import { run } from '../src/linux/exec.ts';
import { silentLogger } from '../src/log/logger.ts';
import { collectAlone } from '../src/proxy/heap.ts';
import { processSockets } from '../src/proxy/socketBudget.ts';
import type { Route } from '../src/services/types.ts';
import { changesBetween, ipv4Options, makeRoute, makeTable } from '../test/dataplane/iptables/routes.ts';
import { watchLag } from './lag.ts';

const { values, positionals } = parseArgs({
  options: {
    program: { type: 'string', default: 'iptables-nft' },
    changes: { type: 'string', default: '20' },
    /** MB of other memory that the process has, as the daemon has a copy of the cluster. */
    ballast: { type: 'string', default: '40' },
    /** Programs are started by Node's fork, on the thread that connections go through, for comparison. */
    fork: { type: 'boolean', default: false },
    /** Without NAT: service addresses become the node's own. */
    direct: { type: 'boolean', default: false },
  },
  allowPositionals: true,
});
const [services = 1000, endpoints = 10] = positionals.map(Number);

if (process.env['POINTSMAN_BENCH_INSIDE'] === undefined) {
  const directory = makeOwnedDirectory('bench');
  const flags = ['--max-semi-space-size=4', ...process.execArgv];
  const inside = spawnSync('unshare', ['--net', process.execPath, ...flags, ...process.argv.slice(1)], {
    stdio: 'inherit',
    env: { ...process.env, POINTSMAN_BENCH_INSIDE: '1', XTABLES_LOCKFILE: join(directory, 'xtables.lock') },
  });
  rmSync(directory, { recursive: true });
  process.exit(inside.status ?? 1);
}

/** `moved` gives its first endpoint another address. */
function routeOf(i: number, moved = 0): Route {
  const pod = (j: number, net: number): string =>
    `10.${net}.${(i >> 5) & 255}.${(((i & 31) << 3) % 250) + (j % 8)}:${8000 + j}`;
  return makeRoute({
    name: `default/service-${i}`,
    portName: 'http',
    clusterIP: `10.${96 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`,
    port: 80,
    nodePort: 10_000 + i,
    endpoints: Array.from({ length: endpoints }, (_, j) => pod(j, j === 0 ? 128 + moved : 200)),
  });
}

const lag = watchLag(1);

async function timed(what: string, work: () => Promise<unknown>): Promise<void> {
  await sleep(50);
  lag.reset();
  const begin = performance.now();
  await work();
  const took = performance.now() - begin;
  await sleep(50);
  const rss = Math.round(process.memoryUsage().rss / 2 ** 20);
  process.stdout.write(
    `${what.padEnd(44)} ${took.toFixed(0).padStart(6)} ms; held up: CPU ${lag.longest.cpu.toFixed(1)} ms, own ${lag.longest.own.toFixed(1)} ms, with waiting for a CPU ${lag.longest.all.toFixed(1)} ms; rss ${rss} MB\n`,
  );
}

spawnSync('ip', ['link', 'set', 'lo', 'up']);
collectAlone();
const ballast = Buffer.alloc(Number(values.ballast) << 20, 1);
const program = values.program;
const options = {
  ...ipv4Options,
  bindAddress: '0.0.0.0',
  udpIdleTimeout: 60_000,
  checkInterval: 2 ** 30,
};
const deps = {
  log: {
    ...silentLogger,
    error: (message: string, fields?: object) =>
      void process.stdout.write(`${message} ${JSON.stringify(fields)}\n`),
  },
  events: { resync: (reason: string) => void process.stdout.write(`${reason}\n`) },
  report: () => undefined,
  sockets: processSockets(silentLogger),
};
const dataplane = values.direct
  ? new DirectDataplane(options, deps)
  : new UserspaceDataplane(options, {
      ...deps,
      ports: new PortAllocator(undefined),
      iptables: values.fork ? { program, run } : { program },
    });
await dataplane.start();
let routes = Array.from({ length: services }, (_, i) => routeOf(i));
let table = makeTable([]);
async function to(next: readonly Route[], full = false): Promise<void> {
  const last = table;
  table = makeTable(next);
  await dataplane.sync({ table, changes: changesBetween(last, table), serviceCIDRs: [], full });
}
await timed(`first sync, ${services} x ${endpoints}`, () => to(routes, true));
for (let i = 0; i < 3; i++) await timed('full sync', () => to(routes, true));
if (dataplane instanceof UserspaceDataplane) {
  const rules = dataplane;
  for (let i = 0; i < 3; i++) await timed('a look for changes by others', () => rules.lookForDrift());
}
await timed('all Services gone', () => to([]));
await timed('all Services come back', () => to(routes));
await timed(`${values.changes} times an endpoint replaced`, async () => {
  for (let i = 1; i <= Number(values.changes); i++) {
    routes = routes.with(i, routeOf(i, i));
    await sleep(1);
    await to(routes);
  }
});
await timed(`${values.changes} times a Service gone, and come back`, async () => {
  for (let i = 1; i <= Number(values.changes) / 2; i++) {
    await to(routes.toSpliced(i, 1));
    await to(routes);
  }
});
process.stdout.write(`${ballast.length >> 20} MB of ballast\n`);
await dataplane.stop();
