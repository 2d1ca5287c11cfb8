/** A case told: plain values for a terminal, a page, or another program (`--json`). */
import type { Case } from './case.ts';
import { diagnose } from './diagnose.ts';
import type { Finding } from './findings/finding.ts';
import { conditions, percent } from './findings/words.ts';
import type { Effect, HookName } from './flow.ts';
import {
  dependence,
  endsOf,
  supposition,
  type Outcome,
  type OutcomeKind,
  type Possibility,
} from './outcome.ts';
import { ipvsBase } from './ipvs/evaluate.ts';
import { formatPlace } from './packet.ts';
import { listenerOf, processBase } from './userspace/relay.ts';
import { describeEndpoint, explainSteps, masqueradeCause, type ExplainedStep } from './why.ts';

export interface ToldStep {
  /** `nat KUBE-SERVICES`, `ip kube-proxy dispatch`; `routing` for the kernel's own decision. */
  readonly chain: string;
  /** In the tool's syntax, without its comment. */
  readonly rule: string;
  readonly element: string;
  readonly comment: string;
  /** What it does, in words. */
  readonly effect: string;
  readonly effectKind: Effect['kind'];
  /** The object field or fact that caused it. */
  readonly cause: string;
  /** Source → destination behind the step. */
  readonly packet: string;
  readonly rewrites: boolean;
}

export interface ToldHook {
  readonly hook: HookName;
  /** The packet as it comes in. */
  readonly packet: string;
  readonly steps: readonly ToldStep[];
}

export interface ToldOutcome {
  readonly kind: OutcomeKind;
  readonly probability: number;
  readonly destination: string;
  readonly masqueraded: boolean;
  readonly why: string;
  /** Who is there, as far as known. */
  readonly who: string;
}

export interface ToldWay {
  readonly outcome: ToldOutcome;
  readonly way: readonly ToldHook[];
}

export interface ToldPossibility {
  readonly assumptions: readonly string[];
  readonly outcomes: readonly ToldOutcome[];
}

export interface Explanation {
  readonly question: {
    readonly family: string;
    readonly protocol: string;
    readonly from: string;
    readonly source: string;
    readonly destination: string;
  };
  readonly node: string;
  readonly rules: string;
  /** One sentence or two. */
  readonly answer: string;
  readonly outcomes: readonly ToldOutcome[];
  /** The way of one packet that ends like the first outcome. */
  readonly way: readonly ToldHook[];
  /** Ends of another kind, or by another rule: each from where its way parts from `way`. */
  readonly otherWays: readonly ToldWay[];
  readonly conntrack: readonly string[];
  readonly findings: readonly Finding[];
  /** What happens if something that is not known is otherwise. */
  readonly otherwise: readonly ToldPossibility[];
  readonly remarks: readonly string[];
}

export function tell(given: Case): Explanation {
  const { packet, prediction, world, rules, mode } = given;
  const [usual] = prediction.possibilities;
  const findings = diagnose(given);
  const outcomes = usual?.outcomes ?? [];
  const [first] = outcomes;
  return {
    question: {
      family: packet.family,
      protocol: packet.protocol,
      from: packet.origin.name,
      source: formatPlace(packet.origin.address, packet.sourcePort),
      destination: formatPlace(packet.destination, packet.destinationPort),
    },
    node: world.nodeName,
    rules:
      rules.kind === 'wanted'
        ? `as pointsman writes them in ${mode} mode`
        : rules.kind === 'dump'
          ? `from ${rules.file}`
          : 'read from the kernel',
    answer: unlessOtherwise(given, answer(given, outcomes)),
    outcomes: outcomes.map((outcome) => toldOutcome(given, outcome)),
    way: first === undefined ? [] : way(given, first),
    otherWays: otherWays(given, outcomes),
    conntrack: first === undefined ? [] : conntrack(given, outcomes),
    findings,
    otherwise: otherwise(given, prediction.possibilities),
    remarks: given.remarks,
  };
}

function toldOutcome(given: Case, outcome: Outcome): ToldOutcome {
  const { kind, probability, destination, masqueraded } = outcome;
  const endpoint =
    kind === 'endpoint' ? given.decision?.route?.endpoints.find(({ key }) => key === destination) : undefined;
  return {
    kind,
    probability,
    destination,
    masqueraded,
    why: masqueraded ? masqueradeCause(given, outcome) : '',
    who: endpoint === undefined ? '' : describeEndpoint(endpoint),
  };
}

const words: Readonly<Record<Exclude<OutcomeKind, 'endpoint'>, string>> = {
  node: 'It stays on this node, untranslated: a program that listens there gets it; if there is none, the connection is refused.',
  forward: 'No rule translates it: it is passed on as it is.',
  reject: 'It is rejected: the client sees "connection refused".',
  drop: 'It is dropped: the client hears nothing and waits until it gives up.',
  unknown: 'A rule that cannot be interpreted decides; see the last step.',
};

