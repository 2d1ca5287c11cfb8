/**
 * A transaction: changes that the kernel makes all at once or not at all. Messages are encoded as they are added; the
 * recording of what was added names the part that failed and prints the whole as an nft script.
 */
import { readElement, writeElement } from './elementCodec.ts';
import { writeChain, writeRule, writeSet, writeTable } from './objectCodec.ts';
import {
  familyNumber,
  type Chain,
  type Element,
  type NftSet,
  type Rule,
  type Table,
  type TableName,
} from './objects.ts';
import { printOperation } from './print.ts';
import {
  AttributeReader,
  HEADER_LENGTH,
  MessageWriter,
  NFGENMSG_LENGTH,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_ECHO,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  NLM_F_REQUEST,
} from '../message.ts';

/** enum nf_tables_msg_types */
export const messageTypes = {
  newTable: 0,
  getTable: 1,
  deleteTable: 2,
  newChain: 3,
  getChain: 4,
  deleteChain: 5,
  newRule: 6,
  getRule: 7,
  deleteRule: 8,
  newSet: 9,
  getSet: 10,
  deleteSet: 11,
  newSetElement: 12,
  getSetElement: 13,
  deleteSetElement: 14,
  newGeneration: 15,
  getGeneration: 16,
  destroyTable: 26,
  destroyChain: 27,
  destroyRule: 28,
  destroySet: 29,
  destroySetElement: 30,
} as const;

export const NFNL_SUBSYS_NFTABLES = 10;
const NFNL_MSG_BATCH_BEGIN = 16;
const NFNL_MSG_BATCH_END = 17;
/** NFNL_BATCH_GENID */
const BATCH_GENERATION = 1;

/** Where the first message begins; in front of it is room for BATCH_BEGIN with and without a generation. */
const reserved = HEADER_LENGTH + NFGENMSG_LENGTH + 8;
/** An element list is closed at this size: its attribute can hold 65,535 bytes, one element a few hundred. */
const listMax = 60_000;

export type Verb = 'add' | 'create' | 'insert' | 'replace' | 'delete' | 'destroy' | 'flush';
export type NftObject = Table | Chain | Rule | NftSet;

/** One message of a batch, as it was asked for. */
export interface Operation {
  readonly verb: Verb;
  readonly object: NftObject;
  /** The verb is about these elements of the object, a set, from `first` on. */
  readonly elements?: readonly Element[];
  readonly first?: number;
  /** Exclusive end. */
  readonly last?: number;
}

const createFlags: Readonly<Record<'add' | 'create' | 'insert' | 'replace', number>> = {
  add: NLM_F_CREATE | NLM_F_APPEND,
  create: NLM_F_CREATE | NLM_F_EXCL | NLM_F_APPEND,
  insert: NLM_F_CREATE,
  replace: NLM_F_REPLACE,
};

/** Objects to make, change and remove in one transaction. Reusable after `clear`. */
export class Batch {
  readonly #writer = new MessageWriter(64 * 1024);
  readonly #operations: Operation[] = [];
  /** Where each operation's message begins. */
  readonly #starts: number[] = [];

  constructor() {
    this.clear();
  }

  /** Empties the batch; its buffer stays. */
  clear(): void {
    this.#writer.reset();
    this.#writer.reserve(reserved);
    this.#writer.length = reserved;
    this.#operations.length = 0;
    this.#starts.length = 0;
  }

  get operations(): readonly Operation[] {
    return this.#operations;
  }

  /** Bytes so far. */
  get size(): number {
    return this.#writer.length;
  }

  get empty(): boolean {
    return this.#operations.length === 0;
  }

  /**
   * Makes the object; tables, chains and sets that are there already with the same properties are left alone. Rules
   * go behind the last of their chain. With `echo` the kernel tells what it made (a rule's handle).
   */
  add(object: NftObject, options: { echo?: boolean } = {}): this {
    return this.#make('add', object, options.echo === true ? NLM_F_ECHO : 0);
  }

  /** As `add`, but fails with EEXIST if it is there. */
  create(object: NftObject): this {
    return this.#make('create', object, 0);
  }

