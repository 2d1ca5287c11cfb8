/**
 * nftables mode, with --service-counters: elements of maps count when they are found, and so do the few rules that
 * refuse or masquerade. All of it is in nat chains, or behind `ct state new`: first packets only.
 *
 * An element that is replaced begins at 0. What it had counted the kernel says when it announces that the element is
 * gone, and those announcements come anyway (see tableWatch.ts): nothing is asked before a change.
 */
import { formatAddress } from '../../linux/address-bytes.ts';
import type { Expression } from '../../linux/netlink/nftables/expressions.ts';
import { attributesOf, NFGENMSG_LENGTH, type Message } from '../../linux/netlink/message.ts';
import type { Rule } from '../../linux/netlink/nftables/objects.ts';
import { isCounted } from '../../linux/netlink/nftables/setCounter.ts';
import { NftSocket } from '../../linux/netlink/nftables/socket.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from '../../linux/netlink/socket.ts';
import type { ServicePortId } from '../../services/types.ts';
import { refused, type CounterSource, type Meaning, type Reading } from '../counts.ts';
import { readCounted, type CountedElement } from './countedElements.ts';
import { readStickyNumber } from './keys.ts';
import { dumpElements } from './kernelElements.ts';
import { countedSets, type Layout, type SetName } from './layout.ts';
import type { Entry, Mirror } from './mirror.ts';
import { targetsOf, type Target } from './targets.ts';

/** Behind the frontend's key, in keys of endpoint maps: the slot. */
const slotSize = 4;
/** NFTA_SET_ELEM_LIST_… */
const LIST_SET = 2;
const LIST_ELEMENTS = 3;

/** Kept at most while nobody reads; then the older half is lost. */
const lastWordsMax = 20_000;

/** Whose an element is. */
interface Owner {
  readonly id: ServicePortId;
  readonly sticky: boolean;
  /** Frontends in `unserved`: clients get there by way of a chain that served others. */
  readonly turnsAway: boolean;
}

/** An element that a transaction removes. */
interface Removal {
  readonly set: SetName;
  readonly key: Uint8Array;
  readonly entry: Entry;
}

export interface NftablesCountsOptions {
  readonly layout: Layout;
  /** What the kernel holds; undefined before the first sync. */
  readonly mirror: () => Mirror | undefined;
  /** Takes in the announcements that are there. */
  readonly drain: () => void;
  /** The ruleset's generation as of the last announcement. */
  readonly generation: () => number;
}

/** What an element that a transaction removed had counted. */
interface LastWord {
  readonly reading: Reading;
  /** Of the ruleset without the element. */
  readonly generation: number;
}

/** Earlier than every dump. */
const unknownGeneration = -1;

/** Whether a generation is later than that of which `dump` are the low 16 bits. */
function isLater(generation: number, dump: number): boolean {
  if (generation === unknownGeneration) return false;
  const ahead = (generation - dump) & 0xffff;
  return ahead > 0 && ahead < 0x8000;
}

export class NftablesCounts implements CounterSource {
  readonly name = 'nftables';
  readonly mayMiss = true;
  readonly notes: readonly string[];
  readonly #options: NftablesCountsOptions;
  readonly #sets: readonly SetName[];
  /** The service port whose change is being planned, as it was. */
  #changing: Entry | undefined;
  #planned: Removal[] = [];
  readonly #announced = new Map<string, Entry>();
  /** In the order of generations. */
  #lastWords: LastWord[] = [];

