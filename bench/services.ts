/**
 * What the service model costs, without API and kernel:
 *   node --expose-gc --import tsx bench/services.ts [SERVICES] [ENDPOINTS]
 * prints the time to load N Services x M endpoints, the heap they take, and the time of one endpoint change.
 */
import type { EndpointSlice } from '../src/api/objects.ts';
import { RouteTracker } from '../src/services/routeTracker.ts';
import { backend, port, service, slice, slicePort } from '../test/services/build.ts';

const services = Number(process.argv[2] ?? 10_000);
const endpoints = Number(process.argv[3] ?? 10);
const collect = (globalThis as { gc?: () => void }).gc ?? (() => undefined);

/** The slice of Service `i`; its first endpoint has another address for every `generation`. */
function sliceOf(i: number, generation = 0): EndpointSlice {
  const backends = Array.from({ length: endpoints }, (_, j) => {
    const n = i * endpoints + j;
    const block = j === 0 ? 1 + (generation % 100) : 101;
    return backend(`${block}.${n >> 16}.${(n >> 8) & 255}.${n & 255}`, {
      nodeName: `node-${n % 50}`,
      zone: `zone-${n % 3}`,
      zoneHints: [`zone-${n % 3}`],
      pod: `default/s${i}-${j}`,
    });
  });
  return slice(`s${i}-slice`, `s${i}`, backends, { ports: [slicePort({ name: 'http' })] });
}

function percentiles(times: number[]): string {
  times.sort((a, b) => a - b);
  const at = (share: number): string => (times[Math.floor(share * (times.length - 1))] ?? NaN).toFixed(3);
  return `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, max ${at(1)} ms`;
}

collect();
const heapBefore = process.memoryUsage().heapUsed;
const tracker = new RouteTracker({ family: 'IPv4', nodeName: 'node-1', zone: 'zone-1' });
let loading = 0;
for (let i = 0; i < services; i++) {
  const clusterIP = `10.${96 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;
  const object = service(`s${i}`, { clusterIP, ports: [port({ name: 'http' })] });
  const endpointSlice = sliceOf(i);
  const start = performance.now();
  tracker.upsertService(object);
  tracker.upsertSlice(endpointSlice);
  loading += performance.now() - start;
}
const takeStart = performance.now();
tracker.take();
const taking = performance.now() - takeStart;
collect();
const heap = (process.memoryUsage().heapUsed - heapBefore) / 2 ** 20;
console.log(
  `load ${services} x ${endpoints}: events ${loading.toFixed(0)} ms, first take ${taking.toFixed(0)} ms`,
);
console.log(`heap: ${heap.toFixed(1)} MiB`);

const times: number[] = [];
for (let k = 0; k < 5000; k++) {
  const changed = sliceOf((k * 7919) % services, (k % 99) + 1);
  const start = performance.now();
  tracker.upsertSlice(changed);
  const { changes } = tracker.take();
  times.push(performance.now() - start);
  if (changes.length !== 1) throw new Error(`one endpoint changed, but ${changes.length} routes`);
}
console.log(`one endpoint replaced: ${percentiles(times)}`);

const huge = new RouteTracker({ family: 'IPv4', nodeName: 'node-1' });
huge.upsertService(service('huge'));
const part = (i: number, last: number): EndpointSlice =>
  slice(`huge-${i}`, 'huge', [
    ...Array.from({ length: 99 }, (_, j) => `10.1.${i}.${j}`),
    `10.1.${i}.${last}`,
  ]);
for (let i = 0; i < 100; i++) huge.upsertSlice(part(i, 99));
huge.take();
const hugeTimes: number[] = [];
for (let k = 0; k < 500; k++) {
  const changed = part(k % 100, 100 + (Math.floor(k / 100) % 100));
  const start = performance.now();
  huge.upsertSlice(changed);
  huge.take();
  hugeTimes.push(performance.now() - start);
}
console.log(`one endpoint replaced in a Service of 10,000: ${percentiles(hugeTimes)}`);
