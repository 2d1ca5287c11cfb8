import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cleanup, detectLeftovers } from '../../../src/dataplane/iptables/cleanup.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import { Driver, World, backends } from './harness.ts';
import { makeTable, workedExample } from './routes.ts';

for (const backend of backends) {
  test(`${backend}: clean-up removes all of ours and leaves kubelet's and others' alone`, async () => {
    const world = new World(backend);
    const options = { log: silentLogger, families: ['IPv4' as const], iptables: () => world.options };
    try {
      world.iptables('-t nat -N KUBE-KUBELET-CANARY');
      world.iptables('-t mangle -N KUBE-IPTABLES-HINT');
      world.iptables('-A FORWARD -s 10.1.1.1 -j ACCEPT');
      assert.deepEqual(await detectLeftovers(options), []);
      const dataplane = world.dataplane();
      await dataplane.start();
      await new Driver(dataplane).to(makeTable(workedExample));
      await dataplane.stop();
      assert.ok((await detectLeftovers(options)).includes('IPv4 nat KUBE-SVC-TCOU7JCQXEZGVUNU'));
      await cleanup(options);
      assert.deepEqual(await detectLeftovers(options), []);
      const rules = world.rules();
      assert.deepEqual(
        Object.keys(rules).filter((chain) => chain.includes('KUBE-')),
        ['filter KUBE-FIREWALL', 'mangle KUBE-IPTABLES-HINT', 'nat KUBE-KUBELET-CANARY'],
      );
      assert.equal(rules['filter KUBE-FIREWALL']?.length, 1);
      assert.equal(rules['filter INPUT']?.length, 1);
      assert.equal(rules['filter FORWARD']?.length, 1);
      for (const chain of ['nat PREROUTING', 'nat OUTPUT', 'nat POSTROUTING'])
        assert.deepEqual(rules[chain], []);
      await cleanup(options);
    } finally {
      world.close();
    }
  });

  test(`${backend}: clean-up that cannot remove a chain says so, and removes the rest`, async () => {
    const world = new World(backend);
    const options = { log: silentLogger, families: ['IPv4' as const], iptables: () => world.options };
    try {
      const dataplane = world.dataplane();
      await dataplane.start();
      await new Driver(dataplane).to(makeTable(workedExample));
      await dataplane.stop();
      world.iptables('-t nat -N FOREIGN');
      world.iptables('-t nat -A FOREIGN -j KUBE-MARK-MASQ');
      await assert.rejects(
        cleanup(options),
        /KUBE-MARK-MASQ of table nat .* stays: .* remove "-A FOREIGN -j KUBE-MARK-MASQ" first/,
      );
      const chains = Object.keys(world.rules()).filter((chain) => chain.includes('KUBE-'));
      assert.deepEqual(chains, ['filter KUBE-FIREWALL', 'nat KUBE-MARK-MASQ']);
      assert.equal(world.rules()['nat KUBE-MARK-MASQ']?.length, 1, 'the chain that stays still works');
    } finally {
      world.close();
    }
  });
}
