import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { EndpointSlice } from '../../src/api/objects.ts';
import type { SliceEndpoints } from '../../src/services/endpoints.ts';
import {
  compareKeys,
  differences,
  Interner,
  mergeLists,
  NO_SLICE,
  patchMerged,
  readSlice,
  sliceService,
  sortUnique,
} from '../../src/services/endpoints.ts';
import type { Endpoint, Problem } from '../../src/services/types.ts';
import { backend, endpoint, keys, meta, slice, slicePort } from './build.ts';

const options = { family: 'IPv4', nodeName: 'node-1', interner: new Interner() } as const;

function read(object: EndpointSlice, problems: Problem[] = []): SliceEndpoints {
  return readSlice(object, NO_SLICE, options, problems);
}

describe('reading a slice', () => {
  test('every endpoint behind every port, in byte order of ip:port', () => {
    const ports = [slicePort({ name: 'a', port: 80 }), slicePort({ name: 'b', port: 11, protocol: 'UDP' })];
    const result = read(slice('s', 'web', ['10.0.1.1', '10.0.1.10', '10.0.001.002'], { ports }));
    assert.deepEqual(keys(result.get('a/TCP')!), ['10.0.1.10:80', '10.0.1.1:80', '10.0.1.2:80']);
    assert.deepEqual(keys(result.get('b/UDP')!), ['10.0.1.10:11', '10.0.1.1:11', '10.0.1.2:11']);
    assert.equal(result.size, 2);
  });

  test('IPv6 keys have brackets', () => {
    const result = readSlice(slice('s', 'web', ['FD00:0::1']), NO_SLICE, { ...options, family: 'IPv6' });
    assert.deepEqual(keys(result.get('/TCP')!), ['[fd00::1]:8080']);
  });

  test('two numbers of one port name are different endpoints of one service port', () => {
    const ports = [slicePort({ port: 80 }), slicePort({ port: 81 })];
    assert.deepEqual(keys(read(slice('s', 'web', ['10.0.0.1'], { ports })).get('/TCP')!), [
      '10.0.0.1:80',
      '10.0.0.1:81',
    ]);
  });

  test('local is what runs on exactly this node', () => {
    const result = read(
      slice('s', 'web', [
        backend('10.0.0.1', { nodeName: 'node-1' }),
        backend('10.0.0.2', { nodeName: 'node-10' }),
        backend('10.0.0.3', { nodeName: '' }),
      ]),
    );
    assert.deepEqual(
      result.get('/TCP')!.map((each) => each.isLocal),
      [true, false, false],
    );
    const nameless = readSlice(slice('s', 'web', [backend('10.0.0.1', { nodeName: '' })]), NO_SLICE, {
      ...options,
      nodeName: '',
    });
    assert.equal(nameless.get('/TCP')![0]!.isLocal, false);
  });

  test('of two records of one endpoint the one that does not terminate wins, in any order', () => {
    const going = backend('10.0.0.1', { ready: false, terminating: true });
    const staying = backend('10.0.0.1');
    for (const endpoints of [
      [going, staying],
      [staying, going],
    ]) {
      const list = read(slice('s', 'web', endpoints)).get('/TCP')!;
      assert.deepEqual(
        list.map((each) => each.terminating),
        [false],
      );
    }
    const last = read(slice('s', 'web', [staying, backend('10.0.0.1', { ready: false })])).get('/TCP')!;
    assert.deepEqual(
      last.map((each) => each.ready),
      [false],
    );
  });

  test('bad entries cost themselves', () => {
    const problems: Problem[] = [];
    const ports = [
      slicePort({ name: null }),
      slicePort({ name: 'x"y' }),
      slicePort({ name: 'null', port: null }),
      slicePort({ name: 'zero', port: 0 }),
      slicePort({ name: 'huge', port: 65536 }),
      slicePort({ name: 'proto', protocol: 'ICMP' as 'TCP' }),
      slicePort({ name: 'good' }),
    ];
    const result = read(slice('s', 'web', ['', 'junk', 'fd00::1', '10.0.0.1'], { ports }), problems);
    assert.deepEqual([...result.keys()], ['good/TCP']);
    assert.deepEqual(keys(result.get('good/TCP')!), ['10.0.0.1:8080']);
    assert.deepEqual(
      problems.map((each) => each.field),
      [
        ...[0, 1].map((i) => `ports[${i}].name`),
        ...[2, 3, 4].map((i) => `ports[${i}].port`),
        'ports[5].protocol',
        ...[0, 1, 2].map((i) => `endpoints[${i}].addresses`),
      ],
    );
  });

  test('no ports, no endpoints', () => {
    assert.equal(read(slice('s', 'web', ['10.0.0.1'], { ports: [] })).size, 0);
    assert.equal(read(slice('s', 'web', [])).size, 0);
  });

  test('what did not change stays the same object', () => {
    const first = read(slice('s', 'web', ['10.0.0.1', '10.0.0.2']));
    const reordered = slice('s', 'web', ['10.0.0.2', '10.0.0.1'], { lastChangeTriggerTime: 5 });
    assert.equal(readSlice(reordered, first, options), first);
    const third = readSlice(slice('s', 'web', ['10.0.0.2', '10.0.0.3']), first, options);
    assert.notEqual(third, first);
    assert.equal(third.get('/TCP')![0], first.get('/TCP')![1]);
  });

  test('text that could harm a terminal or a comment is left out', () => {
    const hostile = backend('10.0.0.1', { nodeName: 'n"\n', zone: '\u001b[2J', pod: 'a b' });
    const [only] = read(slice('s', 'web', [hostile])).get('/TCP')!;
    assert.deepEqual([only?.nodeName, only?.zone, only?.pod], ['', '', '']);
  });

  test('a slice must say whose it is', () => {
    const problems: Problem[] = [];
    assert.equal(sliceService(slice('s', 'web', []), problems), 'web');
    assert.equal(sliceService(slice('s', '', []), problems), undefined);
    assert.equal(sliceService(slice('s', 'we"b', []), problems), undefined);
    assert.equal(sliceService(slice('s', 'web', [], { meta: meta('s\n') }), problems), undefined);
    assert.deepEqual(
      problems.map((each) => each.reason),
      ['missing_service_name', 'invalid_name', 'invalid_name'],
    );
  });
});

