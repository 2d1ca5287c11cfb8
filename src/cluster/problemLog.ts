import type { Logger } from '../log/logger.ts';
import type { ObjectProblem } from './decode/problem.ts';

const remembered = 4096;

/** One line for each thing that is wrong, however often it arrives. */
export class ProblemLog {
  private readonly log: Logger;
  private readonly known = new Set<string>();

  constructor(log: Logger) {
    this.log = log;
  }

  object(problem: ObjectProblem): void {
    const { kind, object, field, message } = problem;
    if (this.isNew(`${kind} ${object} ${field} ${message}`)) {
      this.log.warn('Part of the API data cannot be used', { kind, object, field, problem: message });
    }
  }

  stream(message: string): void {
    // Positions and excerpts differ from line to line: the kind of damage is what counts.
    if (this.isNew(message.split(':', 1)[0] ?? '')) {
      this.log.warn('Part of a watch cannot be read and is left out', { problem: message });
    }
  }

  private isNew(text: string): boolean {
    if (this.known.has(text)) return false;
    if (this.known.size >= remembered) this.known.clear();
    this.known.add(text);
    return true;
  }
}
