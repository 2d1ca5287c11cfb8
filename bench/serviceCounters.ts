/**
 * What --service-counters costs in nftables mode: `unshare -n node --import tsx bench/serviceCounters.ts [SERVICES]`.
 * Needs root and a network namespace of its own: it refuses to run where there are other interfaces than lo.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer, connect, type AddressInfo } from 'node:net';
import { networkInterfaces } from 'node:os';
import { NftablesDataplane } from '../src/dataplane/nftables/nftablesDataplane.ts';
import { silentLogger } from '../src/log/logger.ts';
import type { Route } from '../src/services/types.ts';
import { counterLevels } from '../src/status/documents.ts';
import { endpoint, route, table as routingTable } from '../test/status/support/routes.ts';

const services = Number(process.argv[2] ?? 10_000);
const endpointsEach = 10;
const connections = 3000;

execFileSync('ip', ['link', 'set', 'lo', 'up']);
if (Object.keys(networkInterfaces()).some((name) => name !== 'lo'))
  throw new Error('run this in a network namespace of its own: unshare -n …');

/** Kilobytes. */
function kernelMemory(): number {
  const text = readFileSync('/proc/meminfo', 'utf8');
  const of = (name: string): number => Number(new RegExp(`^${name}: +(\\d+)`, 'm').exec(text)?.[1] ?? 0);
  return of('Slab') + of('Percpu') + of('VmallocUsed');
}

function routeOf(number: number, port: number): Route {
  const clusterIP = `10.${96 + (number >> 16)}.${(number >> 8) & 255}.${number & 255}`;
  const endpoints = Array.from({ length: endpointsEach }, (_, i) => {
    const index = number * endpointsEach + i;
    return number === 0
      ? endpoint('127.0.0.1', { port: port + i })
      : endpoint(`10.${128 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`);
  });
  return route(`s-${number}`, endpoints, { servicePort: { clusterIP } });
}

function once(host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(80, host);
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.resetAndDestroy();
      resolve();
    });
  });
}

const servers = await Promise.all(
  Array.from(
    { length: endpointsEach },
    (_, i) =>
      new Promise<AddressInfo>((resolve) => {
        const server = createServer((socket) => socket.on('error', () => undefined));
        server.listen(20_000 + i, '127.0.0.1', () => resolve(server.address() as AddressInfo));
        server.unref();
      }),
  ),
);
const routes = routingTable(...Array.from({ length: services }, (_, i) => routeOf(i, servers[0]?.port ?? 0)));
execFileSync('sysctl', ['-qw', 'net.ipv4.conf.all.route_localnet=1']);
execFileSync('ip', ['route', 'add', 'local', '10.96.0.0/12', 'dev', 'lo']);

for (const serviceCounters of counterLevels) {
  const before = kernelMemory();
  const dataplane = new NftablesDataplane(
    {
      family: 'IPv4',
      masqueradeBit: 14,
      masqueradeAll: false,
      localDetector: undefined,
      nodeIP: '127.0.0.1',
      nodePortAddresses: ['0.0.0.0/0'],
      syncPeriod: 30_000,
      serviceCounters,
    },
    { log: silentLogger, report: () => undefined, events: { resync: () => undefined } },
  );
  await dataplane.start();
  let started = performance.now();
  await dataplane.sync({
    table: routes,
    changes: { family: 'IPv4', changes: [], udpEndpointsChanged: false, triggerTimes: [] },
    serviceCIDRs: [],
    full: true,
  });
  const sync = performance.now() - started;
  const memory = kernelMemory() - before;
  for (let i = 0; i < 300; i++) await once('10.96.0.0');
  started = performance.now();
  for (let i = 0; i < connections; i++) await once('10.96.0.0');
  const each = ((performance.now() - started) / connections) * 1000;
  let reading = 0;
  if (serviceCounters !== 'off') {
    started = performance.now();
    await dataplane.counters?.read();
    reading = performance.now() - started;
  }
  console.log(
    `${serviceCounters.padEnd(9)}  first sync ${sync.toFixed(0)} ms, kernel memory +${(memory / 1024).toFixed(1)} MiB, ` +
      `a connection ${each.toFixed(0)} µs, reading all counters ${reading.toFixed(0)} ms`,
  );
  await dataplane.stop();
  execFileSync('nft', ['flush', 'ruleset']);
  await new Promise((resolve) => setTimeout(resolve, 2000));
}
