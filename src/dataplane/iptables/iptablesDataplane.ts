/** iptables mode for one family: decides between partial and full syncs, applies documents, watches for other hands. */
import { IptablesCounts, type RuleCounts } from './counts.ts';
import { NftCounts } from './nftCounts.ts';
import { Iptables, IptablesError, type IptablesOptions } from '../../linux/iptables/iptables.ts';
import { openFingerprint, type Fingerprint } from '../../linux/iptables/fingerprint.ts';
import { listLocalAddresses } from '../../linux/addresses.ts';
import { AccountingCounters } from '../../linux/netlink/nfacct.ts';
import type { NetlinkSocket, NetlinkSocketOptions } from '../../linux/netlink/socket.ts';
import { conntrackBeLiberal } from '../../linux/sysctl.ts';
import type { Logger } from '../../log/logger.ts';
import type {
  ChangeByOthers,
  Dataplane,
  DataplaneEvents,
  DataplaneOptions,
  DataplaneReport,
  SyncRequest,
  SyncResult,
} from '../dataplane.ts';
import type { Actual } from './actual.ts';
import { DriftMonitor, type DriftCheck } from './driftMonitor.ts';
import { planFixed, planFull } from './fullPlan.ts';
import { routesOf, type Mirror } from './mirror.ts';
import { canaryChain, filterChains, firewallChain, natChains } from './names.ts';
import { legacyLimits, nftLimits, planPartial } from './partialPlan.ts';
import { readActual, readFixed } from './readActual.ts';
import type { RestoreDocument } from './restoreDocument.ts';
import type { Rule } from '../../linux/iptables/rule.ts';
import { invalidPacketsCounter, localhostNodePortsCounter, settingsOf, type Settings } from './settings.ts';
import { jumps, nodePortTail } from './staticRules.ts';

export interface IptablesDataplaneOptions extends DataplaneOptions {
  /** As configured; it is in force only for IPv4 and where nodePortAddresses covers loopback. */
  readonly localhostNodePorts: boolean;
  /** Counters of rules are asked for again and again: what rules that go have counted is kept. Default off. */
  readonly serviceCounters?: 'off' | 'services' | 'endpoints';
}

/** What the mode uses of the machine. All but the first three have the real thing as their default. */
export interface IptablesDependencies {
  readonly log: Logger;
  readonly report: (report: DataplaneReport) => void;
  readonly events: DataplaneEvents;
  /** Canonical addresses of this node's interfaces. */
  readonly localAddresses?: () => readonly string[];
  /** Makes an nfacct counter if it is missing; false = it is not to be had. */
  readonly ensureCounter?: (name: string) => boolean;
  readonly tcpBeLiberal?: () => boolean;
  readonly fingerprint?: (iptables: Iptables) => Fingerprint;
  readonly iptables?: IptablesOptions;
  /** Opens a netlink socket in the network namespace of the rules. */
  readonly netlink?: (options: NetlinkSocketOptions) => NetlinkSocket;
  /** Milliseconds between two looks for changes by others; default 4 s. */
  readonly checkInterval?: number;
  /** What somebody else changed is put back; default true. If false, it is reported only. */
  readonly repairDrift?: boolean;
}

const defaultCheckInterval = 4000;
/** Rules from which on a check with nft reads the chains that all service ports share, and all rules as often as the share below allows. */
const manyRules = 2000;
/** Share of the time that reading all rules of a large cluster may take. */
const wholeCheckShare = 1 / 20;

