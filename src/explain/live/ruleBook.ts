/** The kernel's rules by what its traces call them: nftables ones by handle, those of legacy iptables by number. */
import type { Family } from '../../api/objects.ts';
import { run } from '../../linux/exec.ts';
import { parseSave, type SavedTable } from '../../linux/iptables/save.ts';
import type { Rule } from '../../linux/netlink/nftables/objects.ts';
import { printRule, type TableContents } from '../../linux/netlink/nftables/print.ts';
import { NftSocket } from '../../linux/netlink/nftables/socket.ts';
import type { TableName } from '../../linux/netlink/nftables/objects.ts';
import type { HookName } from '../flow.ts';
import { parseRule } from '../iptables/parse.ts';

/** Where the kernel calls a chain. */
export interface BasePlace {
  readonly hook: HookName;
  readonly priority: number;
  /** `nat`: only the first packet of a connection comes to it. */
  readonly type: 'filter' | 'nat' | 'route';
}

export interface BookRule {
  /** In the tool's syntax, without comment. */
  readonly text: string;
  readonly comment: string;
}

/** All that is looked up while traces are read. */
export interface RuleBook {
  /** Undefined: there is no such base chain. */
  base(table: TableName, chain: string): BasePlace | undefined;
  rule(table: TableName, chain: string, handle: bigint): BookRule | undefined;
  /** The table was made by iptables-nft: its name is `nat`, not `ip nat`. */
  isIptables(table: TableName): boolean;
  /** Legacy iptables; empty if it has no rules. */
  readonly legacy: readonly SavedTable[];
}

interface ReadTable {
  readonly contents: TableContents;
  /** As iptables-nft-save has it; undefined for nft's own. */
  readonly saved: SavedTable | undefined;
  readonly handles: ReadonlyMap<string, BookRule>;
}

/** Needs root. */
export async function readRuleBook(family: Family): Promise<RuleBook> {
  const own = family === 'IPv6' ? 'ip6' : 'ip';
  const prefix = family === 'IPv6' ? 'ip6tables' : 'iptables';
  const [compatible, legacy] = await Promise.all([
    saved(`${prefix}-nft-save`),
    saved(`${prefix}-legacy-save`),
  ]);
  const socket = new NftSocket();
  let contents: TableContents[];
  try {
    contents = socket
      .listTables()
      .filter((table) => table.family === own || table.family === 'inet')
      .flatMap((table) => socket.readTable(table) ?? []);
  } finally {
    socket.close();
  }
  return makeRuleBook(contents, own, compatible, legacy.filter(hasRules));
}

async function saved(program: string): Promise<SavedTable[]> {
  const { code, stdout } = await run([program], { timeoutMs: 30_000 });
  // Not there: then nobody has made rules with it that we could name.
  return code === 0 ? parseSave(stdout) : [];
}

function hasRules({ chains }: SavedTable): boolean {
  return [...chains.values()].some(({ rules, policy }) => rules.length > 0 || policy === 'DROP');
}

/** @param own the nftables family of iptables-nft's tables */
export function makeRuleBook(
  all: readonly TableContents[],
  own: 'ip' | 'ip6',
  compatible: readonly SavedTable[],
  legacy: readonly SavedTable[],
): RuleBook {
  const tables = new Map<string, ReadTable>();
  for (const contents of all) {
    const { family, name } = contents.table;
    const save = family === own ? compatible.find(({ table }) => table === name) : undefined;
    tables.set(`${family} ${name}`, { contents, saved: save, handles: handlesOf(contents, save) });
  }
  const find = ({ family, name }: TableName): ReadTable | undefined => tables.get(`${family} ${name}`);
  return {
    legacy,
    isIptables: (table) => find(table)?.saved !== undefined,
    rule: (table, chain, handle) => find(table)?.handles.get(`${chain} ${handle}`),
    base(table, chain) {
      const hook = find(table)?.contents.chains.find((one) => one.name === chain)?.hook;
      return hook === undefined ? undefined : { hook: hook.hook, priority: hook.priority, type: hook.type };
    },
  };
}

function handlesOf(
  { table, rules, sets, elements }: TableContents,
  save: SavedTable | undefined,
): Map<string, BookRule> {
  const byName = new Map(sets.map((set) => [set.name, set]));
  const context = {
    family: table.family,
    set: (name: string) => byName.get(name),
    elements: (name: string) => elements.get(name),
  };
  const handles = new Map<string, BookRule>();
  const counts = new Map<string, number>();
  for (const rule of rules) {
    const index = counts.get(rule.chain) ?? 0;
    counts.set(rule.chain, index + 1);
    if (rule.handle === undefined) continue;
    // Both list the rules of a chain in its order.
    const line = save?.chains.get(rule.chain)?.rules[index];
    handles.set(`${rule.chain} ${rule.handle}`, line === undefined ? ofNft(rule, context) : ofSave(line));
  }
  return handles;
}

function ofNft(rule: Rule, context: Parameters<typeof printRule>[1]): BookRule {
  const { comment = '', ...rest } = rule;
  return { text: printRule({ ...rest, unknown: [] }, context), comment };
}

/** @param line what follows `-A CHAIN ` */
export function ofSave(line: string): BookRule {
  const { text, comment } = parseRule(line);
  return { text, comment };
}
