import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** A daemon that waits for an API server that is not there, in a network namespace of its own. */
const daemon = ['src/main.ts', 'run', '--master=http://127.0.0.1:1', '--hostname-override=n'];

/** Resolves once the log shows that the daemon has tried to reach it. */
function start(unshareFlags: string[]): Promise<ChildProcess> {
  const command = ['--net', ...unshareFlags, process.execPath, '--import', 'tsx', ...daemon];
  const child = spawn('unshare', command, { cwd: root, stdio: ['ignore', 'ignore', 'pipe'] });
  return new Promise((resolve, reject) => {
    let said = '';
    child.stderr.on('data', (data: Buffer) => {
      said += data.toString();
      if (said.includes('http://127.0.0.1:1/')) resolve(child);
    });
    child.once('exit', (code) => reject(new Error(`ended with ${code}: ${said}`)));
  });
}

function end(child: ChildProcess): Promise<{ code: number | null; signal: string | null }> {
  return new Promise((resolve) => child.once('exit', (code, signal) => resolve({ code, signal })));
}

const options = { skip: process.getuid?.() === 0 ? false : 'namespaces need root', timeout: 300_000 };

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
  test(`the daemon dies by ${signal}`, options, async () => {
    const child = await start([]);
    const ended = end(child);
    child.kill(signal);
    assert.deepEqual(await ended, { code: null, signal });
  });
}

test(
  'as the first process of a container it ends by SIGTERM too, with the code a shell shows',
  options,
  async () => {
    const child = await start(['--pid', '--fork']);
    const ended = end(child);
    const inner = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim();
    process.kill(Number(inner), 'SIGTERM');
    assert.deepEqual(await ended, { code: 143, signal: null });
  },
);
