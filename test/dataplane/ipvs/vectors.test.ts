/** What kube-proxy's own tests of this mode expect of Services, as far as it is decided before the kernel is asked. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { NodeSide } from '../../../src/dataplane/ipvs/nodeSide.ts';
import type { SetId } from '../../../src/dataplane/ipvs/names.ts';
import { rulesOf } from '../../../src/dataplane/ipvs/rules.ts';
import { settingsOf } from '../../../src/dataplane/ipvs/settings.ts';
import { translate } from '../../../src/dataplane/ipvs/translate.ts';
import { Wanted } from '../../../src/dataplane/ipvs/wanted.ts';
import { servicePorts } from '../../../src/services/servicePorts.ts';
import { service as buildService } from '../../services/build.ts';
import { ipv4Options, makeRoute, type Spec } from '../iptables/routes.ts';

const settings = settingsOf({ ...ipv4Options, scheduler: '', excludeCIDRs: [] }, true);

function wantedOf(specs: readonly Spec[], addresses: readonly string[] = ['100.101.102.103']): Wanted {
  const node: NodeSide = { addresses: new Set(addresses), nodePorts: addresses };
  const wanted = new Wanted();
  for (const spec of specs) wanted.add(translate(makeRoute(spec), settings, node));
  return wanted;
}

/** Real servers by virtual server. */
function servers(wanted: Wanted): Record<string, string[]> {
  return Object.fromEntries(
    [...wanted.serverKeys].map((key) => [key, wanted.server(key)!.endpoints.map((one) => one.key)]),
  );
}

const entries = (wanted: Wanted, id: SetId): string[] => [...wanted.entries(id).keys()].sort();

function chain(wanted: Wanted, name: string): string[] {
  const { nat } = rulesOf(settings, (id) => wanted.filled(id), wanted.outFilter);
  return nat.flatMap((rule) => (rule.chain === name ? rule.args : []));
}

const service: Spec = {
  name: 'ns1/svc1',
  portName: 'p80',
  clusterIP: '10.20.30.41',
  port: 80,
  nodePort: 3001,
};

