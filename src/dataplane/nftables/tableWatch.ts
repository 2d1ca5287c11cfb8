/**
 * The kernel's own account of what happens to our table: the ruleset's generation, so that a transaction is refused if
 * it was made for another one, and changes that somebody else made.
 */
import { NFNL_SUBSYS_NFTABLES, messageTypes } from '../../linux/netlink/nftables/batch.ts';
import type { TableName } from '../../linux/netlink/nftables/objects.ts';
import { readEvent, type NftEvent } from '../../linux/netlink/nftables/socket.ts';
import { NFGENMSG_LENGTH, attributesOf, type Message } from '../../linux/netlink/message.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from '../../linux/netlink/socket.ts';

/** NFNLGRP_NFTABLES is 7. */
const eventGroups = 1 << 6;
const newGeneration = (NFNL_SUBSYS_NFTABLES << 8) | messageTypes.newGeneration;
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
   * @param generation as read after nothing at all; events correct it
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
    // Read after the socket listens: what comes in between is an event.
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
    if (message.portId === this.#ownPort) return;
    const event = readEvent(message);
    if (event === undefined || !this.#concerns(event)) return;
    this.#notice(describe(event));
  }

  #notice(change: string): void {
    if (this.foreign !== undefined) return;
    this.foreign = change;
    this.#onForeign(change);
  }

  #concerns(event: NftEvent): boolean {
    if (event.kind === 'generation') return false;
    const table =
      event.kind === 'elements'
        ? event.elements.table
        : event.object.kind === 'table'
          ? event.object
          : event.object.table;
    return table.family === this.#table.family && table.name === this.#table.name;
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
