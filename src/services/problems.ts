/** Reports what is wrong with objects: once per object and problem, however often the object comes by. */
import type { Problem } from './types.ts';

/**
 * Remembers which problems were reported. Two trackers (IPv4 and IPv6) may share one ledger: what both find in the
 * same Service is reported once. A problem that goes away and comes back is reported again.
 */
export class ProblemLedger {
  readonly #onProblem: (problem: Problem) => void;
  readonly #byOwner = new Map<string, ReadonlySet<string>>();
  /** How many owners have the problem now. */
  readonly #holders = new Map<string, number>();

  constructor(onProblem: (problem: Problem) => void) {
    this.#onProblem = onProblem;
  }

  /** What is wrong now. */
  current(): Problem[] {
    return [...this.#holders.keys()].map((signature) => {
      const [object, field, reason, message] = JSON.parse(signature) as [string, string, string, string];
      return { object, field, reason, message };
    });
  }

  /** Sets the problems that `owner` (an object, as seen by one tracker) has now. */
  replace(owner: string, problems: readonly Problem[]): void {
    const before = this.#byOwner.get(owner);
    if (before === undefined && problems.length === 0) return;
    const after = new Set<string>();
    for (const problem of problems) {
      const signature = JSON.stringify([problem.object, problem.field, problem.reason, problem.message]);
      if (after.has(signature)) continue;
      after.add(signature);
      if (before?.has(signature) === true) continue;
      const holders = this.#holders.get(signature) ?? 0;
      this.#holders.set(signature, holders + 1);
      if (holders === 0) this.#onProblem(problem);
    }
    for (const signature of before ?? []) {
      if (after.has(signature)) continue;
      const holders = (this.#holders.get(signature) ?? 1) - 1;
      if (holders === 0) this.#holders.delete(signature);
      else this.#holders.set(signature, holders);
    }
    if (after.size === 0) this.#byOwner.delete(owner);
    else this.#byOwner.set(owner, after);
  }
}

/** What was published, safe to print: quoted, escaped, cut. */
export function quote(value: unknown): string {
  const text = JSON.stringify(value) ?? 'undefined';
  return text.length > 80 ? `${text.slice(0, 77)}..."` : text;
}
