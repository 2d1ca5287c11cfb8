/**
 * The kernel's own account of what happens to our table: the ruleset's generation, so that a transaction is refused if
 * it was made for another one, and changes that somebody else made.
 */
import { NFNL_SUBSYS_NFTABLES, messageTypes } from '../../linux/netlink/nftables/batch.ts';
import type { ChangeByOthers } from '../dataplane.ts';
import {
  familyNumber,
  tableFlags,
  type NftSet,
  type TableName,
} from '../../linux/netlink/nftables/objects.ts';
import { printElement, printRule } from '../../linux/netlink/nftables/print.ts';
import { nftablesEvents, readEvent, type NftEvent } from '../../linux/netlink/nftables/socket.ts';
import { NFGENMSG_LENGTH, attributesOf, type Message } from '../../linux/netlink/message.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from '../../linux/netlink/socket.ts';

const deleteElement = (NFNL_SUBSYS_NFTABLES << 8) | messageTypes.deleteSetElement;
const newGeneration = (NFNL_SUBSYS_NFTABLES << 8) | messageTypes.newGeneration;
/** NFTA_TABLE_NAME, and the table's name in chains, rules, sets and elements. */
const tableAttribute = 1;
const what = 'read nftables events';

/** What somebody else's transaction did to our table. */
export type ForeignTransaction = Pick<ChangeByOthers, 'what' | 'object' | 'by'>;

/** Sets and chains that the table always has. */
export interface OwnObjects {
  readonly sets: ReadonlyMap<string, NftSet>;
  readonly chains: ReadonlySet<string>;
}

export class TableWatch {
  /** The ruleset's generation as of the last event. */
  generation: number;
  /** The first change by somebody else since this was last made undefined. */
  foreign: string | undefined;
  readonly #table: TableName;
  readonly #own: OwnObjects;
  readonly #ownPort: number;
  readonly #onForeign: (change: ForeignTransaction) => void;
  readonly #onOwnRemoval: ((message: Message) => void) | undefined;
  /** Changes of a foreign transaction whose end, which names the process, has not come yet. */
  #unfinished: { readonly what: string; readonly object: ChangeByOthers['object'] } | undefined;
  #unfinishedChanges = 0;
  readonly #socket = new NetlinkSocket({
    protocol: NETLINK_NETFILTER,
    groups: nftablesEvents,
    receiveBuffer: 64 << 20,
  });

  /**
   * Opened in the network namespace of the thread at this moment.
   * @param ownPort port id of the socket that commits our transactions
   * @param generation reads the ruleset's generation; called once, when the watch listens already
   * @param onForeign told at the end of each foreign transaction that changed our table
   * @param own what the table holds for good: told in words when others change it
   * @param onOwnRemoval told of elements that transactions of ours removed, as the kernel announces them
   */
  constructor(
    table: TableName,
    ownPort: number,
    generation: () => number,
    onForeign: (change: ForeignTransaction) => void,
    onOwnRemoval?: (message: Message) => void,
    own: OwnObjects = { sets: new Map(), chains: new Set() },
  ) {
    this.#table = table;
    this.#own = own;
    this.#ownPort = ownPort;
    this.#onForeign = onForeign;
    this.#onOwnRemoval = onOwnRemoval;
    this.generation = generation();
    this.#socket.subscribe(
      (message) => this.#take(message),
      (reason) => this.#lost(reason),
    );
  }

  /** Takes in what has happened up to now. */
  drain(): void {
    if (!this.#socket.drain(what, (message) => this.#take(message)))
      this.#lost('the receive buffer was full');
  }

  close(): void {
    this.#socket.close();
  }

  #take(message: Message): void {
    if (message.type === newGeneration) {
      const reader = attributesOf(message, NFGENMSG_LENGTH);
      let processId = 0;
      let processName = '';
      while (reader.next()) {
        if (reader.type === 1) this.generation = reader.u32();
        else if (reader.type === 2) processId = reader.u32();
        else if (reader.type === 3) processName = reader.string();
      }
      this.#end(processName === '' ? '' : `${processName} (pid ${processId})`);
      return;
    }
    if (message.portId === this.#ownPort) {
      if (message.type === deleteElement) this.#onOwnRemoval?.(message);
      return;
    }
    if (!this.#concerns(message)) return;
    const event = readEvent(message);
    if (event === undefined || event.kind === 'generation') return;
    this.#unfinishedChanges++;
    this.#unfinished ??= describe(event, this.#own);
    this.foreign ??= this.#unfinished.what;
  }

  /** A transaction is over: theirs, if there was anything of it. */
  #end(by: string): void {
    const change = this.#unfinished;
    if (change === undefined) return;
    const more = this.#unfinishedChanges - 1;
    this.#unfinished = undefined;
    this.#unfinishedChanges = 0;
    const text =
      more === 0 ? change.what : `${change.what} (and ${more} more ${more === 1 ? 'change' : 'changes'})`;
    this.#onForeign({ what: text, object: change.object, by });
  }

  #lost(reason: string): void {
    const change = `events were lost: ${reason}`;
    this.foreign ??= change;
    this.#onForeign({ what: change, object: 'unknown', by: '' });
  }

  /** Without decoding the rest: the other family's proxy and other programs may write a lot. */
  #concerns(message: Message): boolean {
    if (message.type >>> 8 !== NFNL_SUBSYS_NFTABLES) return false;
    if (message.bytes[message.start] !== familyNumber(this.#table.family)) return false;
    const reader = attributesOf(message, NFGENMSG_LENGTH);
    while (reader.next()) if (reader.type === tableAttribute) return reader.string() === this.#table.name;
    return false;
  }
}

function describe(
  event: Exclude<NftEvent, { readonly kind: 'generation' }>,
  own: OwnObjects,
): { readonly what: string; readonly object: ChangeByOthers['object'] } {
  const verb = event.added ? 'added' : 'removed';
  if (event.kind === 'elements') {
    const { set: name, elements } = event.elements;
    const set = own.sets.get(name);
    const [first] = elements;
    const text = set === undefined || first === undefined ? '' : `: ${printElement(set, first)}`;
    return { what: `elements of ${name} ${verb}${text}`, object: 'element' };
  }
  const { object } = event;
  switch (object.kind) {
    case 'rule':
      return { what: `rule in chain ${object.chain} ${verb}: ${printRule(object)}`, object: 'rule' };
    case 'table': {
      const isDormant = event.added && ((object.flags ?? 0) & tableFlags.dormant) !== 0;
      const what = isDormant ? 'switched off (dormant)' : event.added ? 'changed' : verb;
      return { what: `table ${object.name} ${what}`, object: 'table' };
    }
    case 'chain': {
      // Nobody can add one that is there: its policy or name was changed.
      const isChanged = event.added && own.chains.has(object.name);
      const policy = object.hook?.policy === 'drop' ? ' (policy drop)' : '';
      return { what: `chain ${object.name} ${isChanged ? 'changed' : verb}${policy}`, object: 'chain' };
    }
    default:
      return { what: `${object.kind} ${object.name} ${verb}`, object: object.kind };
  }
}