/** The answer, and on what it rests that nobody here can tell. */
function unlessOtherwise({ prediction }: Case, text: string): string {
  const depends = dependence(prediction);
  if (depends === undefined) return text;
  const kinds = new Set(depends.others.flatMap(({ outcomes }) => outcomes.map(({ kind }) => kind)));
  const ends = [...kinds].map((kind) => inShort[kind]).join('; or ');
  return `That depends on what cannot be told from here. ${conditions(depends.supposed.map(supposition))}: ${text} Otherwise: ${ends}.`;
}

const inShort: Readonly<Record<OutcomeKind, string>> = {
  endpoint: 'it reaches an endpoint',
  node: 'it stays on this node, untranslated',
  forward: 'it is passed on, untranslated',
  reject: 'it is rejected',
  drop: 'it is dropped',
  unknown: 'a rule that cannot be interpreted decides',
};

function answer(given: Case, outcomes: readonly Outcome[]): string {
  const [first] = outcomes;
  if (first === undefined) return 'Nothing is known about it.';
  const route = given.decision?.route;
  const kinds = [...new Set(outcomes.map(({ kind }) => kind))];
  if (kinds.length > 1) {
    return kinds
      .map((kind) => {
        const share = outcomes
          .filter((one) => one.kind === kind)
          .reduce((sum, one) => sum + one.probability, 0);
        return `${percent(share)}: ${kind === 'endpoint' ? 'It reaches an endpoint.' : words[kind]}`;
      })
      .join(' ');
  }
  if (first.kind !== 'endpoint') {
    return first.steps.slice(0, -1).some(({ base }) => base === processBase)
      ? 'The process of userspace mode takes the connection, reaches no endpoint, and resets it.'
      : words[first.kind];
  }
  const service = route === undefined ? '' : ` of Service ${route.port.name}`;
  const known = route?.endpoints.some(({ key }) => key === first.destination);
  if (known === false && outcomes.length === 1 && listenerOf(first) === undefined)
    return `It is sent to ${first.destination}, which is no endpoint${service}.`;
  const many =
    outcomes.length === 1
      ? `It reaches ${first.destination}${service}`
      : `It reaches one of ${outcomes.length} endpoints${service}`;
  if (first.steps.every(({ base }) => base !== processBase) && listenerOf(first) !== undefined)
    return `It reaches a listener of the proxy's process at ${first.destination}, which opens a second connection to an endpoint. To which one is not known without the objects.`;
  const rewritten = outcomes.filter(({ masqueraded }) => masqueraded).length;
  const source =
    rewritten === 0
      ? `The endpoint sees the client's own address, ${given.packet.origin.address}.`
      : rewritten === outcomes.length
        ? "The endpoint sees this node's address instead of the client's."
        : "Some of them see this node's address instead of the client's.";
  return `${many}. ${source}`;
}

function way(given: Case, outcome: Outcome): ToldHook[] {
  return hooksOf(given, explainSteps(given, outcome));
}

/** One for each end that the first outcome does not show. */
function otherWays(given: Case, outcomes: readonly Outcome[]): ToldWay[] {
  const endOf = ({ kind, steps }: Outcome): string => {
    const last = steps.at(-1);
    return kind === 'drop' || kind === 'reject' || kind === 'unknown'
      ? `${kind} ${last?.base} ${last?.chain} ${last?.rule}`
      : kind;
  };
  const [first] = outcomes;
  if (first === undefined) return [];
  const main = explainSteps(given, first);
  const seen = new Set([endOf(first)]);
  const others: ToldWay[] = [];
  for (const outcome of outcomes) {
    const end = endOf(outcome);
    if (seen.has(end)) continue;
    seen.add(end);
    const steps = explainSteps(given, outcome);
    let parting = steps.findIndex((step, i) => !sameStep(step, main[i]));
    // The hook's own line first.
    if (parting > 0 && steps[parting - 1]?.effect.kind === 'enter') parting--;
    const like = outcomes.filter((one) => endOf(one) === end);
    const probability = like.reduce((sum, one) => sum + one.probability, 0);
    others.push({
      outcome: { ...toldOutcome(given, outcome), probability },
      way: hooksOf(given, steps.slice(Math.max(parting, 0)), steps[parting - 1]?.after),
    });
  }
  return others;
}

function sameStep(a: ExplainedStep, b: ExplainedStep | undefined): boolean {
  return (
    a.hook === b?.hook &&
    a.base === b.base &&
    a.chain === b.chain &&
    a.rule === b.rule &&
    a.element === b.element &&
    a.effect.kind === b.effect.kind &&
    a.after === b.after
  );
}

