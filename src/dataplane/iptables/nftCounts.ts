/**
 * iptables mode in nf_tables: the counters of its rules, asked from the kernel itself and not by way of
 * iptables-save, which prints nothing of a table with a rule that only nft can print.
 *
 * A rule that is removed takes its counter along. With --service-counters, the kernel's announcements of removed rules
 * are listened to: each has what the rule had counted at last. The number of a rule is never used again, so a last
 * word and a reading cannot be mistaken for each other, whichever comes first.
 */
import type { Family, Protocol } from '../../api/objects.ts';
import type { Message } from '../../linux/netlink/message.ts';
import { messageTypes, NFNL_SUBSYS_NFTABLES } from '../../linux/netlink/nftables/batch.ts';
import { familyNumber } from '../../linux/netlink/nftables/objects.ts';
import { nftablesEvents } from '../../linux/netlink/nftables/socket.ts';
import { NETLINK_NETFILTER, NetlinkSocket, type NetlinkSocketOptions } from '../../linux/netlink/socket.ts';
import type { ChangeSet, Route, RoutingTable } from '../../services/types.ts';
import type { Meaning, Reading } from '../counts.ts';
import { countingChain, ownedChains, refusalOf, type ChainOwner } from './counterMeaning.ts';
import { Turns } from '../turns.ts';
import type { RuleCounts } from './counts.ts';
import {
  externalServicesChain,
  firewallChain,
  postroutingChain,
  proxyFirewallChain,
  serviceHash,
  servicesChain,
} from './names.ts';
import { readNftRule, RULE_CHAIN, RULE_TABLE, type NftRule } from './nftRule.ts';

const deletedRule = (NFNL_SUBSYS_NFTABLES << 8) | messageTypes.deleteRule;
const sharedChains = [
  ['nat', postroutingChain],
  ['filter', servicesChain],
  ['filter', externalServicesChain],
  ['filter', proxyFirewallChain],
  ['filter', firewallChain],
] as const;
const nobody = (): undefined => undefined;
/** Kept at most while nobody reads; then the older half is lost. */
const lastWordsMax = 20_000;
const protocols: Readonly<Record<number, Protocol>> = { 6: 'TCP', 17: 'UDP', 132: 'SCTP' };

export interface NftCountsOptions {
  readonly family: Family;
  /** Removed rules are listened to from the first sync on. */
  readonly lastWords: boolean;
  /** Opens a netlink socket in the network namespace of the rules. */
  readonly open?: (options: NetlinkSocketOptions) => NetlinkSocket;
}

export class NftCounts implements RuleCounts {
  readonly name = 'iptables';
  readonly notes: readonly string[] = [];
  /** A list of rules that change while it is made may lack some. */
  readonly mayMiss = true;
  readonly #options: NftCountsOptions;
  readonly #open: (options: NetlinkSocketOptions) => NetlinkSocket;
  readonly #family: 'ip' | 'ip6';
  #events: NetlinkSocket | undefined;
  /** Routes whose rules a sync under way replaces, as they were. */
  #replaced: Route[] = [];
  /** As the rules are, or are about to be: of rules that a full sync writes anew, or that somebody else removes. */
  #table: RoutingTable | undefined;
  /** Chains of their endpoints; undefined until a rule that goes has counted something. */
  #ownersOfReplaced: Map<string, ChainOwner> | undefined;
  #ownersOfTable: Map<string, ChainOwner> | undefined;
  #lastWords: Reading[] = [];
  #closed = false;

  constructor(options: NftCountsOptions) {
    this.#options = options;
    this.#open = options.open ?? ((socket) => new NetlinkSocket(socket));
    this.#family = options.family === 'IPv6' ? 'ip6' : 'ip';
  }

