/** nftables mode for one family: every change of the routing table is one transaction over netlink. */
import { release } from 'node:os';
import { listLocalAddresses, watchAddresses } from '../../linux/addresses.ts';
import { EBUSY, ERESTART, isRefusal } from '../../linux/netlink/errors.ts';
import { Batch } from '../../linux/netlink/nftables/batch.ts';
import type { Chain, Element } from '../../linux/netlink/nftables/objects.ts';
import { NftSocket } from '../../linux/netlink/nftables/socket.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from '../../linux/netlink/socket.ts';
import type { Logger } from '../../log/logger.ts';
import type { Dataplane, DataplaneEvents, DataplaneReport, SyncRequest, SyncResult } from '../dataplane.ts';
import { NftablesCounts } from './counts.ts';
import { intervalElements, nodeAddressElements, sameElements } from './fixedSets.ts';
import { makeLayout, type Layout, type NftablesOptions, type SetName } from './layout.ts';
import { Mirror, type Forgotten } from './mirror.ts';
import { Plan } from './plan.ts';
import { probe } from './probe.ts';
import { Reconciliation } from './reconciliation.ts';
import { forgottenClients } from './stickyClients.ts';
import { TableWatch, type ForeignTransaction } from './tableWatch.ts';

/** What the mode uses of the machine; all but the first three have the real thing as their default. */
export interface NftablesDependencies {
  readonly log: Logger;
  readonly report: (report: DataplaneReport) => void;
  readonly events: DataplaneEvents;
  /** What somebody else changed is put back; default true. If false, it is reported only. */
  readonly repairDrift?: boolean;
  /** Canonical addresses of this node's interfaces. */
  readonly localAddresses?: () => readonly string[];
  /** Calls back when an address comes or goes, until the function returned is called. */
  readonly watchAddresses?: (callback: () => void) => () => void;
  /** Whether a chain can be removed in the transaction that removes the elements that lead to it: Linux 6.2 and later. */
  readonly removesChainsAtOnce?: boolean;
}

/** Somebody else changed our table while we were at it: what was read is out of date. */
class ForeignChange extends Error {
  override readonly name = 'ForeignChange';
}

/** Elements; a larger sync is more than one transaction, each with whole service ports. */
const transactionMax = 20_000;
const commitAttempts = 20;
const fullSyncAttempts = 5;
/** Milliseconds: clients that got an endpoint while it was being removed are looked for after this. */
const sweepDelay = 100;
/** Milliseconds: repairs that follow each other more closely than this wait longer and longer, up to the maximum. */
const repairSpacing = 200;
const repairDelayMax = 5000;
/** Milliseconds: before Linux 6.2 a chain counts as in use for a moment after the element that led to it was removed. */
const chainRemovalDelay = 1000;

export class NftablesDataplane implements Dataplane {
  readonly mode = 'nftables';
  readonly family: Dataplane['family'];
  readonly #options: NftablesOptions;
  readonly #deps: NftablesDependencies;
  readonly #log: Logger;
  readonly #layout: Layout;
  readonly #removesChainsAtOnce: boolean;
  readonly #batch = new Batch();
  /** Undefined where nothing is counted. */
  readonly counters: NftablesCounts | undefined;
  #nft: NftSocket | undefined;
  #reader: NetlinkSocket | undefined;
  #watch: TableWatch | undefined;
  #unwatchAddresses: (() => void) | undefined;
  /** Undefined before the first sync and after a failed one: the next sync is a full one. */
  #mirror: Mirror | undefined;
  /** Where connections are counted: the last mirror there was, for readings while it is made anew. */
  #counted: Mirror | undefined;
  #serviceCIDRs: readonly Element[] = [];
  /** What they were made of: the same list again needs no look. */
  #serviceCIDRTexts: readonly string[] | undefined;
  #nodeAddresses: readonly Element[] = [];
  #syncing = false;
  /** The kernel is being compared with what is wanted: a change meanwhile makes that void, repairs or not. */
  #comparing = false;
  readonly #repairs: boolean;
  #addressesDirty = false;
  /** What somebody else changed, until a full sync has put it right. */
  #drift: string | undefined;
  #lastRepair = -Infinity;
  #repairDelay = 0;
  #repairTimer: NodeJS.Timeout | undefined;
  #unswept: Forgotten[] = [];
  #sweepTimer: NodeJS.Timeout | undefined;
  /** Chains out of use that the kernel may still call busy. */
  #discarded = new Map<string, Chain>();
  #discardTimer: NodeJS.Timeout | undefined;

