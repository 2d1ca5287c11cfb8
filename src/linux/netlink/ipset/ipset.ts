/** The kernel's sets, over nfnetlink: one method for each command of `ipset`, entries by the hundred in one message. */
import { AF_INET } from '../conntrack-entry.ts';
import { ENOENT, EEXIST, NetlinkError, isRefusal } from '../errors.ts';
import { NFGENMSG_LENGTH, NLM_F_CREATE, NLM_F_EXCL, attributesOf, type MessageWriter } from '../message.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from '../socket.ts';
import {
  IPSET_ATTR_ADT,
  IPSET_ATTR_DATA,
  IPSET_ATTR_FAMILY,
  IPSET_ATTR_FLAGS,
  IPSET_ATTR_LINENO,
  IPSET_ATTR_PROTOCOL,
  IPSET_ATTR_REVISION,
  IPSET_ATTR_SETNAME,
  IPSET_ATTR_SETNAME2,
  IPSET_ATTR_TYPENAME,
  IPSET_CMD_ADD,
  IPSET_CMD_CREATE,
  IPSET_CMD_DEL,
  IPSET_CMD_DESTROY,
  IPSET_CMD_FLUSH,
  IPSET_CMD_LIST,
  IPSET_CMD_RENAME,
  IPSET_CMD_SWAP,
  IPSET_CMD_TYPE,
  IPSET_FLAG_LIST_HEADER,
  NLA_F_NET_BYTEORDER,
  familyNumberOf,
  readEntry,
  readListMessage,
  writeDefinition,
  writeEntry,
} from './codec.ts';
import {
  printDefinition,
  printEntry,
  setNameMax,
  type ListedSet,
  type SetDefinition,
  type SetEntry,
  type SetType,
} from './objects.ts';

const NFNL_SUBSYS_IPSET = 6;
/** Spoken by all kernels that still run anywhere (2.6.39 to now); the commands used here are the same in 7. */
const protocolVersion = 6;
/** Entries of the largest kind take some 100 bytes, an attribute at most 64 KiB. */
const entriesPerMessage = 400;

/** A set as listed, with its entries. */
export interface SetContent extends ListedSet {
  readonly entries: SetEntry[];
}

export class Ipset {
  readonly #socket = new NetlinkSocket({ protocol: NETLINK_NETFILTER });
  /** Revision by `TYPE FAMILY`. */
  readonly #revisions = new Map<string, number>();

