import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { commands } from '../../src/commands/index.ts';
import { decodeFile } from '../../src/config/file.ts';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const notRoot = process.getuid?.() === 0 ? false : 'namespaces need root';
const folder = makeOwnedDirectory('main');
after(() => rmSync(folder, { recursive: true }));

/** As if installed, even where the tests themselves were started by the launcher. */
const env = { ...process.env, POINTSMAN_CALLED_AS: '' };

function pointsman(...argv: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, ['--import', 'tsx', 'src/main.ts', ...argv], {
    cwd: root,
    encoding: 'utf8',
    env,
  });
}

test('without arguments, and with --help, it lists every command that is not hidden', () => {
  for (const argv of [[], ['--help'], ['help']]) {
    const { status, stdout, stderr } = pointsman(...argv);
    assert.deepEqual([status, stderr], [0, '']);
    const lines = stdout.split('\n');
    for (const { name, summary, hidden } of commands) {
      const listed = lines.some((line) => line.startsWith(`  ${name} `) && line.endsWith(` ${summary}`));
      assert.equal(listed, hidden !== true, name);
    }
  }
});

test('flags without a command are run', () => {
  assert.equal(pointsman('--version').stdout, pointsman('run', '--version').stdout);
  assert.match(pointsman('--version').stdout, /^Kubernetes v1\.36\.2 \(pointsman v/);
});

test('usage lines name the program as the launcher was called', () => {
  const called = (name: string, ...argv: string[]): string =>
    spawnSync(process.execPath, ['--import', 'tsx', 'src/main.ts', ...argv], {
      cwd: root,
      encoding: 'utf8',
      env: { ...process.env, POINTSMAN_CALLED_AS: name },
    }).stdout;
  for (const { name, hidden } of commands) {
    if (hidden === true || name === 'version') continue;
    assert.match(called('./pointsman', name, '--help'), new RegExp(`^Usage: \\./pointsman ${name}\\b`), name);
  }
  assert.match(called('./pointsman'), /^Usage: \.\/pointsman COMMAND/m);
  assert.match(called('two words'), /^Usage: pointsman COMMAND/m);
});

test('an unknown command and an unknown flag end with 1 and a hint on stderr', () => {
  const command = pointsman('walk');
  assert.deepEqual([command.status, command.stdout], [1, '']);
  assert.match(command.stderr, /^Error: unknown command "walk"\n/);
  assert.match(pointsman('stauts').stderr, /^Error: unknown command "stauts"; did you mean status\?\n/);
  assert.equal(pointsman('help', 'version').status, 0);
  assert.equal(pointsman('help', 'demo').stdout, pointsman('demo', '--help').stdout);
  const flag = pointsman('--nope');
  assert.deepEqual([flag.status, flag.stdout], [1, '']);
  assert.equal(
    flag.stderr,
    'Error: unknown flag: --nope\n\nUsage: pointsman run [flags]\nAll flags: pointsman run --help\n',
  );
});

test('bad configuration ends with 1, every problem on its line, and command failed', () => {
  const { status, stderr } = pointsman('--proxy-mode=x', '--oom-score-adj=3000');
  assert.equal(status, 1);
  const lines = stderr.trimEnd().split('\n');
  assert.equal(lines.length, 3, stderr);
  assert.match(
    lines[0] ?? '',
    /^E.*"Configuration problem" problem="KubeProxyConfiguration\.Mode\.ProxyMode: /,
  );
  assert.match(lines[1] ?? '', /"Configuration problem" problem=".*OOMScoreAdj: /);
  assert.match(lines[2] ?? '', /^E\d{4} .*\] "command failed" err="failed validate: \[/);
});

test('--write-config-to writes a document that is read back, and ends with 0', () => {
  const path = join(folder, 'out.yaml');
  const { status, stderr } = pointsman(
    '--write-config-to',
    path,
    '--proxy-mode=nftables',
    '-v1',
    '--healthz-port=10256',
  );
  assert.equal(status, 0, stderr);
  const { document, strictErrors } = decodeFile(readFileSync(path, 'utf8'));
  assert.deepEqual(strictErrors, []);
  assert.deepEqual([document.mode, document.nftables?.minSyncPeriod], ['nftables', 0]);
  assert.match(stderr, /^Flag --healthz-port has been deprecated, use --healthz-bind-address\n/);
  assert.match(stderr, /"FLAG: --proxy-mode=\\"nftables\\""/);
  const failed = pointsman('--write-config-to', join(folder, 'none/out.yaml'));
  assert.equal(failed.status, 1);
  assert.match(failed.stderr, /"Error running ProxyServer" err="ENOENT.*\n.*"command failed" err="ENOENT/);
});

test('a flag that was typed is named where its value is refused', () => {
  for (const [command = '', ...words] of [['render'], ['explain', '10.96.0.1:80'], ['diff']]) {
    const { status, stderr } = pointsman(command, ...words, '-f', '/dev/null', '--cluster-cidr', '10.0.0/8');
    assert.equal(status, 2, command);
    assert.match(stderr, /^Error: --cluster-cidr: Invalid value: "10\.0\.0\/8": must be a valid CIDR block /);
  }
});

test('--cleanup says what it does, and nothing of a mode to be used', { skip: notRoot }, () => {
  const argv = ['--net', process.execPath, '--import', 'tsx', 'src/main.ts', 'run', '--cleanup'];
  const { status, stderr } = spawnSync('unshare', argv, { cwd: root, encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  assert.match(stderr, /"Removing the rules of all modes" modes=.*iptables.*ipvs.*nftables.*userspace/);
  assert.doesNotMatch(stderr, /Using iptables proxy/);
});

/** Writes more than a pipe takes at once: 3,000 findings. */
function talker() {
  const file = join(folder, 'many.json');
  const items = Array.from({ length: 3000 }, (_, i) => ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: `svc-${i}` },
    spec: { clusterIPP: '10.96.0.1' },
  }));
  writeFileSync(file, JSON.stringify({ apiVersion: 'v1', kind: 'List', items }));
  const argv = [
    '--import',
    'tsx',
    'src/main.ts',
    'render',
    '--check',
    '--cluster-cidr=10.244.0.0/16',
    '-f',
    file,
  ];
  return spawn(process.execPath, argv, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
}

test('a slow reader of a pipe gets all of it', async () => {
  const child = talker();
  await once(child.stdout, 'readable');
  // It is done with its work by now, and the pipe is full.
  await new Promise((resolve) => setTimeout(resolve, 1500));
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (part: string) => (text += part));
  const [code] = (await once(child, 'close')) as [number];
  assert.equal(code, 1);
  assert.match(text, /3000 Services, 0 EndpointSlices: 3000 errors, \d+ warnings\n$/);
});

test('a reader that goes away ends it, as SIGPIPE would', async () => {
  const child = talker();
  await once(child.stdout, 'readable');
  child.stdout.destroy();
  const [code] = (await once(child, 'close')) as [number];
  assert.equal(code, 141);
});
