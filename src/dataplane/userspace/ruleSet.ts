/**
 * The rules as a whole: jumps, chains, documents for iptables-restore, and the comparison with what is in force. Pure; what
 * takes long for many rules goes in steps (`steps.ts`).
 */
import { EVERYWHERE, matchesAll } from '../../services/nodePortAddresses.ts';
import type { ServicePortId } from '../../services/types.ts';
import { canonicalRule } from '../../linux/iptables/canonical.ts';
import { parseLine, type SavedTable } from '../../linux/iptables/save.ts';
import {
  chains,
  nodePortContainer,
  nodePortHost,
  nodePortRefuse,
  nonLocal,
  portalsContainer,
  portalsHost,
  portalsRefuse,
  type RuleTable,
} from './names.ts';
import type { Rule } from './rules.ts';

/** A rule of a built-in chain that leads into one of ours. */
export interface Jump extends Rule {
  /** Before all rules that are there, or after them. */
  readonly first: boolean;
}

/** Rules by service port, in the order in which they are in the chains; those of none come first, as of ``. */
export type AppliedRules = ReadonlyMap<ServicePortId, readonly Rule[]>;

const tables = Object.keys(chains) as RuleTable[];

/** @param nodePortAddresses as in DataplaneOptions */
export function jumpsFor(nodePortAddresses: readonly string[]): Jump[] {
  const all = matchesAll(nodePortAddresses);
  const locals = (all ? [EVERYWHERE.IPv4] : nodePortAddresses).map(
    (cidr) => `${all ? '' : `-d ${cidr} `}-m addrtype --dst-type LOCAL`,
  );
  const fresh = '-m conntrack --ctstate NEW';
  const jumps: Jump[] = [
    jump('nat', 'PREROUTING', `-j ${portalsContainer}`, true),
    ...locals.map((local) => jump('nat', 'PREROUTING', `${local} -j ${nodePortContainer}`, false)),
    jump('nat', 'OUTPUT', `-j ${portalsHost}`, true),
    ...locals.map((local) => jump('nat', 'OUTPUT', `${local} -j ${nodePortHost}`, false)),
    jump('filter', 'INPUT', `-j ${nonLocal}`, true),
  ];
  for (const hook of ['INPUT', 'FORWARD', 'OUTPUT'])
    jumps.push(jump('filter', hook, `${fresh} -j ${portalsRefuse}`, true));
  for (const hook of ['INPUT', 'OUTPUT']) {
    for (const local of locals)
      jumps.push(jump('filter', hook, `${local.replace('-m', `${fresh} -m`)} -j ${nodePortRefuse}`, true));
  }
  return jumps;
}

function jump(table: RuleTable, chain: string, args: string, first: boolean): Jump {
  return { table, chain, args, first };
}

/** What iptables-restore has to do for a change: rules away, rules added. Empty if nothing. */
export function changeDocument(gone: readonly Rule[], added: readonly Rule[]): string {
  let text = '';
  for (const table of tables) {
    let section = '';
    for (const rule of gone) if (rule.table === table) section += `-D ${rule.chain} ${rule.args}\n`;
    for (const rule of added) if (rule.table === table) section += `-A ${rule.chain} ${rule.args}\n`;
    if (section !== '') text += `*${table}\n${section}COMMIT\n`;
  }
  return text;
}

/** Characters of a piece of a document. */
const pieceSize = 64 * 1024;

/** Everything anew: chains emptied and filled, jumps that are missing put in, those that are not wanted taken out. In pieces. */
export function* fullDocument(
  actual: readonly SavedTable[],
  jumps: readonly Jump[],
  applied: AppliedRules,
): Generator<undefined, string[]> {
  const pieces: string[] = [];
  let text = '';
  for (const table of tables) {
    text += `*${table}\n`;
    for (const chain of chains[table]) text += `:${chain} - [0:0]\n`;
    const { missing, strange } = compareJumps(actual, jumps, table);
    for (const [chain, args] of strange) text += `-D ${chain} ${args}\n`;
    // The last to be inserted is the first in the end.
    for (const rule of missing.toReversed()) if (rule.first) text += `-I ${rule.chain} ${rule.args}\n`;
    for (const rule of missing) if (!rule.first) text += `-A ${rule.chain} ${rule.args}\n`;
    for (const rules of applied.values()) {
      for (const rule of rules) if (rule.table === table) text += `-A ${rule.chain} ${rule.args}\n`;
      if (text.length >= pieceSize) {
        pieces.push(text);
        text = '';
      }
      yield;
    }
    text += 'COMMIT\n';
  }
  pieces.push(text);
  return pieces;
}

/** Takes out the jumps and chains that are there; empty if there are none. */
export function removalDocument(actual: readonly SavedTable[]): string {
  let text = '';
  for (const table of tables) {
    const saved = actual.find((one) => one.table === table);
    const present = chains[table].filter((chain) => saved?.chains.has(chain));
    if (present.length === 0) continue;
    text += `*${table}\n`;
    for (const chain of present) text += `:${chain} - [0:0]\n`;
    for (const [chain, args] of compareJumps(actual, [], table).strange) text += `-D ${chain} ${args}\n`;
    for (const chain of present) text += `-X ${chain}\n`;
    text += 'COMMIT\n';
  }
  return text;
}

