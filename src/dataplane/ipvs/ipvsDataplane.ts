/** IPVS mode for one family: brings virtual servers, addresses, sets and rules to the routes, and watches for other hands. */
import type { Family } from '../../api/objects.ts';
import { Iptables, IptablesError } from '../../linux/iptables/iptables.ts';
import type { Ipvs } from '../../linux/netlink/ipvs/ipvs.ts';
import type { VirtualServer } from '../../linux/netlink/ipvs/objects.ts';
import { watchLinkAddressChanges } from '../../linux/netlink/route.ts';
import type { Logger } from '../../log/logger.ts';
import { cidrContains } from '../../services/ip.ts';
import type { RoutingTable } from '../../services/types.ts';
import type { Dataplane, DataplaneEvents, DataplaneReport, SyncRequest, SyncResult } from '../dataplane.ts';
import { mayBeNodes, meaningOf, type AddressEvent } from './addressEvents.ts';
import { applyPlan, type Rules } from './apply.ts';
import { openIpvs, probeScheduler, restoreHint } from './checks.ts';
import { IpvsCounts } from './counts.ts';
import { DriftCheck, objectOf, sameTexts, type Mirror } from './drift.ts';
import { closeKernel, ensureSets, openKernel, readApplied, type Kernel } from './kernel.ts';
import { nodeSideOf } from './nodeSide.ts';
import { ownership } from './ownership.ts';
import { everything, plan, type Applied, type Plan, type PlanContext } from './plan.ts';
import { compareRules } from './readRules.ts';
import { Retirement } from './retirement.ts';
import { printRules, rulesOf, type RuleSet } from './rules.ts';
import { settingsOf, type IpvsOptions, type Settings } from './settings.ts';
import { translate } from './translate.ts';
import { Touched, Wanted } from './wanted.ts';

export interface IpvsDependencies {
  readonly log: Logger;
  readonly report: (report: DataplaneReport) => void;
  readonly events: DataplaneEvents;
  /** Milliseconds between two looks for changes by others; default 4 s. */
  readonly checkInterval?: number;
  /** What somebody else changed is put back; default true. If false, it is reported only. */
  readonly repairDrift?: boolean;
  /** Milliseconds between two looks at real servers on their way out; default a minute. */
  readonly retirementInterval?: number;
  /** The kernel's IPVS, but in tests on kernels without. */
  readonly ipvs?: () => Ipvs;
  /** Kind of kube-ipvs0, but in tests on kernels without dummy devices. */
  readonly deviceKind?: string;
}

const defaultCheckInterval = 4000;
const defaultRetirementInterval = 60_000;
/** Share of the time that looking for changes by others may take. */
const checkShare = 1 / 20;

export class IpvsDataplane implements Dataplane {
  readonly mode = 'ipvs';
  readonly family: Family;
  readonly counters: IpvsCounts;
  readonly #options: IpvsOptions;
  readonly #deps: IpvsDependencies;
  readonly #log: Logger;
  readonly #retirement = new Retirement();
  #settings: Settings;
  #kernel: Kernel | undefined;
  /** Undefined before the first sync and after a failed one: the next sync is a full one. */
  #mirror: Mirror | undefined;
  /** No full sync has succeeded yet. */
  #first = true;
  #syncing = false;
  /** Counts syncs, so that a look during which one began is not believed. */
  #epoch = 0;
  readonly #driftCheck = new DriftCheck();
  #drift: string | undefined;
  /** What is wrong and stays so, where nothing is repaired: told once. */
  #left: string | undefined;
  #timers: NodeJS.Timeout[] = [];
  #stopWatching: (() => void) | undefined;
  /** Told already; a full sync is due. */
  #addressesChanged = false;
  /** The node's addresses may have changed while a sync was on, after it had read them. */
  #missedAddresses = false;

  constructor(options: IpvsOptions, deps: IpvsDependencies) {
    this.family = options.family;
    this.counters = new IpvsCounts(options.family);
    this.#options = options;
    this.#deps = deps;
    this.#log = deps.log;
    // Fails here and not in a sync if the local detector cannot be a rule.
    this.#settings = settingsOf(options, false);
  }

