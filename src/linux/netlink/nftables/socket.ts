/** The door to the kernel's nf_tables: commit batches, read what is there, watch what changes. */
import { type Batch, NFNL_SUBSYS_NFTABLES, messageTypes, type NftObject } from './batch.ts';
import { readElements, type SetElements } from './elementCodec.ts';
import { readChain, readRule, readSet, readTable } from './objectCodec.ts';
import {
  familyNumber,
  type Chain,
  type Element,
  type NftSet,
  type Rule,
  type Table,
  type TableFamily,
  type TableName,
} from './objects.ts';
import type { TableContents } from './print.ts';
import { ENOENT, NetlinkError, isRefusal, readAcknowledgement, type Acknowledgement } from '../errors.ts';
import {
  HEADER_LENGTH,
  NFGENMSG_LENGTH,
  NLMSG_ERROR,
  attributesOf,
  type Message,
  type MessageWriter,
} from '../message.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from '../socket.ts';

/** Of BATCH_END: a netlink header and struct nfgenmsg. */
const batchEndLength = HEADER_LENGTH + NFGENMSG_LENGTH;
const subsystem = NFNL_SUBSYS_NFTABLES << 8;
/** Groups of a socket that hears every change of the ruleset: NFNLGRP_NFTABLES is 7. */
export const nftablesEvents = 1 << 6;

/** A hash table of 100,000 elements is moved within two of them. */
const dumpAttempts = 10;

/** The state of the whole ruleset; it changes with every transaction of anybody. */
export interface Generation {
  readonly id: number;
  /** In an event: of the process that made the change. In an answer: of the one that asked. */
  readonly processId: number;
  readonly processName: string;
}

export interface CommitOptions {
  /** Refuse with ERESTART if the ruleset's generation is another one: what was read before is out of date then. */
  readonly generation?: number;
  /** Only ask whether the kernel would take it, as `nft --check` does: nothing changes, nobody is told. */
  readonly checkOnly?: boolean;
}

export interface CommitResult {
  /** What the kernel told about objects added with `echo`, in their order. */
  readonly echoed: readonly NftObject[];
}

/** One part of a batch that the kernel refused. */
export interface Failure {
  /** Number of the operation in the batch, from 0; -1 = the batch as a whole. */
  readonly operation: number;
  readonly request: string;
  readonly acknowledgement: Acknowledgement;
}

/** A batch that was refused; nothing of it took effect. `errno` and the message are those of the first failure. */
export class CommitError extends NetlinkError {
  readonly failures: readonly Failure[];

  constructor(failures: readonly Failure[]) {
    const first = failures[0]!;
    super(first.request, first.acknowledgement);
    this.name = 'CommitError';
    this.failures = failures;
    if (failures.length > 1) this.message += ` (and ${failures.length - 1} more)`;
  }
}