  constructor(options: NftablesCountsOptions) {
    this.#options = options;
    const { sets } = options.layout;
    this.#sets = countedSets.endpoints.filter((name) => {
      const set = sets.get(name);
      return set !== undefined && isCounted(set);
    });
    this.notes = this.#sets.includes('endpoints')
      ? []
      : ['Endpoints are counted with --service-counters=endpoints.'];
  }

  /** The changes planned from here on are those of a service port that was so. */
  changing(entry: Entry | undefined): void {
    this.#changing = entry;
  }

  /** An element goes with the next transaction. */
  removing(set: SetName, key: Uint8Array): void {
    // Others have nothing to say when they go, and would be waited for in vain.
    if (this.#changing === undefined || !this.#sets.includes(set)) return;
    this.#planned.push({ set, key, entry: this.#changing });
  }

  /** Elements that are on their way out and have not said their last word yet. */
  get leaving(): number {
    return this.#planned.length + this.#announced.size;
  }

  /** What was planned is in force: the kernel's announcements of it are the next to be taken. */
  committed(): void {
    for (const { set, key, entry } of this.#planned) this.#announced.set(`${set} ${hex(key)}`, entry);
    this.#planned = [];
  }

  /** What was planned has failed, or announcements were lost. */
  forgetPlans(): void {
    this.#planned = [];
    this.#announced.clear();
    this.#changing = undefined;
  }

  /** Takes the kernel's announcement that a transaction of ours removed elements. */
  takeRemoval(message: Message): void {
    const reader = attributesOf(message, NFGENMSG_LENGTH);
    let set: SetName | undefined;
    while (reader.next()) {
      if (reader.type === LIST_SET) {
        const name = reader.string();
        set = this.#sets.find((one) => one === name);
        if (set === undefined) return;
      } else if (reader.type === LIST_ELEMENTS && set !== undefined) {
        const list = reader.nested();
        while (list.next()) this.#takeLastWord(set, readCounted(list.nested(), true));
      }
    }
  }

  async read(): Promise<Reading[]> {
    const mirror = this.#options.mirror();
    if (mirror === undefined) return [];
    const readings: Reading[] = [];
    const owners = new Owners(mirror);
    const { table } = this.#options.layout;
    const socket = new NetlinkSocket({ protocol: NETLINK_NETFILTER });
    const nft = new NftSocket();
    try {
      for (const set of this.#sets) await this.#readSet(socket, set, owners, readings);
      for (const [index, rule] of nft.listRules(table).entries()) {
        const packets = packetsOf(rule.expressions);
        const meaning = packets === undefined ? undefined : meaningOfRule(rule);
        if (meaning === undefined) continue;
        readings.push({ rule: `${rule.chain} ${rule.handle ?? index}`, meaning, packets: packets ?? 0 });
      }
    } catch (error) {
      // Nobody has heard them yet.
      const unheard = readings.filter(({ last }) => last === true);
      this.#lastWords.unshift(...unheard.map((reading) => ({ reading, generation: unknownGeneration })));
      throw error;
    } finally {
      socket.close();
      nft.close();
    }
    this.#options.drain();
    for (const { reading } of this.#lastWords.splice(0)) readings.push(reading);
    return readings;
  }

  async #readSet(socket: NetlinkSocket, set: SetName, owners: Owners, readings: Reading[]): Promise<void> {
    const { layout, drain } = this.#options;
    const found: { readonly reading: Reading; readonly generation: number }[] = [];
    await dumpElements(
      socket,
      layout.table,
      set,
      (reader, generation) => {
        const element = readCounted(reader, false);
        if (element === undefined) return;
        const owner = owners.of(set, element.key);
        if (owner === undefined) return;
        const read: Reading[] = [];
        pushReadings(read, ruleOf(set, element), set, owner, element, false);
        for (const reading of read) found.push({ reading, generation });
      },
      () => {
        found.length = 0;
      },
    );
    drain();
    const words = this.#lastWords;
    let heard = 0;
    // Elements removed up to the generation of a reading were others, with the same key.
    for (const { reading, generation } of found) {
      for (; heard < words.length && !isLater(words[heard]!.generation, generation); heard++)
        readings.push(words[heard]!.reading);
      readings.push(reading);
    }
    words.splice(0, heard);
  }

  #takeLastWord(set: SetName, element: CountedElement | undefined): void {
    if (element === undefined) return;
    const place = `${set} ${hex(element.key)}`;
    const entry = this.#announced.get(place);
    if (entry === undefined) return;
    this.#announced.delete(place);
    if (element.packets === 0) return;
    const owner = ownerOf(entry, set, element.key);
    const said: Reading[] = [];
    pushReadings(said, ruleOf(set, element), set, owner, element, true);
    // The end of the transaction, which tells its generation, comes behind it.
    const generation = this.#options.generation() + 1;
    for (const reading of said) this.#lastWords.push({ reading, generation });
    if (this.#lastWords.length > lastWordsMax) this.#lastWords.splice(0, lastWordsMax / 2);
  }
}

/** Which service port an element is there for, made from what the mirror knows. */
class Owners {
  readonly #frontends = new Map<string, Owner>();
  readonly #numbers = new Map<number, Owner>();

  constructor(mirror: Mirror) {
    for (const entry of mirror.entries.values()) {
      for (const target of targetsOfEntry(entry))
        this.#frontends.set(hex(target.key), ownerOfTarget(entry, target));
      const owner = ownerOfTarget(entry, undefined);
      if (entry.clusterNumber !== 0) this.#numbers.set(entry.clusterNumber, owner);
      if (entry.localNumber !== 0) this.#numbers.set(entry.localNumber, owner);
    }
  }

  of(set: SetName, key: Uint8Array): Owner | undefined {
    if (isNumbered(set)) return this.#numbers.get(readStickyNumber(key));
    return this.#frontends.get(hex(frontendOf(set, key)));
  }
}

function ownerOf(entry: Entry, set: SetName, key: Uint8Array): Owner {
  if (!set.startsWith('unserved')) return ownerOfTarget(entry, undefined);
  return ownerOfTarget(
    entry,
    targetsOfEntry(entry).find((target) => Buffer.compare(target.key, key) === 0),
  );
}

function ownerOfTarget({ route: { port } }: Entry, target: Target | undefined): Owner {
  const turnsAway = target !== undefined && target.chain !== '' && target.unserved !== '';
  return { id: port.id, sticky: port.affinitySeconds > 0, turnsAway };
}

function targetsOfEntry({ route }: Entry): Target[] {
  return targetsOf(route, route.cluster.length, route.local.length);
}

function isNumbered(set: SetName): boolean {
  return set.startsWith('sticky-');
}

function isEndpoints(set: SetName): boolean {
  return set.endsWith('endpoints');
}

function frontendOf(set: SetName, key: Uint8Array): Uint8Array {
  return isEndpoints(set) ? key.subarray(0, key.length - slotSize) : key;
}

/** An endpoint in a slot is another counter than the one that was there before. */
function ruleOf(set: SetName, { key, data }: CountedElement): string {
  return isEndpoints(set) ? `${set} ${hex(key)} ${hex(data)}` : `${set} ${hex(key)}`;
}

function pushReadings(
  readings: Reading[],
  rule: string,
  set: SetName,
  { id, sticky, turnsAway }: Owner,
  { key, data, packets }: CountedElement,
  isLast: boolean,
): void {
  const push = (name: string, meaning: Meaning): void => {
    readings.push(isLast ? { rule: name, meaning, packets, last: true } : { rule: name, meaning, packets });
  };
  switch (set) {
    case 'frontends':
    case 'node-ports':
      return push(rule, { kind: 'service', id });
    case 'unserved':
    case 'unserved-node-ports':
      if (turnsAway) push(`${rule} turned away`, { kind: 'turnedAway', id });
      return push(
        rule,
        isDrop(data) ? refused('no_local_endpoints', 'drop', id) : refused('no_endpoints', 'reject', id),
      );
    case 'sticky-times':
      return push(rule, { kind: 'affinityAsked', id });
    case 'sticky-draws':
      return push(rule, { kind: 'affinityMissed', id });
    case 'sticky-targets':
      return push(rule, { kind: 'endpoint', id, endpoint: endpointOf(key.subarray(4)) });
    default:
      // With affinity, sticky-targets has counted it.
      return push(
        rule,
        sticky ? { kind: 'drawn', id } : { kind: 'endpoint', id, endpoint: endpointOf(data) },
      );
  }
}

/** NFTA_DATA_VERDICT { NFTA_VERDICT_CODE: u32 }; NF_DROP is 0. */
function isDrop(data: Uint8Array): boolean {
  return data.length >= 8 && data[4] === 0 && data[5] === 0 && data[6] === 0 && data[7] === 0;
}

/** `ADDRESS . PORT`, the port padded to a word. */
function endpointOf(data: Uint8Array): string {
  const size = data.length - 4;
  const ip = formatAddress(data, 0, size);
  const port = (data[size]! << 8) | data[size + 1]!;
  return size === 16 ? `[${ip}]:${port}` : `${ip}:${port}`;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
}

function packetsOf(expressions: readonly Expression[]): number | undefined {
  for (const expression of expressions)
    if (expression.kind === 'counter') return Number(expression.packets ?? 0n);
  return undefined;
}

/** What the counter of a shared rule says; undefined = nothing of ours. */
function meaningOfRule({ chain, expressions, comment }: Rule): Meaning | undefined {
  if (chain === 'source-check') return refused('source_range', 'drop');
  if (chain === 'virtual-ip-check')
    return comment === 'no such port'
      ? refused('no_such_port', 'reject')
      : refused('no_such_service', 'drop');
  if (chain === 'source-nat' && expressions.some(({ kind }) => kind === 'masq'))
    return { kind: 'masqueraded' };
  return undefined;
}
