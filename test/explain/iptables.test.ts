/** Matches and targets of iptables, as we, kube-proxy and common network plugins write them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Outcome, Prediction } from '../../src/explain/outcome.ts';
import { iptablesChains } from '../../src/explain/iptables/evaluate.ts';
import { parseIpsets } from '../../src/explain/iptables/ipset.ts';
import type { Packet } from '../../src/explain/packet.ts';
import { walk } from '../../src/explain/walk.ts';
import { World, type WorldOptions } from '../../src/explain/world.ts';
import { parseSave } from '../../src/linux/iptables/save.ts';

const packet: Packet = {
  family: 'IPv4',
  protocol: 'TCP',
  origin: { kind: 'outside', address: '198.51.100.7', name: 'client', interface: 'eth0' },
  sourcePort: undefined,
  destination: '10.96.0.10',
  destinationPort: 80,
};

function worldOf(options: Partial<WorldOptions> = {}): World {
  return new World({
    nodeName: 'node-1',
    family: 'IPv4',
    nodeIP: '172.31.0.11',
    localAddresses: ['172.31.1.11'],
    podNetworksHere: ['10.244.1.0/24'],
    outInterface: 'eth0',
    ...options,
  });
}

/** Rules of filter FORWARD, or a whole save. */
function follow(rules: string, changes: Partial<Packet> = {}, world = worldOf()): Prediction {
  const save = rules.startsWith('*')
    ? rules
    : `*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n:OTHER -\n:DEEPER -\n${rules}\nCOMMIT\n`;
  return walk({ ...packet, ...changes }, iptablesChains(parseSave(save)), world);
}

function only(prediction: Prediction): Outcome {
  assert.equal(prediction.possibilities.length, 1);
  assert.equal(prediction.possibilities[0]!.outcomes.length, 1);
  return prediction.possibilities[0]!.outcomes[0]!;
}

/** Each match, and whether the packet is one that it takes. */
const matches: readonly (readonly [match: string, takes: boolean])[] = [
  ['-s 198.51.100.0/24', true],
  ['! -s 198.51.100.0/24', false],
  ['-d 10.96.0.10/32', true],
  ['! -d 10.96.0.11/32', true],
  ['-p udp', false],
  ['! -p udp', true],
  ['-p tcp -m tcp --dport 80', true],
  ['-p tcp -m tcp --dport 81:90', false],
  ['-p tcp -m tcp ! --dport 80', false],
  ['-p tcp -m multiport --dports 443,80', true],
  ['-p tcp -m multiport --dports 443,1000:2000', false],
  ['-p tcp -m tcp --sport 1024:65535', true],
  ['-p tcp -m tcp --sport 53', false],
  ['-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN', true],
  ['-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN', false],
  ['-i eth0', true],
  ['-i eth+', true],
  ['-i cali+', false],
  ['! -i cni0', true],
  ['-o eth0', true],
  ['-m conntrack --ctstate NEW', true],
  ['-m conntrack --ctstate RELATED,ESTABLISHED', false],
  ['-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT', true],
  ['-m conntrack --ctstate INVALID', false],
  ['-m state --state NEW,RELATED', true],
  ['-m conntrack --ctorigdst 10.96.0.10/32 --ctorigdstport 80', true],
  ['-m addrtype --dst-type LOCAL', false],
  ['-m addrtype ! --dst-type LOCAL', true],
  ['-m addrtype --src-type UNICAST,LOCAL', true],
  ['-m mark --mark 0x0/0x4000', true],
  ['-m mark ! --mark 0x4000/0x4000', true],
  ['-m mark --mark 0x4000/0x4000', false],
  ['-m comment --comment "-j ACCEPT ! -s \\"x\\""', true],
  ['-m iprange --src-range 198.51.100.1-198.51.100.9', true],
  ['-m pkttype --pkt-type broadcast', false],
  ['-m set --match-set known src', true],
  ['-m set ! --match-set known src', false],
  ['-m set --match-set services dst,dst', true],
  ['-m set --match-set services src,dst', false],
  ['-p icmp -m icmp --icmp-type 8', false],
  ['-m nfacct --nfacct-name  some_counter', true],
];

test('every match says yes or no', () => {
  const ipsets = parseIpsets(
    'create known hash:net family inet\nadd known 198.51.100.0/25\ncreate services hash:ip,port family inet\nadd services 10.96.0.10,tcp:80\n',
  );
  for (const [match, takes] of matches) {
    const { kind } = only(follow(`-A FORWARD ${match} -j DROP`, {}, worldOf({ ipsets })));
    assert.equal(kind, takes ? 'drop' : 'forward', match);
  }
});

test('what cannot be told is asked, never guessed', () => {
  for (const match of [
    '-m u32 --u32 "0x0=0x0"',
    '-m set --match-set nobody-knows src',
    '-m bpf --bytecode "1,6 0 0 0"',
    '-m length --length 40',
  ]) {
    const { possibilities } = follow(`-A FORWARD ${match} -j DROP`);
    assert.deepEqual(
      possibilities.map(({ outcomes }) => outcomes.map(({ kind }) => kind).join()).sort(),
      ['drop', 'forward'],
      match,
    );
    for (const { assumptions } of possibilities) assert.equal(assumptions[0]!.kind, 'unknown');
  }
  // An unknown match that leads to nothing asks nothing.
  assert.equal(only(follow('-A FORWARD -m u32 --u32 "0x0=0x0" -j LOG --log-prefix "x"')).kind, 'forward');
  const unknown = only(follow('-A FORWARD -j NFQUEUE --queue-num 1'));
  assert.equal(unknown.kind, 'unknown');
  assert.deepEqual(unknown.steps.at(-1)?.effect, { kind: 'unknown', text: 'target NFQUEUE' });
});

