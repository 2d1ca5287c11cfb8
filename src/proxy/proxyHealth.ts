/**
 * Whether the proxy does its work, per IP family, and whether its node may get traffic from load balancers (KEP-3836).
 * A family is unhealthy when a sync was asked for and none has succeeded for too long. Pure: callers bring the time.
 */
import type { Family, Node } from '../api/objects.ts';

/** Set on a node that the cluster autoscaler is about to remove. */
const autoscalerTaint = 'ToBeDeletedByClusterAutoscaler';

export interface FamilyHealth {
  /** Milliseconds since the epoch. */
  readonly lastUpdated: number;
  readonly healthy: boolean;
}

export interface HealthState {
  readonly healthy: boolean;
  /** Latest update of any family, milliseconds since the epoch; undefined before the first. */
  readonly lastUpdated: number | undefined;
  /** Families that have reported, IPv4 first. */
  readonly families: ReadonlyMap<Family, FamilyHealth>;
}

interface FamilyTimes {
  lastUpdated: number | undefined;
  oldestQueued: number | undefined;
}

export class ProxyHealth {
  /** Milliseconds a request may wait for a successful sync. */
  private readonly timeout: number;
  private readonly times: Record<Family, FamilyTimes> = {
    IPv4: { lastUpdated: undefined, oldestQueued: undefined },
    IPv6: { lastUpdated: undefined, oldestQueued: undefined },
  };
  private node: Pick<Node, 'deleting' | 'taintKeys'> | undefined;

  constructor(timeout: number) {
    this.timeout = timeout;
  }

  /** A sync was asked for. */
  queued(family: Family, now: number): void {
    this.times[family].oldestQueued ??= now;
  }

  /** A sync succeeded, or the loop started. */
  updated(family: Family, now: number): void {
    const times = this.times[family];
    times.oldestQueued = undefined;
    times.lastUpdated = now;
  }

  /** The node object as last seen; it is kept when the node is deleted. */
  setNode(node: Pick<Node, 'deleting' | 'taintKeys'>): void {
    this.node = node;
  }

  nodeEligible(): boolean {
    const node = this.node;
    return node !== undefined && !node.deleting && !node.taintKeys.includes(autoscalerTaint);
  }

  healthy(now: number): boolean {
    return this.familyHealthy(this.times.IPv4, now) && this.familyHealthy(this.times.IPv6, now);
  }

  state(now: number): HealthState {
    const families = new Map<Family, FamilyHealth>();
    let lastUpdated: number | undefined;
    for (const family of ['IPv4', 'IPv6'] as const) {
      const times = this.times[family];
      if (times.lastUpdated === undefined) continue;
      families.set(family, {
        lastUpdated: times.lastUpdated,
        healthy: this.familyHealthy(times, now),
      });
      if (lastUpdated === undefined || times.lastUpdated > lastUpdated) lastUpdated = times.lastUpdated;
    }
    return { healthy: this.healthy(now), lastUpdated, families };
  }

  private familyHealthy(times: FamilyTimes, now: number): boolean {
    if (times.lastUpdated === undefined || times.oldestQueued === undefined) return true;
    return now - times.oldestQueued < this.timeout;
  }
}
