/** What a tracker knows about one Service: its ports and slices, as applied and as pending for the next take. */
import type { PortKey, SliceEndpoints } from './endpoints.ts';
import {
  compareKeys,
  differences,
  mergeLists,
  NO_ENDPOINTS,
  NO_SLICE,
  patchMerged,
  portKey,
} from './endpoints.ts';
import { equalServicePorts } from './servicePorts.ts';
import type { Endpoint, ServicePort } from './types.ts';

const NO_PORTS: readonly ServicePort[] = [];

/** One Service, known by its own events or by those of its slices; either may come first. */
export class ServiceState {
  /** `namespace/name` */
  readonly key: string;
  /** last-change-trigger-time of the slices changed since the last take, milliseconds since the epoch. */
  triggerTimes: number[] | undefined;
  #ports: readonly ServicePort[] = NO_PORTS;
  #pendingPorts: readonly ServicePort[] | undefined;
  readonly #slices = new Map<string, SliceEndpoints>();
  #pendingSlices: Map<string, SliceEndpoints | undefined> | undefined;
  /** All slices' lists merged. Undefined where there is one slice only, as most Services have: its own lists serve. */
  #merged: Map<PortKey, readonly Endpoint[]> | undefined;
  /** Port keys with an endpoint that more than one slice names. */
  #overlapping: Set<PortKey> | undefined;

  constructor(key: string) {
    this.key = key;
  }

  /** Ports as of the last take. */
  get ports(): readonly ServicePort[] {
    return this.#ports;
  }

  get hasPendingPorts(): boolean {
    return this.#pendingPorts !== undefined;
  }

  /** Nothing is known about the Service any more. */
  get isEmpty(): boolean {
    return (
      this.#ports.length === 0 &&
      this.#pendingPorts === undefined &&
      this.#slices.size === 0 &&
      this.#pendingSlices === undefined
    );
  }

  /** All endpoints of a service port, sorted by key, as of the last take. */
  endpoints(port: ServicePort): readonly Endpoint[] {
    return this.#lists().get(portKey(port.portName, port.protocol)) ?? NO_ENDPOINTS;
  }

  /** Distinct addresses of ready endpoints on this node over all ports, as of the last take. */
  countLocalReady(): number {
    const addresses = new Set<string>();
    for (const list of this.#lists().values()) {
      for (let i = 0; i < list.length; i++) {
        const endpoint = list[i]!;
        if (endpoint.isLocal && endpoint.ready) addresses.add(endpoint.ip);
      }
    }
    return addresses.size;
  }

