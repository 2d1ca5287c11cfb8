import assert from 'node:assert/strict';
import { isIPv4, isIPv6 } from 'node:net';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  canonicalIP,
  cidrContains,
  cidrRange,
  familyOf,
  formatIP,
  ipBytes,
  mergeCIDRs,
  parseCIDR,
  parseIP,
} from '../../src/services/ip.ts';

describe('addresses', () => {
  for (const [text, canonical] of [
    ['10.0.0.1', '10.0.0.1'],
    ['0.0.0.0', '0.0.0.0'],
    ['255.255.255.255', '255.255.255.255'],
    ['192.168.099.022', '192.168.99.22'],
    ['1.2.3.004', '1.2.3.4'],
    ['::', '::'],
    ['::1', '::1'],
    ['FD00:0:0:0:0:0:0:1', 'fd00::1'],
    ['2001:db8:0:1:0:0:0:1', '2001:db8:0:1::1'],
    ['2001:db8::1:0:0:1', '2001:db8::1:0:0:1'],
    ['1:0:0:2:0:0:3:4', '1::2:0:0:3:4'],
    ['1:0:2:3:4:5:6:7', '1:0:2:3:4:5:6:7'],
    ['0:0:1::', '0:0:1::'],
    ['::ffff:10.1.2.3', '10.1.2.3'],
    ['::FFFF:0a01:0203', '10.1.2.3'],
    ['64:ff9b::10.1.02.003', '64:ff9b::a01:203'],
  ] as const) {
    test(`${text} is ${canonical}`, () => assert.equal(canonicalIP(text), canonical));
  }

  for (const text of [
    '',
    ' ',
    '1.2.3',
    '1.2.3.4.5',
    '1.2.3.256',
    '1.2.3.4 ',
    ' 1.2.3.4',
    '1..2.3',
    '.1.2.3',
    '1.2.3.',
    '-1.2.3.4',
    '1.2.3.4/32',
    '0x1.2.3.4',
    '1.2.3.a',
    '1.2.3.4\n',
    ':',
    ':::',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7:8::',
    '::1%eth0',
    '12345::',
    'g::',
    '::1.2.3',
    '1.2.3.4::',
    '::1.2.3.4:5',
    'localhost',
    `${'0'.repeat(200)}.0.0.1`,
    '1:',
    ':1',
    '1:2:3:4:5:6:7:',
    '１.2.3.4',
  ]) {
    test(`${JSON.stringify(text)} is no address`, () => assert.equal(canonicalIP(text), undefined));
  }

  test('bytes come back as they went in', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ minLength: 4, maxLength: 4 }),
          fc.uint8Array({ minLength: 16, maxLength: 16 }),
        ),
        (bytes) => {
          const text = formatIP(bytes);
          assert.equal(canonicalIP(text), text);
          assert.ok(familyOf(text) === 'IPv4' ? isIPv4(text) : isIPv6(text));
          const again = ipBytes(text);
          assert.deepEqual(again, again.length === bytes.length ? bytes : bytes.slice(12));
        },
      ),
    );
  });

  test('agrees with Node about what is an address, but for zones and leading zeros', () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6(), fc.stringMatching(/^[0-9a-f:.]{1,24}$/)), (text) => {
        const accepted = parseIP(text) !== undefined;
        if (/(^|[.:])0\d/.test(text) && text.includes('.')) return;
        assert.equal(accepted, isIPv4(text) || isIPv6(text), text);
      }),
      { numRuns: 2000 },
    );
  });

  test('text that is no address throws where it has to be one', () => {
    assert.throws(() => ipBytes('web'), /not an IP address: "web"/);
  });
});

describe('CIDRs', () => {
  for (const [text, canonical] of [
    ['10.0.0.7/8', '10.0.0.0/8'],
    ['203.0.113.000/025', '203.0.113.0/25'],
    ['0.0.0.0/0', '0.0.0.0/0'],
    ['10.1.2.3/32', '10.1.2.3/32'],
    ['FD00::1/48', 'fd00::/48'],
    ['::/0', '::/0'],
    ['2001:db8:ffff::/33', '2001:db8:8000::/33'],
    ['::ffff:10.1.2.3/104', '10.0.0.0/8'],
  ] as const) {
    test(`${text} is ${canonical}`, () => assert.equal(parseCIDR(text)?.text, canonical));
  }

  for (const text of [
    '',
    '10.0.0.0',
    '10.0.0.0/',
    '10.0.0.0/33',
    '10.0.0.0/-1',
    '10.0.0.0/8/8',
    '::/129',
    '/8',
    '10.0.0.0/8 ',
    'x/8',
    '10.0.0.0/1e1',
  ]) {
    test(`${JSON.stringify(text)} is no CIDR`, () => assert.equal(parseCIDR(text), undefined));
  }

  test('contains exactly the addresses between its ends', () => {
    const address = fc.uint8Array({ minLength: 4, maxLength: 4 });
    fc.assert(
      fc.property(address, fc.integer({ min: 0, max: 32 }), address, (base, prefix, other) => {
        const cidr = parseCIDR(`${formatIP(base)}/${prefix}`);
        assert.ok(cidr);
        const { first, last } = cidrRange(cidr);
        const number = (bytes: Uint8Array): number => Buffer.from(bytes).readUInt32BE();
        assert.equal(number(last) - number(first) + 1, 2 ** (32 - prefix));
        assert.equal(
          cidrContains(cidr, other),
          number(first) <= number(other) && number(other) <= number(last),
        );
        assert.ok(cidrContains(cidr, formatIP(base)));
        assert.ok(!cidrContains(cidr, '::1'));
      }),
    );
  });

  test('merging leaves out what lies in another', () => {
    assert.deepEqual(
      mergeCIDRs([
        '10.1.0.0/16',
        'fd00::/8',
        '10.0.0.0/8',
        '10.0.0.0/8',
        '192.168.1.1/32',
        'fd00:1::/32',
        '9.0.0.0/8',
        'junk',
      ]),
      ['9.0.0.0/8', '10.0.0.0/8', '192.168.1.1/32', 'fd00::/8'],
    );
  });

  test('merging changes no address and leaves no overlap', () => {
    const cidr = fc
      .tuple(
        fc.integer({ min: 0, max: 3 }),
        fc.integer({ min: 0, max: 255 }),
        fc.integer({ min: 5, max: 32 }),
      )
      .map(([a, b, prefix]) => `10.${a}.${b}.128/${prefix}`);
    const any = (texts: readonly string[], ip: string): number =>
      texts.filter((text) => cidrContains(parseCIDR(text)!, ip)).length;
    fc.assert(
      fc.property(fc.array(cidr, { maxLength: 12 }), fc.array(fc.ipV4()), (cidrs, ips) => {
        const merged = mergeCIDRs(cidrs);
        for (const ip of [...ips, ...cidrs.map((text) => text.slice(0, text.indexOf('/')))]) {
          assert.equal(any(merged, ip), Math.min(1, any(cidrs, ip)));
        }
      }),
    );
  });
});
