/** For how long this process's event loop was held up at the longest. */
import { readFileSync } from 'node:fs';

/** Milliseconds. */
export interface Lag {
  /** On the CPU. */
  cpu: number;
  /** Without the time that it was ready to run and others had the CPU. */
  own: number;
  all: number;
}

/** Nanoseconds that this thread has run, and has waited for a CPU (Documentation/scheduler/sched-stats). */
function threadTimes(): { readonly ran: number; readonly waited: number } {
  const [ran, waited] = readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ').map(Number);
  return { ran: ran ?? NaN, waited: waited ?? NaN };
}

/** @param interval milliseconds between two looks, beyond which it is late; does not keep the process alive */
export function watchLag(interval: number): { readonly longest: Lag; reset(): void } {
  const longest: Lag = { cpu: 0, own: 0, all: 0 };
  let at = performance.now();
  let before = threadTimes();
  setInterval(() => {
    const now = performance.now();
    const times = threadTimes();
    const late = now - at - interval;
    longest.all = Math.max(longest.all, late);
    longest.own = Math.max(longest.own, late - (times.waited - before.waited) / 1e6);
    longest.cpu = Math.max(longest.cpu, (times.ran - before.ran) / 1e6);
    at = now;
    before = times;
  }, interval).unref();
  return {
    longest,
    reset: () => {
      longest.cpu = longest.own = longest.all = 0;
    },
  };
}
