/**
 * *Translate*, second half: what the table holds for every service port, and which elements a changed route adds and
 * removes. Kept is only what a route does not say by itself: the slots of its endpoints and its numbers for affinity.
 */
import type { Element } from '../../linux/netlink/nftables/objects.ts';
import { isCounted } from '../../linux/netlink/nftables/setCounter.ts';
import { commentMax } from '../../linux/netlink/nftables/userdata.ts';
import { cidrRange } from '../../services/ip.ts';
import type { Endpoint, Route, ServicePortId } from '../../services/types.ts';
import { ChainPool } from './chainPool.ts';
import { addressKey, endpointValue, hairpinKey, joinKeys, slotKey, stickyNumber, targetKey } from './keys.ts';
import type { Layout, SetName } from './layout.ts';
import { recordingChains } from './serviceChains.ts';
import { assignSlots } from './slots.ts';
import { allowedSources, setsOf, targetsOf, type Target } from './targets.ts';

/** Takes the elements that a change adds and removes. Of a removed element only the key counts. */
export interface ElementSink {
  add(set: SetName, element: Element): void;
  remove(set: SetName, element: Element): void;
  /** The endpoints in the slots in which the kernel has them, as far as it has them. */
  adoptSlots?(set: SetName, key: Uint8Array, wanted: readonly Endpoint[]): readonly Endpoint[];
  /** The number that the kernel has for the key. */
  adoptNumber?(set: SetName, key: Uint8Array): number | undefined;
}

/** What the table holds for one service port. */
export interface Entry {
  readonly route: Route;
  /** Endpoints by slot; empty where no frontend uses the list. */
  readonly cluster: readonly Endpoint[];
  readonly local: readonly Endpoint[];
  /** Numbers under which clients' endpoints are remembered; 0 = no affinity, or no list. */
  readonly clusterNumber: number;
  readonly localNumber: number;
}

/** Remembered clients that must not be followed any more. */
export interface Forgotten {
  readonly number: number;
  /** Undefined: all clients of the number. */
  readonly endpoint: Endpoint | undefined;
}

const NO_ENDPOINTS: readonly Endpoint[] = [];
const NO_TARGETS: readonly Target[] = [];

/** Far from the priorities that programs set on their packets. */
const firstNumber = 0x70000001;

export class Mirror {
  readonly chains: ChainPool;
  /** Clients to forget, as of the changes since this list was last emptied. */
  forgotten: Forgotten[] = [];
  /** Numbers from here on are free. */
  nextNumber = firstNumber;
  readonly #nodeIP: string;
  readonly #counts: boolean;
  readonly #countsTargets: boolean;
  readonly #entries = new Map<ServicePortId, Entry>();
  /** How many service ports have a cluster IP. */
  readonly #virtualIPs = new Map<string, number>();
  /** How many service ports reach a local endpoint, by `PROTOCOL ADDRESS:PORT`. */
  readonly #hairpins = new Map<string, number>();

  constructor(layout: Layout, nodeIP: string) {
    this.chains = new ChainPool(layout);
    this.#nodeIP = nodeIP;
    this.#counts = isCounted(layout.sets.get('unserved')!);
    this.#countsTargets = layout.sets.has('sticky-targets');
  }

  get entries(): ReadonlyMap<ServicePortId, Entry> {
    return this.#entries;
  }

