/** Tables as `nft list` prints them, and transactions as scripts that `nft -f` takes. */
import type { Operation } from './batch.ts';
import type { Chain, Element, Hook, NftSet, Rule, Table, TableFamily, TableName } from './objects.ts';
import { setFlags } from './objects.ts';
import { printDuration, printElements, printExpressions, quote, type PrintContext } from './print-rule.ts';
import { printSelector } from './selectors.ts';
import { isCounted } from './setCounter.ts';

export { printDuration, printElement, printElements, printExpressions, printVerdict } from './print-rule.ts';

/** Everything in a table. */
export interface TableContents {
  readonly table: Table;
  readonly chains: readonly Chain[];
  readonly rules: readonly Rule[];
  readonly sets: readonly NftSet[];
  /** By the set's name. */
  readonly elements: ReadonlyMap<string, readonly Element[]>;
}

function nameOf(table: TableName): string {
  return `${table.family} ${table.name}`;
}

/** A rule's statements and comment. */
export function printRule(rule: Rule, context: PrintContext = { family: rule.table.family }): string {
  const comment = rule.comment === undefined ? '' : ` comment ${quote(rule.comment)}`;
  return printExpressions(rule.expressions, context) + comment;
}

/** Names of priorities, each usable up to 10 away from it. */
function printPriority(hook: Hook, family: TableFamily): string {
  const names: readonly (readonly [name: string, value: number, allowed: boolean])[] = [
    ['raw', -300, true],
    ['mangle', -150, true],
    ['dstnat', -100, hook.hook === 'prerouting'],
    ['filter', 0, true],
    ['security', 50, true],
    ['srcnat', 100, hook.hook === 'postrouting'],
  ];
  if (family === 'ip' || family === 'ip6' || family === 'inet') {
    for (const [name, value, allowed] of names) {
      const distance = hook.priority - value;
      if (!allowed || Math.abs(distance) > 10) continue;
      if (distance === 0) return name;
      return `${name} ${distance < 0 ? '-' : '+'} ${Math.abs(distance)}`;
    }
  }
  return String(hook.priority);
}

function printHook(hook: Hook, family: TableFamily): string {
  const where = `type ${hook.type} hook ${hook.hook} priority ${printPriority(hook, family)};`;
  return `${where} policy ${hook.policy ?? 'accept'};`;
}

/** The lines between a set's braces, without its elements. */
function setLines(set: NftSet): string[] {
  const lines: string[] = [];
  const { keySelectors, valueSelectors } = set;
  const asTypes =
    keySelectors === undefined ||
    (set.value !== undefined && set.value !== 'verdict' && valueSelectors === undefined);
  const key = asTypes ? set.key.join(' . ') : keySelectors.map(printSelector).join(' . ');
  let value = '';
  if (set.value === 'verdict') value = ' : verdict';
  else if (set.value !== undefined) {
    value = ` : ${asTypes ? set.value.join(' . ') : valueSelectors!.map(printSelector).join(' . ')}`;
  }
  lines.push(`${asTypes ? 'type' : 'typeof'} ${key}${value}`);
  if (set.size !== undefined) lines.push(`size ${set.size}`);
  const flags: string[] = [];
  if ((set.flags & setFlags.constant) !== 0) flags.push('constant');
  if ((set.flags & setFlags.dynamic) !== 0) flags.push('dynamic');
  if ((set.flags & setFlags.interval) !== 0) flags.push('interval');
  if ((set.flags & setFlags.timeout) !== 0) flags.push('timeout');
  if (flags.length > 0) lines.push(`flags ${flags.join(',')}`);
  if (set.timeout !== undefined) lines.push(`timeout ${printDuration(set.timeout)}`);
  if (isCounted(set)) lines.push('counter');
  if (set.comment !== undefined) lines.push(`comment ${quote(set.comment)}`);
  return lines;
}

function contextOf(contents: TableContents): PrintContext {
  const sets = new Map(contents.sets.map((set) => [set.name, set]));
  return {
    family: contents.table.family,
    set: (name) => sets.get(name),
    elements: (name) => contents.elements.get(name),
  };
}

/** Bits of a table's flags, as nft names them. */
const tableFlags = ['dormant', 'owner', 'persist'] as const;

/** The lines between a table's braces, without its sets and chains. */
function tableLines({ comment, flags = 0 }: Table): string[] {
  const names = tableFlags.filter((_, bit) => (flags & (1 << bit)) !== 0);
  return [
    ...(comment === undefined ? [] : [`comment ${quote(comment)}`]),
    ...(names.length === 0 ? [] : [`flags ${names.join(',')}`]),
  ];
}