/** Rules of our chains, by `TABLE CHAIN`, in their order. */
export type WantedRules = ReadonlyMap<string, readonly string[]>;

export function* wantedRules(applied: AppliedRules): Generator<undefined, WantedRules> {
  const wanted = new Map<string, string[]>();
  for (const table of tables) for (const chain of chains[table]) wanted.set(`${table} ${chain}`, []);
  for (const rules of applied.values()) {
    for (const { table, chain, args } of rules) wanted.get(`${table} ${chain}`)?.push(args);
    yield;
  }
  return wanted;
}

interface FoundChain {
  count: number;
  /** The number of the first rule that is not the wanted one; 0 = none. */
  other: number;
  /** That rule. */
  text: string;
}

/**
 * Reads what iptables-save prints, line by line. Keeps of all rules only those that lead into our chains; rules of our
 * chains are compared with what is wanted, and forgotten.
 */
export class SavedRules {
  /** Chains of all, and those rules. */
  readonly tables: SavedTable[] = [];
  readonly #wanted: WantedRules | undefined;
  readonly #found = new Map<string, FoundChain>();
  #own: readonly string[] = [];

  /** @param wanted if given, rules of our chains are compared */
  constructor(wanted?: WantedRules) {
    this.#wanted = wanted;
  }

  line(line: string): void {
    const read = parseLine(line);
    if (read === undefined) return;
    if (read.kind === 'table') {
      this.tables.push({ table: read.table, chains: new Map() });
      this.#own = chains[read.table as RuleTable] ?? [];
      return;
    }
    const table = this.tables.at(-1);
    if (table === undefined) return;
    const { chain } = read;
    if (read.kind === 'chain') table.chains.set(chain, { name: chain, policy: read.policy, rules: [] });
    else if (this.#own.includes(chain)) this.#compare(`${table.table} ${chain}`, read.args);
    else if (this.#own.includes(targetOf(read.args))) table.chains.get(chain)?.rules.push(read.args);
  }

  /** What somebody else has changed, in a few words; undefined if nothing. */
  drift(jumps: readonly Jump[]): string | undefined {
    for (const table of tables) {
      const saved = this.tables.find((one) => one.table === table);
      for (const chain of chains[table]) {
        if (saved?.chains.has(chain) !== true) return `chain ${chain} of ${table} missing`;
        const found = this.#found.get(`${table} ${chain}`) ?? { count: 0, other: 0, text: '' };
        const { count, other, text } = found;
        const wanted = this.#wanted?.get(`${table} ${chain}`) ?? [];
        const where = `${chain} of ${table}`;
        if (count < wanted.length)
          return `rule of ${where} missing: ${wanted[other > 0 ? other - 1 : count]}`;
        if (count > wanted.length) return `rule of ${where} is not ours: ${text}`;
        if (other > 0) return `rule ${other} of ${where} is another: ${text}`;
      }
      const { missing, strange } = compareJumps(this.tables, jumps, table);
      const wrong = missing[0];
      if (wrong !== undefined) return `rule of ${wrong.chain} of ${table} missing: ${wrong.args}`;
      if (strange[0] !== undefined)
        return `rule of ${strange[0][0]} of ${table} is not ours: ${strange[0][1]}`;
    }
    return undefined;
  }

  #compare(key: string, args: string): void {
    if (this.#wanted === undefined) return;
    let found = this.#found.get(key);
    if (found === undefined) this.#found.set(key, (found = { count: 0, other: 0, text: '' }));
    const wanted = this.#wanted.get(key)?.[found.count++];
    if (found.other > 0) return;
    if (wanted !== undefined && canonicalRule(args) === canonicalRule(wanted)) return;
    found.other = found.count;
    found.text = args;
  }
}

/** The chain that a rule leads into; empty if none is named at its end. */
function targetOf(args: string): string {
  return /(?:^| )-[jg] (\S+)$/.exec(args)?.[1] ?? '';
}

/** Jumps that are missing, and rules that lead into our chains and are not ours. */
export function compareJumps(
  actual: readonly SavedTable[],
  jumps: readonly Jump[],
  table: RuleTable,
): { missing: Jump[]; strange: [chain: string, args: string][] } {
  const wanted = new Map<string, Jump>();
  for (const one of jumps)
    if (one.table === table) wanted.set(`${one.chain} ${canonicalRule(one.args)}`, one);
  const strange: [string, string][] = [];
  const own: readonly string[] = chains[table];
  for (const { name, rules } of actual.find((one) => one.table === table)?.chains.values() ?? []) {
    if (own.includes(name)) continue;
    for (const args of rules) {
      if (!own.includes(targetOf(args))) continue;
      if (!wanted.delete(`${name} ${canonicalRule(args)}`)) strange.push([name, args]);
    }
  }
  return { missing: [...wanted.values()], strange };
}
