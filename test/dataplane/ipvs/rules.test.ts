/** The rules as other tools know them: each chain whole and in order, where every set is filled and where none is. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { jumps, rulesOf } from '../../../src/dataplane/ipvs/rules.ts';
import { settingsOf, type IpvsOptions } from '../../../src/dataplane/ipvs/settings.ts';
import type { SetId } from '../../../src/dataplane/ipvs/names.ts';
import { ipv4Options, ipv6Options } from '../iptables/routes.ts';

const options: IpvsOptions = { ...ipv4Options, scheduler: '', excludeCIDRs: [] };

/** Rules of a chain, shortened: `set(NAME, DIRECTION)` for a match on a set. */
function chain(
  name: string,
  filled: (id: SetId) => boolean,
  changes: Partial<IpvsOptions> = {},
  { randomFully = true, outFilter = [] as readonly string[] } = {},
): string[] {
  const rules = rulesOf(settingsOf({ ...options, ...changes }, randomFully), filled, outFilter);
  return [...rules.mangle, ...rules.nat, ...rules.filter]
    .filter((rule) => rule.chain === name)
    .map(({ args }) => args.replace(/-m set --match-set (\S+) (\S+)/, 'set($1, $2)'));
}

const all = (): boolean => true;
const none = (): boolean => false;
/** Kept by this proxy alone. */
const kubeProxys = (id: SetId): boolean => !id.startsWith('KUBE-DROP-');

