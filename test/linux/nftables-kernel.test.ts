import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, beforeEach, describe, test } from 'node:test';
import fc from 'fast-check';
import { EEXIST, ENOENT, ERESTART, isRefusal } from '../../src/linux/netlink/errors.ts';
import { withNetworkNamespace } from '../../src/linux/netlink/namespace.ts';
import { Batch } from '../../src/linux/netlink/nftables/batch.ts';
import {
  sameElement,
  sameHook,
  sameRule,
  sameSet,
  signExpressions,
} from '../../src/linux/netlink/nftables/compare.ts';
import { chain, map, rule, set, table, type Element } from '../../src/linux/netlink/nftables/objects.ts';
import { printElements, printTable } from '../../src/linux/netlink/nftables/print.ts';
import { ct, fib, ip, ip6, meta, numgen, th } from '../../src/linux/netlink/nftables/selectors.ts';
import {
  CommitError,
  NftSocket,
  watchNftables,
  type NftEvent,
} from '../../src/linux/netlink/nftables/socket.ts';
import {
  accept,
  backToCaller,
  counter,
  dnatTo,
  dnatToMap,
  drop,
  goTo,
  inSet,
  jump,
  markAnd,
  markFromMap,
  markOr,
  markXor,
  masquerade,
  match,
  matchBits,
  matchMasked,
  matchPrefix,
  matchRange,
  reject,
  rejectWithReset,
  setMark,
  update,
  vmap,
} from '../../src/linux/netlink/nftables/statements.ts';
import { concatBytes } from '../../src/linux/netlink/nftables/types.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';

let namespace = '';
let socket: NftSocket;
before(() => {
  namespace = makeNamespace();
  socket = inside(() => new NftSocket());
});
after(() => {
  socket.close();
  removeNamespace(namespace);
});

function inside<T>(action: () => T): T {
  return withNetworkNamespace(`/run/netns/${namespace}`, action);
}
const nft = (...argv: string[]): string => inNamespace(namespace, ['nft', ...argv]);

/** The lines of a listing, with the elements of each set in an order of their own (the kernel's is that of a hash). */
function linesOf(listing: string): string[] {
  return listing
    .replaceAll(/elements = \{ ([^}]*) \}/g, (_, list: string) =>
      list
        .split(',')
        .map((element) => element.trim())
        .toSorted()
        .join('\n'),
    )
    .split('\n');
}

