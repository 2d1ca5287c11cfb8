/**
 * Userspace mode for one family: packets to frontends are redirected to listeners of this process, which pass
 * connections on to endpoints. Works on listeners and rules for what changed; watches the rules for other hands.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Family } from '../../api/objects.ts';
import { openFingerprint, type Fingerprint } from '../../linux/iptables/fingerprint.ts';
import { Iptables, type IptablesOptions } from '../../linux/iptables/iptables.ts';
import { runAside } from '../../linux/runAside.ts';
import type { Logger } from '../../log/logger.ts';
import { isLoopback } from '../../services/ip.ts';
import type { Route, RouteChange, ServicePortId } from '../../services/types.ts';
import type {
  Dataplane,
  DataplaneEvents,
  DataplaneOptions,
  DataplaneReport,
  SyncRequest,
  SyncResult,
} from '../dataplane.ts';
import type { ProxyContext } from './context.ts';
import { UserspaceCounts } from './counts.ts';
import { deleteFlowsTo } from './flows.ts';
import { FrontendIndex } from './frontendIndex.ts';
import type { PortAllocator } from './portAllocator.ts';
import { commonRules, routeRules, sameRules, type Rule, type RuleSettings } from './rules.ts';
import { SavedRules, changeDocument, fullDocument, jumpsFor, wantedRules, type Jump } from './ruleSet.ts';
import { ServiceProxy, type ListenSettings, type Retired } from './serviceProxy.ts';
import type { SocketBudget } from './socketBudget.ts';
import { finishInTurns } from './steps.ts';

export interface UserspaceOptions extends DataplaneOptions {
  /** Unspecified (`0.0.0.0`, `::`), or the one address to listen on; of another family it does not count. */
  readonly bindAddress: string;
  /** Milliseconds without a datagram after which a UDP session ends. */
  readonly udpIdleTimeout: number;
  /** Milliseconds between two looks for rules that somebody else changed. */
  readonly checkInterval: number;
  /** Node ports answer on 127.0.0.0/8 and ::1, too; default true. */
  readonly localhostNodePorts?: boolean;
  /** What somebody else changed is put back; default true. If false, it is reported only. */
  readonly repairDrift?: boolean;
}

/** What the mode uses beside the kernel's rules. */
export interface UserspaceDependencies {
  readonly log: Logger;
  readonly events: DataplaneEvents;
  readonly report: (report: DataplaneReport) => void;
  /** Of the whole process, shared by both families. */
  readonly sockets: SocketBudget;
  readonly ports: PortAllocator;
  readonly iptables?: IptablesOptions;
  readonly fingerprint?: () => Fingerprint;
}

/** Milliseconds between two reports of open sockets; every thirtieth time old affinity records go. */
const reportInterval = 1000;
const sweepEvery = 30;
/** Service ports whose listeners are opened in one turn of the event loop. */
const openAtOnce = 64;

export class UserspaceDataplane implements Dataplane {
  readonly mode = 'userspace';
  readonly family: Family;
  readonly counters = new UserspaceCounts({
    servicePorts: () => this.#proxies,
    iptables: () => this.#iptables,
  });
  readonly #options: UserspaceOptions;
  readonly #deps: UserspaceDependencies;
  readonly #context: ProxyContext;
  readonly #listen: ListenSettings;
  readonly #ruleSettings: RuleSettings;
  readonly #jumps: readonly Jump[];
  readonly #index: FrontendIndex;
  readonly #proxies = new Map<ServicePortId, ServiceProxy>();
  /** Rules in force, by service port; those of none as of ``. */
  readonly #applied = new Map<ServicePortId, readonly Rule[]>();
  readonly #routes = new Map<ServicePortId, Route>();
  #retired: Retired[] = [];
  #iptables: Iptables | undefined;
  #fingerprint: Fingerprint | undefined;
  /** Undefined = what is in the kernel has to be looked at. */
  #verified: string | undefined;
  /** What the last good sync wrote is in the kernel, as far as we know. */
  #trusted = false;
  #syncing = false;
  #draining = false;
  #looking = false;
  #drift: string | undefined;
  /** What is wrong and stays so, where nothing is repaired: told once. */
  #left: string | undefined;
  #timers: NodeJS.Timeout[] = [];

