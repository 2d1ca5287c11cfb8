/** The kernel's connection table: list with a kernel-side filter, delete many entries at once, create (for tests). */
import { addressBytes } from '../address-bytes.ts';
import {
  AF_INET,
  AF_INET6,
  readEntry,
  writeEntry,
  writeEntryIdentity,
  type ConntrackEntry,
} from './conntrack-entry.ts';
import { EINVAL, ENOENT, EOPNOTSUPP, NetlinkError, isRefusal, readAcknowledgement } from './errors.ts';
import {
  type MessageWriter,
  NLMSG_ERROR,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REQUEST,
  type Message,
} from './message.ts';
import { NETLINK_NETFILTER, NetlinkSocket, type DumpResult } from './socket.ts';

const NFNL_SUBSYS_CTNETLINK = 1;
const IPCTNL_MSG_CT_NEW = (NFNL_SUBSYS_CTNETLINK << 8) | 0;
const IPCTNL_MSG_CT_GET = (NFNL_SUBSYS_CTNETLINK << 8) | 1;
const IPCTNL_MSG_CT_DELETE = (NFNL_SUBSYS_CTNETLINK << 8) | 2;

const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_IP_V4_DST = 2;
const CTA_PROTO_NUM = 1;
const CTA_PROTO_DST_PORT = 3;
/** Since 5.8 a dump is filtered by it in the kernel; older kernels do not see it and give everything. */
const CTA_FILTER = 25;
const CTA_FILTER_ORIG_FLAGS = 1;
const CTA_FILTER_REPLY_FLAGS = 2;
/** Which fields of the tuple must match. */
const FILTER_IP_DST = 1 << 1;
const FILTER_PROTO_NUM = 1 << 3;
const FILTER_PROTO_DST_PORT = 1 << 5;

/** Requests of one batch; small enough for the default socket buffers together with their errors. */
const batchSize = 256;

/**
 * Which entries to list: by the original direction only, because kernels exist that read a filter on the reply
 * direction with the flags of the original one.
 */
export interface EntryFilter {
  /** IP protocol number. */
  readonly protocol: number;
  readonly destination?: string;
  readonly destinationPort?: number;
}

/** A socket to the connection table of the network namespace it was opened in. */
export class ConntrackTable {
  readonly #socket = new NetlinkSocket({ protocol: NETLINK_NETFILTER, receiveBuffer: 1 << 20 });
  /** Becomes false on a kernel that refuses CTA_FILTER. */
  #filtering = true;
  #sequence = 0x40000000;

  /**
   * Gives every entry of the family that matches the filter to `onEntry`, the event loop free in between.
   * An interrupted dump starts again (at most five times in all) after `onRestart`.
   */
  async list(
    family: 'IPv4' | 'IPv6',
    filter: EntryFilter,
    onEntry: (entry: ConntrackEntry) => void,
    onRestart: () => void,
  ): Promise<DumpResult> {
    const onMessage = (message: Message): void => {
      const entry = readEntry(message);
      if (entry !== undefined && matches(entry, filter)) onEntry(entry);
    };
    const what = `list conntrack entries of ${family}`;
    if (this.#filtering) {
      try {
        this.#beginList(family, filter);
        return await this.#socket.dumpInPieces(what, onMessage, onRestart);
      } catch (error) {
        if (!isRefusal(error, EINVAL, EOPNOTSUPP)) throw error;
        this.#filtering = false;
        onRestart();
      }
    }
    this.#beginList(family, undefined);
    return await this.#socket.dumpInPieces(what, onMessage, onRestart);
  }

