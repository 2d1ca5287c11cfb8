/**
 * What nftables mode costs without API, in a network namespace of its own:
 *   node --expose-gc --import tsx bench/nftables.ts [SERVICES] [ENDPOINTS] [off|services|endpoints]
 * prints the start from an empty table and over one that is right already, single changes, a rolling update, the
 * longest pause of the event loop and of another process' transactions meanwhile, and the memory.
 */
import { spawn } from 'node:child_process';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { NftablesDataplane } from '../src/dataplane/nftables/nftablesDataplane.ts';
import { withNetworkNamespace } from '../src/linux/netlink/namespace.ts';
import { silentLogger } from '../src/log/logger.ts';
import type { Endpoint, Route, RoutingTable } from '../src/services/types.ts';
import { counterLevels } from '../src/status/documents.ts';
import { ipv4Options, makeEndpoint, makeRoute } from '../test/dataplane/iptables/routes.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../test/support/namespace.ts';

const services = Number(process.argv[2] ?? 10_000);
const perService = Number(process.argv[3] ?? 10);
const serviceCounters = counterLevels.find((level) => level === process.argv[4]) ?? 'off';
const collect = (globalThis as { gc?: () => void }).gc ?? (() => undefined);

function address(n: number, block = 1): string {
  return `10.${128 + block}.${(n >> 8) & 255}.${n & 255}`;
}

function endpointsOf(service: number, count: number): Endpoint[] {
  return Array.from({ length: count }, (_, i) => {
    const n = service * perService + i;
    return makeEndpoint(`${address(n, (n >> 16) & 63)}:8080${n % 50 === 0 ? 'L' : ''}`);
  });
}

/** A route with other endpoints. */
function withEndpoints(route: Route, endpoints: readonly Endpoint[]): Route {
  const sorted = endpoints.toSorted((a, b) => (a.key < b.key ? -1 : 1));
  return { ...route, cluster: sorted, reachable: sorted, endpoints: sorted, hasAny: true };
}

function percentiles(times: number[]): string {
  times.sort((a, b) => a - b);
  const at = (share: number): string => (times[Math.floor(share * (times.length - 1))] ?? NaN).toFixed(3);
  return `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, max ${at(1)} ms`;
}

const routes = new Map<string, Route>();
for (let i = 0; i < services; i++) {
  const template = makeRoute({
    name: `ns-${i % 100}/service-${i}`,
    portName: 'http',
    clusterIP: `10.${96 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`,
    port: 80,
    endpoints: [],
  });
  routes.set(template.port.id, {
    ...withEndpoints(template, endpointsOf(i, perService)),
    internal: 'cluster',
  });
}
const table: RoutingTable = { family: 'IPv4', routes };
const ids = [...routes.keys()];
collect();
const baseline = process.memoryUsage();

const namespace = makeNamespace();

async function makeDataplane(): Promise<NftablesDataplane> {
  const dataplane = new NftablesDataplane(
    { ...ipv4Options, nodePortAddresses: ['192.0.2.10/32'], serviceCounters },
    {
      log: silentLogger,
      report: () => undefined,
      events: { resync: (reason) => console.log(`unexpected: ${reason}`) },
      localAddresses: () => ['192.0.2.10'],
      watchAddresses: () => () => undefined,
    },
  );
  await withNetworkNamespace(`/run/netns/${namespace}`, () => dataplane.start());
  return dataplane;
}

const empty = { family: 'IPv4', changes: [], udpEndpointsChanged: false, triggerTimes: [] } as const;

async function fullSync(dataplane: NftablesDataplane, what: string): Promise<void> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const cpu = process.cpuUsage();
  const start = performance.now();
  await dataplane.sync({ table, changes: empty, serviceCIDRs: ['10.96.0.0/12'], full: true });
  const wall = performance.now() - start;
  const { user, system } = process.cpuUsage(cpu);
  delay.disable();
  console.log(
    `${what}: ${wall.toFixed(0)} ms (user ${(user / 1000).toFixed(0)}, system ${(system / 1000).toFixed(0)}), longest pause of the event loop ${(delay.max / 1e6).toFixed(1)} ms`,
  );
}

/** Another process that changes a table of its own, over and over; resolves to how long its changes took. */
function otherTransactions(): () => Promise<string> {
  const script = `
    import { Batch } from ${JSON.stringify(new URL('../src/linux/netlink/nftables/batch.ts', import.meta.url).href)};
    import { table } from ${JSON.stringify(new URL('../src/linux/netlink/nftables/objects.ts', import.meta.url).href)};
    import { NftSocket } from ${JSON.stringify(new URL('../src/linux/netlink/nftables/socket.ts', import.meta.url).href)};
    const nft = new NftSocket();
    const own = table('ip', 'other');
    const times = [];
    let stopped = false;
    process.stdin.on('data', () => { stopped = true; });
    while (!stopped) {
      const start = performance.now();
      nft.commit(new Batch().add(own).delete(own));
      times.push(performance.now() - start);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    times.sort((a, b) => a - b);
    console.log(times.length + ' transactions, p50 ' + times[times.length >> 1].toFixed(2) + ' ms, max ' + times.at(-1).toFixed(1) + ' ms');
    process.exit(0);`;
  const argv = [
    'netns',
    'exec',
    namespace,
    process.execPath,
    '--import',
    'tsx',
    '--input-type=module',
    '-e',
    script,
  ];
  const child = spawn('ip', argv, { stdio: ['pipe', 'pipe', 'inherit'] });
  let said = '';
  child.stdout.on('data', (data: Buffer) => (said += data.toString()));
  return async () => {
    child.stdin.write('stop\n');
    await new Promise((resolve) => child.on('close', resolve));
    return said.trim();
  };
}

