/** Lays what the kernel did with a packet over what was predicted for it, step by step. Pure. */
import type { PacketHeader } from '../../linux/packet-header.ts';
import type { Effect, HookName, Step } from '../flow.ts';
import { stepsOf } from '../flow.ts';
import { ipvsBase } from '../ipvs/evaluate.ts';
import type { End } from '../outcome.ts';
import { formatPlace } from '../packet.ts';
import { processBase } from '../userspace/relay.ts';
import { hookOrder, type KernelStep, type KernelTrace, type Visit } from './kernelTrace.ts';

/**
 * `predicted`: as predicted; `differs`: not so; `neutral`: it matched and decides nothing, so that predictions leave it
 * out (a counter, a log); `behind`: behind a step that differs, in the same chain; `unknown`: nothing was predicted.
 */
export type Judgement = 'predicted' | 'differs' | 'neutral' | 'behind' | 'unknown';

/** Something a packet met in the kernel, or should have met. */
export interface LaidStep {
  /** `ip kube-proxy dispatch`, `nat KUBE-SERVICES` */
  readonly chain: string;
  /** In the tool's syntax; empty for the policy of a chain. */
  readonly rule: string;
  /** What the kernel did: `goto pick-4`, `drop`; empty: it never came here. */
  readonly did: string;
  readonly judgement: Judgement;
  /** What was predicted instead, where it differs; what it is that was seen, elsewhere. */
  readonly note: string;
}

export interface LaidHook {
  readonly hook: HookName;
  /** The packet as it came in, `source → destination`. */
  readonly packet: string;
  readonly steps: readonly LaidStep[];
}

/** `lost`: the kernel itself stopped it; `unseen`: it stopped telling, and the connection went on. */
export type LaidEnd = 'left' | 'here' | 'dropped' | 'rejected' | 'lost' | 'unseen';

/** One packet's way through the kernel beside the prediction that fits it best. */
export interface LaidPacket {
  readonly client: string;
  readonly hooks: readonly LaidHook[];
  readonly end: LaidEnd;
  /** In words: how it ended, and with which addresses. */
  readonly ended: string;
  /** `ip:port` that it went to last. */
  readonly destination: string;
  /** Undefined: nothing was predicted, its connection was known before, or not all chains could be seen. */
  readonly agrees: boolean | undefined;
}

export interface LayOverOptions {
  /** The rules that were followed are the kernel's own, so that they read the same. */
  readonly sameText: boolean;
  /** Connection tracking knew the connection already: chains of type nat are not asked. */
  readonly known: boolean;
  /** Base chains that the kernel did not tell of, as predictions name them. */
  readonly untold: readonly string[];
  /** The connection was answered, or is known to have gone on. */
  readonly arrived: boolean;
}

interface Expected {
  readonly hook: HookName;
  readonly base: string;
  readonly steps: readonly Step[];
}

export function layOver(trace: KernelTrace, ends: readonly End[], options: LayOverOptions): LaidPacket {
  const final = traceEnd(trace, options.arrived);
  const fitting = ends.filter(
    ({ flow }) => formatPlace(flow.destination, flow.destinationPort) === final.destination,
  );
  let best: Comparison | undefined;
  let probability = -1;
  for (const { flow } of fitting.length > 0 ? fitting : ends) {
    const one = compare(trace, expectedOf(stepsOf(flow)), options, final.end);
    const better =
      best === undefined ||
      one.differences < best.differences ||
      (one.differences === best.differences && flow.probability > probability);
    if (better) [best, probability] = [one, flow.probability];
  }
  best ??= unjudged(trace);
  return {
    client: formatPlace(trace.first.source, trace.first.sourcePort),
    hooks: best.hooks.map((hook) => ({ ...hook, steps: withoutDetours(hook.steps) })),
    ...final,
    agrees: agreement(best, ends, options, final.end),
  };
}

function agreement(
  { differences }: Comparison,
  ends: readonly End[],
  { known, untold }: LayOverOptions,
  end: LaidEnd,
): boolean | undefined {
  if (ends.length === 0 || known) return undefined;
  if (differences > 0) return false;
  return untold.length > 0 || end === 'unseen' ? undefined : true;
}

/** As in predictions: a jump into a chain in which nothing happened says nothing. */
function withoutDetours(steps: readonly LaidStep[]): LaidStep[] {
  const kept: LaidStep[] = [];
  for (const step of steps.toReversed()) {
    const { chain, did, judgement } = step;
    const next = kept.at(-1)?.chain;
    const target = /^(?:jump|goto) (.*)$/.exec(did)?.[1];
    const isDetour = target !== undefined && next !== chainName(chain, target);
    // Back from a chain in which nothing happened either.
    const isReturn = did === 'return' && judgement !== 'differs' && next !== chain;
    if ((isDetour && judgement !== 'differs') || isReturn) continue;
    kept.push(step);
  }
  return kept.reverse();
}

