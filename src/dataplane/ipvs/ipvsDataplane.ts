/** IPVS mode for one family: brings virtual servers, addresses, sets and rules to the routes, and watches for other hands. */
import type { Family } from '../../api/objects.ts';
import { openFingerprint, type Fingerprint } from '../../linux/iptables/fingerprint.ts';
import { Iptables, IptablesError } from '../../linux/iptables/iptables.ts';
import type { Ipvs } from '../../linux/netlink/ipvs/ipvs.ts';
import { serverKey, serverFamily, type VirtualServer } from '../../linux/netlink/ipvs/objects.ts';
import { watchLinkAddressChanges } from '../../linux/netlink/route.ts';
import type { Logger } from '../../log/logger.ts';
import { cidrContains } from '../../services/ip.ts';
import { matchesAll, matchingAddresses } from '../../services/nodePortAddresses.ts';
import type { RoutingTable } from '../../services/types.ts';
import type {
  ChangeByOthers,
  Dataplane,
  DataplaneEvents,
  DataplaneReport,
  SyncRequest,
  SyncResult,
} from '../dataplane.ts';
import { openIpvs, probeScheduler, restoreHint } from './checks.ts';
import { IpvsCounts } from './counts.ts';
import { Device, counts } from './device.ts';
import { setIds } from './names.ts';
import {
  plan,
  printOperation,
  realKey,
  realServer,
  type Applied,
  type AppliedServer,
  type Operation,
  type Plan,
  type PlanContext,
} from './plan.ts';
import { compareRules, foreignReference } from './readRules.ts';
import { ownership } from './ownership.ts';
import { Retirement } from './retirement.ts';
import { printRules, rulesOf, type RuleSet } from './rules.ts';
import { SetInTheWay, Sets } from './sets.ts';
import { settingsOf, type IpvsOptions, type Settings } from './settings.ts';
import { translate, type NodeSide } from './translate.ts';
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
/** The event loop is not held up longer, in milliseconds. */
const turn = 8;

interface Kernel {
  readonly ipvs: Ipvs;
  readonly sets: Sets;
  readonly device: Device;
  readonly iptables: Iptables;
  readonly fingerprint: Fingerprint;
}

