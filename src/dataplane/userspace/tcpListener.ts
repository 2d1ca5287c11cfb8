/** Takes TCP connections on one port, finds an endpoint that answers for each, and joins the two. */
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Chooser, ListenAddress, Listener, ProxyContext } from './context.ts';
import { joinSockets } from './tcpRelay.ts';

/** Milliseconds that an endpoint has to answer, by attempt; each attempt takes the next endpoint. */
export const dialTimeouts: readonly number[] = [250, 500, 1000, 2000];

const backlog = 1024;
/** Milliseconds of silence after which the kernel asks whether the other side is still there. */
const keepAliveDelay = 60_000;
/** Milliseconds of one turn of the event loop that may go into dialling. */
const dialSlice = 5;

/** Connections that wait for their dial: a burst of them must not hold up those that already talk. */
const waiting: Connection[] = [];
let scheduled = false;

function dialLater(connection: Connection): void {
  waiting.push(connection);
  if (scheduled) return;
  scheduled = true;
  setImmediate(dialSome);
}

function dialSome(): void {
  const end = performance.now() + dialSlice;
  let done = 0;
  while (done < waiting.length) {
    (waiting[done] as Connection).dial();
    done++;
    if ((done & 7) === 0 && performance.now() > end) break;
  }
  waiting.splice(0, done);
  scheduled = waiting.length > 0;
  if (scheduled) setImmediate(dialSome);
}

/** One client and the endpoint that serves it. */
class Connection {
  readonly client: Socket;
  readonly #listener: TcpListener;
  #backend: Socket | undefined;
  #attempt = 0;
  #joined = false;

  constructor(client: Socket, listener: TcpListener) {
    this.client = client;
    this.#listener = listener;
    client.on('error', ignore);
    client.once('close', () => {
      listener.context.sockets.give(this.#joined ? 1 : 2);
      listener.forget(this);
      if (!this.#joined) this.#backend?.destroy();
    });
  }

  /** Tries the next endpoint; gives the client up where there is none, or after the last attempt. */
  dial(): void {
    if (this.client.destroyed) return;
    const { context, chooser } = this.#listener;
    const timeout = dialTimeouts[this.#attempt];
    const endpoint = timeout === undefined ? undefined : chooser.choose(this.client, this.#attempt > 0);
    if (endpoint === 'forbidden') {
      context.refused('not_allowed');
      this.client.resetAndDestroy();
      return;
    }
    if (endpoint === undefined || timeout === undefined) {
      context.refused('no_endpoint_answers');
      this.client.resetAndDestroy();
      return;
    }
    this.#attempt++;
    if (!context.mayDial(endpoint, 'TCP')) {
      dialLater(this);
      return;
    }
    const backend = connect({
      host: endpoint.ip,
      port: endpoint.port,
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: keepAliveDelay,
    });
    this.#backend = backend;
    const failed = (): void => {
      backend.off('connect', connected);
      backend.off('timeout', failed);
      backend.off('error', failed);
      backend.on('error', ignore);
      backend.destroy();
      this.#backend = undefined;
      this.dial();
    };
    const connected = (): void => {
      backend.off('timeout', failed);
      backend.off('error', failed);
      backend.setTimeout(0);
      this.#join(backend);
    };
    backend.once('connect', connected);
    backend.once('error', failed);
    backend.setTimeout(timeout, failed);
  }

  #join(backend: Socket): void {
    if (this.client.destroyed) {
      backend.on('error', ignore);
      backend.resetAndDestroy();
      return;
    }
    this.#joined = true;
    const { sockets } = this.#listener.context;
    backend.once('close', () => sockets.give(1));
    joinSockets(this.client, backend);
  }

  end(): void {
    this.client.resetAndDestroy();
    this.#backend?.resetAndDestroy();
  }
}

export class TcpListener implements Listener {
  readonly context: ProxyContext;
  readonly chooser: Chooser;
  readonly #server: Server;
  readonly #connections = new Set<Connection>();

  private constructor(context: ProxyContext, chooser: Chooser) {
    this.context = context;
    this.chooser = chooser;
    this.#server = createServer(
      {
        allowHalfOpen: true,
        pauseOnConnect: true,
        noDelay: true,
        keepAlive: true,
        keepAliveInitialDelay: keepAliveDelay,
      },
      (client) => this.#take(client),
    );
  }

  /** Rejects with the error of listen(2), e.g. EADDRINUSE. */
  static async open(address: ListenAddress, context: ProxyContext, chooser: Chooser): Promise<TcpListener> {
    const listener = new TcpListener(context, chooser);
    const server = listener.#server;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ ...address, ipv6Only: context.family === 'IPv6', backlog, exclusive: true }, () => {
        server.off('error', reject);
        resolve();
      });
    });
    // accept(2) fails where descriptors run out; the listener goes on when some are free again.
    server.on('error', (error) => {
      context.refused('socket_limit');
      context.sockets.full(error.message);
    });
    return listener;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  /** Established connections, and those that wait for an endpoint. */
  get connections(): number {
    return this.#connections.size;
  }

  endpointsChanged(): void {
    // What is connected to an endpoint that leaves is drained: it stays until it ends by itself.
  }

  close(hard: boolean): void {
    this.#server.close();
    if (hard) for (const connection of this.#connections) connection.end();
  }

  forget(connection: Connection): void {
    this.#connections.delete(connection);
  }

  #take(client: Socket): void {
    const { context } = this;
    if (!context.sockets.take(2)) {
      context.refused('socket_limit');
      client.on('error', ignore);
      client.resetAndDestroy();
      return;
    }
    const connection = new Connection(client, this);
    this.#connections.add(connection);
    dialLater(connection);
  }
}

function ignore(): void {
  // Whatever ends a socket, its `close` follows, and that is acted on.
}