  constructor(options: UserspaceOptions, deps: UserspaceDependencies) {
    const { family, nodeIP, bindAddress } = options;
    this.family = family;
    this.#options = options;
    this.#deps = deps;
    const ownFamily = bindAddress.includes(':') === (family === 'IPv6');
    const bound = ownFamily && !['0.0.0.0', '::'].includes(bindAddress) ? bindAddress : '';
    const hostIP = bound !== '' ? bound : isLoopback(nodeIP) ? '' : nodeIP;
    this.#listen = { tcpHost: bound, udpHost: hostIP, ports: deps.ports };
    this.#ruleSettings = { family, detector: options.localDetector, hostIP };
    this.#jumps = jumpsFor(options.nodePortAddresses);
    const common = commonRules(family, options.localhostNodePorts ?? true);
    if (common.length > 0) this.#applied.set('', common);
    this.#index = new FrontendIndex(nodeIP);
    this.#context = {
      family,
      log: deps.log,
      sockets: deps.sockets,
      refused: (reason) => {
        this.counters.refused(reason);
        deps.report({ kind: 'userspaceRefused', reason });
      },
      mayDial: (endpoint, protocol) => !this.#index.has(endpoint, protocol),
      udpIdleTimeout: options.udpIdleTimeout,
    };
  }

  async start(): Promise<void> {
    const iptables = await Iptables.open(this.family, { run: runAside, ...this.#deps.iptables });
    if (!(await iptables.usable()))
      throw new Error(
        `userspace mode cannot redirect ${this.family} traffic: table nat cannot be read; install iptables, or let it listen on the service addresses themselves`,
      );
    this.#iptables = iptables;
    const { backend } = iptables.features;
    this.#fingerprint = this.#deps.fingerprint?.() ?? openFingerprint(backend, this.family);
    this.#deps.log.info('Using listeners in this process, and redirects by iptables', {
      backend,
      sockets: this.#deps.sockets.limit,
    });
    const look = setInterval(() => {
      this.lookForDrift().catch((err: unknown) =>
        this.#deps.log.error('Cannot check the iptables rules', { err }),
      );
    }, this.#options.checkInterval);
    let ticks = 0;
    const tick = setInterval(() => {
      const { open, limit } = this.#deps.sockets;
      this.#deps.report({ kind: 'userspaceSockets', open, limit });
      if (++ticks % sweepEvery === 0) this.#sweep();
    }, reportInterval);
    this.#timers = [look.unref(), tick.unref()];
  }

  async sync(request: SyncRequest): Promise<SyncResult> {
    const iptables = this.#iptables;
    if (iptables === undefined) throw new Error('userspace mode: sync before start');
    if (this.#draining) return { full: false };
    const full = request.full || !this.#trusted;
    this.#syncing = true;
    const before = this.#fingerprint?.read();
    this.#trusted = false;
    try {
      const changes = full ? this.#allChanges(request.table.routes) : request.changes.changes;
      const { gone, added } = await this.#take(changes);
      if (full) await this.#writeAll(iptables);
      else await this.#writeChange(iptables, gone, added);
      this.#trusted = true;
      this.#repaired(full);
      await this.#closeRetired();
      return { full };
    } finally {
      const now = this.#fingerprint?.read();
      const quiet = this.#trusted && before !== undefined && now !== undefined && before === this.#verified;
      this.#verified = quiet && this.#fingerprint?.onlyOurs(before, now) === true ? now : undefined;
      this.#syncing = false;
    }
  }

  relays(id: ServicePortId, port: number): boolean {
    const { cluster, local } = this.#proxies.get(id)?.targets ?? {};
    return cluster?.port === port || local?.port === port;
  }

  /**
   * The process is about to end: new TCP connections are refused from here on, those that are open go on, and the rules
   * are left alone.
   */
  drain(): void {
    this.#draining = true;
    for (const timer of this.#timers) clearInterval(timer);
    for (const proxy of this.#proxies.values()) proxy.stopAccepting();
  }

  /**
   * Ends all connections. The rules stay: until the mode is back, its clients are refused at once, instead of waiting
   * for an answer from an address that nobody has.
   */
  stop(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    this.#timers = [];
    this.#fingerprint?.close();
    this.#fingerprint = undefined;
    for (const retired of this.#retired) retired.close();
    this.#retired = [];
    for (const proxy of this.#proxies.values()) proxy.destroy();
    this.#proxies.clear();
    return Promise.resolve();
  }

  /** One look for changes by others, now; answers what was wrong. */
  async lookForDrift(): Promise<string | undefined> {
    const iptables = this.#iptables;
    if (iptables === undefined || this.#syncing || !this.#trusted || this.#looking) return undefined;
    const seen = this.#fingerprint?.read();
    if (seen !== undefined && seen === this.#verified) return undefined;
    this.#looking = true;
    try {
      const applied = new Map(this.#applied);
      const saved = new SavedRules(await finishInTurns(wantedRules(applied)));
      await readSaved(iptables, saved);
      const wrong = saved.drift(this.#jumps);
      // A sync that came in between has changed what is right.
      if (this.#syncing || !this.#trusted || !sameMaps(applied, this.#applied)) return undefined;
      if (wrong === undefined) {
        this.#verified = seen;
        return undefined;
      }
      const repairing = this.#options.repairDrift ?? true;
      if (repairing || wrong !== this.#left) {
        const object = wrong.startsWith('chain') ? 'chain' : 'rule';
        this.#deps.report({ kind: 'changedByOthers', what: wrong, object, by: '', repairing });
      }
      if (!repairing) {
        this.#left = wrong;
        this.#verified = seen;
        return wrong;
      }
      this.#drift = wrong;
      this.#deps.events.resync(`iptables rules of ${this.family} were changed by somebody else: ${wrong}`);
      return wrong;
    } finally {
      this.#looking = false;
    }
  }

  async #writeAll(iptables: Iptables): Promise<void> {
    const saved = new SavedRules();
    await readSaved(iptables, saved);
    await iptables.restore(await finishInTurns(fullDocument(saved.tables, this.#jumps, this.#applied)));
    this.#fingerprint?.committed(tablesRead.length);
  }

  async #writeChange(iptables: Iptables, gone: readonly Rule[], added: readonly Rule[]): Promise<void> {
    const document = changeDocument(gone, added);
    if (document === '') return;
    await iptables.restore(document);
    this.#fingerprint?.committed(document.split('\nCOMMIT\n').length - 1);
  }

  #allChanges(routes: ReadonlyMap<ServicePortId, Route>): RouteChange[] {
    const changes: RouteChange[] = [];
    for (const [id, before] of this.#routes)
      if (!routes.has(id)) changes.push({ id, before, after: undefined });
    for (const [id, after] of routes) changes.push({ id, before: this.#routes.get(id), after });
    return changes;
  }

  /** Brings listeners and `#applied` to the routes, and says which rules that takes away and adds. */
  async #take(changes: readonly RouteChange[]): Promise<{ gone: Rule[]; added: Rule[] }> {
    for (let at = 0; at < changes.length; at += openAtOnce) {
      // Connections have their turn in between.
      if (at > 0) await nextTurn();
      await Promise.all(changes.slice(at, at + openAtOnce).map((change) => this.#takeListeners(change)));
    }
    return finishInTurns(this.#takeRules(changes));
  }

  *#takeRules(changes: readonly RouteChange[]): Generator<undefined, { gone: Rule[]; added: Rule[] }> {
    const gone: Rule[] = [];
    const added: Rule[] = [];
    for (const { id, after } of changes) {
      yield;
      const rules =
        after === undefined
          ? []
          : routeRules(after, this.#proxies.get(id)?.targets ?? {}, this.#ruleSettings);
      const had = this.#applied.get(id) ?? [];
      if (sameRules(had, rules)) continue;
      for (const rule of had) gone.push(rule);
      for (const rule of rules) added.push(rule);
      this.#applied.delete(id);
      if (rules.length > 0) this.#applied.set(id, rules);
    }
    return { gone, added };
  }

  async #takeListeners({ id, after }: RouteChange): Promise<void> {
    this.#index.replace(this.#routes.get(id), after);
    let proxy = this.#proxies.get(id);
    if (after === undefined) {
      this.#routes.delete(id);
      this.#proxies.delete(id);
      if (proxy !== undefined) this.#retired.push(...proxy.retire());
      return;
    }
    const known = this.#routes.get(id);
    if (after.port.protocol === 'SCTP' && known === undefined)
      this.#deps.log.error('SCTP cannot be proxied in userspace mode: this service port is refused', {
        servicePort: after.port.name,
      });
    this.#routes.set(id, after);
    if (proxy === undefined) {
      proxy = new ServiceProxy(after, this.#context, this.#listen);
      this.#proxies.set(id, proxy);
    }
    this.#retired.push(...(await proxy.set(after)));
    if (this.#draining) proxy.stopAccepting();
  }

  async #closeRetired(): Promise<void> {
    const retired = this.#retired;
    if (retired.length === 0) return;
    this.#retired = [];
    const udpPorts = new Set<number>();
    for (const [i, one] of retired.entries()) {
      // Connections have their turn in between.
      if (i % openAtOnce === openAtOnce - 1) await nextTurn();
      one.close();
      if (one.udp) udpPorts.add(one.target.port);
    }
    if (udpPorts.size === 0) return;
    try {
      await deleteFlowsTo(this.family, udpPorts);
    } catch (err) {
      this.#deps.log.error('Cannot delete UDP flows to listeners that are closed', { err });
    }
  }

  #repaired(full: boolean): void {
    if (!full || this.#drift === undefined) return;
    this.#deps.report({ kind: 'repaired', what: this.#drift });
    this.#deps.log.info('Put back iptables rules that somebody else had changed', { what: this.#drift });
    this.#drift = undefined;
  }

  #sweep(): void {
    const now = performance.now();
    for (const { balancer } of this.#proxies.values()) if (balancer.sticky) balancer.sweep(now);
  }
}

/** Those that have chains of ours. */
const tablesRead = ['nat', 'filter'] as const;

async function readSaved(iptables: Iptables, into: SavedRules): Promise<void> {
  for (const table of tablesRead) await iptables.save(table, (line) => into.line(line));
}

function sameMaps<K, V>(a: ReadonlyMap<K, V>, b: ReadonlyMap<K, V>): boolean {
  if (a.size !== b.size) return false;
  for (const [key, value] of a) if (b.get(key) !== value) return false;
  return true;
}
