/**
 * What the daemon answers on its unix socket, path by path. Plain JSON; times are ISO 8601 in UTC, durations
 * milliseconds. Fields are only added within /v1.
 */
import type { EndpointSlice, Family, Node, Protocol, Service, ServiceCIDR } from '../api/objects.ts';
import type { RefusalReason } from '../dataplane/counts.ts';
import type { DataplaneOptions, Mode } from '../dataplane/dataplane.ts';
import type { Endpoint, Frontend, Problem, ServicePort, ServicePortId, Verdict } from '../services/types.ts';

/** Where the daemon listens unless `--socket-path` says otherwise. */
export const defaultSocketPath = '/run/pointsman/pointsman.sock';

/** How much is counted: nothing beyond what the kernel counts anyway, service ports, or their endpoints too. */
export const counterLevels = ['off', 'services', 'endpoints'] as const;
export type CounterLevel = (typeof counterLevels)[number];

/** `/v1/status` */
export interface StatusDocument {
  readonly node: string;
  readonly version: string;
  readonly kubernetesVersion: string;
  readonly mode: Mode;
  readonly pid: number;
  readonly started: string;
  readonly now: string;
  /** As /livez and /healthz say; the second is also about the node. */
  readonly healthy: boolean;
  readonly nodeEligible: boolean;
  readonly zone: string;
  readonly serviceCounters: CounterLevel;
  readonly families: readonly FamilyStatus[];
  readonly problems: readonly Problem[];
  /** Problems beyond those listed. */
  readonly moreProblems: number;
}

export interface FamilyStatus {
  readonly family: Family;
  readonly nodeIP: string;
  readonly services: number;
  readonly servicePorts: number;
  /** Service ports whose cluster IP nobody serves. */
  readonly unserved: number;
  /** The first ten of them. */
  readonly unservedPorts: readonly ServicePortId[];
  readonly endpoints: EndpointCounts;
  readonly sync: SyncStatus;
}

/** Endpoints by condition: each counts once. */
export interface EndpointCounts {
  readonly total: number;
  readonly ready: number;
  /** Terminating, but still serving. */
  readonly draining: number;
  readonly notReady: number;
  /** On this node, in any condition. */
  readonly local: number;
}

export interface SyncStatus {
  /** Services and EndpointSlices are known: rules are written. */
  readonly listed: boolean;
  readonly healthy: boolean;
  readonly syncs: number;
  readonly failures: number;
  readonly lastSuccess: string | null;
  readonly lastDuration: number | null;
  readonly lastWasFull: boolean;
  readonly lastFailure: { readonly time: string; readonly error: string } | null;
}

/** `/v1/routes`: the routing tables. Lists are indexes into `endpoints`, so that each endpoint is there once. */
export interface RouteDocument {
  readonly port: ServicePort;
  readonly frontends: readonly Frontend[];
  readonly lostFrontends: readonly Frontend[];
  readonly internal: Verdict;
  readonly external: Verdict;
  readonly endpoints: readonly Endpoint[];
  readonly cluster: readonly number[];
  readonly local: readonly number[];
  readonly reachable: readonly number[];
  readonly hasAny: boolean;
  readonly hasExternal: boolean;
}

export interface RoutesDocument {
  readonly node: string;
  readonly mode: Mode;
  readonly families: readonly FamilyRoutes[];
}

export interface FamilyRoutes {
  readonly family: Family;
  /** Canonical, sorted. */
  readonly serviceCIDRs: readonly string[];
  readonly routes: readonly RouteDocument[];
}

/**
 * `/v1/objects`: the objects behind the routes, put together from them: the daemon keeps no copy of what the API
 * said. There is one slice for each service port and family; identities (uid, resourceVersion) are empty, parts that
 * were skipped are not in it.
 */
export interface ObjectsDocument {
  readonly node: Node | null;
  readonly services: readonly Service[];
  readonly slices: readonly EndpointSlice[];
  readonly serviceCIDRs: readonly ServiceCIDR[];
}

/** `/v1/config`: what the modes were told, for whoever wants to translate the routes as the daemon does. */
export interface ConfigDocument {
  readonly node: string;
  readonly mode: Mode;
  readonly options: readonly DataplaneOptions[];
  readonly localhostNodePorts: boolean;
  readonly serviceCounters: CounterLevel;
  readonly flags: readonly { readonly name: string; readonly value: string }[];
  /** The effective KubeProxyConfiguration. */
  readonly configuration: unknown;
}

/** One service port's change on its way into the kernel. */
export interface ChangeRecord {
  readonly sequence: number;
  readonly family: Family;
  readonly id: ServicePortId;
  readonly what: 'added' | 'changed' | 'removed';
  readonly endpointsBefore: number;
  readonly endpointsAfter: number;
  /** Endpoints that came, went or changed their condition; empty for long lists and large change sets. */
  readonly details: readonly string[];
  /**
   * The earliest last-change-trigger-time of the EndpointSlices in the same sync (often whole seconds); null if none of
   * them had one.
   */
  readonly triggered: string | null;
  /** The first event of the sync was handled. */
  readonly received: string;
  /** The kernel has it; null = not yet. */
  readonly applied: string | null;
  /** From received to applied, to a hundredth of a millisecond; null = not yet. */
  readonly milliseconds: number | null;
  /** Syncs that failed with it. */
  readonly failures: number;
}

/** `/v1/changes`, oldest first. */
export interface ChangesDocument {
  readonly changes: readonly ChangeRecord[];
  /** Changes since the start that are not in the list any more. */
  readonly forgotten: number;
}

/** `/v1/counters` */
export interface CountersDocument {
  /** Whose counters these are; `none` = this mode, or this level of --service-counters, counts nothing. */
  readonly source: Mode | 'none';
  /** The daemon's start: rules that were there before have counted before. */
  readonly since: string;
  readonly read: string;
  /** What reading them took. */
  readonly milliseconds: number;
  readonly services: readonly ServiceCount[];
  readonly endpoints: readonly EndpointCount[];
  readonly refused: readonly RefusedCount[];
  readonly masqueraded: readonly { readonly family: Family; readonly connections: number }[];
  /** What these numbers leave out. */
  readonly notes: readonly string[];
}

export interface ServiceLabels {
  readonly id: ServicePortId;
  readonly family: Family;
  readonly namespace: string;
  readonly service: string;
  /** The port's name; empty if it has none. */
  readonly port: string;
  readonly protocol: Protocol;
}

export interface ServiceCount extends ServiceLabels {
  /** New connections (for UDP: flows) that were sent to an endpoint. */
  readonly connections: number;
  /** Those of them that session affinity sent where the client was before; undefined = not counted apart. */
  readonly affinityHits?: number;
}

export interface EndpointCount extends ServiceLabels {
  /** `ip:port` */
  readonly endpoint: string;
  readonly pod: string;
  readonly connections: number;
}

export interface RefusedCount {
  readonly family: Family;
  readonly reason: RefusalReason;
  readonly verdict: 'reject' | 'drop';
  /** Undefined: not counted by service. */
  readonly id?: ServicePortId;
  readonly packets: number;
}
