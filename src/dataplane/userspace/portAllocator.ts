/** Which ports the listeners take. */

/** Both ends count. */
export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** Hands out the numbers of a range, in random order; one that is given back can be had again. */
export class PortAllocator {
  readonly #range: PortRange | undefined;
  readonly #taken = new Set<number>();
  readonly #random: () => number;

  constructor(range: PortRange | undefined, random: () => number = Math.random) {
    this.#range = range;
    this.#random = random;
  }

  /**
   * Numbers to try, best first: 0 (the kernel chooses) without a range, otherwise every free number once.
   * The caller claims the one that it could listen on.
   */
  *candidates(): Generator<number> {
    if (this.#range === undefined) {
      yield 0;
      return;
    }
    const { first, last } = this.#range;
    const size = last - first + 1;
    const start = Math.floor(this.#random() * size);
    for (let i = 0; i < size; i++) {
      const port = first + ((start + i) % size);
      if (!this.#taken.has(port)) yield port;
    }
  }

  claim(port: number): void {
    this.#taken.add(port);
  }

  release(port: number): void {
    this.#taken.delete(port);
  }
}
