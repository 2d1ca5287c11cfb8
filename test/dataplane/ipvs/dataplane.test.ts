/** The mode with everything but IPVS itself real: sets, rules, the device, addresses. On any kernel. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { makeNamespace, removeNamespace } from '../../support/namespace.ts';

const worker = fileURLToPath(new URL('dataplaneWorker.ts', import.meta.url));

describe('IPVS mode on a kernel without IPVS', () => {
  for (const question of [
    'odd addresses',
    'addresses that others have',
    'an address that several interfaces have',
    'all addresses go at once',
    'an address that comes while a sync is on',
    'what is left as it is',
    'the first sync after another mode',
  ])
    it(question, (t) => {
      const namespace = makeNamespace();
      t.after(() => removeNamespace(namespace));
      const words = ['netns', 'exec', namespace, process.execPath, '--import', 'tsx', worker, question];
      const { status, stdout, stderr } = spawnSync('ip', words, { encoding: 'utf8' });
      assert.equal(status, 0, stdout + stderr);
    });
});
