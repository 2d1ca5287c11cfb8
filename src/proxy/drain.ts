/**
 * A planned end (SIGTERM, SIGINT) of a process that connections go through: it takes no new ones and gives those that
 * are open a moment to end by themselves. A second signal ends it at once.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from '../log/logger.ts';

/** Milliseconds that open connections have. */
const patience = 5000;
const lookInterval = 20;
const signals = { SIGINT: 130, SIGTERM: 143 } as const;
type EndSignal = keyof typeof signals;

export interface Drained {
  /** Takes no more connections. */
  drain(): void;
}

const all: Drained[] = [];

/** @param open how many connections are open now */
export function drainBeforeEnd(one: Drained, open: () => number, log: Logger): void {
  all.push(one);
  if (all.length > 1) return;
  for (const signal of Object.keys(signals) as EndSignal[]) {
    // The first process of a container has a handler that ends it at once.
    process.removeAllListeners(signal);
    process.once(signal, () => void end(signal, open, log));
  }
}

async function end(signal: EndSignal, open: () => number, log: Logger): Promise<void> {
  for (const one of all) one.drain();
  const count = open();
  if (count > 0) log.info('Ending: open connections have a moment to end by themselves', { count, patience });
  const until = performance.now() + patience;
  while (open() > 0 && performance.now() < until) await sleep(lookInterval);
  if (open() > 0) log.info('Ending connections that are still open', { count: open() });
  process.removeAllListeners(signal);
  // The kernel spares the first process of a container what would end any other.
  if (process.pid === 1) process.exit(signals[signal]);
  process.kill(process.pid, signal);
}
