/** The daemon's counts of connections: read from the kernel when somebody asks, never on their own. */
import { Counter, type Registry } from 'prom-client';
import type { Family } from '../../api/objects.ts';
import type { CounterSource, Meaning } from '../../dataplane/counts.ts';
import type { Logger } from '../../log/logger.ts';
import type { Endpoint, Route, RoutingTable, ServicePortId } from '../../services/types.ts';
import type {
  CounterLevel,
  CountersDocument,
  EndpointCount,
  RefusedCount,
  ServiceCount,
  ServiceLabels,
} from '../documents.ts';
import { CounterAccumulator, type Total } from './accumulate.ts';

/** Time series of one metric, whatever the cluster: the rest is added up under `other`. */
export const seriesMax = 20_000;
/** Milliseconds: within this time, and ten times as long as a reading takes, the same answer serves. */
const freshFor = 500;

export interface CountedFamily {
  readonly family: Family;
  readonly table: () => RoutingTable;
  /** Undefined: this mode, or this level, counts nothing. */
  readonly source: CounterSource | undefined;
}

export interface ServiceCountersOptions {
  readonly families: readonly CountedFamily[];
  readonly level: CounterLevel;
  readonly log: Logger;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

interface FamilyCounts extends CountedFamily {
  readonly counts: CounterAccumulator;
  /** By service port, over all its endpoints, those that are gone too. */
  readonly sums: Map<ServicePortId, number>;
  readonly lastOfEndpoint: Map<string, number>;
  /** What was said last: sums and differences of counters that are read one after the other may step back. */
  readonly saidConnections: Map<ServicePortId, number>;
  readonly saidHits: Map<ServicePortId, number>;
}

export class ServiceCounters {
  readonly #options: ServiceCountersOptions;
  readonly #families: readonly FamilyCounts[];
  readonly #now: () => number;
  readonly #since: string;
  #reading: Promise<CountersDocument> | undefined;
  #latest: CountersDocument | undefined;
  #latestAt = -Infinity;
  #warned = false;

