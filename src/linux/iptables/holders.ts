/**
 * Where rules can be: in the backend that `iptables` is here, and in others that are installed, which an earlier
 * `iptables` may have been. Finding out changes nothing: a legacy table comes into being when somebody names it, so
 * only those that are there are named.
 */
import { readFileSync } from 'node:fs';
import type { Family } from '../../api/objects.ts';
import { run } from '../exec.ts';
import { runAside } from '../runAside.ts';
import { Iptables, type IptablesOptions, type Table } from './iptables.ts';

export interface RuleHolder {
  readonly iptables: Iptables;
  /** It is what `iptables` is here, which modes write to; undefined = rules in it are left over from another time. */
  readonly current: boolean;
  /** Those that may have rules. */
  readonly tables: readonly Table[];
}

const allTables: readonly Table[] = ['mangle', 'nat', 'filter'];

/** What can be used and may hold rules of the family. With a `program` in the options, that alone is looked at. */
export async function ruleHolders(family: Family, options: IptablesOptions = {}): Promise<RuleHolder[]> {
  const holders: RuleHolder[] = [];
  const look = async (iptables: Iptables, current: boolean): Promise<void> => {
    const tables =
      iptables.features.backend === 'nft'
        ? allTables
        : await legacyTables(family, options.prefix ?? [], iptables.features.version);
    const one = tables.includes('nat') ? 'nat' : tables[0];
    if (one !== undefined && (await iptables.chainExists(one, 'OUTPUT')))
      holders.push({ iptables, current, tables });
  };
  // Modes look for what is left while connections go through this process.
  const aside = { run: runAside, ...options };
  const current = await Iptables.open(family, aside);
  await look(current, true);
  if (options.program !== undefined) return holders;
  const base = family === 'IPv6' ? 'ip6tables' : 'iptables';
  for (const backend of ['nft', 'legacy'] as const) {
    // A program that cannot even say its version is nobody's backend.
    if (current.features.version !== '' && current.features.backend === backend) continue;
    if (backend === 'legacy' && (await legacyTables(family, options.prefix ?? [], 'any')).length === 0)
      continue;
    const other = await Iptables.open(family, { ...aside, program: `${base}-${backend}` });
    if (other.features.version !== '') await look(other, false);
  }
  return holders;
}

/** Tables that are there already; those of a program without a version cannot be told. */
async function legacyTables(family: Family, prefix: readonly string[], version: string): Promise<Table[]> {
  if (version === '') return [];
  const path = `/proc/net/${family === 'IPv6' ? 'ip6' : 'ip'}_tables_names`;
  const names = await read(path, prefix);
  return allTables.filter((table) => names.includes(table));
}

async function read(path: string, prefix: readonly string[]): Promise<string[]> {
  if (prefix.length > 0) return (await run([...prefix, 'cat', path])).stdout.split('\n');
  try {
    return readFileSync(path, 'utf8').split('\n');
  } catch {
    // Not there before the first legacy table of this machine: then there is none here either.
    return [];
  }
}
