import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { dialTimeouts } from '../../../src/dataplane/userspace/tcpConnection.ts';
import { TcpListener } from '../../../src/dataplane/userspace/tcpListener.ts';
import { closeDescriptor } from '../../../src/linux/ffi.ts';
import { listenTcp, localPort } from '../../../src/linux/tcp.ts';
import { deadEndpoint, dial, inTurn, makeContext, readAll, serve, until } from './support.ts';

const anyPort = { host: '127.0.0.1', port: 0 };

/** The largest size in bytes that the kernel gives a socket's buffer by itself. */
function largestBuffer(name: 'tcp_rmem' | 'tcp_wmem'): number {
  return Number(readFileSync(`/proc/sys/net/ipv4/${name}`, 'utf8').trim().split(/\s+/)[2]);
}

/** A queue of one that is full, and a program that takes nobody out of it: the kernel does not answer. */
async function silentEndpoint(): Promise<{ key: string; close: () => void }> {
  const fd = listenTcp('127.0.0.1', 0, 0);
  const port = localPort(fd);
  const filling = dial(port);
  filling.on('error', () => undefined);
  await new Promise((resolve) => filling.once('connect', resolve));
  return {
    key: `127.0.0.1:${port}`,
    close: () => {
      filling.destroy();
      closeDescriptor(fd);
    },
  };
}

test('a client that ends its way still gets the answer; then both are closed, and the sockets given back', async () => {
  const backend = await serve((socket) => {
    void readAll(socket).then((asked) => socket.end(`got ${asked.length}`));
  });
  const context = makeContext();
  const listener = await TcpListener.open(anyPort, context, inTurn([backend.key]));
  const client = dial(listener.port);
  client.end('x'.repeat(300_000));
  assert.equal(await readAll(client), 'got 300000');
  await until(() => context.sockets.open === 0 && listener.connections === 0, 'sockets given back');
  listener.close(true);
  backend.server.close();
});

test('an endpoint that ends its way still hears the client', async () => {
  let heard = '';
  const backend = await serve((socket) => {
    socket.end('bye');
    void readAll(socket).then((text) => (heard = text));
  });
  const listener = await TcpListener.open(anyPort, makeContext(), inTurn([backend.key]));
  const client = dial(listener.port);
  assert.equal(await readAll(client), 'bye');
  client.end('but wait');
  await until(() => heard === 'but wait', 'what the client says after that');
  listener.close(true);
  backend.server.close();
});

test('a slow reader holds up the endpoint, not the memory, and nobody else', async () => {
  // More than twice what the buffers of four sockets may hold on this machine.
  const size = Math.max(64 << 20, 4 * (largestBuffer('tcp_rmem') + largestBuffer('tcp_wmem')));
  let sent = 0;
  const backend = await serve((socket) => {
    const chunk = Buffer.alloc(1 << 16, 'y');
    const more = (): void => {
      while (sent < size) {
        sent += chunk.length;
        if (!socket.write(chunk)) return;
      }
      socket.end();
    };
    socket.on('drain', more);
    socket.once('data', more);
  });
  const quick = await serve((socket) => socket.end('quick'));
  const listener = await TcpListener.open(anyPort, makeContext(), inTurn([backend.key, quick.key]));
  const slow = dial(listener.port);
  slow.pause();
  slow.write('go');
  await until(() => sent > 0, 'the first bytes');
  await sleep(300);
  assert.ok(sent < size / 2, `${sent} bytes were taken from the endpoint though nobody reads`);
  assert.equal(await readAll(dial(listener.port)), 'quick');
  let received = 0;
  slow.on('data', (chunk: Buffer) => (received += chunk.length));
  slow.resume();
  await until(() => received === size, 'all bytes');
  slow.destroy();
  listener.close(true);
  for (const { server, sockets } of [backend, quick]) {
    server.close();
    for (const socket of sockets) socket.destroy();
  }
});

test('a reset on one side resets the other', async () => {
  const accepted: Socket[] = [];
  const backend = await serve((socket) => void accepted.push(socket));
  const context = makeContext();
  const listener = await TcpListener.open(anyPort, context, inTurn([backend.key]));
  const client = dial(listener.port);
  const end = readAll(client);
  await until(() => accepted.length === 1, 'the connection');
  accepted[0]?.resetAndDestroy();
  assert.equal(await end, 'ECONNRESET');
  const other = dial(listener.port);
  await until(() => accepted.length === 2, 'the second connection');
  const backendEnd = readAll(accepted[1] as Socket);
  other.resetAndDestroy();
  assert.equal(await backendEnd, 'ECONNRESET');
  await until(() => context.sockets.open === 0, 'sockets given back');
  listener.close(true);
  backend.server.close();
});