/** What a packet has in common with others that went the same way: everything but its client's port. */
export function wayOf({ hooks, end }: LaidPacket): string {
  return JSON.stringify([end, hooks.map(({ hook, steps }) => [hook, steps])]);
}

export function describePacket({ source, sourcePort, destination, destinationPort }: PacketHeader): string {
  return `${formatPlace(source, sourcePort)} → ${formatPlace(destination, destinationPort)}`;
}

/** Where the kernel let go of the packet. */
export function traceEnd(
  trace: KernelTrace,
  arrived: boolean,
): Pick<LaidPacket, 'end' | 'ended' | 'destination'> {
  const { first, visits, passed } = trace;
  const order = hookOrder(trace);
  const lastVisit = visits.at(-1);
  const lastPassed = passed.at(-1);
  // Chains behind all others tell only of packets that were let through.
  const isThrough =
    lastPassed !== undefined &&
    (lastVisit === undefined || order.indexOf(lastVisit.hook) <= order.indexOf(lastPassed.hook));
  const packet = isThrough ? lastPassed.packet : (lastVisit?.packet ?? first);
  const destination = formatPlace(packet.destination, packet.destinationPort);
  const stopped = visits.find(({ steps }) => isStop(steps.at(-1)));
  const step = stopped?.steps.at(-1);
  if (stopped !== undefined && step !== undefined) {
    const where = chainName(stopped.base, step.chain);
    const by = step.rule === '' ? `the policy of ${where}` : `a rule of ${where}`;
    const end = step.verdict === 'reject' ? 'rejected' : 'dropped';
    const ended = step.verdict === 'queue' ? `handed to a program by ${by}` : `${end} by ${by}`;
    return { end, ended, destination };
  }
  const hook = isThrough ? lastPassed.hook : undefined;
  if (hook === 'input')
    return {
      end: 'here',
      ended: `handed to this machine's own programs as ${describePacket(packet)}`,
      destination,
    };
  if (hook === 'postrouting')
    return { end: 'left', ended: `sent on as ${describePacket(packet)}`, destination };
  const behind = (hook ?? lastVisit?.hook ?? order[0]!).toUpperCase();
  if (arrived) {
    const ended = `not told of behind ${behind}, though the connection went on: what it met there is not known`;
    return { end: 'unseen', ended, destination };
  }
  return {
    end: 'lost',
    ended: `not seen again behind ${behind}: no rule dropped it, the kernel itself did (no route, rp_filter, forwarding is off), or a program took it (IPVS)`,
    destination,
  };
}

function isStop(step: KernelStep | undefined): boolean {
  return step?.verdict === 'drop' || step?.verdict === 'reject' || step?.verdict === 'queue';
}

interface Comparison {
  readonly hooks: readonly LaidHook[];
  readonly differences: number;
}

/** What rules do, of what was predicted: IPVS and programs do not tell of themselves in traces. */
function expectedOf(steps: readonly Step[]): Expected[] {
  const groups: { hook: HookName; base: string; steps: Step[] }[] = [];
  for (const step of steps) {
    if (step.base === ipvsBase || step.base === processBase) continue;
    if (step.rule === '' && step.effect.kind !== 'drop') continue;
    const last = groups.at(-1);
    if (last !== undefined && last.hook === step.hook && last.base === step.base) last.steps.push(step);
    else groups.push({ hook: step.hook, base: step.base, steps: [step] });
  }
  return groups;
}

function compare(
  trace: KernelTrace,
  expected: readonly Expected[],
  options: LayOverOptions,
  end: LaidEnd,
): Comparison {
  const laid = new Map<HookName, { packet: string; steps: LaidStep[] }>();
  const at = (hook: HookName, packet: string): LaidStep[] => {
    let found = laid.get(hook);
    if (found === undefined) {
      found = { packet, steps: [] };
      laid.set(hook, found);
    }
    return found.steps;
  };
  let differences = 0;
  const done = new Set<Expected>();
  for (const visit of trace.visits) {
    const group = expected.find(
      (one) => !done.has(one) && one.hook === visit.hook && one.base === visit.base,
    );
    if (group !== undefined) done.add(group);
    const steps = at(visit.hook, describePacket(visit.packet));
    differences += compareVisit(visit, group, options.sameText, steps);
  }
  // Where the packet was stopped, only what should have come before is missing.
  const stopped = end === 'dropped' || end === 'rejected';
  for (const group of expected) {
    if (done.has(group) || options.untold.includes(group.base)) continue;
    const isNat = /(^|[ -])nat([ -]|$)/.test(group.base);
    if (options.known && isNat) {
      at(group.hook, '').push({
        chain: chainName(group.base, group.steps[0]!.chain),
        rule: '',
        did: '',
        judgement: 'neutral',
        note: 'not asked: its connection was known already, and only the first packet of one comes here',
      });
      continue;
    }
    if ((stopped && differences > 0) || end === 'unseen') continue;
    differences++;
    const step = group.steps[0]!;
    at(group.hook, '').push({
      chain: chainName(group.base, step.chain),
      rule: plain(step.rule),
      did: '',
      judgement: 'differs',
      note: 'this was predicted, and the kernel never came here',
    });
  }
  return {
    hooks: [...laid].map(([hook, { packet, steps }]) => ({ hook, packet, steps })),
    differences,
  };
}

