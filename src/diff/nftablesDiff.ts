/**
 * Wanted against the kernel's table. What history decides is not compared: handles, the slots of endpoints, the numbers
 * under which clients are remembered, and what is counted.
 */
import { signExpressions } from '../linux/netlink/nftables/compare.ts';
import {
  setFlags,
  tableFlags,
  type Element,
  type NftSet,
  type Rule,
} from '../linux/netlink/nftables/objects.ts';
import {
  printElement,
  printExpressions,
  printRule,
  type TableContents,
} from '../linux/netlink/nftables/print.ts';
import { readStickyNumber } from '../dataplane/nftables/keys.ts';
import { nftablesContents } from '../render/nftables.ts';
import type { RuleConfig } from '../render/node.ts';
import type { WantedFamily } from '../render/wanted.ts';
import { unmatched, type Difference } from './difference.ts';

export function diffNftables(
  family: WantedFamily,
  actual: TableContents | undefined,
  localAddresses: readonly string[],
  serviceCounters: RuleConfig['extras']['serviceCounters'] = 'off',
): Difference[] {
  const wanted = nftablesContents(family, localAddresses, serviceCounters);
  const name = `${wanted.table.family} ${wanted.table.name}`;
  const found: Difference[] = [];
  const add = (difference: Omit<Difference, 'family' | 'servicePort'>, servicePort = ''): void => {
    found.push({ family: family.family, servicePort, ...difference });
  };
  if (actual === undefined) {
    add({ kind: 'missing', object: 'table', where: name, wanted: [], actual: [] });
    return found;
  }
  if (((actual.table.flags ?? 0) & tableFlags.dormant) !== 0)
    add({ kind: 'altered', object: 'table', where: name, ...dormantTable });
  diffChains(chainTexts(wanted), chainTexts(actual), name, add);
  const owner = ownerOf(family);
  for (const set of wanted.sets) {
    const where = `${name} ${set.name}`;
    const there = actual.sets.find((one) => one.name === set.name);
    if (there === undefined) {
      add({ kind: 'missing', object: 'set', where, wanted: [], actual: [] });
    } else if (!sameShape(set, there)) {
      add({ kind: 'altered', object: 'set', where, wanted: [shapeOf(set)], actual: [shapeOf(there)] });
    } else if (set.name !== 'sticky-clients') {
      diffElements(set, wanted, actual, where, owner, add);
    }
  }
  for (const set of actual.sets) {
    if ((set.flags & setFlags.anonymous) !== 0 || wanted.sets.some((one) => one.name === set.name)) continue;
    add({ kind: 'extra', object: 'set', where: `${name} ${set.name}`, wanted: [], actual: [] });
  }
  return found;
}

/** A table that is switched off as a whole. */
export const dormantTable = {
  wanted: [],
  actual: ['flags dormant: nothing in this table is in force'],
} as const;

export type AddDifference = (
  difference: Omit<Difference, 'family' | 'servicePort'>,
  servicePort?: string,
) => void;

/** A chain in a form in which equal ones do the same. */
export interface ChainText {
  readonly name: string;
  readonly hook: string;
  /** `sign` is what counts, `text` what people read. */
  readonly rules: readonly { readonly sign: string; readonly text: string }[];
}

interface HookFields {
  readonly type: string;
  readonly hook: string;
  readonly priority: number;
  readonly policy?: string;
}

/** `type nat hook prerouting priority -100; policy accept;` */
export function hookText(hook: HookFields | undefined): string {
  if (hook === undefined) return 'no hook';
  const { type, hook: name, priority, policy = 'accept' } = hook;
  return `type ${type} hook ${name} priority ${priority}; policy ${policy};`;
}

function chainTexts({ chains, rules }: TableContents): ChainText[] {
  return chains.map(({ name, hook }) => ({
    name,
    hook: hookText(hook),
    rules: rules
      .filter((rule) => rule.chain === name)
      .map((rule) => ({ sign: signRule(rule), text: printRule(rule) })),
  }));
}

