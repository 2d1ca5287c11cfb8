/**
 * Userspace mode without any packet rule, for a kernel without usable NAT: service addresses become this node's own,
 * and this process listens on each frontend. What rules decide elsewhere is decided when a connection is accepted.
 */
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import type { Family } from '../../api/objects.ts';
import { watchAddresses } from '../../linux/addresses.ts';
import type { Logger } from '../../log/logger.ts';
import { cidrContains, formatAddressPort, isLoopback, parseCIDR, type CIDR } from '../../services/ip.ts';
import { matchingAddresses } from '../../services/nodePortAddresses.ts';
import type { Frontend, Route, RouteChange, ServicePortId } from '../../services/types.ts';
import type { Dataplane, DataplaneEvents, DataplaneReport, SyncRequest, SyncResult } from '../dataplane.ts';
import { Balancer, type Pool } from './balancer.ts';
import type { Chooser, Listener, ProxyContext } from './context.ts';
import { ServicePortCounts, UserspaceCounts } from './counts.ts';
import { FrontendIndex } from './frontendIndex.ts';
import { PodInterfaces } from './podInterfaces.ts';
import { ServiceAddresses } from './serviceAddresses.ts';
import type { SocketBudget } from './socketBudget.ts';
import { TcpListener } from './tcpListener.ts';
import { UdpListener } from './udpListener.ts';
import type { UserspaceOptions } from './userspaceDataplane.ts';

export interface DirectDependencies {
  readonly log: Logger;
  readonly events: DataplaneEvents;
  readonly report: (report: DataplaneReport) => void;
  readonly sockets: SocketBudget;
}

/** One service port. */
interface Served {
  route: Route;
  readonly balancer: Balancer;
  readonly counts: ServicePortCounts;
  /** By `ip:port`. */
  readonly listeners: Map<string, Listener>;
  /** Made this node's own for it; where nobody listens, the kernel then refuses. */
  readonly serviceIPs: Set<string>;
}

const reportInterval = 1000;
/** Service ports whose listeners are opened in one turn of the event loop. */
const openAtOnce = 64;
const bindAttempts = 20;
const bindPause = 10;

