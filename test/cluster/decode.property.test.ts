/** JSON and protobuf of the same object decode to the same compact object; no input of any kind breaks a decoder. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { ApiObject, Kind } from '../../src/api/objects.ts';
import { encodeList, encodeObject, encodeWatchFrame } from '../../src/api/protobuf/encode.ts';
import type { JsonObject } from '../../src/api/protobuf/encode.ts';
import { decodeJsonObject } from '../../src/cluster/decode/json.ts';
import { createListReader } from '../../src/cluster/decode/listStream.ts';
import type { ObjectProblem } from '../../src/cluster/decode/problem.ts';
import { decodeProtobufObject } from '../../src/cluster/decode/protobuf.ts';
import { openEnvelope } from '../../src/cluster/decode/status.ts';
import { createWatchReader } from '../../src/cluster/decode/watchStream.ts';
import type { WatchSink } from '../../src/cluster/decode/watchStream.ts';
import { Wire } from '../../src/cluster/decode/wire.ts';
import * as objects from './support/objectArbitraries.ts';
import { bytes, envelope, message } from './support/protobufWriter.ts';

const mediaType = 'application/vnd.kubernetes.protobuf';

interface Example {
  readonly kind: Kind;
  readonly json: JsonObject;
  readonly wire: Buffer;
}

const example: fc.Arbitrary<Example> = fc.oneof(
  objects.service.map((value) => ({
    kind: 'Service' as const,
    json: objects.serviceJson(value),
    wire: objects.serviceBytes(value),
  })),
  objects.slice.map((value) => ({
    kind: 'EndpointSlice' as const,
    json: objects.sliceJson(value),
    wire: objects.sliceBytes(value),
  })),
  objects.node.map((value) => ({
    kind: 'Node' as const,
    json: objects.nodeJson(value),
    wire: objects.nodeBytes(value),
  })),
  objects.serviceCIDR.map((value) => ({
    kind: 'ServiceCIDR' as const,
    json: objects.serviceCIDRJson(value),
    wire: objects.serviceCIDRBytes(value),
  })),
);

function fail(problem: ObjectProblem): never {
  assert.fail(JSON.stringify(problem));
}

/** As it comes over the network: undefined fields are not there. */
function parsed(value: JsonObject): JsonObject {
  return JSON.parse(JSON.stringify(value)) as JsonObject;
}

function cut(data: Buffer, sizes: readonly number[]): Buffer[] {
  const chunks: Buffer[] = [];
  let at = 0;
  for (let i = 0; at < data.length; i++) {
    const size = sizes[i % sizes.length] ?? 1;
    chunks.push(data.subarray(at, at + size));
    at += size;
  }
  return chunks;
}

const chunkSizes = fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 6 });

describe('the same object', () => {
  test('decodes alike from JSON and from protobuf', () => {
    fc.assert(
      fc.property(example, ({ kind, json, wire }) => {
        const fromJson = decodeJsonObject(kind, parsed(json), fail);
        const fromWire = decodeProtobufObject(kind, new Wire(wire), fail);
        assert.ok(fromJson !== undefined);
        assert.deepEqual(fromWire, fromJson);
      }),
      { numRuns: 400 },
    );
  });

  test('decodes alike after our own encoder', () => {
    fc.assert(
      fc.property(example, ({ kind, json }) => {
        const object = parsed(json);
        const wire = openEnvelope(Buffer.from(encodeObject(kind, object)));
        assert.deepEqual(decodeProtobufObject(kind, wire, fail), decodeJsonObject(kind, object, fail));
      }),
      { numRuns: 200 },
    );
  });
});

