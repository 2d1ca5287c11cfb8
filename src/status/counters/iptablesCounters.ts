/**
 * iptables mode: every rule has a counter anyway. Rules of table nat see first packets only, so the count of an
 * endpoint's DNAT rule is its new connections, and nothing is paid for established ones.
 */
import type { Family } from '../../api/objects.ts';
import {
  endpointChain,
  externalServicesChain,
  firewallChain,
  postroutingChain,
  proxyFirewallChain,
  servicesChain,
} from '../../dataplane/iptables/names.ts';
import { run } from '../../linux/exec.ts';
import type { Route, RoutingTable, ServicePortId } from '../../services/types.ts';
import type { RefusalReason } from '../documents.ts';
import type { Meaning, Reading } from './accumulate.ts';
import type { CounterSource } from './source.ts';

interface ChainOwner {
  readonly id: ServicePortId;
  readonly endpoint: string;
}

type Chains = readonly (readonly [chain: string, owner: ChainOwner])[];

/** Names are hashes: made once for each route, for as long as the route lives. */
const chainsOf = new WeakMap<Route, Chains>();

function endpointChainsOf(route: Route): Chains {
  let chains = chainsOf.get(route);
  if (chains === undefined) {
    const { name, protocol, id } = route.port;
    chains = route.reachable.map(({ key }) => [endpointChain(name, protocol, key), { id, endpoint: key }]);
    chainsOf.set(route, chains);
  }
  return chains;
}

/** The rules of interest among the lines of `iptables-save -c`; pure. */
export class IptablesCounterReader {
  readonly readings: Reading[] = [];
  readonly #owners = new Map<string, ChainOwner>();
  #table = '';

  constructor(table: RoutingTable) {
    for (const route of table.routes.values())
      for (const [chain, owner] of endpointChainsOf(route)) this.#owners.set(chain, owner);
  }

  line(line: string): void {
    if (line.startsWith('*')) {
      this.#table = line.slice(1).trimEnd();
      return;
    }
    // [packets:bytes] -A CHAIN …
    if (!line.startsWith('[')) return;
    const end = line.indexOf('] -A ');
    if (end < 0) return;
    const rule = line.slice(end + 5);
    const space = rule.indexOf(' ');
    if (space < 0) return;
    const meaning = this.#meaning(rule.slice(0, space), rule);
    if (meaning === undefined) return;
    const packets = Number(line.slice(1, line.indexOf(':')));
    this.readings.push({ rule: `${this.#table} ${rule}`, meaning, packets });
  }

  #meaning(chain: string, rule: string): Meaning | undefined {
    if (this.#table === 'filter') return refusal(chain, rule);
    if (chain.startsWith('KUBE-SEP-')) {
      if (!rule.includes('-j DNAT')) return undefined;
      const owner = this.#owners.get(chain);
      return owner === undefined ? undefined : { kind: 'endpoint', ...owner };
    }
    if (chain.startsWith('KUBE-SV')) {
      if (!rule.includes('--rcheck')) return undefined;
      const owner = this.#owners.get(rule.slice(rule.lastIndexOf(' ') + 1));
      return owner === undefined ? undefined : { kind: 'affinity', id: owner.id };
    }
    if (chain === postroutingChain && rule.includes('-j MASQUERADE')) return { kind: 'masqueraded' };
    return undefined;
  }
}

function refusal(chain: string, rule: string): Meaning | undefined {
  const verdict = / -j (REJECT|DROP)\b/.exec(rule)?.[1] === 'REJECT' ? 'reject' : 'drop';
  if (!/ -j (?:REJECT|DROP)\b/.test(rule)) return undefined;
  const refused = (reason: RefusalReason, id?: ServicePortId): Meaning => ({
    kind: 'refused',
    reason,
    verdict,
    id,
  });
  if (chain === firewallChain) return rule.includes('127.0.0.0/8') ? refused('localnet') : undefined;
  if (chain !== servicesChain && chain !== externalServicesChain && chain !== proxyFirewallChain)
    return undefined;
  const said = /--comment "([^" ]+) (has no endpoints|has no local endpoints|traffic not accepted)/.exec(
    rule,
  );
  const protocol = / -p (\w+)/.exec(rule)?.[1]?.toUpperCase();
  if (said === null || protocol === undefined) return undefined;
  const [, name = '', why = ''] = said;
  const id = `${name.includes(':') ? name : `${name}:`}/${protocol}`;
  if (why === 'has no endpoints') return refused('no_endpoints', id);
  return refused(why === 'has no local endpoints' ? 'no_local_endpoints' : 'source_range', id);
}

export function iptablesCounters(family: Family): CounterSource {
  const program = family === 'IPv6' ? 'ip6tables-save' : 'iptables-save';
  return {
    name: 'iptables',
    notes: [],
    async read(table) {
      const reader = new IptablesCounterReader(table);
      for (const name of ['nat', 'filter']) {
        const { code, stderr } = await run([program, '-c', '-t', name], {
          onLine: (line) => reader.line(line),
        });
        if (code !== 0)
          throw new Error(`${program} -c -t ${name} ended with ${code}: ${stderr.trim() || 'no message'}`);
      }
      return reader.readings;
    },
  };
}
