/** Everything an explanation is made from. */
import type { Catalog } from './catalog.ts';
import type { Decision, RuleMode, Wanted } from './routes.ts';
import type { Packet } from './packet.ts';
import type { Outcome, Prediction } from './outcome.ts';
import type { World } from './world.ts';

/** A connection that the kernel remembers, as far as explanations ask. */
export interface KnownFlow {
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  /** Where it really goes. */
  readonly endpoint: string;
  readonly endpointPort: number;
  /** The endpoint has answered. */
  readonly answered: boolean;
}

/** Where the rules that were followed come from. */
export type RuleSource =
  | { readonly kind: 'wanted' }
  | { readonly kind: 'dump'; readonly file: string }
  | { readonly kind: 'kernel' };

export interface Case {
  readonly packet: Packet;
  readonly world: World;
  /** Whose rules these are, as far as they tell. */
  readonly mode: RuleMode;
  readonly rules: RuleSource;
  readonly prediction: Prediction;
  /** Userspace mode: ends of connections that the process opens in vain before it tries another endpoint. */
  readonly failedAttempts: readonly Outcome[];
  /** Undefined: no objects were given. */
  readonly wanted: Wanted | undefined;
  /** What the wanted routes say; undefined without objects. */
  readonly decision: Decision | undefined;
  readonly catalog: Catalog | undefined;
  readonly flows: readonly KnownFlow[];
  /** What had to be assumed, e.g. that an address is the node's. */
  readonly remarks: readonly string[];
}
