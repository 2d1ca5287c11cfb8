/** What the daemon knows of itself, put together when somebody asks: between questions only the change log is kept. */
import type { Family, Node } from '../api/objects.ts';
import type { DataplaneOptions, Mode } from '../dataplane/dataplane.ts';
import type { ChangeSet, Endpoint, Problem, Route, RoutingTable, ServicePortId } from '../services/types.ts';
import { ChangeLog, conditionOf, type SyncObserver } from './changeLog.ts';
import type { ServiceCounters } from './counters/serviceCounters.ts';
import type {
  ChangesDocument,
  ConfigDocument,
  CounterLevel,
  CountersDocument,
  EndpointCounts,
  FamilyStatus,
  ObjectsDocument,
  StatusDocument,
  SyncStatus,
} from './documents.ts';
import { objectsDocument, routesText } from './routesDocument.ts';

/** Problems shown; of a cluster with more, the rest is counted. */
const problemsShown = 200;
/** Service ports without an endpoint that are named. */
const unservedKept = 10;

/** One family, as the sync loop has it. All live. */
export interface FamilySource {
  readonly options: DataplaneOptions;
  readonly table: () => RoutingTable;
  readonly listed: () => boolean;
  readonly serviceCIDRs: () => readonly string[];
  /** As the health server sees it. */
  readonly healthy: () => boolean;
}

export interface DaemonFacts {
  readonly node: string;
  readonly mode: Mode;
  readonly version: string;
  readonly kubernetesVersion: string;
  readonly serviceCounters: CounterLevel;
  readonly localhostNodePorts: boolean;
  readonly flags: ConfigDocument['flags'];
  readonly configuration: unknown;
  readonly nodeObject: () => Node | undefined;
  readonly healthy: () => boolean;
  readonly nodeEligible: () => boolean;
  /** What is wrong with objects now. */
  readonly problems: () => readonly Problem[];
  readonly counters: ServiceCounters;
}

interface SyncFacts {
  syncs: number;
  failures: number;
  lastSuccess: number | undefined;
  lastDuration: number;
  lastWasFull: boolean;
  lastFailure: { readonly time: string; readonly error: string } | undefined;
}

/** Told by the sync loops from the start; asked by the socket. */
export class DaemonStatus implements SyncObserver {
  readonly #changes = new ChangeLog();
  readonly #syncs: Record<Family, SyncFacts> = { IPv4: noSyncs(), IPv6: noSyncs() };
  readonly #started = Date.now();

  taken(changes: ChangeSet, received: number, triggered: number | undefined): void {
    this.#changes.taken(changes, received, triggered);
  }

  applied(family: Family, now: number, duration: number, full: boolean): void {
    this.#changes.applied(family, now);
    const facts = this.#syncs[family];
    facts.syncs++;
    facts.lastSuccess = now;
    facts.lastDuration = duration;
    facts.lastWasFull = full;
  }

  failed(family: Family, now: number, error: string): void {
    this.#changes.failed(family);
    const facts = this.#syncs[family];
    facts.failures++;
    facts.lastFailure = { time: new Date(now).toISOString(), error };
  }

  /** The answers, path by path. */
  answers(facts: DaemonFacts, families: readonly FamilySource[]): Answers {
    const tables = (): { table: RoutingTable; serviceCIDRs: readonly string[] }[] =>
      families.map((one) => ({ table: one.table(), serviceCIDRs: one.serviceCIDRs() }));
    const { node, mode } = facts;
    return {
      status: () => this.#status(facts, families),
      routes: (filter) => routesText({ node, mode }, tables(), matcher(filter)),
      objects: (filter) => objectsDocument(facts.nodeObject(), tables(), matcher(filter)),
      changes: ({ namespace, service }) =>
        this.#changes.document((id) => {
          const [itsNamespace = '', rest = ''] = id.split('/', 2);
          const itsName = rest.slice(0, rest.indexOf(':'));
          return (namespace === '' || namespace === itsNamespace) && (service === '' || service === itsName);
        }),
      counters: () => facts.counters.read(),
      config: () => ({
        node,
        mode,
        options: families.map(({ options }) => options),
        localhostNodePorts: facts.localhostNodePorts,
        serviceCounters: facts.serviceCounters,
        flags: facts.flags,
        configuration: facts.configuration,
      }),
    };
  }

  #status(facts: DaemonFacts, families: readonly FamilySource[]): StatusDocument {
    const problems = facts.problems();
    return {
      node: facts.node,
      version: facts.version,
      kubernetesVersion: facts.kubernetesVersion,
      mode: facts.mode,
      pid: process.pid,
      started: new Date(this.#started).toISOString(),
      now: new Date().toISOString(),
      healthy: facts.healthy(),
      nodeEligible: facts.nodeEligible(),
      zone: facts.nodeObject()?.zone ?? '',
      serviceCounters: facts.serviceCounters,
      families: families.map((one) => this.#family(one)),
      problems: problems.slice(0, problemsShown),
      moreProblems: Math.max(0, problems.length - problemsShown),
    };
  }

  #family(source: FamilySource): FamilyStatus {
    const { family, routes } = source.table();
    const { nodeIP } = source.options;
    const services = new Set<string>();
    const counts = { total: 0, ready: 0, draining: 0, notReady: 0, local: 0 };
    let unserved = 0;
    const unservedPorts: ServicePortId[] = [];
    for (const { port, internal, endpoints } of routes.values()) {
      services.add(`${port.namespace}/${port.service}`);
      if (internal === 'reject' && ++unserved <= unservedKept) unservedPorts.push(port.id);
      for (const endpoint of endpoints) countEndpoint(counts, endpoint);
    }
    const { lastSuccess, lastDuration, lastFailure, ...rest } = this.#syncs[family];
    const sync: SyncStatus = {
      ...rest,
      listed: source.listed(),
      healthy: source.healthy(),
      lastSuccess: lastSuccess === undefined ? null : new Date(lastSuccess).toISOString(),
      lastDuration: lastSuccess === undefined ? null : Math.round(lastDuration * 100) / 100,
      lastFailure: lastFailure ?? null,
    };
    return {
      family,
      nodeIP,
      services: services.size,
      servicePorts: routes.size,
      unserved,
      unservedPorts,
      endpoints: counts,
      sync,
    };
  }
}

export interface AnswerFilter {
  /** Empty = all. */
  readonly namespace: string;
  readonly service: string;
}

export interface Answers {
  status(): StatusDocument;
  /** JSON in pieces. */
  routes(filter: AnswerFilter): Generator<string>;
  objects(filter: AnswerFilter): ObjectsDocument;
  changes(filter: AnswerFilter): ChangesDocument;
  counters(): Promise<CountersDocument>;
  config(): ConfigDocument;
}

function noSyncs(): SyncFacts {
  return {
    syncs: 0,
    failures: 0,
    lastSuccess: undefined,
    lastDuration: 0,
    lastWasFull: false,
    lastFailure: undefined,
  };
}

function matcher({ namespace, service }: AnswerFilter): (route: Route) => boolean {
  return ({ port }) =>
    (namespace === '' || namespace === port.namespace) && (service === '' || service === port.service);
}

function countEndpoint(counts: { -readonly [K in keyof EndpointCounts]: number }, endpoint: Endpoint): void {
  counts.total++;
  if (endpoint.isLocal) counts.local++;
  const condition = conditionOf(endpoint);
  if (condition === 'ready') counts.ready++;
  else if (condition === 'draining') counts.draining++;
  else counts.notReady++;
}
