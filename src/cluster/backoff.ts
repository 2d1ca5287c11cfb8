/** Exponential backoff with jitter, with client-go's figures: 800 ms doubling to 30 s, each up to twice as long. */
export class Backoff {
  private readonly first: number;
  private readonly longest: number;
  private readonly random: () => number;
  private step: number;

  /** @param first,longest milliseconds */
  constructor(first: number, longest: number, random: () => number) {
    this.first = first;
    this.longest = longest;
    this.random = random;
    this.step = first;
  }

  /** Milliseconds to wait now. */
  next(): number {
    const base = Math.min(this.step, this.longest);
    this.step = Math.min(this.step * 2, this.longest);
    return base * (1 + this.random());
  }

  reset(): void {
    this.step = this.first;
  }
}
