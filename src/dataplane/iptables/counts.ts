/**
 * iptables mode: every rule has a counter anyway. Rules of table nat see first packets only, so the count of an
 * endpoint's DNAT rule is its new connections, and nothing is paid for established ones.
 */
import type { Iptables } from '../../linux/iptables/iptables.ts';
import type { Route, RoutingTable, ServicePortId } from '../../services/types.ts';
import { countedRule, refused, type CounterSource, type Meaning, type Reading } from '../counts.ts';
import {
  endpointChain,
  externalServicesChain,
  firewallChain,
  postroutingChain,
  proxyFirewallChain,
  servicesChain,
} from './names.ts';

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
  readonly #emptied: ReadonlySet<string>;
  #table = '';

  /** @param emptied chains (`TABLE CHAIN`) whose rules were written anew since the reading before */
  constructor(table: RoutingTable, emptied: ReadonlySet<string> = new Set()) {
    this.#emptied = emptied;
    for (const route of table.routes.values())
      for (const [chain, owner] of endpointChainsOf(route)) this.#owners.set(chain, owner);
  }

  line(line: string): void {
    if (line.startsWith('*')) {
      this.#table = line.slice(1).trimEnd();
      return;
    }
    const counted = countedRule(line);
    if (counted === undefined) return;
    const { rule, packets } = counted;
    const space = rule.indexOf(' ');
    if (space < 0) return;
    const chain = rule.slice(0, space);
    const meaning = this.#meaning(chain, rule);
    if (meaning === undefined) return;
    const fresh = this.#emptied.has(`${this.#table} ${chain}`);
    this.readings.push({ rule: `${this.#table} ${rule}`, meaning, packets, fresh });
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
  const target = / -j (REJECT|DROP)\b/.exec(rule)?.[1];
  if (target === undefined) return undefined;
  const verdict = target === 'REJECT' ? 'reject' : 'drop';
  if (chain === firewallChain) return rule.includes('127.0.0.0/8') ? refused('localnet', verdict) : undefined;
  if (chain !== servicesChain && chain !== externalServicesChain && chain !== proxyFirewallChain)
    return undefined;
  const said = /--comment "([^" ]+) (has no endpoints|has no local endpoints|traffic not accepted)/.exec(
    rule,
  );
  const protocol = / -p (\w+)/.exec(rule)?.[1]?.toUpperCase();
  if (said === null || protocol === undefined) return undefined;
  const [, name = '', why = ''] = said;
  const id = `${name.includes(':') ? name : `${name}:`}/${protocol}`;
  if (why === 'has no endpoints') return refused('no_endpoints', verdict, id);
  return refused(why === 'has no local endpoints' ? 'no_local_endpoints' : 'source_range', verdict, id);
}

/** Remembered while nobody reads; beyond it, less packets than before still tell that a rule began anew. */
const emptiedMax = 20_000;

export class IptablesCounts implements CounterSource {
  readonly name = 'iptables';
  readonly notes: readonly string[] = [];
  readonly #iptables: () => Pick<Iptables, 'saveCounted'> | undefined;
  /** Chains (`TABLE CHAIN`) that were emptied since the last reading. */
  #emptied = new Set<string>();
  /** Those that a document on its way to the kernel empties: they may be already. */
  #emptying: readonly string[] = [];

  /** @param iptables undefined before the start, and nothing is counted */
  constructor(iptables: () => Pick<Iptables, 'saveCounted'> | undefined) {
    this.#iptables = iptables;
  }

  /** Runs `write`, which gives the document to the kernel: rules of the chains that it declares begin at 0. */
  async writing(document: string | Iterable<string>, write: () => Promise<void>): Promise<void> {
    // What is streamed makes new chains.
    const chains = typeof document === 'string' ? declaredChains(document) : [];
    this.#emptying = chains;
    try {
      await write();
    } finally {
      this.#emptying = [];
    }
    if (this.#emptied.size > emptiedMax) this.#emptied.clear();
    for (const chain of chains) this.#emptied.add(chain);
  }

  async read(table: RoutingTable): Promise<Reading[]> {
    const emptied = this.#emptied;
    this.#emptied = new Set();
    const reader = new IptablesCounterReader(table, emptied);
    try {
      for (const name of ['nat', 'filter'] as const)
        await this.#iptables()?.saveCounted(name, (line) => reader.line(line));
    } catch (error) {
      // Nobody has heard of them yet.
      for (const chain of emptied) this.#emptied.add(chain);
      throw error;
    }
    const unsure = new Set([...this.#emptied, ...this.#emptying]);
    if (unsure.size === 0) return reader.readings;
    for (const chain of unsure) if (emptied.has(chain)) this.#emptied.add(chain);
    return reader.readings.map((reading) =>
      unsure.has(chainOf(reading)) ? { ...reading, unsure: true } : reading,
    );
  }
}

/** As `TABLE CHAIN`. */
function declaredChains(document: string): string[] {
  const chains: string[] = [];
  let table = '';
  for (const [, sign, name = ''] of document.matchAll(/^([*:])(\S+)/gm)) {
    if (sign === '*') table = name;
    else chains.push(`${table} ${name}`);
  }
  return chains;
}

/** Of `TABLE CHAIN RULE`, the first two. */
function chainOf({ rule }: Reading): string {
  return rule.slice(0, rule.indexOf(' ', rule.indexOf(' ') + 1));
}
