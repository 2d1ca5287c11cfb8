/**
 * Notices within seconds when somebody else changes the rules. A look at the kernel's fingerprint costs microseconds;
 * only where that has changed, and not by our own commits alone, the rules themselves are read.
 */
import type { Fingerprint } from '../../linux/iptables/fingerprint.ts';
import type { Logger } from '../../log/logger.ts';

export interface DriftCheck {
  /** What is wrong with the rules, if anything. */
  readonly wrong: string | undefined;
  /** All rules were read. */
  readonly complete: boolean;
}

export interface DriftMonitorOptions {
  /** Milliseconds between two looks. */
  readonly interval: number;
  readonly fingerprint: Fingerprint;
  readonly check: () => Promise<DriftCheck>;
  readonly onDrift: (what: string) => void;
  /** False: what is found wrong stays so, and is told once; rules are read again when somebody touches them again. */
  readonly repairs?: boolean;
  readonly log: Logger;
}

export class DriftMonitor {
  readonly #options: DriftMonitorOptions;
  #timer: NodeJS.Timeout | undefined;
  /** Fingerprint of rules that were found (or made) right. */
  #verified: string | undefined;
  #busy = 0;
  /** Counts syncs, so that a check during which a sync began is not believed. */
  #epoch = 0;
  #checking = false;
  #ready = false;
  /** Fingerprint right after a sync of ours that nobody else's changes fell into. */
  #own: string | undefined;
  /** A check has found our own rules right at least once: this iptables prints them as we expect. */
  #tried = false;
  /** What is wrong and stays so, where nothing is repaired. */
  #left: string | undefined;
  /** What a check found wrong though nobody had touched the rules: a misreading, not believed again. */
  readonly #misread = new Set<string>();

  constructor(options: DriftMonitorOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer ??= setInterval(() => {
      this.look().catch((error: unknown) =>
        this.#options.log.error('Cannot check the iptables rules', { err: error }),
      );
    }, this.#options.interval).unref();
  }

  /** Idempotent. */
  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#options.fingerprint.close();
  }

  /** To be called before a sync touches the kernel; the answer goes to `end`. */
  begin(): string | undefined {
    this.#busy++;
    this.#epoch++;
    return this.#options.fingerprint.read();
  }

  /**
   * After a sync. `trusted`: what was in the kernel at `before` is known to be right but for what this sync wrote.
   */
  end(before: string | undefined, ok: boolean, trusted: boolean): void {
    this.#busy--;
    this.#ready = ok;
    this.#own = undefined;
    if (before === undefined || !ok || !(trusted || before === this.#verified)) {
      this.#verified = undefined;
      return;
    }
    const now = this.#options.fingerprint.read();
    if (now !== undefined && this.#options.fingerprint.onlyOurs(before, now)) this.#own = now;
    this.#verified = this.#tried ? this.#own : undefined;
  }

  /** To be called for every commit of a sync. */
  committed(commits: number): void {
    this.#options.fingerprint.committed(commits);
  }

  /** One look; answers what was wrong. */
  async look(): Promise<string | undefined> {
    // Before the first sync and after a failed one there is nothing to compare with: a full sync is due anyway.
    if (!this.#ready || this.#busy > 0 || this.#checking) return undefined;
    const seen = this.#options.fingerprint.read();
    if (seen !== undefined && seen === this.#verified) return undefined;
    const epoch = this.#epoch;
    this.#checking = true;
    try {
      const { wrong, complete } = await this.#options.check();
      if (epoch !== this.#epoch) return undefined;
      if (wrong !== undefined && !this.#misread.has(wrong) && seen !== undefined && seen === this.#own) {
        this.#misread.add(wrong);
        this.#options.log.warn(
          'This iptables prints our own rules in a way that is not understood; full syncs write everything, and some changes by others go unnoticed',
          { what: wrong },
        );
      }
      if (wrong === undefined || this.#misread.has(wrong)) {
        this.#tried ||= complete;
        this.#verified = complete ? seen : undefined;
        this.#left = undefined;
        return undefined;
      }
      if (this.#options.repairs === false) {
        this.#verified = seen;
        if (wrong === this.#left) return undefined;
        this.#left = wrong;
      }
      this.#options.onDrift(wrong);
      return wrong;
    } finally {
      this.#checking = false;
    }
  }
}
