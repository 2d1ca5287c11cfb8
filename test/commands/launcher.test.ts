import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = makeOwnedDirectory('launcher');
after(() => rmSync(folder, { recursive: true }));

/** A program that prints its arguments, where the launcher looks for the real one. */
const program = 'console.log(JSON.stringify(process.argv.slice(2)));\n';

function script(path: string, lines: string): void {
  writeFileSync(path, lines);
  chmodSync(path, 0o755);
}

/** As a package is installed: launcher and dist, no sources. */
function installed(name: string): string {
  const home = join(folder, name);
  mkdirSync(join(home, 'dist'), { recursive: true });
  copyFileSync(join(root, 'pointsman'), join(home, 'pointsman'));
  writeFileSync(join(home, 'dist/main.js'), program);
  return home;
}

/** A checkout with a stand-in for npm that says what it did in npm.log. */
function checkout(
  name: string,
  npm = 'mkdir -p node_modules; touch node_modules/.package-lock.json',
): { home: string; env: NodeJS.ProcessEnv } {
  const home = join(folder, name);
  for (const path of ['src', 'scripts', 'bin']) mkdirSync(join(home, path), { recursive: true });
  copyFileSync(join(root, 'pointsman'), join(home, 'pointsman'));
  copyFileSync(join(root, 'scripts/prepare.sh'), join(home, 'scripts/prepare.sh'));
  writeFileSync(join(home, 'src/main.js'), program);
  writeFileSync(join(home, 'package.json'), '{}');
  writeFileSync(join(home, 'package-lock.json'), '{}');
  const build =
    "import { appendFileSync, cpSync } from 'node:fs';\nappendFileSync('build.log', 'x');\ncpSync('src', 'dist', { recursive: true });\n";
  writeFileSync(join(home, 'scripts/build.mjs'), build);
  script(join(home, 'bin/npm'), `#!/bin/sh\nprintf x >> npm.log\necho npm says something\n${npm}\n`);
  return { home, env: { ...process.env, PATH: `${join(home, 'bin')}:${process.env['PATH']}` } };
}

test('the real launcher answers --version as kube-proxy, through a link, from another directory', () => {
  const home = installed('real');
  const built = spawnSync('node', ['scripts/build.mjs'], {
    cwd: root,
    env: { ...process.env, OUTDIR: join(home, 'dist') },
    encoding: 'utf8',
  });
  assert.equal(built.status, 0, built.stderr);
  writeFileSync(join(home, 'package.json'), '{"type":"module"}');
  symlinkSync(join(root, 'node_modules'), join(home, 'node_modules'));
  symlinkSync(join(home, 'pointsman'), join(folder, 'kube-proxy'));
  const run = spawnSync(join(folder, 'kube-proxy'), ['--version'], { cwd: '/', encoding: 'utf8' });
  assert.deepEqual([run.status, run.stderr], [0, '']);
  assert.match(run.stdout, /^Kubernetes v1\.36\.2 \(pointsman v\d+\.\d+\.\d+\)\n$/);
});

test('arguments pass unchanged; the name kube-proxy means run', () => {
  const home = installed('arguments');
  const words = ['--config=/a b', '', '*', '$HOME'];
  const plain = spawnSync(join(home, 'pointsman'), words, { cwd: '/', encoding: 'utf8' });
  assert.deepEqual(JSON.parse(plain.stdout), words);
  symlinkSync('pointsman', join(home, 'kube-proxy'));
  const viaPath = spawnSync('kube-proxy', words, {
    cwd: '/',
    encoding: 'utf8',
    env: { ...process.env, PATH: `${home}:${process.env['PATH']}` },
  });
  assert.deepEqual(JSON.parse(viaPath.stdout), ['run', ...words]);
});

test('the program is told how it was called, by its bare name where PATH has it', () => {
  const home = installed('called');
  writeFileSync(join(home, 'dist/main.js'), 'console.log(process.env.POINTSMAN_CALLED_AS);\n');
  symlinkSync('pointsman', join(home, 'kube-proxy'));
  const path = `${home}:${process.env['PATH']}`;
  const called = (name: string, PATH = process.env['PATH']): string =>
    spawnSync(name, { cwd: home, encoding: 'utf8', env: { ...process.env, PATH } }).stdout.trimEnd();
  assert.equal(called('./pointsman'), './pointsman');
  assert.equal(called('./pointsman', path), './pointsman');
  assert.equal(called(join(home, 'pointsman')), join(home, 'pointsman'));
  assert.equal(called('pointsman', path), 'pointsman');
  assert.equal(called('./kube-proxy'), 'pointsman');
});

