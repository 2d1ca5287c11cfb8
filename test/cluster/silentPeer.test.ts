/** A peer that falls silent for real: the firewall of a network namespace drops what it sends. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';

const script = fileURLToPath(new URL('support/silentPeer.ts', import.meta.url));
const namespace = makeNamespace();
after(() => removeNamespace(namespace));

test('a dropped connection is noticed by asking, and nothing is missed', () => {
  const output = inNamespace(namespace, [process.execPath, '--import', 'tsx', script, 'probe'], {
    timeout: 300_000,
  });
  const { noticed, missed } = JSON.parse(output) as { noticed: number; missed: boolean };
  // The kernel by itself takes minutes.
  assert.ok(noticed < 60_000, `${noticed} ms`);
  assert.equal(missed, false);
});
