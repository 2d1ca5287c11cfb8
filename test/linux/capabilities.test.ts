/** Who may not look at rules is told so: that there are none would be another answer. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { mayAdministerNetwork } from '../../src/linux/capabilities.ts';

const cwd = fileURLToPath(new URL('../..', import.meta.url));
const cluster = ['-f', 'docs/guide/cluster.json', '--node', 'node-1'];

function without(...argv: string[]): { status: number | null; stdout: string; stderr: string } {
  const program = [process.execPath, '--import', 'tsx', 'src/main.ts', ...argv];
  const drop = ['--bounding-set', '-net_admin', '--inh-caps', '-net_admin'];
  return spawnSync('unshare', ['-n', 'setpriv', ...drop, ...program], { cwd, encoding: 'utf8' });
}

test('root may administer the network', () => {
  assert.equal(mayAdministerNetwork(), true);
});

test('status does not say that there are no rules where it may not look', () => {
  const { status, stdout } = without('status', '--socket', '/nowhere/pointsman.sock');
  assert.equal(status, 3);
  assert.match(stdout, /\nIts rules may be read by root only: use sudo\.\n/);
  assert.doesNotMatch(stdout, /No rules/);
});

test('explain and diff say who may read the rules, and what goes without', () => {
  const explained = without('explain', '10.244.1.10', '10.96.1.0:80', '--kernel', ...cluster);
  assert.equal(explained.status, 1);
  assert.match(
    explained.stderr,
    /^Error: only root may read the rules of the kernel: use sudo; without it, /m,
  );
  const compared = without('diff', ...cluster);
  assert.equal(compared.status, 2);
  assert.match(
    compared.stderr,
    /^Error: only root may read the rules of the kernel: use sudo; without it, /m,
  );
});

test('--cleanup does not claim to have removed what it may not touch', () => {
  const { status, stderr } = without('run', '--cleanup');
  assert.equal(status, 1);
  assert.match(stderr, /only root \(CAP_NET_ADMIN\) may remove rules; nothing was removed/);
});
