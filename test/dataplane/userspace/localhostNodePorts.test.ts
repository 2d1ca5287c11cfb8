import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { LocalhostNodePorts } from '../../../src/dataplane/userspace/localhostNodePorts.ts';
import { SocketBudget } from '../../../src/dataplane/userspace/socketBudget.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import type { Route } from '../../../src/services/types.ts';
import { makeRoute, makeTable } from '../iptables/routes.ts';
import { dial, readAll, serve, until } from './support.ts';

/** Ports that were free a moment ago; nobody else listens on this loopback address. */
const host = '127.0.99.1';
const [port, otherPort] = await Promise.all([freePort(), freePort()]);

async function freePort(): Promise<number> {
  const { server, key } = await serve(() => undefined, host);
  await new Promise((resolve) => server.close(resolve));
  return Number(key.split(':')[1]);
}

function nodePorts(): { ports: LocalhostNodePorts; sockets: SocketBudget; errors: string[] } {
  const errors: string[] = [];
  const sockets = new SocketBudget(100, silentLogger);
  const ports = new LocalhostNodePorts({
    family: 'IPv4',
    log: { ...silentLogger, error: (message) => void errors.push(message) },
    sockets,
    report: () => undefined,
    udpIdleTimeout: 60_000,
    host,
  });
  return { ports, sockets, errors };
}

function route(endpoints: readonly string[], nodePort = port, name = 'ns/s'): Route {
  return makeRoute({ name, clusterIP: '10.96.0.1', port: 80, nodePort, endpoints });
}

async function ask(nodePort: number): Promise<string> {
  const socket = dial(nodePort, host);
  const answer = await readAll(socket);
  socket.destroy();
  return answer;
}

test('a node port answers on localhost while its service has endpoints', async () => {
  const a = await serve((socket) => socket.end('a'));
  const b = await serve((socket) => socket.end('b'));
  const { ports, sockets } = nodePorts();
  const [first, second, none] = [route([a.key]), route([b.key]), route([])];
  await ports.apply([{ id: 's', before: undefined, after: first }]);
  assert.equal(await ask(port), 'a');
  await ports.apply([{ id: 's', before: first, after: second }]);
  assert.equal(await ask(port), 'b');
  await ports.apply([{ id: 's', before: second, after: none }]);
  assert.equal(await ask(port), 'ECONNREFUSED');
  await ports.applyAll(new Map([['s', first]]));
  assert.equal(await ask(port), 'a');
  await ports.applyAll(new Map());
  assert.equal(await ask(port), 'ECONNREFUSED');
  await until(() => sockets.open === 0, 'sockets given back');
  ports.close();
  a.server.close();
  b.server.close();
});

test('a node port may move from one service port to another in one change', async () => {
  const a = await serve((socket) => socket.end('a'));
  const b = await serve((socket) => socket.end('b'));
  const { ports, errors } = nodePorts();
  const before = route([a.key]);
  await ports.apply([{ id: 'one', before: undefined, after: before }]);
  await ports.apply([
    { id: 'two', before: undefined, after: route([b.key], port, 'ns/two') },
    { id: 'one', before, after: route([a.key], otherPort) },
  ]);
  assert.equal(await ask(port), 'b');
  assert.equal(await ask(otherPort), 'a');
  assert.deepEqual(errors, []);
  ports.close();
  a.server.close();
  b.server.close();
});

test('a port that somebody else has costs itself alone', async () => {
  const a = await serve((socket) => socket.end('a'));
  const other = nodePorts();
  await other.ports.apply([{ id: 's', before: undefined, after: route([a.key]) }]);
  const { ports, errors, sockets } = nodePorts();
  await ports.apply([
    { id: 's', before: undefined, after: route([a.key]) },
    { id: 't', before: undefined, after: route([a.key], otherPort) },
  ]);
  assert.equal(errors.length, 1);
  assert.equal(await ask(otherPort), 'a');
  other.ports.close();
  await ports.apply([{ id: 's', before: undefined, after: route([a.key]) }]);
  assert.equal(await ask(port), 'a');
  ports.close();
  await until(() => sockets.open === 0, 'sockets given back');
  a.server.close();
});

/** The next that comes. */
async function next(socket: Socket): Promise<string> {
  const [bytes] = (await once(socket, 'data')) as [Buffer];
  return bytes.toString();
}

/** Says who answers, and sends everything back. */
function talker(name: string): Promise<Awaited<ReturnType<typeof serve>>> {
  return serve((socket) => {
    socket.write(name);
    socket.pipe(socket);
  });
}

