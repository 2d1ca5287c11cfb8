/**
 * What the kernel holds, read back, and the sink that compares a wanted table with it: elements that are right are
 * left alone, wrong ones are replaced, missing ones added; at the end what nobody wanted is removed.
 */
import type { Verdict } from '../../linux/netlink/nftables/expressions.ts';
import { readElement } from '../../linux/netlink/nftables/elementCodec.ts';
import type { Element, NftSet, TableName } from '../../linux/netlink/nftables/objects.ts';
import { familyNumber, setFlags } from '../../linux/netlink/nftables/objects.ts';
import { messageTypes, NFNL_SUBSYS_NFTABLES } from '../../linux/netlink/nftables/batch.ts';
import { sizeOf } from '../../linux/netlink/nftables/types.ts';
import {
  attributesOf,
  NFGENMSG_LENGTH,
  type AttributeReader,
  type Message,
} from '../../linux/netlink/message.ts';
import type { NetlinkSocket } from '../../linux/netlink/socket.ts';
import type { Endpoint } from '../../services/types.ts';
import { ElementTable } from './elementTable.ts';
import { endpointValue, joinKeys, readStickyNumber, slotKey, stickyNumber } from './keys.ts';
import type { Layout, SetName } from './layout.ts';
import type { ElementSink } from './mirror.ts';

/** Sets whose elements come from routes; the others are compared by whoever fills them. */
const routeSets: readonly SetName[] = [
  'virtual-ips',
  'frontends',
  'node-ports',
  'endpoints',
  'local-endpoints',
  'node-port-endpoints',
  'node-port-local-endpoints',
  'unserved',
  'unserved-node-ports',
  'guarded',
  'source-ranges',
  'hairpins',
  'sticky-ids',
  'local-sticky-ids',
  'node-port-sticky-ids',
  'node-port-local-sticky-ids',
  'sticky-times',
  'sticky-draws',
  'sticky-targets',
];

const NO_BYTES = new Uint8Array(0);
/** Up to here endpoints are matched with slots one by one. */
const fewEndpoints = 16;

export class KernelElements implements ElementSink {
  readonly #tables = new Map<SetName, ElementTable>();
  /** Verdicts with their comments, as numbers. */
  readonly #texts = new Map<string, number>();
  readonly #sink: ElementSink;

  /** What differs goes to `sink`. */
  constructor(layout: Layout, sink: ElementSink) {
    this.#sink = sink;
    for (const name of routeSets) {
      const set = layout.sets.get(name);
      if (set === undefined) continue;
      this.#tables.set(name, new ElementTable(keyLength(set), valueLength(set)));
    }
  }

  /** Sets to read, one `read` each. */
  get sets(): IterableIterator<SetName> {
    return this.#tables.keys();
  }