/** A table with every kind of set and statement that a service proxy uses. */
function proxyTable(family: 'ip' | 'ip6', text = false): Batch {
  const six = family === 'ip6';
  const address = six ? 'ipv6_addr' : 'ipv4_addr';
  const l3 = six ? ip6 : ip;
  const host = (n: number): string => (six ? `fd00::${n}` : `10.0.0.${n}`);
  const t = table(family, 'kp', { comment: 'rules for kubernetes Services' });
  const frontend = [address, 'inet_proto', 'inet_service'] as const;
  const serviceIps = map(t, 'service-ips', frontend, 'verdict', { comment: 'frontends with an address' });
  const endpoints = map(
    t,
    'endpoints',
    [l3.daddr, meta.l4proto, th.dport, numgen(4096)],
    [l3.daddr, th.dport],
  );
  const hairpin = set(t, 'hairpin', [address, address]);
  const cidrs = set(t, 'cidrs', [address], { flags: ['interval'] });
  const ranges = set(t, 'ranges', [...frontend, address], { flags: ['interval'] });
  const affinity = map(t, 'affinity', [meta.mark, l3.saddr], [l3.daddr, th.dport], {
    flags: ['dynamic', 'timeout'],
    timeout: 10_800_000,
    size: 65_535,
  });
  const ids = map(t, 'ids', [l3.daddr, meta.l4proto, th.dport], [meta.mark]);
  const key = [l3.daddr, meta.l4proto, th.dport];
  const chains = ['services', 'lb-2', 'add-mark', 'affine'].map((name) => chain(t, name));
  const nat = chain(t, 'nat-prerouting', { type: 'nat', hook: 'prerouting', priority: -100 }, 'dispatch');
  const post = chain(t, 'nat-postrouting', { type: 'nat', hook: 'postrouting', priority: 100 });
  const filter = chain(t, 'filter-input', {
    type: 'filter',
    hook: 'input',
    priority: -110,
    policy: 'accept',
  });
  const batch = new Batch().add(t);
  for (const one of [...chains, nat, post, filter]) batch.add(one);
  for (const one of [serviceIps, endpoints, hairpin, cidrs, ranges, affinity, ids]) batch.add(one);
  const cidr = six ? 'fd00::/112' : '10.0.0.0/16';
  const odd = six ? 'fd00::/109' : '10.0.0.0/13';
  for (const each of [
    rule(t, 'services', [vmap(key, 'service-ips')], 'all services'),
    rule(t, 'services', [match(fib.daddrType, 'local'), match(th.dport, 80, '!='), backToCaller]),
    rule(t, 'lb-2', [jump('add-mark')]),
    rule(t, 'lb-2', [dnatToMap(family, [...key, numgen(2)], 'endpoints')]),
    rule(t, 'affine', [markFromMap(key, 'ids')]),
    rule(t, 'affine', [match(meta.l4proto, 'tcp'), dnatToMap(family, [meta.mark, l3.saddr], 'affinity')]),
    rule(t, 'affine', [
      update('affinity', [meta.mark, l3.saddr], { data: [l3.daddr, th.dport], timeout: 100_000 }),
    ]),
    rule(t, 'affine', [match(meta.l4proto, 'udp'), dnatTo(family, host(9), 8080)]),
    rule(t, 'add-mark', [markOr(0x4000)]),
    rule(t, 'add-mark', [markAnd(0xffff)]),
    rule(t, 'add-mark', [setMark(7)]),
    rule(t, 'nat-prerouting', [jump('services')]),
    rule(t, 'nat-postrouting', [inSet([l3.saddr, l3.daddr], 'hairpin'), masquerade({ fullyRandom: true })]),
    rule(t, 'nat-postrouting', [matchMasked(meta.mark, 0x4000, '==', 0), backToCaller]),
    rule(t, 'nat-postrouting', [markXor(0x4000)]),
    rule(t, 'nat-postrouting', [masquerade()]),
    rule(t, 'filter-input', [matchBits(ct.state, ['established', 'related']), accept]),
    rule(t, 'filter-input', [matchBits(ct.status, ['dnat']), counter, accept]),
    rule(t, 'filter-input', [match(meta.iifname, 'cali*'), accept]),
    rule(t, 'filter-input', [match(meta.oifname, 'eth0', '!='), drop]),
    rule(t, 'filter-input', [matchPrefix(l3.saddr, cidr), matchPrefix(l3.daddr, odd, '!='), drop]),
    rule(t, 'filter-input', [
      match(meta.l4proto, 'tcp'),
      matchRange(th.dport, 30_000, 32_767),
      rejectWithReset,
    ]),
    rule(t, 'filter-input', [inSet([l3.daddr], 'cidrs', { not: true }), reject(family)]),
    rule(t, 'filter-input', [inSet([...key, l3.saddr], 'ranges', { not: true }), drop]),
    rule(t, 'filter-input', [match(th.dport, 53), goTo('f2')]),
  ]) {
    // nft 1.0.6 lists this rule, but runs out of registers (an assertion) when it reads it.
    if (text && six && each.expressions.some((one) => one.kind === 'dynset')) continue;
    if (
      each.expressions.some(
        (one) => one.kind === 'immediate' && 'verdict' in one.data && one.data.verdict.chain === 'f2',
      )
    ) {
      batch.add(chain(t, 'f2'));
    }
    batch.add(each);
  }
  const frontendKey = (n: number, port: number): Uint8Array =>
    concatBytes(serviceIps.key, [host(n), 'tcp', port]);
  batch.addElements(serviceIps, [
    { key: frontendKey(1, 80), verdict: { code: 'goto', chain: 'lb-2' }, comment: 'default/web:http' },
    { key: frontendKey(2, 80), verdict: { code: 'drop' } },
  ]);
  batch.addElements(
    endpoints,
    [0, 1].map((slot) => ({
      key: concatBytes(endpoints.key, [host(1), 'tcp', 80, slot]),
      data: concatBytes([address, 'inet_service'], [host(20 + slot), 8080]),
    })),
  );
  batch.addElements(hairpin, [{ key: concatBytes(hairpin.key, [host(20), host(20)]) }]);
  const cidrStart = concatBytes([address], [six ? 'fd01::' : '10.96.0.0']);
  const cidrEnd = concatBytes([address], [six ? 'fd02::' : '10.97.0.0']);
  batch.addElements(cidrs, [{ key: cidrStart }, { key: cidrEnd, flags: 1 }]);
  batch.addElements(ranges, [
    {
      key: concatBytes(ranges.key, [host(1), 'tcp', 80, host(0)]),
      keyEnd: concatBytes(ranges.key, [host(1), 'tcp', 80, six ? 'fd00::ff' : '10.0.0.255']),
    },
  ]);
  batch.addElements(ids, [{ key: frontendKey(1, 80), data: concatBytes(['mark'], [0x1234]) }]);
  return batch;
}

