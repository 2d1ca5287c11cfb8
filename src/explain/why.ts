/** Joins the steps of a way with the object fields that caused them. */
import { chains as userspaceChains } from '../dataplane/userspace/names.ts';
import type { Endpoint } from '../services/types.ts';
import type { Case } from './case.ts';
import type { Effect, Step } from './flow.ts';
import { ipvsBase } from './ipvs/evaluate.ts';
import type { Outcome } from './outcome.ts';
import { isOurs, ownerOf } from './owner.ts';
import { processBase } from './userspace/relay.ts';

/** A step and why it is there; empty where no object has a part in it. */
export interface ExplainedStep extends Step {
  readonly cause: string;
}

const frontendFields = {
  clusterIP: 'spec.clusterIP',
  externalIP: 'spec.externalIPs',
  loadBalancerIP: 'status.loadBalancer.ingress[].ip',
  nodePort: 'spec.ports[].nodePort',
} as const;

/** The steps that say something: jumps into chains in which nothing happened are left out. */
export function explainSteps(given: Case, outcome: Outcome): ExplainedStep[] {
  const steps = withoutDetours(outcome.steps);
  let dispatched = false;
  return steps.map((step) => {
    const cause = causeOf(given, outcome, step, dispatched);
    dispatched ||= cause.startsWith('Service ');
    return { ...step, cause };
  });
}

/** A jump counts only if something was done in the chain it leads to, or further down. */
export function withoutDetours(steps: readonly Step[]): Step[] {
  const kept: Step[] = [];
  // From the end: the chains that what follows happens in.
  let needed: string | undefined;
  for (let i = steps.length - 1; i >= 0; i--) {
    const step = steps[i]!;
    const { effect } = step;
    const leads = effect.kind === 'jump' || effect.kind === 'goto' || effect.kind === 'choose';
    if (leads) {
      if (needed !== `${step.base} ${effect.chain}`) continue;
    } else if (effect.kind === 'return') continue;
    kept.push(step);
    needed = step.base === 'routing' || step.base === 'hook' ? undefined : `${step.base} ${step.chain}`;
  }
  return kept.reverse();
}

function causeOf(given: Case, outcome: Outcome, step: Step, dispatched: boolean): string {
  const { decision, packet, world } = given;
  const route = decision?.route;
  const service =
    route === undefined ? (step.comment ?? '') : `Service ${route.port.namespace}/${route.port.service}`;
  const { effect } = step;
  // What others do to packets has nothing to do with Services: only their comments say why.
  if (isAct(effect) && step.base !== 'routing' && !isOurs(step)) return step.comment ?? '';
  switch (effect.kind) {
    case 'jump':
    case 'goto':
    case 'choose': {
      const { chain } = effect;
      if (effect.kind === 'choose' || (/^KUBE-SEP-|^endpoint-/.test(chain) && !/rcheck/.test(step.rule))) {
        return choice(decision?.endpoints.length ?? 0);
      }
      if (/rcheck/.test(step.rule))
        return `spec.sessionAffinity: ClientIP: this client was there within the time-out`;
      if (/^KUBE-SVL-|^local-/.test(chain))
        return `${localField(decision?.frontend?.kind)}: Local: only endpoints on ${world.nodeName || 'this node'}`;
      if (chain === 'KUBE-MARK-MASQ') return masqueradeCause(given, outcome);
      if (chain.startsWith('KUBE-FW-'))
        return `spec.loadBalancerSourceRanges: ${route?.port.sourceRanges.join(', ') ?? ''}`;
      if (
        decision?.frontend !== undefined &&
        route !== undefined &&
        !dispatched &&
        matchesPort(step, packet.destinationPort)
      ) {
        return frontendCause(given);
      }
      if (/NODEPORTS|node-ports/.test(`${chain} ${step.rule}`))
        return `${packet.destination} is an address of this node`;
      const member = setMember(given, step);
      if (member !== '') return member;
      // Without objects, what rules and elements say of themselves has to do.
      return route === undefined && /^[a-z0-9-]+\/[a-z0-9.-]+(:\S+)?( |$)/.test(service) ? service : '';
    }
    case 'mark':
      // In iptables the jump to KUBE-MARK-MASQ has said it.
      return step.chain === 'KUBE-MARK-MASQ' || step.hook === 'postrouting'
        ? ''
        : masqueradeCause(given, outcome);
    case 'masquerade':
      return 'so that answers come back through this node, which alone can undo the translation';
    case 'dnat': {
      const endpoint = route?.endpoints.find(({ key }) => key === effect.to);
      if (step.base === ipvsBase)
        return [
          frontendCause(given),
          scheduling(step.rule, decision?.endpoints.length ?? 0),
          endpoint === undefined ? '' : describeEndpoint(endpoint),
        ]
          .filter((part) => part !== '')
          .join('; ');
      // Userspace mode: one rule has the frontend and the listener.
      if ((userspaceChains.nat as readonly string[]).includes(step.chain)) return frontendCause(given);
      if (endpoint === undefined) return '';
      // nftables mode chooses and translates in one rule.
      const chosen = /numgen/.test(step.rule) ? choice(decision?.endpoints.length ?? 0) : '';
      return [chosen, describeEndpoint(endpoint)].filter((part) => part !== '').join(': ');
    }
    case 'accept':
      return setMember(given, step);
    case 'remember':
      return `spec.sessionAffinity: ClientIP, ${route?.port.affinitySeconds ?? '?'} s`;
    case 'drop':
    case 'reject': {
      if (route === undefined) return step.comment ?? '';
      if (decision?.outOfRange === true)
        return `${service}: spec.loadBalancerSourceRanges does not have ${packet.origin.address}`;
      if (!route.hasAny) return `${service} has no ready endpoint anywhere`;
      return decision?.kind === 'drop'
        ? `${localField(decision.frontend?.kind)}: Local and no ready endpoint on this node`
        : '';
    }
    case 'note':
      if (step.base === processBase) {
        const endpoint = route?.endpoints.find(({ key }) => key === outcome.destination);
        return endpoint === undefined ? '' : describeEndpoint(endpoint);
      }
      return /affinity/.test(effect.text)
        ? `spec.sessionAffinity: ClientIP, ${route?.port.affinitySeconds ?? '?'} s`
        : '';
    default:
      return '';
  }
}