describe('lists', () => {
  const list = fc
    .uniqueArray(fc.tuple(fc.integer({ min: 1, max: 30 }), fc.boolean()), {
      selector: ([n]) => n,
      maxLength: 20,
    })
    .map((pairs) => pairs.map(([n, ready]) => endpoint(`10.0.0.${n}`, { ready })).sort(compareKeys));

  test('patching is merging', () => {
    fc.assert(
      fc.property(list, list, list, (before, after, other) => {
        const apart = other
          .map((each) => endpoint(`10.1.${each.ip.slice('10.0.'.length)}`))
          .sort(compareKeys);
        const removed: Endpoint[] = [];
        const added: Endpoint[] = [];
        differences(before, after, removed, added);
        assert.deepEqual(
          patchMerged(mergeLists([before, apart]), removed, added),
          mergeLists([after, apart]),
        );
      }),
      { numRuns: 1000 },
    );
  });

  test('a key that would be there twice is left to merging', () => {
    const a = [endpoint('10.0.0.1')];
    assert.equal(patchMerged(a, [], [endpoint('10.0.0.1')]), undefined);
    assert.equal(patchMerged(a, a, [endpoint('10.0.0.1'), endpoint('10.0.0.1')]), undefined);
  });

  test('sorting leaves each key once', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 9 }), fc.boolean()), { maxLength: 30 }),
        (pairs) => {
          const sorted = sortUnique(
            pairs.map(([n, terminating]) => endpoint(`10.0.0.${n}`, { terminating })),
          );
          assert.deepEqual(keys(sorted), [...new Set(pairs.map(([n]) => `10.0.0.${n}:8080`))].sort());
          for (const each of sorted) {
            const all = pairs.filter(([n]) => each.ip === `10.0.0.${n}`);
            assert.equal(
              each.terminating,
              all.every(([, terminating]) => terminating),
            );
          }
        },
      ),
    );
  });
});