export function diffChains(
  wanted: readonly ChainText[],
  actual: readonly ChainText[],
  table: string,
  add: AddDifference,
): void {
  const texts = ({ rules }: ChainText): string[] => rules.map(({ text }) => text);
  for (const chain of wanted) {
    const where = `${table} ${chain.name}`;
    const there = actual.find((one) => one.name === chain.name);
    if (there === undefined) {
      add({ kind: 'missing', object: 'chain', where, wanted: texts(chain), actual: [] });
      continue;
    }
    if (chain.hook !== there.hook)
      add({ kind: 'altered', object: 'chain', where, wanted: [chain.hook], actual: [there.hook] });
    const { missing, extra } = unmatched(chain.rules, there.rules, ({ sign }) => sign);
    for (const { text } of missing)
      add({ kind: 'missing', object: 'rule', where, wanted: [text], actual: [] });
    for (const { text } of extra) add({ kind: 'extra', object: 'rule', where, wanted: [], actual: [text] });
    if (missing.length > 0 || extra.length > 0) continue;
    if (chain.rules.every(({ sign }, n) => sign === there.rules[n]!.sign)) continue;
    const sides = { wanted: texts(chain), actual: texts(there) };
    add({ kind: 'altered', object: 'rule', where: `${where} (order)`, ...sides });
  }
  for (const chain of actual) {
    if (wanted.some((one) => one.name === chain.name)) continue;
    add({
      kind: 'extra',
      object: 'chain',
      where: `${table} ${chain.name}`,
      wanted: [],
      actual: texts(chain),
    });
  }
}

/** By what it says: stock nft uses other registers for the same rule than we do. What cannot be printed counts by its bytes. */
function signRule({ expressions, table }: Rule): string {
  const counting = expressions.filter(({ kind }) => kind !== 'counter');
  const unknown = counting.filter(({ kind }) => kind === 'unknown');
  const text = printExpressions(counting, { family: table.family });
  return unknown.length === 0 ? text : `${text} ${signExpressions(unknown)}`;
}

/** Same key, value and flags. Counters in elements are somebody's choice. */
function sameShape(a: NftSet, b: NftSet): boolean {
  return shapeOf(a) === shapeOf(b);
}

function shapeOf({ key, value, flags }: NftSet): string {
  return `${key.join(' . ')}${value === undefined ? '' : ` : ${String(value)}`}, flags 0x${flags.toString(16)}`;
}

/** An element in a form in which equal ones do the same, by what it is found by. */
export interface Entry {
  readonly key: string;
  readonly value: string;
  readonly text: string;
}

function diffElements(
  set: NftSet,
  wanted: TableContents,
  actual: TableContents,
  where: string,
  owner: (text: string) => string,
  add: AddDifference,
): void {
  diffEntries(entriesOf(set, wanted), entriesOf(set, actual), where, owner, add);
}

export function diffEntries(
  mine: readonly Entry[],
  theirs: readonly Entry[],
  where: string,
  owner: (text: string) => string,
  add: AddDifference,
): void {
  const { missing, extra } = unmatched(mine, theirs, ({ key, value }) => `${key}=${value}`);
  const rest = new Map<string, Entry[]>();
  for (const entry of extra) rest.set(entry.key, [...(rest.get(entry.key) ?? []), entry]);
  for (const entry of missing) {
    const other = rest.get(entry.key)?.pop();
    const sides = { wanted: [entry.text], actual: other === undefined ? [] : [other.text] };
    const kind = other === undefined ? 'missing' : 'altered';
    add({ kind, object: 'element', where, ...sides }, owner(entry.text));
  }
  for (const entry of [...rest.values()].flat())
    add({ kind: 'extra', object: 'element', where, wanted: [], actual: [entry.text] }, owner(entry.text));
}

