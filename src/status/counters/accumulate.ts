/**
 * From counters that start anew whenever their rule is written anew to totals that only grow. Pure.
 *
 * What a rule counted between the last reading and its replacement is lost: there is nobody to ask. Counts are
 * therefore read as often as they are asked for, and a total is at most as much too small as passed in between.
 */
import type { Family } from '../../api/objects.ts';
import type { ServicePortId } from '../../services/types.ts';
import type { RefusalReason } from '../documents.ts';

export type Meaning =
  | { readonly kind: 'service'; readonly id: ServicePortId }
  | { readonly kind: 'endpoint'; readonly id: ServicePortId; readonly endpoint: string }
  | { readonly kind: 'affinity'; readonly id: ServicePortId }
  | {
      readonly kind: 'refused';
      readonly reason: RefusalReason;
      readonly verdict: 'reject' | 'drop';
      readonly id: ServicePortId | undefined;
    }
  | { readonly kind: 'masqueraded' };

/** One counter of the kernel. */
export interface Reading {
  /** The rule or element, and everything that makes it this one: another text is another counter. */
  readonly rule: string;
  readonly meaning: Meaning;
  readonly packets: number;
}

export interface Total {
  readonly family: Family;
  readonly meaning: Meaning;
  packets: number;
}

export class CounterAccumulator {
  readonly #family: Family;
  #last = new Map<string, number>();
  readonly #totals = new Map<string, Total>();

  constructor(family: Family) {
    this.#family = family;
  }

  /** Takes one whole reading: rules that are not in it are gone, and begin at 0 if they come back. */
  take(readings: Iterable<Reading>): void {
    const seen = new Map<string, number>();
    for (const { rule, meaning, packets } of readings) {
      // The same rule may stand in a chain twice.
      const doubled = seen.get(rule);
      seen.set(rule, (doubled ?? 0) + packets);
      const key = keyOf(meaning);
      let total = this.#totals.get(key);
      if (total === undefined) this.#totals.set(key, (total = { family: this.#family, meaning, packets: 0 }));
      const last = doubled === undefined ? (this.#last.get(rule) ?? 0) : 0;
      total.packets += packets >= last ? packets - last : packets;
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

function keyOf(meaning: Meaning): string {
  switch (meaning.kind) {
    case 'service':
    case 'affinity':
      return `${meaning.kind} ${meaning.id}`;
    case 'endpoint':
      return `endpoint ${meaning.id} ${meaning.endpoint}`;
    case 'refused':
      return `refused ${meaning.reason} ${meaning.verdict} ${meaning.id ?? ''}`;
    case 'masqueraded':
      return 'masqueraded';
  }
}