  /**
   * The newest revision of a set type that the kernel has.
   * @throws NetlinkError if it has none (module ip_set_… is missing)
   */
  revision(set: SetDefinition): number {
    const family = familyNumberOf(set);
    const key = `${set.type} ${family}`;
    const known = this.#revisions.get(key);
    if (known !== undefined) return known;
    const writer = this.#begin(IPSET_CMD_TYPE, 0);
    writer.string(IPSET_ATTR_TYPENAME, set.type);
    writer.u8(IPSET_ATTR_FAMILY, family);
    let revision = 0;
    this.#request(`ipset type ${set.type}`, (reader) => {
      while (reader.next()) if (reader.type === IPSET_ATTR_REVISION) revision = reader.u8();
    });
    this.#revisions.set(key, revision);
    return revision;
  }

  /** Makes an empty set. False if a set of that name, type and family is there already (with whatever entries). */
  create(set: SetDefinition): boolean {
    if (set.name === '' || set.name.length > setNameMax)
      throw new RangeError(`ipset "${set.name}": a name has 1 to ${setNameMax} characters`);
    const revision = this.revision(set);
    const writer = this.#begin(IPSET_CMD_CREATE, NLM_F_CREATE | NLM_F_EXCL);
    writer.string(IPSET_ATTR_SETNAME, set.name);
    writer.string(IPSET_ATTR_TYPENAME, set.type);
    writer.u8(IPSET_ATTR_REVISION, revision);
    writer.u8(IPSET_ATTR_FAMILY, familyNumberOf(set));
    writeDefinition(writer, set);
    try {
      this.#request(`ipset ${printDefinition(set)}`);
      return true;
    } catch (error) {
      if (!isRefusal(error, EEXIST)) throw error;
    }
    const there = this.header(set.name);
    if (there !== undefined && sameKind(there.definition, set)) return false;
    throw new Error(
      `ipset ${printDefinition(set)}: a set of that name is there, of another type; remove it with "ipset destroy ${set.name}"`,
    );
  }

  /** False if it was not there. */
  destroy(name: string): boolean {
    this.#begin(IPSET_CMD_DESTROY, NLM_F_EXCL).string(IPSET_ATTR_SETNAME, name);
    return this.#unlessAbsent(`ipset destroy ${name}`);
  }

  /** Removes all entries. False if there is no such set. */
  flush(name: string): boolean {
    this.#begin(IPSET_CMD_FLUSH, NLM_F_EXCL).string(IPSET_ATTR_SETNAME, name);
    return this.#unlessAbsent(`ipset flush ${name}`);
  }

  rename(from: string, to: string): void {
    const writer = this.#begin(IPSET_CMD_RENAME, 0);
    writer.string(IPSET_ATTR_SETNAME, from);
    writer.string(IPSET_ATTR_SETNAME2, to);
    this.#request(`ipset rename ${from} ${to}`);
  }

  /** Exchanges the content of two sets of one type; rules go on using the names they name. */
  swap(one: string, other: string): void {
    const writer = this.#begin(IPSET_CMD_SWAP, 0);
    writer.string(IPSET_ATTR_SETNAME, one);
    writer.string(IPSET_ATTR_SETNAME2, other);
    this.#request(`ipset swap ${one} ${other}`);
  }

  /** Adds entries; those that are there already are passed over. An error names the entry; those before it are in. */
  add(name: string, type: SetType, entries: readonly SetEntry[]): void {
    this.#change(IPSET_CMD_ADD, 'add', name, type, entries);
  }

  /** Deletes entries; those that are not there are passed over. */
  delete(name: string, type: SetType, entries: readonly SetEntry[]): void {
    this.#change(IPSET_CMD_DEL, 'del', name, type, entries);
  }

  /** Definition and counts of one set; undefined if there is none, or one of a type that is not known here. */
  header(name: string): ListedSet | undefined {
    const writer = this.#begin(IPSET_CMD_LIST, 0);
    writer.string(IPSET_ATTR_SETNAME, name);
    writer.u32(IPSET_ATTR_FLAGS | NLA_F_NET_BYTEORDER, IPSET_FLAG_LIST_HEADER);
    return this.#list(`ipset list -t ${name}`).get(name);
  }

  /** One set with its entries; undefined as for `header`. */
  list(name: string): SetContent | undefined {
    this.#begin(IPSET_CMD_LIST, 0).string(IPSET_ATTR_SETNAME, name);
    return this.#list(`ipset list ${name}`).get(name);
  }

  /** Names of all sets, of whatever type. */
  names(): string[] {
    const writer = this.#begin(IPSET_CMD_LIST, 0);
    writer.u32(IPSET_ATTR_FLAGS | NLA_F_NET_BYTEORDER, IPSET_FLAG_LIST_HEADER);
    const names = new Set<string>();
    this.#list('ipset list -n', (name) => names.add(name));
    return [...names];
  }

  close(): void {
    this.#socket.close();
  }

  #change(command: number, verb: string, name: string, type: SetType, entries: readonly SetEntry[]): void {
    for (let at = 0; at < entries.length; at += entriesPerMessage) {
      const some = entries.slice(at, at + entriesPerMessage);
      this.#writeEntries(command, name, type, some);
      try {
        this.#request(`ipset ${verb} ${name} (${some.length} entries)`);
      } catch (error) {
        if (some.length === 1) throw this.#named(error, verb, name, type, some[0]!);
        // Once more, one at a time: which entry it is, and all others are to be done.
        this.#oneByOne(command, verb, name, type, some);
      }
    }
  }

  #oneByOne(command: number, verb: string, name: string, type: SetType, entries: readonly SetEntry[]): void {
    const errors: Error[] = [];
    for (const entry of entries) {
      this.#writeEntries(command, name, type, [entry]);
      try {
        this.#request(`ipset ${verb} ${name} ${printEntry(type, entry)}`);
      } catch (error) {
        errors.push(error as Error);
      }
    }
    if (errors.length === 1) throw errors[0]!;
    if (errors.length > 1)
      throw new AggregateError(errors, `${errors[0]!.message}; and ${errors.length - 1} more entries`);
  }

  #named(error: unknown, verb: string, name: string, type: SetType, entry: SetEntry): unknown {
    if (!(error instanceof NetlinkError)) return error;
    return new NetlinkError(`ipset ${verb} ${name} ${printEntry(type, entry)}`, error.acknowledgement);
  }

  #writeEntries(command: number, name: string, type: SetType, entries: readonly SetEntry[]): void {
    // Without NLM_F_EXCL, an entry that is there already (or, on deletion, is not) is no error.
    const writer = this.#begin(command, 0);
    writer.string(IPSET_ATTR_SETNAME, name);
    writer.hostU32(IPSET_ATTR_LINENO, 0);
    const list = writer.beginNested(IPSET_ATTR_ADT);
    for (const [line, entry] of entries.entries()) writeEntry(writer, type, entry, line + 1);
    writer.endNested(list);
  }

  #list(what: string, onName?: (name: string) => void): Map<string, SetContent> {
    let found = new Map<string, SetContent>();
    try {
      this.#socket.dump(
        what,
        (message) => {
          const { name, set, entries } = readListMessage(attributesOf(message, NFGENMSG_LENGTH));
          onName?.(name);
          if (set !== undefined && !found.has(name)) found.set(name, { ...set, entries: [] });
          const content = found.get(name);
          if (content === undefined || entries === undefined) return;
          while (entries.next()) {
            if (entries.type !== IPSET_ATTR_DATA) continue;
            const entry = readEntry(content.definition.type, entries.nested());
            if (entry !== undefined) content.entries.push(entry);
          }
        },
        () => {
          found = new Map();
        },
      );
    } catch (error) {
      if (isRefusal(error, ENOENT)) return new Map();
      throw explained(error);
    }
    return found;
  }

  #begin(command: number, flags: number): MessageWriter {
    const writer = this.#socket.begin((NFNL_SUBSYS_IPSET << 8) | command, flags);
    writer.nfgenmsg(AF_INET, 0, 0);
    writer.u8(IPSET_ATTR_PROTOCOL, protocolVersion);
    return writer;
  }

  #unlessAbsent(what: string): boolean {
    try {
      this.#request(what);
      return true;
    } catch (error) {
      if (isRefusal(error, ENOENT)) return false;
      throw error;
    }
  }

  #request(what: string, read?: (reader: ReturnType<typeof attributesOf>) => void): void {
    try {
      this.#socket.request(what, (message) => read?.(attributesOf(message, NFGENMSG_LENGTH)));
    } catch (error) {
      throw explained(error);
    }
  }
}

