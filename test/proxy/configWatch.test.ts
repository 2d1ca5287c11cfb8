import assert from 'node:assert/strict';
import {
  appendFileSync,
  chmodSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { watchConfigFile } from '../../src/proxy/configWatch.ts';

const directory = makeOwnedDirectory('config');
after(() => rmSync(directory, { recursive: true }));

/** Whether `act` on a watched file counts as a change; if it should, that is waited for. */
async function countsAsChange(
  name: string,
  act: (path: string) => void,
  expected: boolean,
): Promise<boolean> {
  const path = join(directory, name);
  writeFileSync(path, 'mode: iptables\n');
  let changes = 0;
  const watch = watchConfigFile(path, () => changes++);
  await sleep(30);
  act(path);
  const told = (): boolean => changes > 0;
  if (expected) for (let i = 0; i < 3000 && !told(); i++) await sleep(10);
  await sleep(150);
  watch.stop();
  assert.ok(changes <= 1);
  return changes === 1;
}

test('writing and renaming count', async () => {
  assert.equal(await countsAsChange('a', (path) => appendFileSync(path, '#'), true), true);
  assert.equal(await countsAsChange('b', (path) => writeFileSync(path, 'mode: iptables\n'), true), true);
  assert.equal(await countsAsChange('c', (path) => renameSync(path, `${path}.old`), true), true);
});

test('attributes and removal do not count', async () => {
  assert.equal(await countsAsChange('d', (path) => chmodSync(path, 0o600), false), false);
  assert.equal(await countsAsChange('e', (path) => unlinkSync(path), false), false);
  const now = new Date();
  assert.equal(await countsAsChange('f', (path) => utimesSync(path, now, now), false), false);
});

test('the symlink swap of a ConfigMap volume does not count', async () => {
  const [first, second] = [join(directory, 'data1'), join(directory, 'data2')];
  writeFileSync(first, 'one');
  writeFileSync(second, 'two');
  const link = join(directory, 'config.conf');
  symlinkSync(first, link);
  let changes = 0;
  const watch = watchConfigFile(link, () => changes++);
  symlinkSync(second, `${link}.new`);
  renameSync(`${link}.new`, link);
  unlinkSync(first);
  await sleep(150);
  watch.stop();
  assert.equal(changes, 0);
});

test('a file that is not there is an error', () => {
  assert.throws(() => watchConfigFile(join(directory, 'nothing'), () => undefined), /ENOENT/);
});
