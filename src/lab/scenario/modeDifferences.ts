/**
 * Modes without a recorded truth of their own are measured against that of iptables mode. This table says where they
 * must differ from it; everything else has to agree. Each difference carries a sentence for people.
 */
import type { ProbeRecord, CheckRecord, ScenarioRecord, Truth } from './types.ts';

export interface ProbeDifference {
  readonly scenario: string;
  /** Ids of the probes. */
  readonly probes: readonly string[];
  readonly why: string;
  /** What takes the place of the truth's own fields. */
  readonly instead: Partial<Omit<ProbeRecord, 'id' | 'kind'>> | Partial<Omit<CheckRecord, 'id' | 'kind'>>;
}

export interface ModeDifferences {
  /** The mode whose truth counts. */
  readonly like: string;
  /** Set where backends see an address of the proxy's node wherever they see the client's in the other mode; why. */
  readonly clientHidden?: string;
  readonly probes: readonly ProbeDifference[];
}

const ownAddress =
  'A service address is an address of the node itself, where every port that is no service port is refused.';

export const modeDifferences: Readonly<Record<string, ModeDifferences>> = {
  ipvs: {
    like: 'iptables',
    probes: [
      {
        scenario: 'clusterip-tcp',
        probes: ['wrong-port', 'wrong-protocol'],
        why: ownAddress,
        instead: { outcomes: { refused: 3 }, by: ['icmp-port'] },
      },
      {
        scenario: 'clusterip-udp',
        probes: ['wrong-protocol'],
        why: ownAddress,
        instead: { outcomes: { refused: 3 }, by: ['icmp-port'] },
      },
      {
        scenario: 'endpoint-change',
        probes: ['held-after-delete'],
        why: 'Connections belong to a virtual server and end with it, which goes with its Service.',
        instead: { fates: { 'a1:8080': { timeout: 10 }, 'b1:8080': { timeout: 10 } }, now: {} },
      },
      {
        scenario: 'load-balancer',
        probes: ['open-wrong-port'],
        why: ownAddress,
        instead: { outcomes: { refused: 40 }, by: ['icmp-port'] },
      },
      {
        scenario: 'session-affinity',
        probes: ['clients-external-ip', 'clients-cluster-ip'],
        why: 'Affinity is kept by each virtual server, so by each frontend: another way in may lead elsewhere.',
        instead: { kept: 'either' },
      },
    ],
  },
  userspace: {
    like: 'iptables',
    clientHidden:
      'The proxy makes a connection of its own to the endpoint, so the endpoint sees an address of the node.',
    probes: [
      {
        scenario: 'restart',
        probes: ['down', 'down-nodeport', 'down-changed'],
        why: 'Nobody copies bytes while the proxy is down: the redirects stay, and connections are refused.',
        instead: { outcomes: { refused: 40 }, backends: {}, sources: {} },
      },
      {
        scenario: 'restart',
        probes: ['held-lives'],
        why: 'Connections go through the process, and end with it.',
        instead: { fates: { 'a1:8080': { closed: 10 }, 'b1:8080': { closed: 10 } }, now: {} },
      },
    ],
  },
};

/** The truth that a mode without one of its own is measured against. */
export function derivedTruth(truth: Truth, mode: string): Truth {
  const differences =
    modeDifferences[mode]?.probes.filter(({ scenario }) => scenario === truth.scenario) ?? [];
  const probes = truth.probes.map((record): ScenarioRecord => {
    const found = differences.find((difference) => difference.probes.includes(record.id));
    return found === undefined ? record : { ...record, ...found.instead };
  });
  return { ...truth, mode, probes };
}
