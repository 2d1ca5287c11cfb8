import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { ElementTable } from '../../../src/dataplane/nftables/elementTable.ts';

test('finds every key that was put in, with its value, and no other', () => {
  const pairs = fc.uniqueArray(fc.tuple(fc.nat(0xffffff), fc.nat(0xffff)), {
    selector: ([key]) => key,
    minLength: 1,
    maxLength: 300,
  });
  const bytes = (number: number, size: number): Uint8Array =>
    Uint8Array.from({ length: size }, (_, i) => (number >>> (8 * i)) & 255);
  fc.assert(
    fc.property(pairs, fc.nat(0xffffff), (content, other) => {
      const table = new ElementTable(5, 2);
      for (const [key, value] of content) table.insert(bytes(key, 5), 0, bytes(value, 2), 0);
      assert.equal(table.size, content.length);
      for (const [key, value] of content) {
        const entry = table.find(bytes(key, 5));
        assert.ok(entry >= 0);
        assert.ok(table.hasValue(entry, bytes(value, 2)));
        assert.ok(!table.hasValue(entry, bytes(value ^ 1, 2)));
        assert.deepEqual([...table.key(entry)], [...bytes(key, 5)]);
        assert.equal(table.isSeen(entry), false);
        table.markSeen(entry);
        assert.equal(table.isSeen(entry), true);
      }
      if (!content.some(([key]) => key === other)) assert.equal(table.find(bytes(other, 5)), -1);
    }),
    { numRuns: 50 },
  );
});