describe('lists and watches', () => {
  test('a protobuf list cut anywhere gives the same objects, from either encoder', () => {
    fc.assert(
      fc.property(
        fc.array(objects.slice, { maxLength: 6 }),
        chunkSizes,
        fc.boolean(),
        (values, sizes, own) => {
          const items = values.map((value) => parsed(objects.sliceJson(value)));
          const data = own
            ? Buffer.from(encodeList('EndpointSlice', items, { resourceVersion: '77', continue: 'next' }))
            : envelope(
                'discovery.k8s.io/v1',
                'EndpointSliceList',
                Buffer.concat([
                  message(1, bytes(2, '77'), bytes(3, 'next')),
                  ...values.map((value) => message(2, objects.sliceBytes(value))),
                ]),
              );
          const got: ApiObject[] = [];
          const sink = {
            put: (object: ApiObject) => got.push(object),
            skip: (key: string) => assert.fail(key),
          };
          const reader = createListReader(mediaType, 'EndpointSlice', sink, fail);
          for (const chunk of cut(data, sizes)) reader.push(chunk);
          assert.deepEqual(reader.finish(), { resourceVersion: '77', continueToken: 'next' });
          assert.deepEqual(
            got,
            items.map((item) => decodeJsonObject('EndpointSlice', item, fail)),
          );
        },
      ),
      { numRuns: 150 },
    );
  });

  test('a list that is cut short is an error, not a short list', () => {
    const data = Buffer.from(encodeList('Service', [{ metadata: { name: 'a' } }], { resourceVersion: '1' }));
    const sink = { put: () => undefined, skip: () => undefined };
    for (let length = 0; length < data.length; length++) {
      const reader = createListReader(mediaType, 'Service', sink, () => undefined);
      reader.push(data.subarray(0, length));
      assert.throws(() => reader.finish(), /cut short/, `${length} of ${data.length} bytes`);
    }
  });

  test('watch frames cut anywhere give the same events as JSON lines', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom('ADDED', 'MODIFIED', 'DELETED', 'BOOKMARK'), objects.service), {
          maxLength: 8,
        }),
        chunkSizes,
        (events, sizes) => {
          const objectsWithKind = events.map(([type, value]) => ({
            type: type as 'ADDED',
            object: {
              kind: 'Service',
              apiVersion: 'v1',
              ...parsed(objects.serviceJson(value)),
            } as JsonObject,
          }));
          const frames = objectsWithKind.map(({ type, object }) => encodeWatchFrame(type, object));
          const lines = objectsWithKind.map((event) => `${JSON.stringify(event)}\n`).join('');
          const fromFrames = readWatch(mediaType, Buffer.concat(frames), sizes);
          assert.deepEqual(fromFrames, readWatch('application/json', Buffer.from(lines), sizes));
          assert.equal(fromFrames.length, events.length);
        },
      ),
      { numRuns: 150 },
    );
  });

  test('an ERROR event carries its Status in both forms', () => {
    const status = {
      kind: 'Status',
      apiVersion: 'v1',
      code: 410,
      reason: 'Expired',
      message: 'too old',
      details: { retryAfterSeconds: 3 },
    };
    const wanted = [['failure', { code: 410, reason: 'Expired', message: 'too old', retryAfterSeconds: 3 }]];
    assert.deepEqual(readWatch(mediaType, Buffer.from(encodeWatchFrame('ERROR', status)), [50]), wanted);
    const line = `${JSON.stringify({ type: 'ERROR', object: status })}\n`;
    assert.deepEqual(readWatch('application/json', Buffer.from(line), [50]), wanted);
  });

  test('a bookmark says whether the initial events are over', () => {
    const object = {
      kind: 'Service',
      metadata: { resourceVersion: '12', annotations: { 'k8s.io/initial-events-end': 'true' } },
    };
    const wanted = [['bookmark', '12', true]];
    assert.deepEqual(readWatch(mediaType, Buffer.from(encodeWatchFrame('BOOKMARK', object)), [50]), wanted);
  });
});

function readWatch(contentType: string, data: Buffer, sizes: readonly number[]): unknown[] {
  const events: unknown[] = [];
  const record =
    (name: string) =>
    (...values: unknown[]): void => {
      events.push([name, ...values]);
    };
  const sink: WatchSink = {
    put: record('put'),
    remove: record('remove'),
    skip: record('skip'),
    bookmark: record('bookmark'),
    failure: record('failure'),
    malformed: record('malformed'),
  };
  const reader = createWatchReader(contentType, 'Service', sink, fail);
  for (const chunk of cut(data, sizes)) reader.push(chunk);
  return events;
}

