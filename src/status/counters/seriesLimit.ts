/**
 * The hard limit to the time series of one metric. Whoever has no series of its own is added up in one, which only grows
 * although its parts come and go: what has once been added up there stays there, and is never shown twice. Pure.
 */
export class SeriesLimit<Item> {
  readonly #most: number;
  readonly #keyOf: (item: Item) => string;
  readonly #valueOf: (item: Item) => number;
  /** Items with a series of their own. Empty until the limit is passed: before, all have one. */
  #own = new Set<string>();
  /** What the others had at the last look; undefined until the limit is passed. */
  #others: Map<string, number> | undefined;
  #sum = 0;

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
    const before = this.#others ?? new Map<string, number>();
    const others = new Map<string, number>();
    const had = this.#own;
    const keys = items.map(this.#keyOf);
    let room = this.#most - 1;
    for (const key of keys) if (had.has(key)) room--;
    const own: Item[] = [];
    const has = new Set<string>();
    for (const [i, item] of items.entries()) {
      const key = keys[i]!;
      const last = before.get(key);
      if (had.has(key) || (last === undefined && room-- > 0)) {
        own.push(item);
        has.add(key);
        continue;
      }
      const value = this.#valueOf(item);
      others.set(key, value);
      // Less than before: it went and came back in between.
      this.#sum += last === undefined || value < last ? value : value - last;
    }
    this.#own = has;
    this.#others = others;
    return { own, others: this.#sum };
  }
}
