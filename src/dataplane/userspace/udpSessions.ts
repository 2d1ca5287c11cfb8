/** Which UDP clients have a session, and until when. Pure: the clock comes from outside. */

interface Entry<T> {
  readonly value: T;
  lastUse: number;
}

/** Sessions by client (`address:port`). */
export class UdpSessionTable<T> {
  readonly #entries = new Map<string, Entry<T>>();
  readonly #idle: number;

  /** @param idle milliseconds without a datagram after which a session ends */
  constructor(idle: number) {
    this.#idle = idle;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** The session of a client, whose time is renewed; undefined if it has none, or its time is over. */
  use(client: string, now: number): T | undefined {
    const entry = this.#entries.get(client);
    if (entry === undefined || now - entry.lastUse >= this.#idle) return undefined;
    entry.lastUse = now;
    return entry.value;
  }

  /** @returns the session it replaces, to be ended */
  add(client: string, value: T, now: number): T | undefined {
    const before = this.#entries.get(client)?.value;
    this.#entries.set(client, { value, lastUse: now });
    return before;
  }

  /** Forgets a session, if it is still the one of that client. */
  remove(client: string, value: T): boolean {
    if (this.#entries.get(client)?.value !== value) return false;
    return this.#entries.delete(client);
  }

  /** Takes out those for which `ends` is true, or whose time is over. */
  sweep(now: number, ends: (value: T) => boolean = () => false): T[] {
    const taken: T[] = [];
    for (const [client, { value, lastUse }] of this.#entries) {
      if (now - lastUse < this.#idle && !ends(value)) continue;
      this.#entries.delete(client);
      taken.push(value);
    }
    return taken;
  }

  /** Takes out all. */
  clear(): T[] {
    const all = [...this.#entries.values()].map((entry) => entry.value);
    this.#entries.clear();
    return all;
  }
}
