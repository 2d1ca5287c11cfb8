/** Where a packet ends, over all choices that rules make at random. */
import type { Assumption, Flow, Step, Verdict } from './flow.ts';
import { stepsOf } from './flow.ts';
import type { World } from './world.ts';
import { formatPlace } from './packet.ts';

/**
 * `endpoint`: translated to an address behind a Service; `node`: to a program on this node, untranslated;
 * `forward`: passed on untranslated; `reject`: refused with an answer; `drop`: lost in silence;
 * `unknown`: a rule that cannot be interpreted decides.
 */
export type OutcomeKind = 'endpoint' | 'node' | 'forward' | 'reject' | 'drop' | 'unknown';

export interface Outcome {
  readonly kind: OutcomeKind;
  /** Share of connections that end so, given the assumptions of its world. */
  readonly probability: number;
  /** `ip:port` at the end of the way. */
  readonly destination: string;
  readonly source: string;
  readonly masqueraded: boolean;
  /** The way of one packet that ends so. */
  readonly steps: readonly Step[];
}

/** The outcomes under one set of answers to what is not known. */
export interface Possibility {
  readonly assumptions: readonly Assumption[];
  /** Probabilities add up to 1. Most likely first. */
  readonly outcomes: readonly Outcome[];
}

export interface Prediction {
  /** The ordinary possibility first; there is one at least. */
  readonly possibilities: readonly Possibility[];
  /** Every way that was followed to its end, before those that look alike were merged; none where no rules were. */
  readonly ends: readonly End[];
  /** Too many branches: not all possibilities were followed. */
  readonly incomplete: boolean;
}

export interface End {
  readonly flow: Flow;
  readonly verdict: Verdict;
}

/** Merges ends that look alike from outside; the way shown is that of the likeliest. */
export function predict(ends: readonly End[], world: World, incomplete: boolean): Prediction {
  const groups = new Map<string, { assumptions: readonly Assumption[]; ends: End[] }>();
  for (const end of ends) {
    const key = JSON.stringify(end.flow.assumptions.map(({ question, holds }) => [question, holds]));
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { assumptions: end.flow.assumptions, ends: [end] });
    else group.ends.push(end);
  }
  const possibilities = [...completed([...groups.values()])].map(({ assumptions, ends: list }) => ({
    assumptions,
    outcomes: merge(list, world),
  }));
  // Among those that are as good: where rules that nobody can interpret match nothing, the way says more.
  possibilities.sort((a, b) => unusual(a) - unusual(b) || granted(a) - granted(b));
  return { possibilities, ends, incomplete };
}

/**
 * A question that only some random branches ask splits only those: the branches that never asked belong to both
 * answers. So each group also takes in the ends whose assumptions are a part of its own.
 */
function completed(
  groups: readonly { assumptions: readonly Assumption[]; ends: End[] }[],
): { assumptions: readonly Assumption[]; ends: End[] }[] {
  const holds = (big: readonly Assumption[], small: readonly Assumption[]): boolean =>
    small.every((one) => big.some((other) => other.question === one.question && other.holds === one.holds));
  const result: { assumptions: readonly Assumption[]; ends: End[] }[] = [];
  for (const group of groups) {
    const total = sum(group.ends);
    if (total > 1 - 1e-9) {
      result.push(group);
      continue;
    }
    const others = groups.filter((other) => other !== group && holds(group.assumptions, other.assumptions));
    result.push({
      assumptions: group.assumptions,
      ends: [...group.ends, ...others.flatMap(({ ends }) => ends)],
    });
  }
  return result.filter(
    (group) =>
      sum(group.ends) > 1 - 1e-6 ||
      !groups.some(
        (other) => other.assumptions !== group.assumptions && holds(other.assumptions, group.assumptions),
      ),
  );
}

function sum(ends: readonly End[]): number {
  return ends.reduce((total, { flow }) => total + flow.probability, 0);
}

function unusual(possibility: Possibility): number {
  return possibility.assumptions.filter(({ usual }) => usual === false).length;
}

/** What the ordinary possibility rests on, where nobody here can tell whether it is so; see `dependence`. */
export interface Dependence {
  /** The answers that the ordinary possibility supposes. */
  readonly supposed: readonly Assumption[];
  /** The possibilities that are as good, and end otherwise. */
  readonly others: readonly Possibility[];
}

/** Undefined: whatever is not known, ordinary packets end the same way. */
export function dependence({ possibilities: [shown, ...rest] }: Prediction): Dependence | undefined {
  const others = rest.filter((one) => unusual(one) === 0 && endsOf(one) !== endsOf(shown));
  if (shown === undefined || unusual(shown) > 0 || others.length === 0) return undefined;
  // One answer changed and another end: that question decides, others may only stand beside it.
  const changed = others.map((other) => shown.assumptions.filter((one) => isContradicted(one, other)));
  const alone = changed.filter(({ length }) => length === 1);
  const deciding = new Set((alone.length > 0 ? alone : changed).flat());
  return { supposed: shown.assumptions.filter((one) => deciding.has(one)), others };
}

function isContradicted({ question, holds }: Assumption, { assumptions }: Possibility): boolean {
  return assumptions.some((other) => other.question === question && other.holds !== holds);
}

/** Equal where packets end alike. */
export function endsOf(possibility: Possibility | undefined): string {
  return JSON.stringify(
    possibility?.outcomes.map(({ kind, destination, masqueraded }) => [kind, destination, masqueraded]),
  );
}

/** `if it comes in by interface cali+` */
export function supposition({ question, holds }: Assumption): string {
  return `${holds ? 'if' : 'unless'} ${question}`;
}

function granted(possibility: Possibility): number {
  return possibility.assumptions.filter(({ holds, usual }) => usual === undefined && holds).length;
}

function merge(ends: readonly End[], world: World): Outcome[] {
  const byKey = new Map<
    string,
    { outcome: Omit<Outcome, 'probability'>; probability: number; best: number }
  >();
  const total = sum(ends);
  for (const { flow, verdict } of ends) {
    const kind = kindOf(flow, verdict, world);
    const destination = formatPlace(flow.destination, flow.destinationPort);
    const masqueraded = flow.snat === 'masquerade' && verdict === 'accept';
    const last = flow.steps?.step;
    // What a rule refuses is one outcome, whichever endpoint had been chosen before.
    const key =
      verdict === 'accept'
        ? `${kind} ${destination} ${masqueraded ? 'masqueraded' : flow.source}`
        : `${kind} ${last?.base} ${last?.chain} ${last?.rule}`;
    const seen = byKey.get(key);
    if (seen !== undefined) {
      seen.probability += flow.probability;
      if (flow.probability <= seen.best) continue;
      seen.best = flow.probability;
      seen.outcome = { ...seen.outcome, steps: stepsOf(flow) };
      continue;
    }
    const outcome = { kind, destination, source: flow.source, masqueraded, steps: stepsOf(flow) };
    byKey.set(key, { outcome, probability: flow.probability, best: flow.probability });
  }
  return [...byKey.values()]
    .map(({ outcome, probability }) => ({ ...outcome, probability: total > 0 ? probability / total : 0 }))
    .sort((a, b) =>
      Math.abs(a.probability - b.probability) > 1e-9
        ? b.probability - a.probability
        : a.destination < b.destination
          ? -1
          : 1,
    );
}

function kindOf(flow: Flow, verdict: Verdict, world: World): OutcomeKind {
  if (verdict !== 'accept') return verdict;
  if (flow.dnat !== undefined) return 'endpoint';
  return world.isLocal(flow.destination) ? 'node' : 'forward';
}