  constructor(options: ServiceCountersOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#since = new Date(this.#now()).toISOString();
    this.#families = options.families.map((one) => ({
      ...one,
      counts: new CounterAccumulator(one.family, one.source?.mayMiss),
      sums: new Map(),
      lastOfEndpoint: new Map(),
      saidConnections: new Map(),
      saidHits: new Map(),
    }));
  }

  /** Those who ask at the same time get the same reading. Rejects if the kernel cannot be asked. */
  read(): Promise<CountersDocument> {
    const latest = this.#latest;
    if (latest !== undefined && this.#now() - this.#latestAt < Math.max(freshFor, 10 * latest.milliseconds))
      return Promise.resolve(latest);
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #read(): Promise<CountersDocument> {
    const started = performance.now();
    for (const { source, table, counts } of this.#families) {
      if (source === undefined) continue;
      const routes = table();
      counts.take(await source.read(routes));
    }
    for (const one of this.#families) addUp(one);
    const document = this.#document(performance.now() - started);
    this.#latest = document;
    this.#latestAt = this.#now();
    return document;
  }

  #document(milliseconds: number): CountersDocument {
    const services: ServiceCount[] = [];
    const endpoints: EndpointCount[] = [];
    const refused: RefusedCount[] = [];
    const masqueraded: { family: Family; connections: number }[] = [];
    for (const { family, table, counts, sums, saidConnections, saidHits } of this.#families) {
      const { routes } = table();
      const { turnedAway, hits } = partsOf(counts.totals());
      for (const [id, counted] of sums) {
        const route = routes.get(id);
        if (route === undefined) continue;
        const connections = neverLess(saidConnections, id, counted - (turnedAway.get(id) ?? 0));
        const found = hits.get(id);
        const affinityHits = found === undefined ? undefined : neverLess(saidHits, id, found);
        const one = labelsOf(route);
        services.push(
          affinityHits === undefined ? { ...one, connections } : { ...one, connections, affinityHits },
        );
      }
      const known = new EndpointIndex(routes);
      for (const { meaning, packets } of counts.totals()) {
        if (meaning.kind === 'endpoint') {
          const route = routes.get(meaning.id);
          const endpoint = known.find(meaning.id, meaning.endpoint);
          if (route === undefined || endpoint === undefined) continue;
          endpoints.push({
            ...labelsOf(route),
            endpoint: endpoint.key,
            pod: endpoint.pod,
            connections: packets,
          });
        } else if (meaning.kind === 'refused') {
          const { reason, verdict, id } = meaning;
          refused.push({ family, reason, verdict, ...(id === undefined ? {} : { id }), packets });
        } else if (meaning.kind === 'masqueraded') masqueraded.push({ family, connections: packets });
      }
    }
    const sources = this.#families.flatMap(({ source }) => source ?? []);
    const byId = (a: ServiceLabels, b: ServiceLabels): number => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
    return {
      source: sources[0]?.name ?? 'none',
      since: this.#since,
      read: new Date(this.#now()).toISOString(),
      milliseconds: Math.round(milliseconds * 100) / 100,
      services: services.sort(byId),
      endpoints: endpoints.sort((a, b) => byId(a, b) || (a.endpoint < b.endpoint ? -1 : 1)),
      refused,
      masqueraded,
      notes: [...new Set(sources.flatMap(({ notes }) => notes))],
    };
  }

  /** The metrics of the level; nothing at level `off`, or where nothing is counted. */
  register(registry: Registry): void {
    const { level } = this.#options;
    if (level === 'off' || this.#families.every(({ source }) => source === undefined)) return;
    const services = ['namespace', 'service', 'port', 'protocol', 'ip_family'] as const;
    this.#metric(
      registry,
      'pointsman_service_connections_total',
      'New connections by service port.',
      services,
      ({ services: counts }) => counts.map((one) => [labels(one), one.connections]),
    );
    this.#metric(
      registry,
      'pointsman_service_affinity_hits_total',
      'New connections that session affinity sent to the endpoint of before (where it is counted).',
      services,
      ({ services: counts }) =>
        counts.flatMap((one) => (one.affinityHits === undefined ? [] : [[labels(one), one.affinityHits]])),
    );
    if (level === 'endpoints') {
      this.#metric(
        registry,
        'pointsman_endpoint_connections_total',
        'New connections by endpoint of a service port.',
        [...services, 'endpoint'],
        ({ endpoints }) =>
          endpoints.map((one) => [{ ...labels(one), endpoint: one.endpoint }, one.connections]),
      );
    }
    this.#metric(
      registry,
      'pointsman_rejected_connections_total',
      'First packets that were rejected or dropped, by reason.',
      ['reason', 'verdict', 'ip_family'],
      ({ refused }) => refusedByReason(refused),
    );
    this.#metric(
      registry,
      'pointsman_masqueraded_connections_total',
      'New connections whose source address was replaced by that of the node.',
      ['ip_family'],
      ({ masqueraded }) => masqueraded.map(({ family, connections }) => [{ ip_family: family }, connections]),
    );
  }

  #metric<Label extends string>(
    registry: Registry,
    name: string,
    help: string,
    labelNames: readonly Label[],
    values: (document: CountersDocument) => (readonly [labels: Record<Label, string>, value: number])[],
  ): void {
    const latest = async (): Promise<CountersDocument | undefined> => {
      try {
        return await this.read();
      } catch (err) {
        this.#options.log.error('Cannot read the counters of connections', { err });
        return undefined;
      }
    };
    const capped = (
      list: (readonly [labels: Record<Label, string>, value: number])[],
    ): (readonly [labels: Record<Label, string>, value: number])[] => this.#cap(name, labelNames, list);
    const counter: Counter<Label> = new Counter({
      name,
      help,
      labelNames: [...labelNames],
      registers: [registry],
      async collect() {
        const document = await latest();
        this.reset();
        if (document === undefined) return;
        for (const [labels, value] of capped(values(document))) counter.inc(labels, value);
      },
    });
  }

  /** The hard limit: what is beyond it becomes one series, so that sums stay right. */
  #cap<Label extends string>(
    name: string,
    labelNames: readonly Label[],
    list: (readonly [labels: Record<Label, string>, value: number])[],
  ): (readonly [labels: Record<Label, string>, value: number])[] {
    if (list.length <= seriesMax) return list;
    if (!this.#warned) {
      this.#warned = true;
      this.#options.log.warn(
        'More time series than one metric may have: the rest is added up under "other"; a lower --service-counters level has fewer',
        { metric: name, series: list.length, limit: seriesMax },
      );
    }
    const kept = list.slice(0, seriesMax - 1);
    const rest = list.slice(seriesMax - 1).reduce((sum, [, value]) => sum + value, 0);
    const other = Object.fromEntries(labelNames.map((label) => [label, 'other'])) as Record<Label, string>;
    return [...kept, [other, rest]];
  }
}

