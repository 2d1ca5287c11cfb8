/**
 * When a sync runs: at once if it may, never more often than the minimum interval, again after a failure, and at long
 * intervals without being asked. Requests are folded: any number of them while a run is on or cooling down make one run.
 */
import { performance } from 'node:perf_hooks';

/** Monotonic milliseconds and one-shot timers; tests bring their own. */
export interface Clock {
  now(): number;
  setTimer(callback: () => void, milliseconds: number): unknown;
  clearTimer(handle: unknown): void;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  setTimer: (callback, milliseconds) => setTimeout(callback, Math.ceil(milliseconds)),
  clearTimer: (handle) => clearTimeout(handle as NodeJS.Timeout),
};

/** After failures in a row a request waits for this long, doubled each time up to the longest. Milliseconds. */
const firstFailureDelay = 50;
const longestFailureDelay = 1000;

/** All intervals in milliseconds. */
export interface RunnerOptions {
  /** From the end of one run to the start of the next; 0 = none. The first run is never delayed. */
  readonly minInterval: number;
  /** From the end of a failed run to the next, if nobody asks earlier. */
  readonly retryInterval: number;
  /** From the end of a run to the next, if nobody asks. */
  readonly maxInterval: number;
  /** Rejecting or throwing = the run failed. */
  readonly run: () => Promise<void>;
  /** Told of each failed run, crashes included. */
  readonly failed: (error: unknown) => void;
  readonly clock?: Clock;
}

export class Runner {
  private readonly options: RunnerOptions;
  private readonly clock: Clock;
  private started = false;
  private running = false;
  private wanted = false;
  private urgent = false;
  /** Before this no run starts unless urgent. */
  private coolUntil = -Infinity;
  private failureDelay = 0;
  /** At this time a run starts without being asked. */
  private dueAt = Infinity;
  private timer: unknown;
  private timerAt = Infinity;
  private idleWaiters: (() => void)[] = [];

  constructor(options: RunnerOptions) {
    this.options = options;
    this.clock = options.clock ?? systemClock;
  }

  /** From here on requests are served; one made before is served now. */
  start(): void {
    if (this.started) return;
    this.started = true;
    this.dueAt = this.clock.now() + this.options.maxInterval;
    this.step();
  }

  /** No run starts any more; one that is on goes on. */
  stop(): void {
    this.started = false;
    this.wanted = false;
    this.disarm();
  }

  /** Asks for a run. Where one may start now, it has started before this returns. */
  request(): void {
    this.wanted = true;
    this.step();
  }

  /** Asks for a run that does not wait for the minimum interval (only for a run that is on). */
  requestNow(): void {
    this.wanted = true;
    this.urgent = true;
    this.step();
  }

  /** Resolves when no run is on. */
  idle(): Promise<void> {
    if (!this.running) return Promise.resolve();
    return new Promise((resolve) => this.idleWaiters.push(resolve));
  }

  private step(): void {
    if (!this.started || this.running) return;
    const now = this.clock.now();
    const wantedAt = this.wanted ? (this.urgent ? now : this.coolUntil) : Infinity;
    const at = Math.min(wantedAt, Math.max(this.dueAt, this.coolUntil));
    if (at <= now) this.launch();
    else this.arm(at, now);
  }

  private launch(): void {
    this.running = true;
    this.wanted = false;
    this.urgent = false;
    let run: Promise<void>;
    try {
      run = this.options.run();
    } catch (error) {
      this.finished(error, true);
      return;
    }
    run.then(this.succeeded, this.rejected);
  }

  private readonly succeeded = (): void => this.finished(undefined, false);
  private readonly rejected = (error: unknown): void => this.finished(error, true);

  private finished(error: unknown, failed: boolean): void {
    const { minInterval, retryInterval, maxInterval } = this.options;
    const now = this.clock.now();
    this.running = false;
    this.failureDelay = failed
      ? Math.min(Math.max(this.failureDelay * 2, firstFailureDelay), longestFailureDelay)
      : 0;
    this.coolUntil = now + Math.max(minInterval, Math.min(this.failureDelay, retryInterval));
    this.dueAt = now + (failed ? Math.min(retryInterval, maxInterval) : maxInterval);
    if (failed) this.options.failed(error);
    this.step();
    if (!this.running && this.idleWaiters.length > 0) {
      const waiters = this.idleWaiters;
      this.idleWaiters = [];
      for (const resolve of waiters) resolve();
    }
  }

  /** A timer that fires too early looks again and arms itself anew: a run per event must not cost a timer per event. */
  private arm(at: number, now: number): void {
    if (this.timer !== undefined) {
      if (this.timerAt <= at) return;
      this.disarm();
    }
    this.timerAt = at;
    this.timer = this.clock.setTimer(this.fired, at - now);
  }

  private readonly fired = (): void => {
    this.timer = undefined;
    this.step();
  };

  private disarm(): void {
    if (this.timer === undefined) return;
    this.clock.clearTimer(this.timer);
    this.timer = undefined;
  }
}
