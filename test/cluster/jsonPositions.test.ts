import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { jsonPlaces, type JsonPlace } from '../../src/cluster/jsonPositions.ts';

test('every key and value of any JSON is found where it stands', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.constantFrom('', ' ', '\t', '\n  '), (value, indent) => {
      const text = `${indent.trim()} ${JSON.stringify(value, null, indent)}\n`;
      // As JSON has it: -0 is 0.
      follow(text, JSON.parse(text), jsonPlaces(text));
    }),
  );
});

function follow(text: string, value: unknown, { at, members, items }: JsonPlace): void {
  if (Array.isArray(value)) {
    assert.equal(text[at], '[');
    assert.equal(items?.length, value.length);
    value.forEach((one: unknown, i) => follow(text, one, items[i]!));
  } else if (typeof value === 'object' && value !== null) {
    assert.equal(text[at], '{');
    assert.deepEqual([...members!.keys()].sort(), Object.keys(value).sort());
    for (const [name, one] of Object.entries(value) as [string, unknown][]) {
      const member = members!.get(name)!;
      assert.ok(text.startsWith(JSON.stringify(name), member.key));
      follow(text, one, member.value);
    }
  } else assert.ok(text.startsWith(JSON.stringify(value), at));
}
