/**
 * Interprets IPVS: virtual servers as base chains of the walk, at the two hooks where the kernel asks them
 * (net/netfilter/ipvs/ip_vs_core.c, ip_vs_ops4 and ip_vs_ops6).
 */
import {
  printIdentity,
  printRealServer,
  printServer,
  serverKey,
  type RealServer,
  type VirtualServer,
} from '../../linux/netlink/ipvs/objects.ts';
import { addStep, type Effect, type Flow, type Result, type Surroundings } from '../flow.ts';
import { formatPlace } from '../packet.ts';
import type { BaseChain } from '../walk.ts';

/** A virtual server and who is behind it. */
export interface ServerState {
  readonly server: VirtualServer;
  readonly reals: readonly RealServer[];
}

/** NF_IP_PRI_NAT_SRC - 1 and NF_IP_PRI_NAT_DST + 2. */
const hooks = [
  { hook: 'input', priority: 99 },
  { hook: 'output', priority: -98 },
] as const;

/** `base` of its steps. */
export const ipvsBase = 'ipvs';

export function ipvsChains(servers: readonly ServerState[]): BaseChain[] {
  const byKey = new Map(servers.map((one) => [serverKey(one.server), one]));
  return hooks.map(({ hook, priority }) => ({
    hook,
    priority,
    type: 'filter',
    name: ipvsBase,
    evaluate: (flow, at) => {
      const found = byKey.get(
        serverKey({ protocol: at.packet.protocol, address: flow.destination, port: flow.destinationPort }),
      );
      // What IPVS has sent on is not looked at again.
      return found === undefined || flow.virtualServer !== undefined
        ? [{ flow, verdict: 'next' }]
        : schedule(found, flow, at);
    },
  }));
}

function schedule({ server, reals }: ServerState, flow: Flow, at: Surroundings): Result[] {
  const note = (after: Flow, effect: Effect, element?: string): Flow =>
    addStep(after, {
      hook: at.hook,
      base: ipvsBase,
      chain: printIdentity(server),
      rule: printServer(server),
      effect,
      ...(element === undefined ? {} : { element }),
    });
  // New connections go to none of weight 0.
  const open = reals.filter(({ weight }) => weight > 0);
  if (open.length === 0) {
    const effect: Effect = {
      kind: 'reject',
      with: at.world.family === 'IPv6' ? 'icmp6-port-unreachable' : 'icmp-port-unreachable',
    };
    return [{ flow: note(flow, effect), verdict: 'reject' }];
  }
  return shares(server.scheduler, open).map(([real, share]): Result => {
    const to = formatPlace(real.address, real.port);
    const chosen: Flow = {
      ...flow,
      probability: flow.probability * share,
      destination: real.address,
      destinationPort: real.port,
      dnat: 'translated',
      virtualServer: { address: flow.destination, port: flow.destinationPort },
    };
    return { flow: note(chosen, { kind: 'dnat', to }, printRealServer(server, real)), verdict: 'next' };
  });
}

/** Over many connections of many clients; by weight where the scheduler looks at weights. */
function shares(scheduler: string, reals: readonly RealServer[]): [RealServer, number][] {
  const unweighted = scheduler === 'rr' || scheduler === 'lc';
  const weightOf = ({ weight }: RealServer): number => (unweighted ? 1 : weight);
  const total = reals.reduce((sum, real) => sum + weightOf(real), 0);
  return reals.map((real) => [real, weightOf(real) / total]);
}
