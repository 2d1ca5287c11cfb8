/** One service port: its balancer, and a listener for each pool that its traffic is sent to. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Route } from '../../services/types.ts';
import { Balancer, type Pool } from './balancer.ts';
import type { Chooser, Listener, ProxyContext } from './context.ts';
import { ServicePortCounts } from './counts.ts';
import type { PortAllocator } from './portAllocator.ts';
import { poolsOf, type Target, type Targets } from './rules.ts';
import { TcpListener } from './tcpListener.ts';
import { UdpListener } from './udpListener.ts';

/** Milliseconds of one turn of the event loop that may go into the search for a free port of the range. */
const slice = 8;
/** Milliseconds that the search for a free port of the range may take. */
const searchTime = 1000;

export interface ListenSettings {
  /** Of TCP listeners; empty = all addresses. */
  readonly tcpHost: string;
  /** Of UDP sockets: one address, so that answers come from the one that was asked; empty = all. */
  readonly udpHost: string;
  readonly ports: PortAllocator;
}

interface Open {
  readonly listener: Listener;
  readonly target: Target;
}

/** A listener that is no longer wanted; it serves until the rules that lead to it are gone. */
export interface Retired {
  readonly target: Target;
  readonly udp: boolean;
  close(): void;
}

export class ServiceProxy {
  readonly balancer: Balancer;
  readonly counts = new ServicePortCounts();
  readonly #context: ProxyContext;
  readonly #settings: ListenSettings;
  readonly #open: Partial<Record<Pool, Open>> = {};
  #route: Route;

  constructor(route: Route, context: ProxyContext, settings: ListenSettings, random?: () => number) {
    this.#route = route;
    this.#context = context;
    this.#settings = settings;
    this.balancer = new Balancer(random);
    this.balancer.set(route);
  }

  get targets(): Targets {
    const targets: Partial<Record<Pool, Target>> = {};
    for (const pool of ['cluster', 'local'] as const) {
      const open = this.#open[pool];
      if (open !== undefined) targets[pool] = open.target;
    }
    return targets;
  }

  /** Takes a route, and opens the listeners it needs. @returns those it needs no longer */
  async set(route: Route): Promise<Retired[]> {
    this.#route = route;
    this.balancer.set(route);
    this.counts.set(route);
    const pools = route.port.protocol === 'SCTP' ? [] : poolsOf(route);
    for (const pool of pools) if (this.#open[pool] === undefined) await this.#listen(pool);
    const retired: Retired[] = [];
    for (const pool of ['cluster', 'local'] as const) {
      const open = this.#open[pool];
      if (open === undefined) continue;
      if (pools.includes(pool)) {
        open.listener.endpointsChanged((key) => this.balancer.has(key));
        continue;
      }
      delete this.#open[pool];
      retired.push(this.#retire(open));
    }
    return retired;
  }

  /** The service port is gone. */
  retire(): Retired[] {
    const retired = Object.values(this.#open).map((open) => this.#retire(open));
    delete this.#open.cluster;
    delete this.#open.local;
    return retired;
  }

  /** Takes no more TCP connections; what is connected stays, and UDP goes on. */
  stopAccepting(): void {
    if (this.#route.port.protocol !== 'TCP') return;
    for (const { listener } of Object.values(this.#open)) listener.close(false);
  }

  /** Ends everything, connections too. */
  destroy(): void {
    for (const { listener, target } of Object.values(this.#open)) {
      listener.close(true);
      this.#settings.ports.release(target.port);
      this.#context.sockets.give(1);
    }
    delete this.#open.cluster;
    delete this.#open.local;
  }

  #retire({ listener, target }: Open): Retired {
    return {
      target,
      udp: this.#route.port.protocol === 'UDP',
      close: () => {
        listener.close(false);
        this.#settings.ports.release(target.port);
        this.#context.sockets.give(1);
      },
    };
  }

  async #listen(pool: Pool): Promise<void> {
    const { sockets, refused, log } = this.#context;
    const { name } = this.#route.port;
    if (!sockets.take(1)) {
      refused('socket_limit');
      log.error('No socket left to listen for a service port; it is refused', { servicePort: name });
      return;
    }
    try {
      this.#open[pool] = await this.#openListener(this.#chooser(pool));
    } catch (err) {
      sockets.give(1);
      log.error('Cannot listen for a service port; it is refused until it changes', {
        servicePort: name,
        err,
      });
    }
  }

  async #openListener(chooser: Chooser): Promise<Open> {
    const { ports, tcpHost, udpHost } = this.#settings;
    const udp = this.#route.port.protocol === 'UDP';
    let host = udp ? udpHost : tcpHost;
    const everywhere = this.#context.family === 'IPv4' ? '0.0.0.0' : '::';
    const end = performance.now() + searchTime;
    let problem: unknown = new Error('all ports of portRange are taken');
    let turnEnds = performance.now() + slice;
    for (const port of ports.candidates()) {
      if (performance.now() > turnEnds) {
        await nextTurn();
        turnEnds = performance.now() + slice;
      }
      try {
        const listener = await this.#bind(udp, host === '' ? everywhere : host, port, chooser);
        ports.claim(listener.port);
        return { listener, target: { host, port: listener.port } };
      } catch (error) {
        problem = error;
        const code = (error as NodeJS.ErrnoException).code;
        if (code === 'EADDRNOTAVAIL' && udp && host !== '') {
          // The Node's address is not one of this machine's (a translated one): then as for TCP.
          host = '';
          const listener = await this.#bind(udp, everywhere, port, chooser);
          ports.claim(listener.port);
          return { listener, target: { host, port: listener.port } };
        }
        if (code !== 'EADDRINUSE' || performance.now() > end) break;
      }
    }
    throw problem;
  }

  #bind(udp: boolean, host: string, port: number, chooser: Chooser): Promise<Listener> {
    return (udp ? UdpListener : TcpListener).open({ host, port }, this.#context, chooser);
  }

  #chooser(pool: Pool): Chooser {
    const { balancer, counts } = this;
    return {
      choose: (peer, again) =>
        counts.chosen(
          balancer.pick(pool, balancer.sticky ? (peer.remoteAddress ?? '') : '', performance.now(), again),
          again,
        ),
      forget: (peer) => balancer.forget(peer.remoteAddress ?? ''),
    };
  }
}
