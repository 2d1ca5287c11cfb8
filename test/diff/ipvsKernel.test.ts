/** IPVS mode's own state on a kernel that has IPVS: no difference; then changes by others. Runs in the guest (scripts/vm-run.sh). */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { printDifference } from '../../src/diff/difference.ts';
import { diffIpvs } from '../../src/diff/ipvsDiff.ts';
import { readIpvs } from '../../src/diff/ipvsKernel.ts';
import { readKernel } from '../../src/diff/kernel.ts';
import { ipv4Options, makeRoute } from '../dataplane/iptables/routes.ts';
import { Driver, Node, sh, whyNoIpvs } from '../dataplane/ipvs/guest.ts';
import { labFlags, scenarioManifest, wantedOfText } from '../render/support.ts';

const skip = whyNoIpvs();

describe('IPVS mode in the kernel', { skip, timeout: 600_000 }, () => {
  let node: Node;
  let driver: Driver;
  before(async () => {
    node = new Node();
    driver = new Driver();
    await driver.dataplane.start();
  });
  after(async () => {
    await driver.dataplane.stop();
    node.close();
  });

  it('a sync leaves no difference, and what somebody changes is named', async () => {
    const endpoints = ['10.244.1.11:8080L', '10.244.1.12:8080L'];
    const web = { name: 'shop/web', clusterIP: '10.96.0.10', port: 80, nodePort: 30080, endpoints };
    const dns = { name: 'shop/dns', clusterIP: '10.96.0.11', port: 53, endpoints, protocol: 'UDP' } as const;
    await driver.to([makeRoute(web), makeRoute(dns)], true);
    const wanted = await wantedOfText(scenarioManifest('nodeport'), ...labFlags, '--mode=ipvs');
    const family = {
      family: 'IPv4',
      options: ipv4Options,
      table: driver.table,
      serviceCIDRs: [],
      healthChecks: new Map(),
    } as const;
    const texts = async (): Promise<string[]> => {
      const { iptables = [], randomFully } = await readKernel('IPv4', 'ipvs');
      return diffIpvs(wanted, family, readIpvs('IPv4'), iptables, randomFully).map((one) =>
        printDifference(one),
      );
    };
    assert.deepEqual(await texts(), []);
    sh('ipset del KUBE-CLUSTER-IP 10.96.0.10,tcp:80');
    sh('ip addr del 10.96.0.11/32 dev kube-ipvs0');
    sh('iptables -t filter -F KUBE-NODE-PORT');
    const found = (await texts()).join('');
    assert.match(found, /^IPv4 missing element: KUBE-CLUSTER-IP \(shop\/web/m);
    assert.match(found, /^IPv4 missing address: kube-ipvs0\n\+ 10\.96\.0\.11$/m);
    assert.match(found, /^IPv4 missing rule: filter KUBE-NODE-PORT$/m);
    await driver.to([makeRoute(web), makeRoute(dns)], true);
    assert.deepEqual(await texts(), []);
  });
});
