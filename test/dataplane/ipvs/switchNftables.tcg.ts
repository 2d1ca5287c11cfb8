/**
 * A node goes from nftables mode, and from iptables mode over nf_tables, to IPVS mode and back, as in switch.test.ts. Only
 * the slower engine's kernel has all of them, where it takes minutes: not part of the suite.
 *
 *   scripts/vm-run.sh --engine tcg --timeout 3600 node --import tsx --test test/dataplane/ipvs/switchNftables.tcg.ts
 */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { change, FreshRuns } from '../../proxy/support/modeChange.ts';
import { difference, Program, setups, SwitchNode } from '../../proxy/support/switchNode.ts';
import { whyNoIpvs } from './guest.ts';

it('switching between modes over nf_tables and IPVS mode', { skip: whyNoIpvs() }, async (t) => {
  const program = new Program();
  t.after(() => program.close());
  const runs = new FreshRuns(program, []);
  for (const mode of ['nftables', 'iptables-nft'] as const) {
    await t.test(mode, async (t) => {
      const node = new SwitchNode(program);
      t.after(() => node.close());
      const before = await node.snapshot();
      await runs.begin(node, mode);
      await t.test('to IPVS', () => change(node, mode, 'ipvs', 'SIGTERM', runs));
      await t.test('from IPVS', () => change(node, 'ipvs', mode, 'SIGKILL', runs));
      await t.test('cleaned up', async () => {
        await node.stop('SIGTERM');
        assert.equal(await node.cleanup(setups[mode]), 0, node.log);
        assert.equal(difference(await node.snapshot(), before), undefined);
      });
    });
  }
});
