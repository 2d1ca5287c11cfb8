/** Where rules, or what the kernel remembers, are not what the objects want, or not the proxy's at all. */
import type { Case } from '../case.ts';
import type { Step } from '../flow.ts';
import type { Outcome } from '../outcome.ts';
import { formatPlace } from '../packet.ts';
import { isOurs, ownerOf } from '../owner.ts';
import { listenerOf, processBase } from '../userspace/relay.ts';
import type { Report } from './finding.ts';
import { list, names, percent } from './words.ts';
import { programName } from '../../programName.ts';

export function foreignRules(
  { decision, failedAttempts }: Case,
  outcomes: readonly Outcome[],
  report: Report,
): void {
  const guilty = [...byRule(outcomes.filter(isStoppedByOthers)).values()];
  const arrived = new Set(outcomes.map(({ kind, destination }) => (kind === 'endpoint' ? destination : '')));
  const stopped = decision?.endpoints.filter(({ key }) => !arrived.has(key)) ?? [];
  for (const outcome of guilty) {
    // Where several rules stop some each, nobody here knows which endpoint is whose.
    const whose =
      guilty.length === 1 && arrived.size > 1 && stopped.length > 0 ? `, those to ${names(stopped)}` : '';
    const { probability } = outcome;
    const share = probability > 0.999 ? 'the packet' : `${percent(probability)} of the connections${whose}`;
    report(
      'cause',
      'foreign_rule',
      `A rule ${writer(outcome.steps.at(-1)!)} ${verbOf(outcome)} ${share}: ${lastRule(outcome)}.`,
      'Find out who wrote it (a firewall, a network policy, a person); the Service itself is not at fault.',
    );
  }
  for (const outcome of byRule(failedAttempts.filter(isStoppedByOthers)).values()) {
    report(
      'warning',
      'foreign_rule',
      `A rule ${writer(outcome.steps.at(-1)!)} ${verbOf(outcome)} what the process sends to ${names(stopped)}: ${lastRule(outcome)}. It then tries another endpoint, so these clients are served, but later.`,
      'Find out who wrote it (a firewall, a network policy, a person).',
    );
  }
}

/** One outcome a rule, with the shares of all that end there. */
function byRule(outcomes: readonly Outcome[]): Map<string, Outcome> {
  const merged = new Map<string, Outcome>();
  for (const outcome of outcomes) {
    const key = `${outcome.kind} ${lastRule(outcome)}`;
    const before = merged.get(key);
    merged.set(
      key,
      before === undefined ? outcome : { ...before, probability: before.probability + outcome.probability },
    );
  }
  return merged;
}

function isStoppedByOthers({ kind, steps }: Outcome): boolean {
  const step = steps.at(-1);
  return (kind === 'drop' || kind === 'reject') && step !== undefined && !isOurs(step);
}

function writer(step: Step): string {
  const owner = ownerOf(step);
  return owner === '' ? "that is not the service proxy's" : `of ${owner}, not of the service proxy,`;
}

function verbOf({ kind }: Outcome): string {
  return kind === 'drop' ? 'drops' : 'rejects';
}

function lastRule({ steps }: Outcome): string {
  const step = steps.at(-1)!;
  return step.effect.kind === 'drop' && step.effect.policy
    ? `the policy of chain ${step.base}`
    : `rule "${step.rule}" in chain ${step.chain} (${step.base})`;
}

/** The rules lead to a program of this node, and there is none. */
export function nobodyListens({ packet, world }: Case, outcomes: readonly Outcome[], report: Report): void {
  const { listening } = world;
  if (listening === undefined || packet.protocol === 'SCTP') return;
  for (const outcome of outcomes) {
    const atProcess = outcome.kind === 'reject' && outcome.steps.at(-1)?.base === processBase;
    const listener = atProcess ? listenerOf(outcome) : undefined;
    const place = listener ?? (outcome.kind === 'node' ? outcome.destination : undefined);
    const port = Number(place?.split(':').at(-1));
    if (place === undefined || listening.has(`${packet.protocol} ${port}`)) continue;
    if (listener === undefined)
      report(
        'note',
        'no_listener',
        `No program of this node listens at ${packet.protocol} port ${port}: the connection is refused.`,
      );
    else
      report(
        'cause',
        'no_listener',
        `The rules of userspace mode lead to port ${port} of this node, and no program listens there: the process that did has ended, so connections are refused.`,
        'Start pointsman again. Its rules stay when it ends, its listeners do not.',
      );
  }
}