test('an endpoint that refuses: the next one serves', async () => {
  const dead = await deadEndpoint();
  const alive = await serve((socket) => socket.end('alive'));
  const listener = await TcpListener.open(anyPort, makeContext(), inTurn([dead, alive.key]));
  assert.equal(await readAll(dial(listener.port)), 'alive');
  listener.close(true);
  alive.server.close();
});

test('nobody answers: the client is reset after four attempts, and the refusal counted', async () => {
  const dead = await deadEndpoint();
  const context = makeContext();
  const listener = await TcpListener.open(anyPort, context, inTurn([dead]));
  assert.equal(await readAll(dial(listener.port)), 'ECONNRESET');
  assert.deepEqual(context.refusals, ['no_endpoint_answers']);
  await until(() => context.sockets.open === 0, 'sockets given back');
  listener.close(true);
});

test('an endpoint that is silent: another one serves after 250 ms, and other clients do not wait at all', async () => {
  const silent = await silentEndpoint();
  const alive = await serve((socket) => socket.end('alive'));
  const listener = await TcpListener.open(anyPort, makeContext(), inTurn([silent.key, alive.key, alive.key]));
  const served: string[] = [];
  const client = async (name: string): Promise<void> => {
    assert.equal(await readAll(dial(listener.port)), 'alive');
    served.push(name);
  };
  const first = client('first');
  await until(() => listener.connections === 1, 'the first client');
  await Promise.all([first, client('second')]);
  assert.deepEqual(served, ['second', 'first']);
  listener.close(true);
  alive.server.close();
  silent.close();
});

test('two hundred clients that wait for a silent endpoint hold up nobody', async (t) => {
  // Long enough for a busy machine to serve others meanwhile.
  const [usual = 0] = dialTimeouts;
  (dialTimeouts as number[])[0] = 10_000;
  t.after(() => ((dialTimeouts as number[])[0] = usual));
  const silent = await silentEndpoint();
  const alive = await serve((socket) => socket.end('alive'));
  const context = makeContext();
  const dead = await TcpListener.open(anyPort, context, inTurn([silent.key]));
  const listener = await TcpListener.open(anyPort, context, inTurn([alive.key]));
  const waiting = Array.from({ length: 200 }, () => dial(dead.port));
  const ends = waiting.map(readAll);
  await until(() => dead.connections === 200, 'all of them to wait');
  for (let i = 0; i < 20; i++) assert.equal(await readAll(dial(listener.port)), 'alive');
  assert.equal(dead.connections, 200, 'they still wait');
  assert.deepEqual(new Set(await Promise.all(ends)), new Set(['ECONNRESET']));
  assert.equal(context.refusals.length, 200);
  dead.close(true);
  listener.close(true);
  silent.close();
  alive.server.close();
});

test('an endpoint that would lead back into the proxy is not dialled', async () => {
  const context = makeContext({ mayDial: () => false });
  const listener = await TcpListener.open(anyPort, context, inTurn(['127.0.0.1:1']));
  assert.equal(await readAll(dial(listener.port)), 'ECONNRESET');
  assert.deepEqual(context.refusals, ['no_endpoint_answers']);
  listener.close(true);
});

test('who may not come is reset', async () => {
  const context = makeContext();
  const listener = await TcpListener.open(anyPort, context, {
    choose: () => 'forbidden',
    forget: () => undefined,
  });
  assert.equal(await readAll(dial(listener.port)), 'ECONNRESET');
  assert.deepEqual(context.refusals, ['not_allowed']);
  listener.close(true);
});

test('no more sockets than the limit: those beyond are refused, and served again when there is room', async () => {
  const backend = await serve((socket) => socket.write('hello'));
  const context = makeContext({ limit: 4 });
  const listener = await TcpListener.open(anyPort, context, inTurn([backend.key]));
  const held = [dial(listener.port), dial(listener.port)];
  await Promise.all(held.map((socket) => new Promise((resolve) => socket.once('data', resolve))));
  assert.equal(context.sockets.open, 4);
  assert.equal(await readAll(dial(listener.port)), 'ECONNRESET');
  assert.deepEqual(context.refusals, ['socket_limit']);
  for (const socket of held) socket.destroy();
  for (const socket of backend.sockets) socket.destroy();
  await until(() => context.sockets.open === 0, 'room');
  const again = dial(listener.port);
  await new Promise((resolve) => again.once('data', resolve));
  again.destroy();
  listener.close(true);
  backend.server.close();
});