test('the launcher becomes the program: signals reach it, and there is no shell left', async () => {
  const home = installed('exec');
  writeFileSync(join(home, 'dist/main.js'), 'console.log(String(process.pid)); setInterval(() => 0, 1000);');
  const child = spawn(join(home, 'pointsman'), { stdio: ['ignore', 'pipe', 'inherit'] });
  const pid = await new Promise<string>((resolve) =>
    child.stdout.once('data', (data: Buffer) => resolve(data.toString())),
  );
  assert.equal(Number(pid), child.pid);
  const ended = new Promise((resolve) => child.once('exit', (_, signal) => resolve(signal)));
  child.kill('SIGTERM');
  assert.equal(await ended, 'SIGTERM');
});

test('without a node, and with an old one, it says what is needed', () => {
  const home = installed('old');
  mkdirSync(join(home, 'bin'));
  for (const tool of ['sh', 'dirname', 'readlink']) symlinkSync(`/bin/${tool}`, join(home, 'bin', tool));
  const env = { PATH: join(home, 'bin') };
  const none = spawnSync(join(home, 'pointsman'), { env, encoding: 'utf8' });
  assert.equal(none.status, 1);
  assert.match(none.stderr, /^pointsman: Node\.js 20 or later is needed, and PATH has no node/);
  script(join(home, 'bin/node'), '#!/bin/sh\necho v18.19.0\n');
  const old = spawnSync(join(home, 'pointsman'), { env, encoding: 'utf8' });
  assert.equal(old.status, 1);
  assert.match(old.stderr, /Node\.js 20 or later is needed, and .*bin\/node is v18\.19\.0/);
});

test('a checkout is prepared once, however many start at the same time', async () => {
  // The stand-in takes until another start waits for it.
  const npm =
    'until [ -e waited-for ]; do sleep 0.05; done; mkdir -p node_modules; touch node_modules/.package-lock.json';
  const { home, env } = checkout('fresh', npm);
  const starts = [1, 2, 3].map(
    (n) =>
      new Promise<string>((resolve) => {
        const child = spawn(join(home, 'pointsman'), [String(n)], { cwd: '/', env });
        let output = '';
        for (const stream of [child.stdout, child.stderr])
          stream.on('data', (data: Buffer) => {
            output += data.toString();
            if (output.includes('another start')) writeFileSync(join(home, 'waited-for'), '');
          });
        child.once('close', () => resolve(output));
      }),
  );
  const outputs = await Promise.all(starts);
  assert.equal(readFileSync(join(home, 'npm.log'), 'utf8'), 'x');
  assert.equal(readFileSync(join(home, 'build.log'), 'utf8'), 'x');
  for (const [i, output] of outputs.entries()) assert.ok(output.endsWith(`["${i + 1}"]\n`), output);
  const all = outputs.join('');
  assert.match(all, /pointsman: fetching npm packages .*\n(.*\n)*pointsman: building/);
  assert.match(all, /another start is preparing the program/);
  assert.doesNotMatch(all, /npm says something/);
});

test('later starts prepare only what changed, and say nothing if nothing did', () => {
  const { home, env } = checkout('changes', 'mkdir -p node_modules; touch node_modules/.package-lock.json');
  const start = (): string => spawnSync(join(home, 'pointsman'), { env, encoding: 'utf8' }).stderr;
  assert.match(start(), /fetching.*\n.*building/);
  assert.equal(start(), '');
  const later = new Date(Date.now() + 10_000);
  utimesSync(join(home, 'src/main.js'), later, later);
  assert.equal(start(), 'pointsman: building ...\n');
  utimesSync(join(home, 'src/main.js'), 0, 0);
  utimesSync(join(home, 'src'), 0, 0);
  utimesSync(join(home, 'package-lock.json'), later, later);
  assert.match(start(), /^pointsman: fetching npm packages/);
});

test('a failing npm is shown, and nothing is started', () => {
  const { home, env } = checkout('failing', 'echo no network >&2; exit 7');
  const run = spawnSync(join(home, 'pointsman'), { env, encoding: 'utf8' });
  assert.equal(run.status, 1);
  assert.equal(run.stdout, '');
  assert.match(
    run.stderr,
    /npm ci failed \(exit code 7\):\nnpm says something\nno network\npointsman: not ready to run/,
  );
});
