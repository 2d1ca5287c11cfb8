/**
 * Node ports on 127.0.0.1 and ::1 without any rule or kernel setting: this process listens on them and passes
 * connections on. For modes whose rules cannot serve loopback addresses. The endpoint sees an address of this node.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Family } from '../../api/objects.ts';
import type { Logger } from '../../log/logger.ts';
import type { Route, RouteChange, ServicePortId } from '../../services/types.ts';
import type { DataplaneReport } from '../dataplane.ts';
import { Balancer } from './balancer.ts';
import type { Chooser, Listener, ProxyContext } from './context.ts';
import { ServicePortCounts, UserspaceCounts } from './counts.ts';
import type { SocketBudget } from './socketBudget.ts';
import { TcpListener } from './tcpListener.ts';
import { UdpListener } from './udpListener.ts';

/** Service ports whose listeners are opened in one turn of the event loop. */
const openAtOnce = 64;
/** Milliseconds between two looks for affinity records that are too old. */
const sweepInterval = 30_000;

export interface LocalhostNodePortsOptions {
  readonly family: Family;
  readonly log: Logger;
  /** Of the whole process. */
  readonly sockets: SocketBudget;
  readonly report: (report: DataplaneReport) => void;
  /** Milliseconds without a datagram after which a UDP session ends. */
  readonly udpIdleTimeout: number;
  /** Where to listen; default 127.0.0.1 or ::1. */
  readonly host?: string;
}

/** Of one service port, as long as it is there. */
interface Chosen {
  readonly balancer: Balancer;
  readonly counts: ServicePortCounts;
}

interface Served {
  /** Undefined where the port could not be had. */
  readonly listener: Listener | undefined;
  readonly port: number;
}

export class LocalhostNodePorts {
  readonly #log: Logger;
  readonly #host: string;
  readonly #context: ProxyContext;
  readonly #chosen = new Map<ServicePortId, Chosen>();
  readonly #served = new Map<ServicePortId, Served>();
  readonly #sweeping: NodeJS.Timeout;
  #draining = false;
  /** How many of them have a listener. */
  #listening = 0;
  readonly #report: (report: DataplaneReport) => void;
  /** As userspace mode counts. */
  readonly counters = new UserspaceCounts({ servicePorts: () => this.#chosen });

  constructor(options: LocalhostNodePortsOptions) {
    const { family, log, sockets, report, udpIdleTimeout } = options;
    this.#log = log;
    this.#report = report;
    this.#host = options.host ?? (family === 'IPv4' ? '127.0.0.1' : '::1');
    this.#context = {
      family,
      log,
      sockets,
      refused: (reason) => {
        this.counters.refused(reason);
        report({ kind: 'userspaceRefused', reason });
      },
      mayDial: () => true,
      udpIdleTimeout,
    };
    this.#sweeping = setInterval(() => {
      const now = performance.now();
      for (const { balancer } of this.#chosen.values()) if (balancer.sticky) balancer.sweep(now);
    }, sweepInterval).unref();
  }

  /** Takes the changes of a sync. A port that cannot be had costs itself, a log line, and is tried again when it changes. */
  async apply(changes: readonly RouteChange[]): Promise<void> {
    if (this.#draining) return;
    // Ports that are given up first: a node port may move from one service port to another.
    for (const { id, after } of changes) {
      if (after === undefined) this.#chosen.delete(id);
      const served = this.#served.get(id);
      if (served === undefined || served.port === wantedPort(after)) continue;
      if (served.listener !== undefined) this.#end(served.listener, false);
      this.#served.delete(id);
    }
    for (const [i, { id, after }] of changes.entries()) {
      // Connections have their turn in between.
      if (i % openAtOnce === openAtOnce - 1) await nextTurn();
      if (after !== undefined) await this.#serve(id, after);
    }
    if (changes.length > 0) this.#tell();
  }

  /** Brings what is served to a whole table. */
  async applyAll(routes: ReadonlyMap<ServicePortId, Route>): Promise<void> {
    const changes: RouteChange[] = [];
    for (const id of this.#chosen.keys())
      if (!routes.has(id)) changes.push({ id, before: undefined, after: undefined });
    for (const [id, after] of routes) changes.push({ id, before: undefined, after });
    await this.apply(changes);
  }

  /** The process is about to end: new TCP connections are refused from here on, those that are open go on, and UDP does. */
  drain(): void {
    this.#draining = true;
    for (const { listener } of this.#served.values())
      if (listener instanceof TcpListener) listener.close(false);
  }

  /** Ends everything, connections too. */
  close(): void {
    clearInterval(this.#sweeping);
    for (const { listener } of this.#served.values()) if (listener !== undefined) this.#end(listener, true);
    this.#served.clear();
  }

  #end(listener: Listener, connections: boolean): void {
    listener.close(connections);
    this.#context.sockets.give(1);
    this.#listening--;
  }

  #tell(): void {
    const listening = this.#listening;
    this.#report({ kind: 'localhostNodePorts', listening, unavailable: this.#served.size - listening });
  }

  async #serve(id: ServicePortId, route: Route): Promise<void> {
    const port = wantedPort(route);
    let chosen = this.#chosen.get(id);
    if (chosen === undefined) {
      if (port === 0) return;
      chosen = { balancer: new Balancer(), counts: new ServicePortCounts() };
      this.#chosen.set(id, chosen);
    }
    const { balancer, counts } = chosen;
    balancer.set(route);
    counts.set(route);
    const open = this.#served.get(id)?.listener;
    open?.endpointsChanged((key) => balancer.has(key));
    if (open !== undefined || port === 0) return;
    const listener = await this.#listen(route, port, chosen);
    if (listener !== undefined) this.#listening++;
    this.#served.set(id, { listener, port });
    if (this.#draining && listener instanceof TcpListener) listener.close(false);
  }

  async #listen(route: Route, port: number, { balancer, counts }: Chosen): Promise<Listener | undefined> {
    const { sockets } = this.#context;
    if (!sockets.take(1)) {
      this.#context.refused('socket_limit');
      return undefined;
    }
    // From this very node everybody may be served, whatever the external policy.
    const chooser: Chooser = {
      choose: (peer, again) =>
        counts.chosen(
          balancer.pick(
            'cluster',
            balancer.sticky ? (peer.remoteAddress ?? '') : '',
            performance.now(),
            again,
          ),
          again,
        ),
      forget: (peer) => balancer.forget(peer.remoteAddress ?? ''),
    };
    try {
      const type = route.port.protocol === 'UDP' ? UdpListener : TcpListener;
      return await type.open({ host: this.#host, port }, this.#context, chooser);
    } catch (err) {
      sockets.give(1);
      this.#log.error('A node port does not answer on localhost: cannot listen', {
        servicePort: route.port.name,
        address: this.#host,
        port,
        err,
        remedy:
          'end the program that has the port (ss -lntup shows it), or give the Service another node port',
      });
      return undefined;
    }
  }
}

/** The node port to listen on; 0 = none: there is none, nobody could serve it, or it is SCTP. */
function wantedPort(route: Route | undefined): number {
  if (route === undefined || !route.hasAny || route.port.protocol === 'SCTP') return 0;
  return route.frontends.find(({ kind }) => kind === 'nodePort')?.port ?? 0;
}
