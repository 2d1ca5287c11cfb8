/** One client, from its connection being taken to its end: the search for an endpoint that answers, and the relay. */
import {
  EPOLLERR,
  EPOLLHUP,
  EPOLLOUT,
  unwatchDescriptor,
  watchDescriptor,
  type Watcher,
} from '../../linux/epoll.ts';
import { SystemCallError, closeDescriptor } from '../../linux/ffi.ts';
import { connectTcp, peerAddress, shortages } from '../../linux/tcp.ts';
import type { Chooser, Peer, ProxyContext, Refusal } from './context.ts';
import { Relay, Side } from './tcpRelay.ts';

/** Milliseconds that an endpoint has to answer, by attempt; each attempt takes the next endpoint. */
export const dialTimeouts: readonly number[] = [250, 500, 1000, 2000];

let open = 0;

/** TCP connections of clients that this process serves now, whichever listener took them. */
export function openTcpConnections(): number {
  return open;
}

export class TcpConnection implements Peer, Watcher {
  readonly #owner: { forget(connection: TcpConnection): void };
  readonly #context: ProxyContext;
  readonly #chooser: Chooser;
  readonly #client: Side;
  /** The descriptor that is being connected; -1 = none. */
  #dialling = -1;
  #attempt = 0;
  #relay: Relay | undefined;
  #open = true;
  /** When the attempt is given up, in milliseconds of performance.now(). */
  deadline = 0;
  /** The deadline had passed at the last look. */
  late = false;

  /** @param client its descriptor; closed with the connection, and both sockets given back to the budget. */
  constructor(
    client: number,
    owner: { forget(connection: TcpConnection): void },
    context: ProxyContext,
    chooser: Chooser,
  ) {
    this.#owner = owner;
    this.#context = context;
    this.#chooser = chooser;
    this.#client = new Side(client, () => this.end());
    open++;
  }

  get remoteAddress(): string {
    return peerAddress(this.#client.fd);
  }

  /** Tries the next endpoint; gives the client up where there is none, or after the last attempt. */
  dial(): void {
    for (;;) {
      const timeout = dialTimeouts[this.#attempt];
      const endpoint = timeout === undefined ? undefined : this.#chooser.choose(this, this.#attempt > 0);
      if (endpoint === 'forbidden') {
        this.#refuse('not_allowed');
        return;
      }
      if (endpoint === undefined || timeout === undefined) {
        this.#refuse('no_endpoint_answers');
        return;
      }
      this.#attempt++;
      if (!this.#context.mayDial(endpoint, 'TCP')) continue;
      let fd = -1;
      try {
        fd = connectTcp(endpoint.ip, endpoint.port);
        watchDescriptor(fd, EPOLLOUT, this);
      } catch (error) {
        if (fd >= 0) closeDescriptor(fd);
        if (error instanceof SystemCallError && shortages.has(error.errno)) {
          this.#context.sockets.full(error.message);
          this.#refuse('socket_limit');
          return;
        }
        // No route, or no port left: as if the endpoint had refused.
        continue;
      }
      this.#dialling = fd;
      this.deadline = performance.now() + timeout;
      this.late = false;
      awaitDial(this, this.#attempt - 1);
      return;
    }
  }

  /** The attempt has come to an end, one way or the other. */
  ready(events: number): void {
    const fd = this.#stopDialling();
    if ((events & (EPOLLERR | EPOLLHUP)) !== 0 || (events & EPOLLOUT) === 0) {
      closeDescriptor(fd);
      this.dial();
      return;
    }
    const backend = new Side(fd);
    this.#relay = new Relay(this.#client, backend, () => this.#ended());
  }

  /** The endpoint has not answered in time. */
  giveUpDialling(): void {
    closeDescriptor(this.#stopDialling());
    this.dial();
  }

  /** Ends both sides with a reset. */
  end(): void {
    if (!this.#open) return;
    if (this.#relay !== undefined) {
      this.#relay.reset();
      return;
    }
    if (this.#dialling >= 0) closeDescriptor(this.#stopDialling());
    this.#client.close(true);
    this.#ended();
  }

  #stopDialling(): number {
    const fd = this.#dialling;
    this.#dialling = -1;
    unwatchDescriptor(fd);
    dialling[this.#attempt - 1]?.delete(this);
    return fd;
  }

  #refuse(why: Refusal): void {
    this.#context.refused(why);
    this.end();
  }

  #ended(): void {
    this.#open = false;
    open--;
    this.#context.sockets.give(2);
    this.#owner.forget(this);
  }
}

/** Connections that wait for an endpoint's answer, by attempt: in each set they are in the order of their deadlines. */
const dialling: readonly Set<TcpConnection>[] = dialTimeouts.map(() => new Set());
/** Milliseconds between two looks for those that have waited long enough. */
const lookInterval = 25;
let looking: NodeJS.Timeout | undefined;

function awaitDial(connection: TcpConnection, attempt: number): void {
  dialling[attempt]?.add(connection);
  looking ??= setInterval(giveUpLate, lookInterval);
}

function giveUpLate(): void {
  const now = performance.now();
  let some = false;
  for (const connections of dialling) {
    for (const connection of connections) {
      if (connection.deadline > now) {
        some = true;
        break;
      }
      // After a pause of this process an answer may be there that has not been read yet: it has one more look.
      if (connection.late) connection.giveUpDialling();
      else {
        connection.late = true;
        some = true;
      }
    }
  }
  if (some) return;
  clearInterval(looking);
  looking = undefined;
}
