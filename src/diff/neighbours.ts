/** Who else has rules where Service traffic passes: rules that drop, translate, or name addresses of Services. */
import type { Family } from '../api/objects.ts';
import type { SavedTable } from '../linux/iptables/save.ts';
import type { Chain, Rule } from '../linux/netlink/nftables/objects.ts';
import { printRule } from '../linux/netlink/nftables/print.ts';
import { cidrContains, parseCIDR } from '../services/ip.ts';
import type { WantedFamily } from '../render/wanted.ts';
import { ownerOfChain, ownerOfTable } from './owners.ts';

export interface Neighbour {
  readonly family: Family;
  /** `Docker`, `firewalld`, …; empty if not known. */
  readonly owner: string;
  /** e.g. `iptables filter FORWARD → DOCKER-USER`, `nft inet firewalld filter_INPUT (hook input, priority 10)` */
  readonly where: string;
  /** What in there concerns Services, each with the rule. */
  readonly concerns: readonly string[];
}

/** At most so many rules of one neighbour are shown; the rest is counted. */
const shown = 5;

/** Addresses and ports of Services, as foreign rules may name them. */
export class ServiceAddresses {
  readonly #addresses = new Set<string>();
  readonly #nodePorts = new Set<string>();
  /** One endpoint for each port. */
  readonly #endpointAt = new Map<number, string>();
  readonly #endpointPorts = new Map<string, Set<number>>();