export class DirectDataplane implements Dataplane {
  readonly mode = 'userspace';
  readonly family: Family;
  readonly counters = new UserspaceCounts({ servicePorts: () => this.#served });
  readonly #options: UserspaceOptions;
  readonly #deps: DirectDependencies;
  readonly #context: ProxyContext;
  readonly #index: FrontendIndex;
  readonly #pods: CIDR | undefined;
  readonly #served = new Map<ServicePortId, Served>();
  #addresses: ServiceAddresses | undefined;
  /** This node's own, as of the last full sync. */
  #nodeAddresses: readonly string[] = [];
  #podInterfaces: PodInterfaces | undefined;
  #unwatch: (() => void) | undefined;
  #timer: NodeJS.Timeout | undefined;
  #draining = false;

  constructor(options: UserspaceOptions, deps: DirectDependencies) {
    const { family, localDetector, nodeIP, udpIdleTimeout } = options;
    this.family = family;
    this.#options = options;
    this.#deps = deps;
    this.#index = new FrontendIndex(nodeIP);
    this.#pods = localDetector?.kind === 'cidr' ? parseCIDR(localDetector.cidr) : undefined;
    this.#context = {
      family,
      log: deps.log,
      sockets: deps.sockets,
      refused: (reason) => {
        this.counters.refused(reason);
        deps.report({ kind: 'userspaceRefused', reason });
      },
      mayDial: (endpoint, protocol) => !this.#index.has(endpoint, protocol),
      udpIdleTimeout,
    };
  }

  start(): Promise<void> {
    const addresses = new ServiceAddresses(this.family);
    this.#addresses = addresses;
    const { localDetector } = this.#options;
    if (localDetector !== undefined && localDetector.kind !== 'cidr')
      this.#podInterfaces = new PodInterfaces(localDetector);
    this.#unwatch = watchAddresses(() => {
      this.#putBack(addresses);
      // Our own comings and goings are heard, too.
      const known = this.#nodeAddresses;
      if (known.length === 0 || known.join() === addresses.nodeAddresses().join()) return;
      this.#deps.events.resync(`${this.family} addresses of this node changed`);
    });
    this.#deps.log.warn(
      'There is no usable NAT here: service addresses become addresses of this node, and this process listens on them',
      { interface: 'lo' },
    );
    this.#timer = setInterval(() => {
      const { open, limit } = this.#deps.sockets;
      this.#deps.report({ kind: 'userspaceSockets', open, limit });
      this.#podInterfaces?.forget();
      const now = performance.now();
      for (const { balancer } of this.#served.values()) if (balancer.sticky) balancer.sweep(now);
    }, reportInterval).unref();
    return Promise.resolve();
  }

  async sync(request: SyncRequest): Promise<SyncResult> {
    const addresses = this.#addresses;
    if (addresses === undefined) throw new Error('userspace mode: sync before start');
    if (this.#draining) return { full: false };
    const full = request.full || this.#nodeAddresses.length === 0;
    if (full) this.#nodeAddresses = addresses.nodeAddresses();
    const { routes } = request.table;
    const changes: readonly RouteChange[] = full ? this.#allChanges(routes) : request.changes.changes;
    // What is given up first: a frontend may move from one service port to another.
    for (const [i, { id, after }] of changes.entries()) {
      // Connections have their turn in between.
      if (i % openAtOnce === openAtOnce - 1) await nextTurn();
      this.#close(addresses, id, after);
    }
    for (const [i, { id, after }] of changes.entries()) {
      if (i % openAtOnce === openAtOnce - 1) await nextTurn();
      if (after !== undefined) await this.#open(addresses, id, after);
    }
    if (full) addresses.removeStrays(request.serviceCIDRs);
    return { full };
  }

  relays(id: ServicePortId, port: number): boolean {
    return this.#served.get(id)?.route.frontends.some((frontend) => frontend.port === port) ?? false;
  }

  /** As in the other form of the mode; the service addresses stay, too, and refuse. */
  drain(): void {
    this.#draining = true;
    this.#unwatch?.();
    this.#unwatch = undefined;
    for (const { route, listeners } of this.#served.values())
      if (route.port.protocol === 'TCP') for (const listener of listeners.values()) listener.close(false);
  }

  /** Ends all connections, and takes the service addresses off this node. */
  stop(): Promise<void> {
    clearInterval(this.#timer);
    for (const { listeners } of this.#served.values())
      for (const listener of listeners.values()) {
        listener.close(true);
        this.#deps.sockets.give(1);
      }
    this.#served.clear();
    this.#unwatch?.();
    this.#unwatch = undefined;
    this.#podInterfaces?.close();
    this.#podInterfaces = undefined;
    this.#addresses?.close();
    this.#addresses = undefined;
    return Promise.resolve();
  }

  #putBack(addresses: ServiceAddresses): void {
    const missing = addresses.missing();
    if (missing.length === 0) return;
    const repairing = this.#options.repairDrift ?? true;
    const what = `service address ${missing[0]} removed from lo${missing.length > 1 ? `, and ${missing.length - 1} more` : ''}`;
    this.#deps.report({ kind: 'changedByOthers', what, object: 'unknown', by: '', repairing });
    if (!repairing) return;
    try {
      for (const ip of missing) addresses.putBack(ip);
      this.#deps.report({ kind: 'repaired', what });
    } catch (err) {
      // E.g. IPv6 has been switched off.
      this.#deps.log.error('Cannot put a service address back on lo', { family: this.family, err });
    }
  }

  #allChanges(routes: ReadonlyMap<ServicePortId, Route>): RouteChange[] {
    const changes: RouteChange[] = [];
    for (const [id, { route }] of this.#served)
      if (!routes.has(id)) changes.push({ id, before: route, after: undefined });
    for (const [id, after] of routes) changes.push({ id, before: this.#served.get(id)?.route, after });
    return changes;
  }

  /** Closes the listeners of `id` that `after` does not want. */
  #close(addresses: ServiceAddresses, id: ServicePortId, after: Route | undefined): void {
    const served = this.#served.get(id);
    this.#index.replace(served?.route, after);
    if (served === undefined) return;
    const wanted = new Set(after === undefined ? [] : this.#places(after).map(({ key }) => key));
    for (const [key, listener] of served.listeners) {
      if (wanted.has(key)) continue;
      served.listeners.delete(key);
      listener.close(false);
      this.#deps.sockets.give(1);
    }
    for (const ip of served.serviceIPs) {
      if (after?.frontends.some((frontend) => frontend.ip === ip) === true) continue;
      served.serviceIPs.delete(ip);
      addresses.give(ip);
    }
    if (after === undefined) this.#served.delete(id);
  }

  async #open(addresses: ServiceAddresses, id: ServicePortId, route: Route): Promise<void> {
    let served = this.#served.get(id);
    if (served === undefined) {
      if (route.port.protocol === 'SCTP')
        this.#deps.log.error('SCTP cannot be proxied in userspace mode', { servicePort: route.port.name });
      served = {
        route,
        balancer: new Balancer(),
        counts: new ServicePortCounts(),
        listeners: new Map(),
        serviceIPs: new Set(),
      };
      this.#served.set(id, served);
    }
    served.route = route;
    const { balancer, counts, listeners, serviceIPs } = served;
    balancer.set(route);
    counts.set(route);
    const unusable = new Set<string>();
    for (const { ip } of route.frontends) {
      if (ip === '' || serviceIPs.has(ip) || unusable.has(ip) || this.#nodeAddresses.includes(ip)) continue;
      try {
        addresses.take(ip);
        serviceIPs.add(ip);
      } catch (err) {
        // E.g. an external IP for multicast.
        unusable.add(ip);
        this.#deps.log.error(
          'Cannot make a service address one of this node; it does not answer until it changes',
          {
            servicePort: route.port.name,
            address: ip,
            err,
          },
        );
      }
    }
    for (const listener of listeners.values()) listener.endpointsChanged((key) => balancer.has(key));
    for (const { key, host, frontend } of this.#places(route)) {
      if (listeners.has(key) || unusable.has(host)) continue;
      try {
        const listener = await this.#listen(host, served, frontend);
        listeners.set(key, listener);
        if (this.#draining && frontend.protocol === 'TCP') listener.close(false);
      } catch (err) {
        this.#deps.log.error('Cannot listen on a frontend; it does not answer until it changes', {
          servicePort: route.port.name,
          frontend: key,
          err,
        });
      }
    }
  }

  async #listen(host: string, served: Served, frontend: Frontend): Promise<Listener> {
    const { sockets } = this.#deps;
    if (!sockets.take(1)) {
      this.#context.refused('socket_limit');
      throw new Error('too many open sockets');
    }
    const type = frontend.protocol === 'UDP' ? UdpListener : TcpListener;
    for (let attempt = 1; ; attempt++) {
      try {
        return await type.open({ host, port: frontend.port }, this.#context, this.#chooser(served, frontend));
      } catch (error) {
        // The kernel takes a moment to make an IPv6 address usable.
        const early = (error as NodeJS.ErrnoException).code === 'EADDRNOTAVAIL' && attempt < bindAttempts;
        if (!early) {
          sockets.give(1);
          throw error;
        }
        await sleep(bindPause);
      }
    }
  }

  /** Where a route listens. A frontend that nobody may be served on has no listener: the kernel refuses it. */
  #places(route: Route): { key: string; host: string; frontend: Frontend }[] {
    if (!route.hasAny || route.port.protocol === 'SCTP') return [];
    const localhost = this.#options.localhostNodePorts ?? true;
    return route.frontends.flatMap((frontend) => {
      if (frontend.kind === 'clusterIP' && route.internal === 'drop') return [];
      const hosts =
        frontend.kind === 'nodePort'
          ? matchingAddresses(this.#options.nodePortAddresses, this.#nodeAddresses).filter(
              (ip) => !ip.startsWith('fe80:') && (localhost || !isLoopback(ip)),
            )
          : [frontend.ip];
      return hosts.map((host) => ({ key: formatAddressPort(host, frontend.port), host, frontend }));
    });
  }

  #chooser(served: Served, { kind, ip }: Frontend): Chooser {
    const { balancer, counts } = served;
    return {
      choose: (peer, again) => {
        const address = peer.remoteAddress ?? '';
        const pool = this.#poolFor(served.route, kind, ip, address);
        if (pool === undefined) return 'forbidden';
        return counts.chosen(balancer.pick(pool, address, performance.now(), again), again);
      },
      forget: (peer) => balancer.forget(peer.remoteAddress ?? ''),
    };
  }

  #poolFor(route: Route, kind: Frontend['kind'], ip: string, client: string): Pool | undefined {
    const pool = (verdict: Route['internal']): Pool | undefined =>
      verdict === 'cluster' || verdict === 'local' ? verdict : undefined;
    if (kind === 'clusterIP') return pool(route.internal);
    const own = client === ip || this.#nodeAddresses.includes(client);
    if (kind === 'loadBalancerIP' && route.port.sourceRanges.length > 0) {
      // A process of this node comes from the very address it goes to.
      const source = client === ip ? this.#options.nodeIP : client;
      const allowed = route.port.sourceRanges.some((text) => {
        const range = parseCIDR(text);
        return range !== undefined && cidrContains(range, source);
      });
      if (!allowed) return undefined;
    }
    return own || this.#isPod(client) ? 'cluster' : pool(route.external);
  }

  #isPod(client: string): boolean {
    if (this.#pods !== undefined) return cidrContains(this.#pods, client);
    return this.#podInterfaces?.leadTo(client) ?? false;
  }
}