  /** Makes the service port's part of the table that of `route`; undefined removes it. */
  apply(id: ServicePortId, route: Route | undefined, sink: ElementSink): void {
    const before = this.#entries.get(id);
    if (before?.route === route) return;
    const old = before === undefined ? NO_TARGETS : targetsOfEntry(before);
    let entry: Entry | undefined;
    let now = NO_TARGETS;
    let clusterChanged: readonly number[] = [];
    let localChanged: readonly number[] = [];
    if (route !== undefined) {
      now = targetsOf(route, route.cluster.length, route.local.length);
      const clusterTarget = now.find((target) => target.cluster);
      const localTarget = now.find((target) => target.local);
      const wantedCluster = clusterTarget === undefined ? NO_ENDPOINTS : route.cluster;
      const wantedLocal = localTarget === undefined ? NO_ENDPOINTS : route.local;
      const cluster = this.#slots(before?.cluster, wantedCluster, sink, clusterTarget, 'cluster');
      const local = this.#slots(before?.local, wantedLocal, sink, localTarget, 'local');
      clusterChanged = cluster.changed;
      localChanged = local.changed;
      const sticky = route.port.affinitySeconds > 0;
      entry = {
        route,
        cluster: cluster.slots,
        local: local.slots,
        clusterNumber: sticky ? this.#number(before?.clusterNumber, clusterTarget, sink, 'clusterIds') : 0,
        localNumber: sticky ? this.#number(before?.localNumber, localTarget, sink, 'localIds') : 0,
      };
      this.#entries.set(id, entry);
    } else this.#entries.delete(id);

    const matched = old.map(() => false);
    for (const target of now) {
      const index = old.findIndex(
        (one) => one.port === target.port && one.nodePort === target.nodePort && one.ip === target.ip,
      );
      if (index >= 0) matched[index] = true;
      this.#target(old[index], before, target, entry, clusterChanged, localChanged, sink);
    }
    for (let i = 0; i < old.length; i++) {
      if (matched[i] !== true) this.#target(old[i], before, undefined, entry, [], [], sink);
    }
    this.#guards(before, old, entry, now, sink);
    this.#virtualIP(before?.route.port.clusterIP ?? '', route?.port.clusterIP ?? '', sink);
    this.#hairpin(before?.route, route, sink);
    this.#stickyTimes(before, entry, sink);
    if (this.#countsTargets) stickyTargets(before, entry, sink);
    if (before !== undefined) this.#forget(before, entry);
  }

  #slots(
    before: readonly Endpoint[] | undefined,
    wanted: readonly Endpoint[],
    sink: ElementSink,
    target: Target | undefined,
    list: 'cluster' | 'local',
  ): { readonly slots: readonly Endpoint[]; readonly changed: readonly number[] } {
    if (before === undefined && target !== undefined && sink.adoptSlots !== undefined)
      return { slots: sink.adoptSlots(setsOf(target)[list], target.key, wanted), changed: [] };
    return assignSlots(before ?? NO_ENDPOINTS, wanted);
  }