/** The table as `nft list table` prints it. */
export function printTable(contents: TableContents): string {
  const context = contextOf(contents);
  const blocks: string[] = [];
  for (const set of contents.sets) {
    if ((set.flags & setFlags.anonymous) !== 0) continue;
    const lines = setLines(set).map((line) => `\t\t${line}\n`);
    const elements = printElements(set, contents.elements.get(set.name) ?? []);
    if (elements.length > 0) lines.push(`\t\telements = { ${elements.join(',\n\t\t\t     ')} }\n`);
    blocks.push(`\t${set.value === undefined ? 'set' : 'map'} ${set.name} {\n${lines.join('')}\t}\n`);
  }
  const rulesByChain = new Map<string, Rule[]>();
  for (const rule of contents.rules) {
    const rules = rulesByChain.get(rule.chain);
    if (rules === undefined) rulesByChain.set(rule.chain, [rule]);
    else rules.push(rule);
  }
  for (const chain of contents.chains) {
    const lines: string[] = [];
    if (chain.comment !== undefined) lines.push(`\t\tcomment ${quote(chain.comment)}\n`);
    if (chain.hook !== undefined) lines.push(`\t\t${printHook(chain.hook, chain.table.family)}\n`);
    for (const rule of rulesByChain.get(chain.name) ?? []) lines.push(`\t\t${printRule(rule, context)}\n`);
    blocks.push(`\tchain ${chain.name} {\n${lines.join('')}\t}\n`);
  }
  const lines = tableLines(contents.table).map((line) => `\t${line}\n`);
  return `table ${nameOf(contents.table)} {\n${lines.join('')}${blocks.join('\n')}}\n`;
}

/** One line of an nft script. `most` limits the elements shown (for messages; the rest is counted). */
export function printOperation(operation: Operation, most = Infinity): string {
  const { verb, object } = operation;
  if (operation.elements !== undefined && object.kind === 'set')
    return printElementOperation(operation, object, most);
  // nft has no word for "create" of rules and for "destroy" before 1.0.7.
  switch (object.kind) {
    case 'table': {
      if (verb === 'flush' || verb === 'delete' || verb === 'destroy')
        return `${verb} table ${nameOf(object)}`;
      const lines = tableLines(object);
      return `${verb} table ${nameOf(object)}${lines.length === 0 ? '' : ` { ${lines.join(' ; ')} ; }`}`;
    }
    case 'chain': {
      const name = `${verb} chain ${nameOf(object.table)} ${object.name}`;
      if (verb === 'flush' || verb === 'delete' || verb === 'destroy') return name;
      const inner = object.hook === undefined ? '' : `${printHook(object.hook, object.table.family)} `;
      const comment = object.comment === undefined ? '' : `comment ${quote(object.comment)} ; `;
      return inner === '' && comment === '' ? name : `${name} { ${inner}${comment}}`;
    }
    case 'rule': {
      const name = `${verb === 'create' ? 'add' : verb} rule ${nameOf(object.table)} ${object.chain}`;
      if (verb === 'delete' || verb === 'destroy') return `${name} handle ${object.handle}`;
      const handle = verb === 'replace' ? ` handle ${object.handle}` : '';
      return `${name}${handle} ${printRule(object)}`;
    }
    case 'set': {
      const name = `${verb} ${object.value === undefined ? 'set' : 'map'} ${nameOf(object.table)} ${object.name}`;
      if (verb === 'flush' || verb === 'delete' || verb === 'destroy') return name;
      return `${name} { ${setLines(object).join(' ; ')} ; }`;
    }
  }
}

function printElementOperation(operation: Operation, set: NftSet, most: number): string {
  const { verb, elements = [], first = 0, last = elements.length } = operation;
  const shown = elements.slice(first, Math.min(last, first + most));
  const removal = verb === 'delete' || verb === 'destroy';
  // Elements are removed by key; nft does not take the rest.
  const texts = removal
    ? printElements(
        set,
        shown.map(({ key, keyEnd, flags }) => bare(key, keyEnd, flags)),
      )
    : printElements(set, shown);
  if (last - first > most) texts.push(`and ${last - first - most} more`);
  return `${verb} element ${nameOf(set.table)} ${set.name} { ${texts.join(', ')} }`;
}

function bare(key: Uint8Array, keyEnd: Uint8Array | undefined, flags: number | undefined): Element {
  return { key, ...(keyEnd === undefined ? {} : { keyEnd }), ...(flags === undefined ? {} : { flags }) };
}