/** @param before the packet before the steps; default: as it was sent */
function hooksOf({ packet }: Case, steps: readonly ExplainedStep[], before?: string): ToldHook[] {
  const hooks: { hook: HookName; packet: string; steps: ToldStep[] }[] = [];
  let current =
    before ??
    `${formatPlace(packet.origin.address, packet.sourcePort)} → ${formatPlace(packet.destination, packet.destinationPort)}`;
  for (const step of steps) {
    let hook = hooks.at(-1);
    if (hook === undefined || step.effect.kind === 'enter' || hook.hook !== step.hook) {
      hook = { hook: step.hook, packet: current, steps: [] };
      hooks.push(hook);
    }
    const { effect } = step;
    if (effect.kind === 'enter') continue;
    hook.steps.push({
      chain: step.base === 'routing' ? 'routing' : chainName(step.base, step.chain),
      rule: step.rule.replace(/-m comment --comment ("[^"]*"|\S+) ?/, ''),
      element: step.element ?? '',
      comment: step.comment ?? '',
      effect: effectText(effect),
      effectKind: effect.kind,
      cause: step.cause,
      packet: step.after,
      rewrites: effect.kind === 'dnat' || effect.kind === 'snat' || effect.kind === 'masquerade',
    });
    current = step.after;
  }
  return hooks;
}

/** `nat PREROUTING` and `KUBE-SERVICES` are `nat KUBE-SERVICES`. */
function chainName(base: string, chain: string): string {
  if (base === ipvsBase) return `virtual server ${chain}`;
  const words = base.split(' ');
  return [...words.slice(0, -1), chain].join(' ');
}

function effectText(effect: Effect): string {
  switch (effect.kind) {
    case 'enter':
      return '';
    case 'jump':
    case 'goto':
      return `go to ${effect.chain}`;
    case 'choose':
      return `chosen at random: ${effect.chain}`;
    case 'return':
      return 'back';
    case 'accept':
      return 'accept: no more rules of this chain';
    case 'drop':
      return effect.policy ? 'dropped: the policy of the chain' : 'dropped';
    case 'reject':
      return `rejected with ${effect.with}`;
    case 'mark':
      return `mark is now 0x${effect.mark.toString(16)}`;
    case 'dnat':
      return `destination rewritten to ${effect.to}`;
    case 'snat':
      return `source rewritten to ${effect.to}`;
    case 'masquerade':
      return "source rewritten to this node's address (masquerade)";
    case 'remember':
      return `client remembered in ${effect.list}`;
    case 'note':
    case 'unknown':
      return effect.kind === 'unknown' ? `cannot be interpreted: ${effect.text}` : effect.text;
    case 'route':
      return `the kernel decides: it goes to ${effect.to}`;
  }
}

function conntrack(given: Case, outcomes: readonly Outcome[]): string[] {
  const { packet } = given;
  const first = outcomes.find(({ kind }) => kind === 'endpoint' || kind === 'forward' || kind === 'node');
  if (
    first === undefined &&
    outcomes[0] !== undefined &&
    outcomes[0].steps.slice(0, -1).some(({ base }) => base === processBase)
  )
    return ['The connection to the process, until that resets it.'];
  if (outcomes.some(({ kind }) => kind === 'unknown') && first === undefined)
    return ['Not known: it depends on the rule that cannot be interpreted.'];
  if (first === undefined) return ['Nothing: the packet is not let through, so no connection is remembered.'];
  if (first.kind !== 'endpoint') return ['The connection as it is, without translation.'];
  const source = packet.origin.address;
  const place = formatPlace(packet.destination, packet.destinationPort);
  const listener = listenerOf(first);
  if (listener !== undefined) {
    const second = first.steps.some(({ base }) => base === processBase)
      ? [`and of the second connection: ${first.source} → ${first.destination}`]
      : [];
    return [
      `original: ${source} → ${place}`,
      `answers:  ${listener} → ${source}`,
      ...second,
      'Both last as long as the process does: it copies every byte from one to the other.',
    ];
  }
  const client = first.masqueraded ? "this node's address" : source;
  const later = `Later packets of the connection follow this and ask no rule: they go to ${first.destination} for as long as it lasts`;
  const ending = first.steps.some(({ base }) => base === ipvsBase)
    ? `. IPVS has an entry of its own for it (ipvsadm -Lnc); it ends with the virtual server.`
    : ', whatever happens to the Service.';
  return [
    `original: ${source} → ${place}`,
    `answers:  ${first.destination} → ${client}`,
    `${later}${ending} Answers get ${place} back as their source.`,
  ];
}

function otherwise(given: Case, possibilities: readonly Possibility[]): ToldPossibility[] {
  const [usual, ...rest] = possibilities;
  const different = rest.filter((one) => endsOf(one) !== endsOf(usual));
  return different.slice(0, 8).map((possibility) => ({
    assumptions: possibility.assumptions.filter(({ holds, usual }) => !usual || holds).map(supposition),
    outcomes: possibility.outcomes.map((outcome) => toldOutcome(given, outcome)),
  }));
}
