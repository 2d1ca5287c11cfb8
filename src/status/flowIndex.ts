/** Which service port and endpoint a tracked connection belongs to: by where it was sent, and where it really went. */
import {
  IPPROTO_SCTP,
  IPPROTO_TCP,
  IPPROTO_UDP,
  IPS_SEEN_REPLY,
  type ConntrackEntry,
} from '../linux/netlink/conntrack-entry.ts';
import type { Endpoint, FrontendKind, Route, RoutingTable } from '../services/types.ts';

export const protocolNumbers = { TCP: IPPROTO_TCP, UDP: IPPROTO_UDP, SCTP: IPPROTO_SCTP } as const;

export interface ServedFlow {
  readonly route: Route;
  readonly via: FrontendKind;
  /** `ip:port` it was translated to. */
  readonly endpoint: string;
  /** Undefined: the service port has no such endpoint (any more). */
  readonly known: Endpoint | undefined;
  readonly client: string;
}

interface Target {
  readonly route: Route;
  readonly via: FrontendKind;
}

export class FlowIndex {
  /** By `PROTOCOL IP PORT`; node ports by `PROTOCOL PORT`. */
  readonly #targets = new Map<string, Target>();
  readonly #endpoints = new Map<Route, ReadonlyMap<string, Endpoint>>();

  constructor(tables: Iterable<RoutingTable>) {
    for (const { family, routes } of tables) {
      for (const route of routes.values()) {
        for (const { kind, ip, port, protocol } of route.frontends) {
          const number = protocolNumbers[protocol];
          const key = kind === 'nodePort' ? `${family} ${number} ${port}` : `${number} ${ip} ${port}`;
          this.#targets.set(key, { route, via: kind });
        }
      }
    }
  }

  /** Undefined: not a connection to a Service, or one that was not translated here. */
  find({ family, original, reply }: ConntrackEntry): ServedFlow | undefined {
    const { protocol, destination, destinationPort } = original;
    if (reply.source === destination && reply.sourcePort === destinationPort) return undefined;
    const target =
      this.#targets.get(`${protocol} ${destination} ${destinationPort}`) ??
      this.#targets.get(`${family} ${protocol} ${destinationPort}`);
    if (target === undefined) return undefined;
    const v6 = reply.source.includes(':');
    const endpoint = v6 ? `[${reply.source}]:${reply.sourcePort}` : `${reply.source}:${reply.sourcePort}`;
    const { route, via } = target;
    return { route, via, endpoint, known: this.#endpointsOf(route).get(endpoint), client: original.source };
  }

  #endpointsOf(route: Route): ReadonlyMap<string, Endpoint> {
    let endpoints = this.#endpoints.get(route);
    if (endpoints === undefined) {
      endpoints = new Map(route.endpoints.map((endpoint) => [endpoint.key, endpoint]));
      this.#endpoints.set(route, endpoints);
    }
    return endpoints;
  }
}

export type FlowState = 'open' | 'opening' | 'closing';

/** enum tcp_conntrack: 1 SYN_SENT, 2 SYN_RECV, 3 ESTABLISHED, 9 SYN_SENT2. */
export function flowState({ original, tcpState, status }: ConntrackEntry): FlowState {
  if (original.protocol !== IPPROTO_TCP) return (status & IPS_SEEN_REPLY) === 0 ? 'opening' : 'open';
  if (tcpState === 3) return 'open';
  return tcpState === 1 || tcpState === 2 || tcpState === 9 ? 'opening' : 'closing';
}
