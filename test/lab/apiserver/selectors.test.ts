import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  labelSelectorMatcher,
  parseFieldSelector,
  parseLabelSelector,
} from '../../../src/lab/apiserver/selectors.ts';

const cases: readonly [string, Record<string, string>, boolean][] = [
  ['a=1', { a: '1' }, true],
  ['a==1', { a: '2' }, false],
  ['a!=1', {}, true],
  ['a!=1', { a: '1' }, false],
  ['a', { a: '' }, true],
  ['!a', { a: '' }, false],
  ['! a', {}, true],
  ['a in (1,2)', { a: '2' }, true],
  ['a notin (1, 2)', { a: '3' }, true],
  ['a notin (1,2)', {}, true],
  ['a in ()', { a: '' }, true],
  ['a>4', { a: '5' }, true],
  ['a<4', { a: '5' }, false],
  ['a=1,b!=2,!c', { a: '1', b: '3' }, true],
  ['a in (1,2),b', { a: '1' }, false],
  ['!service.kubernetes.io/service-proxy-name', { 'service.kubernetes.io/service-proxy-name': '' }, false],
  ['kubernetes.io/service-name=web', { 'kubernetes.io/service-name': 'web' }, true],
  ['toString', {}, false],
];
for (const [text, labels, expected] of cases) {
  test(`${text} on ${JSON.stringify(labels)} is ${expected}`, () => {
    assert.equal(parseLabelSelector(text)?.(labels), expected);
  });
}

for (const text of ['a b', '=1', 'a in 1', 'a=(1)', 'a,,b', '/a', 'a=b=c', "a=';rm"]) {
  test(`${text} is no selector`, () =>
    assert.throws(() => parseLabelSelector(text), /unable to parse requirement/));
}

test('an empty selector selects everything', () => {
  assert.equal(parseLabelSelector(''), undefined);
  assert.equal(labelSelectorMatcher({})({ any: 'thing' }), true);
});

test('a selector object means what its text means', () => {
  const name = fc.constantFrom('a', 'b', 'c');
  const value = fc.constantFrom('1', '2');
  fc.assert(
    fc.property(
      fc.dictionary(name, value),
      fc.dictionary(name, value),
      name,
      fc.constantFrom('In', 'NotIn', 'Exists', 'DoesNotExist'),
      fc.array(value, { minLength: 1 }),
      (labels, matchLabels, key, operator, values) => {
        const list = `(${values.join(',')})`;
        const expression = {
          In: `${key} in ${list}`,
          NotIn: `${key} notin ${list}`,
          Exists: key,
          DoesNotExist: `!${key}`,
        }[operator];
        const text = [...Object.entries(matchLabels).map(([k, v]) => `${k}=${v}`), expression].join(',');
        const byObject = labelSelectorMatcher({ matchLabels, matchExpressions: [{ key, operator, values }] });
        assert.equal(byObject(labels), parseLabelSelector(text)?.(labels));
      },
    ),
  );
});

test('field selectors compare as text, and know only their fields', () => {
  const fields = { 'metadata.name': (one: { name: string }): string => one.name };
  const matches = (text: string): boolean | undefined =>
    parseFieldSelector(text, 'Thing', fields)?.({ name: 'x' });
  assert.deepEqual(['metadata.name=x', 'metadata.name==y', 'metadata.name!=y'].map(matches), [
    true,
    false,
    true,
  ]);
  assert.throws(() => matches('constructor=x'), /field label not supported: constructor/);
  assert.throws(() => matches('metadata.name'), /can't understand/);
});
