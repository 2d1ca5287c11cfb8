/** Rules from a file: iptables-save or `nft -j list ruleset`, whichever it is. */
import { readFileSync } from 'node:fs';
import type { Family, Protocol } from '../../api/objects.ts';
import { parseSave } from '../../linux/iptables/save.ts';
import { canonicalIP } from '../../services/ip.ts';
import type { KnownFlow } from '../case.ts';
import { iptablesChains } from '../iptables/evaluate.ts';
import { nftChains } from '../nft/evaluate.ts';
import { parseRuleset } from '../nft/fromJson.ts';
import type { RuleMode } from '../routes.ts';
import type { BaseChain } from '../walk.ts';

export interface RuleDump {
  readonly mode: RuleMode;
  chains(family: Family): readonly BaseChain[];
}

/** Throws a sentence if the file is neither. @param file `-` = standard input */
export function readDump(file: string): RuleDump {
  return parseDump(readFileSync(file === '-' ? 0 : file, 'utf8'), file);
}

export function parseDump(text: string, file: string): RuleDump {
  if (text.trimStart().startsWith('{')) {
    const tables = parseRuleset(text);
    return { mode: 'nftables', chains: (family) => nftChains(tables, family) };
  }
  const tables = parseSave(text);
  if (tables.length === 0) {
    const hint = /^table (ip|ip6|inet) /m.test(text) ? ': make it with "nft -j list ruleset" (with -j)' : '';
    throw new Error(
      `${file} holds neither the output of iptables-save nor that of "nft -j list ruleset"${hint}`,
    );
  }
  return { mode: 'iptables', chains: () => iptablesChains(tables) };
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
