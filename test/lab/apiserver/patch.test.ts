import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { applyConfiguration, fromFieldsV1, leavesOf, toFieldsV1 } from '../../../src/lab/apiserver/apply.ts';
import { sameJson, type Json, type JsonObject, type KubeObject } from '../../../src/lab/apiserver/objects.ts';
import { schemaOf } from '../../../src/lab/apiserver/schema.ts';
import { mergePatch, strategicMergePatch } from '../../../src/lab/apiserver/strategicmerge.ts';

const serviceSchema = schemaOf('io.k8s.api.core.v1.Service');
const deploymentSchema = schemaOf('io.k8s.api.apps.v1.Deployment');

const key = fc.constantFrom('a', 'b', 'c', 'd');
const json: fc.Arbitrary<Json> = fc.letrec<{ value: Json }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3 },
    fc.integer({ min: 0, max: 9 }),
    fc.constantFrom('x', 'y'),
    fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 3 }),
    fc.dictionary(key, tie('value'), { maxKeys: 4, noNullPrototype: true }),
  ),
})).value;
const object = fc.dictionary(key, json, { maxKeys: 4, noNullPrototype: true }) as fc.Arbitrary<JsonObject>;

/** The merge patch that turns one object into another. */
function difference(from: JsonObject, to: JsonObject): JsonObject {
  const patch: JsonObject = {};
  for (const name of Object.keys(from)) if (to[name] === undefined) patch[name] = null;
  for (const [name, value] of Object.entries(to)) {
    const before = from[name];
    const bothObjects =
      typeof value === 'object' &&
      value !== null &&
      !Array.isArray(value) &&
      typeof before === 'object' &&
      before !== null &&
      !Array.isArray(before);
    if (bothObjects) patch[name] = difference(before, value);
    else if (!sameJson(before, value)) patch[name] = value;
  }
  return patch;
}

test('merge patch: the difference of two objects turns one into the other', () => {
  fc.assert(
    fc.property(object, object, (from, to) => {
      assert.ok(sameJson(mergePatch(from, difference(from, to)), to));
    }),
  );
});

test('merge patch does not change its arguments, and twice is once', () => {
  fc.assert(
    fc.property(object, object, (target, patch) => {
      const before = JSON.stringify([target, patch]);
      const once = mergePatch(target, patch);
      assert.deepEqual(mergePatch(once, patch), once);
      assert.equal(JSON.stringify([target, patch]), before);
    }),
  );
});

const port = fc.record(
  {
    name: fc.constantFrom('a', 'b', 'c'),
    port: fc.integer({ min: 1, max: 4 }),
    protocol: fc.constantFrom('TCP', 'UDP'),
  },
  { noNullPrototype: true },
);
const ports = fc.uniqueArray(port, {
  selector: (one) => `${one.port}/${one.protocol}`,
  minLength: 1,
  maxLength: 5,
});

function portsOf(value: Json): JsonObject[] {
  return (value as { spec: { ports?: JsonObject[] } }).spec.ports ?? [];
}

test('strategic merge: ports are merged by number and protocol; each patched port is there once, as patched', () => {
  fc.assert(
    fc.property(ports, ports, (before, patch) => {
      const result = portsOf(
        strategicMergePatch({ spec: { ports: before } }, { spec: { ports: patch } }, serviceSchema),
      );
      const id = (one: JsonObject): string => JSON.stringify([one['port'], one['protocol']]);
      assert.equal(new Set(result.map(id)).size, result.length);
      for (const one of patch)
        assert.deepEqual(
          result.find((item) => id(item) === id(one)),
          one,
        );
      for (const one of before) assert.ok(result.some((item) => id(item) === id(one)));
    }),
  );
});

test('strategic merge: $patch delete, replace, element order, retained keys, null', () => {
  const live = {
    spec: {
      ports: [
        { name: 'a', port: 1 },
        { name: 'b', port: 2 },
      ],
      selector: { x: '1', y: '2' },
    },
  };
  const patched = (patch: JsonObject): Json => strategicMergePatch(live, { spec: patch }, serviceSchema);
  assert.deepEqual(portsOf(patched({ ports: [{ port: 1, $patch: 'delete' }] })), [{ name: 'b', port: 2 }]);
  assert.deepEqual(portsOf(patched({ ports: [{ port: 3 }, { $patch: 'replace' }] })), [{ port: 3 }]);
  const order = { ports: [{ port: 3 }], '$setElementOrder/ports': [{ port: 3 }, { port: 2 }, { port: 1 }] };
  assert.deepEqual(
    portsOf(patched(order)).map((one) => one['port']),
    [3, 2, 1],
  );
  assert.deepEqual((patched({ selector: { x: null } }) as typeof live).spec.selector, { y: '2' });
  assert.deepEqual(
    (patched({ selector: { $patch: 'replace', z: '3' } }) as unknown as typeof live).spec.selector,
    { z: '3' },
  );
});