/** Requests to nf_tables in the network namespace the socket was opened in; all of them synchronous. */
export class NftSocket {
  readonly #socket = new NetlinkSocket({
    protocol: NETLINK_NETFILTER,
    // Every message of a batch may be answered with an error.
    receiveBuffer: 4 << 20,
  });

  /** Events of this socket's own commits carry it. */
  get portId(): number {
    return this.#socket.portId;
  }

  /**
   * Makes the batch take effect, as a whole or not at all. An empty batch does nothing.
   * @throws CommitError that names what was refused, and why
   */
  commit(batch: Batch, options: CommitOptions = {}): CommitResult {
    const echoed: NftObject[] = [];
    if (batch.empty) return { echoed };
    const whole = batch.encode(options.generation);
    // A batch without its end is checked and then given up.
    const bytes = options.checkOnly === true ? whole.subarray(0, whole.length - batchEndLength) : whole;
    this.#socket.sendBytes(bytes, bytes.length, 'nftables transaction');
    const failures: Failure[] = [];
    const complete = this.#socket.drain('nftables transaction', (message) => {
      if (message.type !== NLMSG_ERROR) {
        const event = readEvent(message);
        if (event?.kind === 'object' && event.added) echoed.push(event.object);
        return;
      }
      const acknowledgement = readAcknowledgement(message);
      if (acknowledgement.errno === 0) return;
      failures.push({
        operation: message.sequence - 1,
        request: batch.describe(message.sequence, acknowledgement.offset),
        acknowledgement,
      });
    });
    if (failures.length > 0) throw new CommitError(failures);
    if (!complete) {
      throw new CommitError([
        {
          operation: -1,
          request: `nftables transaction of ${batch.operations.length} messages`,
          acknowledgement: {
            errno: 105,
            text: 'its answers did not fit the receive buffer',
            offset: undefined,
          },
        },
      ]);
    }
    return { echoed };
  }

  generation(): Generation {
    let generation: Generation = { id: 0, processId: 0, processName: '' };
    this.#begin(messageTypes.getGeneration, 'ip');
    this.#socket.request('read the nftables generation', (message) => {
      generation = readGeneration(message);
    });
    return generation;
  }

  /** All tables, of one family or of every family. */
  listTables(family?: TableFamily): Table[] {
    return this.#dump('list tables', messageTypes.getTable, family, () => undefined, readTable);
  }

  /** The table, or undefined if there is none of that name. */
  getTable(name: TableName): Table | undefined {
    let found: Table | undefined;
    this.#begin(messageTypes.getTable, name.family).string(1, name.name);
    try {
      this.#socket.request(`read table ${name.family} ${name.name}`, (message) => {
        found = readTable(message);
      });
    } catch (error) {
      if (!isRefusal(error, ENOENT)) throw error;
    }
    return found;
  }

  /** The chains of a table, in the order they were made. */
  listChains(table: TableName): Chain[] {
    // The kernel lists those of all tables of the family.
    return this.#dump(
      `list chains of ${table.family} ${table.name}`,
      messageTypes.getChain,
      table.family,
      () => undefined,
      readChain,
    ).filter((chain) => chain.table.name === table.name);
  }

  /** The rules of a table, or of one of its chains, in their order. */
  listRules(table: TableName, chain?: string): Rule[] {
    return this.#dump(
      `list rules of ${table.family} ${table.name}`,
      messageTypes.getRule,
      table.family,
      (writer) => {
        writer.string(1, table.name);
        if (chain !== undefined) writer.string(2, chain);
      },
      readRule,
    );
  }

  /** The sets and maps of a table, anonymous ones too. */
  listSets(table: TableName): NftSet[] {
    return this.#dump(
      `list sets of ${table.family} ${table.name}`,
      messageTypes.getSet,
      table.family,
      (writer) => writer.string(1, table.name),
      readSet,
    );
  }

  /**
   * The elements of a set. Soon after many were added the kernel moves them to a larger hash table, and a dump across
   * that gives some twice and leaves as many out, without a word: such a dump is read again.
   */
  listElements(table: TableName, set: string): Element[] {
    const what = `list elements of ${table.family} ${table.name} ${set}`;
    for (let attempt = 1; ; attempt++) {
      const elements: Element[] = [];
      for (const part of this.#dump(
        what,
        messageTypes.getSetElement,
        table.family,
        (writer) => {
          writer.string(1, table.name);
          writer.string(2, set);
        },
        readElements,
      )) {
        for (const element of part.elements) elements.push(element);
      }
      if (!hasDoubles(elements)) return elements;
      if (attempt === dumpAttempts)
        throw new Error(`${what}: the set kept moving during ${attempt} attempts`);
    }
  }

  /**
   * Everything in a table, of one moment: read again (up to 10 times) if a transaction came in between. Undefined if
   * there is no such table.
   */
  readTable(name: TableName): (TableContents & { readonly generation: number }) | undefined {
    for (let attempt = 1; ; attempt++) {
      const generation = this.generation().id;
      try {
        const table = this.getTable(name);
        if (table === undefined) return undefined;
        const chains = this.listChains(name);
        const rules = this.listRules(name);
        const sets = this.listSets(name);
        const elements = new Map(sets.map((set) => [set.name, this.listElements(name, set.name)]));
        if (this.generation().id === generation || attempt >= 10) {
          return { table, chains, rules, sets, elements, generation };
        }
      } catch (error) {
        // Something listed a moment ago is gone already.
        if (!isRefusal(error, ENOENT) || attempt >= 10) throw error;
      }
    }
  }

  /** Idempotent. */
  close(): void {
    this.#socket.close();
  }

  #begin(type: number, family: TableFamily | undefined): MessageWriter {
    const writer = this.#socket.begin(subsystem | type);
    writer.nfgenmsg(family === undefined ? 0 : familyNumber(family), 0, 0);
    return writer;
  }

  #dump<T>(
    what: string,
    type: number,
    family: TableFamily | undefined,
    build: (writer: MessageWriter) => void,
    read: (message: Message) => T,
  ): T[] {
    let found: T[] = [];
    build(this.#begin(type, family));
    const { complete } = this.#socket.dump(
      what,
      (message) => found.push(read(message)),
      () => {
        found = [];
      },
    );
    if (!complete) throw new Error(`${what}: the ruleset changed during each of five attempts`);
    return found;
  }
}