/** Of one type and family, or with room for all ports wanted. */
export function sameKind(there: SetDefinition, wanted: SetDefinition): boolean {
  if (there.type === 'bitmap:port')
    return (
      wanted.type === 'bitmap:port' &&
      there.firstPort <= wanted.firstPort &&
      there.lastPort >= wanted.lastPort
    );
  return there.type === wanted.type && there.family === wanted.family;
}

/** enum ipset_errno: what the kernel's numbers above errno's mean. */
const errors: Readonly<Record<number, string>> = {
  4097: 'the kernel speaks another version of the ipset protocol',
  4098: 'the kernel does not have this set type: its module ip_set_… is missing',
  4099: 'no more sets can be made',
  4100: 'the set is in use by a rule',
  4101: 'a set of the new name is there already',
  4102: 'the sets are of different types',
  4103: 'the entry is there already, or is missing',
  4104: 'the prefix length is out of range',
  4106: 'the address family does not fit',
  4109: 'the set is in use by a rule or another set',
  4110: 'an IPv4 address is needed',
  4111: 'an IPv6 address is needed',
  4352: 'the set is full',
};

/** The set (or set type) is in use and cannot go. */
export function isSetInUse(error: unknown): boolean {
  return isRefusal(error, 4100, 4109, 16);
}

function explained(error: unknown): unknown {
  if (!(error instanceof NetlinkError)) return error;
  const { errno, offset } = error.acknowledgement;
  const text = errors[errno];
  if (text === undefined || error.acknowledgement.text !== '') return error;
  // 4352 and above are the set type's own: for all hash types the first one means full.
  return new NetlinkError(error.request, { errno, text, offset });
}
