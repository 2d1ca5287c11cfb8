/**
 * Size classes: how many slots the draw for a service port ranges over. The slots of N endpoints are 0 to N-1; the
 * draw is from the smallest class that holds them, so that most changes of N change no rule and no verdict.
 *
 * Classes are 1, 4, 8, 16, 32, …: from 4 on, half of a class's slots or more are in use. A draw that finds an empty
 * slot is repeated; given that it succeeds, every endpoint is equally likely.
 */

/** The largest class; more endpoints than this have no share in new connections. */
export const largestClass = 65_536;

/** The class that holds `count` endpoints; 0 for none. A function of the count alone, whatever it was before. */
export function classOf(count: number): number {
  if (count <= 1) return count <= 0 ? 0 : 1;
  let size = 4;
  while (size < count && size < largestClass) size *= 2;
  return size;
}

/** Slots of a class that are in use whenever the class is: one more than the class below holds. */
export function alwaysFilled(size: number): number {
  if (size === 1) return 1;
  if (classOf(size) !== size) throw new RangeError(`${size} is not a size class`);
  return size === 4 ? 2 : size / 2 + 1;
}

/** At most this share of connections finds none in all draws but the last. */
export const residue = 2e-4;

/**
 * The numbers to draw below, one after the other until an endpoint is found: the class a few times, then once the
 * part of it that is always filled.
 */
export function draws(size: number): readonly number[] {
  const filled = alwaysFilled(size);
  if (filled === size) return [size];
  const tries = Math.ceil(Math.log(residue) / Math.log(1 - filled / size));
  return [...Array.from({ length: tries }, () => size), filled];
}