function single(dataplane: NftablesDataplane, id: string, after: Route): number {
  const before = routes.get(id)!;
  routes.set(id, after);
  const changes = { ...empty, changes: [{ id, before, after }] };
  const start = performance.now();
  // A partial sync does its work before it returns; the promise is only its result.
  const done = dataplane.sync({ table, changes, serviceCIDRs: ['10.96.0.0/12'], full: false });
  const time = performance.now() - start;
  pending.push(done);
  return time;
}
const pending: Promise<unknown>[] = [];

async function settle(): Promise<void> {
  for (const { full } of (await Promise.all(pending)) as { full: boolean }[]) {
    if (full) throw new Error('a single change became a full sync');
  }
  pending.length = 0;
}

try {
  console.log(`${services} services x ${perService} endpoints, counters: ${serviceCounters}`);
  let dataplane = await makeDataplane();
  await fullSync(dataplane, 'start from empty');
  await dataplane.stop();
  inNamespace(namespace, ['nft', 'delete', 'table', 'ip', 'kube-proxy']);
  dataplane = await makeDataplane();
  const stopOthers = otherTransactions();
  await new Promise((resolve) => setTimeout(resolve, 1500));
  await fullSync(dataplane, 'start from empty, warm, with others at work');
  console.log(`others meanwhile: ${await stopOthers()}`);
  await dataplane.stop();
  dataplane = await makeDataplane();
  await fullSync(dataplane, 'start over a table that is right');
  await fullSync(dataplane, 'full sync, nothing to do');

  const replaced: number[] = [];
  const added: number[] = [];
  const removed: number[] = [];
  for (let k = 0; k < 2000; k++) {
    const id = ids[(k * 7919) % ids.length]!;
    const { cluster } = routes.get(id)!;
    const extra = makeEndpoint(`10.250.${k >> 8}.${k & 255}:8080`);
    replaced.push(single(dataplane, id, withEndpoints(routes.get(id)!, [...cluster.slice(1), extra])));
    await settle();
    const another = makeEndpoint(`10.251.${k >> 8}.${k & 255}:8080`);
    added.push(single(dataplane, id, withEndpoints(routes.get(id)!, [...routes.get(id)!.cluster, another])));
    await settle();
    removed.push(single(dataplane, id, withEndpoints(routes.get(id)!, routes.get(id)!.cluster.slice(1))));
    await settle();
  }
  console.log(`one endpoint replaced: ${percentiles(replaced)}`);
  console.log(`one endpoint added:    ${percentiles(added)}`);
  console.log(`one endpoint removed:  ${percentiles(removed)}`);

  const crossing: number[] = [];
  for (let k = 0; k < 200; k++) {
    const id = ids[(k * 7919) % ids.length]!;
    const list = Array.from({ length: 17 }, (_, i) => makeEndpoint(`10.252.${k}.${i}:8080`));
    single(dataplane, id, withEndpoints(routes.get(id)!, list.slice(0, 16)));
    await settle();
    crossing.push(single(dataplane, id, withEndpoints(routes.get(id)!, list)));
    await settle();
  }
  console.log(`one endpoint added, into another size class: ${percentiles(crossing)}`);

  const id = ids[0]!;
  let list = Array.from({ length: 100 }, (_, i) => makeEndpoint(`10.253.0.${i}:8080`));
  single(dataplane, id, withEndpoints(routes.get(id)!, list));
  await settle();
  const cpu = process.cpuUsage();
  const rolling: number[] = [];
  for (let k = 0; k < 100; k++) {
    list = [...list, makeEndpoint(`10.253.1.${k}:8080`)];
    rolling.push(single(dataplane, id, withEndpoints(routes.get(id)!, list)));
    await settle();
    list = list.slice(1);
    rolling.push(single(dataplane, id, withEndpoints(routes.get(id)!, list)));
    await settle();
  }
  const { user, system } = process.cpuUsage(cpu);
  console.log(
    `rolling update of 100 endpoints: ${percentiles(rolling)}; CPU ${((user + system) / 1000 / rolling.length).toFixed(3)} ms per event`,
  );
  collect();
  const memory = process.memoryUsage();
  const MiB = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
  console.log(
    `memory: ${MiB(memory.rss)} MiB resident (${MiB(baseline.rss)} with the routes alone), heap +${MiB(memory.heapUsed - baseline.heapUsed)} MiB for the mode`,
  );
  const chains = inNamespace(namespace, ['nft', 'list', 'chains', 'ip']).match(/chain /g)?.length ?? 0;
  console.log(`chains in the table: ${chains}`);
  await dataplane.stop();
} finally {
  removeNamespace(namespace);
}
