/** What can be said of a node whose daemon does not answer: what the kernel holds, and how full it is. */
import { readFileSync } from 'node:fs';
import { isOwnChain } from '../dataplane/iptables/names.ts';
import { tableName } from '../dataplane/nftables/layout.ts';
import { mayAdministerNetwork } from '../linux/capabilities.ts';
import { run } from '../linux/exec.ts';
import { NftSocket } from '../linux/netlink/nftables/socket.ts';

export interface KernelFacts {
  readonly family: 'IPv4' | 'IPv6';
  /** Table `kube-proxy` of nftables; `owner` = whose layout it has. */
  readonly nftables: { readonly owner: 'pointsman' | 'kube-proxy'; readonly services: number } | undefined;
  /** Chains of Services that iptables mode makes; undefined = iptables cannot be asked. */
  readonly iptables: { readonly services: number; readonly endpoints: number } | undefined;
}

/** Empty where this process may not look. */
export async function kernelFacts(): Promise<KernelFacts[]> {
  const facts: KernelFacts[] = [];
  if (!mayAdministerNetwork()) return facts;
  for (const family of ['IPv4', 'IPv6'] as const)
    facts.push({ family, nftables: nftablesFacts(family), iptables: await iptablesFacts(family) });
  return facts;
}

function nftablesFacts(family: 'IPv4' | 'IPv6'): KernelFacts['nftables'] {
  let nft: NftSocket | undefined;
  try {
    nft = new NftSocket();
    const name = { family: family === 'IPv6' ? 'ip6' : 'ip', name: tableName } as const;
    if (nft.getTable(name) === undefined) return undefined;
    const sets = new Set(nft.listSets(name).map((set) => set.name));
    const own = sets.has('frontends');
    const dispatch = own ? 'frontends' : sets.has('service-ips') ? 'service-ips' : undefined;
    return {
      owner: own ? 'pointsman' : 'kube-proxy',
      services: dispatch === undefined ? 0 : nft.listElements(name, dispatch).length,
    };
  } catch {
    // No nf_tables, or no permission: then there is nothing to say about it.
    return undefined;
  } finally {
    nft?.close();
  }
}

async function iptablesFacts(family: 'IPv4' | 'IPv6'): Promise<KernelFacts['iptables']> {
  let services = 0;
  let endpoints = 0;
  const program = family === 'IPv6' ? 'ip6tables-save' : 'iptables-save';
  const { code } = await run([program, '-t', 'nat'], {
    onLine(line) {
      if (!line.startsWith(':')) return;
      const chain = line.slice(1, line.indexOf(' '));
      if (!isOwnChain(chain)) return;
      if (chain.startsWith('KUBE-SVC-') || chain.startsWith('KUBE-SVL-')) services++;
      else if (chain.startsWith('KUBE-SEP-')) endpoints++;
    },
  });
  return code === 0 ? { services, endpoints } : undefined;
}

/** Entries in the connection table and how many there may be; undefined where that cannot be read. */
export function conntrackFill(): { readonly entries: number; readonly limit: number } | undefined {
  try {
    const read = (name: string): number =>
      Number(readFileSync(`/proc/sys/net/netfilter/nf_conntrack_${name}`, 'utf8'));
    return { entries: read('count'), limit: read('max') };
  } catch {
    // The module is not loaded.
    return undefined;
  }
}

export function kernelLines(facts: readonly KernelFacts[]): string[] {
  const lines: string[] = [];
  for (const { family, nftables, iptables } of facts) {
    if (nftables !== undefined)
      lines.push(
        `${family}: nftables table "kube-proxy", written by ${nftables.owner}: ${nftables.services} addresses of Services`,
      );
    if (iptables !== undefined && iptables.services > 0)
      lines.push(
        `${family}: iptables chains of ${iptables.services} service ports and ${iptables.endpoints} endpoints`,
      );
  }
  if (lines.length === 0)
    lines.push(
      mayAdministerNetwork()
        ? 'No rules for Services in this network namespace.'
        : 'Its rules may be read by root only: use sudo.',
    );
  const fill = conntrackFill();
  if (fill !== undefined) lines.push(`Connection table: ${fill.entries} of at most ${fill.limit} entries`);
  return lines;
}
