/**
 * Whether what a probe saw agrees with the reference truth, or with what the scenario's author expected. Pure; the
 * rules are those of the scenarios' README, "When a record agrees with the truth".
 */
import { homogeneity } from './chiSquare.ts';
import { asText, isObject, type Json, type JsonObject } from './generate.ts';
import type {
  CheckRecord,
  Counts,
  HttpRecord,
  ProbeRecord,
  ScenarioMode,
  ScenarioRecord,
  UntilRecord,
} from './types.ts';

export interface Verdict {
  /** What differs, each a sentence for people. Empty: it agrees. */
  readonly differences: readonly string[];
  /** Worth knowing, but no failure. */
  readonly remarks: readonly string[];
}

/** Below this probability a difference in shares is no accident. */
const accident = 1e-5;
const enoughAnswers = 20;
const manyBackends = 20;

function names(counts: Counts | Partial<Counts>): string[] {
  return Object.keys(counts)
    .filter((key) => (counts[key] ?? 0) > 0)
    .sort();
}

function words(list: readonly string[]): string {
  return list.length === 0 ? 'none' : list.join(', ');
}

function compareSets(what: string, truth: readonly string[], ours: readonly string[]): string[] {
  const missing = truth.filter((each) => !ours.includes(each));
  const extra = ours.filter((each) => !truth.includes(each));
  if (missing.length === 0 && extra.length === 0) return [];
  return [`${what}: wanted ${words(truth)}, got ${words(ours)}`];
}

function total(counts: Counts): number {
  return Object.values(counts).reduce((sum, n) => sum + n, 0);
}

function podOf(backend: string): string {
  return backend.slice(0, backend.lastIndexOf(':'));
}

function shares(counts: Counts): string {
  return names(counts)
    .map((name) => `${name} ${counts[name]}`)
    .join(', ');
}

function compareBackends(truth: Counts, ours: Counts): string[] {
  const wanted = names(truth);
  const got = names(ours);
  if (wanted.length > manyBackends) {
    const strangers = got.filter((each) => !wanted.includes(each));
    const met = got.length - strangers.length;
    // Of many backends, chance leaves out some; which ones, differs from run to run on both sides.
    if (met < wanted.length * 0.9 || strangers.length > wanted.length * 0.1) {
      return [
        `backends: wanted at least nine tenths of ${wanted.length}, got ${met} of them and ${strangers.length} others`,
      ];
    }
  } else {
    const differences = compareSets('backends', wanted, got);
    if (differences.length > 0) return differences;
  }
  if (total(truth) < enoughAnswers || total(ours) < enoughAnswers) return [];
  const chance = homogeneity(truth, ours);
  if (chance >= accident) return [];
  if (wanted.length > manyBackends)
    return [`shares of ${wanted.length} backends differ (chance ${chance.toExponential(1)})`];
  return [`shares: wanted about ${shares(truth)}; got ${shares(ours)} (chance ${chance.toExponential(1)})`];
}

/** An address of any node where the truth has the client's; the client's own remains right where it has that too. */
function compareHiddenSources(wanted: readonly string[], ours: Counts): string[] {
  const hidden = (source: string): boolean => source === 'client-ip' || source.startsWith('node-ip/');
  const rename = (source: string): string =>
    hidden(source) && (source !== 'client-ip' || wanted.includes('client-ip')) ? 'a node' : source;
  const set = (sources: readonly string[]): string[] => [...new Set(sources.map(rename))].sort();
  return compareSets('sources', set(wanted), set(names(ours)));
}

function compareProbes(truth: ProbeRecord, ours: ProbeRecord, options: CompareOptions): Verdict {
  const differences = compareSets('outcomes', names(truth.outcomes), names(ours.outcomes));
  if (truth.sticky === undefined) {
    differences.push(...compareBackends(truth.backends, ours.backends));
  } else {
    if (truth.sticky !== ours.sticky) {
      differences.push(`sticky: wanted ${truth.sticky}, got ${ours.sticky}`);
    }
    if (truth.kept !== 'either' && truth.kept !== ours.kept)
      differences.push(`kept: wanted ${truth.kept}, got ${ours.kept}`);
    const pool = truth.pool ?? ours.pool;
    const strangers = names(ours.backends).filter(
      (each) => !(pool ?? []).includes(podOf(each)) && !(pool ?? []).includes(each),
    );
    if (pool !== undefined && strangers.length > 0)
      differences.push(`backends outside the pool: ${words(strangers)}`);
  }
  if (options.clientHidden === true)
    differences.push(...compareHiddenSources(names(truth.sources), ours.sources));
  else if (options.sourceVaries !== true)
    differences.push(...compareSets('sources', names(truth.sources), names(ours.sources)));
  const remarks = compareSets('by', [...(truth.by ?? [])].sort(), [...(ours.by ?? [])].sort());
  return { differences, remarks };
}