  changing({ changes }: ChangeSet, table: RoutingTable): void {
    this.#table = table;
    this.#forgetOwners();
    if (this.#events === undefined) return;
    for (const { before } of changes) if (before !== undefined) this.#replaced.push(before);
  }

  async writing(_document: string | Iterable<string>, write: () => Promise<void>): Promise<void> {
    await write();
  }

  /** What the sync removed has been announced by now. */
  changed(): void {
    if (!this.#options.lastWords || this.#closed) return;
    if (this.#events === undefined) return this.#listen();
    this.#hear();
    this.#replaced = [];
    this.#forgetOwners();
  }

  async read(table: RoutingTable): Promise<Reading[]> {
    const readings: Reading[] = [];
    const socket = this.#open({ protocol: NETLINK_NETFILTER });
    try {
      await this.#readRoutes(socket, this.#replaced, readings);
      await this.#readRoutes(socket, table.routes.values(), readings);
      for (const [name, chain] of sharedChains) await this.#readShared(socket, name, chain, readings);
    } finally {
      socket.close();
    }
    this.#hear();
    this.#forgetOwners();
    for (const word of this.#lastWords) readings.push(word);
    this.#lastWords = [];
    return readings;
  }

  close(): void {
    this.#closed = true;
    this.#events?.close();
    this.#events = undefined;
  }

  /**
   * Chain by chain: a list of all rules of a table the kernel gives in pieces, and begins to count at the first rule
   * for each.
   */
  async #readRoutes(socket: NetlinkSocket, routes: Iterable<Route>, readings: Reading[]): Promise<void> {
    const turns = new Turns();
    for (const route of routes) {
      const { name, protocol, affinitySeconds, id } = route.port;
      for (const [chain, owner] of ownedChains(route)) {
        this.#readChain(socket, chain, (rule) => {
          if (rule.target === 'DNAT') readings.push(readingOf(rule, { kind: 'endpoint', ...owner }));
        });
        await turns.pause();
      }
      if (affinitySeconds === 0) continue;
      const hash = serviceHash(name, protocol);
      for (const chain of [`KUBE-SVC-${hash}`, `KUBE-SVL-${hash}`])
        this.#readChain(socket, chain, (rule) => {
          if (rule.recent && rule.jump !== '') readings.push(readingOf(rule, { kind: 'affinity', id }));
        });
    }
  }

  #readChain(socket: NetlinkSocket, chain: string, take: (rule: NftRule) => void): void {
    this.#ask(socket, 'nat', chain);
    socket.dump('list rules of a chain', (message) => takeRule(message, take), nobody);
  }

  /** Of all Services: there may be many rules. */
  async #readShared(
    socket: NetlinkSocket,
    table: 'nat' | 'filter',
    chain: string,
    readings: Reading[],
  ): Promise<void> {
    this.#ask(socket, table, chain);
    // A list that was begun anew says the same again, with numbers that are no smaller.
    await socket.dumpInPieces(
      `list rules of ${chain}`,
      (message) =>
        takeRule(message, (rule) => {
          const meaning = meaningOf(rule, nobody);
          if (meaning !== undefined) readings.push(readingOf(rule, meaning));
        }),
      nobody,
    );
  }

  #ask(socket: NetlinkSocket, table: 'nat' | 'filter', chain: string): void {
    const writer = socket.begin((NFNL_SUBSYS_NFTABLES << 8) | messageTypes.getRule);
    writer.nfgenmsg(familyNumber(this.#family), 0, 0);
    writer.string(RULE_TABLE, table);
    writer.string(RULE_CHAIN, chain);
  }

  #listen(): void {
    let events: NetlinkSocket;
    try {
      events = this.#open({ protocol: NETLINK_NETFILTER, groups: nftablesEvents, receiveBuffer: 16 << 20 });
    } catch {
      // Rules are in force, which is what matters; the next sync tries again.
      return;
    }
    this.#events = events;
    // What is lost is a last word.
    events.subscribe(
      (message) => this.#take(message),
      () => undefined,
    );
  }

  #hear(): void {
    this.#events?.drain('read nftables events', (message) => this.#take(message));
  }

  #take(message: Message): void {
    if (message.type !== deletedRule || message.bytes[message.start] !== familyNumber(this.#family)) return;
    const rule = readNftRule(message, countingChain);
    if (rule === undefined || rule.packets === 0) return;
    const meaning = meaningOf(rule, this.#ownerOf);
    if (meaning === undefined) return;
    this.#lastWords.push({ ...readingOf(rule, meaning), last: true });
    if (this.#lastWords.length > lastWordsMax) this.#lastWords.splice(0, lastWordsMax / 2);
  }

  readonly #ownerOf = (chain: string): ChainOwner | undefined => {
    this.#ownersOfReplaced ??= ownersIn(this.#replaced);
    const owner = this.#ownersOfReplaced.get(chain);
    if (owner !== undefined || this.#table === undefined) return owner;
    this.#ownersOfTable ??= ownersIn(this.#table.routes.values());
    return this.#ownersOfTable.get(chain);
  };

  #forgetOwners(): void {
    this.#ownersOfReplaced = undefined;
    this.#ownersOfTable = undefined;
  }
}

function ownersIn(routes: Iterable<Route>): Map<string, ChainOwner> {
  const owners = new Map<string, ChainOwner>();
  for (const route of routes) for (const [chain, owner] of ownedChains(route)) owners.set(chain, owner);
  return owners;
}

function takeRule(message: Message, take: (rule: NftRule) => void): void {
  const rule = readNftRule(message, countingChain);
  if (rule !== undefined) take(rule);
}

function readingOf({ table, handle, packets }: NftRule, meaning: Meaning): Reading {
  return { rule: `${table} ${handle}`, meaning, packets };
}

function meaningOf(rule: NftRule, ownerOf: (chain: string) => ChainOwner | undefined): Meaning | undefined {
  const { table, chain, target, jump, comment } = rule;
  if (table === 'filter') {
    if (target !== 'REJECT' && target !== 'DROP') return undefined;
    const verdict = target === 'REJECT' ? 'reject' : 'drop';
    return refusalOf(chain, verdict, comment, protocols[rule.protocol] ?? '');
  }
  if (chain === postroutingChain) return target === 'MASQUERADE' ? { kind: 'masqueraded' } : undefined;
  if (target === 'DNAT') {
    const owner = ownerOf(chain);
    return owner === undefined ? undefined : { kind: 'endpoint', ...owner };
  }
  if (!rule.recent || jump === '') return undefined;
  const owner = ownerOf(jump);
  return owner === undefined ? undefined : { kind: 'affinity', id: owner.id };
}
