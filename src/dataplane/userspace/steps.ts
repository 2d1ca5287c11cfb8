/** Long work in steps, so that connections have their turn in between: a generator yields where it may be interrupted. */
import { setImmediate as nextTurn } from 'node:timers/promises';

/** Milliseconds of one turn of the event loop that may go into steps. */
const slice = 8;

/** Takes all steps at once. */
export function finish<T>(steps: Generator<undefined, T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

/** Takes as many steps a turn of the event loop as there is time for. */
export async function finishInTurns<T>(steps: Generator<undefined, T>): Promise<T> {
  for (;;) {
    const end = performance.now() + slice;
    do {
      const step = steps.next();
      if (step.done === true) return step.value;
    } while (performance.now() < end);
    await nextTurn();
  }
}