test('TCP connections to an endpoint that leaves live on; with the last endpoint, and with the Service, too', async () => {
  const [a, b] = [await talker('a'), await talker('b')];
  const { ports, sockets } = nodePorts();
  const [both, first, none] = [route([a.key, b.key]), route([a.key]), route([])];
  await ports.apply([{ id: 's', before: undefined, after: first }]);
  const held = dial(port, host);
  assert.equal(await next(held), 'a');
  for (const [before, after] of [
    [first, both],
    [both, route([b.key])],
    [first, none],
    [none, undefined],
  ] as const) {
    await ports.apply([{ id: 's', before, after }]);
    held.write('still here');
    assert.equal(await next(held), 'still here');
  }
  assert.equal(await ask(port), 'ECONNREFUSED');
  held.end();
  await until(() => sockets.open === 0, 'sockets given back');
  ports.close();
  a.server.close();
  b.server.close();
});

test('UDP sessions to an endpoint that leaves end at once, and the next datagram goes to another', async () => {
  const servers = ['a', 'b'].map((name) => {
    const socket = createSocket('udp4');
    socket.on('message', (_, from) => socket.send(name, from.port, from.address));
    return socket;
  });
  const keys = await Promise.all(
    servers.map(async (socket) => {
      await once(socket.bind(0, '127.0.0.1'), 'listening');
      return `127.0.0.1:${socket.address().port}`;
    }),
  );
  const { ports, sockets } = nodePorts();
  const udp = (endpoints: readonly string[]): Route =>
    makeRoute({ name: 'ns/s', protocol: 'UDP', clusterIP: '10.96.0.1', port: 80, nodePort: port, endpoints });
  const client = createSocket('udp4');
  const talk = async (): Promise<string> => {
    client.send('?', port, host);
    const [answer] = (await once(client, 'message')) as [Buffer];
    return answer.toString();
  };
  await ports.applyAll(new Map([['s', udp([keys[0] as string])]]));
  assert.equal(await talk(), 'a');
  await ports.applyAll(new Map([['s', udp(keys)]]));
  assert.equal(await talk(), 'a', 'its session goes on');
  await ports.applyAll(new Map([['s', udp([keys[1] as string])]]));
  await until(() => sockets.open === 1, 'the session to be gone');
  assert.equal(await talk(), 'b');
  ports.close();
  for (const socket of [client, ...servers]) socket.close();
});

test('a planned end: new connections are refused, open ones go on, and no change opens a port again', async () => {
  const a = await talker('a');
  const { ports, sockets } = nodePorts();
  await ports.apply([{ id: 's', before: undefined, after: route([a.key]) }]);
  const held = dial(port, host);
  assert.equal(await next(held), 'a');
  ports.drain();
  assert.equal(await ask(port), 'ECONNREFUSED');
  await ports.applyAll(new Map([['t', route([a.key], port + 1, 'ns/t')]]));
  assert.equal(await ask(port + 1), 'ECONNREFUSED');
  held.write('still here');
  assert.equal(await next(held), 'still here');
  held.end();
  await until(() => sockets.open === 1, 'its end');
  ports.close();
  assert.equal(sockets.open, 0);
  a.server.close();
});

test('counts connections, endpoints tried, affinity and refusals', async () => {
  const a = await serve((socket) => socket.end('a'));
  const dead = await serve(() => undefined);
  dead.server.close();
  const { ports } = nodePorts();
  const id = 's';
  const sticky = makeRoute({
    name: 'ns/s',
    clusterIP: '10.96.0.1',
    port: 80,
    nodePort: port,
    affinitySeconds: 60,
    endpoints: [a.key],
  });
  const none = { ...sticky, ...route([]) };
  await ports.apply([{ id, before: undefined, after: sticky }]);
  assert.equal(await ask(port), 'a');
  // What it has counted stays while nobody can be served.
  await ports.apply([{ id, before: sticky, after: none }]);
  await ports.apply([{ id, before: none, after: sticky }]);
  assert.equal(await ask(port), 'a');
  assert.equal(await ask(port), 'a');
  const lost = { ...sticky, ...route([dead.key]) };
  await ports.apply([{ id, before: sticky, after: lost }]);
  assert.equal(await ask(port), 'ECONNRESET');
  const counted = async (): Promise<string[]> => {
    const readings = await ports.counters.read(makeTable([]));
    return readings.map(
      ({ meaning, packets }) =>
        `${meaning.kind} ${meaning.kind === 'endpoint' ? meaning.endpoint : meaning.kind === 'refused' ? meaning.reason : ''}: ${packets}`,
    );
  };
  assert.deepEqual(await counted(), [
    'service : 4',
    `endpoint ${dead.key}: 4`,
    'refused no_endpoint_answers: 1',
  ]);
  await ports.apply([{ id, before: lost, after: undefined }]);
  assert.deepEqual(await counted(), ['refused no_endpoint_answers: 1']);
  ports.close();
  a.server.close();
});