for (const family of ['ip', 'ip6'] as const) {
  test(`nftables: an ${family} table written over netlink is listed by stock nft as we print it`, () => {
    nft('flush', 'ruleset');
    socket.commit(proxyTable(family));
    const contents = socket.readTable({ family, name: 'kp' });
    assert.ok(contents);
    assert.deepEqual(linesOf(printTable(contents)), linesOf(nft('list', 'table', family, 'kp')));
  });

  test(`nftables: the script of an ${family} transaction gives the same table through stock nft`, () => {
    nft('flush', 'ruleset');
    const batch = proxyTable(family, true);
    socket.commit(batch);
    const ours = nft('list', 'ruleset');
    nft('flush', 'ruleset');
    inNamespace(namespace, ['nft', '-f', '-'], { input: batch.toScript() });
    const theirs = nft('list', 'ruleset');
    // nft 1.0.6 makes ct status names and zero tests of what we write with masks; elements come in hash order.
    const lines = (text: string): string[] =>
      text
        .split('\n')
        .map((line) => line.trim())
        .toSorted();
    assert.deepEqual(lines(theirs), lines(ours));
  });
}

test('nftables: a table that stock nft made reads back and prints as nft lists it', () => {
  nft('flush', 'ruleset');
  const { script } = JSON.parse(
    readFileSync(new URL('fixtures/nft-messages.json', import.meta.url), 'utf8'),
  ) as { script: readonly string[] };
  inNamespace(namespace, ['nft', '-f', '-'], { input: `${script.join('\n')}\n` });
  const contents = socket.readTable({ family: 'ip', name: 'kp' });
  assert.ok(contents);
  const sorted = (text: string): string[] =>
    linesOf(text.replaceAll(/expires \d+s(\d+ms)?/g, 'expires SOON'))
      // nft writes a set without a name in braces, and the elements in the order of a hash.
      .map((line) =>
        line.replaceAll(
          /\{ ([^{}]*) \}/g,
          (_, list: string) => `{ ${list.split(', ').toSorted().join(', ')} }`,
        ),
      );
  assert.deepEqual(sorted(printTable(contents)), sorted(nft('list', 'table', 'ip', 'kp')));
});

