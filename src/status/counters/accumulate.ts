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
  /** It was pruned. */
  forgotten: boolean;
}

/** A counter as it was last seen. */
interface Known {
  packets: number;
  /** Which reading it was in. */
  round: number;
  /** What it has in the reading that is being taken. */
  now: number;
  fresh: boolean;
  total: Total;
}

export class CounterAccumulator {
  readonly #family: Family;
  readonly #mayMiss: boolean;
  readonly #known = new Map<string, Known>();
  readonly #totals = new Map<string, Total>();
  #round = 0;

  /** @param mayMiss as CounterSource has it: a counter is given up only when it was missing twice */
  constructor(family: Family, mayMiss = false) {
    this.#family = family;
    this.#mayMiss = mayMiss;
  }

  /** Takes one whole reading: rules that are not in it are gone, and begin at 0 if they come back. */
  take(readings: Iterable<Reading>): void {
    const round = ++this.#round;
    for (const reading of readings) {
      if (this.#mayMiss) this.#takeAtOnce(reading, round);
      else this.#gather(reading, round);
    }
    for (const [rule, known] of this.#known) {
      if (known.round < (this.#mayMiss ? round - 1 : round)) this.#known.delete(rule);
      else if (!this.#mayMiss) {
        known.total.packets += known.fresh ? known.now : grown(known.packets, known.now);
        known.packets = known.now;
      }
    }
  }

  totals(): Iterable<Total> {
    return this.#totals.values();
  }

  /** Forgets the totals of what is no more. */
  prune(keep: (meaning: Meaning) => boolean): void {
    for (const [key, total] of this.#totals) {
      if (keep(total.meaning)) continue;
      this.#totals.delete(key);
      total.forgotten = true;
    }
  }

  /** In the order of readings: what may miss a counter may give it twice, and its last word may come in between. */
  #takeAtOnce({ rule, meaning, packets, fresh = false, last }: Reading, round: number): void {
    const known = this.#knownAs(rule, meaning, round);
    known.total.packets += fresh ? packets : grown(known.packets, packets);
    known.packets = packets;
    if (last === true) this.#known.delete(rule);
  }

  /** The same rule may stand in a chain twice: what counts is their sum. */
  #gather({ rule, meaning, packets, fresh = false, unsure = false }: Reading, round: number): void {
    const before = this.#known.get(rule)?.round;
    const known = this.#knownAs(rule, meaning, round);
    if (unsure) {
      // The next reading counts it.
      known.now = known.packets;
      known.fresh = false;
      return;
    }
    known.now = before === round ? known.now + packets : packets;
    known.fresh = fresh;
  }

  #knownAs(rule: string, meaning: Meaning, round: number): Known {
    const known = this.#known.get(rule);
    if (known === undefined) {
      const made = { packets: 0, round, now: 0, fresh: false, total: this.#totalOf(meaning) };
      this.#known.set(rule, made);
      return made;
    }
    known.round = round;
    if (known.total.forgotten || !sameMeaning(known.total.meaning, meaning))
      known.total = this.#totalOf(meaning);
    return known;
  }

  #totalOf(meaning: Meaning): Total {
    const key = keyOf(meaning);
    let total = this.#totals.get(key);
    if (total === undefined) {
      total = { family: this.#family, meaning, packets: 0, forgotten: false };
      this.#totals.set(key, total);
    }
    return total;
  }
}

function sameMeaning(a: Meaning, b: Meaning): boolean {
  if (a === b) return true;
  if (a.kind !== b.kind || a.kind === 'masqueraded' || b.kind === 'masqueraded') return a.kind === b.kind;
  if (a.id !== b.id) return false;
  if (a.kind === 'endpoint') return b.kind === 'endpoint' && a.endpoint === b.endpoint;
  return a.kind !== 'refused' || (b.kind === 'refused' && a.reason === b.reason && a.verdict === b.verdict);
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