test('the same question is asked once', () => {
  const { possibilities } = follow(
    '-A FORWARD -m set --match-set x src -j OTHER\n-A OTHER -m set --match-set x src -j DROP',
  );
  assert.deepEqual(possibilities.map(({ outcomes }) => outcomes[0]!.kind).sort(), ['drop', 'forward']);
});

test('chains are jumped to, gone to and returned from', () => {
  const kinds = (rules: string): string => only(follow(rules)).kind;
  assert.equal(kinds('-A FORWARD -j OTHER\n-A FORWARD -j DROP\n-A OTHER -j RETURN'), 'drop');
  assert.equal(kinds('-A FORWARD -j OTHER\n-A FORWARD -j DROP\n-A OTHER -j ACCEPT'), 'forward');
  // Who was gone to returns to whoever jumped before.
  assert.equal(
    kinds(
      '-A FORWARD -j OTHER\n-A FORWARD -j DROP\n-A OTHER -g DEEPER\n-A OTHER -j ACCEPT\n-A DEEPER -s 192.0.2.1/32 -j DROP',
    ),
    'drop',
  );
  assert.equal(kinds('-A FORWARD -j REJECT --reject-with icmp-admin-prohibited'), 'reject');
  const policy = follow('*filter\n:INPUT ACCEPT\n:FORWARD DROP\n:OUTPUT ACCEPT\nCOMMIT\n');
  assert.equal(only(policy).kind, 'drop');
  assert.deepEqual(only(policy).steps.at(-1)?.effect, { kind: 'drop', policy: true });
});

test('chances multiply, and each endpoint has its share', () => {
  const rules = [0.25, 0.3333333333, 0.5].map(
    (p, i) =>
      `-A S -m statistic --mode random --probability ${p} -j DNAT --to-destination 10.244.2.${i}:8080`,
  );
  const save = `*nat\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n:S -\n-A PREROUTING -d 10.96.0.10/32 -j S\n${rules.join('\n')}\n-A S -j DNAT --to-destination 10.244.2.3:8080\nCOMMIT\n`;
  const [usual] = follow(save).possibilities;
  assert.deepEqual(
    usual!.outcomes.map(({ destination, probability }) => `${destination} ${probability.toFixed(6)}`),
    [
      '10.244.2.0:8080 0.250000',
      '10.244.2.1:8080 0.250000',
      '10.244.2.2:8080 0.250000',
      '10.244.2.3:8080 0.250000',
    ],
  );
});

test('affinity: a new client by default, and a returning one as the other possibility', () => {
  const save = `*nat\n:PREROUTING ACCEPT\n:S -\n:A -\n:B -
-A PREROUTING -j S
-A S -m recent --rcheck --seconds 60 --reap --name A --mask 255.255.255.255 --rsource -j A
-A S -m recent --rcheck --seconds 60 --reap --name B --mask 255.255.255.255 --rsource -j B
-A S -m statistic --mode random --probability 0.5 -j A
-A S -j B
-A A -p tcp -m recent --set --name A --mask 255.255.255.255 --rsource -m tcp -j DNAT --to-destination 10.244.2.1:80
-A B -p tcp -m recent --set --name B --mask 255.255.255.255 --rsource -m tcp -j DNAT --to-destination 10.244.2.2:80
COMMIT
`;
  const { possibilities } = follow(save);
  assert.deepEqual(
    possibilities.map(({ outcomes }) => outcomes.map(({ destination }) => destination)),
    [['10.244.2.1:80', '10.244.2.2:80'], ['10.244.2.1:80'], ['10.244.2.2:80']],
  );
  const remembered = worldOf({ recent: new Map([['B', new Set(['198.51.100.7'])]]) });
  assert.equal(only(follow(save, {}, remembered)).destination, '10.244.2.2:80');
});

test('portmap, flannel and firewalld forms: marks, masquerading, other chains', () => {
  const save = `*mangle
:PREROUTING ACCEPT
-A PREROUTING -s 198.51.100.0/24 -j MARK --set-xmark 0x2000/0x2000
-A PREROUTING -m mark --mark 0x2000/0x2000 -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff
COMMIT
*nat
:PREROUTING ACCEPT
:INPUT ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
:CNI-HOSTPORT-DNAT -
:CNI-DN-1 -
:FLANNEL-POSTRTG -
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 8081 -j CNI-DN-1
-A CNI-DN-1 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 10.244.1.9:80
-A POSTROUTING -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN
-A FLANNEL-POSTRTG -s 10.244.1.0/24 -d 10.244.0.0/16 -j RETURN
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.1.0/24 -m connmark --mark 0x2000/0x2000 -j MASQUERADE --random-fully
COMMIT
`;
  const end = only(follow(save, { destination: '172.31.1.11', destinationPort: 8081 }));
  assert.deepEqual([end.kind, end.destination, end.masqueraded], ['endpoint', '10.244.1.9:80', true]);
});

test('translation happens once, and is decided for good', () => {
  const save = `*nat\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT
-A OUTPUT -d 10.96.0.10/32 -p tcp -j DNAT --to-destination 172.31.0.11:8080
-A PREROUTING -d 172.31.0.11/32 -j DNAT --to-destination 10.0.0.1
COMMIT
`;
  const origin = { kind: 'node', address: '172.31.0.11', name: 'node', interface: undefined } as const;
  assert.equal(only(follow(save, { origin })).destination, '172.31.0.11:8080');
  const raw = `*raw\n:PREROUTING ACCEPT\n-A PREROUTING -j CT --notrack\nCOMMIT\n${save}`;
  assert.equal(only(follow(raw, { destination: '172.31.0.11' })).kind, 'node');
});
