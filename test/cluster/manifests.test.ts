import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { formatProblem, parseManifests, readManifests } from '../../src/cluster/manifests.ts';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';

const text = `apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
spec:
  clusterIP: 10.0.0.1
  ports:
    - name: http
      port: 80
    - name: odd
      port: 99999
---
# nothing here
---
apiVersion: v1
kind: List
items:
  - apiVersion: discovery.k8s.io/v1
    kind: EndpointSlice
    metadata: { name: web-1, namespace: shop, labels: { kubernetes.io/service-name: web } }
    addressType: IPv4
    endpoints: [{ addresses: [10.1.0.1] }, { addresses: 7 }]
    ports: [{ name: http, port: 8080 }]
  - apiVersion: apps/v1
    kind: Deployment
    metadata: { name: web }
`;

test('documents and lists become objects; bad entries are named with file, line and column', () => {
  const { objects, problems, ignored } = parseManifests('shop.yaml', text);
  assert.deepEqual(
    objects.map(({ object, line }) => `${object.kind} ${object.meta.namespace}/${object.meta.name} ${line}`),
    ['Service shop/web 1', 'EndpointSlice shop/web-1 19'],
  );
  assert.deepEqual(problems.map(formatProblem), [
    'shop.yaml:12:13: Service shop/web spec.ports[1].port: 99999 is not a port (1-65535); the entry is skipped',
    'shop.yaml:23:57: EndpointSlice shop/web-1 endpoints[1].addresses: list expected, got 7; the entry is skipped',
  ]);
  assert.deepEqual([...ignored], [['Deployment', 1]]);
  const slice = objects[1]?.object;
  assert.ok(slice?.kind === 'EndpointSlice');
  assert.equal(slice.serviceName, 'web');
  assert.equal(slice.endpoints.length, 1);
});

test('broken YAML costs its document', () => {
  const { objects, problems } = parseManifests(
    'x.yaml',
    'a: [1\n---\napiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n',
  );
  assert.equal(problems.length, 1);
  assert.match(formatProblem(problems[0] ?? assert.fail()), /^x\.yaml:\d+:\d+: not valid YAML: /);
  assert.equal(objects[0]?.object.kind, 'Node');
});

test('an alias inside its own anchor costs its document', () => {
  const circle = 'apiVersion: v1\nkind: Service\nmetadata: &m\n  name: a\n  namespace: *m\n';
  const good = 'apiVersion: v1\nkind: Service\nmetadata: {name: b, labels: &l {a: b}, annotations: *l}\n';
  const listed = `apiVersion: v1\nkind: List\nitems:\n- ${circle.trim().replaceAll('\n', '\n  ')}\n`;
  const { objects, problems } = parseManifests('x.yaml', [circle, good, listed].join('---\n'));
  assert.deepEqual(
    objects.map(({ object }) => object.meta.name),
    ['b'],
  );
  assert.deepEqual(problems.map(formatProblem), [
    'x.yaml:5:14: cannot be read: this alias is inside what it stands for',
    'x.yaml:18:16: cannot be read: this alias is inside what it stands for',
  ]);
});

test('JSON and typed lists are read; a wrong version is refused', () => {
  const list = { apiVersion: 'v1', kind: 'NodeList', items: [{ metadata: { name: 'a' } }, 'junk'] };
  const read = parseManifests('n.json', JSON.stringify(list));
  assert.equal(read.objects.length, 1);
  assert.equal(read.problems.length, 1);
  const old = parseManifests(
    'old.yaml',
    'apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: a}\n',
  );
  assert.equal(
    old.problems.map(formatProblem).join(),
    'old.yaml:1:13: apiVersion: "discovery.k8s.io/v1beta1" is not read; EndpointSlice must be discovery.k8s.io/v1',
  );
});

test('JSON is read as YAML would be: places of problems, keys that come twice, several documents, what is no JSON', () => {
  const json = JSON.stringify(
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'a"\\":b', namespace: 'shop', annotations: { '"x": "y"': '{"z": 1}' } },
      spec: { clusterIP: '10.0.0.1', ports: [{ port: 99999 }] },
    },
    null,
    2,
  );
  const texts = [
    json,
    json.replace('"spec": {', '"spec": {\n    "clusterIP": "10.0.0.9",'),
    `${json}\n---\n${json}`,
    '{ apiVersion: v1, kind: Node, metadata: { name: b } }',
    '[]',
    '{}',
  ];
  for (const one of texts) {
    const direct = parseManifests('x.json', one, { strict: true });
    // A comment is no JSON, so this goes the way of YAML.
    const byYaml = parseManifests('x.json', `${one}\n# end`, { strict: true });
    assert.deepEqual(direct.problems, byYaml.problems, one);
    assert.deepEqual(
      direct.objects.map(({ object, line }) => ({ object, line })),
      byYaml.objects.map(({ object, line }) => ({ object, line })),
    );
  }
  const [range] = parseManifests('x.json', json).problems;
  assert.equal(range?.line, json.split('\n').findIndex((line) => line.includes('99999')) + 1);
  const [twice] = parseManifests('x.json', texts[1]!).problems;
  assert.equal(twice?.message, 'the same key comes twice in this map');
});

test('folders are read in order of name; what is missing is a problem, not an exception', () => {
  const folder = makeOwnedDirectory('manifests');
  try {
    mkdirSync(join(folder, 'sub'));
    const node = (name: string): string => `apiVersion: v1\nkind: Node\nmetadata: {name: ${name}}\n`;
    writeFileSync(join(folder, 'b.yaml'), node('b'));
    writeFileSync(join(folder, 'a.yml'), node('a'));
    writeFileSync(join(folder, 'sub', 'c.json'), '{"apiVersion":"v1","kind":"Node","metadata":{"name":"c"}}');
    writeFileSync(join(folder, 'notes.txt'), 'not a manifest');
    const { objects, problems } = readManifests([folder, join(folder, 'missing.yaml')]);
    assert.deepEqual(
      objects.map(({ object }) => object.meta.name),
      ['a', 'b', 'c'],
    );
    assert.equal(problems.length, 1);
    assert.match(problems[0]?.message ?? '', /cannot be read/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('UTF-16 with its mark, as Windows PowerShell writes; a folder without manifests; an alias of nothing', () => {
  const folder = makeOwnedDirectory('manifests');
  try {
    const text = 'apiVersion: v1\r\nkind: Node\r\nmetadata: {name: ö}\r\n';
    const little = Buffer.from(`\ufeff${text}`, 'utf16le');
    const files = { little, big: Buffer.from(little).swap16(), plain: Buffer.from(`\ufeff${text}`) };
    for (const [name, bytes] of Object.entries(files)) {
      const path = join(folder, `${name}.yaml`);
      writeFileSync(path, bytes);
      const { objects, problems } = readManifests([path]);
      assert.deepEqual(problems, [], name);
      assert.equal(objects[0]?.object.meta.name, 'ö', name);
    }
    const empty = join(folder, 'empty');
    mkdirSync(empty);
    assert.deepEqual(readManifests([empty]).problems.map(formatProblem), [
      `${empty}: there is no .yaml, .yml or .json file in this folder`,
    ]);
    const [alias] = parseManifests('a.yaml', 'kind: Node\nmetadata:\n  name: *nobody\n').problems;
    assert.match(formatProblem(alias ?? assert.fail()), /^a\.yaml:3:9: cannot be read: .*nobody/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
