/** What a rule's counter says, by the chain that the rule is in and the rule's comment. Pure. */
import type { Route, ServicePortId } from '../../services/types.ts';
import { refused, type Meaning } from '../counts.ts';
import {
  endpointChain,
  externalServicesChain,
  firewallChain,
  postroutingChain,
  proxyFirewallChain,
  servicesChain,
} from './names.ts';
import { localnetComment } from './staticRules.ts';

/** Whom an endpoint's chain is there for. */
export interface ChainOwner {
  readonly id: ServicePortId;
  readonly endpoint: string;
}

type Chains = readonly (readonly [chain: string, owner: ChainOwner])[];

/** Names are hashes: made once for each route, for as long as the route lives. */
const chainsOf = new WeakMap<Route, Chains>();

/** The chains of the route's endpoints. */
export function ownedChains(route: Route): Chains {
  let chains = chainsOf.get(route);
  if (chains === undefined) {
    const { name, protocol, id } = route.port;
    chains = route.reachable.map(({ key }) => [endpointChain(name, protocol, key), { id, endpoint: key }]);
    chainsOf.set(route, chains);
  }
  return chains;
}

const refusing: ReadonlySet<string> = new Set([servicesChain, externalServicesChain, proxyFirewallChain]);

/**
 * What a rule of table filter counts that rejects or drops; undefined = nothing of interest.
 * @param protocol as a service port has it: `TCP`
 */
export function refusalOf(
  chain: string,
  verdict: 'reject' | 'drop',
  comment: string,
  protocol: string,
): Meaning | undefined {
  if (chain === firewallChain) return comment === localnetComment ? refused('localnet', verdict) : undefined;
  if (!refusing.has(chain) || protocol === '') return undefined;
  const said = /^(\S+) (has no endpoints|has no local endpoints|traffic not accepted)/.exec(comment);
  if (said === null) return undefined;
  const [, name = '', why = ''] = said;
  const id = `${name.includes(':') ? name : `${name}:`}/${protocol}`;
  if (why === 'has no endpoints') return refused('no_endpoints', verdict, id);
  return refused(why === 'has no local endpoints' ? 'no_local_endpoints' : 'source_range', verdict, id);
}

/** Some rule of the chain may count what is of interest. */
export function countingChain(table: string, chain: string): boolean {
  if (table === 'filter') return chain === firewallChain || refusing.has(chain);
  return (
    table === 'nat' &&
    (chain.startsWith('KUBE-SEP-') || chain.startsWith('KUBE-SV') || chain === postroutingChain)
  );
}
