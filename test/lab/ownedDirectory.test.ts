import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { startTime } from '../../src/lab/net/startTime.ts';
import { makeOwnedDirectory, sweepOwnedDirectories } from '../../src/lab/net/ownedDirectory.ts';

test('what a killed process left is removed by the next one; living owners and others keep theirs', async (t) => {
  const parent = mkdtempSync(join(tmpdir(), 'owned-'));
  t.after(() => rmSync(parent, { recursive: true, force: true }));
  const module = new URL('../../src/lab/net/ownedDirectory.ts', import.meta.url).href;
  const script = `
    import { makeOwnedDirectory } from ${JSON.stringify(module)};
    process.stdout.write(makeOwnedDirectory('bench-build', ${JSON.stringify(parent)}));
    setInterval(() => undefined, 1000);`;
  const argv = ['--import', 'tsx', '--input-type=module', '-e', script];
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
  const [data] = (await once(child.stdout, 'data')) as [Buffer];
  const left = data.toString();
  assert.ok(existsSync(left));
  assert.deepEqual(sweepOwnedDirectories(parent), [], 'its owner lives');

  child.kill('SIGKILL');
  await once(child, 'exit');
  const reused = `pointsman-lab-${process.pid}-${Number(startTime(process.pid)) - 1}-abc`;
  for (const name of [reused, 'pointsman-lab-notes', 'somebody-else']) mkdirSync(join(parent, name));
  const own = makeOwnedDirectory('lab', parent);
  assert.ok(!existsSync(left));
  assert.ok(!existsSync(join(parent, reused)), 'its process id belongs to another process by now');
  assert.ok(existsSync(join(parent, 'pointsman-lab-notes')) && existsSync(join(parent, 'somebody-else')));
  assert.ok(existsSync(own));
});
