/** Routes to kernel objects: the reference's worked example, and the frontends that a Local policy leaves empty. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setIds, setName, type SetId } from '../../../src/dataplane/ipvs/names.ts';
import { printRules, rulesOf } from '../../../src/dataplane/ipvs/rules.ts';
import { settingsOf, type IpvsOptions, type Settings } from '../../../src/dataplane/ipvs/settings.ts';
import type { NodeSide } from '../../../src/dataplane/ipvs/nodeSide.ts';
import { translate } from '../../../src/dataplane/ipvs/translate.ts';
import { Touched, Wanted } from '../../../src/dataplane/ipvs/wanted.ts';
import { printServer } from '../../../src/linux/netlink/ipvs/objects.ts';
import type { Route } from '../../../src/services/types.ts';
import { ipv4Options, ipv6Options, makeRoute } from '../iptables/routes.ts';
import { workedExample } from '../nftables/examples.ts';

const options: IpvsOptions = { ...ipv4Options, scheduler: '', excludeCIDRs: [] };
const settings = settingsOf(options, true);
const node: NodeSide = {
  addresses: new Set(['192.0.2.10', '10.244.1.1']),
  nodePorts: ['192.0.2.10', '10.244.1.1'],
};

function wantedOf(routes: readonly Route[], of: Settings = settings, side = node): Wanted {
  const wanted = new Wanted();
  for (const route of routes) wanted.add(translate(route, of, side));
  return wanted;
}

function servers(wanted: Wanted): string[] {
  const lines: string[] = [];
  for (const key of wanted.serverKeys) {
    const { server, endpoints } = wanted.server(key)!;
    lines.push(`${printServer(server)} -> ${endpoints.map((one) => one.key).join(' ')}`.trim());
  }
  return lines.sort();
}

function members(wanted: Wanted): Partial<Record<SetId, string[]>> {
  const result: Partial<Record<SetId, string[]>> = {};
  for (const id of setIds) if (wanted.filled(id)) result[id] = [...wanted.entries(id).keys()].sort();
  return result;
}

/** Without its Service of internal policy Local, which has no endpoint here. */
const example = workedExample.filter(({ port }) => port.service !== 'dns');

