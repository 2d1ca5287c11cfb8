/**
 * From counters that start anew whenever their rule is written anew to totals that only grow. Pure.
 *
 * Where a mode reads counters a last time before they go, nothing is lost. Elsewhere, what a rule counted between the
 * last reading and its replacement is: a total is at most as much too small as passed in between.
 */
import type { Family } from '../../api/objects.ts';
import type { Meaning, Reading } from '../../dataplane/counts.ts';

export interface Total {
  readonly family: Family;
  readonly meaning: Meaning;
  packets: number;
}

export class CounterAccumulator {
  readonly #family: Family;
  readonly #mayMiss: boolean;
  #last = new Map<string, number>();
  /** With `mayMiss`: those that were in the reading before the last one, and not in the last. */
  #missing = new Map<string, number>();
  readonly #totals = new Map<string, Total>();

  /** @param mayMiss as CounterSource has it: a counter is given up only when it was missing twice */
  constructor(family: Family, mayMiss = false) {
    this.#family = family;
    this.#mayMiss = mayMiss;
  }

  /** Takes one whole reading: rules that are not in it are gone, and begin at 0 if they come back. */
  take(readings: Iterable<Reading>): void {
    const before = this.#last;
    const seen = new Map<string, number>();
    for (const { rule, meaning, packets, fresh, last: isLast } of readings) {
      const key = keyOf(meaning);
      let total = this.#totals.get(key);
      if (total === undefined) this.#totals.set(key, (total = { family: this.#family, meaning, packets: 0 }));
      const inThis = seen.get(rule);
      const known = fresh === true ? 0 : (before.get(rule) ?? this.#missing.get(rule) ?? 0);
      if (isLast === true) {
        total.packets += grown(inThis ?? known, packets);
        seen.delete(rule);
        before.delete(rule);
        this.#missing.delete(rule);
        continue;
      }
      if (this.#mayMiss) {
        // What may miss a counter may give it twice.
        total.packets += grown(inThis ?? known, packets);
        seen.set(rule, packets);
        continue;
      }
      // The same rule may stand in a chain twice.
      total.packets += grown(inThis === undefined ? known : 0, packets);
      seen.set(rule, (inThis ?? 0) + packets);
    }
    if (this.#mayMiss) {
      this.#missing.clear();
      for (const [rule, packets] of before) if (!seen.has(rule)) this.#missing.set(rule, packets);
    }
    this.#last = seen;
  }

  totals(): Iterable<Total> {
    return this.#totals.values();
  }

  /** Forgets the totals of what is no more. */
  prune(keep: (meaning: Meaning) => boolean): void {
    for (const [key, { meaning }] of this.#totals) if (!keep(meaning)) this.#totals.delete(key);
  }
}

/** A counter that is less than it was began anew. */
function grown(before: number, now: number): number {
  return now >= before ? now - before : now;
}

function keyOf(meaning: Meaning): string {
  switch (meaning.kind) {
    case 'endpoint':
      return `endpoint ${meaning.id} ${meaning.endpoint}`;
    case 'refused':
      return `refused ${meaning.reason} ${meaning.verdict} ${meaning.id ?? ''}`;
    case 'masqueraded':
      return 'masqueraded';
    default:
      return `${meaning.kind} ${meaning.id}`;
  }
}