function isAct({ kind }: Effect): boolean {
  return (
    kind === 'mark' || kind === 'masquerade' || kind === 'drop' || kind === 'reject' || kind === 'remember'
  );
}

/** The entry of an ipset that a rule found; empty if it asks for none. */
function setMember({ packet, world }: Case, { rule }: Step): string {
  const [, name = '', directions = ''] = /(?<!! )--match-set (\S+) (\S+)/.exec(rule) ?? [];
  const set = world.ipsets.get(name);
  if (set === undefined || !directions.startsWith('dst')) return '';
  const port = packet.destinationPort;
  const wanted = [
    packet.destination,
    String(port),
    `${packet.destination},${packet.protocol.toLowerCase()}:${port}`,
  ];
  const member = set.members.find((one) => wanted.includes(one));
  return member === undefined ? '' : `ipset ${name} has ${member}`;
}

/** The field that makes the Service answer at the packet's destination; empty without objects. */
function frontendCause({ decision, packet }: Case): string {
  const { route, frontend } = decision ?? {};
  if (route === undefined || frontend === undefined) return '';
  const name = route.port.portName === '' ? '' : ` (port ${route.port.portName})`;
  const where =
    frontend.kind === 'nodePort'
      ? packet.destinationPort
      : `${packet.destination}, spec.ports[].port ${packet.destinationPort}`;
  return `Service ${route.port.namespace}/${route.port.service}: ${frontendFields[frontend.kind]} ${where}${name}`;
}

const schedulers: Readonly<Record<string, string>> = {
  rr: 'they take turns (round robin)',
  wrr: 'they take turns, by weight',
  lc: 'the one with the fewest connections',
  wlc: 'the one with the fewest connections for its weight',
  sh: 'the client address decides',
  dh: 'the destination address decides',
  mh: 'the client address and port decide',
  sed: 'the one expected to answer first',
  nq: 'one that is idle, else the one expected to answer first',
};

/** @param rule `-A -t 10.96.0.10:80 -s rr -p 10800` */
function scheduling(rule: string, count: number): string {
  const scheduler = / -s (\S+)/.exec(rule)?.[1] ?? '';
  const seconds = / -p (\d+)/.exec(rule)?.[1];
  const how =
    count > 1 ? `one of ${count}: ${schedulers[scheduler] ?? `scheduler ${scheduler}`}` : choice(count);
  return seconds === undefined
    ? how
    : `${how}; spec.sessionAffinity: ClientIP: a client that came within ${seconds} s goes where it went then`;
}

function choice(count: number): string {
  return count > 1
    ? `one of ${count} endpoints, each as likely as the others`
    : count === 1
      ? 'the only endpoint'
      : '';
}

function matchesPort(step: Step, port: number): boolean {
  return new RegExp(`(^|[^0-9])${port}([^0-9]|$)`).test(`${step.rule} ${step.element ?? ''}`);
}

function localField(kind: string | undefined): string {
  return kind === undefined || kind === 'clusterIP'
    ? 'spec.internalTrafficPolicy'
    : 'spec.externalTrafficPolicy';
}

/** Why the source is rewritten, or would be. */
export function masqueradeCause({ decision, packet, wanted }: Case, outcome: Outcome): string {
  const step = outcome.steps.find(({ effect }) => effect.kind === 'masquerade');
  if (step !== undefined && !isOurs(step)) {
    const owner = ownerOf(step);
    return `rule "${step.rule}" in chain ${step.chain}${owner === '' ? '' : ` of ${owner}`} does that, not the service proxy`;
  }
  const ownAddress =
    outcome.destination.startsWith(`${packet.origin.address}:`) ||
    outcome.destination.startsWith(`[${packet.origin.address}]`);
  switch (decision?.masquerade) {
    case 'all':
      return 'masqueradeAll is set: sources of cluster IP traffic are always rewritten';
    case 'notFromPod': {
      const detector = wanted?.options.localDetector;
      const how =
        detector === undefined
          ? ''
          : detector.kind === 'cidr'
            ? ` (clusterCIDR ${detector.cidr})`
            : ' (by its interface)';
      return `${packet.origin.address} is not a Pod${how}, so the Pod's answer might not come back through here`;
    }
    case 'external':
      return 'spec.externalTrafficPolicy: Cluster: the endpoint may be on another node';
    case 'fromNode':
      return 'it comes from this node itself, for which Local policy makes an exception';
    case 'relay':
      return 'userspace mode: the process takes the connection and opens a second one to the endpoint';
    default:
      return ownAddress ? 'the Pod reaches itself: without this it would answer itself directly' : '';
  }
}

export function describeEndpoint({ pod, nodeName, isLocal, ready, serving, terminating }: Endpoint): string {
  const who = pod === '' ? 'an endpoint' : `Pod ${pod}`;
  const where = isLocal ? 'on this node' : nodeName === '' ? '' : `on ${nodeName}`;
  const state = ready
    ? 'ready'
    : terminating
      ? serving
        ? 'terminating, but serving'
        : 'terminating'
      : 'not ready';
  return [who, where].filter((part) => part !== '').join(' ') + `, ${state}`;
}
