import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { chiSquareTail, homogeneity } from '../../src/lab/scenario/chiSquare.ts';
import {
  answeredBy,
  compareExpectation,
  compareRecords,
  untilLimit,
} from '../../src/lab/scenario/compare.ts';
import { derivedTruth } from '../../src/lab/scenario/modeDifferences.ts';
import type { CheckRecord, HttpRecord, ProbeRecord, UntilRecord } from '../../src/lab/scenario/types.ts';

function probe(fields: Partial<ProbeRecord>): ProbeRecord {
  return { id: 'p', kind: 'probe', outcomes: { ok: 40 }, backends: {}, sources: {}, ...fields };
}

function differs(
  truth: Parameters<typeof compareRecords>[0],
  ours: Parameters<typeof compareRecords>[1],
): boolean {
  return compareRecords(truth, ours).differences.length > 0;
}

test('the chi-square tail is that of the tables', () => {
  const table: [number, number, number][] = [
    [3.841, 1, 0.05],
    [6.635, 1, 0.01],
    [19.511, 1, 1e-5],
    [5.991, 2, 0.05],
    [18.307, 10, 0.05],
    [124.342, 100, 0.05],
  ];
  for (const [value, freedom, p] of table) {
    assert.ok(Math.abs(chiSquareTail(value, freedom) / p - 1) < 0.01, `${value} with ${freedom}`);
  }
});

test('a histogram is like itself, and which comes first does not matter', () => {
  const counts = fc.dictionary(fc.constantFrom('a', 'b', 'c', 'd'), fc.integer({ min: 1, max: 100 }), {
    minKeys: 1,
  });
  fc.assert(
    fc.property(counts, counts, (a, b) => {
      assert.ok(homogeneity(a, a) > 0.99);
      assert.ok(Math.abs(homogeneity(a, b) - homogeneity(b, a)) < 1e-9);
    }),
  );
});

test('shares that chance allows agree, others do not; few answers say nothing', () => {
  const truth = probe({ backends: { 'a:80': 100, 'b:80': 100 } });
  assert.ok(!differs(truth, probe({ backends: { 'a:80': 80, 'b:80': 120 } })));
  assert.ok(differs(truth, probe({ backends: { 'a:80': 20, 'b:80': 180 } })));
  assert.ok(!differs(truth, probe({ backends: { 'a:80': 1, 'b:80': 18 } })));
});

test('outcomes, backends and sources are compared as sets, `by` only remarked on', () => {
  const truth = probe({ outcomes: { refused: 3 }, by: ['icmp-port'] });
  const verdict = compareRecords(truth, probe({ outcomes: { refused: 1 }, by: ['rst'] }));
  assert.deepEqual(verdict.differences, []);
  assert.equal(verdict.remarks.length, 1);
  assert.ok(differs(truth, probe({ outcomes: { refused: 2, timeout: 1 } })));
  assert.ok(differs(probe({ backends: { 'a:80': 4 } }), probe({ backends: { 'b:80': 4 } })));
  assert.ok(differs(probe({ sources: { 'client-ip': 4 } }), probe({ sources: { 'node-ip/node-1': 4 } })));
});

test('of more than 20 backends nine tenths are enough', () => {
  const range = (n: number, from = 0): Record<string, number> =>
    Object.fromEntries(Array.from({ length: n }, (_, i) => [`p-${i + from}:80`, 2]));
  assert.ok(!differs(probe({ backends: range(30) }), probe({ backends: range(27) })));
  assert.ok(differs(probe({ backends: range(30) }), probe({ backends: range(26) })));
  assert.ok(differs(probe({ backends: range(30) }), probe({ backends: range(30, 10) })));
});

test('sticky probes may choose otherwise, but stay, keep and remain in their pool', () => {
  const truth = probe({ sticky: true, kept: 'all', pool: ['a', 'b'], backends: { 'a:80': 40 } });
  assert.ok(!differs(truth, { ...truth, backends: { 'b:80': 40 } }));
  assert.ok(differs(truth, { ...truth, backends: { 'c:80': 40 } }));
  assert.ok(differs(truth, { ...truth, sticky: false }));
  assert.ok(differs(truth, { ...truth, kept: 'not all' }));
});

