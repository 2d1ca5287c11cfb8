/** All that the kernel is to hold, kept up with the routes: many routes may want the same entry or address. */
import { serverKey } from '../../linux/netlink/ipvs/objects.ts';
import { setIds, type SetId } from './names.ts';
import type { RouteObjects, WantedServer } from './translate.ts';

/** Names of things that may have to change in the kernel. */
export class Touched {
  readonly servers = new Set<string>();
  readonly entries = new Map<SetId, Set<string>>(setIds.map((id) => [id, new Set()]));
  readonly addresses = new Set<string>();
}

export class Wanted {
  /** By serverKey; the first claim has it. */
  readonly #servers = new Map<string, WantedServer[]>();
  readonly #entries = new Map<SetId, Map<string, number>>(setIds.map((id) => [id, new Map()]));
  readonly #addresses = new Map<string, number>();
  readonly #outFilter = new Map<string, number>();
  #shape = 0;

  add(objects: RouteObjects, touched?: Touched): void {
    for (const one of objects.servers) {
      const key = serverKey(one.server);
      const claims = this.#servers.get(key);
      if (claims === undefined) this.#servers.set(key, [one]);
      else {
        claims.push(one);
        claims.sort(precedence);
      }
      touched?.servers.add(key);
    }
    for (const [id, text] of objects.entries) {
      this.#countEntry(id, text, 1);
      touched?.entries.get(id)!.add(text);
    }
    for (const address of objects.addresses) {
      count(this.#addresses, address, 1);
      touched?.addresses.add(address);
    }
    this.#countRules(objects.outFilter, 1);
  }

  remove(objects: RouteObjects, touched: Touched): void {
    for (const { server, port } of objects.servers) {
      const key = serverKey(server);
      const left = (this.#servers.get(key) ?? []).filter((claim) => claim.port.id !== port.id);
      if (left.length === 0) this.#servers.delete(key);
      else this.#servers.set(key, left);
      touched.servers.add(key);
    }
    for (const [id, text] of objects.entries) {
      this.#countEntry(id, text, -1);
      touched.entries.get(id)!.add(text);
    }
    for (const address of objects.addresses) {
      count(this.#addresses, address, -1);
      touched.addresses.add(address);
    }
    this.#countRules(objects.outFilter, -1);
  }

  #countEntry(id: SetId, text: string, by: 1 | -1): void {
    const entries = this.#entries.get(id)!;
    const filled = entries.size > 0;
    count(entries, text, by);
    if (filled !== entries.size > 0) this.#shape++;
  }

  #countRules(rules: readonly string[], by: 1 | -1): void {
    for (const rule of rules) count(this.#outFilter, rule, by);
    if (rules.length > 0) this.#shape++;
  }

  server(key: string): WantedServer | undefined {
    return this.#servers.get(key)?.[0];
  }

  get serverKeys(): Iterable<string> {
    return this.#servers.keys();
  }

  entries(id: SetId): { has(text: string): boolean; keys(): Iterable<string>; readonly size: number } {
    return this.#entries.get(id)!;
  }

  get addresses(): { has(address: string): boolean; keys(): Iterable<string>; readonly size: number } {
    return this.#addresses;
  }

  /** Another number where the rules may be others: a set is filled or emptied, or there are other rules of KUBE-IPVS-OUT-FILTER. */
  get shape(): number {
    return this.#shape;
  }

  filled(id: SetId): boolean {
    return this.#entries.get(id)!.size > 0;
  }

  /** Sorted, so that equal tables give equal rules. */
  get outFilter(): readonly string[] {
    return [...this.#outFilter.keys()].sort();
  }
}

function precedence(a: WantedServer, b: WantedServer): number {
  if (a.nodePort !== b.nodePort) return a.nodePort ? 1 : -1;
  return a.port.creationTimestamp - b.port.creationTimestamp || (a.port.id < b.port.id ? -1 : 1);
}

function count(counts: Map<string, number>, key: string, by: 1 | -1): void {
  const now = (counts.get(key) ?? 0) + by;
  if (now > 0) counts.set(key, now);
  else counts.delete(key);
}
