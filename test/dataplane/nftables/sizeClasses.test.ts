import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import {
  alwaysFilled,
  classOf,
  draws,
  largestClass,
  residue,
} from '../../../src/dataplane/nftables/sizeClasses.ts';

test('a class holds its endpoints, and never twice as many but for the smallest', () => {
  assert.deepEqual(
    [0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 100, 5000].map(classOf),
    [0, 1, 4, 4, 4, 8, 8, 16, 16, 32, 128, 8192],
  );
  fc.assert(
    fc.property(fc.integer({ min: 1, max: largestClass }), (count) => {
      const size = classOf(count);
      assert.ok(size >= count);
      assert.ok(count >= alwaysFilled(size));
      assert.ok(size === 1 || count >= size / 2);
    }),
  );
  assert.equal(classOf(largestClass + 1), largestClass);
});

test('draws: the share of connections that the last rule gets is small, and it always finds an endpoint', () => {
  for (let size = 1; size <= largestClass; size = classOf(size + 1)) {
    const moduli = draws(size);
    assert.equal(moduli.at(-1), alwaysFilled(size));
    assert.ok(moduli.length <= 14, `${size}: ${moduli.length} rules`);
    const missed = moduli.slice(0, -1).reduce((share) => share * (1 - alwaysFilled(size) / size), 1);
    assert.ok(size === 1 || missed <= residue, `${size}: ${missed}`);
    if (size === largestClass) break;
  }
  assert.throws(() => draws(6), /6 is not a size class/);
});
