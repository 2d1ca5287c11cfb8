/**
 * What IPVS mode costs on the kernel's side: the first sync of N Services x M endpoints, and one changed endpoint, in
 * netlink messages and milliseconds. Changes the kernel of the network it runs in: meant for the guest.
 *
 *   scripts/vm-run.sh node --import tsx bench/ipvs.ts [--services 100,1000] [--endpoints 10] [--changes 200]
 */
import { execFileSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { cleanup } from '../src/dataplane/ipvs/cleanup.ts';
import { openIpvs } from '../src/dataplane/ipvs/checks.ts';
import { IpvsDataplane } from '../src/dataplane/ipvs/ipvsDataplane.ts';
import { NetlinkSocket } from '../src/linux/netlink/socket.ts';
import { silentLogger } from '../src/log/logger.ts';
import type { ChangeSet, Route } from '../src/services/types.ts';
import { ipv4Options, makeRoute, makeTable } from '../test/dataplane/iptables/routes.ts';
import { distribution } from './cluster/statistics.ts';

const { values } = parseArgs({
  options: {
    services: { type: 'string', default: '100,1000' },
    endpoints: { type: 'string', default: '10' },
    changes: { type: 'string', default: '200' },
  },
});
const endpoints = Number(values.endpoints);
const changes = Number(values.changes);

if (process.env['POINTSMAN_VM'] === undefined)
  throw new Error('it changes the kernel of the network it runs in: start it with scripts/vm-run.sh');

let messages = 0;
for (const name of ['request', 'dump'] as const) {
  const original: (...args: never[]) => unknown = NetlinkSocket.prototype[name];
  Object.defineProperty(NetlinkSocket.prototype, name, {
    value: function counted(this: NetlinkSocket, ...args: never[]): unknown {
      messages++;
      return original.apply(this, args);
    },
  });
}

/** Endpoint 0 of Service `i` has another address in every generation. */
function routeOf(i: number, generation = 0): Route {
  return makeRoute({
    name: `bench/s${i}`,
    clusterIP: `10.${96 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`,
    port: 80,
    endpoints: Array.from({ length: endpoints }, (_, j) => {
      const n = i * endpoints + j;
      const block = j === 0 ? 1 + (generation % 90) : 100;
      return `${block}.${n >> 16}.${(n >> 8) & 255}.${n & 255}:8080${j === 1 ? 'L' : ''}`;
    }),
  });
}

/** Microseconds that one small question to the kernel takes here: how slow this guest is. */
function questionTime(): number {
  const ipvs = openIpvs();
  const start = performance.now();
  for (let i = 0; i < 2000; i++) ipvs.info();
  const time = (performance.now() - start) / 2;
  ipvs.close();
  return time;
}

async function measure(services: number): Promise<void> {
  const routes = Array.from({ length: services }, (_, i) => routeOf(i));
  const open = async (): Promise<IpvsDataplane> => {
    const dataplane = new IpvsDataplane(
      { ...ipv4Options, scheduler: '', excludeCIDRs: [] },
      {
        log: silentLogger,
        report: () => undefined,
        events: { resync: () => undefined },
        checkInterval: 3_600_000,
      },
    );
    await dataplane.start();
    return dataplane;
  };
  const changeSet = (list: ChangeSet['changes']): ChangeSet => ({
    family: 'IPv4',
    changes: list,
    udpEndpointsChanged: false,
    triggerTimes: [],
  });
  const first = async (dataplane: IpvsDataplane): Promise<string> => {
    messages = 0;
    const start = performance.now();
    const table = makeTable(routes);
    await dataplane.sync({ table, changes: changeSet([]), serviceCIDRs: [], full: true });
    return `${((performance.now() - start) / 1000).toFixed(1)} s, ${messages} netlink messages`;
  };
  let dataplane = await open();
  console.log(`${services} Services x ${endpoints}`);
  console.log(`  first sync, nothing there:  ${await first(dataplane)}`);
  const table = makeTable(routes);
  const times: number[] = [];
  messages = 0;
  for (let k = 1; k <= changes; k++) {
    const i = (k * 7919) % services;
    const before = routes[i]!;
    const after = routeOf(i, k);
    routes[i] = after;
    (table.routes as Map<string, Route>).set(after.port.id, after);
    const start = performance.now();
    const one = changeSet([{ id: after.port.id, before, after }]);
    await dataplane.sync({ table, changes: one, serviceCIDRs: [], full: false });
    times.push(performance.now() - start);
  }
  const { p50, p99 } = distribution(times);
  console.log(
    `  an endpoint replaced:       ${p50.toFixed(2)} ms (p99 ${p99.toFixed(2)}), ${(messages / changes).toFixed(1)} netlink messages`,
  );
  const start = performance.now();
  const wrong = await dataplane.lookForDrift();
  if (wrong !== undefined) throw new Error(`the kernel does not hold what it was given: ${wrong}`);
  console.log(`  a look for other hands:     ${((performance.now() - start) / 1000).toFixed(2)} s`);
  await dataplane.stop();
  dataplane = await open();
  console.log(`  first sync, all is there:   ${await first(dataplane)}`);
  await dataplane.stop();
  await cleanup({ log: silentLogger });
}

execFileSync('ip', ['link', 'add', 'eth0', 'type', 'dummy']);
execFileSync('ip', ['addr', 'add', '192.0.2.10/24', 'dev', 'eth0']);
console.log(`a question to the kernel: ${questionTime().toFixed(0)} microseconds`);
for (const services of values.services.split(',').map(Number)) await measure(services);
console.log(`resident memory at the end: ${Math.round(process.memoryUsage().rss / 2 ** 20)} MiB`);
