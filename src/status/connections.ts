/** Open connections, joined with Services: who is connected to what, and who hangs on an endpoint that is going or gone. */
import type { Family, Protocol } from '../api/objects.ts';
import type { ConntrackEntry } from '../linux/netlink/conntrack-entry.ts';
import type { Endpoint, Route, ServicePortId } from '../services/types.ts';
import { conditionOf, type Condition } from './changeLog.ts';
import { testSpread, type SpreadTest } from './chiSquare.ts';
import { flowState, type FlowIndex } from './flowIndex.ts';

/** Clients kept for each endpoint; more are counted. */
const clientsKept = 20;
/** Endpoints without connections are listed up to this number. */
const idleShown = 20;
/** Less likely than this is called uneven: with hundreds of services one in a thousand happens by chance too. */
const unevenBelow = 0.001;

export interface ConnectionsDocument {
  readonly services: readonly ServiceConnections[];
  /** Entries of other traffic, which is not looked at further. */
  readonly others: number;
}

export interface ServiceConnections {
  readonly id: ServicePortId;
  readonly family: Family;
  readonly protocol: Protocol;
  readonly open: number;
  readonly endpoints: readonly EndpointConnections[];
  /** Of open connections over the endpoints that new ones are given; undefined = cannot be told. */
  readonly spread?: SpreadTest;
}

export interface EndpointConnections {
  readonly endpoint: string;
  readonly pod: string;
  readonly condition: Condition | 'gone';
  readonly open: number;
  readonly opening: number;
  readonly closing: number;
  /** Those with open connections, most first. */
  readonly clients: readonly { readonly address: string; readonly open: number }[];
  readonly moreClients: number;
}

interface EndpointTally {
  readonly known: Endpoint | undefined;
  open: number;
  opening: number;
  closing: number;
  readonly clients: Map<string, number>;
}

/** Takes conntrack entries one by one: what it keeps grows with endpoints and their clients, not with entries. */
export class ConnectionTally {
  readonly #index: FlowIndex;
  readonly #services = new Map<Route, Map<string, EndpointTally>>();
  #others = 0;

  constructor(index: FlowIndex) {
    this.#index = index;
  }

  /** Forgets everything: an interrupted listing begins again. */
  clear(): void {
    this.#services.clear();
    this.#others = 0;
  }

  add(entry: ConntrackEntry): void {
    const flow = this.#index.find(entry);
    if (flow === undefined) {
      this.#others++;
      return;
    }
    let endpoints = this.#services.get(flow.route);
    if (endpoints === undefined) this.#services.set(flow.route, (endpoints = new Map()));
    let tally = endpoints.get(flow.endpoint);
    if (tally === undefined) {
      tally = { known: flow.known, open: 0, opening: 0, closing: 0, clients: new Map() };
      endpoints.set(flow.endpoint, tally);
    }
    const state = flowState(entry);
    tally[state]++;
    if (state === 'open') tally.clients.set(flow.client, (tally.clients.get(flow.client) ?? 0) + 1);
  }

  document(): ConnectionsDocument {
    const services = [...this.#services].map(([route, endpoints]) => serviceConnections(route, endpoints));
    return { services: services.sort((a, b) => (a.id < b.id ? -1 : 1)), others: this.#others };
  }
}

function serviceConnections(route: Route, tallies: ReadonlyMap<string, EndpointTally>): ServiceConnections {
  const { id, family, protocol } = route.port;
  const endpoints = [...tallies].map(([endpoint, tally]): EndpointConnections => {
    const clients = [...tally.clients]
      .map(([address, open]) => ({ address, open }))
      .sort((a, b) => b.open - a.open || (a.address < b.address ? -1 : 1));
    return {
      endpoint,
      pod: tally.known?.pod ?? '',
      condition: tally.known === undefined ? 'gone' : conditionOf(tally.known),
      open: tally.open,
      opening: tally.opening,
      closing: tally.closing,
      clients: clients.slice(0, clientsKept),
      moreClients: Math.max(0, clients.length - clientsKept),
    };
  });
  // Who gets none of many connections is part of the picture.
  const idle = route.reachable.filter(({ key }) => !tallies.has(key));
  if (idle.length <= idleShown) for (const endpoint of idle) endpoints.push(withoutConnections(endpoint));
  const spread = spreadOf(route, tallies);
  return {
    id,
    family,
    protocol,
    open: endpoints.reduce((sum, { open }) => sum + open, 0),
    endpoints: endpoints.sort((a, b) => (a.endpoint < b.endpoint ? -1 : 1)),
    ...(spread === undefined ? {} : { spread }),
  };
}

function withoutConnections(endpoint: Endpoint): EndpointConnections {
  return {
    endpoint: endpoint.key,
    pod: endpoint.pod,
    condition: conditionOf(endpoint),
    open: 0,
    opening: 0,
    closing: 0,
    clients: [],
    moreClients: 0,
  };
}

/** Only where every connection draws from the same list with equal chances. */
function spreadOf(route: Route, tallies: ReadonlyMap<string, EndpointTally>): SpreadTest | undefined {
  const { port, internal, external, hasExternal, cluster, local } = route;
  if (port.affinitySeconds > 0 || (hasExternal && external !== internal)) return undefined;
  // Pods and the node itself use all endpoints through external addresses, whatever the policy.
  if (hasExternal && port.externalPolicyLocal) return undefined;
  const list = internal === 'cluster' ? cluster : internal === 'local' ? local : [];
  return testSpread(list.map(({ key }) => tallies.get(key)?.open ?? 0));
}

/** What somebody should know, in sentences, worst first. */
export function connectionFindings(document: ConnectionsDocument): string[] {
  const findings: string[] = [];
  for (const { id, endpoints } of document.services) {
    for (const { endpoint, condition, open, clients, moreClients } of endpoints) {
      if (open === 0 || condition === 'ready' || condition === 'not ready') continue;
      const who = clients
        .slice(0, 3)
        .map((client) => (client.open === 1 ? client.address : `${client.address} (${client.open})`))
        .join(', ');
      const rest = clients.length - 3 + moreClients;
      const more = rest > 0 ? ` and ${rest} more` : '';
      const state = condition === 'gone' ? 'is gone' : `is ${condition}`;
      findings.push(`${id}: ${open} open to ${endpoint}, which ${state}: ${who}${more}`);
    }
  }
  for (const { id, endpoints, spread } of document.services) {
    if (spread === undefined || spread.probability >= unevenBelow) continue;
    const ready = endpoints.filter(({ condition }) => condition === 'ready');
    const most = (ready.length > 0 ? ready : endpoints).toSorted((a, b) => b.open - a.open)[0];
    findings.push(
      `${id}: uneven: ${most?.open ?? 0} open to ${most?.endpoint ?? ''}; equal chances for ` +
        `${spread.freedom + 1} endpoints would hardly give that (chi-square ${spread.statistic.toFixed(1)}, ` +
        `p ${spread.probability < 1e-6 ? '< 0.000001' : `= ${spread.probability.toPrecision(2)}`})`,
    );
  }
  return findings;
}