test('nftables: any transaction of ours is a script that stock nft takes, whatever the comments', () => {
  const kp = table('ip', 'any');
  const port = fc.nat(0xffff);
  const address = fc.ipV4();
  const text = fc
    .string({ unit: 'grapheme', minLength: 1, maxLength: 40 })
    .filter((one) => !one.includes('\0'));
  const statement = fc.oneof(
    fc
      .tuple(address, fc.integer({ min: 1, max: 32 }))
      .map(([base, bits]) => matchPrefix(ip.saddr, `${base}/${bits}`)),
    fc
      .tuple(address, fc.constantFrom('==' as const, '!=' as const))
      .map(([one, how]) => match(ip.daddr, one, how)),
    port.map((one) => match(th.dport, one)),
    fc.tuple(port, port).map(([a, b]) => matchRange(th.sport, Math.min(a, b), Math.max(a, b))),
    fc.nat(0xffffffff).map((mask) => matchMasked(meta.mark, mask, '!=', 0)),
    fc.integer({ min: 1, max: 0xffffffff }).map(setMark),
    fc.integer({ min: 0, max: 31 }).map((bit) => markOr((1 << bit) >>> 0)),
    fc
      .subarray(['new', 'established', 'related', 'invalid'], { minLength: 1 })
      .map((states) => matchBits(ct.state, states)),
    fc.boolean().map((not) => inSet([ip.saddr, th.dport], 'pairs', { not })),
    fc.constantFrom(
      match(fib.daddrType, 'local'),
      match(meta.l4proto, 'udp'),
      counter,
      inSet([ip.daddr], 'cidrs'),
    ),
  );
  const last = fc.constantFrom(accept, drop, backToCaller, jump('other'), goTo('other'), reject('ip'));
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.array(statement, { maxLength: 4 }), last, text), { maxLength: 12 }),
      fc.uniqueArray(fc.tuple(address, port, text), {
        maxLength: 12,
        selector: ([one, two]) => `${one} ${two}`,
      }),
      fc.uniqueArray(fc.nat(255), { maxLength: 6 }),
      (rules, elements, networks) => {
        nft('flush', 'ruleset');
        const pairs = set(kp, 'pairs', ['ipv4_addr', 'inet_service']);
        const cidrs = set(kp, 'cidrs', ['ipv4_addr'], { flags: ['interval'] });
        const batch = new Batch()
          .add(kp)
          .add(chain(kp, 'main'))
          .add(chain(kp, 'other'))
          .add(pairs)
          .add(cidrs);
        for (const [matches, end, comment] of rules) batch.add(rule(kp, 'main', [...matches, end], comment));
        batch.addElements(
          pairs,
          elements.map(([one, two, comment]) => ({ key: concatBytes(pairs.key, [one, two]), comment })),
        );
        batch.addElements(
          cidrs,
          networks.flatMap((n) => [
            { key: concatBytes(cidrs.key, [`${n}.0.0.0`]) },
            { key: concatBytes(cidrs.key, [`${n}.1.0.0`]), flags: 1 },
          ]),
        );
        socket.commit(batch);
        const written = socket.readTable(kp)!;
        nft('list', 'ruleset');
        nft('flush', 'ruleset');
        inNamespace(namespace, ['nft', '-f', '-'], { input: batch.toScript() });
        const loaded = socket.readTable(kp)!;
        assert.equal(loaded.rules.length, written.rules.length);
        assert.deepEqual(
          loaded.rules.map((one) =>
            printTable({ ...loaded, rules: [{ ...one, comment: '' }], sets: [], elements: new Map() }),
          ),
          written.rules.map((one) =>
            printTable({ ...written, rules: [{ ...one, comment: '' }], sets: [], elements: new Map() }),
          ),
        );
        // nft marks that nothing lies in front of the first interval; printed it is the same.
        for (const one of written.sets) {
          const print = ({ elements: found }: typeof written): string[] =>
            printElements(one, found.get(one.name) ?? []).toSorted();
          assert.deepEqual(print(loaded), print(written), one.name);
        }
      },
    ),
    { numRuns: 25 },
  );
});

