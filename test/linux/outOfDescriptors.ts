/** A program for exec.test.ts: starts `true` without a descriptor left, and again with some; prints what came of it. */
import { closeSync, openSync } from 'node:fs';
import { run } from '../../src/linux/exec.ts';
import { runAside } from '../../src/linux/runAside.ts';

const start = process.argv[2] === 'runAside' ? runAside : run;
const taken: number[] = [];
for (;;) {
  try {
    taken.push(openSync('/dev/null', 'r'));
  } catch {
    // That was the last.
    break;
  }
}
const without = await start(['true']);
for (const fd of taken) closeSync(fd);
const again = await start(['true']);
for (const { code, stderr } of [without, again]) console.log(code, stderr);
