/** Whether counts are what equal chances give. */

export interface SpreadTest {
  readonly statistic: number;
  readonly freedom: number;
  /** How often equal chances alone give counts as uneven as these, or more. */
  readonly probability: number;
}

/** Fewer per endpoint on average than this say nothing. */
const expectedAtLeast = 5;

/** Undefined: fewer than two counts, or too few connections to tell. */
export function testSpread(counts: readonly number[]): SpreadTest | undefined {
  const total = counts.reduce((sum, count) => sum + count, 0);
  const expected = total / counts.length;
  if (counts.length < 2 || expected < expectedAtLeast) return undefined;
  const statistic = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
  const freedom = counts.length - 1;
  return { statistic, freedom, probability: upperGamma(freedom / 2, statistic / 2) };
}

/** The regularised upper incomplete gamma function Q(a, x): a series for small x, a continued fraction (Lentz) otherwise. */
function upperGamma(a: number, x: number): number {
  if (x <= 0) return 1;
  const scale = Math.exp(a * Math.log(x) - x - logGamma(a));
  if (x < a + 1) {
    let term = 1 / a;
    let sum = term;
    for (let n = 1; n < 1000 && term > sum * 1e-14; n++) sum += term *= x / (a + n);
    return Math.max(0, 1 - sum * scale);
  }
  const tiny = 1e-300;
  let b = x + 1 - a;
  let c = 1 / tiny;
  let d = 1 / b;
  let fraction = d;
  for (let i = 1; i < 1000; i++) {
    const an = -i * (i - a);
    b += 2;
    d = 1 / (Math.abs(an * d + b) < tiny ? tiny : an * d + b);
    c = Math.abs(b + an / c) < tiny ? tiny : b + an / c;
    fraction *= d * c;
    if (Math.abs(d * c - 1) < 1e-14) break;
  }
  return scale * fraction;
}

/** Stirling's series, after lifting the argument to where it is exact enough. */
function logGamma(value: number): number {
  let shift = 0;
  let x = value;
  while (x < 10) shift -= Math.log(x++);
  const inverse = 1 / (x * x);
  const series = (1 / 12 - inverse * (1 / 360 - inverse / 1260)) / x;
  return shift + (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI) + series;
}
