/** Which shared chains are in use, and how often; what came into use and what went out of it since the last look. */
import type { Layout } from './layout.ts';
import { buildServiceChain, type ServiceChain } from './serviceChains.ts';

export class ChainPool {
  readonly #layout: Layout;
  readonly #uses = new Map<string, number>();
  readonly #built = new Map<string, ServiceChain>();
  /** Whether chains touched since the last look were in use then. */
  readonly #touched = new Map<string, boolean>();

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  acquire(name: string): void {
    const uses = this.#uses.get(name) ?? 0;
    this.#uses.set(name, uses + 1);
    if (uses > 0) return;
    if (!this.#touched.has(name)) this.#touched.set(name, false);
    for (const used of this.get(name).uses) this.acquire(used);
  }

  release(name: string): void {
    const uses = this.#uses.get(name) ?? 0;
    if (uses > 1) {
      this.#uses.set(name, uses - 1);
      return;
    }
    this.#uses.delete(name);
    if (!this.#touched.has(name)) this.#touched.set(name, true);
    for (const used of this.get(name).uses) this.release(used);
  }

  has(name: string): boolean {
    return this.#uses.has(name);
  }

  names(): IterableIterator<string> {
    return this.#uses.keys();
  }

  get(name: string): ServiceChain {
    let chain = this.#built.get(name);
    if (chain === undefined) this.#built.set(name, (chain = buildServiceChain(this.#layout, name)));
    return chain;
  }

  /** Chains that are in use now and were not at the last look, each behind those it goes to; and the other way round. */
  take(): { readonly made: readonly ServiceChain[]; readonly gone: readonly ServiceChain[] } {
    if (this.#touched.size === 0) return { made: [], gone: [] };
    const made: ServiceChain[] = [];
    const gone: ServiceChain[] = [];
    for (const [name, before] of this.#touched) {
      const now = this.#uses.has(name);
      if (now !== before) (now ? made : gone).push(this.get(name));
    }
    this.#touched.clear();
    made.sort((a, b) => this.#depth(a) - this.#depth(b));
    gone.sort((a, b) => this.#depth(b) - this.#depth(a));
    return { made, gone };
  }

  #depth(chain: ServiceChain): number {
    let depth = 0;
    for (const used of chain.uses) depth = Math.max(depth, 1 + this.#depth(this.get(used)));
    return depth;
  }
}
