/** Chains that two modes share: the first clean-up leaves what the other's rules need, the second takes it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Iptables } from '../../src/linux/iptables/iptables.ts';
import { ruleHolders } from '../../src/linux/iptables/holders.ts';
import { removeChains, type JumpRule } from '../../src/linux/iptables/removal.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';

for (const program of ['iptables-nft', 'iptables-legacy']) {
  test(`${program}: what other modes and other people need stays`, async (t) => {
    const namespace = makeNamespace();
    t.after(() => removeNamespace(namespace));
    const prefix = ['ip', 'netns', 'exec', namespace];
    const iptables = await Iptables.open('IPv4', { prefix, program });
    await iptables.restore(`*filter
:KUBE-ONE - [0:0]
:KUBE-SHARED - [0:0]
:KUBE-DEEP - [0:0]
:KUBE-OTHER-MODE - [0:0]
-A INPUT -m comment --comment "one" -j KUBE-ONE
-A INPUT -m comment --comment "kube-proxy firewall rules" -j KUBE-SHARED
-A KUBE-ONE -j KUBE-SHARED
-A KUBE-SHARED -j KUBE-DEEP
-A KUBE-OTHER-MODE -j KUBE-DEEP
COMMIT
`);
    const jumps: JumpRule[] = [
      { table: 'filter', from: 'INPUT', args: '-m comment --comment "one" -j KUBE-ONE' },
    ];
    const ours = ['KUBE-ONE', 'KUBE-SHARED', 'KUBE-DEEP'];
    const chains = (): string[] =>
      [...inNamespace(namespace, [`${program}-save`, '-t', 'filter']).matchAll(/^:(KUBE-\S+)/gm)]
        .map(([, chain]) => chain ?? '')
        .toSorted();

    assert.equal(await removeChains(iptables, 'filter', jumps, (chain) => ours.includes(chain)), true);
    assert.deepEqual(chains(), ['KUBE-DEEP', 'KUBE-OTHER-MODE', 'KUBE-SHARED']);

    inNamespace(namespace, [program, '-A', 'FORWARD', '-s', '10.9.9.9', '-j', 'KUBE-DEEP']);
    const all: JumpRule[] = [
      {
        table: 'filter',
        from: 'INPUT',
        args: '-m comment --comment "kube-proxy firewall rules" -j KUBE-SHARED',
      },
    ];
    await assert.rejects(
      removeChains(iptables, 'filter', all, (chain) => chain.startsWith('KUBE-')),
      /chain KUBE-DEEP of table filter \(IPv4\) stays: .*"-A FORWARD -s 10\.9\.9\.9\/32 -j KUBE-DEEP"/,
    );
    assert.deepEqual(chains(), ['KUBE-DEEP']);
    inNamespace(namespace, [program, '-F', 'FORWARD']);
    assert.equal(await removeChains(iptables, 'filter', [], (chain) => chain.startsWith('KUBE-')), true);
    assert.equal(await removeChains(iptables, 'filter', [], (chain) => chain.startsWith('KUBE-')), false);
  });
}

test('looking for rules makes no legacy table, and finds those that are there', async (t) => {
  const namespace = makeNamespace();
  t.after(() => removeNamespace(namespace));
  const prefix = ['ip', 'netns', 'exec', namespace];
  const legacyTables = (): string => inNamespace(namespace, ['cat', '/proc/net/ip_tables_names']);
  const found = async (): Promise<string[]> =>
    (await ruleHolders('IPv4', { prefix })).map(
      ({ iptables, current, tables }) => `${iptables.features.backend} ${current} ${tables.join(' ')}`,
    );
  const current = (await Iptables.open('IPv4', { prefix })).features.backend;
  assert.deepEqual(await found(), current === 'nft' ? ['nft true mangle nat filter'] : []);
  assert.equal(legacyTables(), '');
  inNamespace(namespace, ['iptables-legacy', '-t', 'nat', '-N', 'KUBE-SERVICES']);
  assert.ok((await found()).includes(`legacy ${current === 'legacy'} nat`));
  assert.equal(legacyTables(), 'nat\n');
});
