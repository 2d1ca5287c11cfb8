/**
 * The routing table: what this node does with packets to Services, as a value. All modes, `render`, `explain`, the
 * health servers and the metrics read it, so that a policy is decided here, once, and never again in a mode.
 *
 * All addresses in here are canonical text (see ip.ts), all names are checked. Values are immutable; an unchanged
 * route is the same object in the next table (===).
 */
import type { Family, Protocol } from '../api/objects.ts';

/** `namespace/name:port/PROTOCOL`: identity of a service port (the port name may be empty: `namespace/name:/TCP`). */
export type ServicePortId = string;

export type FrontendKind = 'clusterIP' | 'externalIP' | 'loadBalancerIP' | 'nodePort';

/** One address at which a service port answers. */
export interface Frontend {
  readonly kind: FrontendKind;
  /** Canonical address; empty for kind nodePort (the node's addresses, which are the mode's business). */
  readonly ip: string;
  readonly port: number;
  readonly protocol: Protocol;
}

/** One address and port behind a service port. */
export interface Endpoint {
  readonly ip: string;
  readonly port: number;
  /** `ip:port`, `[ip]:port` for IPv6: its identity within a service port, and the order of lists (plain string order). */
  readonly key: string;
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  readonly isLocal: boolean;
  /** For explain and status only; empty if unknown. */
  readonly nodeName: string;
  readonly zone: string;
  readonly pod: string;
  /** `hints.forZones`, `hints.forNodes`: topology has used them already; explain shows them. */
  readonly zoneHints?: readonly string[];
  readonly nodeHints?: readonly string[];
}

/** What a Service says about one of its ports, for one IP family, checked and canonicalised. */
export interface ServicePort {
  readonly id: ServicePortId;
  readonly namespace: string;
  readonly service: string;
  readonly portName: string;
  readonly protocol: Protocol;
  readonly family: Family;
  /** Printable name: `namespace/name`, or `namespace/name:port` if the port has a name. In comments and chain hashes. */
  readonly name: string;
  readonly clusterIP: string;
  readonly port: number;
  /** 0 = none */
  readonly nodePort: number;
  /** Empty where feature gate AllowServiceExternalIPs is off. */
  readonly externalIPs: readonly string[];
  /** Set where the gate is off and the Service has external IPs: they still count for `Route.hasExternal`. */
  readonly externalIPsDisabled?: boolean;
  readonly loadBalancerIPs: readonly string[];
  /** Canonical CIDRs, empty = unrestricted. They guard load balancer IPs only. */
  readonly sourceRanges: readonly string[];
  /** Seconds of ClientIP affinity; 0 = no affinity. */
  readonly affinitySeconds: number;
  readonly internalPolicyLocal: boolean;
  readonly externalPolicyLocal: boolean;
  /** 0 = none */
  readonly healthCheckNodePort: number;
  /** The Service's age, for two claims on one frontend: milliseconds since the epoch. */
  readonly creationTimestamp: number;
}

/**
 * What happens to a packet to a frontend:
 * `cluster` / `local`: one of the route's `cluster` / `local` endpoints is chosen;
 * `reject`: port unreachable, nobody may serve it; `drop`: silence, because a Local policy has nobody here.
 */
export type Verdict = 'cluster' | 'local' | 'reject' | 'drop';

/**
 * Everything decided for one service port of one family.
 *
 * Traffic to the cluster IP follows `internal`. Traffic to external frontends (external IP, load balancer IP, node
 * port) follows `external` if it comes from outside; from Pods of the cluster (where the mode can tell) and from this
 * node it goes to `cluster` whenever `hasAny`, even if `external` is `drop`.
 *
 * Masquerading is not in here but follows from it alike in every mode: cluster IP: masqueradeAll, or the source is
 * known not to be a Pod; external frontends: always if not externalPolicyLocal, else only if from this node; hairpin: always.
 */
export interface Route {
  readonly port: ServicePort;
  /** Frontends this service port really has; one that an older Service claims too is left out (see `lostFrontends`). */
  readonly frontends: readonly Frontend[];
  /** Frontends that an older service port has: skipped, with a warning. */
  readonly lostFrontends: readonly Frontend[];
  readonly internal: Verdict;
  /** Same as `internal` where the service port has no external frontend. */
  readonly external: Verdict;
  /** Endpoints of Cluster policy on this node (after topology); sorted by key. Empty if not used. */
  readonly cluster: readonly Endpoint[];
  /** Endpoints of Local policy; sorted by key. Empty if not used. */
  readonly local: readonly Endpoint[];
  /** Union of both, sorted by key. */
  readonly reachable: readonly Endpoint[];
  /** All endpoints known for the service port, in any condition; sorted by key. Conntrack and status read them. */
  readonly endpoints: readonly Endpoint[];
  /** At least one usable endpoint somewhere. */
  readonly hasAny: boolean;
  /** The service port has a node port, an external IP or a load balancer IP in this family. */
  readonly hasExternal: boolean;
}

/** All routes of one family on this node. */
export interface RoutingTable {
  readonly family: Family;
  readonly routes: ReadonlyMap<ServicePortId, Route>;
}

/** What a health check server for `healthCheckNodePort` answers with. */
export interface HealthCheck {
  readonly port: number;
  /** Distinct addresses of ready endpoints on this node, over all ports of the Service. */
  readonly localEndpoints: number;
}

/** One difference between the table applied last and the table now. Neither side missing = changed in place. */
export interface RouteChange {
  readonly id: ServicePortId;
  readonly before: Route | undefined;
  readonly after: Route | undefined;
}

/** What differs since the change set taken before. Its size, not the cluster's, sets the cost of a sync. */
export interface ChangeSet {
  readonly family: Family;
  readonly changes: readonly RouteChange[];
  /** Some change is that of a UDP service port (added, removed, other endpoints): conntrack wants cleaning after the sync. */
  readonly udpEndpointsChanged: boolean;
  /** last-change-trigger-time of the slices folded in, milliseconds since the epoch, for network_programming_duration. */
  readonly triggerTimes: readonly number[];
}

/** Reported once per object and problem; the object or entry costs only itself. */
export interface Problem {
  /** e.g. `Service default/web` */
  readonly object: string;
  /** e.g. `spec.externalIPs[1]` */
  readonly field: string;
  readonly message: string;
  /** Stable, for the metric's label: e.g. `invalid_address`, `duplicate_frontend`. */
  readonly reason: string;
}
