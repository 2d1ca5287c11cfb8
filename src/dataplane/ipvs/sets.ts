/** The sets of one family in the kernel, by their IPv4 names, with entries as text. */
import type { Family } from '../../api/objects.ts';
import { EPERM, isRefusal } from '../../linux/netlink/errors.ts';
import { Ipset, isSetInUse, sameKind } from '../../linux/netlink/ipset/ipset.ts';
import {
  parseEntry,
  printEntry,
  type ListedSet,
  type SetDefinition,
  type SetEntry,
} from '../../linux/netlink/ipset/objects.ts';
import { modulePackages } from './checks.ts';
import { maxElements, setDefinition, setIds, setName, setTypeOf, type SetId } from './names.ts';

/** A set of one of our names is of another type, and rules refer to it. */
export class SetInTheWay extends Error {
  override readonly name = 'SetInTheWay';
  readonly set: string;

  constructor(set: string, options?: ErrorOptions) {
    super(`set ${set} is of another type or has other options than wanted, and rules refer to it`, options);
    this.set = set;
  }
}

export class Sets {
  readonly #ipset = new Ipset();
  readonly #family: Family;
  /** Entries that fit. */
  readonly #room = new Map<SetId, number>();

  constructor(family: Family) {
    this.#family = family;
  }

  /** Throws a sentence if a set type is missing in the kernel. */
  probe(): void {
    for (const id of setIds) {
      const type = setTypeOf(id);
      try {
        this.#ipset.revision(setDefinition(id, this.#family));
      } catch (error) {
        if (isRefusal(error, EPERM)) throw error;
        const module = `ip_set_${type.replace(/,/g, '').replace(':', '_')}`;
        throw new Error(
          `the kernel has no sets of type ${type} for ${this.#family}, which IPVS mode needs: load module ${module} ("modprobe ${module}"; ${modulePackages})`,
          { cause: error },
        );
      }
    }
  }

  /**
   * Makes the set if it is missing; one of another type, or one that alters its entries, is removed first. Throws
   * SetInTheWay if rules use that.
   */
  ensure(id: SetId): void {
    const definition = setDefinition(id, this.#family);
    const { name } = definition;
    const there = this.#ipset.header(name);
    if (there !== undefined && !fits(there, definition)) this.#clear(name);
    try {
      this.#ipset.create(definition);
    } catch (error) {
      // A type that is not known here: it has no header we can read.
      if (!(error instanceof Error) || !error.message.includes('of another type')) throw error;
      this.#clear(name);
      this.#ipset.create(definition);
    }
    const now = this.#ipset.header(name);
    if (now !== undefined && now.definition.type !== 'bitmap:port')
      this.#room.set(id, now.definition.maxElements);
  }

  #clear(name: string): void {
    try {
      this.#ipset.destroy(name);
    } catch (error) {
      if (!isSetInUse(error)) throw error;
      throw new SetInTheWay(name, { cause: error });
    }
  }

  /** Entries of a set; undefined if it is missing. */
  read(id: SetId): Set<string> | undefined {
    const type = setTypeOf(id);
    const content = this.#ipset.list(setName(id, this.#family));
    if (content === undefined || content.definition.type !== type) return undefined;
    return new Set(content.entries.map((entry) => printEntry(type, entry)));
  }

  /** `have`: how many entries there are already. */
  add(id: SetId, texts: readonly string[], have: () => Iterable<string>, size: number): void {
    const room = this.#room.get(id) ?? Number.POSITIVE_INFINITY;
    if (size + texts.length > room) this.#grow(id, size + texts.length, have());
    this.#ipset.add(setName(id, this.#family), setTypeOf(id), entriesOf(id, texts));
  }

  delete(id: SetId, texts: readonly string[]): void {
    this.#ipset.delete(setName(id, this.#family), setTypeOf(id), entriesOf(id, texts));
  }

  /** A larger set is filled aside and takes the place of the full one in one step: rules go on matching. */
  #grow(id: SetId, wanted: number, have: Iterable<string>): void {
    let room = maxElements;
    while (room < wanted) room *= 2;
    const definition = setDefinition(id, this.#family, room);
    const spare = { ...definition, name: this.#spareName };
    this.#ipset.destroy(spare.name);
    this.#ipset.create(spare);
    this.#ipset.add(spare.name, spare.type, entriesOf(id, have));
    this.#ipset.swap(spare.name, definition.name);
    this.#ipset.destroy(spare.name);
    this.#room.set(id, room);
  }

  get #spareName(): string {
    return this.#family === 'IPv6' ? 'KUBE-6-GROWING' : 'KUBE-GROWING';
  }

  /** Names of those that were removed. */
  destroyAll(): string[] {
    const removed: string[] = [];
    // Left behind by a process that ended while it filled one.
    if (this.#ipset.destroy(this.#spareName)) removed.push(this.#spareName);
    for (const id of setIds) {
      const name = setName(id, this.#family);
      if (this.#ipset.destroy(name)) removed.push(name);
    }
    return removed;
  }

  close(): void {
    this.#ipset.close();
  }
}

function fits({ definition, altersEntries }: ListedSet, wanted: SetDefinition): boolean {
  return !altersEntries && sameKind(definition, wanted);
}

function entriesOf(id: SetId, texts: Iterable<string>): SetEntry[] {
  const type = setTypeOf(id);
  const entries: SetEntry[] = [];
  for (const text of texts) {
    const entry = parseEntry(type, text);
    if (entry === undefined) throw new Error(`"${text}" is no entry of set ${id}`);
    entries.push(entry);
  }
  return entries;
}