function entriesOf(set: NftSet, contents: TableContents): Entry[] {
  const elements = contents.elements.get(set.name) ?? [];
  const hex = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString('hex');
  const valueOf = ({ data, verdict }: Element): string =>
    verdict === undefined ? hex(data) : `${verdict.code} ${verdict.chain ?? ''}`;
  if (set.name.endsWith('endpoints')) return slottedEntries(elements.map((element) => slotOf(set, element)));
  if (set.name === 'sticky-times') {
    return elements.map((element) => ({
      key: `${element.comment}`,
      value: valueOf(element),
      text: `${element.verdict?.chain} for ${element.comment}`,
    }));
  }
  const isIds = set.name.endsWith('sticky-ids');
  if (isIds || set.name === 'sticky-draws' || set.name === 'sticky-targets') {
    const names = new Map<number, string>();
    for (const { key, verdict, comment } of contents.elements.get('sticky-times') ?? [])
      names.set(readStickyNumber(key), `${verdict?.chain} for ${comment}`);
    if (!isIds) {
      return elements.map(({ key }) => {
        const name = names.get(readStickyNumber(key)) ?? 'a number without a time';
        const rest = hex(key.subarray(4));
        return { key: `${name} ${rest}`, value: '', text: `${set.name} of ${name} ${rest}` };
      });
    }
    return elements.map((element) => {
      const name =
        names.get(readStickyNumber(element.data ?? new Uint8Array(4))) ?? 'a number without a time';
      return { key: hex(element.key), value: name, text: `${keyText(set, element)} : ${name}` };
    });
  }
  return elements.map((element) => ({
    key: `${hex(element.key)} ${hex(element.keyEnd)} ${element.flags ?? 0}`,
    value: valueOf(element),
    text: printElement(set, bare(element)),
  }));
}

/** One slot of a frontend: `KEY . SLOT : ENDPOINT` as nft prints it. */
export interface Slot {
  /** The key without the slot. */
  readonly frontend: string;
  readonly number: number;
  readonly text: string;
}

function slotOf(set: NftSet, element: Element): Slot {
  const { key } = element;
  return {
    frontend: Buffer.from(key.subarray(0, key.length - 4)).toString('hex'),
    number: readStickyNumber(key, key.length - 4),
    text: printElement(set, bare(element)),
  };
}

/** All endpoints of one frontend are one entry: which slot one is in means nothing. */
export function slottedEntries(slots: readonly Slot[]): Entry[] {
  const lists = new Map<
    string,
    { readonly head: string; readonly texts: string[]; readonly numbers: number[] }
  >();
  for (const { frontend, number, text } of slots) {
    const [keyPart = '', endpoint = ''] = text.split(' : ');
    let list = lists.get(frontend);
    if (list === undefined) {
      list = { head: keyPart.slice(0, keyPart.lastIndexOf(' . ')), texts: [], numbers: [] };
      lists.set(frontend, list);
    }
    list.texts.push(endpoint);
    list.numbers.push(number);
  }
  return [...lists].map(([key, { head, texts, numbers }]) => {
    const gap = numbers.toSorted((a, b) => a - b).some((number, i) => number !== i);
    const value = texts.toSorted().join(', ') + (gap ? ' (a slot is missing)' : '');
    return { key, value, text: `${head} : ${value}` };
  });
}

/** Without what time and traffic change. */
function bare({ key, keyEnd, data, verdict, flags, comment }: Element): Element {
  return {
    key,
    ...(keyEnd !== undefined && { keyEnd }),
    ...(data !== undefined && { data }),
    ...(verdict !== undefined && { verdict }),
    ...(flags !== undefined && { flags }),
    ...(comment !== undefined && { comment }),
  };
}

function keyText(set: NftSet, element: Element): string {
  return printElement(set, bare(element)).split(' : ', 1)[0]!;
}

/** The service port by the frontend that an element's text begins with. */
export function ownerOf({ table }: WantedFamily): (text: string) => string {
  const owners = new Map<string, string>();
  for (const { port, frontends } of table.routes.values()) {
    for (const frontend of frontends) {
      const end = `${frontend.protocol.toLowerCase()} . ${frontend.port}`;
      owners.set(frontend.kind === 'nodePort' ? end : `${frontend.ip} . ${end}`, port.name);
    }
  }
  return (text) => {
    const named = / comment "([^"]+)"/.exec(text)?.[1];
    if (named !== undefined) return named;
    const parts = text.split(/ : | comment /, 1)[0]!.split(' . ');
    return owners.get(parts.slice(0, 3).join(' . ')) ?? owners.get(parts.slice(0, 2).join(' . ')) ?? '';
  };
}
