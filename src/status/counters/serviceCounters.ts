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
import { SeriesLimit } from './seriesLimit.ts';

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
    const endpointsOf = new Map<string, EndpointCount[]>();
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
          const { key, pod } = endpoint;
          push(endpointsOf, servicePortKey({ family, id: meaning.id }), {
            ...labelsOf(route),
            endpoint: key,
            pod,
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
    services.sort(byId);
    const endpoints: EndpointCount[] = [];
    // Sorted list by list: all at once takes long where there are 100,000.
    for (const service of services) {
      const own = endpointsOf.get(servicePortKey(service)) ?? [];
      own.sort((a, b) => (a.endpoint < b.endpoint ? -1 : 1));
      for (const one of own) endpoints.push(one);
    }
    return {
      source: sources[0]?.name ?? 'none',
      since: this.#since,
      read: new Date(this.#now()).toISOString(),
      milliseconds: Math.round(milliseconds * 100) / 100,
      services,
      endpoints,
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
    this.#metric(registry, {
      name: 'pointsman_service_connections_total',
      help: 'New connections by service port.',
      labelNames: services,
      items: (document) => document.services,
      key: servicePortKey,
      labels,
      value: ({ connections }) => connections,
    });
    this.#metric(registry, {
      name: 'pointsman_service_affinity_hits_total',
      help: 'New connections that session affinity sent to the endpoint of before (where it is counted).',
      labelNames: services,
      items: (document) => document.services.filter(({ affinityHits }) => affinityHits !== undefined),
      key: servicePortKey,
      labels,
      value: ({ affinityHits }) => affinityHits ?? 0,
    });
    if (level === 'endpoints') {
      this.#metric(registry, {
        name: 'pointsman_endpoint_connections_total',
        help: 'New connections by endpoint of a service port.',
        labelNames: [...services, 'endpoint'] as const,
        items: (document) => document.endpoints,
        key: (one) => `${servicePortKey(one)} ${one.endpoint}`,
        labels: (one) => ({ ...labels(one), endpoint: one.endpoint }),
        value: ({ connections }) => connections,
      });
    }
    this.#metric(registry, {
      name: 'pointsman_rejected_connections_total',
      help: 'First packets that were rejected or dropped, by reason.',
      labelNames: ['reason', 'verdict', 'ip_family'] as const,
      items: ({ refused }) => refusedByReason(refused),
      key: ({ reason, verdict, family }) => `${reason} ${verdict} ${family}`,
      labels: ({ reason, verdict, family }) => ({ reason, verdict, ip_family: family }),
      value: ({ packets }) => packets,
    });
    this.#metric(registry, {
      name: 'pointsman_masqueraded_connections_total',
      help: 'New connections whose source address was replaced by that of the node.',
      labelNames: ['ip_family'] as const,
      items: ({ masqueraded }) => masqueraded,
      key: ({ family }) => family,
      labels: ({ family }) => ({ ip_family: family }),
      value: ({ connections }) => connections,
    });
  }

  #metric<Label extends string, Item>(registry: Registry, series: Series<Label, Item>): void {
    const { name, help, labelNames } = series;
    const limit = new SeriesLimit(seriesMax, series.key, series.value);
    const latest = async (): Promise<CountersDocument | undefined> => {
      try {
        return await this.read();
      } catch (err) {
        this.#options.log.error('Cannot read the counters of connections', { err });
        return undefined;
      }
    };
    const fill = (counter: Counter<Label>, document: CountersDocument): void =>
      this.#fill(counter, series, limit, series.items(document));
    const counter: Counter<Label> = new Counter({
      name,
      help,
      labelNames: [...labelNames],
      registers: [registry],
      async collect() {
        const document = await latest();
        this.reset();
        if (document !== undefined) fill(counter, document);
      },
    });
  }

  #fill<Label extends string, Item>(
    counter: Counter<Label>,
    { name, labelNames, labels: labelsOfItem, value }: Series<Label, Item>,
    limit: SeriesLimit<Item>,
    items: readonly Item[],
  ): void {
    const { own, others } = limit.divide(items);
    for (const item of own) counter.inc(labelsOfItem(item), value(item));
    if (others === undefined) return;
    const other = Object.fromEntries(labelNames.map((label) => [label, 'other'])) as Record<Label, string>;
    counter.inc(other, others);
    if (this.#warned) return;
    this.#warned = true;
    this.#options.log.warn(
      'More time series than one metric may have: the rest is added up under "other"; a lower --service-counters level has fewer',
      { metric: name, series: items.length, limit: seriesMax },
    );
  }
}

/** A metric, made of items of the document. */
interface Series<Label extends string, Item> {
  readonly name: string;
  readonly help: string;
  readonly labelNames: readonly Label[];
  readonly items: (document: CountersDocument) => readonly Item[];
  /** Tells items apart. */
  readonly key: (item: Item) => string;
  readonly labels: (item: Item) => Record<Label, string>;
  readonly value: (item: Item) => number;
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

function push<K, V>(lists: Map<K, V[]>, key: K, value: V): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [value]);
  else list.push(value);
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

/** Of both families. */
function servicePortKey({ family, id }: Pick<ServiceLabels, 'family' | 'id'>): string {
  return `${family} ${id}`;
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

function refusedByReason(refused: readonly RefusedCount[]): RefusedCount[] {
  const sums = new Map<string, RefusedCount>();
  for (const { reason, verdict, family, packets } of refused) {
    const key = `${reason} ${verdict} ${family}`;
    sums.set(key, { reason, verdict, family, packets: packets + (sums.get(key)?.packets ?? 0) });
  }
  return [...sums.values()];
}
