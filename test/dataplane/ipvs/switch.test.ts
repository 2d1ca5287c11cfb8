/** A node goes from iptables mode to IPVS mode and back: nothing of the old mode stays, held connections do where the kernel can. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { IptablesDataplane } from '../../../src/dataplane/iptables/iptablesDataplane.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import { leftoversRemovedBy } from '../../../src/proxy/leftovers.ts';
import { changesBetween, ipv4Options, makeRoute, makeTable } from '../iptables/routes.ts';
import { Driver, Held, Node, ask, sh, succeeds, whyNoIpvs } from './guest.ts';

async function iptablesMode(table: ReturnType<typeof makeTable>): Promise<IptablesDataplane> {
  const dataplane = new IptablesDataplane(
    { ...ipv4Options, localhostNodePorts: false },
    {
      log: silentLogger,
      report: () => undefined,
      events: { resync: () => undefined },
      checkInterval: 3_600_000,
    },
  );
  await dataplane.start();
  const changes = changesBetween(makeTable([]), table);
  await dataplane.sync({ table, changes, serviceCIDRs: [], full: true });
  return dataplane;
}

async function removeOthers(mode: 'iptables' | 'ipvs'): Promise<void> {
  for (const one of leftoversRemovedBy(mode)) {
    // The guest has no nf_tables to clean up.
    if (one.mode !== 'nftables') await one.remove(silentLogger);
  }
}

it('switching modes', { skip: whyNoIpvs(), timeout: 240_000 }, async (t) => {
  const node = new Node();
  t.after(() => node.close());
  // Without IPVS the node needs a route to send a packet on before it is translated.
  sh('ip route add default via 192.0.2.2');
  const routes = [
    makeRoute({
      name: 'shop/web',
      clusterIP: '10.96.0.10',
      port: 80,
      endpoints: ['10.244.1.11:8080L', '10.244.1.12:8080L'],
    }),
  ];
  const table = makeTable(routes);

  const first = await iptablesMode(table);
  const held = new Held('10.96.0.10', 80);
  t.after(() => held.socket.destroy());
  assert.match(await held.line(), /^pod[12] /);
  await first.stop();

  const driver = new Driver();
  await driver.dataplane.start();
  await driver.to(routes, true);
  await removeOthers('ipvs');
  assert.equal(await held.echo('still here'), 'still here');
  assert.match(await ask('', '10.96.0.10', 80), /^pod[12] /);
  assert.doesNotMatch(sh('iptables-save'), /KUBE-(SVC-|SEP-|NODEPORTS|EXTERNAL-SERVICES|PROXY-CANARY)/);
  assert.equal(await driver.dataplane.lookForDrift(), undefined);
  await driver.dataplane.stop();

  const second = await iptablesMode(table);
  await removeOthers('iptables');
  assert.equal(await held.echo('and here'), 'and here');
  assert.match(await ask('', '10.96.0.10', 80), /^pod[12] /);
  assert.doesNotMatch(sh('iptables-save'), /IPVS|KUBE-NODE-PORT|KUBE-LOAD-BALANCER|match-set/);
  assert.equal(sh('ipset list -n'), '');
  assert.equal(succeeds('ip link show kube-ipvs0'), false);
  assert.equal(await second.lookForDrift(), undefined);
  await second.stop();
});