  /** Reads a set's elements. */
  async read(socket: NetlinkSocket, table: TableName, set: NftSet): Promise<void> {
    const verdicts = set.value === 'verdict';
    let elements = new ElementTable(keyLength(set), valueLength(set));
    const take = (reader: AttributeReader): void => {
      if (verdicts) {
        const element = readElement(reader);
        elements.insert(element.key, 0, this.#text(element.verdict, element.comment), 0);
      } else takeElement(reader, elements);
    };
    await dumpElements(socket, table, set.name, take, () => {
      elements = new ElementTable(keyLength(set), valueLength(set));
    });
    this.#tables.set(set.name as SetName, elements);
  }

  add(set: SetName, element: Element): void {
    const table = this.#tables.get(set)!;
    const key = element.keyEnd === undefined ? element.key : joinKeys(element.key, element.keyEnd);
    const entry = table.find(key);
    if (entry >= 0) {
      table.markSeen(entry);
      const value =
        element.verdict === undefined
          ? (element.data ?? NO_BYTES)
          : this.#text(element.verdict, element.comment);
      if (table.hasValue(entry, value)) return;
      this.#sink.remove(set, element);
    }
    this.#sink.add(set, element);
  }

  remove(set: SetName, element: Element): void {
    this.#sink.remove(set, element);
  }

  adoptSlots(set: SetName, key: Uint8Array, wanted: readonly Endpoint[]): readonly Endpoint[] {
    const table = this.#tables.get(set)!;
    if (table.size === 0) return wanted;
    const values = wanted.map((endpoint) => endpointValue(endpoint.ip, endpoint.port));
    const found = values.map((_, slot) => table.find(slotKey(key, slot)));
    // The usual case: the order in which a fresh start would have them.
    if (found.every((entry, slot) => entry < 0 || table.hasValue(entry, values[slot]!))) return wanted;
    const indexOf = wanted.length <= fewEndpoints ? undefined : indexByBytes(values);
    const slots = wanted.map((): Endpoint | undefined => undefined);
    const placed = wanted.map(() => false);
    for (let slot = 0; slot < wanted.length; slot++) {
      const entry = found[slot]!;
      if (entry < 0) continue;
      const index =
        indexOf === undefined
          ? values.findIndex((value) => table.hasValue(entry, value))
          : (indexOf.get(latin1(table.value(entry))) ?? -1);
      if (index < 0 || placed[index] === true) continue;
      placed[index] = true;
      slots[slot] = wanted[index];
    }
    let next = 0;
    return slots.map((endpoint) => {
      if (endpoint !== undefined) return endpoint;
      while (placed[next] === true) next++;
      return wanted[next++]!;
    });
  }

  adoptNumber(set: SetName, key: Uint8Array): number | undefined {
    const table = this.#tables.get(set)!;
    const entry = table.find(key);
    if (entry < 0) return undefined;
    const number = readStickyNumber(table.value(entry));
    // A number is one service port's and one list's only; whoever asks second gets a new one.
    if (number === 0 || this.#adopted.has(number)) return undefined;
    this.#adopted.add(number);
    return number;
  }
  readonly #adopted = new Set<number>();

  /** The largest number for affinity that is in use. */
  largestNumber(): number {
    let largest = 0;
    const table = this.#tables.get('sticky-times')!;
    for (let entry = 0; entry < table.size; entry++) {
      largest = Math.max(largest, readStickyNumber(table.key(entry)));
    }
    for (const name of [
      'sticky-ids',
      'local-sticky-ids',
      'node-port-sticky-ids',
      'node-port-local-sticky-ids',
    ] as const) {
      const ids = this.#tables.get(name)!;
      for (let entry = 0; entry < ids.size; entry++) {
        largest = Math.max(largest, readStickyNumber(ids.value(entry)));
      }
    }
    return largest;
  }

  /** Removes what was not added again. */
  removeRest(layout: Layout): void {
    for (const [name, table] of this.#tables) {
      const intervals = isInterval(layout.sets.get(name)!);
      for (let entry = 0; entry < table.size; entry++) {
        if (table.isSeen(entry)) continue;
        const key = table.key(entry);
        const half = key.length / 2;
        this.#sink.remove(name, intervals ? { key: key.slice(0, half), keyEnd: key.slice(half) } : { key });
      }
    }
  }

  #text(verdict: Verdict | undefined, comment: string | undefined): Uint8Array {
    const text = `${verdict?.code} ${verdict?.chain ?? ''} ${comment ?? ''}`;
    let number = this.#texts.get(text);
    if (number === undefined) this.#texts.set(text, (number = this.#texts.size));
    return stickyNumber(number);
  }
}

function isInterval(set: NftSet): boolean {
  return (set.flags & setFlags.interval) !== 0;
}

function keyLength(set: NftSet): number {
  return sizeOf(set.key) * (isInterval(set) ? 2 : 1);
}

function valueLength(set: NftSet): number {
  if (set.value === undefined) return 0;
  return set.value === 'verdict' ? 4 : sizeOf(set.value);
}

function latin1(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

function indexByBytes(values: readonly Uint8Array[]): Map<string, number> {
  return new Map(values.map((value, index) => [latin1(value), index]));
}

/** NFTA_SET_ELEM_KEY, …_DATA, …_KEY_END; NFTA_DATA_VALUE comes first and alone in each. */
const ELEMENT_KEY = 1;
const ELEMENT_DATA = 2;
const ELEMENT_KEY_END = 10;
const dataHeader = 4;

/** Without an object for each element: called for every endpoint of the cluster. */
function takeElement(reader: AttributeReader, elements: ElementTable): void {
  const { bytes } = reader;
  let key = 0;
  let keyEnd = 0;
  let value = 0;
  while (reader.next()) {
    if (reader.type === ELEMENT_KEY) key = reader.start + dataHeader;
    else if (reader.type === ELEMENT_KEY_END) keyEnd = reader.start + dataHeader;
    else if (reader.type === ELEMENT_DATA) value = reader.start + dataHeader;
  }
  if (key === 0) return;
  if (keyEnd === 0) elements.insert(bytes, key, bytes, value);
  else {
    const half = elements.keyLength / 2;
    elements.insert(
      joinKeys(bytes.subarray(key, key + half), bytes.subarray(keyEnd, keyEnd + half)),
      0,
      bytes,
      value,
    );
  }
}

/** In struct nfgenmsg; nf_tables has the generation there. */
const resourceId = 2;

/** Sets that grow with the cluster: read piece by piece, with the event loop running between; others at once. */
const bigSets = new Set<string>([
  'virtual-ips',
  'frontends',
  'endpoints',
  'local-endpoints',
  'node-ports',
  'node-port-endpoints',
]);

/**
 * Hands over every element of a set, with the low 16 bits of the ruleset's generation in which it was read (the kernel
 * does not call a dump of elements interrupted when that changes); `onRestart` if those so far have to be forgotten.
 */
export async function dumpElements(
  socket: NetlinkSocket,
  table: TableName,
  set: string,
  take: (reader: AttributeReader, generation: number) => void,
  onRestart: () => void,
): Promise<void> {
  const writer = socket.begin((NFNL_SUBSYS_NFTABLES << 8) | messageTypes.getSetElement);
  writer.nfgenmsg(familyNumber(table.family), 0, 0);
  writer.string(1, table.name);
  writer.string(2, set);
  const what = `list elements of ${table.family} ${table.name} ${set}`;
  const onMessage = (message: Message): void => {
    const { bytes, start } = message;
    const generation = (bytes[start + resourceId]! << 8) | bytes[start + resourceId + 1]!;
    const reader = attributesOf(message, NFGENMSG_LENGTH);
    while (reader.next()) {
      if (reader.type !== 3) continue;
      const list = reader.nested();
      while (list.next()) if (list.type === 1) take(list.nested(), generation);
    }
  };
  const { complete } = bigSets.has(set)
    ? await socket.dumpInPieces(what, onMessage, onRestart)
    : socket.dump(what, onMessage, onRestart);
  if (!complete) throw new Error(`${what}: the ruleset changed during each of five attempts`);
}
