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
import type { SocketBudget } from './socketBudget.ts';
import { TcpListener } from './tcpListener.ts';
import { UdpListener } from './udpListener.ts';

/** Service ports whose listeners are opened in one turn of the event loop. */
const openAtOnce = 64;

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

interface Served {
  readonly balancer: Balancer;
  /** Undefined where the port could not be had. */
  readonly listener: Listener | undefined;
  readonly port: number;
}

export class LocalhostNodePorts {
  readonly #log: Logger;
  readonly #host: string;
  readonly #context: ProxyContext;
  readonly #served = new Map<ServicePortId, Served>();
  /** How many of them have a listener. */
  #listening = 0;
  readonly #report: (report: DataplaneReport) => void;

  constructor(options: LocalhostNodePortsOptions) {
    const { family, log, sockets, report, udpIdleTimeout } = options;
    this.#log = log;
    this.#report = report;
    this.#host = options.host ?? (family === 'IPv4' ? '127.0.0.1' : '::1');
    this.#context = {
      family,
      log,
      sockets,
      refused: (reason) => report({ kind: 'userspaceRefused', reason }),
      mayDial: () => true,
      udpIdleTimeout,
    };
  }

  /** Takes the changes of a sync. A port that cannot be had costs itself, a log line, and is tried again when it changes. */
  async apply(changes: readonly RouteChange[]): Promise<void> {
    // Ports that are given up first: a node port may move from one service port to another.
    for (const { id, after } of changes) {
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
    for (const id of this.#served.keys())
      if (!routes.has(id)) changes.push({ id, before: undefined, after: undefined });
    for (const [id, after] of routes) changes.push({ id, before: undefined, after });
    await this.apply(changes);
  }

  /** Ends everything, connections too. */
  close(): void {
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
    const served = this.#served.get(id);
    if (served !== undefined) {
      served.balancer.set(route);
      served.listener?.endpointsChanged((key) => served.balancer.has(key));
      if (served.listener !== undefined) return;
    }
    if (port === 0) return;
    const balancer = served?.balancer ?? new Balancer();
    balancer.set(route);
    const listener = await this.#listen(route, port, balancer);
    if (listener !== undefined) this.#listening++;
    this.#served.set(id, { balancer, listener, port });
  }

  async #listen(route: Route, port: number, balancer: Balancer): Promise<Listener | undefined> {
    const { sockets } = this.#context;
    if (!sockets.take(1)) {
      this.#context.refused('socket_limit');
      return undefined;
    }
    // From this very node everybody may be served, whatever the external policy.
    const chooser: Chooser = {
      choose: (peer, again) =>
        balancer.pick('cluster', balancer.sticky ? (peer.remoteAddress ?? '') : '', performance.now(), again),
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
