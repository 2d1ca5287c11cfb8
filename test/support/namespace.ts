/**
 * Network namespaces for tests: unique names (`pmt-<pid>-<n>`), removed on exit; those of test processes that
 * crashed are swept when the next test starts.
 *
 * iptables' lock is one for all namespaces, and a command without `-w` fails while another holds it: each test process
 * that has namespaces gives its commands a lock of their own (`pmt-<pid>.lock`).
 */
import { execFileSync, type ExecFileSyncOptions } from 'node:child_process';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const prefix = 'pmt-';
let count = 0;
let swept = false;
const mine = new Set<string>();

function sweep(): void {
  swept = true;
  const lock = join(tmpdir(), `${prefix}${process.pid}.lock`);
  process.env['XTABLES_LOCKFILE'] ??= lock;
  process.on('exit', () => {
    for (const name of mine) removeNamespace(name);
    rmSync(lock, { force: true });
  });
  for (const name of readdirSync(tmpdir())) {
    const [, pid] = /^pmt-(\d+)\.lock$/.exec(name) ?? [];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) rmSync(join(tmpdir(), name), { force: true });
  }
  if (!existsSync('/run/netns')) return;
  for (const name of readdirSync('/run/netns')) {
    const pid = name.startsWith(prefix) ? name.split('-')[1] : undefined;
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) removeNamespace(name);
  }
}

/** Makes an empty namespace with `lo` up and returns its name. */
export function makeNamespace(): string {
  if (!swept) sweep();
  const name = `${prefix}${process.pid}-${++count}`;
  execFileSync('ip', ['netns', 'add', name]);
  mine.add(name);
  execFileSync('ip', ['-n', name, 'link', 'set', 'lo', 'up']);
  return name;
}

export function removeNamespace(name: string): void {
  mine.delete(name);
  try {
    execFileSync('ip', ['netns', 'del', name], { stdio: 'ignore' });
  } catch {
    // Already gone: that is what was wanted.
  }
}

/** Runs a command inside a namespace and returns its standard output; throws if it fails. */
export function inNamespace(
  name: string,
  argv: readonly string[],
  options: ExecFileSyncOptions = {},
): string {
  return execFileSync('ip', ['netns', 'exec', name, ...argv], {
    encoding: 'utf8',
    maxBuffer: 1 << 30,
    ...options,
  }) as string;
}