export class IptablesDataplane implements Dataplane {
  readonly mode = 'iptables';
  readonly family: Dataplane['family'];
  /** Which of the two is known when the kind of iptables is. */
  counters: RuleCounts = new IptablesCounts(() => this.#iptables);
  readonly #options: IptablesDataplaneOptions;
  readonly #deps: IptablesDependencies;
  readonly #log: Logger;
  #iptables: Iptables | undefined;
  #monitor: DriftMonitor | undefined;
  #counters: AccountingCounters | undefined | 'unavailable';
  #tcpBeLiberal = false;
  /** Undefined before the first sync and after a failed one: the next sync is a full one. */
  #mirror: Mirror | undefined;
  /** When reading all rules of a large cluster is affordable again, as performance.now(). */
  #nextWholeCheck = 0;
  /** iptables-save cannot print our tables: somebody added rules to them that only nft knows. */
  #unreadable = false;
  #drift: string | undefined;
  #skippedLoopback = '';

  constructor(options: IptablesDataplaneOptions, deps: IptablesDependencies) {
    this.family = options.family;
    this.#options = options;
    this.#deps = deps;
    this.#log = deps.log;
    // Fails here and not in a sync if the local detector cannot be a rule.
    this.#settings(false, false);
  }

  async start(): Promise<void> {
    const iptables = await Iptables.open(this.family, this.#deps.iptables ?? {});
    const { features } = iptables;
    if (!(await iptables.usable())) {
      throw new Error(
        `iptables mode cannot work for ${this.family}: table nat cannot be read; install iptables${this.family === 'IPv6' ? ' (ip6tables)' : ''} 1.6.2 or later, and give the process CAP_NET_ADMIN`,
      );
    }
    if (features.restoreWait.length === 0) {
      this.#log.warn('This iptables cannot wait for the xtables lock; use 1.6.2 or later', {
        version: features.version,
      });
    }
    this.#log.info('Using iptables', {
      family: this.family,
      version: features.version,
      backend: features.backend,
    });
    this.#iptables = iptables;
    if (features.backend === 'nft') {
      this.counters = new NftCounts({
        family: this.family,
        lastWords: (this.#options.serviceCounters ?? 'off') !== 'off',
        ...(this.#deps.netlink !== undefined && { open: this.#deps.netlink }),
      });
    }
    this.#tcpBeLiberal = (this.#deps.tcpBeLiberal ?? conntrackBeLiberal)();
    for (const table of ['mangle', 'nat', 'filter'] as const) await iptables.ensureChain(table, canaryChain);
    this.#monitor = new DriftMonitor({
      interval: this.#deps.checkInterval ?? defaultCheckInterval,
      fingerprint: (this.#deps.fingerprint ?? (() => openFingerprint(features.backend, this.family)))(
        iptables,
      ),
      check: async () => await this.#check(iptables),
      repairs: this.#deps.repairDrift ?? true,
      onDrift: (what) => {
        const repairing = this.#deps.repairDrift ?? true;
        this.#deps.report({ kind: 'changedByOthers', what, object: objectOf(what), by: '', repairing });
        if (!repairing) return;
        this.#drift = what;
        this.#deps.events.resync(`iptables rules of ${this.family} were changed by somebody else: ${what}`);
      },
      log: this.#log,
    });
    this.#monitor.start();
    iptables.keepRestoreReady();
  }

  async sync(request: SyncRequest): Promise<SyncResult> {
    const iptables = this.#iptables;
    const monitor = this.#monitor;
    if (iptables === undefined || monitor === undefined) throw new Error('iptables mode: sync before start');
    const { counters } = this;
    counters.changing(request.changes, request.table);
    const full = await this.#sync(iptables, monitor, request);
    counters.changed();
    return { full };
  }

  /** @returns whether it was a full one */
  async #sync(iptables: Iptables, monitor: DriftMonitor, request: SyncRequest): Promise<boolean> {
    const mirror = this.#mirror;
    if (!request.full && mirror !== undefined) {
      const recovered = await this.#syncPartial(iptables, monitor, mirror, request);
      if (!recovered) return false;
    }
    await this.#syncFull(iptables, monitor, request);
    return true;
  }

  stop(): Promise<void> {
    this.#iptables?.close();
    this.counters.close();
    this.#monitor?.stop();
    this.#monitor = undefined;
    if (this.#counters instanceof AccountingCounters) this.#counters.close();
    this.#counters = undefined;
    return Promise.resolve();
  }

  /** One look for changes by others, now; answers what was wrong. */
  async lookForDrift(): Promise<string | undefined> {
    return await this.#monitor?.look();
  }

  /** @returns true if it failed in a way that a full sync, now, may mend: the kernel's rules are not what we thought. */
  async #syncPartial(
    iptables: Iptables,
    monitor: DriftMonitor,
    mirror: Mirror,
    request: SyncRequest,
  ): Promise<boolean> {
    const limits = iptables.features.backend === 'nft' ? nftLimits : legacyLimits;
    const plan = planPartial(mirror, request.changes, this.#tail(mirror.settings), limits);
    const before = monitor.begin();
    const written = { filter: 0, nat: 0 };
    let ok = false;
    try {
      for (const document of plan.documents) {
        await this.counters.writing(document.text, () => iptables.restore(document.text));
        monitor.committed(commitsOf(document));
        written.filter += document.filter;
        written.nat += document.nat;
      }
      ok = true;
      plan.apply();
      this.#reportRules(mirror, written);
      return false;
    } catch (error) {
      this.#mirror = undefined;
      this.#deps.report({ kind: 'iptablesRestoreFailure', partial: true });
      if (!(error instanceof IptablesError) || error.lockHeld) throw error;
      this.#log.error('A partial sync failed; comparing all rules with the kernel now', {
        family: this.family,
        err: error,
      });
      return true;
    } finally {
      monitor.end(before, ok, false);
    }
  }

  async #syncFull(iptables: Iptables, monitor: DriftMonitor, request: SyncRequest): Promise<void> {
    const large = this.#isLarge(iptables);
    this.#mirror = undefined;
    const settings = this.#settings(
      this.#ensureCounter(invalidPacketsCounter),
      this.#ensureCounter(localhostNodePortsCounter),
    );
    const tail = this.#tail(settings);
    const limits = iptables.features.backend === 'nft' ? nftLimits : legacyLimits;
    const before = monitor.begin();
    let ok = false;
    try {
      if (await iptables.ensureChain('mangle', canaryChain)) monitor.committed(1);
      if (this.#drift !== undefined && large) {
        await this.#mendFixed(iptables, monitor, request, settings, tail);
      }
      const actual = await this.#readActual(iptables);
      if (actual === undefined) await this.#makeJumps(iptables);
      const plan = planFull(actual, request.table, settings, tail, limits);
      const written = { filter: 0, nat: 0 };
      for (;;) {
        const step = plan.next();
        if (step.done === true) {
          this.#mirror = step.value;
          break;
        }
        if (step.value === undefined) {
          await new Promise((resolve) => setImmediate(resolve));
          continue;
        }
        await this.#apply(iptables, monitor, step.value);
        written.filter += step.value.filter;
        written.nat += step.value.nat;
      }
      ok = true;
      this.#reportRules(this.#mirror, written);
      if (this.#drift !== undefined) {
        this.#deps.report({ kind: 'repaired', what: this.#drift });
        this.#log.info('Put back iptables rules that somebody else had changed', {
          family: this.family,
          what: this.#drift,
        });
        this.#drift = undefined;
      }
    } catch (error) {
      this.#mirror = undefined;
      if (error instanceof IptablesError)
        this.#deps.report({ kind: 'iptablesRestoreFailure', partial: false });
      throw error;
    } finally {
      monitor.end(before, ok, !this.#unreadable);
    }
  }

  /** Reading all rules takes seconds. */
  #isLarge(iptables: Iptables): boolean {
    return iptables.features.backend === 'nft' && (this.#mirror?.nat ?? 0) > manyRules;
  }

  /** In a large cluster, what somebody else broke in the shared chains is mended before all rules are read. */
  async #mendFixed(
    iptables: Iptables,
    monitor: DriftMonitor,
    request: SyncRequest,
    settings: Settings,
    tail: readonly Rule[],
  ): Promise<void> {
    try {
      for (const document of planFixed(await readFixed(iptables), request.table, settings, tail)) {
        await this.#apply(iptables, monitor, document);
      }
    } catch (error) {
      // Chains of service ports may be missing too: the full sync that follows finds out.
      this.#log.info(
        'Cannot mend the shared chains alone',
        { family: this.family, reason: String(error) },
        2,
      );
    }
  }

  async #apply(iptables: Iptables, monitor: DriftMonitor, document: RestoreDocument): Promise<void> {
    this.#log.info(
      'Writing iptables rules',
      { family: this.family, kind: document.kind, what: document.what },
      2,
    );
    try {
      await this.counters.writing(document.text, () => iptables.restore(document.text));
    } catch (error) {
      if (document.kind !== 'stale') throw error;
      // Nothing of ours refers to these chains, so packets are handled right; somebody else's rule may refer to one.
      this.#log.error('Cannot remove chains that are no longer used', { family: this.family, err: error });
      return;
    }
    monitor.committed(commitsOf(document));
  }

  /** Undefined if the rules cannot be read: then everything is written, and nothing stale removed. */
  async #readActual(iptables: Iptables): Promise<Actual | undefined> {
    try {
      const actual = await readActual(iptables);
      this.#unreadable = false;
      return actual;
    } catch (error) {
      this.#unreadable = true;
      this.#log.error(
        'Cannot read the iptables rules; writing all of them, and removing none that are stale',
        {
          family: this.family,
          err: error,
        },
      );
      return undefined;
    }
  }

  /** By direct commands, for a kernel whose rules cannot be read. */
  async #makeJumps(iptables: Iptables): Promise<void> {
    for (const chain of [...filterChains, firewallChain, canaryChain])
      await iptables.ensureChain('filter', chain);
    for (const chain of [...natChains, canaryChain]) await iptables.ensureChain('nat', chain);
    for (const jump of jumps) {
      await iptables.ensureRule(jump.table, jump.from, [...jump.match, '-j', jump.to]);
    }
  }

  /** Compares the kernel with what the last good sync left. */
  async #check(iptables: Iptables): Promise<DriftCheck> {
    const mirror = this.#mirror;
    if (mirror === undefined) return { wrong: undefined, complete: false };
    if (!(await iptables.chainExists('mangle', canaryChain))) {
      return { wrong: `chain ${canaryChain} of mangle missing`, complete: false };
    }
    if (this.#unreadable) return { wrong: await this.#missingChain(iptables), complete: true };
    const table = routesOf(mirror);
    const tail = this.#tail(mirror.settings);
    if (this.#isLarge(iptables)) {
      const fixed = planFixed(await readFixed(iptables), table, mirror.settings, tail).next();
      const wrong = fixed.done === true ? undefined : fixed.value.what;
      if (wrong !== undefined || performance.now() < this.#nextWholeCheck) return { wrong, complete: false };
    }
    const begun = performance.now();
    const plan = planFull(await readActual(iptables), table, mirror.settings, tail, nftLimits, mirror);
    let wrong: string | undefined;
    for (let step = plan.next(); step.done !== true && wrong === undefined; step = plan.next()) {
      if (step.value === undefined) await new Promise((resolve) => setImmediate(resolve));
      // Stale chains that cannot be removed are no reason to try for ever.
      else if (step.value.kind !== 'stale') wrong = step.value.what;
    }
    this.#nextWholeCheck = performance.now() + (performance.now() - begun) / wholeCheckShare;
    return { wrong, complete: true };
  }

  /** Where the rules cannot be read, it can still be told whether the chains are there. */
  async #missingChain(iptables: Iptables): Promise<string | undefined> {
    const chains = { filter: filterChains, nat: natChains };
    for (const table of ['filter', 'nat'] as const) {
      for (const chain of [canaryChain, ...chains[table]]) {
        if (!(await iptables.chainExists(table, chain))) return `chain ${chain} of ${table} missing`;
      }
    }
    return undefined;
  }

  #settings(countInvalid: boolean, countLocalhost: boolean): Settings {
    return settingsOf(this.#options, {
      tcpBeLiberal: this.#tcpBeLiberal,
      randomFully: this.#iptables?.features.randomFully ?? false,
      countInvalid,
      countLocalhost,
    });
  }

  #tail(settings: Settings): readonly Rule[] {
    let addresses: readonly string[] = [];
    try {
      addresses = (this.#deps.localAddresses ?? ownAddresses)();
    } catch (error) {
      this.#log.error("Cannot list this node's addresses; node ports of single addresses do not answer", {
        family: this.family,
        err: error,
      });
    }
    const { rules, skipped } = nodePortTail(settings, addresses);
    const said = skipped.join(' ');
    if (said !== '' && said !== this.#skippedLoopback) {
      this.#log.error('Node ports cannot answer on loopback addresses here; they are skipped', {
        addresses: said,
      });
    }
    this.#skippedLoopback = said;
    return rules;
  }

  #ensureCounter(name: string): boolean {
    if (this.#deps.ensureCounter !== undefined) return this.#deps.ensureCounter(name);
    try {
      if (this.#counters === undefined) {
        const counters = new AccountingCounters();
        this.#counters = counters.probe() ? counters : 'unavailable';
        if (this.#counters === 'unavailable') {
          counters.close();
          this.#log.info('nfacct counters are not available; rules go without them', { family: this.family });
        }
      }
      if (this.#counters === 'unavailable') return false;
      this.#counters.ensure(name);
      return true;
    } catch (error) {
      this.#log.error('Cannot make an nfacct counter; rules go without it', { counter: name, err: error });
      return false;
    }
  }

  #reportRules(mirror: Mirror, written: { filter: number; nat: number }): void {
    this.#deps.report({ kind: 'iptablesRules', table: 'filter', total: mirror.filter, last: written.filter });
    this.#deps.report({ kind: 'iptablesRules', table: 'nat', total: mirror.nat, last: written.nat });
  }
}

/** What kind of thing a plan would write for that reason. */
function objectOf(what: string): ChangeByOthers['object'] {
  if (what.startsWith('chain')) return 'chain';
  return what.startsWith('jump') ? 'jump' : 'rule';
}

function ownAddresses(): readonly string[] {
  return listLocalAddresses().map((entry) => entry.address);
}

/** How many commits the kernel sees: one for each section. A streamed document is one section. */
function commitsOf(document: RestoreDocument): number {
  if (typeof document.text !== 'string') return 1;
  let count = 0;
  for (let at = document.text.indexOf('COMMIT\n'); at >= 0; at = document.text.indexOf('COMMIT\n', at + 7))
    count++;
  return count;
}