test('a listener that closes leaves connections alone; closing hard ends them', async () => {
  const backend = await serve((socket) => void socket.pipe(socket));
  const context = makeContext();
  const listener = await TcpListener.open(anyPort, context, inTurn([backend.key]));
  const client = dial(listener.port);
  client.write('1');
  await new Promise((resolve) => client.once('data', resolve));
  listener.close(false);
  client.write('2');
  await new Promise((resolve) => client.once('data', resolve));
  const end = readAll(client);
  listener.close(true);
  assert.equal(await end, 'ECONNRESET');
  await until(() => context.sockets.open === 0, 'sockets given back');
  backend.server.close();
});

test('IPv6', async () => {
  const backend = await serve((socket) => socket.end('six'), '::1');
  const listener = await TcpListener.open(
    { host: '::1', port: 0 },
    makeContext({ family: 'IPv6' }),
    inTurn([backend.key]),
  );
  assert.equal(await readAll(dial(listener.port, '::1')), 'six');
  listener.close(true);
  backend.server.close();
});

test('both ways at once, readers that come and go, an end while bytes wait: every byte arrives, in order', async () => {
  const size = 12 << 20;
  const sent = Buffer.alloc(size);
  for (let i = 0; i < size; i += 4) sent.writeUInt32LE(i, i);
  const digest = createHash('sha256').update(sent).digest('hex');
  const haltingly = (socket: Socket): Promise<string> =>
    new Promise((resolve, reject) => {
      const hash = createHash('sha256');
      let chunks = 0;
      socket.on('data', (chunk: Buffer) => {
        hash.update(chunk);
        if (++chunks % 16 !== 0) return;
        socket.pause();
        setTimeout(() => socket.resume(), 2);
      });
      socket.on('end', () => resolve(hash.digest('hex')));
      socket.on('error', reject);
    });
  const heard: Promise<string>[] = [];
  const backend = await serve((socket) => {
    heard.push(haltingly(socket));
    socket.end(sent);
  });
  const context = makeContext();
  const listener = await TcpListener.open(anyPort, context, inTurn([backend.key]));
  const clients = [dial(listener.port), dial(listener.port), dial(listener.port)];
  const answers = clients.map((client) => {
    client.end(sent);
    return haltingly(client);
  });
  for (const answer of [...(await Promise.all(answers)), ...(await Promise.all(heard))])
    assert.equal(answer, digest);
  await until(() => context.sockets.open === 0, 'sockets given back');
  listener.close(true);
  backend.server.close();
});

test('descriptors run out: clients wait or are refused, and are served when some are free again', async () => {
  const root = new URL('../../../src', import.meta.url).pathname;
  const backend = await serve((socket) => void socket.pipe(socket));
  const script = `
    import { TcpListener } from '${root}/dataplane/userspace/tcpListener.ts';
    import { SocketBudget } from '${root}/dataplane/userspace/socketBudget.ts';
    import { silentLogger as log } from '${root}/log/logger.ts';
    const refused = (why) => console.log(why);
    const context = { family: 'IPv4', log, sockets: new SocketBudget(9999, log), refused, mayDial: () => true };
    const endpoint = { ip: '127.0.0.1', port: ${backend.key.split(':')[1]} };
    const chooser = { choose: () => endpoint, forget() {} };
    console.log(String((await TcpListener.open({ host: '127.0.0.1', port: 0 }, context, chooser)).port));`;
  const node = `exec ${process.execPath} --import tsx --input-type=module -e "$1"`;
  const child = spawn('bash', ['-c', `ulimit -n 128; ${node}`, 'bash', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.on('data', (text: Buffer) => (said += text.toString()));
  await until(() => said.includes('\n'), 'its port');
  const clients = Array.from({ length: 200 }, () => dial(Number.parseInt(said)));
  for (const client of clients) {
    client.on('error', () => undefined);
    client.write('x');
  }
  await until(() => said.includes('socket_limit'), 'the shortage');
  assert.doesNotMatch(said, /no_endpoint_answers/);
  for (const client of clients) client.destroy();
  const answered = (): Promise<boolean> =>
    new Promise((resolve) => {
      const again = dial(Number.parseInt(said));
      again.write('y');
      again.on('data', () => {
        again.destroy();
        resolve(true);
      });
      again.on('error', () => resolve(false));
    });
  while (!(await answered()));
  child.kill();
  backend.server.close();
});
