/** A process that connections go through, and signals that end it. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer, connect, type Socket } from 'node:net';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

const server = createServer((socket) => void socket.on('error', () => undefined).pipe(socket));
let port = 0;

before(async () => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  port = (server.address() as { port: number }).port;
});
after(() => server.close());

const root = new URL('../../src', import.meta.url).pathname;

/** A listener with one endpoint. */
async function proxy(): Promise<{ child: ChildProcess; listener: number; said: () => string }> {
  const script = `
    import { TcpListener } from '${root}/dataplane/userspace/tcpListener.ts';
    import { openTcpConnections } from '${root}/dataplane/userspace/tcpConnection.ts';
    import { SocketBudget } from '${root}/dataplane/userspace/socketBudget.ts';
    import { silentLogger } from '${root}/log/logger.ts';
    import { drainBeforeEnd } from '${root}/proxy/drain.ts';
    const log = { ...silentLogger, info: (message) => console.log(message) };
    const context = { family: 'IPv4', log, sockets: new SocketBudget(100, log), refused() {}, mayDial: () => true, udpIdleTimeout: 1000 };
    const endpoint = { ip: '127.0.0.1', port: ${port} };
    const chooser = { choose: () => endpoint, forget() {} };
    const listener = await TcpListener.open({ host: '127.0.0.1', port: 0 }, context, chooser);
    drainBeforeEnd({ drain: () => listener.close(false) }, openTcpConnections, log);
    console.log(String(listener.port));`;
  const argv = ['--import', 'tsx', '--input-type=module', '-e', script];
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  let text = '';
  child.stdout.on('data', (more: Buffer) => (text += more.toString()));
  return { child, listener: Number(line.toString()), said: () => text };
}

async function talk(socket: Socket, text: string): Promise<string> {
  socket.write(text);
  const [answer] = (await once(socket, 'data')) as [Buffer];
  return answer.toString();
}

test('without connections a signal ends it at once, as if nobody had cared for the signal', async () => {
  const { child } = await proxy();
  child.kill('SIGTERM');
  assert.deepEqual(await once(child, 'exit'), [null, 'SIGTERM']);
});

test('an open connection ends by itself; new ones are refused meanwhile', async () => {
  const { child, listener } = await proxy();
  const client = connect(listener, '127.0.0.1');
  assert.equal(await talk(client, 'one'), 'one');
  child.kill('SIGTERM');
  const refused = (): Promise<boolean> =>
    new Promise((resolve) => {
      const late = connect(listener, '127.0.0.1', () => {
        late.destroy();
        resolve(false);
      }).on('error', () => resolve(true));
    });
  while (!(await refused()));
  assert.equal(await talk(client, 'two'), 'two');
  client.end();
  assert.deepEqual(await once(child, 'exit'), [null, 'SIGTERM']);
});

test('a second signal does not wait', async () => {
  const { child, listener, said } = await proxy();
  const client = connect(listener, '127.0.0.1').on('error', () => undefined);
  assert.equal(await talk(client, 'one'), 'one');
  const ended = once(child, 'close');
  child.kill('SIGINT');
  while (!said().includes('Ending: open connections have a moment')) await sleep(5);
  child.kill('SIGINT');
  assert.deepEqual(await ended, [null, 'SIGINT']);
  assert.doesNotMatch(said(), /still open/, 'the time of the connections was not over');
});
