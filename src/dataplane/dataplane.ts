/**
 * What every mode offers the daemon. One Dataplane serves one IP family; a dual-stack node has two, independent.
 * Each mode has a pure half (*translate*: routes to kernel objects that print themselves) and *apply*.
 */
import type { Family, Protocol, ServiceCIDR } from '../api/objects.ts';
import type { LocalDetector } from '../services/localDetection.ts';
import type { ChangeSet, Route, RoutingTable, ServicePortId } from '../services/types.ts';
import type { CounterSource } from './counts.ts';

export type Mode = 'iptables' | 'nftables' | 'ipvs' | 'userspace';

/** What a mode needs to know beyond routes; fixed while it runs. */
export interface DataplaneOptions {
  readonly family: Family;
  /** 0..31; the mark is `1 << bit`. */
  readonly masqueradeBit: number;
  readonly masqueradeAll: boolean;
  readonly localDetector: LocalDetector | undefined;
  /** This node's address of the family (`127.0.0.1` / `::1` if unknown). */
  readonly nodeIP: string;
  /**
   * CIDRs of this family whose local addresses answer node ports, canonical; `primary` is already expanded.
   * Contains `0.0.0.0/0` or `::/0` where all addresses answer.
   */
  readonly nodePortAddresses: readonly string[];
  /** Milliseconds: the retry interval after failures, canary interval, spacing of stale-chain clean-up. */
  readonly syncPeriod: number;
}

export interface SyncRequest {
  readonly table: RoutingTable;
  /** Differences to the table of the last sync attempt. */
  readonly changes: ChangeSet;
  /** Known ServiceCIDRs of this family, canonical, sorted. */
  readonly serviceCIDRs: readonly string[];
  /** Do not trust what the kernel holds: compare or rewrite everything. */
  readonly full: boolean;
}

export interface SyncResult {
  /** What was done: a mode may turn a partial request into a full sync (first sync, after a failure). */
  readonly full: boolean;
}

/** A mode, for one family. `sync` calls never overlap. A rejected promise is a failed sync: the rules of the last good sync are still in force, and the daemon retries with `full`. */
export interface Dataplane {
  readonly mode: Mode;
  readonly family: Family;
  /** Counters of connections; undefined = as it is set up, it has none. */
  readonly counters?: CounterSource | undefined;
  /** Settings, probes and watchers that have to exist before the first sync. Throws with a sentence if the mode cannot work here. */
  start(): Promise<void>;
  sync(request: SyncRequest): Promise<SyncResult>;
  /**
   * This process answers UDP clients of the service port in the place of endpoints, at that port of its own: flows
   * translated to there are as they should be. Modes whose rules lead to endpoints have none.
   */
  relays?(id: ServicePortId, port: number): boolean;
  /** Stops watchers; leaves every rule in place. Idempotent. */
  stop(): Promise<void>;
}

/** What a mode tells the daemon on its own account. */
export interface DataplaneEvents {
  /** Somebody else changed our rules, or the mode wants to write again: `reason` is for the log. Asks for a full sync at once. */
  resync(reason: string): void;
}

export type { ChangeSet, Protocol, Route, RoutingTable, ServiceCIDR };

/** A change of our rules by somebody else. */
export interface ChangeByOthers {
  /** e.g. `chain KUBE-SERVICES of nat missing`, `rule in chain dispatch removed`. */
  readonly what: string;
  /** What kind of thing was changed; `unknown` where only its effect was seen. */
  readonly object: 'table' | 'chain' | 'rule' | 'jump' | 'set' | 'element' | 'unknown';
  /** The process, e.g. `nft (pid 4711)`, where the kernel tells; else empty. */
  readonly by: string;
  /** It is put back at once; false with `--repair-drift=false`. */
  readonly repairing: boolean;
}

/** What a mode reports for the metrics; the daemon maps each to the metric of the reference's name. */
export type DataplaneReport =
  | {
      readonly kind: 'iptablesRules';
      readonly table: 'filter' | 'nat';
      readonly total: number;
      readonly last: number;
    }
  | { readonly kind: 'iptablesRestoreFailure'; readonly partial: boolean }
  | { readonly kind: 'nftablesSyncFailure' }
  | { readonly kind: 'nftablesCleanupFailure' }
  | { readonly kind: 'ipvsSyncFailure' }
  /** Userspace mode: sockets of clients, endpoints and listeners of the whole process, and how many there may be. */
  | { readonly kind: 'userspaceSockets'; readonly open: number; readonly limit: number }
  /** Userspace mode turned a client away. */
  | {
      readonly kind: 'userspaceRefused';
      readonly reason: 'socket_limit' | 'no_endpoint_answers' | 'not_allowed';
    }
  /** Node ports of the family that answer on localhost through this process, and those that it cannot listen on. */
  | { readonly kind: 'localhostNodePorts'; readonly listening: number; readonly unavailable: number }
  /** Somebody else removed or changed rules of ours. */
  | ({ readonly kind: 'changedByOthers' } & ChangeByOthers)
  /** Rules that somebody else removed or changed were put back. */
  | { readonly kind: 'repaired'; readonly what: string };
