/** Takes TCP connections on one port, finds an endpoint that answers for each, and joins the two. */
import { EPOLLIN, changeWatch, unwatchDescriptor, watchDescriptor, type Watcher } from '../../linux/epoll.ts';
import { closeDescriptor, describeErrno } from '../../linux/ffi.ts';
import { EAGAIN, acceptTcp, listenTcp, localPort, resetTcp, shortages } from '../../linux/tcp.ts';
import type { Chooser, ListenAddress, Listener, ProxyContext } from './context.ts';
import { TcpConnection } from './tcpConnection.ts';

/** The kernel cuts it to net.core.somaxconn. */
const backlog = 4096;
/** Connections that are taken at once, before those that already talk have their turn. */
const acceptAtOnce = 32;
/** Milliseconds until accept(2) is tried again where descriptors ran out. */
const acceptPause = 100;

export class TcpListener implements Listener, Watcher {
  readonly port: number;
  readonly #context: ProxyContext;
  readonly #chooser: Chooser;
  readonly #fd: number;
  readonly #connections = new Set<TcpConnection>();
  #pause: NodeJS.Timeout | undefined;
  #open = true;

  private constructor(fd: number, context: ProxyContext, chooser: Chooser) {
    this.#fd = fd;
    this.#context = context;
    this.#chooser = chooser;
    this.port = localPort(fd);
    try {
      watchDescriptor(fd, EPOLLIN, this);
    } catch (error) {
      closeDescriptor(fd);
      throw error;
    }
  }

  /** Throws the SystemCallError of bind(2), listen(2) or epoll_ctl(2), e.g. EADDRINUSE. */
  static open({ host, port }: ListenAddress, context: ProxyContext, chooser: Chooser): Promise<TcpListener> {
    return new Promise((resolve) => {
      resolve(new TcpListener(listenTcp(host, port, backlog), context, chooser));
    });
  }

  /** Established connections, and those that wait for an endpoint. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Connections wait to be taken. */
  ready(): void {
    for (let i = 0; i < acceptAtOnce; i++) {
      const client = acceptTcp(this.#fd);
      if (client >= 0) this.#take(client);
      else if (client === -EAGAIN) return;
      else if (shortages.has(-client)) {
        this.#wait(describeErrno(-client)[1]);
        return;
      }
      // Otherwise a client was gone before it was taken.
    }
  }

  endpointsChanged(): void {
    // What is connected to an endpoint that leaves is drained: it stays until it ends by itself.
  }

  close(hard: boolean): void {
    if (this.#open) {
      this.#open = false;
      clearTimeout(this.#pause);
      unwatchDescriptor(this.#fd);
      closeDescriptor(this.#fd);
    }
    if (hard) for (const connection of this.#connections) connection.end();
  }

  forget(connection: TcpConnection): void {
    this.#connections.delete(connection);
  }

  /** Descriptors ran out: the kernel keeps clients waiting until some are free again. */
  #wait(why: string): void {
    this.#context.refused('socket_limit');
    this.#context.sockets.full(why);
    // It stays watched: to begin anew could fail, at epoll's own limit.
    changeWatch(this.#fd, 0);
    this.#pause = setTimeout(() => changeWatch(this.#fd, EPOLLIN), acceptPause);
  }

  #take(client: number): void {
    if (!this.#context.sockets.take(2)) {
      this.#context.refused('socket_limit');
      resetTcp(client);
      return;
    }
    let connection: TcpConnection;
    try {
      connection = new TcpConnection(client, this, this.#context, this.#chooser);
    } catch (error) {
      // It cannot be watched: epoll has a limit of its own (fs.epoll.max_user_watches).
      this.#context.sockets.give(2);
      this.#context.refused('socket_limit');
      this.#context.sockets.full(error instanceof Error ? error.message : String(error));
      resetTcp(client);
      return;
    }
    this.#connections.add(connection);
    connection.dial();
  }
}