export function staleFlows(given: Case, report: Report): void {
  const { packet, decision, flows } = given;
  if (packet.protocol !== 'UDP') return;
  const valid = new Set(decision?.route?.reachable.map(({ key }) => key));
  for (const flow of flows) {
    if (flow.protocol !== 'UDP' || flow.source !== packet.origin.address) continue;
    if (flow.destination !== packet.destination || flow.destinationPort !== packet.destinationPort) continue;
    if (packet.sourcePort !== undefined && packet.sourcePort !== flow.sourcePort) continue;
    // In userspace mode flows lead to the process, which knows what is gone.
    if (given.mode === 'userspace' && given.world.isLocal(flow.endpoint)) continue;
    const endpoint = formatPlace(flow.endpoint, flow.endpointPort);
    if (decision?.route === undefined || valid.has(endpoint)) continue;
    const what =
      flow.endpoint === flow.destination
        ? 'to the Service address itself, untranslated'
        : `to ${endpoint}, which is no endpoint any more`;
    report(
      'cause',
      'stale_udp_flow',
      `The kernel remembers a UDP flow of this client (port ${flow.sourcePort}) ${what}; as long as datagrams come from that port, rules are not asked again${flow.answered ? '' : ', and nobody answers'}.`,
      `Forget it: conntrack -D -p udp --orig-src ${flow.source} --orig-dst ${flow.destination} --orig-port-dst ${flow.destinationPort}`,
    );
  }
}

interface ForeignAct {
  readonly writer: string;
  /** `sends the packet to 192.0.2.9:3128` */
  readonly act: (what: string) => string;
  readonly rule: string;
  readonly chain: string;
  readonly base: string;
  /** The proxy's rules were asked before, and had none for the packet. */
  readonly isBehind: boolean;
}

/** Where iptables has the jumps to the proxy's rules: what ends this chain ends the way to them. */
const sharedChain = /^(?:ip6? )?nat (?:PREROUTING|OUTPUT)$/;

/** Rules of others that take packets away from the proxy's, with their shares; each rule once. */
function translatedByOthers(
  outcomes: readonly Outcome[],
  valid: ReadonlySet<string>,
  mode: Case['mode'],
): [ForeignAct, number][] {
  const found = new Map<string, [ForeignAct, number]>();
  for (const outcome of outcomes) {
    const { kind, destination, steps, probability } = outcome;
    if (kind === 'endpoint' && valid.has(destination)) continue;
    // An accept is the last word only in the chain that the proxy's jumps are in.
    const canSpare = (kind === 'forward' || kind === 'node') && (mode === 'iptables' || mode === 'userspace');
    const step =
      kind === 'endpoint'
        ? steps.findLast(({ effect }) => effect.kind === 'dnat')
        : canSpare
          ? steps.find(({ effect, base }) => effect.kind === 'accept' && sharedChain.test(base))
          : undefined;
    if (step === undefined || step.rule === '' || isOurs(step)) continue;
    const { rule, chain, base, effect } = step;
    const isBehind = steps
      .slice(0, steps.indexOf(step))
      .some((one) => one.hook === step.hook && asksProxy(one));
    if (isBehind && effect.kind === 'accept') continue;
    const before = found.get(`${base} ${chain} ${rule}`);
    found.set(`${base} ${chain} ${rule}`, [
      {
        writer: writer(step),
        act: (what) => (effect.kind === 'dnat' ? `sends ${what} to ${effect.to}` : `lets ${what} pass`),
        rule,
        chain,
        base,
        isBehind,
      },
      (before?.[1] ?? 0) + probability,
    ]);
  }
  return [...found.values()];
}

/** The packet comes to rules of the proxy. */
function asksProxy(step: Step): boolean {
  const { effect } = step;
  return isOurs(step) || (effect.kind === 'jump' && isOurs({ ...step, chain: effect.chain }));
}

