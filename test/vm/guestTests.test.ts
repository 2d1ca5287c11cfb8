/**
 * Runs all test files for the guest's kernel in one guest: `test/**\/*.guest.ts`, and those of IPVS mode, which skip
 * themselves outside.
 */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { runInVm } from '../../src/lab/vm/vm.ts';

const checkout = fileURLToPath(new URL('../..', import.meta.url));
const files = readdirSync(join(checkout, 'test'), { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.guest.ts') || /^dataplane\/ipvs\/.*\.test\.ts$/.test(file))
  .map((file) => join('test', file))
  .sort();

test(`in a guest: ${files.join(', ')}`, async () => {
  const { code, output, said } = await runInVm(
    ['node', '--import', 'tsx', '--test', '--test-concurrency=1', '--test-reporter=spec', ...files],
    { timeout: 600 },
  );
  assert.equal(code, 0, `${output}\n${said}`);
  const passed = Number(/^ℹ pass (\d+)$/m.exec(output)?.[1] ?? 0);
  assert.ok(passed >= files.length, output);
  assert.match(output, /^ℹ skipped 0$/m, output);
});
