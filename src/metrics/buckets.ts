/** Histogram buckets, in seconds. */

/** `count` upper bounds from `start`, each `factor` times the one before. */
export function exponentialBuckets(start: number, factor: number, count: number): number[] {
  // Repeated multiplication, so that the bounds print as those of Go's client do.
  const bounds: number[] = [];
  for (let bound = start; bounds.length < count; bound *= factor) bounds.push(bound);
  return bounds;
}

/** `count` upper bounds from `start`, `width` apart. */
export function linearBuckets(start: number, width: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => start + index * width);
}

/** 0.001 … 16.384: how long a sync takes. */
export const syncBuckets = exponentialBuckets(0.001, 2, 15);

/** 0.25 … 300: from the change of a Pod or Service to the rules. */
export const programmingBuckets = [
  0.25,
  0.5,
  ...linearBuckets(1, 1, 59),
  ...linearBuckets(60, 5, 12),
  ...linearBuckets(120, 30, 7),
];