/** Where service ports are not counted themselves, their endpoints' counts are added up, those of gone ones kept. */
function addUp({ counts, sums, lastOfEndpoint, saidConnections, saidHits, table }: FamilyCounts): void {
  const { routes } = table();
  const counted = new Set<ServicePortId>();
  for (const { meaning, packets } of counts.totals()) {
    if (meaning.kind !== 'service') continue;
    counted.add(meaning.id);
    sums.set(meaning.id, packets);
  }
  const known = new EndpointIndex(routes);
  const gone = (meaning: Meaning): boolean => isGone(meaning, routes, known);
  for (const total of counts.totals()) {
    const { meaning } = total;
    if (meaning.kind !== 'endpoint' || counted.has(meaning.id)) continue;
    addEndpoint(total, `${meaning.id} ${meaning.endpoint}`, meaning.id, sums, lastOfEndpoint);
    if (gone(meaning)) lastOfEndpoint.delete(`${meaning.id} ${meaning.endpoint}`);
  }
  counts.prune((meaning) => !gone(meaning));
  for (const byService of [sums, saidConnections, saidHits])
    for (const id of byService.keys()) if (!routes.has(id)) byService.delete(id);
}

/** What is taken off from connections, and what affinity found, by service port. */
function partsOf(totals: Iterable<Total>): {
  readonly turnedAway: ReadonlyMap<ServicePortId, number>;
  readonly hits: ReadonlyMap<ServicePortId, number>;
} {
  const turnedAway = new Map<ServicePortId, number>();
  const hits = new Map<ServicePortId, number>();
  for (const { meaning, packets } of totals) {
    switch (meaning.kind) {
      case 'turnedAway':
        turnedAway.set(meaning.id, packets);
        break;
      case 'affinity':
      case 'affinityAsked':
        hits.set(meaning.id, (hits.get(meaning.id) ?? 0) + packets);
        break;
      case 'affinityMissed':
        hits.set(meaning.id, (hits.get(meaning.id) ?? 0) - packets);
        break;
    }
  }
  return { turnedAway, hits };
}

function neverLess(said: Map<ServicePortId, number>, id: ServicePortId, now: number): number {
  const most = Math.max(said.get(id) ?? 0, now);
  said.set(id, most);
  return most;
}

function addEndpoint(
  { packets }: Total,
  key: string,
  id: ServicePortId,
  sums: Map<ServicePortId, number>,
  lastOfEndpoint: Map<string, number>,
): void {
  const last = lastOfEndpoint.get(key) ?? 0;
  sums.set(id, (sums.get(id) ?? 0) + packets - last);
  lastOfEndpoint.set(key, packets);
}

/** Endpoints by key, of the service ports that are asked for. */
class EndpointIndex {
  readonly #routes: ReadonlyMap<ServicePortId, Route>;
  readonly #byId = new Map<ServicePortId, ReadonlyMap<string, Endpoint>>();

  constructor(routes: ReadonlyMap<ServicePortId, Route>) {
    this.#routes = routes;
  }

  find(id: ServicePortId, key: string): Endpoint | undefined {
    let endpoints = this.#byId.get(id);
    if (endpoints === undefined) {
      endpoints = new Map(this.#routes.get(id)?.endpoints.map((endpoint) => [endpoint.key, endpoint]));
      this.#byId.set(id, endpoints);
    }
    return endpoints.get(key);
  }
}

function isGone(meaning: Meaning, routes: ReadonlyMap<ServicePortId, Route>, known: EndpointIndex): boolean {
  switch (meaning.kind) {
    case 'masqueraded':
      return false;
    case 'refused':
      return meaning.id !== undefined && !routes.has(meaning.id);
    case 'endpoint':
      return known.find(meaning.id, meaning.endpoint) === undefined;
    default:
      return !routes.has(meaning.id);
  }
}

function labelsOf({ port }: Route): ServiceLabels {
  const { id, family, namespace, service, portName, protocol } = port;
  return { id, family, namespace, service, port: portName, protocol };
}

function labels({ namespace, service, port, protocol, family }: ServiceLabels): {
  namespace: string;
  service: string;
  port: string;
  protocol: string;
  ip_family: string;
} {
  return { namespace, service, port, protocol, ip_family: family };
}

function refusedByReason(
  refused: readonly RefusedCount[],
): (readonly [{ reason: string; verdict: string; ip_family: string }, number])[] {
  const sums = new Map<string, number>();
  for (const { reason, verdict, family, packets } of refused) {
    const key = `${reason} ${verdict} ${family}`;
    sums.set(key, (sums.get(key) ?? 0) + packets);
  }
  return [...sums].map(([key, packets]) => {
    const [reason = '', verdict = '', ip_family = ''] = key.split(' ');
    return [{ reason, verdict, ip_family }, packets];
  });
}
