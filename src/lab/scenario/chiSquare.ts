/** Whether two histograms could come from the same distribution. Pure. */
import type { Counts } from './types.ts';

/** ln Γ(x) for x > 0: Stirling's series, after moving x up to where four terms are exact to 1e-10. */
function logGamma(x: number): number {
  let shift = 0;
  let z = x;
  for (; z < 10; z++) shift += Math.log(z);
  const series = 1 / (12 * z) - 1 / (360 * z ** 3) + 1 / (1260 * z ** 5) - 1 / (1680 * z ** 7);
  return (z - 0.5) * Math.log(z) - z + 0.5 * Math.log(2 * Math.PI) + series - shift;
}

/** Q(a, x), the upper regularised incomplete gamma function. */
function upperGamma(a: number, x: number): number {
  if (x <= 0) return 1;
  const scale = Math.exp(-x + a * Math.log(x) - logGamma(a));
  if (x < a + 1) {
    let term = 1 / a;
    let sum = term;
    for (let n = a + 1; Math.abs(term) > Math.abs(sum) * 1e-12; n++) {
      term *= x / n;
      sum += term;
    }
    return Math.max(0, 1 - sum * scale);
  }
  // Lentz's continued fraction.
  const tiny = 1e-300;
  let b = x + 1 - a;
  let c = 1 / tiny;
  let d = 1 / b;
  let h = d;
  for (let i = 1; i < 10_000; i++) {
    const an = -i * (i - a);
    b += 2;
    d = an * d + b;
    if (Math.abs(d) < tiny) d = tiny;
    c = b + an / c;
    if (Math.abs(c) < tiny) c = tiny;
    d = 1 / d;
    const step = d * c;
    h *= step;
    if (Math.abs(step - 1) < 1e-12) break;
  }
  return scale * h;
}

/** P(chi-square with `freedom` degrees of freedom ≥ `value`) */
export function chiSquareTail(value: number, freedom: number): number {
  return freedom <= 0 ? 1 : upperGamma(freedom / 2, value / 2);
}

/** The probability of a difference this large or larger if both histograms have the same distribution. */
export function homogeneity(a: Counts, b: Counts): number {
  const keys = [...new Set([...Object.keys(a), ...Object.keys(b)])];
  const sumOf = (counts: Counts): number => Object.values(counts).reduce((sum, n) => sum + n, 0);
  const totals = [sumOf(a), sumOf(b)] as const;
  const all = totals[0] + totals[1];
  if (totals[0] === 0 || totals[1] === 0) return 1;
  let value = 0;
  for (const key of keys) {
    const column = (a[key] ?? 0) + (b[key] ?? 0);
    for (const [counts, total] of [
      [a, totals[0]],
      [b, totals[1]],
    ] as const) {
      const expected = (column * total) / all;
      if (expected > 0) value += ((counts[key] ?? 0) - expected) ** 2 / expected;
    }
  }
  return chiSquareTail(value, keys.length - 1);
}
