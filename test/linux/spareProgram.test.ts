import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmodSync, copyFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { SpareProgram } from '../../src/linux/spareProgram.ts';

async function spareOf(spare: SpareProgram): Promise<number> {
  spare.prepare();
  await new Promise((resolve) => setImmediate(resolve));
  assert(spare.child?.pid !== undefined);
  return spare.child.pid;
}

test('a spare takes the input, and another one waits after it', async () => {
  const spare = new SpareProgram(['sh', '-c', 'echo $$; cat; exit 3'], 'sh');
  try {
    const first = await spareOf(spare);
    assert.deepEqual(await spare.run({ input: 'a\n' }), { code: 3, stdout: `${first}\na\n`, stderr: '' });
    const second = await spareOf(spare);
    assert.notEqual(second, first);
    assert.equal((await spare.run({ input: ['b', 'c'] })).stdout, `${second}\nbc`);
  } finally {
    spare.close();
  }
});

test('a spare that has died, or is another program by now, is not used; scripts are never started ahead', async () => {
  const directory = makeOwnedDirectory('spare');
  const program = join(directory, 'program');
  copyFileSync('/bin/cat', program);
  const spare = new SpareProgram(['program'], 'program', {
    env: { PATH: `${directory}:${process.env['PATH']}` },
  });
  try {
    await spareOf(spare);
    spare.child!.ref();
    const ended = once(spare.child!, 'exit');
    spare.child!.kill('SIGKILL');
    await ended;
    assert.equal(spare.child, undefined);
    assert.deepEqual(await spare.run({ input: 'x' }), { code: 0, stdout: 'x', stderr: '' });
    await spareOf(spare);
    rmSync(program);
    writeFileSync(program, '#!/bin/sh\necho new\ncat\n');
    chmodSync(program, 0o755);
    assert.equal((await spare.run({ input: 'y\n' })).stdout, 'new\ny\n');
    spare.prepare();
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(spare.child, undefined);
  } finally {
    spare.close();
    rmSync(directory, { recursive: true });
  }
});

test('closing ends the spare, and none comes after it', async () => {
  const spare = new SpareProgram(['sh', '-c', 'cat'], 'sh');
  await spareOf(spare);
  spare.child!.ref();
  const ended = once(spare.child!, 'exit');
  spare.close();
  assert.equal((await ended)[1], 'SIGKILL');
  assert.equal((await spare.run({ input: 'z' })).stdout, 'z');
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(spare.child, undefined);
});

test('a program that is not there is an answer, as without a spare', async () => {
  const spare = new SpareProgram(['/nonexistent/program'], '/nonexistent/program');
  spare.prepare();
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal((await spare.run({ input: '' })).code, 127);
  spare.close();
});
