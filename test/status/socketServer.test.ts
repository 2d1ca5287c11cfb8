import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { silentLogger, type Logger } from '../../src/log/logger.ts';
import { SocketServer } from '../../src/proxy/socketServer.ts';
import { DaemonClient, DaemonUnreachable } from '../../src/status/client.ts';
import type { Answers } from '../../src/status/daemonStatus.ts';
import type { StatusDocument } from '../../src/status/documents.ts';

const directory = makeOwnedDirectory('socket');
after(() => rmSync(directory, { recursive: true }));
let paths = 0;
const freshPath = (): string => join(directory, `run-${++paths}`, 'pointsman.sock');

function answers(node: string): Answers {
  return {
    status: () => ({ node }) as StatusDocument,
    *routes({ namespace }) {
      yield '{"families":';
      yield `[],"asked":${JSON.stringify(namespace)}}`;
    },
    objects: () => ({ node: null, services: [], slices: [], serviceCIDRs: [] }),
    changes: () => ({ changes: [], forgotten: 0 }),
    counters: () => Promise.reject(new Error('the kernel is away')),
    config: () => assert.fail('nobody asks'),
  };
}

interface Started {
  readonly server: SocketServer;
  readonly warnings: string[];
}

async function start(path: string, node = 'n1', retryInterval = 20): Promise<Started> {
  const warnings: string[] = [];
  const log: Logger = {
    ...silentLogger,
    warn: (message, fields) =>
      void warnings.push(`${message} ${fields?.['err'] instanceof Error ? fields['err'].message : ''}`),
  };
  const server = new SocketServer({ path, answers: answers(node), log, retryInterval });
  await server.start();
  return { server, warnings };
}

const nodeAt = async (path: string): Promise<string> =>
  (await new DaemonClient({ socketPath: path }).status()).node;

test('the socket is 0600, its directory 0700; nobody is left behind after the end', async () => {
  const path = freshPath();
  const { server, warnings } = await start(path);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(statSync(join(path, '..')).mode & 0o777, 0o700);
  assert.equal(await nodeAt(path), 'n1');
  server.stop();
  assert.equal(existsSync(path), false);
  assert.deepEqual(warnings, []);
});

test('a stale socket is replaced', async () => {
  const path = freshPath();
  const { server: first } = await start(path);
  first.stop();
  // What a killed process leaves.
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', script]);
  assert.ok(existsSync(path));
  await assert.rejects(nodeAt(path), DaemonUnreachable);
  const { server, warnings } = await start(path, 'n2');
  assert.equal(await nodeAt(path), 'n2');
  assert.deepEqual(warnings, []);
  server.stop();
});

test('a second daemon leaves the first its socket, says so once, and takes over when it has ended', async () => {
  const path = freshPath();
  const first = await start(path, 'first');
  const second = await start(path, 'second');
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(await nodeAt(path), 'first');
  assert.equal(second.warnings.length, 1);
  assert.match(second.warnings[0] ?? '', /Another daemon answers/);
  first.server.stop();
  const deadline = Date.now() + 60_000;
  while (!existsSync(path) && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal(await nodeAt(path), 'second');
  second.server.stop();
});

test('what is no socket is left alone; a start does not fail', async () => {
  const path = join(directory, 'file');
  writeFileSync(path, 'precious');
  const { server, warnings } = await start(path);
  assert.match(warnings[0] ?? '', /cannot be opened.*no socket/);
  assert.ok(statSync(path).isFile());
  server.stop();
  assert.ok(existsSync(path));
  const long = await start(join(directory, 'x'.repeat(120)));
  assert.match(long.warnings[0] ?? '', /more than 107 bytes/);
  long.server.stop();
});

function ask(socketPath: string, path: string, method = 'GET'): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path, method, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => (body += text));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    });
    asked.on('error', reject).end();
  });
}

test('GET only; an unknown path says which there are; a failure is an answer', async () => {
  const path = freshPath();
  const { server } = await start(path);
  assert.equal((await ask(path, '/v1/status', 'POST')).status, 405);
  const unknown = await ask(path, '/v2/status');
  assert.equal(unknown.status, 404);
  assert.match(unknown.body, /\/v1\/routes/);
  const failed = await ask(path, '/v1/counters');
  assert.deepEqual([failed.status, failed.body], [500, '{"error":"the kernel is away"}\n']);
  assert.deepEqual(JSON.parse((await ask(path, '/v1/routes?namespace=a%22b')).body), {
    families: [],
    asked: 'a"b',
  });
  await assert.rejects(new DaemonClient({ socketPath: path }).counters(), /500.*the kernel is away/);
  server.stop();
});

test('a client says why nobody answers', async () => {
  await assert.rejects(nodeAt(join(directory, 'nothing')), /ENOENT: no pointsman runs on this node/);
  const path = freshPath();
  const silent = createServer();
  const { server } = await start(path);
  server.stop();
  await new Promise<void>((resolve) => silent.listen(path, resolve));
  const client = new DaemonClient({ socketPath: path, timeout: 50 });
  await assert.rejects(client.status(), /no answer for 0.05 s/);
  silent.close();
});
