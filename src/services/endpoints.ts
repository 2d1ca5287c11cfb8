/**
 * EndpointSlices to endpoints. A slice is read once, when it changes, into sorted lists of endpoints, one a
 * service port; the lists of a Service's slices are then merged. Endpoints and lists that did not change stay
 * the same objects, so that everything after this can compare by identity.
 */
import type { EndpointSlice, Family, Protocol } from '../api/objects.ts';
import { canonicalIP, familyOf, formatAddressPort } from './ip.ts';
import { isLabel, isObjectName, isPlain, isPort } from './names.ts';
import { quote } from './problems.ts';
import { equalTexts, isProtocol } from './servicePorts.ts';
import type { Endpoint, Problem } from './types.ts';

/** `port name/PROTOCOL`: identity of a service port inside its Service, and what joins a slice's port to it. */
export type PortKey = string;

/** Endpoints of one slice, a sorted list without duplicates for each port key; ports without endpoints are absent. */
export type SliceEndpoints = ReadonlyMap<PortKey, readonly Endpoint[]>;

export const NO_ENDPOINTS: readonly Endpoint[] = [];
export const NO_SLICE: SliceEndpoints = new Map();

export function portKey(portName: string, protocol: Protocol): PortKey {
  return `${portName}/${protocol}`;
}

/** One copy of each text and list that comes by often: node names, zones, hints, port keys. */
export class Interner {
  /** Far more nodes and zones than a cluster has; then start afresh rather than grow for ever. */
  static readonly #limit = 50_000;
  readonly #texts = new Map<string, string>();
  readonly #lists = new Map<string, readonly string[]>();

