/** Says in the log and in an event what somebody else changed in our rules, and keeps quiet while it goes on and on. */
import type { Family } from '../api/objects.ts';
import type { ChangeByOthers, Mode } from '../dataplane/dataplane.ts';
import type { Logger } from '../log/logger.ts';

export interface ForeignChangesOptions {
  readonly family: Family;
  readonly mode: Mode;
  readonly log: Logger;
  readonly event: (note: string) => void;
  /** Milliseconds, from whenever. */
  readonly now: () => number;
}

/** Milliseconds between two log lines, and between two events; what comes in between is counted. */
const logSpacing = 1000;
const eventSpacing = 60_000;
/** events.k8s.io/v1: a note has at most 1 kB. */
const noteLength = 1000;

export class ForeignChanges {
  readonly #options: ForeignChangesOptions;
  #loggedAt = -Infinity;
  #unlogged = 0;
  #toldAt = -Infinity;
  #untold = 0;

  constructor(options: ForeignChangesOptions) {
    this.#options = options;
  }

  take(change: ChangeByOthers): void {
    const { now, log, event } = this.#options;
    const time = now();
    if (time - this.#loggedAt < logSpacing) this.#unlogged++;
    else {
      const { what, by, repairing } = change;
      const more = this.#unlogged === 0 ? {} : { moreSinceLastLine: this.#unlogged };
      log.warn('Service rules were changed by somebody else', { what, by, repairing, ...more });
      this.#loggedAt = time;
      this.#unlogged = 0;
    }
    if (time - this.#toldAt < eventSpacing) this.#untold++;
    else {
      event(this.#note(change));
      this.#toldAt = time;
      this.#untold = 0;
    }
  }

  #note({ what, by, repairing }: ChangeByOthers): string {
    const { family, mode } = this.#options;
    const who = by === '' ? 'somebody else' : by;
    const more = this.#untold === 0 ? '' : `; ${this.#untold} more changes since the last event`;
    const then = repairing ? 'pointsman puts it back' : 'left as it is (--repair-drift=false)';
    return `${family} rules of ${mode} mode were changed by ${who}: ${what}${more}; ${then}`.slice(
      0,
      noteLength,
    );
  }
}
