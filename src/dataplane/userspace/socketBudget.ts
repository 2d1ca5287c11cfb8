/** How many sockets the proxy may hold open, so that a flood of connections cannot starve the rest of the process. */
import { readFileSync } from 'node:fs';
import type { Logger } from '../../log/logger.ts';

/** Descriptors kept for everything else: API server, health servers, netlink, programs that are started. */
export const descriptorReserve = 128;
/** Milliseconds between two log lines about a full house. */
const quietTime = 10_000;

export class SocketBudget {
  readonly limit: number;
  readonly #log: Logger;
  #open = 0;
  #lastSaid = -Infinity;

  constructor(limit: number, log: Logger) {
    this.limit = limit;
    this.#log = log;
  }

  get open(): number {
    return this.#open;
  }

  /** False, and a log line now and then, if there are not that many left. */
  take(count: number): boolean {
    if (this.#open + count > this.limit) {
      this.full(`${this.#open} are open`);
      return false;
    }
    this.#open += count;
    return true;
  }

  give(count: number): void {
    this.#open -= count;
  }

  /** Says, not too often, that a connection had to be refused. */
  full(why: string): void {
    const now = performance.now();
    if (now - this.#lastSaid < quietTime) return;
    this.#lastSaid = now;
    this.#log.error('Too many open sockets: new connections to Services are refused', {
      limit: this.limit,
      why,
      remedy: 'raise the limit of open files (LimitNOFILE, ulimit -n) of this process',
    });
  }
}

/** What the limit of open files leaves for connections. `limits`: the text of /proc/PID/limits. */
export function socketLimit(limits = readFileSync('/proc/self/limits', 'utf8')): number {
  const soft = /^Max open files\s+(\S+)/m.exec(limits)?.[1];
  const files = soft === 'unlimited' ? Infinity : Number(soft ?? 1024);
  return Math.max(64, Math.min(files, 2 ** 20) - descriptorReserve);
}