  /** The text itself, or empty if it must not be printed. */
  plain(text: string): string {
    if (text === '') return text;
    const known = this.#texts.get(text);
    if (known !== undefined) return known;
    const value = isPlain(text) ? text : '';
    if (this.#texts.size >= Interner.#limit) this.#texts.clear();
    this.#texts.set(text, value);
    return value;
  }

  list(texts: readonly string[]): readonly string[] {
    if (texts.length === 0) return NO_TEXTS;
    const key = texts.length === 1 ? texts[0]! : texts.join('\n');
    const known = this.#lists.get(key);
    if (known !== undefined && equalTexts(known, texts)) return known;
    if (this.#lists.size >= Interner.#limit) this.#lists.clear();
    const copy = texts.slice();
    this.#lists.set(key, copy);
    return copy;
  }
}

const NO_TEXTS: readonly string[] = [];

export interface SliceOptions {
  readonly family: Family;
  /** This node's name; empty = no endpoint is local. */
  readonly nodeName: string;
  readonly interner: Interner;
}

/** The Service a slice belongs to, or undefined (and a problem) if it belongs to none or its names cannot be used. */
export function sliceService(slice: EndpointSlice, problems: Problem[] = []): string | undefined {
  const { namespace, name } = slice.meta;
  if (!isLabel(namespace) || !isObjectName(name)) {
    problems.push({
      object: quote(`EndpointSlice ${namespace}/${name}`),
      field: 'metadata',
      reason: 'invalid_name',
      message: 'the namespace or name is not a DNS name: the slice is skipped',
    });
    return undefined;
  }
  if (isObjectName(slice.serviceName)) return slice.serviceName;
  problems.push({
    object: `EndpointSlice ${namespace}/${name}`,
    field: 'metadata.labels[kubernetes.io/service-name]',
    reason: slice.serviceName === '' ? 'missing_service_name' : 'invalid_name',
    message: `${quote(slice.serviceName)} names no Service: the slice is skipped`,
  });
  return undefined;
}

/**
 * Reads a slice. `before` is what the slice was read into last time: endpoints and lists that are the same are taken
 * from it, and if nothing changed the result is `before` itself.
 */
export function readSlice(
  slice: EndpointSlice,
  before: SliceEndpoints,
  options: SliceOptions,
  problems: Problem[] = [],
): SliceEndpoints {
  const { family, nodeName, interner } = options;
  const report = (field: string, reason: string, message: string): void => {
    problems.push({
      object: `EndpointSlice ${slice.meta.namespace}/${slice.meta.name}`,
      field,
      reason,
      message,
    });
  };
  const lists = new Map<PortKey, Endpoint[]>();
  const ports: { readonly number: number; readonly list: Endpoint[] }[] = [];
  for (const [i, port] of slice.ports.entries()) {
    const field = `ports[${i}]`;
    if (port.name === null || (port.name !== '' && !isLabel(port.name))) {
      report(`${field}.name`, 'invalid_name', `${quote(port.name)} is no port name: the port is skipped`);
    } else if (port.port === null || !isPort(port.port)) {
      report(`${field}.port`, 'invalid_port', `${quote(port.port)} is not in 1..65535: the port is skipped`);
    } else if (!isProtocol(port.protocol)) {
      report(
        `${field}.protocol`,
        'invalid_protocol',
        `${quote(port.protocol)} is not TCP, UDP or SCTP: the port is skipped`,
      );
    } else {
      const key = interner.plain(portKey(port.name, port.protocol));
      let list = lists.get(key);
      if (list === undefined) lists.set(key, (list = []));
      ports.push({ number: port.port, list });
    }
  }
  if (ports.length === 0) return before.size === 0 ? before : NO_SLICE;

  const { endpoints } = slice;
  for (let i = 0; i < endpoints.length; i++) {
    const published = endpoints[i]!;
    const ip = canonicalIP(published.address);
    if (ip === undefined || familyOf(ip) !== family) {
      report(
        `endpoints[${i}].addresses`,
        'invalid_address',
        `${quote(published.address)} is no ${family} address: the endpoint is skipped`,
      );
      continue;
    }
    for (let p = 0; p < ports.length; p++) {
      const { number, list } = ports[p]!;
      list.push({
        ip,
        port: number,
        key: formatAddressPort(ip, number),
        ready: published.ready,
        serving: published.serving,
        terminating: published.terminating,
        isLocal: nodeName !== '' && published.nodeName === nodeName,
        nodeName: interner.plain(published.nodeName),
        zone: interner.plain(published.zone),
        pod: isPlain(published.pod) ? published.pod : '',
        zoneHints: interner.list(published.zoneHints),
        nodeHints: interner.list(published.nodeHints),
      });
    }
  }

  const result = new Map<PortKey, readonly Endpoint[]>();
  let same = true;
  for (const [key, list] of lists) {
    if (list.length === 0) continue;
    const old = before.get(key);
    const now = keepUnchanged(sortUnique(list), old ?? NO_ENDPOINTS);
    if (now !== old) same = false;
    result.set(key, now);
  }
  return same && result.size === before.size ? before : result;
}

/** Sorts by key; of endpoints with the same key the last that is not terminating wins, else the first. */
export function sortUnique(list: Endpoint[]): Endpoint[] {
  let sorted = true;
  for (let i = 1; i < list.length && sorted; i++) sorted = list[i - 1]!.key < list[i]!.key;
  if (sorted) return list;
  list.sort(compareKeys);
  let kept = 0;
  for (let i = 1; i < list.length; i++) {
    const next = list[i]!;
    if (next.key !== list[kept]!.key) list[++kept] = next;
    else if (!next.terminating) list[kept] = next;
  }
  list.length = kept + 1;
  return list;
}

/** Merges the lists of several slices (in a stable order of slices) into one sorted list without duplicates. */
export function mergeLists(lists: readonly (readonly Endpoint[])[]): readonly Endpoint[] {
  if (lists.length === 0) return NO_ENDPOINTS;
  if (lists.length === 1) return lists[0]!;
  return sortUnique(lists.flat());
}

/**
 * `merged` without the endpoints of `removed` and with those of `added`, all sorted by key: what mergeLists would
 * give, for the price of a copy. Undefined if a key would be there twice: only all the slices can say who wins then.
 * Needs: merged has no endpoint that more than one slice names, and removed is a part of it.
 */
export function patchMerged(
  merged: readonly Endpoint[],
  removed: readonly Endpoint[],
  added: readonly Endpoint[],
): readonly Endpoint[] | undefined {
  const result: Endpoint[] = [];
  let at = 0;
  let r = 0;
  let a = 0;
  while (r < removed.length || a < added.length) {
    const removedKey = removed[r]?.key;
    const addedKey = added[a]?.key;
    if (removedKey !== undefined && (addedKey === undefined || removedKey <= addedKey)) {
      at = copyUntil(merged, at, removedKey, result);
      at++;
      r++;
      // Replaced in place; or named by another slice now, but otherwise the same.
      if (removedKey === addedKey) {
        const old = merged[at - 1]!;
        const now = added[a++]!;
        result.push(equalEndpoints(old, now) ? old : now);
      }
    } else {
      at = copyUntil(merged, at, addedKey!, result);
      if (merged[at]?.key === addedKey || result.at(-1)?.key === addedKey) return undefined;
      result.push(added[a++]!);
    }
  }
  while (at < merged.length) result.push(merged[at++]!);
  return result;
}

/** Which endpoints of two sorted lists are not the same objects. */
export function differences(
  before: readonly Endpoint[],
  after: readonly Endpoint[],
  removed: Endpoint[],
  added: Endpoint[],
): void {
  let b = 0;
  let a = 0;
  while (b < before.length && a < after.length) {
    const old = before[b]!;
    const now = after[a]!;
    if (old === now) {
      b++;
      a++;
    } else if (old.key < now.key) {
      removed.push(old);
      b++;
    } else if (now.key < old.key) {
      added.push(now);
      a++;
    } else {
      removed.push(old);
      added.push(now);
      b++;
      a++;
    }
  }
  while (b < before.length) removed.push(before[b++]!);
  while (a < after.length) added.push(after[a++]!);
}

export function compareKeys(a: Endpoint, b: Endpoint): number {
  return a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
}

/** Same endpoints in the same order. */
export function sameEndpoints(a: readonly Endpoint[], b: readonly Endpoint[]): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i] && !equalEndpoints(a[i]!, b[i]!)) return false;
  return true;
}

