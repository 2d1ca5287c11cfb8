/**
 * Userspace mode counts in this process: every connection is accepted here. What the rules beside it refuse, they
 * count as iptables rules do.
 */
import type { Iptables } from '../../linux/iptables/iptables.ts';
import type { Endpoint, Route, RoutingTable, ServicePortId } from '../../services/types.ts';
import { countedRule, refused, type CounterSource, type Meaning, type Reading } from '../counts.ts';
import type { Balancer } from './balancer.ts';
import type { Refusal } from './context.ts';
import { nodePortRefuse, portalsRefuse } from './names.ts';

/** Of one service port. */
export class ServicePortCounts {
  /** Clients for whom there was an endpoint to try; UDP: sessions. */
  connections = 0;
  /** How often each was tried, by its key: one that does not answer is tried, too. */
  readonly endpoints = new Map<string, number>();

  /** Counts the choice, and hands it on. `again`: for a client that has been counted. */
  chosen(endpoint: Endpoint | undefined, again: boolean): Endpoint | undefined {
    if (endpoint === undefined) return undefined;
    if (!again) this.connections++;
    this.endpoints.set(endpoint.key, (this.endpoints.get(endpoint.key) ?? 0) + 1);
    return endpoint;
  }

  /** Forgets endpoints that the route has no more. */
  set(route: Route): void {
    if (this.endpoints.size === 0) return;
    const keys = new Set(route.endpoints.map(({ key }) => key));
    for (const key of this.endpoints.keys()) if (!keys.has(key)) this.endpoints.delete(key);
  }
}

/** What the mode has of one service port. */
export interface CountedServicePort {
  readonly counts: ServicePortCounts;
  readonly balancer: Balancer;
}

export interface UserspaceCountsOptions {
  readonly servicePorts: () => Iterable<readonly [ServicePortId, CountedServicePort]>;
  /** Undefined where there are no rules. */
  readonly iptables?: () => Iptables | undefined;
}

export class UserspaceCounts implements CounterSource {
  readonly name = 'userspace';
  readonly notes = [
    'Endpoints see the address of this node as the source of every connection: none is counted as masqueraded.',
  ];
  readonly #options: UserspaceCountsOptions;
  readonly #refused = new Map<Refusal, number>();

  constructor(options: UserspaceCountsOptions) {
    this.#options = options;
  }

  /** A client was turned away. */
  refused(reason: Refusal): void {
    this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + 1);
  }

  async read(table: RoutingTable): Promise<Reading[]> {
    const readings: Reading[] = [];
    for (const [id, { counts, balancer }] of this.#options.servicePorts()) {
      readings.push({ rule: id, meaning: { kind: 'service', id }, packets: counts.connections });
      for (const [endpoint, packets] of counts.endpoints)
        readings.push({ rule: `${id} ${endpoint}`, meaning: { kind: 'endpoint', id, endpoint }, packets });
      if (balancer.sticky)
        readings.push({ rule: `${id} affinity`, meaning: { kind: 'affinity', id }, packets: balancer.hits });
    }
    for (const [reason, packets] of this.#refused)
      readings.push({ rule: reason, meaning: refused(reason, 'reject'), packets });
    const iptables = this.#options.iptables?.();
    if (iptables === undefined) return readings;
    const routes = byName(table);
    await iptables.saveCounted('filter', (line) => {
      const counted = countedRule(line);
      const meaning = counted === undefined ? undefined : meaningOfRule(counted.rule, routes);
      if (counted !== undefined && meaning !== undefined)
        readings.push({ rule: counted.rule, meaning, packets: counted.packets });
    });
    return readings;
  }
}

/** Routes by `NAME PROTOCOL`, as rules name them. */
function byName(table: RoutingTable): Map<string, Route> {
  const routes = new Map<string, Route>();
  for (const route of table.routes.values())
    routes.set(`${route.port.name} ${route.port.protocol.toLowerCase()}`, route);
  return routes;
}

/** What a rule counts that refuses a frontend; `rule` is a line of iptables-save behind `-A `. */
export function meaningOfRule(rule: string, routes: ReadonlyMap<string, Route>): Meaning | undefined {
  if (!rule.startsWith(portalsRefuse) && !rule.startsWith(nodePortRefuse)) return undefined;
  const target = / -j (REJECT|DROP)\b/.exec(rule)?.[1];
  const name = /--comment "?([^" ]+)"?/.exec(rule)?.[1];
  const protocol = / -p (\w+)/.exec(rule)?.[1];
  const route = routes.get(`${name} ${protocol}`);
  if (target === undefined || route === undefined) return undefined;
  const { id, clusterIP } = route.port;
  if (target === 'REJECT') return refused('no_endpoints', 'reject', id);
  const own = rule.includes(` -d ${clusterIP}/`);
  const noLocal = (own ? route.internal : route.external) === 'drop';
  return refused(noLocal ? 'no_local_endpoints' : 'source_range', 'drop', id);
}
