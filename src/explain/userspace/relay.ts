/**
 * What userspace mode does behind its rules: they lead to a listener of the process, which takes the connection, chooses
 * an endpoint and opens a second connection to it. A way ends at the endpoint, so the second packet is followed, too.
 */
import { chains as names } from '../../dataplane/userspace/names.ts';
import type { Endpoint } from '../../services/types.ts';
import type { Step } from '../flow.ts';
import type { Outcome, Possibility, Prediction } from '../outcome.ts';
import { formatPlace, type Packet } from '../packet.ts';
import type { Decision } from '../routes.ts';
import { walk, type BaseChain } from '../walk.ts';
import type { World } from '../world.ts';

/** `base` of the step in which the process chooses. */
export const processBase = 'process pointsman';

/** More second packets than this are not followed each: those behind are taken to go the way of the first. */
const followedMax = 64;

/** The listener of the process to which the rules lead this way, `ip:port`; undefined where they lead elsewhere. */
export function listenerOf({ steps }: Pick<Outcome, 'steps'>): string | undefined {
  const translated = steps.findLast(({ effect }) => effect.kind === 'dnat');
  if (translated?.effect.kind !== 'dnat') return undefined;
  return (names.nat as readonly string[]).includes(translated.chain) ? translated.effect.to : undefined;
}

/** The way ends at a listener of the process, or goes on from there. */
export function isListener({ kind, steps }: Pick<Outcome, 'kind' | 'steps'>): boolean {
  return kind === 'endpoint' && listenerOf({ steps }) !== undefined;
}

export interface Relayed {
  readonly prediction: Prediction;
  /** Attempts of the process that fail; it then tries another endpoint, so that the client only waits longer. */
  readonly failedAttempts: readonly Outcome[];
}

/** Ends at listeners become ends at endpoints, in every possibility. Without a route they stay as they are. */
export function followRelays(
  prediction: Prediction,
  packet: Packet,
  chains: readonly BaseChain[],
  world: World,
  decision: Decision | undefined,
): Relayed {
  const endpoints = decision?.kind === 'endpoint' ? decision.endpoints : [];
  const seconds = secondConnections(packet, chains, world, endpoints);
  const failedAttempts: Outcome[] = [];
  const possibilities = prediction.possibilities.map((possibility): Possibility => ({
    ...possibility,
    outcomes: possibility.outcomes.flatMap((outcome) => {
      if (!isListener(outcome)) return [outcome];
      if (!isListening(outcome, packet, world)) return [refused(outcome)];
      if (decision === undefined || endpoints.length === 0) return [outcome];
      const all = seconds.map((second) => joined(outcome, second, decision));
      const arriving = all.filter(({ kind }) => kind === 'endpoint');
      // A datagram that is lost is lost; only connections are tried again.
      if (packet.protocol !== 'TCP' || arriving.length === 0 || arriving.length === all.length) return all;
      failedAttempts.push(...all.filter(({ kind }) => kind !== 'endpoint'));
      const share = arriving.reduce((sum, { probability }) => sum + probability, 0);
      return arriving.map((one) => ({
        ...one,
        probability: (one.probability / share) * outcome.probability,
      }));
    }),
  }));
  return { prediction: { ...prediction, possibilities }, failedAttempts };
}

/** As far as known. */
function isListening({ destination }: Outcome, { protocol }: Packet, { listening }: World): boolean {
  return listening === undefined || listening.has(`${protocol} ${destination.split(':').at(-1)}`);
}

function refused(outcome: Outcome): Outcome {
  const step: Step = {
    hook: 'input',
    base: processBase,
    chain: 'pointsman',
    rule: `listener at ${outcome.destination}`,
    effect: { kind: 'reject', with: 'a reset: no program listens there' },
    after: outcome.steps.at(-1)?.after ?? '',
  };
  return { ...outcome, kind: 'reject', steps: [...outcome.steps, step] };
}

interface Second {
  readonly endpoint: Endpoint;
  readonly share: number;
  readonly end: Outcome;
}

function secondConnections(
  packet: Packet,
  chains: readonly BaseChain[],
  world: World,
  endpoints: readonly Endpoint[],
): Second[] {
  return endpoints.slice(0, followedMax).flatMap((endpoint, i) => {
    const second: Packet = {
      ...packet,
      origin: {
        kind: 'node',
        address: world.sourceTowards(endpoint.ip),
        name: 'pointsman',
        interface: undefined,
      },
      sourcePort: undefined,
      destination: endpoint.ip,
      destinationPort: endpoint.port,
    };
    // The last one that is followed stands for all behind it.
    const weight = i === followedMax - 1 ? endpoints.length - i : 1;
    const [usual] = walk(second, chains, world).possibilities;
    return (usual?.outcomes ?? []).map((end) => ({
      endpoint,
      share: (end.probability * weight) / endpoints.length,
      end,
    }));
  });
}

function joined(first: Outcome, { endpoint, share, end }: Second, { route, endpoints }: Decision): Outcome {
  const affinity =
    route !== undefined && route.port.affinitySeconds > 0
      ? '; session affinity: a client that was here before goes where it went then'
      : '';
  const turn = endpoints.length > 1 ? `takes its turn among ${endpoints.length}` : 'is the only endpoint';
  const place = formatPlace(endpoint.ip, endpoint.port);
  const choice: Step = {
    hook: 'input',
    base: processBase,
    chain: 'pointsman',
    rule: `listener at ${first.destination}`,
    effect: {
      kind: 'note',
      text: `the process accepts the connection; ${place} ${turn}${affinity}`,
    },
    after: `${end.source} → ${place}`,
  };
  const arrives = end.kind === 'forward' || end.kind === 'node' || end.kind === 'endpoint';
  return {
    kind: arrives ? 'endpoint' : end.kind,
    probability: first.probability * share,
    destination: endpoint.key,
    source: end.source,
    masqueraded: arrives,
    steps: [...first.steps, choice, ...end.steps],
  };
}
