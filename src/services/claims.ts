/**
 * Who has a frontend when several service ports claim it: the older Service (creationTimestamp, then namespace/name,
 * then the port's id). The others go without, until it goes away.
 */
import { frontendsOf } from './servicePorts.ts';
import type { Frontend, ServicePort, ServicePortId } from './types.ts';

/** `ip:port/PROTOCOL`, `[ip]:port/PROTOCOL`, `*:port/PROTOCOL` for node ports. */
export type FrontendKey = string;

/** Identity of a frontend on this node; two kinds at the same address are the same frontend. */
export function frontendKey(frontend: Frontend): FrontendKey {
  const { ip, port, protocol } = frontend;
  if (ip === '') return `*:${port}/${protocol}`;
  return ip.includes(':') ? `[${ip}]:${port}/${protocol}` : `${ip}:${port}/${protocol}`;
}

/** All claims of one family. */
export class Claims {
  /** A single claimant as itself (nearly always), several as a list, the one that has the frontend first. */
  readonly #claims = new Map<FrontendKey, ServicePort | ServicePort[]>();

  /**
   * Replaces what a service port claims: `before` (as it was given last time, if it was) by `after`.
   * Adds to `affected` the ids of all service ports that gained or lost a frontend by it.
   */
  replace(
    before: ServicePort | undefined,
    after: ServicePort | undefined,
    affected: Set<ServicePortId>,
  ): void {
    if (before !== undefined)
      for (const frontend of frontendsOf(before)) this.#remove(frontendKey(frontend), before, affected);
    if (after !== undefined)
      for (const frontend of frontendsOf(after)) this.#add(frontendKey(frontend), after, affected);
  }

  /** The service port that has the frontend. */
  holder(key: FrontendKey): ServicePort | undefined {
    const claim = this.#claims.get(key);
    return Array.isArray(claim) ? claim[0] : claim;
  }

  #add(key: FrontendKey, port: ServicePort, affected: Set<ServicePortId>): void {
    const claim = this.#claims.get(key);
    if (claim === undefined) {
      this.#claims.set(key, port);
      return;
    }
    const list = Array.isArray(claim) ? claim : [claim];
    // The same address twice in one service port, as two kinds.
    if (list.includes(port)) return;
    let at = list.findIndex((other) => comesBefore(port, other));
    if (at < 0) at = list.length;
    if (at === 0) affected.add(list[0]!.id);
    affected.add(port.id);
    list.splice(at, 0, port);
    this.#claims.set(key, list);
  }

  #remove(key: FrontendKey, port: ServicePort, affected: Set<ServicePortId>): void {
    const claim = this.#claims.get(key);
    if (claim === port) this.#claims.delete(key);
    if (!Array.isArray(claim)) return;
    const at = claim.indexOf(port);
    if (at < 0) return;
    claim.splice(at, 1);
    if (at === 0) affected.add(claim[0]!.id);
    if (claim.length === 1) this.#claims.set(key, claim[0]!);
  }
}

/** True if `a` has a frontend that `b` claims too. */
export function comesBefore(a: ServicePort, b: ServicePort): boolean {
  if (a.creationTimestamp !== b.creationTimestamp) return a.creationTimestamp < b.creationTimestamp;
  if (a.namespace !== b.namespace) return a.namespace < b.namespace;
  if (a.service !== b.service) return a.service < b.service;
  return a.id < b.id;
}
