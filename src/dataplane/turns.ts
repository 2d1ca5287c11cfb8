/** Long work in parts: others' events come through in between. */

/** The event loop is not held up longer, in milliseconds. */
const turn = 8;

export class Turns {
  #until = performance.now() + turn;

  /** Lets others have their turn if ours has been long enough. True if it did. */
  async pause(): Promise<boolean> {
    if (performance.now() <= this.#until) return false;
    await new Promise((resolve) => setImmediate(resolve));
    this.#until = performance.now() + turn;
    return true;
  }
}
