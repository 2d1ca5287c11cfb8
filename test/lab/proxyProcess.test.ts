import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, test } from 'node:test';
import { ProxyProcess } from '../../src/lab/scenario/proxyProcess.ts';

const directory = mkdtempSync(join(tmpdir(), 'pointsman-proxy-'));
after(() => rmSync(directory, { recursive: true, force: true }));

function proxy(command: readonly string[]): ProxyProcess {
  return new ProxyProcess({
    namespaces: { command: (_node: string, argv: readonly string[]) => [...argv] },
    node: 'node-1',
    command,
    configFile: join(directory, 'config.conf'),
    logFile: join(directory, 'log'),
    env: process.env,
  });
}

test('a proxy that ends by itself is told from one that was stopped', async () => {
  const short = proxy(['sh', '-c', 'echo no more']);
  assert.equal(short.endedByItself, false, 'not started yet');
  short.start();
  assert.equal(short.endedByItself, false);
  for (let i = 0; i < 200 && short.running; i++) await sleep(20);
  assert.equal(short.endedByItself, true);
  assert.equal(short.lastWords(), 'no more');

  const long = proxy(['sleep', '60']);
  long.start();
  await long.stop();
  assert.equal(long.running, false);
  assert.equal(long.endedByItself, false);
  long.start();
  process.kill(long.pid ?? 0, 'SIGKILL');
  for (let i = 0; i < 200 && long.running; i++) await sleep(20);
  assert.equal(long.endedByItself, true);
});
