/**
 * Passes UDP datagrams on: a client (address and port) has a session with one endpoint, which is a connected socket,
 * so that answers are known by the socket they come from. They leave through the listening socket, and the redirect's
 * conntrack entry gives them the address that the client has asked.
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import type { Endpoint } from '../../services/types.ts';
import type { Chooser, ListenAddress, Listener, ProxyContext } from './context.ts';
import { UdpSessionTable } from './udpSessions.ts';

/** Datagrams that wait while a session's socket is being connected. */
const queueLimit = 32;
/** Of one listening socket: one flood of clients must not take all sockets. */
export const sessionLimit = 8192;
/** Sockets that are closed in one turn of the event loop. */
const endAtOnce = 256;

interface Session {
  readonly client: string;
  readonly address: string;
  readonly port: number;
  readonly endpoint: Endpoint;
  readonly socket: Socket;
  /** Undefined once connected. */
  queue: Buffer[] | undefined;
  open: boolean;
}

export class UdpListener implements Listener {
  readonly #context: ProxyContext;
  readonly #chooser: Chooser;
  readonly #socket: Socket;
  readonly #sessions: UdpSessionTable<Session>;
  readonly #timer: NodeJS.Timeout;
  #open = true;

  private constructor(context: ProxyContext, chooser: Chooser) {
    this.#context = context;
    this.#chooser = chooser;
    this.#sessions = new UdpSessionTable(context.udpIdleTimeout);
    this.#socket = makeSocket(context.family === 'IPv6');
    const period = Math.min(Math.max(context.udpIdleTimeout / 4, 20), 10_000);
    this.#timer = setInterval(() => this.#endAll(this.#sessions.sweep(performance.now())), period).unref();
  }

  /** Rejects with the error of bind(2), e.g. EADDRNOTAVAIL. */
  static async open(address: ListenAddress, context: ProxyContext, chooser: Chooser): Promise<UdpListener> {
    const listener = new UdpListener(context, chooser);
    const socket = listener.#socket;
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once('error', reject);
        socket.bind({ address: address.host, port: address.port, exclusive: true }, () => {
          socket.off('error', reject);
          resolve();
        });
      });
    } catch (error) {
      listener.close();
      throw error;
    }
    socket.on('error', (error) => context.log.warn('A UDP listener had an error', { err: error.message }));
    socket.on('message', (datagram, from) => listener.#receive(datagram, from));
    return listener;
  }

  get port(): number {
    return this.#open ? this.#socket.address().port : 0;
  }

  get sessions(): number {
    return this.#sessions.size;
  }

  /** Ends sessions with endpoints that left: the next datagram of their clients goes to another. */
  endpointsChanged(serves: (key: string) => boolean): void {
    this.#endAll(this.#sessions.sweep(performance.now(), ({ endpoint }) => !serves(endpoint.key)));
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    clearInterval(this.#timer);
    this.#endAll(this.#sessions.clear());
    this.#socket.close();
  }

  #receive(datagram: Buffer, from: RemoteInfo): void {
    const client = `${from.address} ${from.port}`;
    const session = this.#sessions.use(client, performance.now()) ?? this.#begin(client, from);
    if (session === undefined) return;
    if (session.queue !== undefined) {
      if (session.queue.length < queueLimit) session.queue.push(datagram);
      return;
    }
    this.#send(session, datagram);
  }

  #send(session: Session, datagram: Buffer): void {
    session.socket.send(datagram, (error) => {
      // ECONNREFUSED is the answer to an earlier datagram; the others are lost as datagrams may be.
      if (error !== null) this.#failed(session);
    });
  }

  #begin(client: string, from: RemoteInfo): Session | undefined {
    const { sockets, refused, mayDial } = this.#context;
    if (this.#sessions.size >= sessionLimit || !sockets.take(1)) {
      refused('socket_limit');
      if (this.#sessions.size >= sessionLimit) sockets.full(`${sessionLimit} UDP sessions of one listener`);
      return undefined;
    }
    const endpoint = this.#chooser.choose({ remoteAddress: from.address }, false);
    if (endpoint === undefined || endpoint === 'forbidden' || !mayDial(endpoint, 'UDP')) {
      sockets.give(1);
      refused(endpoint === 'forbidden' ? 'not_allowed' : 'no_endpoint_answers');
      return undefined;
    }
    const socket = makeSocket(isIPv6(endpoint.ip));
    const session: Session = {
      client,
      address: from.address,
      port: from.port,
      endpoint,
      socket,
      queue: [],
      open: true,
    };
    socket.on('error', () => this.#failed(session));
    socket.on('message', (datagram) => {
      this.#sessions.use(client, performance.now());
      if (this.#open) this.#socket.send(datagram, session.port, session.address, ignore);
    });
    socket.connect(endpoint.port, endpoint.ip, () => {
      const { queue = [] } = session;
      session.queue = undefined;
      if (session.open) for (const datagram of queue) this.#send(session, datagram);
    });
    const before = this.#sessions.add(client, session, performance.now());
    if (before !== undefined) this.#end(before);
    return session;
  }

  /** The endpoint refuses: with affinity, too, the client's next datagram goes to another. */
  #failed(session: Session): void {
    if (!session.open) return;
    this.#sessions.remove(session.client, session);
    this.#end(session);
    this.#chooser.forget({ remoteAddress: session.address });
  }

  /** In slices, as thousands of sockets may leave with one endpoint. */
  #endAll(sessions: readonly Session[]): void {
    for (const session of sessions.slice(0, endAtOnce)) this.#end(session);
    if (sessions.length > endAtOnce) setImmediate(() => this.#endAll(sessions.slice(endAtOnce)));
  }

  #end(session: Session): void {
    if (!session.open) return;
    session.open = false;
    this.#context.sockets.give(1);
    session.socket.close();
  }
}

/** Addresses are never names here: nothing is looked up. */
function makeSocket(v6: boolean): Socket {
  return createSocket({
    type: v6 ? 'udp6' : 'udp4',
    ipv6Only: v6,
    lookup: (host, _options, callback) => callback(null, host, v6 ? 6 : 4),
  });
}

function ignore(): void {
  // A client that is gone misses nothing.
}
