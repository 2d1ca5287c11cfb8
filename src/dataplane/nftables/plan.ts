/** Collects what a sync adds and removes, and puts it into a batch in the order the kernel needs. */
import { release } from 'node:os';
import type { Batch } from '../../linux/netlink/nftables/batch.ts';
import type { Element } from '../../linux/netlink/nftables/objects.ts';
import type { NftablesCounts } from './counts.ts';
import type { Layout, SetName } from './layout.ts';
import type { ElementSink } from './mirror.ts';

export class Plan implements ElementSink {
  readonly #added = new Map<SetName, Element[]>();
  readonly #removed = new Map<SetName, Element[]>();
  #forgotten: readonly Element[] = [];
  /** Elements added and removed. */
  size = 0;
  readonly #counts: NftablesCounts | undefined;

  /** @param counts told of each element that goes */
  constructor(counts?: NftablesCounts) {
    this.#counts = counts;
  }

  add(set: SetName, element: Element): void {
    push(this.#added, set, element);
    this.size++;
  }

  remove(set: SetName, element: Element): void {
    push(this.#removed, set, element);
    this.#counts?.removing(set, element.key);
    this.size++;
  }

  /** Remembered clients to forget; they may be forgotten by themselves before the transaction. */
  forget(clients: readonly Element[]): void {
    this.#forgotten = clients.map(({ key }) => ({ key }));
    this.size += clients.length;
  }

  /**
   * Removals come first: a key may move from one service port to another. Chains have to be made before this and may
   * be removed after it.
   */
  toBatch(layout: Layout, batch: Batch): void {
    for (const [name, elements] of this.#removed) batch.deleteElements(layout.sets.get(name)!, elements);
    for (const [name, elements] of this.#added) batch.addElements(layout.sets.get(name)!, elements);
    if (this.#forgotten.length === 0) return;
    const clients = layout.sets.get('sticky-clients')!;
    if (canDestroy) batch.destroyElements(clients, this.#forgotten);
    else batch.deleteElements(clients, this.#forgotten);
  }
}

function push(lists: Map<SetName, Element[]>, set: SetName, element: Element): void {
  const list = lists.get(set);
  if (list === undefined) lists.set(set, [element]);
  else list.push(element);
}

/** Linux 6.3 and later remove an element without minding that it is gone already; before that, such a sync is repeated. */
const canDestroy =
  release()
    .split('.', 2)
    .map(Number)
    .reduce((a, b) => a * 1000 + b) >= 6003;