describe('nftables: transactions', () => {
  const kp = table('ip', 'tx');
  const backends = map(kp, 'backends', ['ipv4_addr', 'inet_service'], ['ipv4_addr']);
  const element = (n: number, to = '10.1.0.1'): Element => ({
    key: concatBytes(backends.key, [`10.0.${n >>> 8}.${n & 255}`, 80]),
    data: concatBytes(['ipv4_addr'], [to]),
  });
  const refusal = (action: () => unknown): CommitError => {
    try {
      action();
    } catch (error) {
      assert.ok(error instanceof CommitError, String(error));
      return error;
    }
    return assert.fail('was not refused');
  };

  beforeEach(() => {
    nft('flush', 'ruleset');
    socket.commit(new Batch().add(kp).add(chain(kp, 'one')).add(backends));
  });

  test('nftables: a refused batch names the part and the element, and nothing of it takes effect', () => {
    socket.commit(new Batch().addElements(backends, [element(7)]));
    const missing = refusal(() =>
      socket.commit(
        new Batch()
          .add(chain(kp, 'two'))
          .deleteElements(backends, [element(7), element(8), element(9)])
          .add(rule(kp, 'one', [jump('nowhere')], 'where to?')),
      ),
    );
    assert.deepEqual(
      missing.failures.map((failure) => [failure.operation, failure.acknowledgement.errno]),
      [
        [1, ENOENT],
        [2, ENOENT],
      ],
    );
    assert.match(
      missing.message,
      /^delete element ip tx backends \{ 10\.0\.0\.8 \. 80 \}: ENOENT: .* \(and 1 more\)$/,
    );
    assert.equal(missing.failures[1]!.request, 'add rule ip tx one jump nowhere comment "where to?"');
    assert.deepEqual(
      socket.listChains(kp).map((each) => each.name),
      ['one'],
    );
    assert.equal(socket.listElements(kp, 'backends').length, 1);

    const other = refusal(() =>
      socket.commit(new Batch().addElements(backends, [element(6), element(7, '10.1.0.2')])),
    );
    assert.ok(isRefusal(other, EEXIST));
    assert.match(other.message, /10\.0\.0\.7 \. 80 : 10\.1\.0\.2/);
    // Replacing is deleting and adding in one batch.
    socket.commit(
      new Batch().deleteElements(backends, [element(7)]).addElements(backends, [element(7, '10.1.0.2')]),
    );
    assert.match(nft('list', 'map', 'ip', 'tx', 'backends'), /10\.0\.0\.7 \. 80 : 10\.1\.0\.2/);
  });

  test('nftables: what was read before somebody else changed the ruleset is refused as out of date', () => {
    const generation = socket.generation();
    nft('add', 'chain', 'ip', 'tx', 'theirs');
    const late = refusal(() =>
      socket.commit(new Batch().add(chain(kp, 'ours')), { generation: generation.id }),
    );
    assert.ok(isRefusal(late, ERESTART));
    const now = socket.generation();
    assert.equal(now.id, generation.id + 1);
    socket.commit(new Batch().add(chain(kp, 'ours')), { generation: now.id });
    assert.deepEqual(
      socket.listChains(kp).map((each) => each.name),
      ['one', 'theirs', 'ours'],
    );
  });

  test('nftables: rules are appended, inserted, replaced and deleted by the handles the kernel gives', () => {
    const batch = new Batch()
      .add(rule(kp, 'one', [accept], 'b'), { echo: true })
      .add(rule(kp, 'one', [drop], 'c'));
    const { echoed } = socket.commit(batch);
    assert.equal(echoed.length, 1);
    const [first] = echoed;
    assert.ok(first?.kind === 'rule' && first.handle !== undefined && first.comment === 'b');
    socket.commit(
      new Batch()
        .add(chain(kp, 'two'))
        .insert(rule(kp, 'one', [counter], 'a'))
        .replace({ ...rule(kp, 'one', [jump('two')], 'b2'), handle: first.handle }),
    );
    const comments = (): (string | undefined)[] => socket.listRules(kp, 'one').map((each) => each.comment);
    assert.deepEqual(comments(), ['a', 'b2', 'c']);
    const [a] = socket.listRules(kp, 'one');
    socket.commit(new Batch().delete(a!));
    assert.deepEqual(comments(), ['b2', 'c']);
    assert.throws(() => new Batch().delete(rule(kp, 'one', [drop])), /no handle/);
    socket.commit(new Batch().flush(chain(kp, 'one')).delete(chain(kp, 'two')).flush(backends));
    assert.deepEqual(comments(), []);
    assert.equal(socket.getTable({ family: 'ip', name: 'tx' })?.name, 'tx');
    socket.commit(new Batch().delete(kp).destroy(table('ip', 'never')));
    assert.equal(socket.getTable(kp), undefined);
    assert.equal(socket.readTable(kp), undefined);
  });

  test('nftables: 100,000 elements load in bulk and are read back', () => {
    const elements: Element[] = [];
    for (let i = 0; i < 100_000; i++) {
      const key = new Uint8Array(8);
      new DataView(key.buffer).setUint32(0, 0x0a000000 + i);
      key[5] = 80;
      elements.push({ key, data: key.subarray(0, 4) });
    }
    const batch = new Batch();
    let best = Infinity;
    for (let i = 0; i < 3; i++) {
      batch.clear();
      const start = performance.now();
      batch.addElements(backends, elements);
      best = Math.min(best, performance.now() - start);
    }
    // About 30 ms, and 0.1 ms for one element below; the bounds are for machines that are busy with other things.
    assert.ok(best < 5000, `encoding took ${best} ms`);
    socket.commit(batch);
    const back = socket.listElements(kp, 'backends');
    assert.equal(back.length, 100_000);
    const wanted = new Set(elements.map(({ key }) => Buffer.from(key).toString('hex')));
    for (const one of back) wanted.delete(Buffer.from(one.key).toString('hex'));
    assert.equal(wanted.size, 0);

    // One element among them.
    const times: number[] = [];
    for (let i = 0; i < 400; i++) {
      batch.clear();
      const start = performance.now();
      batch
        .deleteElements(backends, [elements[i]!])
        .addElements(backends, [{ key: elements[i]!.key, data: elements[i + 1]!.key.subarray(0, 4) }]);
      socket.commit(batch);
      times.push(performance.now() - start);
    }
    const quickest = Math.min(...times);
    assert.ok(quickest < 20, `${quickest} ms for one element`);
  });

  test('nftables: a watcher tells our changes from those of others', async () => {
    const events: NftEvent[] = [];
    let generations = 0;
    let stop: () => void = () => undefined;
    const enough = new Promise<void>((resolve) => {
      stop = inside(() =>
        watchNftables(
          (event) => {
            events.push(event);
            if (event.kind === 'generation' && ++generations === 3) resolve();
          },
          (reason) => assert.fail(reason),
        ),
      );
    });
    socket.commit(new Batch().addElements(backends, [element(1)]));
    nft('delete', 'element', 'ip', 'tx', 'backends', '{ 10.0.0.1 . 80 }');
    nft('delete', 'table', 'ip', 'tx');
    await enough;
    stop();
    const seen = events.map((event) => {
      const mine = event.portId === socket.portId ? 'ours' : 'theirs';
      if (event.kind === 'generation')
        return `${mine}: generation by ${event.generation.processName === 'nft' ? 'nft' : 'us'}`;
      const what = event.kind === 'object' ? event.object.kind : `element of ${event.elements.set}`;
      return `${mine}: ${event.added ? 'new' : 'gone'} ${what}`;
    });
    assert.deepEqual(seen, [
      'ours: new element of backends',
      'ours: generation by us',
      'theirs: gone element of backends',
      'theirs: generation by nft',
      'theirs: gone set',
      'theirs: gone chain',
      'theirs: gone table',
      'theirs: generation by nft',
    ]);
  });

  test('nftables: elements that count, from the packet path', () => {
    const seen = set(kp, 'seen', ['ipv4_addr'], {
      flags: ['dynamic', 'timeout'],
      timeout: 60_000,
      size: 100,
    });
    socket.commit(
      new Batch()
        .add(seen)
        .add(chain(kp, 'out', { type: 'filter', hook: 'output', priority: 0 }))
        .add(rule(kp, 'out', [match(meta.l4proto, 'udp'), update('seen', [ip.daddr], { counter: true })])),
    );
    inNamespace(namespace, [
      'bash',
      '-c',
      'echo one > /dev/udp/127.0.0.1/9; echo two > /dev/udp/127.0.0.1/9',
    ]);
    assert.match(nft('list', 'set', 'ip', 'tx', 'seen'), /127\.0\.0\.1 counter packets 2 bytes \d+ expires/);
    assert.match(nft('list', 'chain', 'ip', 'tx', 'out'), /update @seen \{ ip daddr counter \}/);
    const contents = socket.readTable(kp);
    assert.ok(contents);
    assert.match(
      printTable(contents),
      /meta l4proto udp update @seen \{ ip daddr counter packets 0 bytes 0 \}/,
    );
    assert.match(printTable(contents), /elements = \{ 127\.0\.0\.1 expires /);
  });

  test('nftables: what the kernel gives back of a table means the same as what was written', () => {
    for (const family of ['ip', 'ip6'] as const) {
      const batch = proxyTable(family);
      socket.commit(batch);
      const contents = socket.readTable({ family, name: 'kp' })!;
      const wanted = batch.operations
        .filter((operation) => operation.elements === undefined)
        .map(({ object }) => object);
      const rules = wanted.filter((object) => object.kind === 'rule');
      const byChain = new Map<string, number>();
      for (const each of rules) {
        const index = byChain.get(each.chain) ?? 0;
        byChain.set(each.chain, index + 1);
        const actual = contents.rules.filter((one) => one.chain === each.chain)[index]!;
        assert.ok(
          sameRule(each, actual),
          `${signExpressions(each.expressions)}\n${signExpressions(actual.expressions)}`,
        );
      }
      for (const each of wanted) {
        if (each.kind === 'chain')
          assert.ok(
            sameHook(
              each,
              contents.chains.find(({ name }) => name === each.name)!,
            ),
            each.name,
          );
        if (each.kind === 'set')
          assert.ok(
            sameSet(
              each,
              contents.sets.find(({ name }) => name === each.name)!,
            ),
            each.name,
          );
      }
      for (const { object, elements = [] } of batch.operations) {
        if (object.kind !== 'set') continue;
        const actual = contents.elements.get(object.name)!;
        for (const one of elements)
          assert.ok(
            actual.some((other) => sameElement(one, other)),
            object.name,
          );
      }
      const [a, b] = rules;
      assert.equal(sameRule(a!, b!), false);
    }
  });
});