  constructor(options: NftablesOptions, deps: NftablesDependencies) {
    this.family = options.family;
    this.#options = options;
    this.#deps = deps;
    this.#log = deps.log;
    this.#repairs = deps.repairDrift ?? true;
    this.#removesChainsAtOnce = deps.removesChainsAtOnce ?? kernelIsAtLeast(6, 2);
    // Fails here and not in a sync if the local detector cannot be a rule.
    this.#layout = makeLayout(options);
    if ((options.serviceCounters ?? 'off') !== 'off') {
      this.counters = new NftablesCounts({
        layout: this.#layout,
        mirror: () => this.#counted,
        drain: () => this.#watch?.drain(),
        generation: () => this.#watch?.generation ?? 0,
      });
    }
  }

  /** Sockets are opened before this returns, in the network namespace of the thread. */
  start(): Promise<void> {
    const nft = new NftSocket();
    this.#nft = nft;
    try {
      probe(nft, this.#options);
      this.#reader = new NetlinkSocket({ protocol: NETLINK_NETFILTER, receiveBuffer: 4 << 20 });
      this.#watch = new TableWatch(
        this.#layout.table,
        nft.portId,
        () => nft.generation().id,
        (change) => this.#foreignChange(change),
        this.counters === undefined ? undefined : (message) => this.counters?.takeRemoval(message),
        {
          sets: this.#layout.sets,
          chains: new Set([...this.#layout.baseChains, ...this.#layout.chains].map((one) => one.chain.name)),
        },
      );
      if (!this.#layout.allNodeAddresses) {
        const watch = this.#deps.watchAddresses ?? watchAddresses;
        this.#unwatchAddresses = watch(() => this.#addressesChanged());
      }
    } catch (error) {
      this.#close();
      return Promise.reject(error instanceof Error ? error : new Error(String(error)));
    }
    this.#log.info('Using nftables over netlink', { family: this.family, kernel: release() });
    return Promise.resolve();
  }

  async sync(request: SyncRequest): Promise<SyncResult> {
    this.#syncing = true;
    try {
      return await this.#sync(request);
    } catch (error) {
      this.#mirror = undefined;
      this.#deps.report({ kind: 'nftablesSyncFailure' });
      // Somebody writes faster than tables can be compared: tried again sooner than after any other failure.
      if (error instanceof ForeignChange && this.#repairs) this.#askForRepair(error.message);
      throw error;
    } finally {
      this.#syncing = false;
      if (this.#addressesDirty) this.#addressesChanged();
    }
  }

  stop(): Promise<void> {
    this.#close();
    return Promise.resolve();
  }

  async #sync(request: SyncRequest): Promise<SyncResult> {
    const mirror = this.#mirror;
    if (!request.full && mirror !== undefined && this.#drift === undefined) {
      try {
        this.#syncPartial(mirror, request);
        return { full: false };
      } catch (error) {
        this.#mirror = undefined;
        if (!(error instanceof ForeignChange)) {
          this.#deps.report({ kind: 'nftablesSyncFailure' });
          this.#log.error('A partial sync failed; comparing the whole table with the kernel now', {
            err: error,
          });
        }
      }
    }
    await this.#syncFull(request);
    return { full: true };
  }

  /** Nothing in here waits: the change is in force when it returns. */
  #syncPartial(mirror: Mirror, request: SyncRequest): void {
    const { counters } = this;
    let plan = new Plan(counters);
    for (const change of request.changes.changes) {
      counters?.changing(mirror.entries.get(change.id));
      mirror.apply(change.id, change.after, plan);
      // Half a cluster at once: others want to get at the kernel as well.
      if (plan.size < transactionMax) continue;
      this.#commitPlan(mirror, plan);
      plan = new Plan(counters);
    }
    counters?.changing(undefined);
    if (request.serviceCIDRs !== this.#serviceCIDRTexts) {
      const serviceCIDRs = intervalElements(request.serviceCIDRs);
      this.#planFixed('service-cidrs', this.#serviceCIDRs, serviceCIDRs, plan);
      this.#serviceCIDRs = serviceCIDRs;
      this.#serviceCIDRTexts = request.serviceCIDRs;
    }
    this.#commitPlan(mirror, plan);
  }