/** TCP connections that go on to somebody who is no endpoint any more. */
export function oldConnections(given: Case, report: Report): void {
  const { packet, decision, flows, mode } = given;
  const route = decision?.route;
  if (packet.protocol === 'UDP' || route === undefined || mode === 'userspace') return;
  const valid = new Set(route.reachable.map(({ key }) => key));
  const old = flows.filter(
    (flow) =>
      flow.protocol === packet.protocol &&
      flow.source === packet.origin.address &&
      flow.destination === packet.destination &&
      flow.destinationPort === packet.destinationPort &&
      flow.answered &&
      flow.endpoint !== flow.destination &&
      !valid.has(formatPlace(flow.endpoint, flow.endpointPort)),
  );
  if (old.length === 0) return;
  const places = [...new Set(old.map((flow) => formatPlace(flow.endpoint, flow.endpointPort)))];
  report(
    'warning',
    'old_connection',
    `The kernel remembers ${old.length === 1 ? `a connection of this client (port ${old[0]!.sourcePort})` : `${old.length} connections of this client`} to ${list(places)}, no endpoint of Service ${route.port.namespace}/${route.port.service} any more. A connection that is open stays where it went; only new ones follow the rules.`,
    'If the client hangs, it has to connect anew: restart it, or shorten its keep-alive. Those already closed are forgotten by themselves.',
  );
}

/** Rules in the kernel that lead to somebody whom the objects do not know (any more). */
export function goneEndpoints(given: Case, outcomes: readonly Outcome[], report: Report): void {
  const { decision, rules } = given;
  const route = decision?.route;
  if (route === undefined || rules.kind === 'wanted') return;
  const valid = new Set(route.reachable.map(({ key }) => key));
  const foreign = translatedByOthers(outcomes, valid, given.mode);
  for (const [what, share] of foreign) {
    report(
      'cause',
      'foreign_rule',
      `A rule ${what.writer} ${what.act(share > 0.999 ? 'the packet' : `${percent(share)} of the connections`)}, ${what.isBehind ? 'after the rules of the service proxy had none for it' : 'before the rules of the service proxy are asked'}: rule "${what.rule}" in chain ${what.chain} (${what.base}).`,
      what.isBehind
        ? `Rules of the proxy are missing: is it running? ${programName} diff shows which.`
        : 'Find out who wrote it; it has to leave addresses of Services out, or stand behind the rules of the proxy.',
    );
  }
  if (foreign.length > 0) return;
  for (const { kind, destination, steps } of outcomes) {
    if (kind !== 'endpoint' || valid.has(destination)) continue;
    const remembered = steps.some(({ rule, element }) =>
      /sticky-clients|affinity-|--rcheck/.test(`${rule} ${element ?? ''}`),
    );
    if (remembered) {
      report(
        'cause',
        'affinity_to_gone',
        `Session affinity (spec.sessionAffinity: ClientIP) still sends this client to ${destination}, which is no usable endpoint of Service ${route.port.namespace}/${route.port.service} any more.`,
        'The memory ends after sessionAffinityConfig.clientIP.timeoutSeconds without a new connection; the proxy should have cleaned it: is it running?',
      );
    } else {
      report(
        'cause',
        'rules_behind',
        `The rules lead to ${destination}, which is no usable endpoint of Service ${route.port.namespace}/${route.port.service}: the rules are older than the objects.`,
        'Is the proxy running and in touch with the API server? See its /healthz and log.',
      );
    }
  }
  const chosen = new Set([...outcomes, ...given.failedAttempts].map(({ destination }) => destination));
  // What somebody else drops behind the translation was translated.
  const translated = outcomes.some(
    (outcome) =>
      outcome.kind === 'endpoint' || valid.has(outcome.destination) || listenerOf(outcome) !== undefined,
  );
  if (decision?.kind === 'endpoint' && !translated) {
    report(
      'cause',
      'rules_missing',
      `The rules do not translate the packet, though Service ${route.port.namespace}/${route.port.service} has endpoints: rules are missing.`,
      `Is the proxy running? ${programName} diff shows what is missing.`,
    );
  } else if (
    decision?.kind === 'endpoint' &&
    // What is stopped on its way is one end, whichever endpoint had been chosen.
    outcomes.every(({ kind }) => kind === 'endpoint') &&
    decision.endpoints.some(({ key }) => !chosen.has(key))
  ) {
    const missing = decision.endpoints.filter(({ key }) => !chosen.has(key));
    if (!outcomes.some(({ steps }) => steps.some(({ rule }) => rule.includes('--rcheck')))) {
      report(
        'warning',
        'endpoint_missing',
        `The rules never choose ${names(missing)}, though ${missing.length === 1 ? 'it is' : 'they are'} ready: the rules are older than the objects.`,
      );
    }
  }
}
