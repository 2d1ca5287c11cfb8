/** The rules that choose an endpoint, and those of the endpoint's own chain. */
import type { Route } from '../../services/types.ts';
import { endpointChain, markMasqChain } from './names.ts';
import { comment, type Rule } from '../../linux/iptables/rule.ts';

/** Chain of every reachable endpoint, by endpoint key. */
export type EndpointChains = ReadonlyMap<string, string>;

export function endpointChains(route: Route): EndpointChains {
  const chains = new Map<string, string>();
  for (const list of [route.reachable, route.cluster, route.local]) {
    for (const { key } of list) {
      if (!chains.has(key)) chains.set(key, endpointChain(route.port.name, route.port.protocol, key));
    }
  }
  return chains;
}

/**
 * Appends the rules by which `chain` (KUBE-SVC or KUBE-SVL) picks one of `endpoints`: first, with affinity, whoever
 * served this client within the time; then each with the probability that makes all equal.
 */
export function pushChoice(
  out: Rule[],
  chain: string,
  route: Route,
  endpoints: Route['cluster'],
  chains: EndpointChains,
  comments: boolean,
): void {
  const { name, affinitySeconds } = route.port;
  const count = endpoints.length;
  if (affinitySeconds > 0) {
    for (const { key } of endpoints) {
      const own = chains.get(key) as string;
      const said = comments ? `${comment(`${name} -> ${key}`)} ` : '';
      out.push({
        chain,
        args: `${said}-m recent --name ${own} --rcheck --seconds ${affinitySeconds} --reap -j ${own}`,
      });
    }
  }
  for (let i = 0; i < count; i++) {
    const { key } = endpoints[i] as Route['cluster'][number];
    const said = comments ? `${comment(`${name} -> ${key}`)} ` : '';
    const chance = i < count - 1 ? `-m statistic --mode random --probability ${probability(count - i)} ` : '';
    out.push({ chain, args: `${said}${chance}-j ${chains.get(key) as string}` });
  }
}

/** Appends the rules of one endpoint's chain: mark packets that come from the endpoint itself, then translate. */
export function pushEndpoint(
  out: Rule[],
  route: Route,
  endpoint: Route['cluster'][number],
  chain: string,
  comments: boolean,
): void {
  const { name, protocol, affinitySeconds } = route.port;
  const said = comments ? `-m comment --comment ${name} ` : '';
  const remember = affinitySeconds > 0 ? `-m recent --name ${chain} --set ` : '';
  const proto = protocol.toLowerCase();
  out.push(
    { chain, args: `${said}-s ${endpoint.ip} -j ${markMasqChain}` },
    { chain, args: `${said}${remember}-m ${proto} -p ${proto} -j DNAT --to-destination ${endpoint.key}` },
  );
}

/** 1/n with 10 decimals, rounded half to even; 2048 is the only n where that differs from toFixed. */
export function probability(n: number): string {
  return n === 2048 ? '0.0004882812' : (1 / n).toFixed(10);
}
