/**
 * What it costs to hold a big cluster: decodes lists of N Services and N EndpointSlices of M endpoints, as an API
 * server sends them (managedFields and last-applied annotation included), in JSON and in protobuf; each form in a
 * process of its own. Then the cost of one watch event.
 *
 *     node --import tsx bench/decode.ts [services [endpoints]]      (default 10000 10)
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeOwnedDirectory } from '../src/lab/net/ownedDirectory.ts';
import { objectKey } from '../src/api/objects.ts';
import type { ApiObject, Kind } from '../src/api/objects.ts';
import { encodeList, encodeWatchFrame } from '../src/api/protobuf/encode.ts';
import type { JsonObject } from '../src/api/protobuf/encode.ts';
import { createListReader } from '../src/cluster/decode/listStream.ts';
import { createWatchReader } from '../src/cluster/decode/watchStream.ts';

const forms = {
  json: 'application/json',
  protobuf: 'application/vnd.kubernetes.protobuf',
} as const;
type Form = keyof typeof forms;

/** As many bytes as come out of a socket at a time. */
const chunkSize = 64 * 1024;

function uid(i: number): string {
  const hex = (i * 2_654_435_761).toString(16).padStart(16, '0').slice(-16);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4abc-8def-${hex.padStart(12, '0').slice(-12)}`;
}

function metadata(name: string, i: number, labels: JsonObject, fields: JsonObject): JsonObject {
  return {
    name,
    namespace: `team-${i % 100}`,
    uid: uid(i),
    resourceVersion: String(1_000_000 + i),
    generation: 1,
    creationTimestamp: '2026-03-01T12:00:00Z',
    labels,
    annotations: {
      'kubectl.kubernetes.io/last-applied-configuration': JSON.stringify({ name, labels, fields }),
    },
    managedFields: [
      {
        manager: 'kube-controller-manager',
        operation: 'Update',
        apiVersion: 'v1',
        time: '2026-03-01T12:00:00Z',
        fieldsType: 'FieldsV1',
        fieldsV1: { 'f:metadata': { 'f:labels': { '.': {}, 'f:app': {}, 'f:tier': {} } }, 'f:spec': fields },
      },
    ],
  };
}

function service(i: number): JsonObject {
  const ip = `10.${96 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;
  return {
    kind: 'Service',
    apiVersion: 'v1',
    metadata: metadata(
      `service-${i}`,
      i,
      { app: `app-${i}`, tier: 'backend' },
      { 'f:ports': {}, 'f:selector': {} },
    ),
    spec: {
      ports: [
        { name: 'http', protocol: 'TCP', port: 80, targetPort: 8080 },
        { name: 'metrics', protocol: 'TCP', port: 9090, targetPort: 'metrics' },
      ],
      selector: { app: `app-${i}` },
      clusterIP: ip,
      clusterIPs: [ip],
      type: 'ClusterIP',
      sessionAffinity: 'None',
      ipFamilies: ['IPv4'],
      ipFamilyPolicy: 'SingleStack',
      internalTrafficPolicy: 'Cluster',
    },
    status: { loadBalancer: {} },
  };
}

function slice(i: number, endpoints: number): JsonObject {
  return {
    kind: 'EndpointSlice',
    apiVersion: 'discovery.k8s.io/v1',
    metadata: metadata(
      `service-${i}-x7k2p`,
      i + 1_000_000,
      {
        'kubernetes.io/service-name': `service-${i}`,
        'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
      },
      { 'f:endpoints': {}, 'f:ports': {} },
    ),
    addressType: 'IPv4',
    endpoints: Array.from({ length: endpoints }, (_, j) => ({
      addresses: [`10.${(i >> 8) & 255}.${i & 255}.${j + 1}`],
      conditions: { ready: true, serving: true, terminating: false },
      nodeName: `node-${(i * 7 + j) % 500}.example.internal`,
      zone: `zone-${j % 3}`,
      targetRef: {
        kind: 'Pod',
        namespace: `team-${i % 100}`,
        name: `app-${i}-6d5f9c7b8-${j}xkq2`,
        uid: uid(i * 100 + j),
      },
    })),
    ports: [
      { name: 'http', protocol: 'TCP', port: 8080 },
      { name: 'metrics', protocol: 'TCP', port: 9090 },
    ],
  };
}

const fail = (problem: unknown): never => {
  throw new Error(`not expected: ${JSON.stringify(problem)}`);
};

/** In the child: decodes the files, keeps the objects, prints what that took. */
function measure(form: Form, files: readonly [Kind, string][]): void {
  const collect = (globalThis as { gc?: () => void }).gc ?? fail('--expose-gc');
  collect();
  const heapBefore = process.memoryUsage().heapUsed;
  const store = new Map<string, ApiObject>();
  let used = 0;
  for (const [kind, file] of files) {
    const sink = {
      put: (object: ApiObject) => store.set(`${kind}/${objectKey(object.meta)}`, object),
      skip: fail,
    };
    let bytes: Buffer | undefined = readFileSync(file);
    const cpu = process.cpuUsage();
    const reader = createListReader(forms[form], kind, sink, fail);
    for (let at = 0; at < bytes.length; at += chunkSize) reader.push(bytes.subarray(at, at + chunkSize));
    bytes = undefined;
    reader.finish();
    const { user, system } = process.cpuUsage(cpu);
    used += (user + system) / 1000;
  }
  const peak = process.resourceUsage().maxRSS / 1024;
  collect();
  const { heapUsed, rss } = process.memoryUsage();
  process.stdout.write(
    JSON.stringify({
      cpu: used,
      peak,
      heap: (heapUsed - heapBefore) / 2 ** 20,
      rss: rss / 2 ** 20,
      objects: store.size,
    }),
  );
}

interface Result {
  readonly cpu: number;
  readonly peak: number;
  readonly heap: number;
  readonly rss: number;
  readonly objects: number;
}

/** Microseconds for one event of a slice, bytes to compact object: median of many batches. */
function eventCost(form: Form, endpoints: number): number {
  const object = slice(1, endpoints);
  const event =
    form === 'json'
      ? Buffer.from(`${JSON.stringify({ type: 'MODIFIED', object })}\n`)
      : Buffer.from(encodeWatchFrame('MODIFIED', object));
  let events = 0;
  const sink = {
    put: () => events++,
    remove: fail,
    skip: fail,
    bookmark: fail,
    failure: fail,
    malformed: fail,
  };
  const reader = createWatchReader(forms[form], 'EndpointSlice', sink, fail);
  const costs: number[] = [];
  for (let batch = 0; batch < 60; batch++) {
    const start = performance.now();
    for (let i = 0; i < 200; i++) reader.push(event);
    costs.push(((performance.now() - start) / 200) * 1000);
  }
  if (events !== 12_000) throw new Error(`${events} events`);
  return costs.slice(10).sort((a, b) => a - b)[25] ?? Number.NaN;
}

function main(): void {
  const [mode = '10000', second = '10', ...rest] = process.argv.slice(2);
  if (mode === 'measure') {
    const [servicesFile = '', slicesFile = ''] = rest;
    measure(second as Form, [
      ['Service', servicesFile],
      ['EndpointSlice', slicesFile],
    ]);
    return;
  }
  const count = Number(mode);
  const endpoints = Number(second);
  const folder = makeOwnedDirectory('bench-decode');
  try {
    const services = Array.from({ length: count }, (_, i) => service(i));
    const slices = Array.from({ length: count }, (_, i) => slice(i, endpoints));
    const write = (name: string, data: Uint8Array | string): string => {
      writeFileSync(join(folder, name), data);
      return join(folder, name);
    };
    const meta = { resourceVersion: '2000000' };
    const files: Record<Form, [string, string]> = {
      json: [
        write('services.json', JSON.stringify({ metadata: meta, items: services })),
        write('slices.json', JSON.stringify({ metadata: meta, items: slices })),
      ],
      protobuf: [
        write('services.pb', encodeList('Service', services, meta)),
        write('slices.pb', encodeList('EndpointSlice', slices, meta)),
      ],
    };
    console.log(`${count} Services, ${count} EndpointSlices x ${endpoints} endpoints\n`);
    console.log(
      'form       bytes MiB   cpu ms   peak RSS MiB   heap kept MiB   RSS after MiB   µs per event',
    );
    for (const form of ['json', 'protobuf'] as const) {
      const size = files[form].reduce((sum, file) => sum + readFileSync(file).length, 0) / 2 ** 20;
      const script = fileURLToPath(import.meta.url);
      const argv = ['--expose-gc', '--import', 'tsx', script, 'measure', form, ...files[form]];
      const result = JSON.parse(execFileSync(process.execPath, argv, { encoding: 'utf8' })) as Result;
      if (result.objects !== 2 * count) throw new Error(`${result.objects} objects`);
      const columns = [size, result.cpu, result.peak, result.heap, result.rss, eventCost(form, endpoints)];
      const widths = [12, 9, 15, 16, 16, 15];
      console.log(
        form.padEnd(8) + columns.map((value, i) => value.toFixed(1).padStart(widths[i] ?? 0)).join(''),
      );
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

main();
