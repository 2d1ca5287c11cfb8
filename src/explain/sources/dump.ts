/** Rules from files: iptables-save, `nft -j list ruleset`, and what IPVS mode has beside rules, whichever it is. */
import { readFileSync } from 'node:fs';
import type { Family, Protocol } from '../../api/objects.ts';
import { withFile } from '../../config/fileError.ts';
import { parseSave, type SavedTable } from '../../linux/iptables/save.ts';
import { canonicalIP } from '../../services/ip.ts';
import type { KnownFlow } from '../case.ts';
import { iptablesChains } from '../iptables/evaluate.ts';
import { parseIpsets } from '../iptables/ipset.ts';
import type { ServerState } from '../ipvs/evaluate.ts';
import { parseServers } from '../ipvs/state.ts';
import { nftChains } from '../nft/evaluate.ts';
import { parseRuleset } from '../nft/fromJson.ts';
import type { RuleMode } from '../routes.ts';
import type { BaseChain } from '../walk.ts';
import type { IpSet } from '../world.ts';

export interface RuleDump {
  /** For people: the names of the files. */
  readonly file: string;
  readonly mode: RuleMode;
  readonly servers: readonly ServerState[];
  readonly ipsets: ReadonlyMap<string, IpSet>;
  chains(family: Family): readonly BaseChain[];
}

/** Several files are parts of one state, as IPVS mode has it. Throws a sentence if one is of no kind. `-` = standard input */
export function readDumps(files: readonly string[]): RuleDump {
  const parts = files.map((file) => parseDump(read('dump', file), file));
  const only = parts.length === 1 ? parts[0] : undefined;
  if (only !== undefined) return only;
  return {
    file: files.join(', '),
    mode: parts.find(({ mode }) => mode !== 'iptables')?.mode ?? 'iptables',
    servers: parts.flatMap(({ servers }) => servers),
    ipsets: new Map(parts.flatMap(({ ipsets }) => [...ipsets])),
    chains: (family) => parts.flatMap((part) => part.chains(family)),
  };
}

/** Output of iptables-save, `nft -j list ruleset`, `ipset save` or `ipvsadm --save --numeric`. */
export function parseDump(text: string, file: string): RuleDump {
  const nothing = { file, servers: [], ipsets: new Map<string, IpSet>(), chains: () => [] } as const;
  if (text.trimStart().startsWith('{')) {
    const tables = parseRuleset(text);
    return { ...nothing, mode: 'nftables', chains: (family) => nftChains(tables, family) };
  }
  if (/^create \S+ (hash|bitmap|list):/m.test(text))
    return { ...nothing, mode: 'iptables', ipsets: parseIpsets(text) };
  if (/^-A (-t|-u|--sctp-service) /m.test(text))
    return { ...nothing, mode: 'ipvs', servers: parseServers(text) };
  const tables = parseSave(text);
  if (tables.length === 0) {
    const hint = /^table (ip|ip6|inet) /m.test(text) ? ': make it with "nft -j list ruleset" (with -j)' : '';
    throw new Error(
      `${file} holds neither the output of iptables-save nor that of "nft -j list ruleset"${hint}`,
    );
  }
  return { ...nothing, mode: modeOf(tables), chains: () => iptablesChains(tables) };
}

/** Which of the modes that use iptables has written these rules. */
export function modeOf(tables: readonly SavedTable[]): 'iptables' | 'ipvs' | 'userspace' {
  const has = (table: string, chain: string): boolean =>
    tables.some((one) => one.table === table && one.chains.has(chain));
  if (has('filter', 'KUBE-IPVS-FILTER')) return 'ipvs';
  // Chains of modes that were there before may be left, empty.
  const portals = tables.find(({ table }) => table === 'nat')?.chains.get('KUBE-PORTALS-CONTAINER')
    ?.rules.length;
  return (portals ?? 0) > 0 || (has('nat', 'KUBE-PORTALS-HOST') && !has('nat', 'KUBE-SERVICES'))
    ? 'userspace'
    : 'iptables';
}

/** Flows from a file with the output of `conntrack -L`. Throws a sentence if it is something else; it may be empty. */
export function readFlows(file: string): KnownFlow[] {
  const text = read('conntrack', file);
  const flows = parseConntrack(text);
  const entry = /^\s*(?:ipv[46]\s+\d+\s+)?\S+\s+\d+ .*\bsrc=/m;
  if (text.trim() !== '' && flows.length === 0 && !entry.test(text))
    throw new Error(`--conntrack ${file}: holds no entry as conntrack -L prints them`);
  return flows;
}

/** `-` = standard input. */
function read(flag: string, file: string): string {
  return withFile(`--${flag} ${file}: cannot be read`, () => readFileSync(file === '-' ? 0 : file, 'utf8'));
}

/** Flows from the output of `conntrack -L`; lines that are none are passed over. */
export function parseConntrack(text: string): KnownFlow[] {
  const flows: KnownFlow[] = [];
  for (const line of text.split('\n')) {
    const protocol = /^\s*(?:ipv[46]\s+\d+\s+)?(tcp|udp|sctp)\s/.exec(line)?.[1]?.toUpperCase() as
      Protocol | undefined;
    const tuples = [...line.matchAll(/src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)/g)];
    const [original, reply] = tuples;
    if (protocol === undefined || original === undefined || reply === undefined) continue;
    const ip = (value: string | undefined): string => canonicalIP(value ?? '') ?? '';
    flows.push({
      protocol,
      source: ip(original[1]),
      sourcePort: Number(original[3]),
      destination: ip(original[2]),
      destinationPort: Number(original[4]),
      endpoint: ip(reply[1]),
      endpointPort: Number(reply[3]),
      answered: !line.includes('[UNREPLIED]'),
    });
  }
  return flows;
}
