import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SeriesLimit } from '../../src/status/counters/seriesLimit.ts';

type Item = readonly [key: string, value: number];
const most = 3;
const limited = (): SeriesLimit<Item> =>
  new SeriesLimit(
    most,
    ([key]) => key,
    ([, value]) => value,
  );

test('while there is room, everybody has a series', () => {
  const items: Item[] = [
    ['a', 1],
    ['b', 2],
    ['c', 3],
  ];
  assert.deepEqual(limited().divide(items), { own: items, others: undefined });
});

test('the sum of the others does not step back when one of them goes, or one with a series', () => {
  const limit = limited();
  const first = limit.divide([
    ['a', 1],
    ['b', 2],
    ['c', 3],
    ['d', 4],
  ]);
  assert.deepEqual(first, {
    own: [
      ['a', 1],
      ['b', 2],
    ],
    others: 7,
  });
  assert.deepEqual(
    limit.divide([
      ['b', 2],
      ['d', 5],
    ]),
    { own: [['b', 2]], others: 8 },
  );
  // There is room for one that is new, and none that has been added up moves there.
  assert.deepEqual(
    limit.divide([
      ['b', 2],
      ['d', 5],
      ['e', 9],
    ]),
    {
      own: [
        ['b', 2],
        ['e', 9],
      ],
      others: 8,
    },
  );
});

test('law: at most so many series; nothing is missing or shown twice, and the sum of the others only grows', () => {
  const change = fc.record({
    key: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'),
    more: fc.nat(9),
    goes: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(fc.array(change, { maxLength: 6 }), { maxLength: 20 }), (rounds) => {
      const limit = limited();
      const values = new Map<string, number>();
      let others = 0;
      let counted = 0;
      let shownAndGone = 0;
      let shown = new Map<string, number>();
      for (const round of rounds) {
        for (const { key, more, goes } of round) {
          if (goes) {
            values.delete(key);
            shownAndGone += shown.get(key) ?? 0;
            shown.delete(key);
          } else {
            counted += more;
            values.set(key, (values.get(key) ?? 0) + more);
          }
        }
        const divided = limit.divide([...values]);
        assert.ok(divided.own.length + (divided.others === undefined ? 0 : 1) <= most);
        assert.ok((divided.others ?? 0) >= others);
        others = divided.others ?? 0;
        shown = new Map(divided.own);
        const sum = divided.own.reduce((all, [, value]) => all + value, others);
        assert.ok(sum + shownAndGone <= counted, `${sum} + ${shownAndGone} shown, ${counted} counted`);
        const there = [...values.values()].reduce((all, value) => all + value, 0);
        assert.ok(sum >= there);
      }
    }),
  );
});