function compareChecks(truth: CheckRecord, ours: CheckRecord): Verdict {
  const differences: string[] = [];
  const fatesOf = (record: CheckRecord): string[] =>
    [...new Set(Object.values(record.fates).flatMap(names))].sort();
  for (const [backend, fates] of Object.entries(truth.fates)) {
    const own = ours.fates[backend];
    if (own !== undefined)
      differences.push(...compareSets(`fates of connections to ${backend}`, names(fates), names(own)));
  }
  differences.push(...compareSets('fates', fatesOf(truth), fatesOf(ours)));
  if (fatesOf(truth).some((fate) => fate === 'moved' || fate === 'answered')) {
    differences.push(...compareSets('backends now', names(truth.now), names(ours.now)));
  }
  return { differences, remarks: [] };
}

function same(a: Json | undefined, b: Json | undefined): boolean {
  if (Array.isArray(a)) {
    return (
      Array.isArray(b) && a.length === b.length && a.every((item: Json, i) => same(item, (b as Json[])[i]))
    );
  }
  if (isObject(a)) {
    if (!isObject(b)) return false;
    const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
    return [...keys].every((key) => same(a[key], b[key]));
  }
  return a === b;
}

function compareHttp(truth: HttpRecord, ours: HttpRecord): Verdict {
  const differences: string[] = [];
  if (truth.outcome !== ours.outcome)
    differences.push(`outcome: wanted ${truth.outcome}, got ${ours.outcome}`);
  if (truth.status !== ours.status) differences.push(`status: wanted ${truth.status}, got ${ours.status}`);
  const headers = new Set([...Object.keys(truth.headers ?? {}), ...Object.keys(ours.headers ?? {})]);
  for (const header of headers) {
    const [wanted, got] = [truth.headers?.[header], ours.headers?.[header]];
    if (wanted !== got)
      differences.push(`header ${header}: wanted ${wanted ?? 'none'}, got ${got ?? 'none'}`);
  }
  if (!same(truth.body, ours.body)) {
    differences.push(`body: wanted ${JSON.stringify(truth.body)}, got ${JSON.stringify(ours.body)}`);
  }
  return { differences, remarks: [] };
}

/** How many seconds an `until` may take, given the reference's. */
export function untilLimit(seconds: number): number {
  return Math.max(seconds * 2.5, seconds + 5);
}

function compareUntil(truth: UntilRecord, ours: UntilRecord, timeFactor: number): Verdict {
  if (!truth.reached)
    return { differences: [], remarks: ours.reached ? ['reached, which the reference did not'] : [] };
  if (!ours.reached) return { differences: ['not reached'], remarks: [] };
  const limit = untilLimit(truth.seconds) * timeFactor;
  if (ours.seconds <= limit) return { differences: [], remarks: [] };
  return {
    differences: [
      `reached after ${ours.seconds.toFixed(2)} s; the reference took ${truth.seconds} s, allowed are ${limit.toFixed(1)} s`,
    ],
    remarks: [],
  };
}

export interface CompareOptions {
  /** The probing Pod is itself one of the backends, so that with affinity its source depends on the choice. */
  readonly sourceVaries?: boolean;
  /** The mode shows backends an address of the node instead of the client's. */
  readonly clientHidden?: boolean;
  /** Scales what time an `until` may take. */
  readonly timeFactor?: number;
}

/** Compares a record with the reference's. */
export function compareRecords(
  truth: ScenarioRecord,
  ours: ScenarioRecord,
  options: CompareOptions = {},
): Verdict {
  if ((truth.kind === 'probe' || truth.kind === 'open') && (ours.kind === 'probe' || ours.kind === 'open')) {
    return compareProbes(truth, ours, options);
  }
  if (truth.kind === 'check' && ours.kind === 'check') return compareChecks(truth, ours);
  if (truth.kind === 'http' && ours.kind === 'http') return compareHttp(truth, ours);
  if (truth.kind === 'until' && ours.kind === 'until')
    return compareUntil(truth, ours, options.timeFactor ?? 1);
  return { differences: [`the truth is of a ${truth.kind}, this is a ${ours.kind}`], remarks: [] };
}

