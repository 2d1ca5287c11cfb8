/** Tables laid out as kube-proxy 1.36 lays them out in nftables mode, listed by stock nft. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Prediction } from '../../src/explain/outcome.ts';
import type { OriginKind, Packet } from '../../src/explain/packet.ts';
import { parseDump } from '../../src/explain/sources/dump.ts';
import { walk } from '../../src/explain/walk.ts';
import { World } from '../../src/explain/world.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';

const script = `
table ip kube-proxy {
  set cluster-ips { type ipv4_addr; elements = { 10.96.0.10, 10.96.0.11, 10.96.0.12 } }
  set hairpin-connections { type ipv4_addr . ipv4_addr . inet_proto . inet_service
    elements = { 10.244.1.5 . 10.244.1.5 . tcp . 8080 } }
  set affinity-A { type ipv4_addr; flags dynamic,timeout; timeout 3h; elements = { 10.244.9.9 } }
  set affinity-B { type ipv4_addr; flags dynamic,timeout; timeout 3h; }
  map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.0.12 . tcp . 80 comment "default/empty" : goto reject-chain } }
  map no-endpoint-nodeports { type inet_proto . inet_service : verdict
    elements = { tcp . 30099 comment "default/local" : drop } }
  map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 203.0.113.9 . tcp . 80 : goto firewall-W-default/web/tcp/ } }
  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.0.10 . tcp . 80 : goto service-W-default/web/tcp/,
                 203.0.113.9 . tcp . 80 : goto external-W-default/web/tcp/,
                 10.96.0.11 . tcp . 80 : goto service-S-default/sticky/tcp/ } }
  map service-nodeports { type inet_proto . inet_service : verdict
    elements = { tcp . 30080 : goto external-W-default/web/tcp/ } }
  chain reject-chain {
    reject
  }
  chain firewall-W-default/web/tcp/ {
    ip saddr != { 192.0.2.0/24, 198.18.0.0-198.19.255.255 } drop
  }
  chain service-W-default/web/tcp/ {
    meta l4proto tcp dnat ip addr . port to numgen random mod 3 map {
      0 : 10.244.1.5 . 8080, 1 : 10.244.2.7 . 8080, 2 : 10.244.2.8 . 8080 }
  }
  chain external-W-default/web/tcp/ {
    mark set mark or 0x4000
    goto service-W-default/web/tcp/
  }
  chain endpoint-A {
    update @affinity-A { ip saddr }
    meta l4proto tcp dnat to 10.244.1.5:8080
  }
  chain endpoint-B {
    update @affinity-B { ip saddr }
    meta l4proto tcp dnat to 10.244.2.7:8080
  }
  chain service-S-default/sticky/tcp/ {
    ip saddr @affinity-A goto endpoint-A
    ip saddr @affinity-B goto endpoint-B
    numgen random mod 2 vmap { 0 : goto endpoint-A, 1 : goto endpoint-B }
  }
  chain services {
    ip daddr @cluster-ips ip saddr != 10.244.0.0/16 mark set mark or 0x4000
    ip daddr . meta l4proto . th dport vmap @service-ips
    fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports
  }
  chain firewall-check {
    ip daddr . meta l4proto . th dport vmap @firewall-ips
  }
  chain service-endpoints-check {
    ip daddr . meta l4proto . th dport vmap @no-endpoint-services
  }
  chain nodeport-endpoints-check {
    ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @no-endpoint-nodeports
  }
  chain cluster-ips-check {
    ip daddr @cluster-ips reject
    ip daddr { 10.96.0.0/16 } drop
  }
  chain masquerading {
    mark and 0x4000 != 0 mark set mark xor 0x4000 masquerade fully-random
    ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random
  }
  chain filter-prerouting-pre-dnat {
    type filter hook prerouting priority -110;
    ct state new jump firewall-check
  }
  chain nat-prerouting {
    type nat hook prerouting priority -100;
    jump services
  }
  chain nat-output {
    type nat hook output priority -100;
    jump services
  }
  chain filter-input {
    type filter hook input priority 0;
    ct state new jump nodeport-endpoints-check
    ct state new jump service-endpoints-check
  }
  chain filter-forward {
    type filter hook forward priority 0;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }
  chain filter-output {
    type filter hook output priority 0;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }
  chain nat-postrouting {
    type nat hook postrouting priority 100;
    jump masquerading
  }
}
table inet somebody {
  chain guard {
    type filter hook forward priority -5; policy accept;
    ct state { established, related } accept
    tcp dport 8080 ip saddr 10.244.66.0/24 counter drop
    ip saddr 10.244.67.1 meta cgroup 5 drop
  }
}
`;

const world = new World({
  nodeName: 'node-1',
  family: 'IPv4',
  nodeIP: '172.31.0.11',
  localAddresses: [],
  podNetworksHere: ['10.244.1.0/24'],
  podNetworks: ['10.244.0.0/16'],
  outInterface: 'eth0',
});

function packet(kind: OriginKind, address: string, destination: string, destinationPort: number): Packet {
  return {
    family: 'IPv4',
    protocol: 'TCP',
    origin: { kind, address, name: kind, interface: kind === 'node' ? undefined : 'eth0' },
    sourcePort: undefined,
    destination,
    destinationPort,
  };
}

function told({ possibilities }: Prediction): string[][] {
  return possibilities.map(({ outcomes }) =>
    outcomes.map(
      ({ kind, destination, probability, masqueraded }) =>
        `${kind === 'endpoint' ? destination : kind}${probability < 1 ? ` ${probability.toFixed(3)}` : ''}${masqueraded ? ' masqueraded' : ''}`,
    ),
  );
}

test("kube-proxy's layout is understood, and somebody else's table beside it", (context) => {
  const namespace = makeNamespace();
  context.after(() => removeNamespace(namespace));
  inNamespace(namespace, ['nft', '-f', '-'], { input: script, stdio: ['pipe', 'pipe', 'pipe'] });
  const dump = parseDump(inNamespace(namespace, ['nft', '-j', 'list', 'ruleset']), 'dump');
  assert.equal(dump.mode, 'nftables');
  const chains = dump.chains('IPv4');
  const ask = (...args: Parameters<typeof packet>): string[][] => told(walk(packet(...args), chains, world));

  const all = ['10.244.1.5:8080 0.333', '10.244.2.7:8080 0.333', '10.244.2.8:8080 0.333'];
  const masqueraded = all.map((one) => `${one} masqueraded`);
  assert.deepEqual(ask('podElsewhere', '10.244.2.50', '10.96.0.10', 80), [all]);
  assert.deepEqual(ask('node', '172.31.0.11', '10.96.0.10', 80), [masqueraded]);
  assert.deepEqual(ask('outside', '198.51.100.7', '172.31.0.11', 30080), [masqueraded]);
  assert.deepEqual(
    ask('podHere', '10.244.1.5', '10.96.0.10', 80),
    [[`${all[0]} masqueraded`, all[1]!, all[2]!]],
    'only the Pod that reaches itself is masqueraded',
  );
  assert.deepEqual(ask('outside', '192.0.2.7', '203.0.113.9', 80), [masqueraded]);
  assert.deepEqual(ask('outside', '198.18.3.3', '203.0.113.9', 80), [masqueraded]);
  assert.deepEqual(ask('outside', '198.51.100.7', '203.0.113.9', 80), [['drop']]);
  assert.deepEqual(ask('podHere', '10.244.1.50', '10.96.0.12', 80), [['reject']]);
  assert.deepEqual(ask('podHere', '10.244.1.50', '10.96.0.10', 81), [['reject']]);
  assert.deepEqual(ask('podHere', '10.244.1.50', '10.96.77.7', 80), [['drop']]);
  assert.deepEqual(ask('outside', '198.51.100.7', '172.31.0.11', 30099), [['drop']]);
  assert.deepEqual(ask('outside', '198.51.100.7', '172.31.0.11', 30098), [['node']]);
  assert.deepEqual(ask('podHere', '10.244.1.50', '10.96.0.11', 80), [
    ['10.244.1.5:8080 0.500', '10.244.2.7:8080 0.500'],
  ]);
  assert.deepEqual(
    ask('podElsewhere', '10.244.9.9', '10.96.0.11', 80),
    [['10.244.1.5:8080']],
    'a client that is remembered',
  );

  // Somebody else's rules: one that is understood, and one that is not and must not be guessed.
  assert.deepEqual(ask('podElsewhere', '10.244.66.3', '10.96.0.10', 80), [['drop']]);
  const open = walk(packet('podElsewhere', '10.244.67.1', '10.96.0.10', 80), chains, world);
  assert.equal(open.possibilities.length, 2);
  assert.deepEqual(
    told(open)
      .map((outcomes) => outcomes.join(', '))
      .sort(),
    [all.join(', '), 'drop'].sort(),
  );
  assert.match(open.possibilities[0]!.assumptions[0]!.question, /meta cgroup/);
});
