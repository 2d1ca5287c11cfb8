import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { JsonItems } from '../../src/cluster/decode/jsonItems.ts';

function takeApart(text: string, size: number): { items: unknown[]; outer: string } {
  const items: unknown[] = [];
  const reader = new JsonItems((item) => items.push(JSON.parse(item)));
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += size) reader.push(bytes.subarray(at, at + size));
  return { items, outer: reader.outer };
}

test('any list, cut into any chunks, printed in any way, comes apart into its items and the rest', () => {
  fc.assert(
    fc.property(
      fc.array(fc.jsonValue({ maxDepth: 3 }), { maxLength: 6 }),
      fc.jsonValue({ maxDepth: 2 }),
      fc.string({ unit: 'grapheme' }),
      fc.integer({ min: 0, max: 3 }),
      fc.integer({ min: 1, max: 40 }),
      fc.boolean(),
      (items, metadata, note, indent, size, itemsFirst) => {
        const rest = { metadata, note, nested: { items: [1, [2]] }, list: ['"items":', [3]] };
        const list = itemsFirst ? { items, ...rest } : { ...rest, items };
        const got = takeApart(JSON.stringify(list, null, indent), size);
        // What JSON.stringify writes differs from the value for -0 only.
        assert.deepEqual(got.items, JSON.parse(JSON.stringify(items)));
        assert.deepEqual(JSON.parse(got.outer), JSON.parse(JSON.stringify({ ...list, items: [] })));
      },
    ),
    { numRuns: 500 },
  );
});

test('lists that are none are left to the parser', () => {
  for (const text of ['', '[]', '"items"', '{"items":null}', '{"items":{}}', '<html>']) {
    assert.deepEqual(takeApart(text, 3), { items: [], outer: text });
  }
});

test('a list cut short gives what was whole', () => {
  const { items, outer } = takeApart('{"items":[{"a":1},{"b":[2,{"c"', 4);
  assert.deepEqual(items, [{ a: 1 }]);
  assert.throws(() => JSON.parse(outer));
});
