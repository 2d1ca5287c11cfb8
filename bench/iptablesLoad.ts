/**
 * How long iptables mode takes to load N services x M endpoints into an empty kernel, to change one endpoint, and to
 * start over its own rules. Runs in a network namespace of its own:
 *
 *   node --import tsx bench/iptablesLoad.ts [--program iptables-nft|iptables-legacy] [--changes 20] [--drift] [--restart] N M
 */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { EndpointSlice, Service } from '../src/api/objects.ts';
import { emptyTable } from '../src/dataplane/iptables/actual.ts';
import { planFull } from '../src/dataplane/iptables/fullPlan.ts';
import { IptablesDataplane } from '../src/dataplane/iptables/iptablesDataplane.ts';
import { nftLimits, planPartial } from '../src/dataplane/iptables/partialPlan.ts';
import { settingsOf } from '../src/dataplane/iptables/settings.ts';
import { nodePortTail } from '../src/dataplane/iptables/staticRules.ts';
import { makeOwnedDirectory } from '../src/lab/net/ownedDirectory.ts';
import { silentLogger } from '../src/log/logger.ts';
import { RouteTracker } from '../src/services/routeTracker.ts';
import { port, service, slice, slicePort } from '../test/services/build.ts';

const { values, positionals } = parseArgs({
  options: {
    program: { type: 'string', default: 'iptables-nft' },
    changes: { type: 'string', default: '20' },
    restart: { type: 'boolean', default: false },
    drift: { type: 'boolean', default: false },
  },
  allowPositionals: true,
});

if (process.env['POINTSMAN_BENCH_INSIDE'] === undefined) {
  const directory = makeOwnedDirectory('bench');
  const inside = spawnSync(
    'unshare',
    ['--net', process.execPath, ...process.execArgv, ...process.argv.slice(1)],
    {
      stdio: 'inherit',
      env: {
        ...process.env,
        POINTSMAN_BENCH_INSIDE: '1',
        XTABLES_LOCKFILE: join(directory, 'xtables.lock'),
      },
    },
  );
  rmSync(directory, { recursive: true });
  process.exit(inside.status ?? 1);
}

const [services = 1000, endpoints = 10] = positionals.map(Number);

function serviceOf(i: number): Service {
  const clusterIP = `10.${96 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;
  return service(`service-${i}`, { clusterIP, ports: [port({ name: 'http' })] });
}

/** Its first endpoint is another one for every `moved`. */
function sliceOf(i: number, moved = 0): EndpointSlice {
  const addresses = Array.from({ length: endpoints }, (_, j) => {
    const n = i * endpoints + j;
    return j === 0 && moved > 0
      ? `10.250.${(moved >> 8) & 255}.${moved & 255}`
      : `10.${128 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`;
  });
  return slice(`service-${i}-x`, `service-${i}`, addresses, { ports: [slicePort({ name: 'http' })] });
}

const options = {
  family: 'IPv4',
  masqueradeBit: 14,
  masqueradeAll: false,
  localDetector: { kind: 'cidr', cidr: '10.128.0.0/9' },
  nodeIP: '192.0.2.10',
  nodePortAddresses: ['0.0.0.0/0'],
  syncPeriod: 30_000,
  localhostNodePorts: true,
} as const;

const newDataplane = (): IptablesDataplane =>
  new IptablesDataplane(options, {
    log: silentLogger,
    report: () => undefined,
    events: { resync: (reason) => console.log('resync asked for:', reason) },
    iptables: { program: values.program },
  });

const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(2)} s`;
const mebibytes = (bytes: number): string => `${(bytes / 1048576).toFixed(0)} MiB`;
const percentile = (list: readonly number[], p: number): string =>
  ([...list].sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(list.length * p))] ?? 0).toFixed(1);

const tracker = new RouteTracker({ family: 'IPv4', nodeName: 'node-a' });
for (let i = 0; i < services; i++) {
  tracker.upsertService(serviceOf(i));
  tracker.upsertSlice(sliceOf(i));
}
const first = tracker.take();
const dataplane = newDataplane();
await dataplane.start();
console.log(
  `${services} x ${endpoints}, ${values.program}; resident before the first sync ${mebibytes(process.memoryUsage.rss())}`,
);
let begun = performance.now();
await dataplane.sync({ table: tracker.table, changes: first, serviceCIDRs: [], full: true });
console.log(
  `first load ${seconds(begun)}; resident ${mebibytes(process.memoryUsage.rss())}, peak ${mebibytes(process.resourceUsage().maxRSS * 1024)}`,
);

const walls: number[] = [];
let moved = 0;
for (let n = 0; n < Number(values.changes); n++) {
  const i = Math.floor((n * services) / Number(values.changes));
  begun = performance.now();
  tracker.upsertSlice(sliceOf(i, ++moved));
  await dataplane.sync({ table: tracker.table, changes: tracker.take(), serviceCIDRs: [], full: false });
  walls.push(performance.now() - begun);
}
console.log(
  `one endpoint changed, in the kernel after: median ${percentile(walls, 0.5)} ms, p95 ${percentile(walls, 0.95)} ms`,
);

// Our own share: the change handed in until the restore input is made, without iptables-restore.
const settings = settingsOf(options, {
  tcpBeLiberal: false,
  randomFully: true,
  countInvalid: true,
  countLocalhost: true,
});
const { rules: tail } = nodePortTail(settings, []);
const nothing = { filter: emptyTable(), nat: emptyTable() };
begun = performance.now();
const plan = planFull(nothing, tracker.table, settings, tail, nftLimits);
let step = plan.next();
while (step.done !== true) step = plan.next();
console.log(`making the documents of a first load: ${seconds(begun)}`);
const mirror = step.value;
const shares: number[] = [];
for (let n = 0; n < 500; n++) {
  const update = sliceOf(Math.floor((n * services) / 500), ++moved);
  begun = performance.now();
  tracker.upsertSlice(update);
  const partial = planPartial(mirror, tracker.take(), tail, nftLimits);
  partial.apply();
  shares.push(performance.now() - begun);
}
const share = (p: number): string =>
  ([...shares].sort((a, b) => a - b)[Math.floor(shares.length * p)] ?? 0).toFixed(3);
console.log(`our share of it: median ${share(0.5)} ms, p99 ${share(0.99)} ms`);

// Somebody else empties one chain: how long until it is noticed, and until it is mended.
if (values.drift) {
  await dataplane.sync({ table: tracker.table, changes: first, serviceCIDRs: [], full: true });
  begun = performance.now();
  console.log(`reading all rules: ${(await dataplane.lookForDrift()) ?? 'nothing wrong'}, ${seconds(begun)}`);
  spawnSync(values.program, ['-w', '5', '-t', 'nat', '-F', 'KUBE-SERVICES']);
  begun = performance.now();
  console.log(`noticed: ${(await dataplane.lookForDrift()) ?? 'NOTHING'}, ${seconds(begun)}`);
  begun = performance.now();
  await dataplane.sync({ table: tracker.table, changes: first, serviceCIDRs: [], full: true });
  console.log(`mended in ${seconds(begun)}`);
}

if (values.restart) {
  await dataplane.stop();
  const next = newDataplane();
  await next.start();
  begun = performance.now();
  await next.sync({ table: tracker.table, changes: first, serviceCIDRs: [], full: true });
  console.log(
    `start over these rules ${seconds(begun)}; resident ${mebibytes(process.memoryUsage.rss())}, peak ${mebibytes(process.resourceUsage().maxRSS * 1024)}`,
  );
  await next.stop();
}
await dataplane.stop();
