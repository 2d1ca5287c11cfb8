import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  addToIp,
  blockHolds,
  bytesToIp,
  canonicalIp,
  ipToBytes,
  parseSocketAddress,
} from '../../src/lab/net/address.ts';
import {
  evaluate,
  expandObjects,
  mergePatch,
  substitute,
  type Json,
} from '../../src/lab/scenario/generate.ts';

test('arithmetic goes strictly from left to right, in whole numbers', () => {
  const table: [string, number, number][] = [
    ['i', 7, 7],
    ['i/250+20', 499, 21],
    ['i%250+1', 250, 1],
    ['i+2*3', 4, 18],
    ['10-i', 3, 7],
    [' i / 2 % 2 ', 7, 1],
    ['i*4-1/2', 3, 5],
  ];
  for (const [text, i, value] of table) assert.equal(evaluate(text, i), value, text);
});

test('what is not arithmetic is refused with its text', () => {
  for (const text of ['', 'i+', 'j', 'i**2', 'i/0', '1 2', 'process.exit()']) {
    assert.throws(() => evaluate(text, 1), /is not|divides/, text);
  }
});

test('arithmetic agrees with the same steps done one by one', () => {
  const operator = fc.constantFrom('+', '-', '*', '/', '%');
  fc.assert(
    fc.property(
      fc.nat(1000),
      fc.array(fc.tuple(operator, fc.integer({ min: 1, max: 99 })), { maxLength: 6 }),
      (i, steps) => {
        let value = i;
        for (const [sign, n] of steps) {
          if (sign === '+') value += n;
          else if (sign === '-') value -= n;
          else if (sign === '*') value *= n;
          else if (sign === '/') value = Math.trunc(value / n);
          else value %= n;
        }
        assert.equal(evaluate(`i${steps.map(([sign, n]) => `${sign}${n}`).join('')}`, i), value);
      },
    ),
  );
});

test('digits become numbers only where the API has numbers', () => {
  const object = { metadata: { name: '${i}' }, spec: { ports: [{ nodePort: '${i+30000}', name: 'p${i}' }] } };
  assert.deepEqual(substitute(object, 5), {
    metadata: { name: '5' },
    spec: { ports: [{ nodePort: 30005, name: 'p5' }] },
  });
});

test('generate repeats its objects in order, from start on', () => {
  const list = [
    { generate: { count: 2, start: 249, objects: [{ kind: 'Service', ip: '10.96.${i/250}.${i%250}' }] } },
    { kind: 'Node' },
  ];
  assert.deepEqual(expandObjects(list), [
    { kind: 'Service', ip: '10.96.0.249' },
    { kind: 'Service', ip: '10.96.1.0' },
    { kind: 'Node' },
  ]);
});

test('endpointRange makes ready endpoints with consecutive addresses and its other fields', () => {
  const [slice] = expandObjects([
    { kind: 'EndpointSlice', endpointRange: { first: '10.244.1.254', count: 3, nodeName: 'node-1' } },
  ]);
  assert.deepEqual(slice, {
    kind: 'EndpointSlice',
    endpoints: ['10.244.1.254', '10.244.1.255', '10.244.2.0'].map((ip) => ({
      conditions: { ready: true },
      nodeName: 'node-1',
      addresses: [ip],
    })),
  });
});

test('a merge patch deletes with null, replaces lists, and leaves the rest alone', () => {
  const patched = mergePatch({ a: { b: 1, c: [1, 2] }, d: 1 }, { a: { b: null, c: [3] } });
  assert.deepEqual(patched, { a: { c: [3] }, d: 1 });
});

test('merging a patch twice is merging it once', () => {
  const json = fc.jsonValue() as fc.Arbitrary<Json>;
  fc.assert(
    fc.property(json, json, (target, patch) => {
      const once = mergePatch(target, patch);
      assert.deepEqual(mergePatch(once, patch), once);
    }),
  );
});

test("addresses: bytes and text are each other's inverse", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.uint8Array({ minLength: 16, maxLength: 16 }),
  );
  fc.assert(fc.property(bytes, (value) => assert.deepEqual(ipToBytes(bytesToIp(value)), value)));
  assert.equal(canonicalIp('fd00:0010:0096:0:0:0:0:fffa'), 'fd00:10:96::fffa');
  assert.equal(canonicalIp('::ffff:10.0.0.1'), '::ffff:a00:1');
  assert.equal(addToIp('fd00::ffff', 1), 'fd00::1:0');
});

test('blocks hold their addresses and no others', () => {
  assert.ok(blockHolds('10.244.0.0/22', '10.244.3.255'));
  assert.ok(!blockHolds('10.244.0.0/22', '10.244.4.0'));
  assert.ok(blockHolds('fd00::/16', 'fd00:1::'));
  assert.ok(!blockHolds('fd00::/16', '253.0.0.1'));
});

test('targets of probes are read, and what is none is refused', () => {
  assert.deepEqual(parseSocketAddress('[fd00:0::1]:80'), { ip: 'fd00::1', port: 80 });
  for (const text of ['10.0.0.1', '10.0.0:1', 'fd00::1:80', '10.0.0.1:70000', 'host:80']) {
    assert.throws(() => parseSocketAddress(text), /is not ADDRESS:PORT/, text);
  }
});