describe('bad input', () => {
  test('damaged protobuf gives an object or a report, never anything else', () => {
    fc.assert(
      fc.property(
        example,
        fc.nat(),
        fc.nat({ max: 255 }),
        fc.boolean(),
        ({ kind, wire }, at, byte, truncate) => {
          const damaged = Buffer.from(truncate ? wire.subarray(0, at % (wire.length + 1)) : wire);
          if (!truncate && damaged.length > 0) damaged[at % damaged.length] = byte;
          const problems: ObjectProblem[] = [];
          const object = decodeProtobufObject(kind, new Wire(damaged), (problem) => problems.push(problem));
          assert.ok(object !== undefined || problems.length > 0);
        },
      ),
      { numRuns: 500 },
    );
  });

  test('JSON of any shape gives an object or a report', () => {
    const paths = fc.constantFrom(
      'metadata',
      'spec',
      'status',
      'ports',
      'endpoints',
      'addressType',
      'spec.ports',
      'spec.clusterIPs',
      'metadata.labels',
      'metadata.name',
      'endpoints.0',
      'endpoints.0.conditions',
      'spec.externalIPs.0',
      'spec.ports.0.port',
      'status.loadBalancer',
      'endpoints.0.addresses',
      'spec.taints',
      'spec.cidrs',
    );
    fc.assert(
      fc.property(example, paths, fc.jsonValue(), ({ kind, json }, path, junk) => {
        const object = parsed(json) as Record<string, unknown>;
        const steps = path.split('.');
        let target = object;
        for (const step of steps.slice(0, -1)) {
          const next = target[step];
          if (typeof next !== 'object' || next === null) return;
          target = next as Record<string, unknown>;
        }
        target[steps.at(-1) ?? ''] = junk;
        const problems: ObjectProblem[] = [];
        const decoded = decodeJsonObject(kind, object, (problem) => problems.push(problem));
        assert.ok(decoded !== undefined || problems.length > 0);
      }),
      { numRuns: 400 },
    );
  });

  test('what is wrong is named, and costs only what it must', () => {
    const problems: string[] = [];
    const service = decodeJsonObject(
      'Service',
      {
        metadata: { name: 'web', namespace: 'shop' },
        spec: {
          ports: [{ port: 0 }, { port: 80, protocol: 'ICMP' }, { port: 443 }],
          externalIPs: ['1.2.3.4', 5],
        },
      },
      ({ object, field, message }) => problems.push(`${object} ${field}: ${message}`),
    );
    assert.deepEqual(problems, [
      'shop/web spec.ports[0].port: 0 is not a port (1-65535); the entry is skipped',
      'shop/web spec.ports[1].protocol: unknown protocol "ICMP"; the entry is skipped',
      'shop/web spec.externalIPs[1]: text expected, got 5; the entry is skipped',
    ]);
    assert.equal(service?.kind === 'Service' && service.ports.length, 1);
    assert.deepEqual(service?.kind === 'Service' && service.externalIPs, ['1.2.3.4']);
  });

  test('a protobuf entry that is wrong is named with the object it is in', () => {
    const problems: ObjectProblem[] = [];
    const wire = openEnvelope(
      Buffer.from(
        encodeObject('Service', {
          metadata: { name: 'web', namespace: 'shop' },
          spec: { ports: [{ port: 70000 }, { port: -1 }, { port: 80 }] },
        }),
      ),
    );
    const service = decodeProtobufObject('Service', wire, (problem) => problems.push(problem));
    assert.deepEqual(
      problems.map(({ object, field, message }) => `${object} ${field}: ${message}`),
      [
        'shop/web spec.ports[0].port: 70000 is not a port (1-65535); the entry is skipped',
        'shop/web spec.ports[1].port: -1 is not a port (1-65535); the entry is skipped',
      ],
    );
    assert.equal(service?.kind === 'Service' && service.ports[0]?.port, 80);
  });
});