test('fates are compared for first backends that both met, and over all', () => {
  const check = (fates: CheckRecord['fates'], now: CheckRecord['now'] = {}): CheckRecord => ({
    id: 'c',
    kind: 'check',
    fates,
    now,
  });
  assert.ok(!differs(check({ 'a:80': { same: 9 } }), check({ 'b:80': { same: 1 } })));
  assert.ok(
    differs(
      check({ 'a:80': { same: 9 }, 'b:80': { timeout: 1 } }),
      check({ 'a:80': { timeout: 9 }, 'b:80': { same: 1 } }),
    ),
  );
  const moved = check({ 'a:80': { moved: 2 } }, { 'b:80': 2 });
  assert.ok(differs(moved, check({ 'a:80': { moved: 2 } }, { 'c:80': 2 })));
});

test('http answers agree in status, headers and body', () => {
  const truth: HttpRecord = {
    id: 'h',
    kind: 'http',
    outcome: 'ok',
    status: 200,
    headers: { a: '1' },
    body: { x: [1, { y: 2 }] },
  };
  assert.ok(!differs(truth, { ...truth, body: { x: [1, { y: 2 }] } }));
  assert.ok(differs(truth, { ...truth, body: { x: [1, { y: 3 }] } }));
  assert.ok(differs(truth, { ...truth, headers: {} }));
  assert.ok(differs(truth, { id: 'h', kind: 'http', outcome: 'refused' }));
});

test('until: no later than two and a half times, or five seconds more', () => {
  assert.equal(untilLimit(2), 7);
  assert.equal(untilLimit(10), 25);
  const until = (reached: boolean, seconds: number): UntilRecord => ({
    id: 'u',
    kind: 'until',
    reached,
    seconds,
  });
  assert.ok(!differs(until(true, 1), until(true, 5.9)));
  assert.ok(differs(until(true, 1), until(true, 6.1)));
  assert.ok(differs(until(true, 1), until(false, 3)));
  assert.ok(!differs(until(false, 20), until(true, 1)));
});

test("expectations in an author's words, for all modes or one", () => {
  const record = probe({
    outcomes: { ok: 4 },
    backends: { 'a:80': 2, 'b:81': 2 },
    sources: { 'client-ip': 4 },
  });
  const holds = (expect: Parameters<typeof compareExpectation>[0]): boolean =>
    compareExpectation(expect, 'iptables', record).differences.length === 0;
  assert.ok(holds({ outcome: 'ok', backends: ['a', 'b:81'], source: 'client-ip', distinct: 2 }));
  assert.ok(!holds({ backends: ['a'] }));
  assert.ok(!holds({ backends: ['a', 'b', 'c'] }));
  assert.ok(!holds({ iptables: { outcome: 'timeout' }, nftables: { outcome: 'ok' } }));
  assert.ok(holds({ outcome: 'ok', nftables: { outcome: 'refused' } }));
  assert.ok(answeredBy([], {}));
});

test('where a mode hides the client, an address of any node stands for its own, and nothing else does', () => {
  const truth = probe({ sources: { 'client-ip': 40 } });
  const compare = (ours: ProbeRecord['sources'], wanted = truth): number =>
    compareRecords(wanted, probe({ sources: ours }), { clientHidden: true }).differences.length;
  assert.equal(compare({ 'node-ip/node-1': 40 }), 0);
  assert.equal(compare({ 'client-ip': 40 }), 0);
  assert.equal(compare({ 'pod-ip/a1': 40 }), 1);
  assert.equal(compare({ 'client-ip': 40 }, probe({ sources: { 'node-ip/node-1': 40 } })), 1);
});

test('the differences of a mode replace what the truth says of those probes, and of no others', () => {
  const record = probe({ id: 'down', outcomes: { ok: 40 }, backends: { 'a1:8080': 40 } });
  const truth = {
    scenario: 'restart',
    mode: 'iptables',
    reference: '',
    probes: [record, { ...record, id: 'up' }],
  };
  const [down, up] = derivedTruth(truth, 'userspace').probes as ProbeRecord[];
  assert.deepEqual([down?.outcomes, down?.backends], [{ refused: 40 }, {}]);
  assert.deepEqual(up?.outcomes, { ok: 40 });
  assert.deepEqual(derivedTruth({ ...truth, scenario: 'nodeport' }, 'userspace').probes, truth.probes);
});
