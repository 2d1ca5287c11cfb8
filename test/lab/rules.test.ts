import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compareRules, normaliseRule } from '../../src/lab/scenario/rules.ts';

const reference = `## node-1: iptables-save
*nat
:KUBE-SEP-A -
:KUBE-SERVICES -
-A KUBE-SEP-A -s 10.0.0.1/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 10.0.0.1:80
-A KUBE-SERVICES -d 10.96.0.1/32 -j X
-A KUBE-SERVICES -d 10.96.0.2/32 -j Y
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
`;

test('counters and comments do not count', () => {
  const rule =
    '[3:180] -A KUBE-SEP-A -s 10.0.0.1/32 -m comment --comment "default/web:http -j \\"x\\"" -j KUBE-MARK-MASQ';
  assert.equal(normaliseRule(rule), '-A KUBE-SEP-A -s 10.0.0.1/32 -j KUBE-MARK-MASQ');
  assert.equal(normaliseRule('-A C -m comment --comment word -j DROP'), '-A C -j DROP');
});

test('the same rules agree, also as iptables-save prints them', () => {
  const printed = reference
    .replace(':KUBE-SEP-A -', ':KUBE-SEP-A - [0:0]\n:PREROUTING ACCEPT [5:300]')
    .replace('-s 10.0.0.1/32 -j', '-s 10.0.0.1/32 -m comment --comment "default/web" -j');
  assert.deepEqual(compareRules(reference, printed), []);
});

test('dispatch chains may have another order, but their tail stays last', () => {
  const swap = (text: string, a: string, b: string): string =>
    text.replace(a, '@').replace(b, a).replace('@', b);
  assert.deepEqual(
    compareRules(reference, swap(reference, '-d 10.96.0.1/32 -j X', '-d 10.96.0.2/32 -j Y')),
    [],
  );
  const tailFirst = swap(reference, '-d 10.96.0.1/32 -j X', '-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS');
  assert.match(compareRules(reference, tailFirst).join(), /not last/);
});

test('endpoint chains keep their order', () => {
  const [one = '', two = ''] = reference.split('\n').filter((line) => line.startsWith('-A KUBE-SEP-A'));
  const swapped = reference.replace(`${one}\n${two}`, `${two}\n${one}`);
  assert.match(compareRules(reference, swapped).join(), /other order/);
});

test('missing and extra chains and rules are named', () => {
  const other = reference
    .replace('-d 10.96.0.2/32 -j Y', '-d 10.96.0.3/32 -j Y')
    .replace(':KUBE-SEP-A -', ':KUBE-SEP-B -');
  const text = compareRules(reference, other).join('\n');
  for (const part of [
    'missing chain KUBE-SEP-A',
    'extra chain KUBE-SEP-B',
    'missing  -A KUBE-SERVICES -d 10.96.0.2/32',
    'too many -A KUBE-SERVICES -d 10.96.0.3/32',
  ]) {
    assert.ok(text.includes(part), part);
  }
  assert.match(compareRules(reference, '').join(), /no rules were read/);
});
