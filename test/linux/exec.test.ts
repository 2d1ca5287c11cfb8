import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { exitNotStarted, exitTimedOut, run as runHere } from '../../src/linux/exec.ts';
import { runAside } from '../../src/linux/runAside.ts';

for (const run of [runHere, runAside]) {
  const { name } = run;

  test(`${name}: a non-zero exit is an answer`, async () => {
    assert.deepEqual(await run(['sh', '-c', 'echo out; echo err >&2; exit 3']), {
      code: 3,
      stdout: 'out\n',
      stderr: 'err\n',
    });
  });

  test(`${name}: arguments reach the program as they are, not through a shell`, async () => {
    const odd = '$(id); `id` "a b" \'c\' \\ *';
    assert.equal((await run(['printf', '%s', odd])).stdout, odd);
  });

  test(`${name}: input goes in whole, in one piece or in many`, async () => {
    const piece = 'x'.repeat(100_000);
    const pieces = Array.from({ length: 20 }, () => piece);
    assert.equal((await run(['cat'], { input: pieces.join('') })).stdout.length, 2_000_000);
    assert.equal((await run(['cat'], { input: pieces })).stdout.length, 2_000_000);
  });

  test(`${name}: a program that stops reading early is no error of ours`, async () => {
    const pieces = Array.from({ length: 100 }, () => 'y'.repeat(100_000));
    assert.equal((await run(['sh', '-c', 'exit 7'], { input: pieces })).code, 7);
    assert.equal((await run(['sh', '-c', 'exit 7'], { input: pieces.join('') })).code, 7);
  });

  test(`${name}: lines are handed over one by one and not kept`, async () => {
    const lines: string[] = [];
    const result = await run(['printf', 'a\\nbc\\n\\nlast'], { onLine: (line) => lines.push(line) });
    assert.deepEqual(lines, ['a', 'bc', '', 'last']);
    assert.equal(result.stdout, '');
  });

  test(`${name}: a program that is not there, and one that takes too long`, async () => {
    const missing = await run(['/nonexistent/program']);
    assert.equal(missing.code, exitNotStarted);
    assert.match(missing.stderr, /cannot start \/nonexistent\/program/);
    assert.equal((await run(['/nonexistent/program'], { input: 'text' })).code, exitNotStarted);
    const begun = performance.now();
    assert.equal((await run(['sleep', '600'], { timeoutMs: 100 })).code, exitTimedOut);
    assert.ok(performance.now() - begun < 120_000);
  });

  test(`${name}: a death by signal has a code of its own; the environment is added to`, async () => {
    assert.equal((await run(['sh', '-c', 'kill -9 $$'])).code, 137);
    const { stdout } = await run(['sh', '-c', 'echo "$EXTRA ${PATH:+path}"'], { env: { EXTRA: 'yes' } });
    assert.equal(stdout, 'yes path\n');
  });

  test(`${name}: input that cannot be made ends the program, which is waited for`, async () => {
    const pieces = function* (): Generator<string> {
      yield 'first';
      throw new Error('no second piece');
    };
    let said = '';
    const answer = run(['sh', '-c', 'cat; echo " end"'], {
      input: pieces(),
      onLine: (line) => (said += line),
    });
    await assert.rejects(answer, /no second piece/);
    assert.equal(said, 'first end');
  });

  test(`${name}: where descriptors have run out, the program is not started; later it is`, async () => {
    const { code, stdout, stderr } = await runHere([
      'prlimit',
      '--nofile=256:256',
      process.execPath,
      '--import',
      'tsx',
      fileURLToPath(new URL('outOfDescriptors.ts', import.meta.url)),
      name,
    ]);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^127 cannot start true: .*EMFILE.*\n0 \n$/);
  });
}

test('runAside: what koffi does not take at once is not started, and costs no descriptor', async () => {
  const open = (): number => readdirSync('/proc/self/fd').length;
  await runAside(['true']);
  const before = open();
  const results = await Promise.all(Array.from({ length: 300 }, () => runAside(['true'])));
  for (const { code, stderr } of results)
    assert.ok(code === 0 || (code === exitNotStarted && stderr.startsWith('cannot start true: ')));
  // Streams close theirs in a later turn. Those not started would have cost 4 each.
  for (let i = 0; i < 1000 && open() > before + 40; i++) await sleep(20);
  assert.ok(open() <= before + 40);
});
