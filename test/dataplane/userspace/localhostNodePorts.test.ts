import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LocalhostNodePorts } from '../../../src/dataplane/userspace/localhostNodePorts.ts';
import { SocketBudget } from '../../../src/dataplane/userspace/socketBudget.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import type { Route } from '../../../src/services/types.ts';
import { makeRoute } from '../iptables/routes.ts';
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
