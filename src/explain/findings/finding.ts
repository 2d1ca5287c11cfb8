/** One thing that is wrong with a packet's way, or good to know, in words. */

export interface Finding {
  /** `cause`: why the packet does not arrive; `warning`: it may not; `note`: good to know. */
  readonly severity: 'cause' | 'warning' | 'note';
  /** Stable: `no_endpoints`, `selector_matches_nothing`, … */
  readonly reason: string;
  readonly message: string;
  /** What to do; may be empty. */
  readonly advice: string;
}

export type Report = (
  severity: Finding['severity'],
  reason: string,
  message: string,
  advice?: string,
) => void;
