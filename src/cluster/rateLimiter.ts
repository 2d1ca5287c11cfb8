import { sleep, systemClock } from './clock.ts';
import type { Clock } from './clock.ts';

/** Token bucket: `burst` requests at once, `qps` a second in the long run; waiters go in order. */
export class RateLimiter {
  private readonly qps: number;
  private readonly burst: number;
  private readonly clock: Clock;
  private tokens: number;
  private filledAt: number;

  /** @param qps requests a second; below 0 = no limit */
  constructor(qps: number, burst: number, clock: Clock = systemClock) {
    this.qps = qps;
    this.burst = Math.max(1, burst);
    this.clock = clock;
    this.tokens = this.burst;
    this.filledAt = clock.now();
  }

  /** Takes a token, waiting for it if need be. Resolves to the milliseconds waited. */
  async take(signal?: AbortSignal): Promise<number> {
    if (this.qps < 0) return 0;
    const now = this.clock.now();
    this.tokens = Math.min(this.burst, this.tokens + (Math.max(0, now - this.filledAt) / 1000) * this.qps);
    this.filledAt = now;
    this.tokens -= 1;
    if (this.tokens >= 0) return 0;
    const wait = (-this.tokens / this.qps) * 1000;
    const waited = await sleep(this.clock, wait, signal);
    if (!waited) this.tokens += 1;
    return wait;
  }
}
