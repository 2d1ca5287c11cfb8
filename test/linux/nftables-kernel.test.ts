import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { withNetworkNamespace } from '../../src/linux/netlink/namespace.ts';
import { Batch } from '../../src/linux/netlink/nftables/batch.ts';
import { chain, map, rule, set, table } from '../../src/linux/netlink/nftables/objects.ts';
import { printTable } from '../../src/linux/netlink/nftables/print.ts';
import { ct, fib, ip, ip6, meta, numgen, th } from '../../src/linux/netlink/nftables/selectors.ts';
import { NftSocket } from '../../src/linux/netlink/nftables/socket.ts';
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
