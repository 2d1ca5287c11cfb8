import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { assignSlots } from '../../../src/dataplane/nftables/slots.ts';
import { makeEndpoint } from '../iptables/routes.ts';

const endpoint = (n: number) => makeEndpoint(`10.0.0.${n}:80`);
const lists = fc
  .uniqueArray(fc.integer({ min: 1, max: 30 }), { maxLength: 15 })
  .map((numbers) => numbers.toSorted((a, b) => a - b).map(endpoint));

test('slots hold the wanted endpoints without gaps, and only what is reported changed', () => {
  fc.assert(
    fc.property(fc.array(lists, { minLength: 1, maxLength: 6 }), (history) => {
      let slots = assignSlots([], []).slots;
      for (const wanted of history) {
        const { slots: after, changed } = assignSlots(slots, wanted);
        assert.deepEqual(after.map(({ key }) => key).toSorted(), wanted.map(({ key }) => key).toSorted());
        for (const one of after) assert.ok(wanted.includes(one), 'the objects are those of the new list');
        const differs = (slot: number): boolean => slots[slot]?.key !== after[slot]?.key;
        const all = Array.from({ length: Math.max(slots.length, after.length) }, (_, slot) => slot);
        assert.deepEqual(
          changed.toSorted((a, b) => a - b),
          all.filter(differs),
        );
        slots = after;
      }
    }),
  );
});

test('one endpoint in the place of another is one slot; a removal in the middle is two', () => {
  const before = [1, 2, 3, 4].map(endpoint);
  assert.deepEqual(assignSlots(before, [1, 3, 4, 9].map(endpoint)).changed, [1]);
  const removed = assignSlots(before, [1, 3, 4].map(endpoint));
  assert.deepEqual(
    removed.changed.toSorted((a, b) => a - b),
    [1, 3],
  );
  assert.deepEqual(
    removed.slots.map(({ ip }) => ip),
    ['10.0.0.1', '10.0.0.4', '10.0.0.3'],
  );
  assert.deepEqual(assignSlots(before, [1, 2, 3].map(endpoint)).changed, [3]);
});
