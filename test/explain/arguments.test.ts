/** Who sends and where it goes can be written in many ways, anywhere among the flags. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { takeNames } from '../../src/explain/arguments.ts';

const both = ['default/frontend-7d9', 'shop/checkout:http'];

for (const text of [
  'default/frontend-7d9 → shop/checkout:http -f m.yaml --kernel',
  'default/frontend-7d9 shop/checkout:http --kernel -f m.yaml',
  '--kernel -f m.yaml default/frontend-7d9 -> shop/checkout:http',
  '-f m.yaml default/frontend-7d9 to shop/checkout:http --kernel',
  '-f m.yaml default/frontend-7d9 --kernel shop/checkout:http',
  '-f m.yaml --kernel from default/frontend-7d9 to shop/checkout:http',
  '-f m.yaml --kernel default/frontend-7d9→shop/checkout:http',
]) {
  test(`the packet is found: ${text}`, () => {
    const { names, flags } = takeNames(text.split(' '));
    assert.deepEqual(names, both);
    assert.deepEqual([...flags].sort(), ['--kernel', '-f', 'm.yaml']);
  });
}

test('one argument in quotes is a packet, too', () => {
  for (const arrow of [' to ', '→', ' → ', '->', ' -> ', '=>'])
    assert.deepEqual(takeNames([`default/frontend-7d9${arrow}shop/checkout:http`]).names, both);
});

test('a flag keeps the word behind it, a switch does not', () => {
  const { names, flags } = takeNames(
    '--node node-1 --masquerade-all --mode=ipvs -v2 -v 3 10.96.0.10:53 --cluster-cidr 10.0.0.0/8 --json'.split(
      ' ',
    ),
  );
  assert.deepEqual(names, ['10.96.0.10:53']);
  assert.deepEqual(
    flags.join(' '),
    '--node node-1 --masquerade-all --mode=ipvs -v2 -v 3 --cluster-cidr 10.0.0.0/8 --json',
  );
});

test('a third name, and an arrow that the shell took, are told', () => {
  assert.throws(() => takeNames(['a', 'b', 'c']), /what is "c"\? One packet is explained at a time/);
  // `a->b` without quotes.
  assert.throws(() => takeNames(['a-']), /"a-" alone: the shell takes the > of -> for a redirection/);
  assert.throws(() => takeNames(['a', '-']), /the shell takes the > of -> for a redirection/);
});
