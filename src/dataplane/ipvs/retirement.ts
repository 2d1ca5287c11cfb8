/**
 * Real servers on their way out. TCP connections are allowed to end: weight 0 keeps new ones away, and the real server
 * goes when none is left. UDP and SCTP go at once. Only in memory: a new process finds them by their not being wanted.
 */
import type { Ipvs } from '../../linux/netlink/ipvs/ipvs.ts';
import { serverKey, type ServerIdentity } from '../../linux/netlink/ipvs/objects.ts';
import { realKey, realServer } from './plan.ts';

export class Retirement {
  readonly #waiting = new Map<string, { readonly server: ServerIdentity; readonly reals: Set<string> }>();

  get size(): number {
    let size = 0;
    for (const { reals } of this.#waiting.values()) size += reals.size;
    return size;
  }

  has(key: string, real: string): boolean {
    return this.#waiting.get(key)?.reals.has(real) ?? false;
  }

  /** It is wanted again, or gone. */
  forget(key: string, real: string): void {
    const entry = this.#waiting.get(key);
    if (entry === undefined) return;
    entry.reals.delete(real);
    if (entry.reals.size === 0) this.#waiting.delete(key);
  }

  /** The whole virtual server is gone. */
  forgetServer(key: string): void {
    this.#waiting.delete(key);
  }

  /** Removes the real server, or takes its weight and waits. True if it is gone. */
  retire(ipvs: Ipvs, server: ServerIdentity, real: string): boolean {
    if (server.protocol === 'TCP') {
      const state = ipvs.listRealServers(server).find((one) => realKey(one) === real);
      if (state === undefined) return true;
      if (state.activeConnections + state.inactiveConnections > 0) {
        if (state.weight !== 0) ipvs.editRealServer(server, realServer(real, 0));
        const key = serverKey(server);
        const entry = this.#waiting.get(key) ?? { server, reals: new Set<string>() };
        entry.reals.add(real);
        this.#waiting.set(key, entry);
        return false;
      }
    }
    ipvs.deleteRealServer(server, realServer(real));
    return true;
  }

  /** Removes those whose connections have ended; `gone` is told of each. Errors keep theirs waiting. */
  check(ipvs: Ipvs, gone: (key: string, real: string) => void, failed: (error: unknown) => void): void {
    for (const [key, { server, reals }] of this.#waiting) {
      try {
        const states = new Map(ipvs.listRealServers(server).map((one) => [realKey(one), one]));
        for (const real of reals) {
          const state = states.get(real);
          if (state !== undefined && state.activeConnections + state.inactiveConnections > 0) {
            // Somebody gave it weight again: new connections would come, and it would never go.
            if (state.weight !== 0) ipvs.editRealServer(server, realServer(real, 0));
            continue;
          }
          if (state !== undefined) ipvs.deleteRealServer(server, state);
          this.forget(key, real);
          gone(key, real);
        }
      } catch (error) {
        failed(error);
      }
    }
  }
}
