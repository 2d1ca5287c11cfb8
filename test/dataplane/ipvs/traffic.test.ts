/** What IPVS mode does to packets and to the node beyond TCP to a cluster IP. Runs in a guest of its own. */
import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { applySysctls, applyTimeouts, openIpvs } from '../../../src/dataplane/ipvs/checks.ts';
import type { NetlinkIpvs } from '../../../src/linux/netlink/ipvs/ipvs.ts';
import type { ServerIdentity } from '../../../src/linux/netlink/ipvs/objects.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import { makeRoute } from '../iptables/routes.ts';
import { Driver, Held, Node, ask, connectFrom, sh, succeeds, talk, whyNoIpvs } from './guest.ts';

const skip = whyNoIpvs();
/** Against hanging only: a guest that shares its processor may take minutes. */
const timeout = 900_000;

describe('IPVS mode: traffic', { skip, timeout }, () => {
  let node: Node;
  let ipvs: NetlinkIpvs;
  let driver: Driver;
  before(async () => {
    node = new Node();
    node.serve({ kind: 'udp', port: 9000 }, { kind: 'sctp', port: 9000 });
    ipvs = openIpvs();
    driver = new Driver();
    await driver.dataplane.start();
    await driver.to([], true);
  });
  after(async () => {
    await driver.dataplane.stop();
    ipvs.close();
    node.close();
  });

  const both = (port: number): string[] => [`10.244.1.11:${port}L`, `10.244.1.12:${port}L`];
  const web = (more: object = {}) =>
    makeRoute({ name: 'shop/web', clusterIP: '10.96.0.10', port: 80, endpoints: both(8080), ...more });

  async function restart(): Promise<void> {
    await driver.dataplane.stop();
    driver = new Driver();
    await driver.dataplane.start();
  }

  for (const protocol of ['UDP', 'SCTP'] as const) {
    const word = protocol === 'UDP' ? 'udp' : 'sctp';

    it(`${protocol}: cluster IP, node port, Local policy, and an endpoint that leaves`, async () => {
      const route = (more: object = {}) =>
        makeRoute({
          name: 'shop/data',
          protocol,
          clusterIP: '10.96.0.53',
          port: 53,
          endpoints: both(9000),
          ...more,
        });
      const seen = async (from: string, ip: string, port: number): Promise<string[]> =>
        [await talk(from, word, ip, port), await talk(from, word, ip, port)].sort();

      await driver.to([route({ nodePort: 30053 })]);
      assert.deepEqual(await seen('outside', '10.96.0.53', 53), ['pod1 10.244.1.1', 'pod2 10.244.1.1']);
      assert.deepEqual(await seen('', '10.96.0.53', 53), ['pod1 10.244.1.1', 'pod2 10.244.1.1']);
      assert.deepEqual(await seen('pod1', '10.96.0.53', 53), ['pod1 10.244.1.1', 'pod2 10.244.1.11']);
      assert.deepEqual(await seen('outside', '192.0.2.10', 30053), ['pod1 10.244.1.1', 'pod2 10.244.1.1']);
      assert.equal(await driver.dataplane.lookForDrift(), undefined);

      // UDP and SCTP do not wait for flows to end; those go on elsewhere, or end.
      const server: ServerIdentity = { protocol, address: '10.96.0.53', port: 53 };
      const held = connectFrom('outside', word, '10.96.0.53', 53);
      const first = await held.first(30_000);
      const leaving = first.greeting?.pod === 'pod1' ? '10.244.1.11' : '10.244.1.12';
      const staying = both(9000).filter((text) => !text.startsWith(leaving));
      await driver.to([route({ nodePort: 30053, endpoints: staying })]);
      assert.equal(ipvs.listRealServers(server).length, 1);
      assert.equal(driver.dataplane.retiring, 0);
      if (protocol === 'UDP') {
        const next = await held.again(30_000);
        assert.equal(next.outcome, 'ok');
        assert.notEqual(next.greeting?.pod, first.greeting?.pod);
      }
      held.close();

      const local = { nodePort: 30053, externalPolicyLocal: true, endpoints: [both(9000)[0]!] };
      await driver.to([route(local)]);
      assert.equal(await talk('outside', word, '192.0.2.10', 30053), 'pod1 192.0.2.2');
      await driver.to([route({ ...local, endpoints: [] })]);
      if (protocol === 'UDP') assert.equal(await talk('outside', word, '10.96.0.53', 53), 'refused');
    });
  }

  it('affinity leaves an endpoint that is on its way out', async () => {
    await driver.to([web({ affinitySeconds: 600 })]);
    const held = new Held('10.96.0.10', 80);
    const [pod = ''] = (await held.line()).split(' ');
    assert.equal((await ask('', '10.96.0.10', 80)).split(' ')[0], pod);
    const staying = pod === 'pod1' ? both(8080)[1]! : both(8080)[0]!;
    await driver.to([web({ affinitySeconds: 600, endpoints: [staying] })]);
    assert.equal(driver.dataplane.retiring, 1);
    assert.equal(await held.echo('still there'), 'still there');
    const other = pod === 'pod1' ? 'pod2' : 'pod1';
    assert.equal((await ask('', '10.96.0.10', 80)).split(' ')[0], other);

    // Somebody gives it weight again: it is taken, or it would never go.
    const server: ServerIdentity = { protocol: 'TCP', address: '10.96.0.10', port: 80 };
    const leaving = ipvs.listRealServers(server).find((one) => one.weight === 0);
    ipvs.editRealServer(server, { ...leaving!, weight: 5 });
    driver.dataplane.checkRetirement();
    assert.deepEqual(
      ipvs
        .listRealServers(server)
        .map((one) => one.weight)
        .sort((a, b) => a - b),
      [0, 1],
    );
    held.socket.resetAndDestroy();
    await driver.to([]);
  });

  it('a real server that somebody leads elsewhere is masqueraded again', async () => {
    await driver.to([web()]);
    const server: ServerIdentity = { protocol: 'TCP', address: '10.96.0.10', port: 80 };
    const [real] = ipvs.listRealServers(server);
    ipvs.editRealServer(server, { ...real!, forwarding: 'tunnel' });
    assert.match((await driver.dataplane.lookForDrift()) ?? '', /is not masqueraded/);
    await driver.to([web()], true);
    assert.ok(ipvs.listRealServers(server).every((one) => one.forwarding === 'masquerade'));
  });

  it('an endpoint on the node itself answers everybody, and loopback stays what it is', async (t) => {
    const server = net.createServer((socket) => {
      socket.on('error', () => undefined);
      socket.end(`node ${socket.remoteAddress?.replace('::ffff:', '')}\n`);
    });
    await new Promise<void>((resolve) => server.listen(6443, resolve));
    t.after(() => server.close());
    const route = makeRoute({
      name: 'default/kubernetes',
      clusterIP: '10.96.0.1',
      port: 443,
      nodePort: 30443,
      // minikube's tunnel says so.
      loadBalancerIPs: ['127.0.0.1'],
      externalIPs: ['192.0.2.10'],
      endpoints: ['192.0.2.10:6443L'],
    });
    await driver.to([route]);
    assert.equal(await ask('pod1', '10.96.0.1', 443), 'node 10.244.1.11');
    assert.match(await ask('', '10.96.0.1', 443), /^node /);
    assert.match(await ask('outside', '10.96.0.1', 443), /^node /);
    assert.match(await ask('outside', '192.0.2.10', 30443), /^node /);
    assert.equal(await ask('', '127.0.0.1', 6443), 'node 127.0.0.1');
    // An address of the node as external IP: its other ports are the node's own.
    assert.match(await ask('outside', '192.0.2.10', 443), /^node /);
    assert.equal(await ask('outside', '192.0.2.10', 6443), 'node 192.0.2.2');
    assert.equal(await driver.dataplane.lookForDrift(), undefined);
  });

  it('an endpoint that the kernel does not take costs itself alone', async () => {
    // The broadcast address of the node's own network.
    await driver.to([web({ endpoints: [...both(8080), '192.0.2.255:8080'] })]);
    const reals = ipvs.listRealServers({ protocol: 'TCP', address: '10.96.0.10', port: 80 });
    assert.equal(reals.length, 2);
    assert.match(await ask('outside', '10.96.0.10', 80), /^pod/);
    assert.equal(await driver.dataplane.lookForDrift(), undefined);
  });

  it('virtual servers of a node address that goes away go with it, also while no proxy runs', async () => {
    sh('ip addr add 192.0.2.99/24 dev eth0');
    await driver.to([web({ nodePort: 30080 })], true);
    const at99 = (): number => ipvs.listServers().filter((one) => one.address === '192.0.2.99').length;
    assert.equal(at99(), 1);
    assert.match(await ask('outside', '192.0.2.99', 30080), /^pod/);
    const resyncs = driver.resyncs.length;
    sh('ip addr del 192.0.2.99/24 dev eth0');
    for (let i = 0; i < 600 && driver.resyncs.length === resyncs; i++) await sleep(50);
    assert.equal(driver.resyncs.at(-1), 'addresses of this node changed');
    await driver.to([web({ nodePort: 30080 })], true);
    assert.equal(at99(), 0);

    sh('ip addr add 192.0.2.99/24 dev eth0');
    await driver.to([web({ nodePort: 30080 })], true);
    await driver.dataplane.stop();
    sh('ip addr del 192.0.2.99/24 dev eth0');
    driver = new Driver();
    await driver.dataplane.start();
    await driver.to([web({ nodePort: 30080 })], true);
    assert.equal(at99(), 0);
    assert.equal(await driver.dataplane.lookForDrift(), undefined);
  });

  it('a Service in an excluded block is served; only deletions are kept from there', async () => {
    sh(`ipvsadm -A -t 203.0.113.3:80 -s rr; ipvsadm -a -t 203.0.113.3:80 -r 10.9.9.9:80 -g
      ipvsadm -A -t 10.96.0.99:80 -s rr; ipvsadm -a -t 10.96.0.99:80 -r 10.9.9.9:80 -m`);
    await driver.dataplane.stop();
    driver = new Driver('IPv4', { excludeCIDRs: ['10.96.0.0/24', '203.0.113.0/24'] });
    await driver.dataplane.start();
    await driver.to([web()], true);
    assert.match(await ask('outside', '10.96.0.10', 80), /^pod/);
    assert.equal(
      sh('ipvsadm -Sn | grep 9.9.9 | sort'),
      '-a -t 10.96.0.99:80 -r 10.9.9.9:80 -m -w 1\n-a -t 203.0.113.3:80 -r 10.9.9.9:80 -g -w 1\n',
    );
    sh('ipvsadm -D -t 203.0.113.3:80; ipvsadm -D -t 10.96.0.99:80');
    await restart();
    await driver.to([web()], true);
  });

  it('a set too small, and one of another type, cost nothing but their own replacement', async () => {
    await driver.dataplane.stop();
    sh(`iptables -t nat -F; iptables -F; iptables -t mangle -F
      ipset destroy KUBE-CLUSTER-IP; ipset create KUBE-CLUSTER-IP hash:ip,port maxelem 4
      ipset destroy KUBE-IPVS-IPS; ipset create KUBE-IPVS-IPS hash:net
      iptables -A KUBE-IPVS-FILTER -m set --match-set KUBE-IPVS-IPS dst`);
    const many = Array.from({ length: 12 }, (_, n) =>
      makeRoute({ name: `shop/s${n}`, clusterIP: `10.96.1.${n + 1}`, port: 80, endpoints: both(8080) }),
    );
    driver = new Driver();
    await driver.dataplane.start();
    await driver.to(many.slice(0, 8), true);
    assert.match(sh('ipset list -t KUBE-CLUSTER-IP'), /maxelem 65536[\s\S]*Number of entries: 8/);
    assert.match(sh('ipset list -t KUBE-IPVS-IPS'), /Type: hash:ip\n[\s\S]*Number of entries: 8/);
    assert.match(await ask('outside', '10.96.1.8', 80), /^pod/);
    await driver.to(many);
    assert.match(await ask('outside', '10.96.1.12', 80), /^pod/);
    assert.equal(await driver.dataplane.lookForDrift(), undefined);
  });

  it("a rule of others on a set in the way is named, and the proxy's rules stay in force", async () => {
    await driver.to([web()], true);
    await driver.dataplane.stop();
    sh(`iptables -F KUBE-NODE-PORT
      ipset destroy KUBE-HEALTH-CHECK-NODE-PORT 2>/dev/null || {
        iptables -F KUBE-IPVS-FILTER; ipset destroy KUBE-HEALTH-CHECK-NODE-PORT; }
      ipset create KUBE-HEALTH-CHECK-NODE-PORT hash:net
      iptables -A FORWARD -m set --match-set KUBE-HEALTH-CHECK-NODE-PORT src -j DROP`);
    driver = new Driver();
    await driver.dataplane.start();
    await assert.rejects(
      driver.to([web()], true),
      /set KUBE-HEALTH-CHECK-NODE-PORT .* remove that rule \("iptables -t filter -A FORWARD .*KUBE-HEALTH-CHECK-NODE-PORT src -j DROP"\)/,
    );
    assert.match(sh('iptables-save -t nat'), /-A KUBE-SERVICES .*KUBE-CLUSTER-IP/);
    assert.match(await ask('outside', '10.96.0.10', 80), /^pod/);
    sh('iptables -F FORWARD');
    await driver.to([web()], true);
    assert.equal(await driver.dataplane.lookForDrift(), undefined);
  });

  it('strict ARP: the node answers for its own addresses only', async () => {
    await driver.to([web({ loadBalancerIPs: ['192.0.2.200', '192.0.2.201'] })]);
    const resolves = (ip: string): boolean => {
      sh(`ip -n outside neigh flush dev eth0
        ip netns exec outside bash -c 'echo x >/dev/udp/${ip}/9; sleep 1'`);
      return succeeds(`ip -n outside neigh show ${ip} | grep -q lladdr`);
    };
    assert.equal(resolves('192.0.2.200'), true);
    applySysctls('IPv4', true, '6.1', { log: silentLogger });
    assert.equal(sh('sysctl -n net.ipv4.conf.all.arp_ignore net.ipv4.conf.all.arp_announce'), '1\n2\n');
    assert.equal(resolves('192.0.2.201'), false);
    assert.equal(resolves('192.0.2.10'), true);
    sh('sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0');
  });

  it("time-outs of the configuration become the kernel's; what is below a second keeps it", () => {
    sh('ipvsadm --set 900 120 300');
    applyTimeouts(ipvs, { tcpTimeout: 0, tcpFinTimeout: 0, udpTimeout: 0 }, silentLogger);
    assert.match(sh('ipvsadm -L --timeout'), /: 900 120 300$/m);
    applyTimeouts(ipvs, { tcpTimeout: 600_900, tcpFinTimeout: 0, udpTimeout: 500 }, silentLogger);
    assert.match(sh('ipvsadm -L --timeout'), /: 600 120 300$/m);
    applyTimeouts(ipvs, { tcpTimeout: 0, tcpFinTimeout: 30_000, udpTimeout: 60_000 }, silentLogger);
    assert.match(sh('ipvsadm -L --timeout'), /: 600 30 60$/m);
    sh('ipvsadm --set 900 120 300');
  });
});