  /** Puts a rule in front of the first of its chain. */
  insert(rule: Rule): this {
    return this.#make('insert', rule, 0);
  }

  /** Puts a rule in the place of the one with its handle. */
  replace(rule: Rule): this {
    return this.#make('replace', rule, 0);
  }

  /** Removes the object (a rule by its handle); fails with ENOENT if it is not there. */
  delete(object: NftObject): this {
    return this.#remove('delete', object);
  }

  /** As `delete`, but no error if it is not there. Kernel 6.3 and later. */
  destroy(object: NftObject): this {
    return this.#remove('destroy', object);
  }

  /** Removes all rules of a chain, all elements of a set, or the rules of all chains of a table. */
  flush(object: Chain | NftSet | Table): this {
    const isSet = object.kind === 'set';
    this.#begin(
      { verb: 'flush', object },
      isSet ? messageTypes.deleteSetElement : messageTypes.deleteRule,
      0,
    );
    const writer = this.#writer;
    writer.string(1, tableOf(object).name);
    if (object.kind !== 'table') writer.string(2, object.name);
    this.#end();
    return this;
  }

  /** Adds elements, in as many messages as it takes. An element that is there already with another value is EEXIST. */
  addElements(set: NftSet, elements: readonly Element[]): this {
    return this.#elements('add', set, elements, messageTypes.newSetElement, NLM_F_CREATE);
  }

  /** As `addElements`, but an element that is there already fails the batch with EEXIST. */
  createElements(set: NftSet, elements: readonly Element[]): this {
    return this.#elements('create', set, elements, messageTypes.newSetElement, NLM_F_CREATE | NLM_F_EXCL);
  }

  /** Removes elements by their keys; one that is not there fails the batch with ENOENT. */
  deleteElements(set: NftSet, elements: readonly Element[]): this {
    return this.#elements('delete', set, elements, messageTypes.deleteSetElement, 0);
  }

  /** As `deleteElements`, but no error if one is not there. Kernel 6.3 and later. */
  destroyElements(set: NftSet, elements: readonly Element[]): this {
    return this.#elements('destroy', set, elements, messageTypes.destroySetElement, 0);
  }

  /** The batch as a script that `nft -f` takes. */
  toScript(): string {
    return this.#operations.map((operation) => `${printOperation(operation)}\n`).join('');
  }

  /**
   * The bytes to send, BATCH_BEGIN and BATCH_END included; valid until the next change. With a generation the kernel
   * refuses (ERESTART) if another transaction came in between.
   */
  encode(generation?: number): Uint8Array {
    const writer = this.#writer;
    const end = writer.length;
    const closing = writer.beginMessage(NFNL_MSG_BATCH_END, NLM_F_REQUEST, this.#operations.length + 1);
    writer.nfgenmsg(0, 0, NFNL_SUBSYS_NFTABLES);
    writer.endMessage(closing);
    const whole = writer.length;
    const from = generation === undefined ? 8 : 0;
    writer.length = from;
    const opening = writer.beginMessage(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, 0);
    writer.nfgenmsg(0, 0, NFNL_SUBSYS_NFTABLES);
    if (generation !== undefined) writer.u32(BATCH_GENERATION, generation);
    writer.endMessage(opening);
    // The next operation goes where BATCH_END lies now.
    writer.length = end;
    return writer.bytes.subarray(from, whole);
  }

  /** In words what the message with this sequence number asked for; `offset` is where in it the kernel saw the error. */
  describe(sequence: number, offset: number | undefined): string {
    const operation = this.#operations[sequence - 1];
    if (operation === undefined) return 'nftables transaction';
    if (operation.elements === undefined || offset === undefined) return printOperation(operation, 3);
    const element = this.#elementAt(this.#starts[sequence - 1]!, offset);
    if (element === undefined) return printOperation(operation, 3);
    return printOperation({ ...operation, elements: [element], first: 0, last: 1 });
  }

  #elementAt(start: number, offset: number): Element | undefined {
    const { bytes } = this.#writer;
    const reader = new AttributeReader(bytes, start + HEADER_LENGTH + NFGENMSG_LENGTH, this.#writer.length);
    while (reader.next()) {
      if (reader.type !== 3) continue;
      const list = reader.nested();
      while (list.next()) {
        // The offset is that of the element's attribute, or of one inside it.
        if (list.end > start + offset)
          return list.start - 4 <= start + offset ? readElement(list.nested()) : undefined;
      }
    }
    return undefined;
  }

  #begin(operation: Operation, type: number, flags: number): void {
    this.#operations.push(operation);
    const start = this.#writer.beginMessage(
      (NFNL_SUBSYS_NFTABLES << 8) | type,
      flags | NLM_F_REQUEST,
      this.#operations.length,
    );
    this.#starts.push(start);
    this.#writer.nfgenmsg(familyNumber(tableOf(operation.object).family), 0, 0);
  }

  #end(): void {
    this.#writer.endMessage(this.#starts[this.#starts.length - 1]!);
  }

  #make(verb: 'add' | 'create' | 'insert' | 'replace', object: NftObject, flags: number): this {
    const writer = this.#writer;
    // NLM_F_APPEND means something for rules only.
    const all = flags | (object.kind === 'rule' ? createFlags[verb] : createFlags[verb] & ~NLM_F_APPEND);
    switch (object.kind) {
      case 'table':
        this.#begin({ verb, object }, messageTypes.newTable, all);
        writeTable(writer, object);
        break;
      case 'chain':
        this.#begin({ verb, object }, messageTypes.newChain, all);
        writeChain(writer, object);
        break;
      case 'rule':
        this.#begin({ verb, object }, messageTypes.newRule, all);
        if (verb === 'replace') writer.u64(3, object.handle ?? 0n);
        writeRule(writer, object);
        break;
      case 'set':
        this.#begin({ verb, object }, messageTypes.newSet, all);
        writeSet(writer, object);
        break;
    }
    this.#end();
    return this;
  }

  #remove(verb: 'delete' | 'destroy', object: NftObject): this {
    const gone = verb === 'destroy';
    const writer = this.#writer;
    switch (object.kind) {
      case 'table':
        this.#begin({ verb, object }, gone ? messageTypes.destroyTable : messageTypes.deleteTable, 0);
        writer.string(1, object.name);
        break;
      case 'chain':
        this.#begin({ verb, object }, gone ? messageTypes.destroyChain : messageTypes.deleteChain, 0);
        writer.string(1, object.table.name);
        writer.string(3, object.name);
        break;
      case 'rule':
        // Without a handle the kernel would empty the chain.
        if (object.handle === undefined)
          throw new RangeError(`rule in ${object.chain} has no handle to delete it by`);
        this.#begin({ verb, object }, gone ? messageTypes.destroyRule : messageTypes.deleteRule, 0);
        writer.string(1, object.table.name);
        writer.string(2, object.chain);
        writer.u64(3, object.handle);
        break;
      case 'set':
        this.#begin({ verb, object }, gone ? messageTypes.destroySet : messageTypes.deleteSet, 0);
        writer.string(1, object.table.name);
        writer.string(2, object.name);
        break;
    }
    this.#end();
    return this;
  }

  #elements(verb: Verb, set: NftSet, elements: readonly Element[], type: number, flags: number): this {
    const writer = this.#writer;
    const count = elements.length;
    for (let first = 0; first < count;) {
      const operation = { verb, object: set, elements, first, last: count };
      this.#begin(operation, type, flags);
      writer.string(1, set.table.name);
      writer.string(2, set.name);
      if (set.id !== undefined) writer.u32(4, set.id);
      const list = writer.beginNested(3);
      let i = first;
      while (i < count && writer.length - list < listMax) writeElement(writer, elements[i++]!);
      writer.endNested(list);
      this.#end();
      operation.last = i;
      first = i;
    }
    return this;
  }
}

function tableOf(object: NftObject): TableName {
  return object.kind === 'table' ? object : object.table;
}
