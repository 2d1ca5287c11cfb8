/**
 * Runs all test files for the guest's kernel in guests: `test/**\/*.guest.ts`, and those that skip themselves where there is
 * no IPVS.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { runInVm } from '../../src/lab/vm/vm.ts';

const checkout = fileURLToPath(new URL('../..', import.meta.url));
const files = readdirSync(join(checkout, 'test'), { recursive: true, encoding: 'utf8' })
  .map((file) => join('test', file))
  .filter(
    (file) =>
      file.endsWith('.guest.ts') ||
      (file.endsWith('.test.ts') &&
        /^import \{[^}]*\bwhyNoIpvs\b/m.test(readFileSync(join(checkout, file), 'utf8'))),
  )
  .sort();

/** Files that set up the guest's own network: each has a guest to itself. The one that takes longest comes first. */
const alone = files
  .filter((file) =>
    /ipvs(\/counts|\/kernel|Kernel|\/switch\w*|\/traffic)\.test\.ts$|explain\/ipvs\.guest\.ts$/.test(file),
  )
  .sort((a, b) => Number(b.endsWith('/switch.test.ts')) - Number(a.endsWith('/switch.test.ts')));

// Two at once: a guest has one CPU, and waits for much of its time.
describe('test files for the guest', { concurrency: 2 }, () => {
  for (const share of [...alone.map((file) => [file]), files.filter((file) => !alone.includes(file))]) {
    test(`in a guest: ${share.join(', ')}`, async () => {
      const { code, output, said } = await runInVm(
        ['node', '--import', 'tsx', '--test', '--test-concurrency=1', '--test-reporter=spec', ...share],
        { timeout: 1400 },
      );
      assert.equal(code, 0, `${output}\n${said}`);
      const passed = Number(/^ℹ pass (\d+)$/m.exec(output)?.[1] ?? 0);
      assert.ok(passed >= share.length, output);
      assert.match(output, /^ℹ skipped 0$/m, output);
    });
  }
});