/** State of the last good sync. */
interface Mirror {
  readonly wanted: Wanted;
  readonly applied: Applied;
  readonly node: NodeSide;
  rules: RuleSet;
  /** The document that the rules print to. */
  text: string;
}

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
  /** Fingerprint of iptables rules that were found right. */
  #verified: string | undefined;
  #drift: string | undefined;
  /** What is wrong and stays so, where nothing is repaired: told once. */
  #left: string | undefined;
  #timers: NodeJS.Timeout[] = [];
  #stopWatching: (() => void) | undefined;
  #addressesChanged = false;

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
    const sets = new Sets(this.family);
    const device = new Device(this.family, this.#deps.deviceKind);
    this.#kernel = {
      ipvs,
      sets,
      device,
      iptables,
      fingerprint: openFingerprint(iptables.features.backend, this.family),
    };
    try {
      probeScheduler(ipvs, this.family, this.#settings.scheduler);
      sets.probe();
      device.ensure();
    } catch (error) {
      await this.stop();
      throw error;
    }
    this.#stopWatching = watchLinkAddressChanges((change) => this.#addressEvent(change));
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
    return { full };
  }

  async stop(): Promise<void> {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers = [];
    this.#stopWatching?.();
    this.#stopWatching = undefined;
    const kernel = this.#kernel;
    this.#kernel = undefined;
    kernel?.ipvs.close();
    kernel?.sets.close();
    kernel?.device.close();
    kernel?.fingerprint.close();
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
    const rules = this.#rules(wanted);
    const text = printRules(rules);
    await this.#apply(kernel, applied, steps, async () => {
      // All rules at once: they are few, and each table is exchanged in one step.
      if (text === mirror.text) return;
      await this.#restore(kernel, text);
    });
    mirror.rules = rules;
    mirror.text = text;
    return mirror;
  }

  async #syncFull(kernel: Kernel, table: RoutingTable): Promise<Mirror> {
    kernel.device.ensure();
    await this.#ensureSets(kernel);
    this.#addressesChanged = false;
    const { device, node: addresses } = kernel.device.addresses();
    const node = this.#nodeSide(addresses);
    const wanted = new Wanted();
    for (const route of table.routes.values()) wanted.add(translate(route, this.#settings, node));
    const applied = await this.#readApplied(kernel, device);
    const ours = ownership(applied, node);
    const context = this.#context(ours, this.#first);
    const steps = plan(wanted, applied, everything(wanted, applied), context);
    const rules = this.#rules(wanted);
    const text = printRules(rules);
    await this.#apply(kernel, applied, steps, async () => {
      const { tables, missing } = await compareRules(kernel.iptables, rules);
      if (tables.length > 0) await this.#restore(kernel, printRules(rules, missing, tables));
    });
    this.#first = false;
    // What is not ours is nothing to us from here on.
    for (const [key, { server }] of applied.servers)
      if (wanted.server(key) === undefined && !ours(server)) applied.servers.delete(key);
    if (this.#drift !== undefined) {
      this.#deps.report({ kind: 'repaired', what: this.#drift });
      this.#log.info('Put back what somebody else had changed', { family: this.family, what: this.#drift });
      this.#drift = undefined;
    }
    return { wanted, applied, node, rules, text };
  }

  async #ensureSets(kernel: Kernel): Promise<void> {
    for (const id of setIds) {
      try {
        kernel.sets.ensure(id);
      } catch (error) {
        if (!(error instanceof SetInTheWay)) throw error;
        // Others' rules are not ours to remove, and without the set ours cannot be: those in force stay.
        const rule = await foreignReference(kernel.iptables, error.set);
        if (rule !== undefined)
          throw new Error(
            `set ${error.set} is of another type or has other options than IPVS mode needs, and a rule that is not the proxy's refers to it: remove that rule ("${rule}"), then the set is replaced`,
            { cause: error },
          );
        this.#log.warn('Emptying our iptables chains to replace a set that is in the way', {
          reason: error.message,
        });
        await kernel.iptables.restore(printRules({ nat: [], filter: [], mangle: [] }));
        kernel.sets.ensure(id);
      }
    }
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

  #nodeSide(addresses: ReadonlySet<string>): NodeSide {
    const { nodePortAddresses } = this.#settings;
    const all = [...addresses].sort();
    return {
      addresses,
      nodePorts: matchesAll(nodePortAddresses) ? all : [...matchingAddresses(nodePortAddresses, all)],
    };
  }

  /** What the kernel holds; virtual servers of this family only. */
  async #readApplied(kernel: Kernel, addresses: Set<string>): Promise<Applied> {
    const sets = new Map(setIds.map((id) => [id, kernel.sets.read(id) ?? new Set<string>()] as const));
    const servers = new Map<string, AppliedServer>();
    let until = performance.now() + turn;
    for (const server of kernel.ipvs.listServers()) {
      if (serverFamily(server) !== this.family) continue;
      const reals = new Map<string, number>();
      for (const real of kernel.ipvs.listRealServers(server))
        reals.set(realKey(real), real.forwarding === 'masquerade' ? real.weight : -1);
      servers.set(serverKey(server), { server, reals });
      if (performance.now() > until) {
        await nextTurn();
        until = performance.now() + turn;
      }
    }
    return { servers, sets, addresses };
  }

  async #restore(kernel: Kernel, text: string): Promise<void> {
    this.#verified = undefined;
    try {
      await kernel.iptables.restore(text);
      this.counters.rulesWritten();
    } catch (error) {
      if (!(error instanceof IptablesError)) throw error;
      throw new Error(`${error.message}\n${restoreHint(error.message)}`, { cause: error });
    }
  }

  /** Does what is planned. What fails costs itself alone; the sync fails at the end, with all errors. */
  async #apply(kernel: Kernel, applied: Applied, steps: Plan, rules: () => Promise<void>): Promise<void> {
    const errors: unknown[] = [];
    const doAll = async (operations: readonly Operation[]): Promise<void> => {
      let until = performance.now() + turn;
      for (const operation of operations) {
        if (this.#log.enabled(4))
          this.#log.info('Changing the kernel', { command: printOperation(operation, this.family) }, 4);
        try {
          this.#do(kernel, applied, operation);
        } catch (error) {
          errors.push(error);
          this.#log.error('The kernel refused a change', {
            command: printOperation(operation, this.family).slice(0, 1000),
            err: error,
          });
        }
        if (performance.now() > until) {
          await nextTurn();
          until = performance.now() + turn;
        }
      }
    };
    await doAll(steps.before);
    await rules();
    await doAll(steps.after);
    if (errors.length === 1) throw errors[0];
    if (errors.length > 1)
      throw new AggregateError(errors, `${errors.length} changes were refused by the kernel; see the log`);
  }

  #do(kernel: Kernel, applied: Applied, operation: Operation): void {
    const { ipvs, sets, device } = kernel;
    switch (operation.kind) {
      case 'addEntries': {
        const have = applied.sets.get(operation.set)!;
        sets.add(operation.set, operation.entries, () => have, have.size);
        for (const text of operation.entries) have.add(text);
        return;
      }
      case 'deleteEntries':
        sets.delete(operation.set, operation.entries);
        for (const text of operation.entries) applied.sets.get(operation.set)!.delete(text);
        return;
      case 'addServer':
        ipvs.addServer(operation.server);
        applied.servers.set(operation.key, { server: operation.server, reals: new Map() });
        return;
      case 'editServer':
        ipvs.editServer(operation.server);
        applied.servers.set(operation.key, {
          server: operation.server,
          reals: applied.servers.get(operation.key)?.reals ?? new Map<string, number>(),
        });
        return;
      case 'deleteServer':
        ipvs.deleteServer(operation.server);
        this.#retirement.forgetServer(operation.key);
        applied.servers.delete(operation.key);
        return;
      case 'addReal':
        ipvs.addRealServer(operation.server, realServer(operation.real));
        applied.servers.get(operation.key)?.reals.set(operation.real, 1);
        return;
      case 'restoreReal':
        ipvs.editRealServer(operation.server, realServer(operation.real));
        this.#retirement.forget(operation.key, operation.real);
        applied.servers.get(operation.key)?.reals.set(operation.real, 1);
        return;
      case 'retireReal': {
        const gone = this.#retirement.retire(ipvs, operation.server, operation.real);
        const reals = applied.servers.get(operation.key)?.reals;
        if (gone) reals?.delete(operation.real);
        else reals?.set(operation.real, 0);
        return;
      }
      case 'addAddress':
        device.add(operation.address);
        applied.addresses.add(operation.address);
        return;
      case 'removeAddress':
        applied.addresses.delete(operation.address);
        device.remove(operation.address);
    }
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
    const wrong = await this.#wrong(kernel, mirror);
    if (epoch !== this.#epoch || wrong === undefined || this.#kernel === undefined) return undefined;
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

  async #wrong(kernel: Kernel, mirror: Mirror): Promise<string | undefined> {
    if (!kernel.device.exists()) return 'device kube-ipvs0 is gone';
    for (const id of setIds) {
      const there = kernel.sets.read(id);
      if (there === undefined) return `set ${id} is gone`;
      if (!sameSet(there, mirror.applied.sets.get(id)!)) return `entries of set ${id}`;
    }
    const { device } = kernel.device.addresses();
    for (const address of mirror.applied.addresses)
      if (!device.has(address)) return `address ${address} of kube-ipvs0 is gone`;
    const wrongServer = await this.#wrongServer(kernel, mirror);
    if (wrongServer !== undefined) return wrongServer;
    const seen = kernel.fingerprint.read();
    if (seen !== undefined && seen === this.#verified) return undefined;
    const epoch = this.#epoch;
    const { wrong } = await compareRules(kernel.iptables, mirror.rules);
    if (wrong === undefined && epoch === this.#epoch) this.#verified = seen;
    return wrong;
  }

  async #wrongServer(kernel: Kernel, mirror: Mirror): Promise<string | undefined> {
    const epoch = this.#epoch;
    const servers = new Map(kernel.ipvs.listServers().map((one) => [serverKey(one), one]));
    let until = performance.now() + turn;
    for (const [key, { server, reals }] of mirror.applied.servers) {
      if (mirror.wanted.server(key) === undefined) continue;
      const there = servers.get(key);
      if (there === undefined) return `virtual server ${key} is gone`;
      if (
        there.scheduler !== server.scheduler ||
        there.flags !== server.flags ||
        there.timeout !== server.timeout
      )
        return `virtual server ${key} is not as it was made`;
      const found = kernel.ipvs.listRealServers(server);
      if (found.length !== reals.size || found.some((one) => !reals.has(realKey(one))))
        return `real servers of ${key}`;
      // Weights are the operator's to set; how packets get there is not.
      const led = found.find((one) => one.forwarding !== 'masquerade');
      if (led !== undefined) return `real server ${realKey(led)} of ${key} is not masqueraded`;
      if (performance.now() > until) {
        await nextTurn();
        if (epoch !== this.#epoch || this.#kernel === undefined) return undefined;
        until = performance.now() + turn;
      }
    }
    return undefined;
  }

  /** Addresses of the node decide on node ports; those of kube-ipvs0 are ours. */
  #addressEvent(change: Parameters<Parameters<typeof watchLinkAddressChanges>[0]>[0]): void {
    const kernel = this.#kernel;
    const mirror = this.#mirror;
    if (kernel === undefined || mirror === undefined || this.#addressesChanged) return;
    if (change !== undefined && 'linkGone' in change) {
      if (change.linkGone === kernel.device.index && !kernel.device.exists())
        this.#drifted('device kube-ipvs0 is gone');
      return;
    }
    if (change !== undefined) {
      if (!counts(change, this.family)) return;
      if (change.index === kernel.device.index) {
        // Our own changes are in the mirror before their event comes; only a look at the kernel tells the others.
        if (change.added || !mirror.applied.addresses.has(change.address)) return;
        if (kernel.device.addresses().device.has(change.address)) return;
        this.#drifted(`address ${change.address} of kube-ipvs0 is gone`);
        return;
      }
      if (change.added === mirror.node.addresses.has(change.address)) return;
    }
    this.#addressesChanged = true;
    this.#deps.events.resync('addresses of this node changed');
  }
}

/** Everything that is wanted or there. */
function everything(wanted: Wanted, applied: Applied): Touched {
  const touched = new Touched();
  for (const key of wanted.serverKeys) touched.servers.add(key);
  for (const key of applied.servers.keys()) touched.servers.add(key);
  for (const id of setIds) {
    const texts = touched.entries.get(id)!;
    for (const text of wanted.entries(id).keys()) texts.add(text);
    for (const text of applied.sets.get(id)!) texts.add(text);
  }
  for (const address of wanted.addresses.keys()) touched.addresses.add(address);
  for (const address of applied.addresses) touched.addresses.add(address);
  return touched;
}

function sameSet(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  if (a.size !== b.size) return false;
  for (const one of a) if (!b.has(one)) return false;
  return true;
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function objectOf(what: string): ChangeByOthers['object'] {
  if (what.startsWith('entries')) return 'element';
  if (what.startsWith('set')) return 'set';
  if (what.startsWith('chain')) return 'chain';
  return /^(device|address|virtual|real)/.test(what) ? 'unknown' : 'rule';
}
