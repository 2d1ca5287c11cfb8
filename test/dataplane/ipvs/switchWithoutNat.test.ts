/**
 * A node goes from userspace mode without NAT, where service addresses are on `lo`, to IPVS mode, where they are on
 * `kube-ipvs0`, and back; as in switch.test.ts.
 */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { change, FreshRuns } from '../../proxy/support/modeChange.ts';
import { difference, Program, setups, SwitchNode } from '../../proxy/support/switchNode.ts';
import { whyNoIpvs } from './guest.ts';

const title = 'switching between userspace mode without NAT and IPVS mode';
it(title, { skip: whyNoIpvs(), timeout: 1_350_000 }, async (t) => {
  const program = new Program();
  t.after(() => program.close());
  const runs = new FreshRuns(program, []);
  const node = new SwitchNode(program);
  t.after(() => node.close());
  const before = await node.snapshot();
  await runs.begin(node, 'userspace-without-nat');
  await t.test('to IPVS', () => change(node, 'userspace-without-nat', 'ipvs', 'SIGTERM', runs));
  await t.test('from IPVS', () => change(node, 'ipvs', 'userspace-without-nat', 'SIGKILL', runs));
  await t.test('cleaned up', async () => {
    await node.stop('SIGTERM');
    assert.equal(await node.cleanup(setups.ipvs), 0, node.log);
    assert.equal(difference(await node.snapshot(), before), undefined);
  });
});
