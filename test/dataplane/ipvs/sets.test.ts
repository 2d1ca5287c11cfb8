/** The mode's sets in the kernel: made, grown, replaced. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setIds, setName } from '../../../src/dataplane/ipvs/names.ts';
import { SetInTheWay, Sets } from '../../../src/dataplane/ipvs/sets.ts';
import { withNetworkNamespace } from '../../../src/linux/netlink/namespace.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../../support/namespace.ts';

describe('sets of IPVS mode', () => {
  let namespace: string;
  let sets: Sets;
  before(() => {
    namespace = makeNamespace();
    sets = withNetworkNamespace(`/run/netns/${namespace}`, () => new Sets('IPv4'));
  });
  after(() => {
    sets.close();
    removeNamespace(namespace);
  });
  const tool = (...args: string[]): string => inNamespace(namespace, args, { stdio: 'pipe' });

  it('all are made, of the types that other tools expect', () => {
    sets.probe();
    for (const id of setIds) sets.ensure(id);
    for (const id of setIds) sets.ensure(id);
    const names = tool('ipset', 'list', '-n').trim().split('\n').sort();
    assert.deepEqual(names, setIds.map((id) => setName(id, 'IPv4')).sort());
    assert.match(
      tool('ipset', 'save', 'KUBE-CLUSTER-IP'),
      /^create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536/,
    );
    assert.match(tool('ipset', 'save', 'KUBE-NODE-PORT-TCP'), /bitmap:port range 0-65535/);
  });

  it('a full set grows in one step while rules use it', () => {
    const id = 'KUBE-IPVS-IPS';
    const texts = Array.from({ length: 66_000 }, (_, n) => `10.${n >> 16}.${(n >> 8) & 255}.${n & 255}`);
    tool('iptables', '-A', 'INPUT', '-m', 'set', '--match-set', id, 'dst', '-j', 'DROP');
    const first = texts.slice(0, 65_000);
    sets.add(id, first, () => [], 0);
    sets.add(id, texts.slice(65_000), () => first, first.length);
    assert.equal(sets.read(id)?.size, texts.length);
    assert.match(tool('ipset', 'list', '-t', id), /maxelem 131072[\s\S]*References: 1/);
    assert.doesNotMatch(tool('ipset', 'list', '-n'), /GROWING/);
    tool('iptables', '-F', 'INPUT');
  });

  it('a set of another type is replaced, but not under rules', () => {
    tool('ipset', 'destroy', 'KUBE-LOOP-BACK');
    tool('ipset', 'create', 'KUBE-LOOP-BACK', 'hash:net');
    tool('iptables', '-A', 'INPUT', '-m', 'set', '--match-set', 'KUBE-LOOP-BACK', 'dst', '-j', 'DROP');
    assert.throws(() => sets.ensure('KUBE-LOOP-BACK'), SetInTheWay);
    tool('iptables', '-F', 'INPUT');
    sets.ensure('KUBE-LOOP-BACK');
    assert.deepEqual(sets.read('KUBE-LOOP-BACK'), new Set());
    // Of the right type, but entries would end or be cut by themselves; and a range that is too small.
    tool('ipset', 'destroy', 'KUBE-CLUSTER-IP');
    tool('ipset', 'create', 'KUBE-CLUSTER-IP', 'hash:ip,port', 'timeout', '60');
    tool('ipset', 'destroy', 'KUBE-IPVS-IPS');
    tool('ipset', 'create', 'KUBE-IPVS-IPS', 'hash:ip', 'netmask', '24');
    tool('ipset', 'destroy', 'KUBE-NODE-PORT-TCP');
    tool('ipset', 'create', 'KUBE-NODE-PORT-TCP', 'bitmap:port', 'range', '0-100');
    for (const id of ['KUBE-CLUSTER-IP', 'KUBE-IPVS-IPS', 'KUBE-NODE-PORT-TCP'] as const) sets.ensure(id);
    assert.doesNotMatch(tool('ipset', 'save'), /timeout|netmask|range 0-100$/m);
    sets.add('KUBE-NODE-PORT-TCP', ['30080'], () => [], 0);
    assert.ok(sets.destroyAll().includes('KUBE-LOOP-BACK'));
    assert.equal(sets.read('KUBE-LOOP-BACK'), undefined);
    assert.equal(tool('ipset', 'list', '-n'), '');
  });
});
