/**
 * What a scrape costs where everything has counted, without a kernel:
 *   node --expose-gc --import tsx bench/counterSeries.ts [SERVICES] [ENDPOINTS]
 */
import { Registry } from 'prom-client';
import type { Reading } from '../src/dataplane/counts.ts';
import { silentLogger } from '../src/log/logger.ts';
import { expose } from '../src/metrics/exposition.ts';
import { ServiceCounters } from '../src/status/counters/serviceCounters.ts';
import { makeRoute, makeTable } from '../test/dataplane/iptables/routes.ts';

const services = Number(process.argv[2] ?? 10_000);
const perService = Number(process.argv[3] ?? 10);
const collect = (globalThis as { gc?: () => void }).gc ?? (() => undefined);

const table = makeTable(
  Array.from({ length: services }, (_, i) =>
    makeRoute({
      name: `ns-${i % 100}/service-${i}`,
      portName: 'http',
      clusterIP: `10.${96 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`,
      port: 80,
      endpoints: Array.from({ length: perService }, (_, k) => {
        const n = i * perService + k;
        return `10.${128 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}:8080`;
      }),
    }),
  ),
);

let packets = 0;
function* readings(level: 'services' | 'endpoints'): Generator<Reading> {
  packets++;
  for (const { port, endpoints } of table.routes.values()) {
    yield { rule: `f ${port.clusterIP}`, meaning: { kind: 'service', id: port.id }, packets };
    if (level === 'services') continue;
    for (const { key } of endpoints)
      yield { rule: `e ${key}`, meaning: { kind: 'endpoint', id: port.id, endpoint: key }, packets };
  }
}

for (const level of ['services', 'endpoints'] as const) {
  collect();
  const before = process.memoryUsage().heapUsed;
  let now = 0;
  const counters = new ServiceCounters({
    level,
    log: silentLogger,
    now: () => now,
    families: [
      {
        family: 'IPv4',
        table: () => table,
        source: {
          name: 'nftables',
          mayMiss: true,
          notes: [],
          read: () => Promise.resolve([...readings(level)]),
        },
      },
    ],
  });
  const registry = new Registry();
  counters.register(registry);
  const times: number[] = [];
  let text = '';
  for (let i = 0; i < 7; i++) {
    now += 3_600_000;
    const started = process.cpuUsage();
    text = await expose(registry);
    const { user, system } = process.cpuUsage(started);
    times.push((user + system) / 1000);
  }
  times.sort((a, b) => a - b);
  collect();
  const series = text.split('\n').filter((line) => line.startsWith('pointsman_')).length;
  const heap = (process.memoryUsage().heapUsed - before) / 2 ** 20;
  console.log(
    `${level}: ${series} series, ${(text.length / 1e6).toFixed(1)} MB, a scrape takes ${(times[3] ?? NaN).toFixed(0)} ms of CPU, heap +${heap.toFixed(0)} MiB`,
  );
}