/** Something that a transaction did, ours or somebody else's. */
export type NftEvent = (
  | { readonly kind: 'object'; readonly added: boolean; readonly object: NftObject }
  | { readonly kind: 'elements'; readonly added: boolean; readonly elements: SetElements }
  /** The end of every transaction. */
  | { readonly kind: 'generation'; readonly generation: Generation }
) & {
  /** Port id of the socket that made the change (`NftSocket.portId` for ours). */
  readonly portId: number;
};

/**
 * Tells every change of nf_tables in the namespace, in order, from the event loop. `onLost`: events were lost, read
 * the tables again.
 * @returns the function that ends it
 */
export function watchNftables(
  onEvent: (event: NftEvent) => void,
  onLost: (reason: string) => void,
): () => void {
  const socket = new NetlinkSocket({
    protocol: NETLINK_NETFILTER,
    groups: nftablesEvents,
    receiveBuffer: 16 << 20,
  });
  socket.subscribe((message) => {
    const event = readEvent(message);
    if (event !== undefined) onEvent(event);
  }, onLost);
  return () => socket.close();
}

/** Decodes an event; undefined for kinds that we do not follow (objects, flow tables). */
export function readEvent(message: Message): NftEvent | undefined {
  if (message.type >>> 8 !== NFNL_SUBSYS_NFTABLES) return undefined;
  const { portId } = message;
  const type = message.type & 0xff;
  switch (type) {
    case messageTypes.newTable:
    case messageTypes.deleteTable:
      return { kind: 'object', added: type === messageTypes.newTable, object: readTable(message), portId };
    case messageTypes.newChain:
    case messageTypes.deleteChain:
      return { kind: 'object', added: type === messageTypes.newChain, object: readChain(message), portId };
    case messageTypes.newRule:
    case messageTypes.deleteRule:
      return { kind: 'object', added: type === messageTypes.newRule, object: readRule(message), portId };
    case messageTypes.newSet:
    case messageTypes.deleteSet:
      return { kind: 'object', added: type === messageTypes.newSet, object: readSet(message), portId };
    case messageTypes.newSetElement:
    case messageTypes.deleteSetElement:
      return {
        kind: 'elements',
        added: type === messageTypes.newSetElement,
        elements: readElements(message),
        portId,
      };
    case messageTypes.newGeneration:
      return { kind: 'generation', generation: readGeneration(message), portId };
    default:
      return undefined;
  }
}

function readGeneration(message: Message): Generation {
  const reader = attributesOf(message, NFGENMSG_LENGTH);
  let id = 0;
  let processId = 0;
  let processName = '';
  while (reader.next()) {
    if (reader.type === 1) id = reader.u32();
    else if (reader.type === 2) processId = reader.u32();
    else if (reader.type === 3) processName = reader.string();
  }
  return { id, processId, processName };
}

/** True if a key is there twice (an interval's end may be the next one's beginning: the flags tell them apart). */
function hasDoubles(elements: readonly Element[]): boolean {
  const seen = new Set<string>();
  for (const { key, flags } of elements) {
    const text = Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString('latin1');
    seen.add(flags === undefined ? text : `${text}${flags}`);
  }
  return seen.size !== elements.length;
}
