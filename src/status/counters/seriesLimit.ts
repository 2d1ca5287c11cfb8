/**
 * The hard limit to the time series of one metric. Whoever has no series of its own is added up in one, which only grows
 * although its parts come and go: what has once been added up there stays there, and is never shown twice. Pure.
 */
export class SeriesLimit<Item> {
  readonly #most: number;
  readonly #keyOf: (item: Item) => string;
  readonly #valueOf: (item: Item) => number;
  /** Everybody there is, by key. Empty until the limit is passed: before, all have series of their own. */
  readonly #known = new Map<string, Known>();
  #round = 0;
  /** Undefined until the limit is passed. */
  #others: number | undefined;

  /**
   * @param most series, that of the others among them
   * @param keyOf the same for the same item, whenever it is looked at
   * @param valueOf grows as long as the item is there
   */
  constructor(most: number, keyOf: (item: Item) => string, valueOf: (item: Item) => number) {
    this.#most = most;
    this.#keyOf = keyOf;
    this.#valueOf = valueOf;
  }

  /** Who has a series of its own, and the sum of the others; undefined if there never were any. */
  divide(items: readonly Item[]): { readonly own: readonly Item[]; readonly others: number | undefined } {
    if (this.#others === undefined && items.length <= this.#most) return { own: items, others: undefined };
    const round = ++this.#round;
    let room = this.#most - 1;
    const found = items.map((item) => {
      const known = this.#known.get(this.#keyOf(item));
      if (known === undefined) return undefined;
      known.round = round;
      if (known.own) room--;
      return known;
    });
    const own: Item[] = [];
    let others = this.#others ?? 0;
    for (const [i, item] of items.entries()) {
      let known = found[i];
      if (known === undefined) {
        known = { own: room-- > 0, value: 0, round };
        this.#known.set(this.#keyOf(item), known);
      }
      if (known.own) {
        own.push(item);
        continue;
      }
      const value = this.#valueOf(item);
      // Less than before: it went and came back in between.
      others += value < known.value ? value : value - known.value;
      known.value = value;
    }
    for (const [key, known] of this.#known) if (known.round !== round) this.#known.delete(key);
    this.#others = others;
    return { own, others };
  }
}

interface Known {
  /** It has a series of its own. */
  readonly own: boolean;
  /** Of one that has not: what it had at the last look. */
  value: number;
  /** In which it was there last. */
  round: number;
}
