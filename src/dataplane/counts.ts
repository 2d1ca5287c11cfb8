/** What every mode's counters of connections say, and how they are asked. */
import type { RoutingTable, ServicePortId } from '../services/types.ts';
import type { Mode } from './dataplane.ts';

/** Why first packets went nowhere. A client that repeats a dropped packet counts again. */
export type RefusalReason =
  | 'no_endpoints'
  | 'no_local_endpoints'
  | 'source_range'
  | 'no_such_port'
  | 'no_such_service'
  | 'localnet'
  /** Userspace mode: its listeners turned a client away. */
  | 'no_endpoint_answers'
  | 'socket_limit'
  | 'not_allowed';

/** What a packet was that a counter has counted: the first one of a connection, or of a try at one. */
export type Meaning =
  | { readonly kind: 'service'; readonly id: ServicePortId }
  /** Of those of `service`: what was refused further on after all. */
  | { readonly kind: 'turnedAway'; readonly id: ServicePortId }
  | { readonly kind: 'endpoint'; readonly id: ServicePortId; readonly endpoint: string }
  /** Drawn for a client with affinity, by modes that count those of endpoints elsewhere. */
  | { readonly kind: 'drawn'; readonly id: ServicePortId }
  /** Sent to the endpoint of before. */
  | { readonly kind: 'affinity'; readonly id: ServicePortId }
  /** For modes that count what affinity was asked for, and what it knew no endpoint for: the rest are hits. */
  | { readonly kind: 'affinityAsked' | 'affinityMissed'; readonly id: ServicePortId }
  | {
      readonly kind: 'refused';
      readonly reason: RefusalReason;
      readonly verdict: 'reject' | 'drop';
      readonly id: ServicePortId | undefined;
    }
  | { readonly kind: 'masqueraded' };

/** One counter. */
export interface Reading {
  /** The rule or element, and everything that makes it this one: another text is another counter. */
  readonly rule: string;
  readonly meaning: Meaning;
  readonly packets: number;
  /** Its rule was written anew since the reading before: it began at 0. */
  readonly fresh?: boolean;
  /** Its rule may have been written anew while it was read: which of the two has counted this is not known. */
  readonly unsure?: boolean;
  /** The counter is gone, and this was its last word. */
  readonly last?: true;
}

/** Where counts come from: one for each mode and family. */
export interface CounterSource {
  readonly name: Mode;
  /** What its numbers leave out, in sentences. */
  readonly notes: readonly string[];
  /** A counter that is not in a reading may be there all the same. */
  readonly mayMiss?: true;
  /** Reads every counter there is, in the order in which they were read. Rejects if the kernel cannot be asked. */
  read(table: RoutingTable): Promise<Reading[]>;
}

/** A line of `iptables-save -c`: `[packets:bytes] -A CHAIN …`; `rule` is what follows `-A `. Undefined: no rule. */
export function countedRule(line: string): { readonly packets: number; readonly rule: string } | undefined {
  if (!line.startsWith('[')) return undefined;
  const end = line.indexOf('] -A ');
  return end < 0
    ? undefined
    : { packets: Number(line.slice(1, line.indexOf(':'))), rule: line.slice(end + 5) };
}

export function refused(reason: RefusalReason, verdict: 'reject' | 'drop', id?: ServicePortId): Meaning {
  return { kind: 'refused', reason, verdict, id };
}
