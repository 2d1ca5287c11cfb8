/** The demo, as a user starts it: what it claims to show, it shows, and it leaves nothing behind. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
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