  async start(): Promise<void> {
    const iptables = await Iptables.open(this.family);
    if (!(await iptables.usable()))
      throw new Error(
        `IPVS mode cannot work for ${this.family}: table nat cannot be read; install package iptables, and give the process CAP_NET_ADMIN`,
      );
    this.#settings = settingsOf(this.#options, iptables.features.randomFully);
    const ipvs = (this.#deps.ipvs ?? openIpvs)();
    this.#kernel = openKernel(iptables, ipvs, this.#deps.deviceKind);
    const { sets, device } = this.#kernel;
    try {
      probeScheduler(ipvs, this.family, this.#settings.scheduler);
      sets.probe();
      device.ensure();
    } catch (error) {
      await this.stop();
      throw error;
    }
    this.#stopWatching = watchLinkAddressChanges((event) => this.#addressEvent(event));
    this.#scheduleLook(this.#checkInterval);
    this.#timers.push(
      setInterval(
        () => this.checkRetirement(),
        this.#deps.retirementInterval ?? defaultRetirementInterval,
      ).unref(),
    );
  }

  async sync(request: SyncRequest): Promise<SyncResult> {
    const kernel = this.#kernel;
    if (kernel === undefined) throw new Error('IPVS mode: sync before start');
    const mirror = this.#mirror;
    const full = request.full || mirror === undefined;
    this.#syncing = true;
    this.#epoch++;
    this.#mirror = undefined;
    try {
      this.#mirror = full
        ? await this.#syncFull(kernel, request.table)
        : await this.#syncPartial(kernel, mirror, request);
    } catch (error) {
      this.#deps.report({ kind: 'ipvsSyncFailure' });
      throw error;
    } finally {
      this.#syncing = false;
    }
    if (this.#missedAddresses) this.#compareAddresses(kernel, this.#mirror);
    return { full };
  }

  async stop(): Promise<void> {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers = [];
    this.#stopWatching?.();
    this.#stopWatching = undefined;
    const kernel = this.#kernel;
    this.#kernel = undefined;
    if (kernel !== undefined) closeKernel(kernel);
    return Promise.resolve();
  }

  /** Real servers that wait for their connections to end. */
  get retiring(): number {
    return this.#retirement.size;
  }

  /** Removes real servers whose connections have ended. Called every minute. */
  checkRetirement(): void {
    const kernel = this.#kernel;
    if (kernel === undefined || this.#syncing) return;
    this.#retirement.check(
      kernel.ipvs,
      (key, real) => {
        this.#mirror?.applied.servers.get(key)?.reals.delete(real);
        this.#log.info('Removed a real server whose connections have ended', { server: key, real }, 2);
      },
      (err) => this.#log.error('Cannot look at real servers on their way out', { err }),
    );
  }

  async #syncPartial(kernel: Kernel, mirror: Mirror, request: SyncRequest): Promise<Mirror> {
    const { wanted, node, applied } = mirror;
    const touched = new Touched();
    for (const { before, after } of request.changes.changes) {
      if (before !== undefined) wanted.remove(translate(before, this.#settings, node), touched);
      if (after !== undefined) wanted.add(translate(after, this.#settings, node), touched);
    }
    const steps = plan(
      wanted,
      applied,
      touched,
      this.#context(() => true, false),
    );
    const same = wanted.shape === mirror.shape;
    const rules = same ? mirror.rules : this.#rules(wanted);
    const text = same ? mirror.text : printRules(rules);
    // All rules at once: they are few, and each table is exchanged in one step.
    const write = async (): Promise<void> => {
      if (text !== mirror.text) await this.#restore(kernel, text);
    };
    await this.#apply(kernel, applied, steps, { write, last: false });
    mirror.rules = rules;
    mirror.text = text;
    mirror.shape = wanted.shape;
    return mirror;
  }

  async #syncFull(kernel: Kernel, table: RoutingTable): Promise<Mirror> {
    kernel.device.ensure();
    await ensureSets(kernel, this.#log);
    this.#addressesChanged = false;
    const { device, node: addresses } = kernel.device.addresses();
    const node = nodeSideOf(this.#settings.nodePortAddresses, addresses);
    const wanted = new Wanted();
    for (const route of table.routes.values()) wanted.add(translate(route, this.#settings, node));
    const applied = await readApplied(kernel, this.family, device);
    const ours = ownership(applied, node);
    const context = this.#context(ours, this.#first);
    const steps = plan(wanted, applied, everything(wanted, applied), context);
    const rules = this.#rules(wanted);
    const text = printRules(rules);
    const { tables, missing, otherMode } = await compareRules(kernel.iptables, rules);
    const write = async (): Promise<void> => {
      if (tables.length > 0) await this.#restore(kernel, printRules(rules, missing, tables));
    };
    await this.#apply(kernel, applied, steps, { write, last: this.#first && otherMode });
    this.#first = false;
    this.#left = undefined;
    // What is not ours is nothing to us from here on.
    for (const [key, { server }] of applied.servers)
      if (wanted.server(key) === undefined && !ours(server)) applied.servers.delete(key);
    if (this.#drift !== undefined) {
      this.#deps.report({ kind: 'repaired', what: this.#drift });
      this.#log.info('Put back what somebody else had changed', { family: this.family, what: this.#drift });
      this.#drift = undefined;
    }
    return { wanted, applied, node, rules, text, shape: wanted.shape };
  }

  #context(ours: (server: VirtualServer) => boolean, first: boolean): PlanContext {
    const { excluded } = this.#settings;
    return {
      mayDelete: (server) => ours(server) && !excluded.some((cidr) => cidrContains(cidr, server.address)),
      retiring: (key, real) => this.#retirement.has(key, real),
      first,
    };
  }

  #rules(wanted: Wanted): RuleSet {
    return rulesOf(this.#settings, (id) => wanted.filled(id), wanted.outFilter);
  }

  async #restore(kernel: Kernel, text: string): Promise<void> {
    this.#driftCheck.rulesChange();
    try {
      await kernel.iptables.restore(text);
      this.counters.rulesWritten();
    } catch (error) {
      if (!(error instanceof IptablesError)) throw error;
      throw new Error(`${error.message}\n${restoreHint(error.message)}`, { cause: error });
    }
  }

  #apply(kernel: Kernel, applied: Applied, steps: Plan, rules: Rules): Promise<void> {
    const target = { family: this.family, kernel, applied, retirement: this.#retirement, log: this.#log };
    return applyPlan(target, steps, rules);
  }

  get #checkInterval(): number {
    return this.#deps.checkInterval ?? defaultCheckInterval;
  }

  #scheduleLook(milliseconds: number): void {
    const timer = setTimeout(() => {
      this.#timers = this.#timers.filter((one) => one !== timer);
      const begun = performance.now();
      this.lookForDrift()
        .catch((err: unknown) => this.#log.error('Cannot check what the kernel holds', { err }))
        .finally(() => {
          if (this.#kernel === undefined) return;
          this.#scheduleLook(Math.max(this.#checkInterval, (performance.now() - begun) / checkShare));
        });
    }, milliseconds).unref();
    this.#timers.push(timer);
  }

  /** One look for changes by others, now; asks for a full sync, and answers what was wrong. */
  async lookForDrift(): Promise<string | undefined> {
    const kernel = this.#kernel;
    const mirror = this.#mirror;
    // Before the first sync and after a failed one there is nothing to compare with: a full sync is due anyway.
    if (kernel === undefined || mirror === undefined || this.#syncing) return undefined;
    const epoch = this.#epoch;
    const holds = (): boolean => epoch === this.#epoch && this.#kernel !== undefined;
    const wrong = await this.#driftCheck.look(kernel, mirror, holds);
    if (wrong === undefined || !holds()) return undefined;
    this.#drifted(wrong);
    return wrong;
  }

  #drifted(what: string): void {
    const repairing = this.#deps.repairDrift ?? true;
    if (repairing || what !== this.#left)
      this.#deps.report({ kind: 'changedByOthers', what, object: objectOf(what), by: '', repairing });
    if (!repairing) {
      this.#left = what;
      return;
    }
    this.#drift = what;
    this.#deps.events.resync(`IPVS state of ${this.family} was changed by somebody else: ${what}`);
  }

  #addressEvent(event: AddressEvent): void {
    const kernel = this.#kernel;
    const mirror = this.#mirror;
    if (kernel === undefined || this.#addressesChanged) return;
    if (mirror === undefined) {
      this.#missedAddresses ||= mayBeNodes(event, kernel.device);
      return;
    }
    // Something that is gone has been told already: to look at the kernel for each of many would take long.
    if ((this.#drift ?? this.#left) !== undefined && !mayBeNodes(event, kernel.device)) return;
    const meaning = meaningOf(event, this.family, kernel.device, mirror);
    if (meaning === 'node') this.#addressesHaveChanged();
    else if (meaning !== undefined) this.#drifted(meaning.gone);
  }

  #compareAddresses(kernel: Kernel, mirror: Mirror): void {
    this.#missedAddresses = false;
    const { node } = kernel.device.addresses();
    if (!sameTexts(node, mirror.node.addresses)) this.#addressesHaveChanged();
  }

  #addressesHaveChanged(): void {
    this.#addressesChanged = true;
    this.#deps.events.resync('addresses of this node changed');
  }
}
