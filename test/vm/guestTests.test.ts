/**
 * Runs all test files for the guest's kernel in guests: `test/**\/*.guest.ts`, and those of IPVS mode, which skip
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
  .filter((file) => file.endsWith('.guest.ts') || /^(dataplane|diff)\/ipvs.*\.test\.ts$/.test(file))
  // These ask no kernel, or any kernel does.
  .filter(
    (file) => !/ipvs\/(checks|cleanup|plan|translate|vectors)\.test\.ts$|diff\/ipvs\.test\.ts$/.test(file),
  )
  .map((file) => join('test', file))
  .sort();

/** Files that set up the guest's own network: each has a guest to itself. */
const alone = files.filter((file) =>
  /ipvs(\/counts|\/kernel|Kernel|\/switch|\/traffic)\.test\.ts$|explain\/ipvs\.guest\.ts$/.test(file),
);

for (const share of [files.filter((file) => !alone.includes(file)), ...alone.map((file) => [file])]) {
  test(`in a guest: ${share.join(', ')}`, async () => {
    const { code, output, said } = await runInVm(
      ['node', '--import', 'tsx', '--test', '--test-concurrency=1', '--test-reporter=spec', ...share],
      { timeout: 900 },
    );
    assert.equal(code, 0, `${output}\n${said}`);
    const passed = Number(/^ℹ pass (\d+)$/m.exec(output)?.[1] ?? 0);
    assert.ok(passed >= share.length, output);
    assert.match(output, /^ℹ skipped 0$/m, output);
  });
}
