/**
 * A packet under way: what rules have made of it so far. Values are immutable; where rules choose at random, or
 * depend on something that is not known, one flow becomes several.
 */
import type { Packet } from './packet.ts';
import { formatPlace } from './packet.ts';
import type { World } from './world.ts';

export type HookName = 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting';

/** Something that rules asked and nobody here can answer. */
export interface Assumption {
  readonly question: string;
  readonly holds: boolean;
  /**
   * The answer is the ordinary one: a client that is new, a packet that is not counted away by a limit. Undefined:
   * nobody here knows which answer is.
   */
  readonly usual: boolean | undefined;
  readonly kind: 'affinity' | 'unknown';
}

/** One thing that happened to the packet. */
export interface Step {
  readonly hook: HookName;
  /** As the tool names it: `nat PREROUTING`, `ip kube-proxy nat-prerouting`. */
  readonly base: string;
  /** The chain the rule is in. */
  readonly chain: string;
  /** In the kernel tool's syntax; empty for what the kernel does by itself (routing, a policy). */
  readonly rule: string;
  /** A map or set element that decided, in the tool's syntax. */
  readonly element?: string;
  /** The comment that the rule or element carries. */
  readonly comment?: string;
  readonly effect: Effect;
  /** The packet as it is after the step, `source → destination`. */
  readonly after: string;
}

export type Effect =
  | { readonly kind: 'enter' }
  | { readonly kind: 'jump' | 'goto'; readonly chain: string }
  | { readonly kind: 'choose'; readonly chain: string; readonly probability: number }
  | { readonly kind: 'return' }
  | { readonly kind: 'accept' }
  | { readonly kind: 'drop'; readonly policy: boolean }
  | { readonly kind: 'reject'; readonly with: string }
  | { readonly kind: 'mark'; readonly mark: number }
  | { readonly kind: 'dnat'; readonly to: string }
  | { readonly kind: 'snat'; readonly to: string }
  | { readonly kind: 'masquerade' }
  | { readonly kind: 'remember'; readonly list: string }
  | { readonly kind: 'note'; readonly text: string }
  | { readonly kind: 'unknown'; readonly text: string }
  | { readonly kind: 'route'; readonly to: string };

/** Steps are a list from the last to the first, so that flows which part share what came before. */
export interface StepLink {
  readonly step: Step;
  readonly before: StepLink | undefined;
}

export interface Flow {
  readonly probability: number;
  readonly source: string;
  readonly sourcePort: number | undefined;
  readonly destination: string;
  readonly destinationPort: number;
  readonly mark: number;
  readonly connectionMark: number;
  /** `meta priority`, which our nftables mode uses as a scratch register. */
  readonly priority: number;
  readonly inInterface: string | undefined;
  readonly outInterface: string | undefined;
  /** Set once rules have decided: even "no" is a decision, which the kernel keeps for the connection. */
  readonly dnat: 'translated' | undefined;
  readonly snat: 'masquerade' | 'snat' | undefined;
  /** The virtual server by which IPVS has sent it on. */
  readonly virtualServer: { readonly address: string; readonly port: number } | undefined;
  readonly untracked: boolean;
  readonly assumptions: readonly Assumption[];
  readonly steps: StepLink | undefined;
}

export type Verdict = 'accept' | 'drop' | 'reject' | 'unknown';

/** How a flow left a chain: `next` = no verdict, on to what comes behind. */
export interface Result {
  readonly flow: Flow;
  readonly verdict: Verdict | 'next';
}

/** What evaluation needs besides the flow. */
export interface Surroundings {
  readonly packet: Packet;
  readonly world: World;
  readonly hook: HookName;
  /** Name of the base chain, for steps. */
  readonly base: string;
}

export function startFlow(packet: Packet): Flow {
  return {
    probability: 1,
    source: packet.origin.address,
    sourcePort: packet.sourcePort,
    destination: packet.destination,
    destinationPort: packet.destinationPort,
    mark: 0,
    connectionMark: 0,
    priority: 0,
    inInterface: packet.origin.interface,
    outInterface: undefined,
    dnat: undefined,
    snat: undefined,
    virtualServer: undefined,
    untracked: false,
    assumptions: [],
    steps: undefined,
  };
}

export function addresses(flow: Flow): string {
  const source = flow.snat === 'masquerade' ? 'this node' : formatPlace(flow.source, flow.sourcePort);
  return `${source} → ${formatPlace(flow.destination, flow.destinationPort)}`;
}

/** The flow with a step more; the step shows the packet as the flow has it. */
export function addStep(flow: Flow, step: Omit<Step, 'after'>): Flow {
  return { ...flow, steps: { step: { ...step, after: addresses(flow) }, before: flow.steps } };
}

export function stepsOf(flow: Flow): Step[] {
  const steps: Step[] = [];
  for (let link = flow.steps; link !== undefined; link = link.before) steps.push(link.step);
  return steps.reverse();
}

/** What the flow has assumed about the question already; undefined = nothing yet. */
export function assumed(flow: Flow, question: string): boolean | undefined {
  return flow.assumptions.find((one) => one.question === question)?.holds;
}

export function assume(flow: Flow, assumption: Assumption): Flow {
  return { ...flow, assumptions: [...flow.assumptions, assumption] };
}

/** The same for the other answer. */
export function opposite(usual: boolean | undefined): boolean | undefined {
  return usual === undefined ? undefined : !usual;
}

/** More branches than this and the rest is not followed: a rule set that asks so much cannot be explained. */
export const branchesMax = 4096;
