/** In the guest: the program as it is shipped runs in IPVS mode and is killed; `--cleanup` leaves nothing of it. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { FreshRuns } from '../../proxy/support/modeChange.ts';
import { difference, Program } from '../../proxy/support/switchNode.ts';
import { whyNoIpvs } from './guest.ts';

it(
  '--cleanup leaves nothing of IPVS mode after SIGKILL',
  { skip: whyNoIpvs(), timeout: 400_000 },
  async (t) => {
    const program = new Program();
    t.after(() => program.close());
    const { before, cleaned, code, log } = await new FreshRuns(program, ['ipvs']).get('ipvs');
    assert.equal(code, 0, log);
    assert.equal(difference(cleaned, before), undefined);
  },
);