  #number(
    before: number | undefined,
    target: Target | undefined,
    sink: ElementSink,
    list: 'clusterIds' | 'localIds',
  ): number {
    if (target === undefined) return 0;
    if (before !== undefined && before !== 0) return before;
    return sink.adoptNumber?.(setsOf(target)[list], target.key) ?? this.nextNumber++;
  }

  /** The elements of one address and port; `before` and `entry` belong to `old` and `now`. */
  #target(
    old: Target | undefined,
    before: Entry | undefined,
    now: Target | undefined,
    entry: Entry | undefined,
    clusterChanged: readonly number[],
    localChanged: readonly number[],
    sink: ElementSink,
  ): void {
    const target = (now ?? old)!;
    const { key } = target;
    const sets = setsOf(target);
    const oldChain = old?.chain ?? '';
    const newChain = now?.chain ?? '';
    if (oldChain !== newChain) {
      if (newChain !== '') this.chains.acquire(newChain);
      if (oldChain !== '') {
        this.chains.release(oldChain);
        sink.remove(sets.dispatch, { key });
      }
      if (newChain !== '') {
        const comment = commentOf(entry!.route);
        sink.add(sets.dispatch, { key, verdict: { code: 'goto', chain: newChain }, comment });
      }
    }
    const oldUnserved = old?.unserved ?? '';
    const newUnserved = now?.unserved ?? '';
    // What counts refusals counts one kind of them: of those who were sent to a chain, or of all.
    const otherKind = this.#counts && (oldChain === '') !== (newChain === '');
    if (oldUnserved !== newUnserved || (otherKind && newUnserved !== '')) {
      if (oldUnserved !== '') sink.remove(sets.unserved, { key });
      if (newUnserved !== '') {
        const comment = commentOf(entry!.route);
        const verdict =
          newUnserved === 'drop' ? ({ code: 'drop' } as const) : ({ code: 'goto', chain: 'refuse' } as const);
        sink.add(sets.unserved, { key, verdict, comment });
      }
    }
    endpoints(
      sets.cluster,
      key,
      old?.cluster === true ? before!.cluster : undefined,
      now?.cluster === true ? entry!.cluster : undefined,
      clusterChanged,
      sink,
    );
    endpoints(
      sets.local,
      key,
      old?.local === true ? before!.local : undefined,
      now?.local === true ? entry!.local : undefined,
      localChanged,
      sink,
    );
    numbers(
      sets.clusterIds,
      key,
      old?.cluster === true ? before!.clusterNumber : 0,
      now?.cluster === true ? entry!.clusterNumber : 0,
      sink,
    );
    numbers(
      sets.localIds,
      key,
      old?.local === true ? before!.localNumber : 0,
      now?.local === true ? entry!.localNumber : 0,
      sink,
    );
  }

  #guards(
    before: Entry | undefined,
    old: readonly Target[],
    entry: Entry | undefined,
    now: readonly Target[],
    sink: ElementSink,
  ): void {
    const had =
      before === undefined || before.route.port.sourceRanges.length === 0 ? undefined : before.route;
    const has = entry === undefined || entry.route.port.sourceRanges.length === 0 ? undefined : entry.route;
    if (had === undefined && has === undefined) return;
    if (had !== undefined && had.port === has?.port && had.frontends === has.frontends) return;
    if (had !== undefined) {
      for (const [set, element] of this.#guardElements(had, old)) sink.remove(set, element);
    }
    if (has !== undefined) {
      for (const [set, element] of this.#guardElements(has, now)) sink.add(set, element);
    }
  }

  #guardElements(route: Route, targets: readonly Target[]): [SetName, Element][] {
    const elements: [SetName, Element][] = [];
    const ranges = allowedSources(route, this.#nodeIP).map(cidrRange);
    for (const { key, guarded } of targets) {
      if (!guarded) continue;
      elements.push(['guarded', { key }]);
      for (const { first, last } of ranges) {
        elements.push(['source-ranges', { key: joinKeys(key, first), keyEnd: joinKeys(key, last) }]);
      }
    }
    return elements;
  }

  #virtualIP(before: string, now: string, sink: ElementSink): void {
    if (before === now) return;
    if (now !== '' && count(this.#virtualIPs, now, 1)) sink.add('virtual-ips', { key: addressKey(now) });
    if (before !== '' && count(this.#virtualIPs, before, -1))
      sink.remove('virtual-ips', { key: addressKey(before) });
  }

  #hairpin(before: Route | undefined, now: Route | undefined, sink: ElementSink): void {
    if (before?.reachable === now?.reachable) return;
    const old = localKeys(before);
    for (const [key, endpoint] of localKeys(now)) {
      if (old.delete(key)) continue;
      if (count(this.#hairpins, key, 1))
        sink.add('hairpins', { key: hairpinKey(endpoint.ip, now!.port.protocol, endpoint.port) });
    }
    for (const [key, endpoint] of old) {
      if (count(this.#hairpins, key, -1))
        sink.remove('hairpins', { key: hairpinKey(endpoint.ip, before!.port.protocol, endpoint.port) });
    }
  }

  #stickyTimes(before: Entry | undefined, entry: Entry | undefined, sink: ElementSink): void {
    const oldTime = before?.route.port.affinitySeconds ?? 0;
    const newTime = entry?.route.port.affinitySeconds ?? 0;
    for (const list of ['clusterNumber', 'localNumber'] as const) {
      const old = before?.[list] ?? 0;
      const now = entry?.[list] ?? 0;
      if (old === now && oldTime === newTime) continue;
      if (now !== 0) {
        for (const name of recordingChains) this.chains.acquire(name);
        const chain = `sticky-time-${newTime}`;
        this.chains.acquire(chain);
        const comment = commentOf(entry!.route);
        sink.add('sticky-times', { key: stickyNumber(now), verdict: { code: 'goto', chain }, comment });
        if (this.#counts && old !== now) sink.add('sticky-draws', { key: stickyNumber(now), comment });
      }
      if (old !== 0) {
        for (const name of recordingChains) this.chains.release(name);
        this.chains.release(`sticky-time-${oldTime}`);
        sink.remove('sticky-times', { key: stickyNumber(old) });
        if (this.#counts && old !== now) sink.remove('sticky-draws', { key: stickyNumber(old) });
      }
    }
  }

  #forget(before: Entry, entry: Entry | undefined): void {
    const lists = [
      [before.clusterNumber, entry?.clusterNumber ?? 0, before.cluster, entry?.cluster],
      [before.localNumber, entry?.localNumber ?? 0, before.local, entry?.local],
    ] as const;
    for (const [old, now, endpointsBefore, endpointsNow] of lists) {
      if (old === 0) continue;
      if (old !== now) {
        this.forgotten.push({ number: old, endpoint: undefined });
        continue;
      }
      const kept = new Set(endpointsNow?.map((endpoint) => endpoint.key));
      for (const endpoint of endpointsBefore) {
        if (!kept.has(endpoint.key)) this.forgotten.push({ number: old, endpoint });
      }
    }
  }
}

/** A service port's name, cut to what the kernel gives back. */
function commentOf({ port }: Route): string {
  return port.name.length <= commentMax ? port.name : port.name.slice(0, commentMax);
}

function targetsOfEntry(entry: Entry): Target[] {
  return targetsOf(entry.route, entry.route.cluster.length, entry.route.local.length);
}

/** The difference between two lists under one key; undefined = the key has no such list. */
function endpoints(
  set: SetName,
  key: Uint8Array,
  before: readonly Endpoint[] | undefined,
  now: readonly Endpoint[] | undefined,
  changed: readonly number[],
  sink: ElementSink,
): void {
  if (before !== undefined && now !== undefined) {
    for (const slot of changed) {
      if (slot < before.length) sink.remove(set, { key: slotKey(key, slot) });
      if (slot < now.length) sink.add(set, slotElement(key, slot, now[slot]!));
    }
  } else if (before !== undefined) {
    for (let slot = 0; slot < before.length; slot++) sink.remove(set, { key: slotKey(key, slot) });
  } else if (now !== undefined) {
    for (let slot = 0; slot < now.length; slot++) sink.add(set, slotElement(key, slot, now[slot]!));
  }
}

function slotElement(key: Uint8Array, slot: number, endpoint: Endpoint): Element {
  return { key: slotKey(key, slot), data: endpointValue(endpoint.ip, endpoint.port) };
}

function numbers(set: SetName, key: Uint8Array, before: number, now: number, sink: ElementSink): void {
  if (before === now) return;
  if (before !== 0) sink.remove(set, { key });
  if (now !== 0) sink.add(set, { key, data: stickyNumber(now) });
}

/** Where clients with affinity are counted: each list's endpoints under its number. */
function stickyTargets(before: Entry | undefined, entry: Entry | undefined, sink: ElementSink): void {
  for (const [list, number] of [
    ['cluster', 'clusterNumber'],
    ['local', 'localNumber'],
  ] as const) {
    const old = before?.[number] ?? 0;
    const now = entry?.[number] ?? 0;
    const had = new Map(old === 0 ? [] : before![list].map((endpoint) => [endpoint.key, endpoint]));
    for (const endpoint of now === 0 ? NO_ENDPOINTS : entry![list]) {
      if (old === now && had.delete(endpoint.key)) continue;
      sink.add('sticky-targets', { key: targetKey(now, endpoint.ip, endpoint.port) });
    }
    for (const { ip, port } of had.values()) sink.remove('sticky-targets', { key: targetKey(old, ip, port) });
  }
}

/** Endpoints on this node by what tells them apart over all service ports. */
function localKeys(route: Route | undefined): Map<string, Endpoint> {
  const keys = new Map<string, Endpoint>();
  for (const endpoint of route?.reachable ?? NO_ENDPOINTS) {
    if (endpoint.isLocal) keys.set(`${route!.port.protocol} ${endpoint.key}`, endpoint);
  }
  return keys;
}

/** Counts a use; true if it is the first, or was the last. */
function count(counts: Map<string, number>, key: string, change: 1 | -1): boolean {
  const before = counts.get(key) ?? 0;
  const now = before + change;
  if (now > 0) counts.set(key, now);
  else counts.delete(key);
  return before === 0 || now === 0;
}
