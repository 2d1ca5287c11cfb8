import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatDuration, parseDuration } from '../../src/config/duration.ts';

const cases: [text: string, milliseconds: number | undefined, printed?: string][] = [
  ['0', 0, '0s'],
  ['0s', 0],
  ['-0s', 0, '0s'],
  ['30s', 30_000],
  ['15m0s', 900_000],
  ['15m', 900_000, '15m0s'],
  ['24h', 86_400_000, '24h0m0s'],
  ['1h30m', 5_400_000, '1h30m0s'],
  ['1.5s', 1500],
  ['.5s', 500, '500ms'],
  ['1.s', 1000, '1s'],
  ['250ms', 250],
  ['1.5ms', 1.5],
  ['7us', 0.007, '7µs'],
  ['7µs', 0.007],
  ['3ns', 0.000_003],
  ['-5s', -5000],
  ['+5s', 5000, '5s'],
  ['1m0.25s', 60_250],
  ['', undefined],
  ['-', undefined],
  ['30', undefined],
  ['30 s', undefined],
  ['s', undefined],
  ['5x', undefined],
  ['1h30', undefined],
  ['.s', undefined],
  ['9999999999h', undefined],
];

for (const [text, milliseconds, printed] of cases) {
  test(`"${text}" is ${milliseconds === undefined ? 'no duration' : `${milliseconds} ms`}`, () => {
    assert.equal(parseDuration(text), milliseconds);
    if (milliseconds !== undefined) assert.equal(formatDuration(milliseconds), printed ?? text);
  });
}

test('what is printed is read back, to the nanosecond', () => {
  fc.assert(
    fc.property(fc.integer({ min: -(2 ** 50), max: 2 ** 50 }), (nanoseconds) => {
      const milliseconds = nanoseconds / 1e6;
      assert.equal(parseDuration(formatDuration(milliseconds)), milliseconds === 0 ? 0 : milliseconds);
    }),
  );
});
