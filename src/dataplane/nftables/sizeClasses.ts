/**
 * Size classes: how many slots the draw for a service port ranges over. The slots of N endpoints are 0 to N-1; the
 * draw is from the smallest class that holds them, so that most changes of N change no rule and no verdict.
 *
 * Classes are 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, …: at least two thirds of a class's slots are in use. A draw that
 * finds an empty slot is repeated; given that it succeeds, every endpoint is equally likely.
 */

/** The largest class; more endpoints than this have no share in new connections. */
export const largestClass = 65_536;

const classes: readonly number[] = makeClasses();

function makeClasses(): number[] {
  const result = [1, 2, 3];
  for (let size = 4; size <= largestClass; size *= 2) {
    result.push(size);
    if (size + size / 2 <= largestClass) result.push(size + size / 2);
  }
  return result;
}

/** The class that holds `count` endpoints; 0 for none. A function of the count alone, whatever it was before. */
export function classOf(count: number): number {
  if (count <= 0) return 0;
  for (const size of classes) if (size >= count) return size;
  return largestClass;
}

/** Slots of a class that are in use whenever the class is: one more than the class below holds. */
export function alwaysFilled(size: number): number {
  const index = classes.indexOf(size);
  if (index < 0) throw new RangeError(`${size} is not a size class`);
  return index === 0 ? 1 : (classes[index - 1] ?? 0) + 1;
}

/** Draws that may find no endpoint before the last one must: at most this share of connections gets that far. */
const residue = 2e-4;

/**
 * The numbers to draw below, one after the other until an endpoint is found: the class a few times, then once the
 * part of it that is always filled.
 */
export function draws(size: number): readonly number[] {
  const filled = alwaysFilled(size);
  if (filled === size) return [size];
  const missed = 1 - filled / size;
  const tries = Math.ceil(Math.log(residue) / Math.log(missed));
  return [...Array<number>(tries).fill(size), filled];
}