  /** All entries of the family, in one go: for tests and small tables. */
  listAll(family: 'IPv4' | 'IPv6'): ConntrackEntry[] {
    this.#beginList(family, undefined);
    let entries: ConntrackEntry[] = [];
    this.#socket.dump(
      `list conntrack entries of ${family}`,
      (message) => {
        const entry = readEntry(message);
        if (entry !== undefined) entries.push(entry);
      },
      () => {
        entries = [];
      },
    );
    return entries;
  }

  /**
   * Deletes exactly these entries, many in one send; one that is gone already is no error.
   * @returns how many were deleted
   */
  delete(entries: readonly ConntrackEntry[]): number {
    return this.#batch(entries, 'delete conntrack entry', IPCTNL_MSG_CT_DELETE, 0, writeEntryIdentity, [
      ENOENT,
    ]);
  }

  /** Adds entries as if their packets had been seen. */
  create(entries: readonly ConntrackEntry[]): void {
    this.#batch(
      entries,
      'create conntrack entry',
      IPCTNL_MSG_CT_NEW,
      NLM_F_CREATE | NLM_F_EXCL,
      (writer, entry) => writeEntry(writer, { ...entry, id: 0, use: 0 }),
      [],
    );
  }

  close(): void {
    this.#socket.close();
  }

  #beginList(family: 'IPv4' | 'IPv6', filter: EntryFilter | undefined): void {
    const writer = this.#socket.begin(IPCTNL_MSG_CT_GET);
    writer.nfgenmsg(familyNumber(family), 0, 0);
    if (filter !== undefined) writeFilter(writer, filter);
  }

  #batch(
    entries: readonly ConntrackEntry[],
    what: string,
    type: number,
    flags: number,
    write: (writer: MessageWriter, entry: ConntrackEntry) => void,
    tolerated: readonly number[],
  ): number {
    const { writer } = this.#socket;
    let done = 0;
    for (let first = 0; first < entries.length; first += batchSize) {
      const count = Math.min(batchSize, entries.length - first);
      writer.reset();
      const sequence = this.#sequence;
      for (let i = 0; i < count; i++) {
        const entry = entries[first + i]!;
        // Every message is acknowledged: the count of those that took effect has to be right.
        const start = writer.beginMessage(type, flags | NLM_F_REQUEST | NLM_F_ACK, sequence + i);
        writer.nfgenmsg(familyNumber(entry.family), 0, 0);
        write(writer, entry);
        writer.endMessage(start);
      }
      this.#sequence = sequence + count;
      this.#socket.sendBytes(writer.bytes, writer.length, what);
      let failure: NetlinkError | undefined;
      this.#socket.drain(what, (message) => {
        const index = message.sequence - sequence;
        if (message.type !== NLMSG_ERROR || index < 0 || index >= count) return;
        const acknowledgement = readAcknowledgement(message);
        if (acknowledgement.errno === 0) done++;
        else if (!tolerated.includes(acknowledgement.errno)) {
          const { original } = entries[first + index]!;
          const flow = `${original.source}:${original.sourcePort} to ${original.destination}:${original.destinationPort}`;
          failure ??= new NetlinkError(`${what} ${flow}`, acknowledgement);
        }
      });
      if (failure !== undefined) throw failure;
    }
    return done;
  }
}

function familyNumber(family: 'IPv4' | 'IPv6'): number {
  return family === 'IPv6' ? AF_INET6 : AF_INET;
}

function matches(entry: ConntrackEntry, filter: EntryFilter): boolean {
  const { original } = entry;
  return (
    original.protocol === filter.protocol &&
    (filter.destination === undefined || original.destination === filter.destination) &&
    (filter.destinationPort === undefined || original.destinationPort === filter.destinationPort)
  );
}

/** CTA_TUPLE_ORIG with the fields to match, and CTA_FILTER that names them. */
function writeFilter(writer: MessageWriter, filter: EntryFilter): void {
  let flags = FILTER_PROTO_NUM;
  const tuple = writer.beginNested(CTA_TUPLE_ORIG);
  // Kernels up to 6.18 at least compare IPv6 addresses the wrong way round, and would leave out just what is asked for.
  if (filter.destination !== undefined && !filter.destination.includes(':')) {
    flags |= FILTER_IP_DST;
    const ip = writer.beginNested(CTA_TUPLE_IP);
    writer.data(CTA_IP_V4_DST, addressBytes(filter.destination));
    writer.endNested(ip);
  }
  const protocol = writer.beginNested(CTA_TUPLE_PROTO);
  writer.u8(CTA_PROTO_NUM, filter.protocol);
  if (filter.destinationPort !== undefined) {
    flags |= FILTER_PROTO_DST_PORT;
    writer.u16(CTA_PROTO_DST_PORT, filter.destinationPort);
  }
  writer.endNested(protocol);
  writer.endNested(tuple);
  const outer = writer.beginNested(CTA_FILTER);
  writer.hostU32(CTA_FILTER_ORIG_FLAGS, flags);
  writer.hostU32(CTA_FILTER_REPLY_FLAGS, 0);
  writer.endNested(outer);
}
