/**
 * The kernel's own account of what happens to our table: the ruleset's generation, so that a transaction is refused if
 * it was made for another one, and changes that somebody else made.
 */
import { NFNL_SUBSYS_NFTABLES, messageTypes } from '../../linux/netlink/nftables/batch.ts';
import { familyNumber, type TableName } from '../../linux/netlink/nftables/objects.ts';
import { readEvent, type NftEvent } from '../../linux/netlink/nftables/socket.ts';
import { NFGENMSG_LENGTH, attributesOf, type Message } from '../../linux/netlink/message.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from '../../linux/netlink/socket.ts';

/** NFNLGRP_NFTABLES is 7. */
const eventGroups = 1 << 6;
const newGeneration = (NFNL_SUBSYS_NFTABLES << 8) | messageTypes.newGeneration;
/** NFTA_TABLE_NAME, and the table's name in chains, rules, sets and elements. */
const tableAttribute = 1;
const what = 'read nftables events';

export class TableWatch {
  /** The ruleset's generation as of the last event. */
  generation: number;
  /** The first change by somebody else since this was last made undefined. */
  foreign: string | undefined;
  readonly #table: TableName;
  readonly #ownPort: number;
  readonly #onForeign: (change: string) => void;
  readonly #socket = new NetlinkSocket({
    protocol: NETLINK_NETFILTER,
    groups: eventGroups,
    receiveBuffer: 64 << 20,
  });

  /**
   * Opened in the network namespace of the thread at this moment.
   * @param ownPort port id of the socket that commits our transactions
   * @param generation reads the ruleset's generation; called once, when the watch listens already
   * @param onForeign told from the event loop, once for each change that becomes `foreign`
   */
  constructor(
    table: TableName,
    ownPort: number,
    generation: () => number,
    onForeign: (change: string) => void,
  ) {
    this.#table = table;
    this.#ownPort = ownPort;
    this.#onForeign = onForeign;
    this.generation = generation();
    this.#socket.subscribe(
      (message) => this.#take(message),
      (reason) => this.#notice(`events were lost: ${reason}`),
    );
  }

  /** Takes in what has happened up to now. */
  drain(): void {
    if (!this.#socket.drain(what, (message) => this.#take(message)))
      this.#notice('events were lost: the receive buffer was full');
  }

  close(): void {
    this.#socket.close();
  }

  #take(message: Message): void {
    if (message.type === newGeneration) {
      const reader = attributesOf(message, NFGENMSG_LENGTH);
      while (reader.next()) if (reader.type === 1) this.generation = reader.u32();
      return;
    }
    if (message.portId === this.#ownPort || !this.#concerns(message)) return;
    const event = readEvent(message);
    if (event !== undefined) this.#notice(describe(event));
  }

  #notice(change: string): void {
    if (this.foreign !== undefined) return;
    this.foreign = change;
    this.#onForeign(change);
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

function describe(event: NftEvent): string {
  if (event.kind === 'generation') return 'generation';
  const verb = event.added ? 'added' : 'removed';
  if (event.kind === 'elements') return `elements of ${event.elements.set} ${verb}`;
  const { object } = event;
  if (object.kind === 'rule') return `rule in chain ${object.chain} ${verb}`;
  return `${object.kind} ${object.name} ${verb}`;
}
