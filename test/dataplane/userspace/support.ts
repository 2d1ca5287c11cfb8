/** Listeners, clients and endpoints on loopback. */
import { createServer, connect, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Family } from '../../../src/api/objects.ts';
import type { Chooser, ProxyContext, Refusal } from '../../../src/dataplane/userspace/context.ts';
import { SocketBudget } from '../../../src/dataplane/userspace/socketBudget.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import type { Endpoint } from '../../../src/services/types.ts';
import { makeEndpoint } from '../iptables/routes.ts';

export interface TestContext extends ProxyContext {
  readonly refusals: Refusal[];
}

export function makeContext(
  options: {
    family?: Family;
    limit?: number;
    udpIdleTimeout?: number;
    mayDial?: ProxyContext['mayDial'];
  } = {},
): TestContext {
  const refusals: Refusal[] = [];
  return {
    family: options.family ?? 'IPv4',
    log: silentLogger,
    sockets: new SocketBudget(options.limit ?? 1000, silentLogger),
    refused: (why) => void refusals.push(why),
    mayDial: options.mayDial ?? (() => true),
    udpIdleTimeout: options.udpIdleTimeout ?? 60_000,
    refusals,
  };
}

/** Chooses these in turn. */
export function inTurn(keys: readonly string[]): Chooser & { forgotten: number } {
  const endpoints = keys.map(makeEndpoint);
  let next = 0;
  return {
    forgotten: 0,
    choose: (): Endpoint | undefined => endpoints[next++ % endpoints.length],
    forget() {
      this.forgotten++;
    },
  };
}

/** A TCP server; resolves with its port. */
export async function serve(
  onConnection: (socket: Socket) => void,
  host = '127.0.0.1',
): Promise<{ server: Server; key: string; sockets: Set<Socket> }> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
    onConnection(socket);
  });
  await new Promise<void>((resolve) => server.listen({ host, port: 0 }, resolve));
  const { port } = server.address() as { port: number };
  return { server, key: host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`, sockets };
}

/** Where nobody listens: others' listeners are on 127.0.0.1, so none can get the port that was given back here. */
export async function deadEndpoint(): Promise<string> {
  const { server, key } = await serve(() => undefined, '127.0.99.2');
  await new Promise((resolve) => server.close(resolve));
  return key;
}

export function dial(port: number, host = '127.0.0.1'): Socket {
  return connect({ host, port, allowHalfOpen: true });
}

/** All that comes until the end of that way, or the code of the error. */
export function readAll(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
    });
    socket.on('end', () => resolve(text));
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'));
  });
}

/** Waits until it is true; throws after `patience` ms. */
export async function until(isTrue: () => boolean, what: string, patience = 60_000): Promise<void> {
  const end = performance.now() + patience;
  while (!isTrue()) {
    if (performance.now() > end) throw new Error(`waited in vain for: ${what}`);
    await sleep(5);
  }
}
