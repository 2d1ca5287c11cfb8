import assert from 'node:assert/strict';
import { createSocket, type Socket } from 'node:dgram';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { UdpListener } from '../../../src/dataplane/userspace/udpListener.ts';
import { inTurn, makeContext, until } from './support.ts';

const anyPort = { host: '127.0.0.1', port: 0 };

/** Answers every datagram with its name, the sender's port and the datagram's length. */
async function echo(name: string, host = '127.0.0.1'): Promise<{ socket: Socket; key: string }> {
  const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
  socket.on('message', (datagram, from) =>
    socket.send(`${name} ${from.port} ${datagram.length}`, from.port, from.address),
  );
  await new Promise<void>((resolve) => socket.bind(0, host, resolve));
  const { port } = socket.address();
  return { socket, key: host.includes(':') ? `[${host}]:${port}` : `${host}:${port}` };
}

class Client {
  readonly socket: Socket;
  readonly answers: string[] = [];
  readonly #port: number;
  readonly #host: string;

  constructor(port: number, host = '127.0.0.1') {
    this.socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
    this.socket.on('message', (answer) => void this.answers.push(answer.toString()));
    this.#port = port;
    this.#host = host;
  }

  /** Sends one datagram; resolves with the answer, or `silence` if there is none after `patience` ms. */
  async ask(datagram: string | Buffer = '?', patience = 30_000): Promise<string> {
    const before = this.answers.length;
    this.socket.send(datagram, this.#port, this.#host);
    const end = performance.now() + patience;
    while (this.answers.length === before && performance.now() < end) await sleep(2);
    return this.answers[before] ?? 'silence';
  }
}

test('a client has one session: the same endpoint, by the same socket; another client has another', async () => {
  const [a, b] = [await echo('a'), await echo('b')];
  const context = makeContext();
  const listener = await UdpListener.open(anyPort, context, inTurn([a.key, b.key]));
  const [one, two] = [new Client(listener.port), new Client(listener.port)];
  const first = await one.ask();
  assert.equal(await one.ask(), first);
  assert.notEqual((await two.ask()).split(' ')[0], first.split(' ')[0]);
  assert.equal(listener.sessions, 2);
  assert.equal(context.sockets.open, 2);
  assert.match(await one.ask(Buffer.alloc(60_000)), / 60000$/, 'a large datagram is not cut');
  listener.close();
  assert.equal(context.sockets.open, 0);
  for (const { socket } of [a, b, one, two]) socket.close();
});

test('a session ends after its time without datagrams, and the next datagram begins another', async () => {
  const [a, b] = [await echo('a'), await echo('b')];
  const context = makeContext({ udpIdleTimeout: 2000 });
  const listener = await UdpListener.open(anyPort, context, inTurn([a.key, b.key]));
  const client = new Client(listener.port);
  assert.match(await client.ask(), /^a/);
  await until(() => listener.sessions === 0 && context.sockets.open === 0, 'the end of the session');
  assert.match(await client.ask(), /^b/);
  listener.close();
  for (const { socket } of [a, b, client]) socket.close();
});

test('an endpoint that leaves takes its sessions along at once, and no others', async () => {
  const [a, b] = [await echo('a'), await echo('b')];
  const listener = await UdpListener.open(anyPort, makeContext(), inTurn([a.key, b.key, b.key]));
  const [one, two] = [new Client(listener.port), new Client(listener.port)];
  assert.match(await one.ask(), /^a/);
  const before = await two.ask();
  listener.endpointsChanged((key) => key === b.key);
  assert.equal(listener.sessions, 1);
  assert.match(await one.ask(), /^b/);
  assert.equal(await two.ask(), before);
  listener.close();
  for (const { socket } of [a, b, one, two]) socket.close();
});

test('an endpoint that refuses ends the session; the next datagram goes to another', async () => {
  const [dead, b] = [await echo('dead', '127.0.99.2'), await echo('b')];
  dead.socket.close();
  const chooser = inTurn([dead.key, b.key]);
  const listener = await UdpListener.open(anyPort, makeContext(), chooser);
  const client = new Client(listener.port);
  client.socket.send('?', listener.port, '127.0.0.1');
  await until(() => chooser.forgotten > 0, 'the refusal');
  assert.match(await client.ask(), /^b/);
  listener.close();
  for (const { socket } of [b, client]) socket.close();
});

test('no more sockets than the limit', async () => {
  const a = await echo('a');
  const context = makeContext({ limit: 1 });
  const listener = await UdpListener.open(anyPort, context, inTurn([a.key]));
  const [one, two] = [new Client(listener.port), new Client(listener.port)];
  assert.match(await one.ask(), /^a/);
  assert.equal(await two.ask('?', 500), 'silence');
  assert.deepEqual(context.refusals, ['socket_limit']);
  listener.close();
  for (const { socket } of [a, one, two]) socket.close();
});

test('without an endpoint a datagram is lost, and counted', async () => {
  const context = makeContext();
  const listener = await UdpListener.open(anyPort, context, inTurn([]));
  const client = new Client(listener.port);
  client.socket.send('?', listener.port, '127.0.0.1');
  await until(() => context.refusals.length === 1, 'the refusal');
  assert.equal(context.sockets.open, 0);
  listener.close();
  client.socket.close();
});

test('IPv6', async () => {
  const a = await echo('a', '::1');
  const context = makeContext({ family: 'IPv6' });
  const listener = await UdpListener.open({ host: '::1', port: 0 }, context, inTurn([a.key]));
  const client = new Client(listener.port, '::1');
  assert.match(await client.ask(), /^a/);
  listener.close();
  for (const { socket } of [a, client]) socket.close();
});
