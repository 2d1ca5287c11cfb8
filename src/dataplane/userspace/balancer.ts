/** Which endpoint serves the next connection of a service port. Pure: the clock and chance come from outside. */
import type { Endpoint, Route } from '../../services/types.ts';

/** The endpoints of Cluster or of Local policy. */
export type Pool = 'cluster' | 'local';

/** A round over a shuffled list of endpoints. */
class Round {
  #order: Endpoint[] = [];
  #next = 0;
  /** As the route has them, sorted by key. */
  #sorted: readonly Endpoint[] = [];
  readonly #byKey = new Map<string, Endpoint>();

  /** The same set again goes on where it was; another set is shuffled and begins anew. */
  set(endpoints: readonly Endpoint[], random: () => number): void {
    const known = this.#sorted;
    this.#sorted = endpoints;
    if (known.length === endpoints.length && endpoints.every((one, i) => one.key === known[i]?.key)) return;
    this.#byKey.clear();
    for (const endpoint of endpoints) this.#byKey.set(endpoint.key, endpoint);
    this.#order = [...endpoints];
    for (let i = this.#order.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      const moved = this.#order[i] as Endpoint;
      this.#order[i] = this.#order[j] as Endpoint;
      this.#order[j] = moved;
    }
    this.#next = 0;
  }

  get(key: string): Endpoint | undefined {
    return this.#byKey.get(key);
  }

  next(): Endpoint | undefined {
    const { length } = this.#order;
    if (length === 0) return undefined;
    const endpoint = this.#order[this.#next];
    this.#next = (this.#next + 1) % length;
    return endpoint;
  }
}

interface Sticky {
  readonly key: string;
  /** Milliseconds of the caller's clock. */
  readonly lastUse: number;
}

/** Clients of one service port that are remembered: as many as nftables mode knows in all. Then the oldest go. */
export const clientsMax = 262_144;
/** So many at once, as finding the oldest costs the more the more have gone since the map was last made anew. */
const forgottenAtOnce = clientsMax / 16;

/**
 * Round robin over both pools of one service port, and its ClientIP affinity, which both share: a client keeps its
 * endpoint whichever frontend it comes by, as long as that endpoint may serve there.
 */
export class Balancer {
  readonly #rounds = { cluster: new Round(), local: new Round() };
  /** In the order of their last use. */
  readonly #records = new Map<string, Sticky>();
  readonly #random: () => number;
  /** Picks that went to the client's endpoint of before. */
  hits = 0;
  /** Milliseconds; 0 = no affinity. */
  #affinity = 0;

  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /** Takes the endpoints and the affinity of a route; records of endpoints that left are forgotten. */
  set(route: Route): void {
    this.#rounds.cluster.set(route.cluster, this.#random);
    this.#rounds.local.set(route.local, this.#random);
    this.#affinity = route.port.affinitySeconds * 1000;
    if (this.#affinity === 0) this.#records.clear();
    for (const [client, { key }] of this.#records) if (!this.has(key)) this.#records.delete(client);
  }

  /** Clients keep their endpoint. */
  get sticky(): boolean {
    return this.#affinity > 0;
  }

  /** The endpoint is in one of the pools. */
  has(key: string): boolean {
    return this.#rounds.cluster.get(key) !== undefined || this.#rounds.local.get(key) !== undefined;
  }

  /**
   * The endpoint for a new connection; undefined if the pool is empty.
   * @param client its address
   * @param now milliseconds
   * @param again the endpoint chosen before did not answer: the next in the round, whatever affinity says
   */
  pick(pool: Pool, client: string, now: number, again: boolean): Endpoint | undefined {
    const round = this.#rounds[pool];
    if (this.#affinity === 0) return round.next();
    const record = this.#records.get(client);
    if (record !== undefined && !again && now - record.lastUse < this.#affinity) {
      const endpoint = round.get(record.key);
      if (endpoint !== undefined) {
        this.#remember(client, { key: record.key, lastUse: now });
        this.hits++;
        return endpoint;
      }
    }
    const endpoint = round.next();
    if (endpoint !== undefined) this.#remember(client, { key: endpoint.key, lastUse: now });
    return endpoint;
  }

  #remember(client: string, record: Sticky): void {
    this.#records.delete(client);
    if (this.#records.size >= clientsMax) {
      let count = 0;
      for (const oldest of this.#records.keys()) {
        this.#records.delete(oldest);
        if (++count === forgottenAtOnce) break;
      }
    }
    this.#records.set(client, record);
  }

  /** The client's next connection is not to go where the last one went. */
  forget(client: string): void {
    this.#records.delete(client);
  }

  /** Forgets clients whose time has passed. */
  sweep(now: number): void {
    for (const [client, { lastUse }] of this.#records) {
      if (now - lastUse < this.#affinity) return;
      this.#records.delete(client);
    }
  }

  /** Clients that are remembered. */
  get clients(): number {
    return this.#records.size;
  }
}