  #planFixed(set: SetName, before: readonly Element[], now: readonly Element[], plan: Plan): void {
    if (before === now || sameElements(before, now)) return;
    for (const element of before) plan.remove(set, element);
    for (const element of now) plan.add(set, element);
  }

  #commitPlan(mirror: Mirror, plan: Plan): void {
    const { made, gone } = mirror.chains.take();
    const { forgotten } = mirror;
    if (forgotten.length > 0) {
      mirror.forgotten = [];
      plan.forget(forgottenClients(this.#clients(), forgotten));
    }
    const batch = this.#batch;
    batch.clear();
    for (const { chain, rules } of made) {
      // One that waited to be removed is wanted again.
      if (this.#discarded.delete(chain.name)) batch.flush(chain);
      batch.add(chain);
      for (const rule of rules) batch.add(rule);
    }
    plan.toBatch(this.#layout, batch);
    const atOnce = this.#removesChainsAtOnce;
    if (atOnce) for (const { chain } of gone) batch.delete(chain);
    this.#commit(batch);
    if (!atOnce) this.#discard(gone.map(({ chain }) => chain));
    if (forgotten.length > 0) this.#sweepLater(forgotten);
  }

  async #syncFull(request: SyncRequest): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#reconcile(request);
        break;
      } catch (error) {
        this.#mirror = undefined;
        if (!(error instanceof ForeignChange) || attempt >= fullSyncAttempts) throw error;
      }
    }
    const drift = this.#drift;
    this.#drift = undefined;
    if (drift === undefined) return;
    this.#deps.report({ kind: 'repaired', what: drift });
    this.#log.info('Put back nftables rules that somebody else had changed', { what: drift });
  }

  async #reconcile(request: SyncRequest): Promise<void> {
    const nft = this.#nft;
    const watch = this.#watch;
    const reader = this.#reader;
    if (nft === undefined || watch === undefined || reader === undefined)
      throw new Error('nftables mode: sync before start');
    watch.drain();
    watch.foreign = undefined;
    this.counters?.forgetPlans();
    this.#comparing = true;
    try {
      await this.#compare(request, nft, watch, reader);
    } finally {
      this.#comparing = false;
    }
  }

  async #compare(
    request: SyncRequest,
    nft: NftSocket,
    watch: TableWatch,
    reader: NetlinkSocket,
  ): Promise<void> {
    this.#addressesDirty = false;
    // What of them is still there and unused is found again.
    this.#discarded.clear();
    const serviceCIDRs = intervalElements(request.serviceCIDRs);
    const nodeAddresses = this.#readNodeAddresses();
    const reconciliation = new Reconciliation({
      layout: this.#layout,
      nft,
      reader,
      mirror: new Mirror(this.#layout, this.#options.nodeIP),
      fixed: new Map([
        ['service-cidrs', serviceCIDRs],
        ...(this.#layout.allNodeAddresses ? [] : ([['node-addresses', nodeAddresses]] as const)),
      ]),
      commit: (batch) => this.#commit(batch),
      discardLater: this.#removesChainsAtOnce ? undefined : (chains) => this.#discard(chains),
      log: this.#log,
    });
    const mirror = await reconciliation.run(request.table);
    this.#serviceCIDRs = serviceCIDRs;
    this.#serviceCIDRTexts = request.serviceCIDRs;
    this.#nodeAddresses = nodeAddresses;
    watch.drain();
    if (watch.foreign !== undefined) throw new ForeignChange(watch.foreign);
    this.#mirror = mirror;
    if (this.counters !== undefined) this.#counted = mirror;
  }

  /** One transaction, made for the ruleset as we know it. Throws ForeignChange if our table is no more as we know it. */
  #commit(batch: Batch): void {
    const nft = this.#nft;
    const watch = this.#watch;
    if (nft === undefined || watch === undefined) throw new Error('nftables mode: commit after stop');
    if (batch.empty) return;
    for (let attempt = 1; ; attempt++) {
      watch.drain();
      if (watch.foreign !== undefined && (this.#repairs || this.#comparing))
        throw new ForeignChange(watch.foreign);
      try {
        nft.commit(batch, { generation: watch.generation });
        this.counters?.committed();
        return;
      } catch (error) {
        // Somebody was faster, most likely in a table of their own: the events will tell.
        if (!isRefusal(error, ERESTART) || attempt >= commitAttempts) throw error;
      }
    }
  }

  #foreignChange({ what: change, object, by }: ForeignTransaction): void {
    const repairing = this.#repairs;
    this.#deps.report({ kind: 'changedByOthers', what: change, object, by, repairing });
    if (!repairing) {
      if (!this.#comparing && this.#watch !== undefined) this.#watch.foreign = undefined;
      return;
    }
    // The first change since the last repair names the rest.
    if (this.#drift !== undefined) return;
    this.#drift = change;
    // The sync that is on will see it, and starts again.
    if (!this.#syncing) this.#askForRepair(change);
  }

  /** At once, if the last repair was long ago; else later and later, up to `repairDelayMax`. */
  #askForRepair(change: string): void {
    const since = performance.now() - this.#lastRepair;
    this.#repairDelay =
      since > 10 * repairSpacing + this.#repairDelay
        ? 0
        : Math.min(Math.max(10, this.#repairDelay * 2), repairDelayMax);
    this.#lastRepair = performance.now() + this.#repairDelay;
    const ask = (): void => {
      this.#repairTimer = undefined;
      this.#deps.events.resync(
        `table ${this.#layout.family} kube-proxy was changed by somebody else: ${change}`,
      );
    };
    clearTimeout(this.#repairTimer);
    if (this.#repairDelay === 0) ask();
    else this.#repairTimer = setTimeout(ask, this.#repairDelay);
  }

  #readNodeAddresses(): readonly Element[] {
    if (this.#layout.allNodeAddresses) return [];
    try {
      const local = (this.#deps.localAddresses ?? ownAddresses)();
      return nodeAddressElements(
        this.#options.nodePortAddresses,
        local,
        this.#layout.family === 'ip6' ? 16 : 4,
      );
    } catch (error) {
      this.#log.error("Cannot list this node's addresses; node ports answer on those known before", {
        err: error,
      });
      return this.#nodeAddresses;
    }
  }

  #addressesChanged(): void {
    const mirror = this.#mirror;
    this.#addressesDirty = this.#syncing;
    if (this.#syncing || mirror === undefined) return;
    const now = this.#readNodeAddresses();
    if (sameElements(this.#nodeAddresses, now)) return;
    try {
      const plan = new Plan();
      this.#planFixed('node-addresses', this.#nodeAddresses, now, plan);
      this.#commitPlan(mirror, plan);
      this.#nodeAddresses = now;
      this.#log.info('Node port addresses changed', { addresses: now.length });
    } catch (error) {
      this.#mirror = undefined;
      const reason = error instanceof Error ? error.message : String(error);
      this.#deps.events.resync(`the addresses of node ports could not be changed: ${reason}`);
    }
  }

  #clients(): Element[] {
    return this.#nft?.listElements(this.#layout.table, 'sticky-clients') ?? [];
  }

  /** A packet that was on its way during the change may have recorded an endpoint that was just removed. */
  #sweepLater(forgotten: readonly Forgotten[]): void {
    for (const one of forgotten) this.#unswept.push(one);
    this.#sweepTimer ??= setTimeout(() => {
      this.#sweepTimer = undefined;
      const unswept = this.#unswept;
      this.#unswept = [];
      if (this.#mirror === undefined || this.#syncing) return;
      try {
        const plan = new Plan();
        // An endpoint may have come back meanwhile: its clients then choose again, which is what they did before.
        plan.forget(forgottenClients(this.#clients(), unswept));
        if (plan.size > 0) this.#commitPlan(this.#mirror, plan);
      } catch (error) {
        if (!(error instanceof ForeignChange))
          this.#log.error('Cannot remove remembered clients of endpoints that are gone', { err: error });
      }
    }, sweepDelay);
    this.#sweepTimer.unref();
  }

  #discard(chains: readonly Chain[]): void {
    for (const one of chains) this.#discarded.set(one.name, one);
    if (this.#discarded.size === 0) return;
    this.#discardTimer ??= setTimeout(() => {
      this.#discardTimer = undefined;
      if (this.#mirror === undefined || this.#syncing) return this.#discard([]);
      const batch = new Batch();
      for (const one of this.#discarded.values()) batch.flush(one);
      for (const one of this.#discarded.values()) batch.delete(one);
      try {
        this.#commit(batch);
        this.#discarded.clear();
      } catch (error) {
        if (isRefusal(error, EBUSY)) return this.#discard([]);
        this.#discarded.clear();
        if (error instanceof ForeignChange) return;
        this.#deps.report({ kind: 'nftablesCleanupFailure' });
        this.#log.error('Cannot remove chains that are no longer used', { err: error });
      }
    }, chainRemovalDelay);
    this.#discardTimer.unref();
  }

  #close(): void {
    clearTimeout(this.#repairTimer);
    clearTimeout(this.#sweepTimer);
    clearTimeout(this.#discardTimer);
    this.#unwatchAddresses?.();
    this.#unwatchAddresses = undefined;
    this.#watch?.close();
    this.#watch = undefined;
    this.#reader?.close();
    this.#reader = undefined;
    this.#nft?.close();
    this.#nft = undefined;
    this.#mirror = undefined;
  }
}

function ownAddresses(): readonly string[] {
  return listLocalAddresses().map((entry) => entry.address);
}

function kernelIsAtLeast(major: number, minor: number): boolean {
  const [has = 0, hasMinor = 0] = release().split('.').map(Number);
  return has > major || (has === major && hasMinor >= minor);
}