describe('rules', () => {
  it('nat KUBE-SERVICES', () => {
    assert.deepEqual(chain('KUBE-SERVICES', all), [
      '-s 127.0.0.0/8 -j RETURN',
      'set(KUBE-LOAD-BALANCER, dst,dst) -j KUBE-LOAD-BALANCER',
      'set(KUBE-CLUSTER-IP, dst,dst) ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ',
      'set(KUBE-EXTERNAL-IP, dst,dst) -j KUBE-MARK-MASQ',
      'set(KUBE-EXTERNAL-IP, dst,dst) -m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL -j ACCEPT',
      'set(KUBE-EXTERNAL-IP, dst,dst) -m addrtype --dst-type LOCAL -j ACCEPT',
      // Ours: what the node itself sends has to come back to it.
      'set(KUBE-EXTERNAL-IP-LOCAL, dst,dst) -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ',
      'set(KUBE-EXTERNAL-IP-LOCAL, dst,dst) -m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL -j ACCEPT',
      'set(KUBE-EXTERNAL-IP-LOCAL, dst,dst) -m addrtype --dst-type LOCAL -j ACCEPT',
      '-m addrtype --dst-type LOCAL -j KUBE-NODE-PORT',
      'set(KUBE-CLUSTER-IP, dst,dst) -j ACCEPT',
      'set(KUBE-LOAD-BALANCER, dst,dst) -j ACCEPT',
    ]);
    assert.deepEqual(chain('KUBE-SERVICES', none), [
      '-s 127.0.0.0/8 -j RETURN',
      '-m addrtype --dst-type LOCAL -j KUBE-NODE-PORT',
    ]);
  });

  it('who is masqueraded on the way to a cluster IP', () => {
    const rule = (changes: Partial<IpvsOptions>): string =>
      chain('KUBE-SERVICES', (id) => id === 'KUBE-CLUSTER-IP', changes)[1]!;
    assert.equal(rule({ masqueradeAll: true }), 'set(KUBE-CLUSTER-IP, dst,dst) -j KUBE-MARK-MASQ');
    assert.equal(
      rule({ localDetector: { kind: 'interface', name: 'cni0' } }),
      'set(KUBE-CLUSTER-IP, dst,dst) ! -i cni0 -j KUBE-MARK-MASQ',
    );
    assert.equal(
      rule({ localDetector: { kind: 'interfacePrefix', prefix: 'veth' } }),
      'set(KUBE-CLUSTER-IP, dst,dst) ! -i veth+ -j KUBE-MARK-MASQ',
    );
    // The node's own processes have the service's address as their source.
    assert.equal(rule({ localDetector: undefined }), 'set(KUBE-CLUSTER-IP, src,dst) -j KUBE-MARK-MASQ');
  });

  it('nat KUBE-LOAD-BALANCER and KUBE-NODE-PORT', () => {
    assert.deepEqual(chain('KUBE-LOAD-BALANCER', all), [
      'set(KUBE-LOAD-BALANCER-LOCAL, dst,dst) -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ',
      'set(KUBE-LOAD-BALANCER-LOCAL, dst,dst) -j RETURN',
      '-j KUBE-MARK-MASQ',
    ]);
    assert.deepEqual(chain('KUBE-LOAD-BALANCER', none), ['-j KUBE-MARK-MASQ']);
    const nodePort = (protocol: string, set: string, local: string, direction: string): string[] => [
      `-p ${protocol} set(${local}, ${direction}) -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ`,
      `-p ${protocol} set(${local}, ${direction}) -j RETURN`,
      `-p ${protocol} set(${set}, ${direction}) -j KUBE-MARK-MASQ`,
    ];
    assert.deepEqual(chain('KUBE-NODE-PORT', all).slice(0, -1), [
      ...nodePort('tcp', 'KUBE-NODE-PORT-TCP', 'KUBE-NODE-PORT-LOCAL-TCP', 'dst'),
      ...nodePort('udp', 'KUBE-NODE-PORT-UDP', 'KUBE-NODE-PORT-LOCAL-UDP', 'dst'),
      ...nodePort('sctp', 'KUBE-NODE-PORT-SCTP-HASH', 'KUBE-NODE-PORT-LOCAL-SCTP-HASH', 'dst,dst'),
    ]);
    // Of table filter, and always.
    assert.deepEqual(chain('KUBE-NODE-PORT', none), ['set(KUBE-HEALTH-CHECK-NODE-PORT, dst) -j ACCEPT']);
  });

  it('nat KUBE-POSTROUTING and KUBE-MARK-MASQ', () => {
    const always = [
      '-m mark ! --mark 0x4000/0x4000 -j RETURN',
      '-j MARK --xor-mark 0x4000',
      '-j MASQUERADE --random-fully',
    ];
    const loop = 'set(KUBE-LOOP-BACK, dst,dst,src) -j MASQUERADE';
    assert.deepEqual(chain('KUBE-POSTROUTING', all), [loop, ...always]);
    assert.deepEqual(chain('KUBE-POSTROUTING', none), always);
    assert.deepEqual(chain('KUBE-POSTROUTING', none, { masqueradeBit: 31 }, { randomFully: false }), [
      '-m mark ! --mark 0x80000000/0x80000000 -j RETURN',
      '-j MARK --xor-mark 0x80000000',
      '-j MASQUERADE',
    ]);
    assert.deepEqual(chain('KUBE-MARK-MASQ', none, { masqueradeBit: 0 }), ['-j MARK --or-mark 0x1']);
  });

  it('filter', () => {
    assert.deepEqual(chain('KUBE-PROXY-FIREWALL', all), [
      'set(KUBE-LOAD-BALANCER-FW, dst,dst) -j KUBE-SOURCE-RANGES-FIREWALL',
    ]);
    assert.deepEqual(chain('KUBE-PROXY-FIREWALL', none), []);
    assert.deepEqual(chain('KUBE-SOURCE-RANGES-FIREWALL', all), [
      'set(KUBE-LOAD-BALANCER-SOURCE-CIDR, dst,dst,src) -j RETURN',
      'set(KUBE-LOAD-BALANCER-SOURCE-IP, dst,dst,src) -j RETURN',
      '-j DROP',
    ]);
    assert.deepEqual(chain('KUBE-SOURCE-RANGES-FIREWALL', none), ['-j DROP']);
    assert.deepEqual(chain('KUBE-IPVS-OUT-FILTER', none, {}, { outFilter: ['-s 1.2.3.4/32 -j DROP'] }), [
      '-s 1.2.3.4/32 -j DROP',
    ]);
    assert.deepEqual(chain('KUBE-FORWARD', none), [
      '-m mark --mark 0x4000/0x4000 -j ACCEPT',
      '-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
    ]);
    const guard = [
      'set(KUBE-LOAD-BALANCER, dst,dst) -j RETURN',
      'set(KUBE-CLUSTER-IP, dst,dst) -j RETURN',
      'set(KUBE-EXTERNAL-IP, dst,dst) -j RETURN',
      'set(KUBE-EXTERNAL-IP-LOCAL, dst,dst) -j RETURN',
      'set(KUBE-HEALTH-CHECK-NODE-PORT, dst) -j RETURN',
      '-m conntrack --ctstate NEW set(KUBE-IPVS-IPS, dst) -j REJECT',
    ];
    assert.deepEqual(chain('KUBE-IPVS-FILTER', kubeProxys), guard);
    assert.deepEqual(chain('KUBE-IPVS-FILTER', none), guard);
  });

  it('ours: what a Local policy leaves without an endpoint is dropped, for outsiders or everybody', () => {
    const drops = (changes: Partial<IpvsOptions>): string[] =>
      chain('KUBE-IPVS-FILTER', all, changes).slice(0, 2);
    const internal = '-m conntrack --ctstate NEW set(KUBE-DROP-INTERNAL, dst,dst) -j DROP';
    assert.deepEqual(drops({}), [
      internal,
      '-m conntrack --ctstate NEW ! -s 10.244.0.0/16 set(KUBE-DROP-EXTERNAL, dst,dst) -j DROP',
    ]);
    assert.deepEqual(drops({ localDetector: undefined }), [
      internal,
      '-m conntrack --ctstate NEW set(KUBE-DROP-EXTERNAL, dst,dst) -j DROP',
    ]);
    assert.deepEqual(chain('KUBE-IPVS-DROP', all), [internal]);
    assert.deepEqual(chain('KUBE-IPVS-DROP', none), []);
  });

  it('jumps: each goes on top of those before', () => {
    assert.deepEqual(
      jumps.map(({ table, from, args }) => `${table} ${from} ${args.split(' -j ')[1]}`),
      [
        'nat OUTPUT KUBE-SERVICES',
        'nat PREROUTING KUBE-SERVICES',
        'nat POSTROUTING KUBE-POSTROUTING',
        'filter FORWARD KUBE-FORWARD',
        'filter INPUT KUBE-NODE-PORT',
        'filter INPUT KUBE-PROXY-FIREWALL',
        'filter FORWARD KUBE-PROXY-FIREWALL',
        'filter INPUT KUBE-IPVS-FILTER',
        'filter OUTPUT KUBE-IPVS-OUT-FILTER',
        'mangle OUTPUT KUBE-IPVS-DROP',
      ],
    );
  });

  it('IPv6: the same with its own loopback and sets', () => {
    const six = { ...options, ...ipv6Options };
    const rules = rulesOf(settingsOf(six, true), all, []);
    const text = [...rules.nat, ...rules.filter, ...rules.mangle].map(({ args }) => args).join('\n');
    assert.match(text, /^-s ::1\/128 -j RETURN$/m);
    assert.match(text, /KUBE-6-LOAD-BALANCER-SOURCE-CID dst,dst,src/);
    assert.doesNotMatch(text, /match-set KUBE-(?!6-)/);
  });
});