function unjudged({ visits }: KernelTrace): Comparison {
  const hooks: { hook: HookName; packet: string; steps: LaidStep[] }[] = [];
  for (const visit of visits) {
    let hook = hooks.at(-1);
    if (hook?.hook !== visit.hook) {
      hook = { hook: visit.hook, packet: describePacket(visit.packet), steps: [] };
      hooks.push(hook);
    }
    for (const step of visit.steps) hook.steps.push(laidStep(visit, step, 'unknown', ''));
  }
  return { hooks, differences: 0 };
}

/** @returns 1 if something differs, else 0 */
function compareVisit(
  visit: Visit,
  group: Expected | undefined,
  sameText: boolean,
  into: LaidStep[],
): number {
  const wanted = group?.steps ?? [];
  let next = 0;
  let differs = false;
  for (const step of visit.steps) {
    const predicted = wanted[next];
    if (differs) into.push(laidStep(visit, step, 'behind', ''));
    else if (predicted !== undefined && isSame(step, predicted, sameText)) {
      next++;
      into.push(laidStep(visit, step, 'predicted', ''));
    } else if (step.verdict === 'continue') into.push(laidStep(visit, step, 'neutral', ''));
    else {
      differs = true;
      const note =
        predicted === undefined
          ? 'no rule of this chain was predicted to decide'
          : `predicted: ${describeStep(visit.base, predicted)}`;
      into.push(laidStep(visit, step, 'differs', note));
    }
  }
  const missed = wanted[next];
  if (!differs && missed !== undefined) {
    differs = true;
    into.push({
      chain: chainName(visit.base, missed.chain),
      rule: plain(missed.rule),
      did: '',
      judgement: 'differs',
      note: 'this rule was predicted to match, and did not',
    });
  }
  return differs ? 1 : 0;
}

function laidStep(visit: Visit, step: KernelStep, judgement: Judgement, note: string): LaidStep {
  const { chain, rule, verdict, to } = step;
  return {
    chain: chainName(visit.base, chain),
    rule: plain(rule),
    did: to === '' ? verdict : `${verdict} ${to}`,
    judgement,
    note,
  };
}

/** `nat PREROUTING` and `KUBE-SERVICES` are `nat KUBE-SERVICES`. */
export function chainName(base: string, chain: string): string {
  return `${base.slice(0, base.lastIndexOf(' '))} ${chain}`;
}

function isSame(step: KernelStep, predicted: Step, sameText: boolean): boolean {
  if (step.chain !== predicted.chain) return false;
  if (sameText && plain(step.rule) !== plain(predicted.rule)) return false;
  return isSameEffect(step, predicted.effect);
}

function isSameEffect({ verdict, to }: KernelStep, effect: Effect): boolean {
  switch (effect.kind) {
    case 'jump':
    case 'goto':
    case 'choose':
      return (verdict === 'jump' || verdict === 'goto') && to === effect.chain;
    case 'return':
    case 'drop':
    case 'reject':
      return verdict === effect.kind;
    case 'accept':
    case 'dnat':
    case 'snat':
    case 'masquerade':
      return verdict === 'accept';
    case 'mark':
    case 'remember':
    case 'note':
      return verdict === 'continue';
    case 'unknown':
      return true;
    case 'enter':
    case 'route':
      return false;
  }
}

function describeStep(base: string, { chain, rule, effect }: Step): string {
  const what =
    effect.kind === 'jump' || effect.kind === 'goto' || effect.kind === 'choose'
      ? `go to ${effect.chain}`
      : effect.kind;
  return rule === '' ? `${what} by the policy` : `${what} in ${chainName(base, chain)}: ${plain(rule)}`;
}

/** Without what changes from one reading to the next, and without the comment. */
function plain(rule: string): string {
  return rule
    .replace(/-m comment --comment ("[^"]*"|\S+) ?/, '')
    .replace(/counter packets \d+ bytes \d+/g, 'counter');
}
