/** The demo, as a user starts it: what it claims to show, it shows, and it leaves nothing behind. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { buildProgram } from '../scenarios/support.ts';

const [node = '', program = ''] = buildProgram();

test('both stories hold', () => {
  const { status, stdout, stderr, pid } = spawnSync(node, [program, 'demo'], { encoding: 'utf8' });
  assert.equal(status, 0, stdout + stderr);
  for (const pattern of [
    /Hello from api-1\. You are 10\.244\.1\.\d+:\d+, you reached me at 10\.244\.2\.\d+:8080\./,
    /PREROUTING: .*\n +\[1\] -j KUBE-SERVICES\n/,
    /KUBE-SERVICES: .*\n +\[1\] -d 10\.96\.\d+\.\d+\/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-[A-Z2-7]{16}\n/,
    /KUBE-SEP-[A-Z2-7]{16}: .*\n +\[1\] -p tcp -m tcp -j DNAT --to-destination 10\.244\.2\.\d+:8080\n/,
    /10\.244\.2\.\d+:8080 -> 10\.244\.1\.\d+:\d+ +TIME_WAIT/,
    /10 Pods ready after [\d.]+ s, all in use after [\d.]+ s:\n(?: +checkout-\S+ +\d+ % +#+\n){10}/,
    /\d{3,} requests, 0 failed\./,
    /\d+ requests, 0 failed, all answered by checkout-\S+\.\n/,
  ]) {
    assert.match(stdout, pattern);
  }
  for (const line of stdout.split('\n')) assert.ok(line.length <= 100, `a wide line: ${line}`);
  assert.deepEqual(
    readdirSync('/run/netns').filter((name) => name.startsWith(`pml-${pid}-`)),
    [],
  );
});

for (const [when, shown] of [
  ['while the cluster is made', /A cluster of two nodes/],
  ['in the middle of a story', /Story 2/],
] as const) {
  test(`Ctrl-C ${when} ends it with 130, and everything goes`, async () => {
    // A process group of its own, as a terminal makes one: the signal goes to all in it.
    const child = spawn(node, [program, 'demo'], { detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    const pid = child.pid ?? assert.fail('it did not start');
    let said = '';
    const closed = once(child, 'close');
    await new Promise<void>((resolve, reject) => {
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        said += text;
        if (shown.test(said)) resolve();
      });
      child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
      void closed.then(() => reject(new Error(`it ended by itself: ${said}`)));
    });
    process.kill(-pid, 'SIGINT');
    assert.deepEqual(await closed, [130, null], said);
    assert.match(said, /\n\nStopped; everything is removed again\.\n$/);
    assert.doesNotMatch(said, /rror|NOT AS|could not/);
    const left = readdirSync('/run/netns').filter((name) => name.startsWith(`pml-${pid}-`));
    assert.deepEqual(left, []);
    const files = readdirSync('/run/pointsman-lab').filter((name) => new RegExp(`^${pid}\\b`).test(name));
    assert.deepEqual(files, []);
  });
}
