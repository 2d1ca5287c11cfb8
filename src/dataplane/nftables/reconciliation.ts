/**
 * A full sync: reads what the kernel has, and changes what differs from the routing table. What is right is not
 * touched, so that a restart writes nothing; slots and numbers for affinity stay as they are found.
 *
 * Big tables go in bounded transactions. On a first start the base chains come last, so that no packet meets a table
 * that is half full, and whoever had the table before (kube-proxy, an older version) is replaced in the last one.
 */
import { Batch } from '../../linux/netlink/nftables/batch.ts';
import type { Chain, Element } from '../../linux/netlink/nftables/objects.ts';
import type { NftSocket } from '../../linux/netlink/nftables/socket.ts';
import type { NetlinkSocket } from '../../linux/netlink/socket.ts';
import type { Logger } from '../../log/logger.ts';
import type { RoutingTable } from '../../services/types.ts';
import { sameElements } from './fixedSets.ts';
import { KernelElements } from './kernelElements.ts';
import type { Layout, SetName } from './layout.ts';
import type { ElementSink, Mirror } from './mirror.ts';
import { Plan } from './plan.ts';
import { isServiceChain } from './serviceChains.ts';
import { staleClients } from './stickyClients.ts';
import { Structure } from './structure.ts';

/** Elements in one transaction: a few milliseconds of the kernel's time, and as little memory as that takes. */
const chunk = 1000;
/** Foreign chains and sets that are removed with the take-over itself; more than these go in steps after it. */
const foreignAtOnce = 20_000;
const foreignChunk = 2000;

export interface ReconciliationOptions {
  readonly layout: Layout;
  readonly nft: NftSocket;
  readonly reader: NetlinkSocket;
  /** Empty; filled by the run. */
  readonly mirror: Mirror;
  /** Sets that are not filled from routes. */
  readonly fixed: ReadonlyMap<SetName, readonly Element[]>;
  readonly commit: (batch: Batch) => void;
  /** For kernels where a chain cannot be removed with the elements that lead to it. */
  readonly discardLater: ((chains: readonly Chain[]) => void) | undefined;
  readonly log: Logger;
}

export class Reconciliation {
  readonly #options: ReconciliationOptions;
  #structure = Structure.none;
  #plan = new Plan();
  readonly #batch = new Batch();
  /** The table has to be made anew, in a single transaction. */
  #replace = false;

  constructor(options: ReconciliationOptions) {
    this.#options = options;
  }

  /** Brings the kernel to the table; resolves to the mirror of what it holds then. */
  async run(table: RoutingTable): Promise<Mirror> {
    const { layout, mirror, log } = this.#options;
    const structure = Structure.read(this.#options.nft, layout);
    this.#structure = structure;
    const unusable = structure.unusableSet(layout);
    if (unusable !== undefined) {
      log.info('The table in the kernel has another layout; replacing it in one transaction', {
        set: unusable,
      });
      this.#replace = true;
      this.#structure = Structure.none;
      this.#batch.delete(layout.table);
    }
    const elements = new KernelElements(layout, this.#sink);
    const clients = await this.#read(elements);
    mirror.nextNumber = Math.max(mirror.nextNumber, elements.largestNumber() + 1);
    this.#makeStructure();
    for (const [id, route] of table.routes) {
      mirror.apply(id, route, elements);
      if (this.#plan.size >= chunk && !this.#replace) await this.#flush();
    }
    elements.removeRest(layout);
    this.#plan.forget(staleClients(clients, mirror));
    mirror.forgotten = [];
    // Many removals after a long absence are spread like additions; the base chains may have to change with the rest.
    const foreign = this.#removals();
    const removals = [
      ...foreign.references,
      ...(this.#options.discardLater === undefined
        ? foreign.chains.map((one) => (batch: Batch) => void batch.delete(one))
        : []),
    ];
    this.#fillBatch();
    for (const base of layout.baseChains) this.#structure.repair(base, this.#batch);
    const atOnce = removals.length <= foreignAtOnce;
    if (atOnce) for (const remove of removals) remove(this.#batch);
    await this.#commit();
    if (!atOnce) await this.#inSteps(removals);
    this.#options.discardLater?.(foreign.chains);
    return mirror;
  }

  readonly #sink: ElementSink = {
    add: (set, element) => this.#plan.add(set, element),
    remove: (set, element) => this.#plan.remove(set, element),
  };

  /** Reads elements; what is returned are the remembered clients. */
  async #read(elements: KernelElements): Promise<Element[]> {
    const { layout, nft, reader } = this.#options;
    for (const name of elements.sets) {
      if (this.#structure.hasSet(name)) await elements.read(reader, layout.table, layout.sets.get(name)!);
    }
    for (const [name, wanted] of this.#options.fixed) {
      const actual = this.#structure.hasSet(name) ? nft.listElements(layout.table, name) : [];
      if (sameElements(actual, wanted)) continue;
      for (const element of actual) this.#plan.remove(name, element);
      for (const element of wanted) this.#plan.add(name, element);
    }
    return this.#structure.hasSet('sticky-clients') ? nft.listElements(layout.table, 'sticky-clients') : [];
  }

  /** Table, sets and chains without a hook. */
  #makeStructure(): void {
    const { layout } = this.#options;
    const batch = this.#batch;
    // Added again without its flag, a table that sleeps wakes up.
    if (!this.#structure.hasTable || this.#structure.isDormant) batch.add(layout.table);
    for (const [name, set] of layout.sets) if (!this.#structure.hasSet(name)) batch.add(set);
    for (const one of layout.chains) this.#structure.repair(one, batch);
  }

  #fillBatch(): void {
    const { layout, mirror } = this.#options;
    for (const one of mirror.chains.take().made) this.#structure.repair(one, this.#batch);
    this.#plan.toBatch(layout, this.#batch);
    this.#plan = new Plan();
  }

  async #flush(): Promise<void> {
    this.#fillBatch();
    await this.#commit();
  }

  /** Lets others have the processor between two transactions. */
  async #commit(): Promise<void> {
    if (this.#batch.empty) return;
    this.#options.commit(this.#batch);
    // The buffer stays: a new one for each transaction would be a lot of memory for the collector to find.
    this.#batch.clear();
    await new Promise((resolve) => setImmediate(resolve));
  }

  #removals(): ReturnType<Structure['removals']> {
    const { layout, mirror } = this.#options;
    const names = new Set<string>(layout.sets.keys());
    for (const { chain } of [...layout.chains, ...layout.baseChains]) names.add(chain.name);
    return this.#structure.removals(layout, (name) =>
      isServiceChain(name) ? mirror.chains.has(name) : names.has(name),
    );
  }

  async #inSteps(removals: readonly ((batch: Batch) => void)[]): Promise<void> {
    for (let i = 0; i < removals.length; i += foreignChunk) {
      for (const remove of removals.slice(i, i + foreignChunk)) remove(this.#batch);
      await this.#commit();
    }
  }
}
