/** IPVS mode on a kernel that has IPVS, with real packets. Runs in the guest (scripts/vm-run.sh). */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { cleanup } from '../../../src/dataplane/ipvs/cleanup.ts';
import { openIpvs, probeScheduler } from '../../../src/dataplane/ipvs/checks.ts';
import type { NetlinkIpvs } from '../../../src/linux/netlink/ipvs/ipvs.ts';
import {
  parseSavedLine,
  printRealServer,
  printServer,
  servicePersistent,
  type ServerIdentity,
  type VirtualServer,
} from '../../../src/linux/netlink/ipvs/objects.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import { makeRoute } from '../iptables/routes.ts';
import { Driver, Held, Node, ask, sh, succeeds, whyNoIpvs } from './guest.ts';

const skip = whyNoIpvs();
/** Against hanging only: a guest that shares its processor may take minutes. */
const timeout = 900_000;

describe('IPVS mode in the kernel', { skip, timeout }, () => {
  let node: Node;
  let ipvs: NetlinkIpvs;
  let driver: Driver;
  before(async () => {
    node = new Node();
    ipvs = openIpvs();
    driver = new Driver();
    await driver.dataplane.start();
  });
  after(async () => {
    await driver.dataplane.stop();
    ipvs.close();
    node.close();
  });

  const web = (endpoints: readonly string[], more: object = {}) =>
    makeRoute({ name: 'shop/web', clusterIP: '10.96.0.10', port: 80, endpoints, ...more });
  const both = ['10.244.1.11:8080L', '10.244.1.12:8080L'];
  const webServer: ServerIdentity = { protocol: 'TCP', address: '10.96.0.10', port: 80 };

  async function answers(namespace: string, address: string, port: number, times = 2): Promise<string[]> {
    const seen = new Set<string>();
    for (let i = 0; i < times; i++) seen.add(await ask(namespace, address, port));
    return [...seen].sort();
  }

  it('the codec and the kernel agree on every field', () => {
    const servers: VirtualServer[] = (['TCP', 'UDP', 'SCTP'] as const).flatMap((protocol) =>
      ['203.0.113.1', '2001:db8:1::1'].map((address, i) => ({
        protocol,
        address,
        port: 7000 + i,
        scheduler: protocol === 'TCP' ? 'rr' : 'mh',
        flags: protocol === 'SCTP' ? 0x10 : servicePersistent | 0x8,
        timeout: protocol === 'SCTP' ? 0 : 600,
        prefixLength: (i === 0 ? 32 : 128) - (protocol === 'UDP' ? 8 : 0),
      })),
    );
    for (const server of servers) {
      ipvs.addServer(server);
      const found = ipvs
        .listServers()
        .find((one) => one.address === server.address && one.protocol === server.protocol);
      assert.deepEqual(found, server);
      assert.deepEqual(parseSavedLine(printServer(server)), { kind: 'server', server });
      const real = {
        address: server.address.includes(':') ? 'fd00::9' : '10.0.0.9',
        port: 9,
        forwarding: 'masquerade',
        weight: 3,
        upperThreshold: 20,
        lowerThreshold: 10,
      } as const;
      ipvs.addRealServer(server, real);
      const counts = { activeConnections: 0, inactiveConnections: 0, persistentConnections: 0 };
      assert.deepEqual(ipvs.listRealServers(server), [{ ...real, ...counts }]);
      ipvs.editRealServer(server, { ...real, weight: 0 });
      assert.equal(ipvs.listRealServers(server)[0]?.weight, 0);
      assert.match(printRealServer(server, real), /-m -w 3 -x 20 -y 10$/);
      assert.equal(ipvs.deleteRealServer(server, real), true);
      assert.equal(ipvs.deleteRealServer(server, real), false);
      ipvs.editServer({ ...server, timeout: 0, flags: 0, scheduler: 'wrr' });
      assert.equal(ipvs.serverStatistics().size > 0, true);
      assert.equal(ipvs.deleteServer(server), true);
      assert.equal(ipvs.deleteServer(server), false);
    }
    assert.equal(ipvs.info().version, '1.2.1');
    const before = ipvs.timeouts();
    ipvs.setTimeouts({ tcp: 800, tcpFin: 0, udp: 0 });
    assert.deepEqual(ipvs.timeouts(), { ...before, tcp: 800 });
  });

  it('an unknown scheduler ends the start with a sentence', () => {
    assert.throws(
      () => probeScheduler(ipvs, 'IPv4', 'nonesuch'),
      /no IPVS scheduler "nonesuch".*modprobe ip_vs_nonesuch/,
    );
    probeScheduler(ipvs, 'IPv4', 'wlc');
    assert.deepEqual(ipvs.listServers(), []);
  });

  it('serves a cluster IP to Pods, the node and itself', async () => {
    assert.deepEqual(await driver.to([web(both)], true), { full: true });
    assert.deepEqual(await answers('outside', '10.96.0.10', 80), ['pod1 10.244.1.1', 'pod2 10.244.1.1']);
    assert.deepEqual(await answers('', '10.96.0.10', 80), ['pod1 10.244.1.1', 'pod2 10.244.1.1']);
    // A Pod is seen as what it is, but by itself: that goes through the node.
    assert.deepEqual(await answers('pod1', '10.96.0.10', 80), ['pod1 10.244.1.1', 'pod2 10.244.1.11']);
    assert.equal(await driver.dataplane.lookForDrift(), undefined);
    assert.equal(await ask('outside', '10.96.0.10', 81), 'refused');
  });

  it('a change costs its own service alone, and an endpoint with connections ends gracefully', async () => {
    // A service of its own: connections that ended a moment ago count, too.
    const heldServer: ServerIdentity = { protocol: 'TCP', address: '10.96.0.20', port: 80 };
    const held = (endpoints: readonly string[]) =>
      makeRoute({ name: 'shop/held', clusterIP: '10.96.0.20', port: 80, endpoints });
    await driver.to([held(both)]);
    const first = new Held('10.96.0.20', 80);
    const second = new Held('10.96.0.20', 80);
    const names = [await first.line(), await second.line()];
    const onPod1 = names[0]!.startsWith('pod1') ? first : second;
    const onPod2 = onPod1 === first ? second : first;
    assert.deepEqual(await driver.to([held([both[1]!])]), { full: false });
    const weights = (): string[] =>
      ipvs
        .listRealServers(heldServer)
        .map((one) => `${one.address} ${one.weight}`)
        .sort();
    assert.deepEqual(weights(), ['10.244.1.11 0', '10.244.1.12 1']);
    assert.equal(driver.dataplane.retiring, 1);
    assert.equal(await onPod1.echo('still there'), 'still there');
    assert.deepEqual(await answers('', '10.96.0.20', 80), ['pod2 10.244.1.1']);
    driver.dataplane.checkRetirement();
    assert.equal(driver.dataplane.retiring, 1);

    // A restart: the new process finds weight 0 on what it does not want, and leaves it so.
    await driver.dataplane.stop();
    driver = new Driver();
    await driver.dataplane.start();
    await driver.to([held([both[1]!])], true);
    assert.deepEqual(weights(), ['10.244.1.11 0', '10.244.1.12 1']);
    assert.equal(driver.dataplane.retiring, 1);
    assert.equal(await onPod1.echo('after the restart'), 'after the restart');

    // It comes back: the connection goes on, and new ones come.
    await driver.to([held(both)]);
    assert.deepEqual(weights(), ['10.244.1.11 1', '10.244.1.12 1']);
    assert.equal(driver.dataplane.retiring, 0);
    assert.equal(await onPod1.echo('back'), 'back');

    await driver.to([held([both[1]!])]);
    onPod1.socket.resetAndDestroy();
    for (let i = 0; i < 300 && driver.dataplane.retiring > 0; i++) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
      driver.dataplane.checkRetirement();
    }
    assert.deepEqual(weights(), ['10.244.1.12 1']);
    assert.equal(await onPod2.echo('not touched'), 'not touched');
    onPod2.socket.destroy();
  });

  it('a weight that somebody else sets survives syncs and restarts', async () => {
    await driver.to([web(both)]);
    const [real] = ipvs.listRealServers(webServer);
    ipvs.editRealServer(webServer, { ...real!, weight: 7 });
    await driver.to([web(both)]);
    await driver.dataplane.stop();
    driver = new Driver();
    await driver.dataplane.start();
    await driver.to([web(both)], true);
    assert.deepEqual(
      ipvs
        .listRealServers(webServer)
        .map((one) => one.weight)
        .sort((a, b) => a - b),
      [1, 7],
    );
  });

  it('refuses where nobody is, and keeps silent where a Local policy has nobody here', async () => {
    const far = ['10.244.2.9:8080'];
    await driver.to([
      web([]),
      makeRoute({
        name: 'shop/inside',
        clusterIP: '10.96.0.11',
        port: 80,
        internalPolicyLocal: true,
        endpoints: far,
      }),
      makeRoute({
        name: 'shop/balanced',
        clusterIP: '10.96.0.12',
        port: 80,
        loadBalancerIPs: ['198.51.100.7'],
        externalPolicyLocal: true,
        endpoints: far,
      }),
    ]);
    assert.equal(await ask('outside', '10.96.0.10', 80), 'refused');
    assert.equal(await ask('', '10.96.0.10', 80), 'refused');
    assert.equal(await ask('pod1', '10.96.0.11', 80, 4), 'silence');
    assert.equal(await ask('', '10.96.0.11', 80, 4), 'silence');
    assert.equal(await ask('outside', '198.51.100.7', 80, 4), 'silence');
    assert.match(sh('ipset list KUBE-DROP-EXTERNAL'), /198\.51\.100\.7,tcp:80/);
  });

  it('node ports, source addresses and source ranges', async () => {
    await driver.to([
      web(both, { nodePort: 30080 }),
      makeRoute({
        name: 'shop/guarded',
        clusterIP: '10.96.0.12',
        port: 80,
        loadBalancerIPs: ['198.51.100.7'],
        externalPolicyLocal: true,
        sourceRanges: ['192.0.2.0/24'],
        endpoints: [both[0]!],
      }),
      makeRoute({
        name: 'shop/shut',
        clusterIP: '10.96.0.13',
        port: 80,
        loadBalancerIPs: ['198.51.100.8'],
        sourceRanges: ['203.0.113.0/24'],
        endpoints: [both[0]!],
      }),
    ]);
    assert.deepEqual(await answers('outside', '192.0.2.10', 30080), ['pod1 10.244.1.1', 'pod2 10.244.1.1']);
    assert.equal(await ask('outside', '198.51.100.7', 80), 'pod1 192.0.2.2');
    assert.equal(await ask('', '198.51.100.7', 80), 'pod1 10.244.1.1');
    assert.equal(await ask('outside', '198.51.100.8', 80, 4), 'silence');
    assert.equal(await ask('', '198.51.100.8', 80, 4), 'silence');
    assert.equal(await driver.dataplane.lookForDrift(), undefined);
  });

  it('affinity keeps a client where it is', async () => {
    await driver.to([web(both, { affinitySeconds: 10_800 })]);
    assert.equal((await answers('outside', '10.96.0.10', 80, 3)).length, 1);
    const server = ipvs.listServers().find((one) => one.address === '10.96.0.10');
    assert.deepEqual([server?.flags, server?.timeout], [servicePersistent, 10_800]);
  });

  it("notices and mends what others break, and leaves alone what is others'", async () => {
    const foreign: VirtualServer = {
      protocol: 'TCP',
      address: '192.0.2.10',
      port: 4444,
      scheduler: 'wlc',
      flags: 0,
      timeout: 0,
      prefixLength: 32,
    };
    ipvs.addServer(foreign);
    const harm: readonly [string, () => void][] = [
      ['device', () => void sh('ip link del kube-ipvs0')],
      ['address', () => void sh('ip addr del 10.96.0.10/32 dev kube-ipvs0')],
      ['virtual server', () => void ipvs.deleteServer(webServer)],
      ['real servers', () => void ipvs.deleteRealServer(webServer, ipvs.listRealServers(webServer)[0]!)],
      ['entries of set', () => void sh('ipset flush KUBE-CLUSTER-IP')],
      ['KUBE-SERVICES', () => void sh('iptables -t nat -F KUBE-SERVICES')],
      ['jump from INPUT', () => void sh('iptables -F INPUT')],
    ];
    for (const [what, action] of harm) {
      action();
      // Addresses and the device are noticed by themselves, too.
      const wrong = await driver.dataplane.lookForDrift();
      assert.match(wrong ?? '', new RegExp(what));
      await driver.to([web(both)], true);
      assert.equal(await driver.dataplane.lookForDrift(), undefined, what);
    }
    assert.equal(driver.reports.filter((one) => one.kind === 'repaired').length, harm.length);
    assert.deepEqual((await answers('outside', '10.96.0.10', 80)).length, 2);
    assert.ok(ipvs.listServers().some((one) => one.port === 4444));
    ipvs.deleteServer(foreign);
  });

  it('excluded virtual servers are never deleted', async () => {
    await driver.dataplane.stop();
    driver = new Driver('IPv4', { excludeCIDRs: ['10.96.0.10/32'] });
    await driver.dataplane.start();
    await driver.to([web(both)], true);
    await driver.to([]);
    assert.equal(ipvs.listServers().length, 1);
    await driver.dataplane.stop();
    driver = new Driver();
    await driver.dataplane.start();
    await driver.to([web(both)], true);
    await driver.to([]);
    assert.deepEqual(ipvs.listServers(), []);
  });

  it('IPv6', async () => {
    const six = new Driver('IPv6');
    await six.dataplane.start();
    await six.to(
      [
        makeRoute({
          name: 'shop/web',
          clusterIP: 'fd00:10:96::a',
          port: 80,
          nodePort: 30080,
          endpoints: ['[fd00:10:244:1::11]:8080L', '[fd00:10:244:1::12]:8080L'].map((text) => text),
        }),
      ],
      true,
    );
    assert.deepEqual(
      (await answers('outside', 'fd00:10:96::a', 80)).map((line) => line.split(' ')[0]),
      ['pod1', 'pod2'],
    );
    assert.deepEqual(
      (await answers('outside', '2001:db8::10', 30080)).map((line) => line.split(' ')[0]),
      ['pod1', 'pod2'],
    );
    assert.ok(succeeds('ipset list KUBE-6-CLUSTER-IP'));
    assert.equal(await six.dataplane.lookForDrift(), undefined);
    await six.dataplane.stop();
  });

  it('clean-up removes all of ours and nothing else', async () => {
    await driver.to([web(both, { nodePort: 30080 })]);
    const foreign: VirtualServer = {
      protocol: 'UDP',
      address: '203.0.113.77',
      port: 4444,
      scheduler: 'rr',
      flags: 0,
      timeout: 0,
      prefixLength: 32,
    };
    ipvs.addServer(foreign);
    sh('iptables -A INPUT -s 203.0.113.99 -j DROP; ipset create mine hash:ip');
    await cleanup({ log: silentLogger });
    assert.deepEqual(ipvs.listServers(), [foreign]);
    assert.equal(succeeds('ip link show kube-ipvs0'), false);
    assert.equal(sh('ipset list -n').trim(), 'mine');
    const rules = sh('iptables-save; ip6tables-save');
    assert.doesNotMatch(rules, /KUBE/);
    assert.match(rules, /203\.0\.113\.99/);
    await cleanup({ log: silentLogger });
  });
});