  /** Sets the ports for the next take. False if that changes nothing. */
  setPorts(published: readonly ServicePort[]): boolean {
    const next = reusePorts(this.#ports, published);
    if (next === this.#ports) {
      this.#pendingPorts = undefined;
      return false;
    }
    if (this.#pendingPorts !== undefined && reusePorts(this.#pendingPorts, next) === this.#pendingPorts)
      return false;
    this.#pendingPorts = next;
    return true;
  }

  /** What a slice was read into last. */
  slice(name: string): SliceEndpoints {
    if (this.#pendingSlices?.has(name) === true) return this.#pendingSlices.get(name) ?? NO_SLICE;
    return this.#slices.get(name) ?? NO_SLICE;
  }

  /** Sets a slice (undefined: removes it) for the next take; `before` is what `slice()` said. */
  setSlice(name: string, slice: SliceEndpoints | undefined): void {
    this.#pendingSlices ??= new Map();
    this.#pendingSlices.set(name, slice);
  }

  /** True if a port of the Service (as of the next take) has other endpoints in `after` than in `before`. */
  concerns(before: SliceEndpoints, after: SliceEndpoints): boolean {
    for (const port of this.#pendingPorts ?? this.#ports) {
      const key = portKey(port.portName, port.protocol);
      if (before.get(key) !== after.get(key)) return true;
    }
    return false;
  }

  /** Makes the pending ports the applied ones. Returns the ports of before, if that changes any. */
  takePorts(): readonly ServicePort[] | undefined {
    if (this.#pendingPorts === undefined) return undefined;
    const before = this.#ports;
    this.#ports = this.#pendingPorts;
    this.#pendingPorts = undefined;
    return before;
  }

  /** Folds the pending slices in: costs what they hold, and a copy of each merged list they touch. */
  takeSlices(): void {
    const pending = this.#pendingSlices;
    if (pending === undefined) return;
    this.#pendingSlices = undefined;
    if (this.#merged === undefined) {
      this.#replaceSlices(pending);
      return;
    }
    const touched = new Map<PortKey, { readonly removed: Endpoint[]; readonly added: Endpoint[] }>();
    for (const [name, slice] of pending) {
      const before = this.#slices.get(name) ?? NO_SLICE;
      const after = slice ?? NO_SLICE;
      for (const key of new Set([...before.keys(), ...after.keys()])) {
        const was = before.get(key) ?? NO_ENDPOINTS;
        const is = after.get(key) ?? NO_ENDPOINTS;
        if (was === is) continue;
        let difference = touched.get(key);
        if (difference === undefined) touched.set(key, (difference = { removed: [], added: [] }));
        differences(was, is, difference.removed, difference.added);
      }
      if (slice === undefined) this.#slices.delete(name);
      else this.#slices.set(name, slice);
    }
    if (this.#slices.size <= 1) this.#forgetMerged();
    else for (const [key, { removed, added }] of touched) this.#patch(key, removed, added, pending.size > 1);
  }

  #lists(): SliceEndpoints {
    if (this.#merged !== undefined) return this.#merged;
    for (const only of this.#slices.values()) return only;
    return NO_SLICE;
  }

  /** While nothing is merged: at most one slice was there, so that merging all of them anew costs no more. */
  #replaceSlices(pending: ReadonlyMap<string, SliceEndpoints | undefined>): void {
    for (const [name, slice] of pending) {
      if (slice === undefined) this.#slices.delete(name);
      else this.#slices.set(name, slice);
    }
    if (this.#slices.size <= 1) {
      this.#forgetMerged();
      return;
    }
    this.#merged = new Map();
    const keys = new Set<PortKey>();
    for (const slice of this.#slices.values()) for (const key of slice.keys()) keys.add(key);
    for (const key of keys) this.#remerge(key);
  }

  #forgetMerged(): void {
    this.#merged = undefined;
    this.#overlapping = undefined;
  }

  #patch(key: PortKey, removed: Endpoint[], added: Endpoint[], several: boolean): void {
    if (this.#overlapping?.has(key) !== true) {
      if (several) {
        removed.sort(compareKeys);
        added.sort(compareKeys);
      }
      const patched = patchMerged(this.#merged?.get(key) ?? NO_ENDPOINTS, removed, added);
      if (patched !== undefined) {
        this.#setMerged(key, patched);
        return;
      }
    }
    this.#remerge(key);
  }

  /** Merges from the slices alone, in the order of their names, so that the same slices always give the same. */
  #remerge(key: PortKey): void {
    const lists: (readonly Endpoint[])[] = [];
    let total = 0;
    for (const name of [...this.#slices.keys()].sort()) {
      const list = this.#slices.get(name)?.get(key);
      if (list === undefined) continue;
      lists.push(list);
      total += list.length;
    }
    const merged = mergeLists(lists);
    if (merged.length < total) (this.#overlapping ??= new Set()).add(key);
    else this.#overlapping?.delete(key);
    this.#setMerged(key, merged);
  }

  #setMerged(key: PortKey, list: readonly Endpoint[]): void {
    if (list.length === 0) this.#merged?.delete(key);
    else this.#merged?.set(key, list);
  }
}

/** `next` with ports that equal one of `before` replaced by it; `before` itself if both have the same ports. */
function reusePorts(before: readonly ServicePort[], next: readonly ServicePort[]): readonly ServicePort[] {
  const byId = before.length > 8 ? new Map(before.map((port) => [port.id, port])) : undefined;
  let reused = 0;
  const result = next.map((port) => {
    const old = byId === undefined ? before.find((other) => other.id === port.id) : byId.get(port.id);
    if (old === undefined || !equalServicePorts(old, port)) return port;
    reused++;
    return old;
  });
  return reused === next.length && next.length === before.length ? before : result;
}
