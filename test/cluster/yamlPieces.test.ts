/** YAML read in pieces says what it says read as a whole: the same objects, and mistakes in the same places. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseManifests } from '../../src/cluster/manifests.ts';
import { listPieces, yamlDocuments } from '../../src/cluster/yamlPieces.ts';

/** A directive makes the reader take everything at once. */
const wholePrefix = '%YAML 1.2\n---\n';

function told(text: string, shift: number): unknown {
  const { objects, problems, ignored, others } = parseManifests('file', text, { strict: true });
  return {
    objects: objects.map((one) => {
      const { object, line, value } = one;
      const { line: portLine, column } = one.position('spec.ports[0].port');
      return { object, value, line: line - shift, port: [portLine - shift, column] };
    }),
    problems: problems.map((one) => ({ ...one, line: one.line === 0 ? 0 : one.line - shift })),
    ignored: [...ignored],
    others: others.map(({ value, line }) => [value, line - shift]),
  };
}

function assertSame(text: string): void {
  assert.deepEqual(told(text, 0), told(wholePrefix + text, 2), text);
}

const service = (name: string, port: string): string =>
  `apiVersion: v1\nkind: Service\nmetadata:\n  name: ${name}\n  annotations:\n    note: |\n      - no item\n      kind: List\nspec:\n  clusterIP: 10.96.0.1\n  ports:\n  - port: ${port}\n    name: a\n`;

const objects = [
  service('a', '80'),
  service('b', '99999'),
  service('c', '80').replace('clusterIP:', 'clusterIp:'),
  service('d', '80').replace('name: d', 'name: "d\n    e"'),
  `${service('e', '80')}spec: {}\n`,
  'apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {a: "b"}}\n',
  'kind: Service\nmetadata: {name: f}\n',
  'metadata: {name: untyped}\nspec: {ports: [{port: 0}]}\n',
  `# only a comment\n`,
  'just text\n',
  'a: b: c\n',
  'a: [1]]\n',
  'a: &x 1\nb: *x\n',
  'a: *x\n',
  '\n',
  '- 1\n- 2\n',
];

function listOf(
  items: readonly string[],
  indent: number,
  head: string,
  tail: string,
  between: string,
): string {
  const blank = ' '.repeat(indent + 2);
  const body = items
    .map((item) => {
      const lines = item.trimEnd().split('\n');
      return `${' '.repeat(indent)}- ${lines.map((line, i) => (i === 0 || line === '' ? line : blank + line)).join('\n')}\n`;
    })
    .join(between);
  return `${head}items:\n${body}${tail}`;
}

const someObjects = fc.array(fc.constantFrom(...objects), { maxLength: 4 });
const list = fc
  .record({
    items: someObjects,
    indent: fc.constantFrom(0, 2, 3),
    head: fc.constantFrom(
      'apiVersion: v1\nkind: List\n',
      'apiVersion: v1\nkind: ServiceList\n',
      'apiVersion: v1\n',
      '# list\n',
    ),
    tail: fc.constantFrom(
      '',
      'kind: List\n',
      'kind: ServiceList\nmetadata:\n  resourceVersion: ""\n',
      'items: []\nkind: List\n',
      '"items": []\n',
      'broken: ]\n',
    ),
    between: fc.constantFrom('', '\n', '# between\n', '      # deep\n'),
  })
  .map(({ items, indent, head, tail, between }) => listOf(items, indent, head, tail, between));

void test('streams and Lists of all forms, sound and broken', () => {
  fc.assert(
    fc.property(
      fc.array(fc.oneof(list, fc.constantFrom(...objects)), { minLength: 1, maxLength: 3 }),
      fc.constantFrom('---\n', '--- # next\n', '---   \n', '--- \n---\n', '...\n---\n'),
      fc.boolean(),
      (documents, marker, carriageReturns) => {
        const text = documents.join(marker);
        assertSame(carriageReturns ? text.replaceAll('\n', '\r\n') : text);
      },
    ),
    { numRuns: 300 },
  );
});

void test('pieces are where they were, and a List is taken apart', () => {
  const text = `${service('a', '80')}---\n${listOf([service('b', '80'), service('c', '0')], 2, 'kind: List\n', 'apiVersion: v1\n', '')}`;
  const documents = yamlDocuments(text);
  assert.equal(documents.length, 2);
  const pieces = listPieces(documents[1]!);
  assert.equal(pieces?.items.length, 2);
  for (const { text: own, at } of pieces.items)
    assert.equal(text.slice(at, at + own.length).replace('  - ', '    '), own);
  assert.equal(pieces.frame.trim(), 'kind: List\nitems: []\napiVersion: v1');
});

void test('what is never closed costs its own document', () => {
  for (const broken of ['a: "never closed\n', 'a: [1, 2\n', 'kind: List\nitems:\n- a: "never closed\n']) {
    const { objects: read, problems } = parseManifests('file', `${broken}---\n${service('a', '80')}`);
    assert.equal(read.length, 1, broken);
    assert.equal(problems.length, 1, broken);
    assert.match(problems[0]!.message, /^not valid YAML/);
  }
});