/** Copies `from[at…]` as far as keys are smaller than `key`; returns where it stopped. */
function copyUntil(from: readonly Endpoint[], at: number, key: string, to: Endpoint[]): number {
  let low = at;
  let high = from.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (from[middle]!.key < key) low = middle + 1;
    else high = middle;
  }
  for (let i = at; i < low; i++) to.push(from[i]!);
  return low;
}

/** `list` with endpoints equal to those of `before` replaced by them; `before` itself if all are. */
function keepUnchanged(list: Endpoint[], before: readonly Endpoint[]): readonly Endpoint[] {
  let b = 0;
  let kept = 0;
  for (let i = 0; i < list.length && b < before.length; i++) {
    const endpoint = list[i]!;
    while (b < before.length && before[b]!.key < endpoint.key) b++;
    const old = before[b];
    if (old !== undefined && equalEndpoints(old, endpoint)) {
      list[i] = old;
      kept++;
    }
  }
  return kept === list.length && kept === before.length ? before : list;
}

function equalEndpoints(a: Endpoint, b: Endpoint): boolean {
  return (
    a.key === b.key &&
    a.ready === b.ready &&
    a.serving === b.serving &&
    a.terminating === b.terminating &&
    a.isLocal === b.isLocal &&
    a.nodeName === b.nodeName &&
    a.zone === b.zone &&
    a.pod === b.pod &&
    equalTexts(a.zoneHints ?? NO_TEXTS, b.zoneHints ?? NO_TEXTS) &&
    equalTexts(a.nodeHints ?? NO_TEXTS, b.nodeHints ?? NO_TEXTS)
  );
}
