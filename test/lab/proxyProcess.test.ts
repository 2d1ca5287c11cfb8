import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, test } from 'node:test';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { ownProxyCommand, ProxyProcess } from '../../src/lab/scenario/proxyProcess.ts';

const directory = makeOwnedDirectory('proxy');
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
  for (let i = 0; i < 3000 && short.running; i++) await sleep(20);
  assert.equal(short.endedByItself, true);
  assert.equal(short.lastWords(), 'no more');

  const long = proxy(['sleep', '60']);
  long.start();
  await long.stop();
  assert.equal(long.running, false);
  assert.equal(long.endedByItself, false);
  long.start();
  process.kill(long.pid ?? 0, 'SIGKILL');
  for (let i = 0; i < 3000 && long.running; i++) await sleep(20);
  assert.equal(long.endedByItself, true);
});

test('POINTSMAN_PROGRAM: a bundle as it is, a TypeScript file through tsx, anything else is refused in words', (t) => {
  const before = process.env['POINTSMAN_PROGRAM'];
  t.after(() => {
    if (before === undefined) delete process.env['POINTSMAN_PROGRAM'];
    else process.env['POINTSMAN_PROGRAM'] = before;
  });
  process.env['POINTSMAN_PROGRAM'] = '/opt/other/main.js';
  assert.deepEqual(ownProxyCommand().slice(0, 3), [process.execPath, '/opt/other/main.js', 'run']);
  const source = new URL('../../src/main.ts', import.meta.url).pathname;
  process.env['POINTSMAN_PROGRAM'] = source;
  const [node = '', ...argv] = ownProxyCommand();
  assert.deepEqual([argv[0], argv[2]], ['--import', source]);
  const version = spawnSync(node, [...argv.slice(0, 3), 'version'], { cwd: '/', encoding: 'utf8' });
  assert.equal(version.status, 0, version.stderr);
  process.env['POINTSMAN_PROGRAM'] = '/usr/bin/kube-proxy';
  assert.throws(ownProxyCommand, /must be a file that Node\.js runs, ending in \.js or \.ts.*--proxy/);
});
