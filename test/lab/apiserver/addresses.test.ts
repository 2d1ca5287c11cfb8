import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatIp, parseCidr, parseIp, rangeContains } from '../../../src/lab/apiserver/addresses.ts';

const canonical = (text: string): string | undefined => {
  const parsed = parseIp(text);
  return parsed === undefined ? undefined : formatIp(parsed);
};

test('an address printed and read again is the same', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: (1n << 32n) - 1n }), (value) => {
      assert.deepEqual(parseIp(formatIp({ family: 'IPv4', value })), { family: 'IPv4', value });
    }),
  );
  const mapped = 0xffffn << 32n;
  const six = fc
    .bigInt({ min: 0n, max: (1n << 128n) - 1n })
    .filter((value) => value >> 32n !== mapped >> 32n);
  fc.assert(
    fc.property(six, (value) => {
      assert.deepEqual(parseIp(formatIp({ family: 'IPv6', value })), { family: 'IPv6', value });
    }),
  );
});

const forms: readonly [string, string | undefined][] = [
  ['010.001.000.009', '10.1.0.9'],
  ['::ffff:10.1.2.3', '10.1.2.3'],
  ['::FFFF:a01:203', '10.1.2.3'],
  ['FD00:0:0::1', 'fd00::1'],
  ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
  ['0:0:0:0:0:0:0:0', '::'],
  ['1:2:3:4:5:6:7:0', '1:2:3:4:5:6:7:0'],
  ['256.1.1.1', undefined],
  ['1.2.3', undefined],
  ['', undefined],
  ['fe80::1%eth0', undefined],
  ['1::2::3', undefined],
  ['1.2.3.4/8', undefined],
];
for (const [text, expected] of forms) {
  test(`${JSON.stringify(text)} is ${expected ?? 'no address'}`, () =>
    assert.equal(canonical(text), expected));
}

test('ranges hold what they should', () => {
  const range = parseCidr('10.96.1.2/16');
  assert.ok(range !== undefined);
  const holds = (text: string): boolean =>
    rangeContains(range, parseIp(text) ?? { family: 'IPv6', value: 0n });
  assert.deepEqual(['10.96.0.0', '10.96.255.255', '10.97.0.0', '10.95.255.255'].map(holds), [
    true,
    true,
    false,
    false,
  ]);
  assert.equal(parseCidr('10.0.0.0/33'), undefined);
  assert.equal(parseCidr('10.0.0.0'), undefined);
});