/** What `expect` says for one mode: its own part for that mode, or the whole. */
function expectationFor(expect: JsonObject, mode: ScenarioMode): JsonObject {
  const { iptables, nftables, ipvs, userspace, ...common } = expect;
  const own = { iptables, nftables, ipvs, userspace }[mode];
  return isObject(own) ? { ...common, ...own } : common;
}

function listOf(value: Json): string[] {
  return Array.isArray(value) ? (value as Json[]).map(asText) : [asText(value)];
}

/** Whether `part` is in `whole`: of a mapping only the fields named count. */
function contains(whole: Json | undefined, part: Json): boolean {
  if (!isObject(part)) return same(whole, part);
  return isObject(whole) && Object.entries(part).every(([key, value]) => contains(whole[key], value));
}

function sameBackends(wanted: readonly string[], counts: Counts): boolean {
  const got = names(counts);
  const matches = (want: string, backend: string): boolean => want === backend || want === podOf(backend);
  return (
    got.every((each) => wanted.some((want) => matches(want, each))) &&
    wanted.every((want) => got.some((each) => matches(want, each)))
  );
}

/** Whether exactly these backends (`POD` or `POD:PORT`) answered. */
export function answeredBy(wanted: readonly string[], counts: Counts): boolean {
  return sameBackends(wanted, counts);
}

/** Compares a record with its author's words; for scenarios without truth. */
export function compareExpectation(
  expect: JsonObject,
  mode: ScenarioMode,
  ours: ScenarioRecord,
  clientHidden = false,
): Verdict {
  const differences: string[] = [];
  const say = (key: string, wanted: Json, got: unknown): void => {
    differences.push(`${key}: wanted ${JSON.stringify(wanted)}, got ${JSON.stringify(got)}`);
  };
  const field = ours as unknown as Readonly<Record<string, Json | undefined>>;
  for (const [key, wanted] of Object.entries(expectationFor(expect, mode))) {
    switch (key) {
      case 'outcome': {
        const got = ours.kind === 'http' ? [ours.outcome] : names((field['outcomes'] ?? {}) as Counts);
        if (!same(listOf(wanted).sort(), got)) say(key, wanted, got);
        break;
      }
      case 'backends': {
        const counts = (field['backends'] ?? field['now'] ?? {}) as Counts;
        if (!sameBackends(listOf(wanted), counts)) say(key, wanted, names(counts));
        break;
      }
      case 'source': {
        const sources = (field['sources'] ?? {}) as Counts;
        const got = names(sources);
        if (clientHidden) differences.push(...compareHiddenSources(listOf(wanted), sources));
        else if (!same(listOf(wanted).sort(), got)) say(key, wanted, got);
        break;
      }
      case 'distinct': {
        const got = names((field['backends'] ?? {}) as Counts).length;
        if (got !== wanted) say(key, wanted, got);
        break;
      }
      case 'fates': {
        const fates = ours.kind === 'check' ? ours.fates : {};
        if (isObject(wanted)) {
          for (const [backend, fate] of Object.entries(wanted)) {
            const got = Object.entries(fates)
              .filter(([name]) => name === backend || podOf(name) === backend)
              .flatMap(([, counts]) => names(counts));
            if (got.length > 0 && !same(listOf(fate).sort(), [...new Set(got)].sort()))
              say(`fates of ${backend}`, fate, got);
          }
        } else {
          const got = [...new Set(Object.values(fates).flatMap(names))].sort();
          if (!same(listOf(wanted).sort(), got)) say(key, wanted, got);
        }
        break;
      }
      case 'kept':
        if (wanted !== 'either' && !same(field[key], wanted)) say(key, wanted, field[key]);
        break;
      case 'body':
        if (!contains(field['body'], wanted)) say(key, wanted, field['body']);
        break;
      default:
        if (!same(field[key], wanted)) say(key, wanted, field[key]);
    }
  }
  return { differences, remarks: [] };
}