  constructor({ table }: WantedFamily) {
    for (const { frontends, endpoints } of table.routes.values()) {
      for (const { ip, port, key } of endpoints) {
        if (!this.#endpointAt.has(port)) this.#endpointAt.set(port, key);
        const ports = this.#endpointPorts.get(ip);
        if (ports === undefined) this.#endpointPorts.set(ip, new Set([port]));
        else ports.add(port);
      }
      for (const { kind, ip, port } of frontends) {
        if (kind === 'nodePort') this.#nodePorts.add(String(port));
        else this.#addresses.add(ip);
      }
    }
  }

  /**
   * An endpoint that a rule's text picks out by port or address, as rules do that see packets after their translation.
   * Ports in lists and addresses in sets are not looked into.
   */
  endpointIn(text: string): string | undefined {
    const [, first, last] = /(?:--dport|dport) (\d+)(?:[:-](\d+))?(?= |$)/.exec(text) ?? [];
    const inRange = (port: number): boolean =>
      first === undefined || (port >= Number(first) && port <= Number(last ?? first));
    const destination = /(?<!! )(?:-d|daddr) ([0-9a-f.:/]+)(?= |$)/.exec(text)?.[1];
    if (destination === undefined) {
      if (first === undefined) return undefined;
      for (const [port, key] of this.#endpointAt) if (inRange(port)) return key;
      return undefined;
    }
    const address = destination.replace(/\/(32|128)$/, '');
    const cidr = address.includes('/') ? parseCIDR(address) : undefined;
    const candidates = cidr === undefined ? [address] : this.#endpointPorts.keys();
    for (const ip of candidates) {
      if (cidr !== undefined && !cidrContains(cidr, ip)) continue;
      for (const port of this.#endpointPorts.get(ip) ?? [])
        if (inRange(port)) return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
    }
    return undefined;
  }

  /** A destination in a rule's text is an address of a Service, or a network with some of them. */
  namedIn(text: string): string | undefined {
    for (const [, destination = ''] of text.matchAll(/(?<!! )(?:-d|daddr) ([0-9a-f.:/]+)/g)) {
      const address = destination.replace(/\/(32|128)$/, '');
      if (this.#addresses.has(address)) return address;
      const cidr = destination.includes('/') ? parseCIDR(destination) : undefined;
      if (cidr === undefined || cidr.prefix === 0) continue;
      for (const ip of this.#addresses) if (cidrContains(cidr, ip)) return `${destination} (with ${ip})`;
    }
    const port = /(?:--dport|dport) (\d+)\b/.exec(text)?.[1];
    return port !== undefined && this.#nodePorts.has(port) ? `node port ${port}` : undefined;
  }
}

/** In iptables' tables: foreign jumps and rules of the built-in chains, and their policies. `own` = our chains. */
export function iptablesNeighbours(
  family: Family,
  tables: readonly SavedTable[],
  addresses: ServiceAddresses,
  own: (chain: string) => boolean,
): Neighbour[] {
  const found: Neighbour[] = [];
  for (const { table, chains } of tables) {
    for (const { name, policy, rules } of chains.values()) {
      if (policy === '-') continue;
      const direct: string[] = [];
      if (policy === 'DROP') direct.push(`policy DROP: what no rule of ${name} accepts is dropped`);
      const targets = new Map<string, string[]>();
      const ownAt = rules.findIndex((args) => own(targetOf(args)));
      for (const [i, args] of rules.entries()) {
        const target = targetOf(args);
        if (own(target)) continue;
        const early = table === 'nat' && i < ownAt;
        if (!chains.has(target)) {
          const concern = concernOf(args, target, addresses, early);
          if (concern !== undefined) direct.push(`${concern}: -A ${name} ${args}`);
        } else if (!targets.has(target)) {
          targets.set(target, reachable(target, chains));
        }
      }
      const where = `iptables ${table} ${name}`;
      if (direct.length > 0)
        found.push({ family, owner: ownerOfChain('', direct.join(' ')), where, concerns: cut(direct) });
      for (const [target, below] of targets) {
        const concerns: string[] = [];
        for (const chain of below) {
          if (own(chain)) continue;
          for (const args of chains.get(chain)?.rules ?? []) {
            const concern = concernOf(args, targetOf(args), addresses);
            if (concern !== undefined) concerns.push(`${concern}: -A ${chain} ${args}`);
          }
        }
        if (concerns.length > 0) {
          const owner = ownerOfChain(target, concerns.join(' '));
          found.push({ family, owner, where: `${where} → ${target}`, concerns: cut(concerns) });
        }
      }
    }
  }
  return found;
}

function targetOf(args: string): string {
  return /(?:^| )-[jg] (\S+)/.exec(args)?.[1] ?? '';
}

/** The chain and those that lead on from it. */
function reachable(start: string, chains: SavedTable['chains']): string[] {
  const seen = new Set([start]);
  for (const chain of seen)
    for (const args of chains.get(chain)?.rules ?? [])
      if (chains.has(targetOf(args))) seen.add(targetOf(args));
  return [...seen];
}

/** Whether a rule can change what becomes of packets to Services; a few words say how. */
function concernOf(
  args: string,
  target: string,
  addresses: ServiceAddresses,
  early = false,
): string | undefined {
  const named = addresses.namedIn(args);
  if (named !== undefined) return `names ${named}`;
  const drops = target === 'DROP' || target === 'REJECT';
  const endpoint = drops ? addresses.endpointIn(args) : undefined;
  if (endpoint !== undefined) return `drops what goes to endpoint ${endpoint}`;
  // Rules about certain other destinations do not concern Services.
  const elsewhere = /(?<!! )-d (?!0\.0\.0\.0\/0|::\/0)/.test(args) || / --dport /.test(args);
  if (elsewhere) return undefined;
  if (drops) return 'drops';
  // In table nat, what is accepted early is not translated any more.
  if (early && (target === 'ACCEPT' || target === 'RETURN')) return 'passes by the Service rules';
  return target === 'DNAT' || target === 'REDIRECT' || target === 'NOTRACK' ? 'translates' : undefined;
}

/** A table of nf_tables that is not ours, with its chains and rules. */
export interface ForeignTable {
  readonly family: string;
  readonly name: string;
  readonly chains: readonly Chain[];
  readonly rules: readonly Rule[];
}

/** Foreign tables of nf_tables that have hooks and say something about Services, drop or translate. */
export function nftNeighbours(
  family: Family,
  tables: readonly ForeignTable[],
  addresses: ServiceAddresses,
): Neighbour[] {
  const found: Neighbour[] = [];
  for (const { family: tableFamily, name, chains, rules } of tables) {
    if (tableFamily !== 'inet' && tableFamily !== (family === 'IPv6' ? 'ip6' : 'ip')) continue;
    const hooked = chains.filter((chain) => chain.hook !== undefined);
    if (hooked.length === 0) continue;
    const concerns: string[] = [];
    for (const { name: chain, hook } of hooked)
      if (hook?.policy === 'drop') concerns.push(`policy drop: what no rule of ${chain} accepts is dropped`);
    for (const rule of rules) {
      const text = printRule(rule);
      const named = addresses.namedIn(text);
      const elsewhere = /daddr (?!!=)[^@]/.test(text) || /dport (?!!=)/.test(text);
      const drops = /(^| )(drop|reject)\b/.test(text);
      const endpoint = drops ? addresses.endpointIn(text) : undefined;
      if (named !== undefined) concerns.push(`names ${named}: ${rule.chain}: ${text}`);
      else if (endpoint !== undefined)
        concerns.push(`drops what goes to endpoint ${endpoint}: ${rule.chain}: ${text}`);
      else if (elsewhere) continue;
      else if (drops) concerns.push(`drops: ${rule.chain}: ${text}`);
      else if (/(^| )(dnat|redirect|notrack)\b/.test(text))
        concerns.push(`translates: ${rule.chain}: ${text}`);
    }
    if (concerns.length === 0) continue;
    const places = hooked.map(({ hook }) => `${hook?.hook} ${hook?.priority}`).join(', ');
    const where = `nft ${tableFamily} ${name} (hooks: ${places})`;
    found.push({ family, owner: ownerOfTable(name), where, concerns: cut(concerns) });
  }
  return found;
}

function cut(concerns: readonly string[]): readonly string[] {
  if (concerns.length <= shown) return concerns;
  return [...concerns.slice(0, shown), `and ${concerns.length - shown} more`];
}

export function printNeighbour({ family, owner, where, concerns }: Neighbour): string {
  const who = owner === '' ? 'owner not known' : owner;
  return `${family} ${where}: ${who}\n${concerns.map((text) => `    ${text}\n`).join('')}`;
}
