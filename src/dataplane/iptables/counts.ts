/**
 * iptables mode: every rule has a counter anyway. Rules of table nat see first packets only, so the count of an
 * endpoint's DNAT rule is its new connections, and nothing is paid for established ones.
 *
 * Here: counters as iptables-save prints them, for legacy iptables. Rules in nf_tables are read in nftCounts.ts.
 */
import type { Iptables } from '../../linux/iptables/iptables.ts';
import type { ChangeSet, RoutingTable } from '../../services/types.ts';
import { countedRule, type CounterSource, type Meaning, type Reading } from '../counts.ts';
import { ownedChains, refusalOf, type ChainOwner } from './counterMeaning.ts';
import { postroutingChain } from './names.ts';

/** The counters of the mode, and what they have to be told. */
export interface RuleCounts extends CounterSource {
  /** A sync begins: rules of these are about to be replaced. */
  changing(changes: ChangeSet, table: RoutingTable): void;
  /** Runs `write`, which gives the document to the kernel. */
  writing(document: string | Iterable<string>, write: () => Promise<void>): Promise<void>;
  /** The sync was good. */
  changed(): void;
  /** Idempotent. */
  close(): void;
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
      for (const [chain, owner] of ownedChains(route)) this.#owners.set(chain, owner);
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
  const comment = /--comment (?:"([^"]*)"|(\S+))/.exec(rule);
  const protocol = / -p (\w+)/.exec(rule)?.[1]?.toUpperCase() ?? '';
  const verdict = target === 'REJECT' ? 'reject' : 'drop';
  return refusalOf(chain, verdict, comment?.[1] ?? comment?.[2] ?? '', protocol);
}

/** Remembered while nobody reads; beyond it, less packets than before still tell that a rule began anew. */
const emptiedMax = 20_000;

export class IptablesCounts implements RuleCounts {
  readonly name = 'iptables';
  readonly notes = ['With legacy iptables, what a replaced rule counted since the last reading is lost.'];
  readonly #iptables: () => Pick<Iptables, 'saveCounted'> | undefined;
  /** Chains (`TABLE CHAIN`) that were emptied since the last reading. */
  #emptied = new Set<string>();
  /** Those that a document on its way to the kernel empties: they may be already. */
  #emptying: readonly string[] = [];

  /** @param iptables undefined before the start, and nothing is counted */
  constructor(iptables: () => Pick<Iptables, 'saveCounted'> | undefined) {
    this.#iptables = iptables;
  }

  changing(): void {
    // What counts is what the kernel is given.
  }

  changed(): void {
    // As above.
  }

  close(): void {
    // Nothing is open.
  }

  /** Rules of the chains that the document declares begin at 0. */
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