test('strategic merge: lists without a merge key are replaced, primitive ones are merged as sets', () => {
  const live = { metadata: { finalizers: ['a', 'b'] }, spec: { externalIPs: ['1.1.1.1'] } };
  const merged = strategicMergePatch(
    live,
    {
      metadata: { finalizers: ['c'], '$deleteFromPrimitiveList/finalizers': ['a'] },
      spec: { externalIPs: ['2.2.2.2'] },
    },
    serviceSchema,
  );
  assert.deepEqual(merged, { metadata: { finalizers: ['b', 'c'] }, spec: { externalIPs: ['2.2.2.2'] } });
});

test('strategic merge: containers of a template by name', () => {
  const live = {
    spec: {
      template: {
        spec: {
          containers: [
            { name: 'a', image: 'one' },
            { name: 'b', image: 'two' },
          ],
        },
      },
    },
  };
  const patch = { spec: { template: { spec: { containers: [{ name: 'b', image: 'three' }] } } } };
  assert.deepEqual(strategicMergePatch(live, patch, deploymentSchema), {
    spec: {
      template: {
        spec: {
          containers: [
            { name: 'a', image: 'one' },
            { name: 'b', image: 'three' },
          ],
        },
      },
    },
  });
});

function service(spec: JsonObject): KubeObject {
  return { apiVersion: 'v1', kind: 'Service', metadata: { name: 'web', namespace: 'default' }, spec };
}

function manager(name: string): {
  name: string;
  operation: 'Apply';
  apiVersion: string;
  subresource: string;
} {
  return { name, operation: 'Apply', apiVersion: 'v1', subresource: '' };
}

const spec = fc.record(
  {
    ports,
    selector: fc.dictionary(key, fc.constantFrom('1', '2'), {
      minKeys: 1,
      maxKeys: 3,
      noNullPrototype: true,
    }),
    sessionAffinity: fc.constantFrom('None', 'ClientIP'),
    externalIPs: fc.array(fc.constantFrom('1.1.1.1', '2.2.2.2'), { minLength: 1, maxLength: 2 }),
  },
  { requiredKeys: ['sessionAffinity'], noNullPrototype: true },
) as fc.Arbitrary<JsonObject>;

test('field sets survive being written as FieldsV1 and read again', () => {
  fc.assert(
    fc.property(spec, (one) => {
      const paths = [...leavesOf(service(one), serviceSchema).keys()].sort();
      assert.deepEqual([...fromFieldsV1(toFieldsV1(paths))].sort(), paths);
    }),
  );
});

test('apply: whatever one manager applied before, the last configuration is what is left', () => {
  fc.assert(
    fc.property(spec, spec, (first, second) => {
      const empty = service({});
      const once = applyConfiguration(empty, service(first), serviceSchema, manager('one'), false);
      const twice = applyConfiguration(once.object, service(second), serviceSchema, manager('one'), false);
      const direct = applyConfiguration(empty, service(second), serviceSchema, manager('one'), false);
      assert.deepEqual(
        Object.fromEntries(leavesOf(twice.object, serviceSchema)),
        Object.fromEntries(leavesOf(direct.object, serviceSchema)),
      );
    }),
  );
});

test('apply: two managers conflict exactly where they want different values; force lets the second win', () => {
  fc.assert(
    fc.property(spec, spec, (first, second) => {
      const base = applyConfiguration(service({}), service(first), serviceSchema, manager('one'), false);
      const mine = leavesOf(service(first), serviceSchema);
      const theirs = leavesOf(service(second), serviceSchema);
      const differs = [...theirs].some(([path, value]) => mine.has(path) && !sameJson(mine.get(path), value));
      const attempt = (force: boolean): KubeObject =>
        applyConfiguration(base.object, service(second), serviceSchema, manager('two'), force).object;
      if (differs) assert.throws(() => attempt(false), /Apply failed with \d+ conflict/);
      const after = leavesOf(attempt(true), serviceSchema);
      for (const [path, value] of theirs) assert.ok(sameJson(after.get(path), value), path);
    }),
  );
});