describe('translation', () => {
  it('the worked example: virtual servers, sets, addresses', () => {
    const wanted = wantedOf(example);
    assert.deepEqual(servers(wanted), [
      '-A -t 10.244.1.1:30443 -s rr -> 10.244.1.6:8443',
      '-A -t 10.244.1.1:30999 -s rr ->',
      '-A -t 10.96.0.10:80 -s rr -> 10.244.1.5:8080 10.244.2.7:8080',
      '-A -t 10.96.0.20:443 -s rr -> 10.244.1.6:8443 10.244.2.8:8443',
      '-A -t 10.96.0.30:9000 -s rr -p 10800 -> 10.244.1.9:9000 10.244.2.9:9000',
      '-A -t 10.96.0.99:80 -s rr ->',
      '-A -t 192.0.2.10:30443 -s rr -> 10.244.1.6:8443',
      '-A -t 192.0.2.10:30999 -s rr ->',
      '-A -t 198.51.100.7:443 -s rr -> 10.244.1.6:8443',
    ]);
    const lb = ['198.51.100.7,tcp:443'];
    const addresses = ['10.96.0.10', '10.96.0.20', '10.96.0.30', '10.96.0.99', '198.51.100.7'];
    assert.deepEqual(members(wanted), {
      'KUBE-LOOP-BACK': [
        '10.244.1.5,tcp:8080,10.244.1.5',
        '10.244.1.6,tcp:8443,10.244.1.6',
        '10.244.1.9,tcp:9000,10.244.1.9',
      ],
      'KUBE-CLUSTER-IP': [
        '10.96.0.10,tcp:80',
        '10.96.0.20,tcp:443',
        '10.96.0.30,tcp:9000',
        '10.96.0.99,tcp:80',
      ],
      'KUBE-LOAD-BALANCER': lb,
      'KUBE-LOAD-BALANCER-LOCAL': lb,
      'KUBE-LOAD-BALANCER-FW': lb,
      'KUBE-LOAD-BALANCER-SOURCE-IP': ['198.51.100.7,tcp:443,198.51.100.7'],
      'KUBE-LOAD-BALANCER-SOURCE-CIDR': [
        '198.51.100.7,tcp:443,192.0.2.0/24',
        '198.51.100.7,tcp:443,203.0.113.0/24',
      ],
      'KUBE-NODE-PORT-TCP': ['30443', '30999'],
      'KUBE-NODE-PORT-LOCAL-TCP': ['30443'],
      'KUBE-IPVS-IPS': addresses,
      'KUBE-NODE-PORT-IPS': ['10.244.1.1', '192.0.2.10'],
    });
    assert.deepEqual([...wanted.addresses.keys()].sort(), addresses);
  });

  it('the worked example: rules, in the order in which packets meet them', () => {
    const wanted = wantedOf(example);
    const text = printRules(rulesOf(settings, (id) => wanted.filled(id), wanted.outFilter));
    const chain = (name: string): string[] =>
      text
        .split('\n')
        .filter((line) => line.startsWith(`-A ${name} `))
        .map((line) => line.slice(name.length + 4));
    assert.deepEqual(chain('KUBE-SERVICES'), [
      '-s 127.0.0.0/8 -j RETURN',
      '-m set --match-set KUBE-LOAD-BALANCER dst,dst -j KUBE-LOAD-BALANCER',
      '-m set --match-set KUBE-CLUSTER-IP dst,dst ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ',
      '-m addrtype --dst-type LOCAL -j KUBE-NODE-PORT',
      '-m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT',
      '-m set --match-set KUBE-LOAD-BALANCER dst,dst -j ACCEPT',
    ]);
    assert.deepEqual(chain('KUBE-POSTROUTING'), [
      '-m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE',
      '-m mark ! --mark 0x4000/0x4000 -j RETURN',
      '-j MARK --xor-mark 0x4000',
      '-j MASQUERADE --random-fully',
    ]);
    assert.deepEqual(chain('KUBE-SOURCE-RANGES-FIREWALL'), [
      '-m set --match-set KUBE-LOAD-BALANCER-SOURCE-CIDR dst,dst,src -j RETURN',
      '-m set --match-set KUBE-LOAD-BALANCER-SOURCE-IP dst,dst,src -j RETURN',
      '-j DROP',
    ]);
    assert.deepEqual(chain('KUBE-IPVS-OUT-FILTER'), []);
    assert.deepEqual(
      chain('KUBE-IPVS-FILTER').at(-1),
      '-m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst -j REJECT',
    );
    assert.deepEqual(text.match(/^\*.*$/gm), ['*mangle', '*nat', '*filter']);
  });

  it('a range without this node keeps its processes out', () => {
    const route = makeRoute({
      name: 'default/shop',
      clusterIP: '10.96.0.20',
      port: 443,
      loadBalancerIPs: ['198.51.100.7'],
      sourceRanges: ['203.0.113.0/24', '203.0.113.9/32'],
    });
    const wanted = wantedOf([route]);
    assert.equal(wanted.filled('KUBE-LOAD-BALANCER-SOURCE-IP'), false);
    assert.deepEqual(wanted.outFilter, [
      '-s 198.51.100.7/32 -m ipvs --vaddr 198.51.100.7 --vproto tcp --vport 443 -j DROP',
    ]);
    // A single address as ipset prints it.
    assert.ok(wanted.entries('KUBE-LOAD-BALANCER-SOURCE-CIDR').has('198.51.100.7,tcp:443,203.0.113.9'));
    const open = wantedOf([
      { ...route, port: { ...route.port, sourceRanges: ['203.0.113.0/24', '0.0.0.0/0'] } },
    ]);
    assert.equal(open.filled('KUBE-LOAD-BALANCER-FW'), false);
  });

  it('a Local policy without a local endpoint drops outsiders, and everybody inside', () => {
    const wanted = wantedOf([
      makeRoute({
        name: 'default/a',
        clusterIP: '10.96.0.1',
        port: 80,
        nodePort: 30080,
        internalPolicyLocal: true,
        externalPolicyLocal: true,
        endpoints: ['10.244.2.7:8080'],
      }),
    ]);
    assert.deepEqual([...wanted.entries('KUBE-DROP-INTERNAL').keys()], ['10.96.0.1,tcp:80']);
    assert.deepEqual(
      [...wanted.entries('KUBE-DROP-EXTERNAL').keys()],
      ['192.0.2.10,tcp:30080', '10.244.1.1,tcp:30080'],
    );
    assert.deepEqual(servers(wanted), [
      '-A -t 10.244.1.1:30080 -s rr -> 10.244.2.7:8080',
      '-A -t 10.96.0.1:80 -s rr ->',
      '-A -t 192.0.2.10:30080 -s rr -> 10.244.2.7:8080',
    ]);
    const rules = rulesOf(settings, (id) => wanted.filled(id), []);
    assert.deepEqual(rules.mangle, [
      {
        chain: 'KUBE-IPVS-DROP',
        args: '-m conntrack --ctstate NEW -m set --match-set KUBE-DROP-INTERNAL dst,dst -j DROP',
      },
    ]);
    assert.ok(
      rules.filter.some(
        ({ args }) =>
          args ===
          '-m conntrack --ctstate NEW ! -s 10.244.0.0/16 -m set --match-set KUBE-DROP-EXTERNAL dst,dst -j DROP',
      ),
    );
  });

  it('an address of the node is not put on the device, and a node port gives way to a Service of that address', () => {
    const older = makeRoute({ name: 'a/np', clusterIP: '10.96.0.1', port: 80, nodePort: 30080 });
    const external = makeRoute({
      name: 'b/ext',
      clusterIP: '10.96.0.2',
      port: 30080,
      externalIPs: ['192.0.2.10'],
    });
    const wanted = wantedOf([older, external]);
    assert.equal(wanted.addresses.has('192.0.2.10'), false);
    assert.equal(wanted.server('192.0.2.10:30080/TCP')?.port.id, external.port.id);
    const touched = new Touched();
    wanted.remove(translate(external, settings, node), touched);
    assert.equal(wanted.server('192.0.2.10:30080/TCP')?.port.id, older.port.id);
    assert.ok(touched.servers.has('192.0.2.10:30080/TCP'));
  });

  it('a cluster IP is put on the device whoever else has it', () => {
    const side = { addresses: new Set(['192.0.2.10', '10.96.0.1']), nodePorts: [] };
    const wanted = wantedOf([makeRoute({ name: 'a/s', clusterIP: '10.96.0.1', port: 80 })], settings, side);
    assert.ok(wanted.addresses.has('10.96.0.1'));
    assert.ok(wanted.entries('KUBE-IPVS-IPS').has('10.96.0.1'));
  });

  it("a load balancer's loopback, multicast or unspecified address is neither bound nor guarded", () => {
    for (const ip of ['127.0.0.1', '0.0.0.0', '224.0.0.1', '255.255.255.255']) {
      const wanted = wantedOf([
        makeRoute({ name: 'a/s', clusterIP: '10.96.0.1', port: 80, loadBalancerIPs: [ip] }),
      ]);
      assert.deepEqual([...wanted.addresses.keys()], ['10.96.0.1'], ip);
      // All its other ports would be refused: on loopback, to the node's own processes.
      assert.deepEqual([...wanted.entries('KUBE-IPVS-IPS').keys()], ['10.96.0.1'], ip);
    }
  });

  it('unspecified addresses are no entries of sets, which take none', () => {
    const wanted = wantedOf([
      makeRoute({
        name: 'a/s',
        clusterIP: '10.96.0.1',
        port: 80,
        externalIPs: ['0.0.0.0'],
        endpoints: ['0.0.0.0:80L', '10.244.1.5:80L'],
      }),
    ]);
    assert.deepEqual(Object.keys(members(wanted)), ['KUBE-LOOP-BACK', 'KUBE-CLUSTER-IP', 'KUBE-IPVS-IPS']);
    assert.deepEqual(members(wanted)['KUBE-LOOP-BACK'], ['10.244.1.5,tcp:80,10.244.1.5']);
  });

  it('SCTP node ports are kept by address, Maglev hashing tells ports apart', () => {
    const mh = settingsOf({ ...options, scheduler: 'mh' }, true);
    const wanted = wantedOf(
      [
        makeRoute({
          name: 'a/s',
          protocol: 'SCTP',
          clusterIP: '10.96.0.1',
          port: 7,
          nodePort: 30007,
          externalPolicyLocal: true,
        }),
      ],
      mh,
    );
    const both = ['10.244.1.1,sctp:30007', '192.0.2.10,sctp:30007'];
    assert.deepEqual(members(wanted)['KUBE-NODE-PORT-SCTP-HASH'], both);
    assert.deepEqual(members(wanted)['KUBE-NODE-PORT-LOCAL-SCTP-HASH'], both);
    assert.ok(servers(wanted)[0]?.startsWith('-A --sctp-service 10.244.1.1:30007 -s mh -b mh-port'));
  });

  it('IPv6: addresses of 128 bits, ranges and single addresses as ipset prints them', () => {
    const six = settingsOf({ ...ipv6Options, scheduler: '', excludeCIDRs: [] }, true);
    const wanted = wantedOf(
      [
        makeRoute({
          name: 'a/s',
          clusterIP: 'fd00:10:96::a',
          port: 80,
          affinitySeconds: 60,
          loadBalancerIPs: ['2001:db8:1::7'],
          sourceRanges: ['2001:db8:2::/48', '2001:db8:3::1/128'],
        }),
      ],
      six,
    );
    assert.deepEqual(wanted.outFilter, [
      '-s 2001:db8:1::7/128 -m ipvs --vaddr 2001:db8:1::7 --vproto tcp --vport 80 -j DROP',
    ]);
    assert.deepEqual(members(wanted)['KUBE-LOAD-BALANCER-SOURCE-CIDR'], [
      '2001:db8:1::7,tcp:80,2001:db8:2::/48',
      '2001:db8:1::7,tcp:80,2001:db8:3::1',
    ]);
    assert.deepEqual(wanted.server('[fd00:10:96::a]:80/TCP')?.server.prefixLength, 128);
  });

  it('IPv6 names are cut to what the kernel takes', () => {
    assert.equal(setName('KUBE-LOAD-BALANCER-SOURCE-CIDR', 'IPv6'), 'KUBE-6-LOAD-BALANCER-SOURCE-CID');
    assert.equal(setName('KUBE-NODE-PORT-LOCAL-SCTP-HASH', 'IPv6'), 'KUBE-6-NODE-PORT-LOCAL-SCTP-HAS');
    assert.equal(new Set(setIds.map((id) => setName(id, 'IPv6'))).size, setIds.length);
    const six = settingsOf({ ...ipv6Options, scheduler: '', excludeCIDRs: [] }, true);
    assert.match(printRules(rulesOf(six, () => false, [])), /-A KUBE-SERVICES -s ::1\/128 -j RETURN/);
  });
});
