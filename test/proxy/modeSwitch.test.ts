/**
 * A node goes from every mode to every other, and back: the program is ended by SIGTERM on the way there and by SIGKILL
 * on the way back, and started as users start it. What is then in the kernel is what a fresh start makes, connections
 * that are held live on where the kernel has them, and none of a stream of new ones fails where rules stay in force.
 * `pointsman run --cleanup` leaves nothing of any mode. IPVS mode has files of its own, for the guest:
 * test/dataplane/ipvs/switch*.test.ts.
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { begin, change, FreshRuns } from './support/modeChange.ts';
import { difference, Program, setups, SwitchNode, type SetupName } from './support/switchNode.ts';

const names = (Object.keys(setups) as SetupName[]).filter((name) => name !== 'ipvs');

const program = new Program();
const runs = new FreshRuns(program, names);
after(() => program.close());

describe('clean-up', { concurrency: 3 }, () => {
  for (const name of names) {
    test(`--cleanup leaves nothing of ${name} after SIGKILL`, async () => {
      const { before, cleaned, code, log } = await runs.get(name);
      assert.equal(code, 0, log);
      assert.equal(difference(cleaned, before), undefined);
    });
  }
});

describe('changing the mode', { concurrency: 3 }, () => {
  for (const from of names) {
    for (const to of names) {
      if (from === to) continue;
      test(`from ${from} to ${to} by SIGTERM, back by SIGKILL, and cleaned up`, async () => {
        const node = new SwitchNode(program);
        try {
          const before = await node.snapshot();
          await begin(node, from, runs);
          await change(node, from, to, 'SIGTERM', runs);
          await change(node, to, from, 'SIGKILL', runs);
          await node.stop('SIGTERM');
          // With the iptables of the other mode, as a user's shell may have it.
          assert.equal(await node.cleanup(setups[to]), 0, node.log);
          assert.equal(difference(await node.snapshot(), before), undefined);
        } finally {
          await node.close();
        }
      });
    }
  }
});
