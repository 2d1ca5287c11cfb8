/**
 * Which tracked UDP flows are provably stale: they hang on to an endpoint that their service port no longer has, and
 * would do so for as long as the client keeps sending, because NAT decides only once per flow.
 *
 * Stale is a flow
 * - to a frontend whose service port has serving endpoints, answered by something that is none of them (also by the
 *   frontend's own address: packets sent before there were rules), nor a relay of this process;
 * - to a frontend whose service port has no serving endpoint, translated to something that is no endpoint of it at all;
 * - to a frontend that was removed, answered by one of the endpoints it had;
 * - after a restart: to an address in a ServiceCIDR where no service answers, and translated nevertheless.
 *
 * Serving endpoints keep their flows, draining ones too; traffic policy and topology choose for new flows only.
 */
import type { ConntrackEntry } from '../linux/netlink/conntrack-entry.ts';
import { IPPROTO_UDP } from '../linux/netlink/conntrack-entry.ts';
import { cidrContains, formatAddressPort, parseCIDR } from '../services/ip.ts';
import type { Frontend, Route, RouteChange, RoutingTable, ServicePortId } from '../services/types.ts';

/** What decides about the flows of one service port; all are endpoint keys (`ip:port`). */
interface Target {
  readonly id: ServicePortId;
  readonly serving: ReadonlySet<string>;
  readonly known: ReadonlySet<string>;
}

/** What else is known when flows are judged. */
export interface JudgeContext {
  /** This node's addresses (canonical, of the family) on which node ports answer. */
  readonly localAddresses: ReadonlySet<string>;
  /** Canonical; given only after a restart, when frontends may have gone while nobody watched. */
  readonly serviceCIDRs: readonly string[];
  /** As Dataplane has it. */
  readonly relays?: Relays | undefined;
}

/** Whether this process relays datagrams of the service port at a port of its own. */
export type Relays = (id: ServicePortId, port: number) => boolean;

/** The frontends whose flows may have become stale: `all`, or these. Empty = none. */
export type Suspects = 'all' | readonly Frontend[];

/** `ip:port` for frontends with an address, `*:port` for node ports. */
function frontendKey(frontend: Frontend): string {
  return frontend.kind === 'nodePort' ? `*:${frontend.port}` : formatAddressPort(frontend.ip, frontend.port);
}

function targetOf(route: Route): Target {
  const serving = new Set<string>();
  const known = new Set<string>();
  for (const endpoint of route.endpoints) {
    known.add(endpoint.key);
    if (endpoint.serving) serving.add(endpoint.key);
  }
  return { id: route.port.id, serving, known };
}

function isUDP(route: Route | undefined): route is Route {
  return route !== undefined && route.port.protocol === 'UDP';
}

function lacks(set: ReadonlySet<string>, wanted: ReadonlySet<string>): boolean {
  for (const key of wanted) if (!set.has(key)) return true;
  return false;
}

/** The UDP frontends of one family, kept from sync to sync: O(changed). Holds no kernel state and asks nobody. */
export class UDPFrontends {
  #targets = new Map<string, Target>();
  /** Frontends gone since the last `forget`, with the endpoints they had. */
  readonly #removed = new Map<string, { readonly frontend: Frontend; readonly known: Set<string> }>();

  /** Takes in the change set of a successful sync; returns the frontends whose flows have to be looked at. */
  apply(changes: readonly RouteChange[]): Frontend[] {
    const suspects: Frontend[] = [];
    for (const { before } of changes) {
      if (!isUDP(before)) continue;
      for (const frontend of before.frontends) {
        const key = frontendKey(frontend);
        const target = this.#targets.get(key);
        if (target === undefined || target.id !== before.port.id) continue;
        this.#targets.delete(key);
        this.#remove(key, frontend, target.known);
      }
    }
    for (const { after, before } of changes) {
      if (!isUDP(after)) continue;
      const target = targetOf(after);
      const previous = isUDP(before) ? targetOf(before) : undefined;
      for (const frontend of after.frontends) {
        const key = frontendKey(frontend);
        this.#targets.set(key, target);
        const gone = this.#removed.get(key);
        if (gone === undefined || previous === undefined) {
          // New here: flows may have been sent to it before, or gone to its last owner's endpoints.
          if (target.serving.size > 0 || gone !== undefined) suspects.push(frontend);
        } else if (
          lacks(target.serving, previous.serving) ||
          lacks(target.known, gone.known) ||
          (previous.serving.size === 0 && target.serving.size > 0)
        ) {
          suspects.push(frontend);
        }
        this.#removed.delete(key);
      }
    }
    for (const { frontend } of this.#removed.values()) suspects.push(frontend);
    return suspects;
  }

  /** Starts over from a whole table; what was there before and is no longer counts as removed. */
  rebuild(table: RoutingTable): void {
    const old = this.#targets;
    const targets = new Map<string, Target>();
    for (const route of table.routes.values()) {
      if (!isUDP(route)) continue;
      const target = targetOf(route);
      for (const frontend of route.frontends) {
        const key = frontendKey(frontend);
        targets.set(key, target);
        this.#removed.delete(key);
      }
    }
    this.#targets = targets;
    for (const [key, target] of old) {
      if (!targets.has(key)) this.#remove(key, undefined, target.known);
    }
  }

  /** The removed frontends have been dealt with. */
  forgetRemoved(): void {
    this.#removed.clear();
  }

  #remove(key: string, frontend: Frontend | undefined, known: ReadonlySet<string>): void {
    const removed = this.#removed.get(key);
    if (removed !== undefined) for (const endpoint of known) removed.known.add(endpoint);
    else {
      const place = frontend ?? { kind: 'clusterIP', ip: '', port: 0, protocol: 'UDP' };
      this.#removed.set(key, { frontend: place, known: new Set(known) });
    }
  }

  /** A function that tells whether an entry is provably stale. */
  judge(context: JudgeContext): (entry: ConntrackEntry) => boolean {
    const cidrs = context.serviceCIDRs.map(parseCIDR).filter((cidr) => cidr !== undefined);
    return (entry) => {
      const { original, reply } = entry;
      // Entries in a conntrack zone of their own are another program's NAT.
      if (original.protocol !== IPPROTO_UDP || entry.zone !== 0) return false;
      const destination = formatAddressPort(original.destination, original.destinationPort);
      const answers = formatAddressPort(reply.source, reply.sourcePort);
      let target = this.#targets.get(destination);
      // Only where no frontend has the very address: node ports answer on this node's own.
      const isLocal = target === undefined && context.localAddresses.has(original.destination);
      const nodePort = isLocal ? `*:${original.destinationPort}` : undefined;
      if (nodePort !== undefined) target = this.#targets.get(nodePort);
      if (target !== undefined) {
        if (target.serving.size > 0)
          return !target.serving.has(answers) && context.relays?.(target.id, reply.sourcePort) !== true;
        return answers !== destination && !target.known.has(answers);
      }
      if (answers === destination) return false;
      if (this.#removed.get(destination)?.known.has(answers) === true) return true;
      if (nodePort !== undefined && this.#removed.get(nodePort)?.known.has(answers) === true) return true;
      return cidrs.some((cidr) => cidrContains(cidr, original.destination));
    };
  }
}
