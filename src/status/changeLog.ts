/**
 * The last changes and their way through time. A ring of small records: what it costs does not depend on the size of
 * the cluster, and nothing in it holds on to a route.
 */
import type { Family } from '../api/objects.ts';
import type { ChangeSet, Endpoint, Route, RouteChange } from '../services/types.ts';
import type { ChangeRecord, ChangesDocument } from './documents.ts';

export const changesKept = 256;
/** Longer lists, and larger change sets, are told by their numbers alone. */
const detailedEndpoints = 64;
const detailedChanges = 32;

/** What the sync loop tells. All times are milliseconds since the epoch. */
export interface SyncObserver {
  /** A sync begins with these changes; `received` = when its first event was handled. */
  taken(changes: ChangeSet, received: number, triggered: number | undefined): void;
  /** It has succeeded, and with it every change of the family that waited for one. */
  applied(family: Family, now: number, duration: number, full: boolean): void;
  /** It has failed; its changes wait for the next. */
  failed(family: Family, now: number, error: string): void;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
interface Entry extends Omit<Mutable<ChangeRecord>, 'triggered' | 'received' | 'applied' | 'milliseconds'> {
  triggered: number | undefined;
  received: number;
  applied: number | undefined;
}

export class ChangeLog {
  readonly #ring: (Entry | undefined)[] = [];
  readonly #size: number;
  #sequence = 0;
  /** The oldest entry of each family that is not in the kernel yet. */
  readonly #waiting: Record<Family, number> = { IPv4: Infinity, IPv6: Infinity };

  constructor(size = changesKept) {
    this.#size = size;
  }

  taken(changes: ChangeSet, received: number, triggered: number | undefined): void {
    const list = changes.changes;
    const first = Math.max(0, list.length - this.#size);
    this.#sequence += first;
    for (let i = first; i < list.length; i++) {
      const change = list[i]!;
      const sequence = this.#sequence++;
      this.#ring[sequence % this.#size] = {
        ...describe(change, list.length <= detailedChanges),
        sequence,
        family: changes.family,
        triggered,
        received,
        applied: undefined,
        failures: 0,
      };
      this.#waiting[changes.family] = Math.min(this.#waiting[changes.family], sequence);
    }
  }

  applied(family: Family, now: number): void {
    for (const entry of this.#waitingOf(family)) entry.applied = now;
    this.#waiting[family] = Infinity;
  }

  failed(family: Family): void {
    for (const entry of this.#waitingOf(family)) entry.failures++;
  }

  /** Oldest first. */
  document(matches: (id: string) => boolean = () => true): ChangesDocument {
    const changes: ChangeRecord[] = [];
    for (let i = Math.max(0, this.#sequence - this.#size); i < this.#sequence; i++) {
      const entry = this.#ring[i % this.#size];
      // A change set larger than the ring leaves gaps in front.
      if (entry?.sequence !== i || !matches(entry.id)) continue;
      const { triggered, received, applied, ...rest } = entry;
      changes.push({
        ...rest,
        triggered: triggered === undefined ? null : iso(triggered),
        received: iso(received),
        applied: applied === undefined ? null : iso(applied),
        milliseconds: applied === undefined ? null : Math.round((applied - received) * 100) / 100,
      });
    }
    return { changes, forgotten: Math.max(0, this.#sequence - this.#size) };
  }

  *#waitingOf(family: Family): Generator<Entry> {
    const oldest = Math.max(this.#waiting[family], this.#sequence - this.#size);
    for (let i = oldest; i < this.#sequence; i++) {
      const entry = this.#ring[i % this.#size];
      if (entry?.sequence === i && entry.family === family && entry.applied === undefined) yield entry;
    }
  }
}

function iso(time: number): string {
  return new Date(time).toISOString();
}

function describe(
  { id, before, after }: RouteChange,
  detailed: boolean,
): Pick<Entry, 'id' | 'what' | 'endpointsBefore' | 'endpointsAfter' | 'details'> {
  const old = before?.endpoints ?? none;
  const now = after?.endpoints ?? none;
  const short = detailed && old.length <= detailedEndpoints && now.length <= detailedEndpoints;
  return {
    id,
    what: before === undefined ? 'added' : after === undefined ? 'removed' : 'changed',
    endpointsBefore: old.length,
    endpointsAfter: now.length,
    details: short ? [...verdicts(before, after), ...endpointDetails(old, now)] : [],
  };
}

const none: readonly Endpoint[] = [];

function verdicts(before: Route | undefined, after: Route | undefined): string[] {
  if (before === undefined || after === undefined) return [];
  const details: string[] = [];
  if (before.port !== after.port) details.push('the Service itself');
  if (before.internal !== after.internal) details.push(`inside: ${before.internal} -> ${after.internal}`);
  if (after.hasExternal && before.external !== after.external)
    details.push(`outside: ${before.external} -> ${after.external}`);
  return details;
}

/** `+` came, `-` went, `~` changed its condition. Both lists are sorted by key. */
function endpointDetails(before: readonly Endpoint[], after: readonly Endpoint[]): string[] {
  const details: string[] = [];
  let i = 0;
  let j = 0;
  while (i < before.length || j < after.length) {
    const old = before[i];
    const now = after[j];
    if (old !== undefined && (now === undefined || old.key < now.key)) {
      details.push(`-${old.key}`);
      i++;
    } else if (now !== undefined && (old === undefined || now.key < old.key)) {
      const condition = conditionOf(now);
      details.push(condition === 'ready' ? `+${now.key}` : `+${now.key} ${condition}`);
      j++;
    } else {
      const [was, is] = [conditionOf(old!), conditionOf(now!)];
      if (was !== is) details.push(`~${now!.key} ${was} -> ${is}`);
      i++;
      j++;
    }
  }
  return details;
}

export type Condition = 'ready' | 'draining' | 'terminating' | 'not ready';

/** An endpoint's condition in a word or two: `draining` = terminating, but still serving. */
export function conditionOf({ ready, serving, terminating }: Endpoint): Condition {
  if (terminating) return serving ? 'draining' : 'terminating';
  return ready ? 'ready' : 'not ready';
}
