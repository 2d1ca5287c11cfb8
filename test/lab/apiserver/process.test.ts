import assert from 'node:assert/strict';
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { readFileSync, rmSync, statSync } from 'node:fs';
import { request } from 'node:https';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { makeOwnedDirectory } from '../../../src/lab/net/ownedDirectory.ts';

const directory = makeOwnedDirectory('apiserver');
let child: ChildProcess;
let url = '';
let exited: Promise<number | null>;

function firstLine(process_: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    process_.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      if (text.includes('\n')) resolve(text.slice(0, text.indexOf('\n')));
    });
    process_.once('exit', (code) => reject(new Error(`ended with ${code} after ${JSON.stringify(text)}`)));
  });
}

before(async () => {
  const program = `
    import { run } from './src/lab/apiserver/main.ts';
    process.exitCode = await run(['--listen', '127.0.0.1:0', '--dir', ${JSON.stringify(directory)}, '--host', 'api.lab']);
  `;
  const file = ['--import', 'tsx', '--input-type=module', '--eval', program];
  child = spawn(process.execPath, file, { stdio: ['ignore', 'pipe', 'inherit'] });
  exited = new Promise((resolve) => child.once('exit', resolve));
  const ready = await firstLine(child);
  assert.match(ready, /^ready https:\/\/127\.0\.0\.1:\d+$/);
  url = ready.slice('ready '.length);
});
after(() => {
  child.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});

const read = (name: string): string => readFileSync(join(directory, name), 'utf8');

function get(path: string, options: object): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const asked = request(url + path, { ca: read('ca.pem'), ...options }, (response) => {
      let body = '';
      response.on('data', (chunk: Buffer) => (body += chunk.toString()));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    });
    asked.once('error', reject);
    asked.end();
  });
}

test('the files it leaves are private and name the server', () => {
  for (const name of ['kubeconfig', 'admin.kubeconfig', 'token']) {
    assert.equal(statSync(join(directory, name)).mode & 0o077, 0, name);
  }
  const config = JSON.parse(read('kubeconfig')) as { clusters: { cluster: { server: string } }[] };
  assert.equal(config.clusters[0]?.cluster.server, url);
});

test('tokens and client certificates are let in, others are not', async () => {
  const token = await get('/api/v1/nodes', { headers: { authorization: `Bearer ${read('token')}` } });
  assert.equal(token.status, 200);
  const config = JSON.parse(read('admin.kubeconfig')) as { users: { user: Record<string, string> }[] };
  const user = config.users[0]?.user ?? {};
  const pem = (field: string): string => Buffer.from(user[field] ?? '', 'base64').toString();
  const credentials = { cert: pem('client-certificate-data'), key: pem('client-key-data') };
  assert.equal((await get('/api/v1/nodes', credentials)).status, 200);
  assert.equal((await get('/api/v1/nodes', {})).status, 401);
  assert.deepEqual(await get('/readyz', {}), { status: 200, body: 'ok' });
});

test('a certificate of another authority is not let in', async () => {
  const key = join(directory, 'other.key');
  const certificate = join(directory, 'other.pem');
  const subject = '/O=system:masters/CN=kubernetes-admin';
  const how = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1'];
  execFileSync('openssl', ['req', '-x509', ...how, '-keyout', key, '-out', certificate, '-subj', subject], {
    stdio: 'ignore',
  });
  const credentials = { cert: read('other.pem'), key: read('other.key') };
  assert.equal((await get('/api/v1/nodes', credentials)).status, 401);
});

test('the certificate names the hosts it was asked for', async () => {
  const headers = { authorization: `Bearer ${read('token')}` };
  assert.equal((await get('/version', { headers, servername: 'api.lab' })).status, 200);
  await assert.rejects(get('/version', { headers, servername: 'elsewhere.lab' }), /altnames/);
});

test('SIGTERM ends it with 0', async () => {
  child.kill('SIGTERM');
  assert.equal(await exited, 0);
});
