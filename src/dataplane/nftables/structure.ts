/** Chains and sets in the kernel against those wanted: what is missing, what differs, what is not ours. */
import type { Batch } from '../../linux/netlink/nftables/batch.ts';
import { sameHook, sameRule, sameSet } from '../../linux/netlink/nftables/compare.ts';
import {
  chain,
  setFlags,
  tableFlags,
  type Chain,
  type NftSet,
  type Rule,
} from '../../linux/netlink/nftables/objects.ts';
import { isCounted } from '../../linux/netlink/nftables/setCounter.ts';
import type { NftSocket } from '../../linux/netlink/nftables/socket.ts';
import type { ChainWithRules, Layout, SetName } from './layout.ts';

export class Structure {
  readonly hasTable: boolean;
  /** Somebody switched the table off: nothing in it is in force. */
  readonly isDormant: boolean;
  readonly #chains = new Map<string, Chain>();
  readonly #rules = new Map<string, Rule[]>();
  readonly #sets = new Map<string, NftSet>();

  private constructor(
    hasTable: boolean,
    isDormant: boolean,
    chains: readonly Chain[],
    rules: readonly Rule[],
    sets: readonly NftSet[],
  ) {
    this.hasTable = hasTable;
    this.isDormant = isDormant;
    for (const one of chains) this.#chains.set(one.name, one);
    for (const one of sets) this.#sets.set(one.name, one);
    for (const rule of rules) {
      const list = this.#rules.get(rule.chain);
      if (list === undefined) this.#rules.set(rule.chain, [rule]);
      else list.push(rule);
    }
  }

  static read(nft: NftSocket, { table }: Layout): Structure {
    const actual = nft.getTable(table);
    if (actual === undefined) return Structure.none;
    const isDormant = ((actual.flags ?? 0) & tableFlags.dormant) !== 0;
    return new Structure(true, isDormant, nft.listChains(table), nft.listRules(table), nft.listSets(table));
  }

  static readonly none = new Structure(false, false, [], [], []);

  hasSet(name: SetName): boolean {
    return this.#sets.has(name);
  }

  /** A set of ours whose key, value or flags are not as they must be: it cannot be changed, only made anew. */
  unusableSet(layout: Layout): string | undefined {
    for (const [name, set] of layout.sets) {
      const actual = this.#sets.get(name);
      if (actual === undefined) continue;
      if (!sameSet(actual, set) || isCounted(actual) !== isCounted(set)) return name;
    }
    return undefined;
  }

  /** True if the chain is there with this hook and these rules. */
  has(wanted: ChainWithRules): boolean {
    const actual = this.#chains.get(wanted.chain.name);
    if (actual === undefined || !sameHook(actual, wanted.chain)) return false;
    const rules = this.#rules.get(wanted.chain.name) ?? [];
    return rules.length === wanted.rules.length && rules.every((one, i) => sameRule(one, wanted.rules[i]!));
  }

  /** Makes a chain what it must be, if it is not. */
  repair(wanted: ChainWithRules, batch: Batch): boolean {
    if (this.has(wanted)) return false;
    const actual = this.#chains.get(wanted.chain.name);
    if (actual !== undefined) {
      batch.flush(wanted.chain);
      if (!sameHook(actual, wanted.chain)) batch.delete(wanted.chain).add(wanted.chain);
    } else batch.add(wanted.chain);
    for (const rule of wanted.rules) batch.add(rule);
    return true;
  }

  /**
   * The chains and sets for which `keep` is false: first what takes their references away, in steps that may be
   * spread over several transactions, then the chains themselves.
   */
  removals(
    { table }: Layout,
    keep: (name: string) => boolean,
  ): { readonly references: readonly ((batch: Batch) => void)[]; readonly chains: readonly Chain[] } {
    const references: ((batch: Batch) => void)[] = [];
    const chains = [...this.#chains.keys()].filter((name) => !keep(name)).map((name) => chain(table, name));
    const sets = [...this.#sets.values()].filter((set) => {
      // Those without a name go with their rule.
      return (set.flags & setFlags.anonymous) === 0 && !keep(set.name);
    });
    for (const one of chains) references.push((batch) => batch.flush(one));
    for (const one of sets) references.push((batch) => batch.delete(one));
    return { references, chains };
  }
}
