/** Runs inside the namespace of dataplane.test.ts: one question to the mode, on a kernel that need not have IPVS. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeRoute } from '../iptables/routes.ts';
import { FakeIpvs } from './fakeIpvs.ts';
import { Driver, sh } from './guest.ts';

const ipvs = new FakeIpvs();
const driver = new Driver('IPv4', {}, { ipvs: () => ipvs, deviceKind: 'bridge' });
const web = (more: object = {}) =>
  makeRoute({ name: 'shop/web', clusterIP: '10.96.0.10', port: 80, nodePort: 30080, ...more });
const bound = (): string[] =>
  [...sh('ip -o -4 addr show dev kube-ipvs0').matchAll(/inet (\S+)/g)].map((found) => found[1] ?? '').sort();
const serversAt = (address: string): number =>
  [...ipvs.servers.values()].filter(({ server }) => server.address === address).length;

const questions: Readonly<Record<string, () => Promise<void>>> = {
  async 'odd addresses'() {
    const loadBalancerIPs = ['127.0.0.1', '0.0.0.0', '224.0.0.1', '198.51.100.7'];
    await driver.to([web({ loadBalancerIPs })], true);
    assert.deepEqual(bound(), ['10.96.0.10/32', '198.51.100.7/32']);
    assert.equal(await driver.dataplane.lookForDrift(), undefined);
    assert.equal(sh('ipset list KUBE-IPVS-IPS').includes('127.0.0.1'), false);
  },

  /** Somebody else has the cluster IP; userspace mode's addresses on loopback are about to go. */
  async 'addresses that others have'() {
    sh(`ip link set lo up; ip addr add 192.0.2.10/32 dev lo; ip addr add 10.96.0.10/32 dev lo
      ip addr add 198.51.100.7/32 dev lo label lo:pointsman`);
    await driver.to([web({ loadBalancerIPs: ['198.51.100.7', '192.0.2.10'] })], true);
    assert.deepEqual(bound(), ['10.96.0.10/32', '198.51.100.7/32']);
    assert.equal(serversAt('192.0.2.10'), 2);
    assert.equal(serversAt('198.51.100.7'), 1, 'no node port there');
    sh('ip addr del 198.51.100.7/32 dev lo; ip addr add 192.0.2.11/32 dev lo');
    await resynced();
    assert.deepEqual(driver.resyncs, ['addresses of this node changed']);
  },

  /** Such are the node's ends of its Pods' links, in some networks. */
  async 'an address that several interfaces have'() {
    sh(`ip link add one type bridge; ip addr add 192.0.2.10/32 dev one
      ip link add two type bridge; ip addr add 192.0.2.10/32 dev two`);
    await driver.to([web()], true);
    sh('ip link del two; ip addr del 10.96.0.10/32 dev kube-ipvs0');
    await resynced();
    // Events come in order: the first was none.
    assert.equal(driver.resyncs.length, 1);
    assert.match(driver.resyncs[0]!, /address 10\.96\.0\.10 of kube-ipvs0 is gone/);
    await driver.to([web()], true);
    sh('ip addr del 192.0.2.10/32 dev one');
    await resynced(2);
    await driver.to([web()], true);
    assert.equal(serversAt('192.0.2.10'), 0);
  },

  async 'all addresses go at once'() {
    const routes = Array.from({ length: 50 }, (_, i) =>
      makeRoute({ name: `shop/s${i}`, clusterIP: `10.96.1.${i}`, port: 80 }),
    );
    await driver.to(routes, true);
    sh('ip link set lo up; ip addr flush dev kube-ipvs0; ip addr add 192.0.2.10/32 dev lo');
    await resynced(2);
    // Events come in order: only the first of 50 was looked at.
    assert.match(driver.resyncs[0]!, /of kube-ipvs0 is gone/);
    assert.deepEqual(driver.resyncs.slice(1), ['addresses of this node changed']);
    assert.equal(driver.reports.filter(({ kind }) => kind === 'changedByOthers').length, 1);
    await driver.to(routes, true);
    assert.equal(bound().length, 50);
  },

  async 'an address that comes while a sync is on'() {
    sh('ip link set lo up');
    await driver.to([], true);
    // After the node's addresses have been read, and before the rules are written, which takes a while.
    ipvs.onCall = (what) => {
      if (what !== 'listServers') return;
      ipvs.onCall = () => undefined;
      sh('ip addr add 192.0.2.10/32 dev lo');
    };
    await driver.to([web()], true);
    assert.equal(serversAt('192.0.2.10'), 0);
    await resynced();
    await driver.to([web()], true);
    assert.equal(serversAt('192.0.2.10'), 1);
  },

  async 'what is left as it is'() {
    const watcher = new Driver('IPv4', {}, { ipvs: () => ipvs, deviceKind: 'bridge', repairDrift: false });
    await watcher.dataplane.start();
    const told = (): number => watcher.reports.filter(({ kind }) => kind === 'changedByOthers').length;
    try {
      for (let times = 1; times <= 2; times++) {
        await watcher.to([web()], true);
        assert.equal(await watcher.dataplane.lookForDrift(), undefined);
        sh('ipset flush KUBE-CLUSTER-IP');
        // Once, until it is right again.
        for (let looks = 0; looks < 2; looks++) {
          assert.match((await watcher.dataplane.lookForDrift()) ?? '', /entries of set KUBE-CLUSTER-IP/);
          assert.equal(told(), times);
        }
      }
      assert.deepEqual(watcher.resyncs, []);
    } finally {
      await watcher.dataplane.stop();
    }
  },

  /** iptables mode's rules lead packets to services until ours take their place. */
  async 'the first sync after another mode'() {
    sh(`iptables -t nat -N KUBE-SERVICES; iptables -t nat -N KUBE-NODEPORTS
      iptables -t nat -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS`);
    const theirs: boolean[] = [];
    ipvs.onCall = (what) => {
      if (what === 'addServer') theirs.push(sh('iptables-save -t nat').includes('-j KUBE-NODEPORTS'));
    };
    await driver.to([web()], true);
    await driver.to([web(), makeRoute({ name: 'shop/b', clusterIP: '10.96.0.11', port: 80 })], true);
    assert.deepEqual(theirs, [true, false]);
    assert.equal(await driver.dataplane.lookForDrift(), undefined);
  },
};

async function resynced(times = 1): Promise<void> {
  for (let i = 0; i < 300 && driver.resyncs.length < times; i++) await sleep(100);
  assert.ok(driver.resyncs.length >= times, 'nobody asked for a sync');
}

async function main(question: string): Promise<void> {
  await driver.dataplane.start();
  // The first start asks whether the scheduler is there.
  assert.equal(ipvs.servers.size, 0);
  try {
    await questions[question]!();
  } finally {
    await driver.dataplane.stop();
  }
}

main(process.argv[2] ?? '').catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
