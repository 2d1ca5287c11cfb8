/** A work queue of keys: each key is worked on once, soon, however often it was added. */

export class WorkQueue {
  readonly #keys = new Set<string>();
  readonly #work: (key: string) => void;
  readonly #onError: (key: string, error: unknown) => void;
  #scheduled = false;
  #stopped = false;

  constructor(work: (key: string) => void, onError: (key: string, error: unknown) => void) {
    this.#work = work;
    this.#onError = onError;
  }

  add(key: string): void {
    this.#keys.add(key);
    if (this.#scheduled || this.#stopped) return;
    this.#scheduled = true;
    setImmediate(() => this.#run());
  }

  stop(): void {
    this.#stopped = true;
    this.#keys.clear();
  }

  #run(): void {
    this.#scheduled = false;
    const keys = [...this.#keys];
    this.#keys.clear();
    for (const key of keys) {
      if (this.#stopped) return;
      try {
        this.#work(key);
      } catch (error) {
        // One object's trouble is not the others': the next change to it tries again.
        this.#onError(key, error);
      }
    }
  }
}