describe("vectors of kube-proxy's tests", () => {
  it('a node port: the cluster IP and every node address', () => {
    assert.deepEqual(servers(wantedOf([{ ...service, endpoints: ['10.180.0.1:80'] }])), {
      '10.20.30.41:80/TCP': ['10.180.0.1:80'],
      '100.101.102.103:3001/TCP': ['10.180.0.1:80'],
    });
    assert.deepEqual(servers(wantedOf([service])), {
      '10.20.30.41:80/TCP': [],
      '100.101.102.103:3001/TCP': [],
    });
  });

  it('a UDP node port is in its set, and its one rule masquerades', () => {
    const wanted = wantedOf([{ ...service, protocol: 'UDP' }]);
    assert.deepEqual(entries(wanted, 'KUBE-NODE-PORT-UDP'), ['3001']);
    assert.deepEqual(chain(wanted, 'KUBE-NODE-PORT'), [
      '-p udp -m set --match-set KUBE-NODE-PORT-UDP dst -j KUBE-MARK-MASQ',
    ]);
  });

  it('an SCTP node port: an entry for each node address; Local policy returns before the mark', () => {
    const addresses = ['100.101.102.103', '100.101.102.104', '100.101.102.105'];
    const endpoints = ['10.180.0.1:80L', '10.180.1.1:80'];
    const sctp = { ...service, protocol: 'SCTP', endpoints } as const;
    const all = wantedOf([sctp], addresses);
    const texts = addresses.map((ip) => `${ip},sctp:3001`);
    assert.deepEqual(entries(all, 'KUBE-NODE-PORT-SCTP-HASH'), texts);
    assert.equal(Object.keys(servers(all)).length, 4);
    const local = wantedOf([{ ...sctp, externalPolicyLocal: true }], addresses);
    assert.deepEqual(entries(local, 'KUBE-NODE-PORT-SCTP-HASH'), texts);
    assert.deepEqual(entries(local, 'KUBE-NODE-PORT-LOCAL-SCTP-HASH'), texts);
    assert.equal(servers(local)['10.20.30.41:80/SCTP']?.length, 2);
    assert.deepEqual(servers(local)['100.101.102.104:3001/SCTP'], ['10.180.0.1:80']);
    const words = chain(local, 'KUBE-NODE-PORT').map((args) => args.split(' -j ')[1]);
    // The first is ours: what the node itself sends has to come back to it.
    assert.deepEqual(words, ['KUBE-MARK-MASQ', 'RETURN', 'KUBE-MARK-MASQ']);
  });

  it('an external IP, with and without endpoints; a load balancer without node addresses', () => {
    const external = { ...service, externalIPs: ['50.60.70.81'] };
    assert.deepEqual(servers(wantedOf([external], []))['50.60.70.81:80/TCP'], []);
    const balanced = { ...service, loadBalancerIPs: ['1.2.3.4'] };
    assert.deepEqual(Object.keys(servers(wantedOf([balanced], []))), [
      '10.20.30.41:80/TCP',
      '1.2.3.4:80/TCP',
    ]);
  });

  it('external IPs of both families and of loopback: virtual servers for the family', () => {
    const object = buildService('svc1', { externalIPs: ['50.60.70.81', '2012::51', '127.0.0.1'] });
    const [port] = servicePorts(object, { family: 'IPv4' });
    const wanted = wantedOf([{ ...service, externalIPs: port?.externalIPs ?? [] }], []);
    assert.deepEqual(Object.keys(servers(wanted)), [
      '10.20.30.41:80/TCP',
      '50.60.70.81:80/TCP',
      '127.0.0.1:80/TCP',
    ]);
  });

  it('rules of KUBE-SERVICES with all kinds of frontends', () => {
    const wanted = wantedOf([{ ...service, externalIPs: ['50.60.70.81'], loadBalancerIPs: ['1.2.3.4'] }]);
    const words = chain(wanted, 'KUBE-SERVICES').map((args) => {
      const set = /--match-set (\S+)/.exec(args)?.[1] ?? (args.includes('dst-type') ? 'local' : 'loopback');
      return `${set} ${args.split(' -j ')[1]}`;
    });
    assert.deepEqual(words, [
      'loopback RETURN',
      'KUBE-LOAD-BALANCER KUBE-LOAD-BALANCER',
      'KUBE-CLUSTER-IP KUBE-MARK-MASQ',
      'KUBE-EXTERNAL-IP KUBE-MARK-MASQ',
      'KUBE-EXTERNAL-IP ACCEPT',
      'KUBE-EXTERNAL-IP ACCEPT',
      'local KUBE-NODE-PORT',
      'KUBE-CLUSTER-IP ACCEPT',
      'KUBE-LOAD-BALANCER ACCEPT',
    ]);
  });

  it('internal policy Local: one real server, or none', () => {
    const internal = (endpoints: string[]): Wanted =>
      wantedOf([
        { name: 'ns1/svc1', clusterIP: '10.20.30.41', port: 80, internalPolicyLocal: true, endpoints },
      ]);
    const one = internal(['10.180.0.1:80L', '10.180.1.1:80', '10.180.2.1:80']);
    assert.deepEqual(servers(one), { '10.20.30.41:80/TCP': ['10.180.0.1:80'] });
    assert.deepEqual(entries(one, 'KUBE-LOOP-BACK'), ['10.180.0.1,tcp:80,10.180.0.1']);
    const none = internal(['10.180.1.1:80', '10.180.2.1:80']);
    assert.deepEqual(servers(none), { '10.20.30.41:80/TCP': [] });
    assert.deepEqual(entries(none, 'KUBE-LOOP-BACK'), []);
  });

  it('endpoints of this node are masqueraded to themselves, ready or not', () => {
    const route = makeRoute({ ...service, endpoints: ['10.180.0.1:80L', '10.180.0.2:80L', '10.180.1.1:80'] });
    const endpoints = route.endpoints.map((one, i) => ({ ...one, ready: i !== 0, serving: i !== 0 }));
    const wanted = new Wanted();
    wanted.add(translate({ ...route, endpoints }, settings, { addresses: new Set(), nodePorts: [] }));
    assert.deepEqual(entries(wanted, 'KUBE-LOOP-BACK'), [
      '10.180.0.1,tcp:80,10.180.0.1',
      '10.180.0.2,tcp:80,10.180.0.2',
    ]);
  });

  it('health-check node ports', () => {
    const specs = [30000, 30001].map((port): Spec => ({
      ...service,
      name: `ns1/s${port}`,
      nodePort: port + 100,
      healthCheckNodePort: port,
    }));
    assert.deepEqual(entries(wantedOf(specs), 'KUBE-HEALTH-CHECK-NODE-PORT'), ['30000', '30001']);
    // Also where no address of the node answers node ports.
    assert.deepEqual(entries(wantedOf(specs, []), 'KUBE-HEALTH-CHECK-NODE-PORT'), ['30000', '30001']);
  });

  it('a cluster IP with several ports is bound once', () => {
    const ports = [80, 81, 82].map((port): Spec => ({
      ...service,
      portName: `p${port}`,
      port,
      nodePort: 3000 + port,
    }));
    assert.deepEqual([...wantedOf(ports).addresses.keys()], ['10.20.30.41']);
  });

  it('the order in which Services come to be known decides nothing', () => {
    const specs: Spec[] = [
      { name: 'a/np', clusterIP: '10.0.0.1', port: 80, nodePort: 80, endpoints: ['10.1.0.1:80L'] },
      { name: 'b/ip', clusterIP: '10.0.0.2', port: 80, externalIPs: ['100.101.102.103'] },
      { name: 'c/np', clusterIP: '10.0.0.3', port: 80, nodePort: 80 },
    ];
    const all = wantedOf(specs);
    assert.deepEqual(servers(wantedOf([...specs].reverse())), servers(all));
    assert.equal(all.server('100.101.102.103:80/TCP')?.port.service, 'ip');
  });
});
