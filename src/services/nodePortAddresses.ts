/** Which of the node's addresses answer node ports (`nodePortAddresses`). */
import type { Family } from '../api/objects.ts';
import { cidrContains, isLoopback, parseCIDR } from './ip.ts';
import type { NodeAddresses } from './nodeAddresses.ts';

/** All addresses of a family. */
export const EVERYWHERE = { IPv4: '0.0.0.0/0', IPv6: '::/0' } as const satisfies Record<Family, string>;

/**
 * The setting for one family, as `DataplaneOptions.nodePortAddresses`: canonical CIDRs, `primary` expanded to the
 * node's addresses. All addresses where the setting is empty, holds `0.0.0.0/0` or `::/0`, or says nothing about
 * the family (so restricting IPv4 alone leaves IPv6 open, as in kube-proxy).
 */
export function nodePortCIDRs(
  family: Family,
  setting: readonly string[],
  addresses: NodeAddresses,
): readonly string[] {
  const result = new Set<string>();
  for (const text of expandPrimary(setting, addresses)) {
    const cidr = parseCIDR(text);
    if (cidr?.family !== family) continue;
    if (cidr.prefix === 0) return [EVERYWHERE[family]];
    result.add(cidr.text);
  }
  return result.size === 0 ? [EVERYWHERE[family]] : [...result];
}

/** All addresses answer node ports. */
export function matchesAll(cidrs: readonly string[]): boolean {
  return cidrs.includes(EVERYWHERE.IPv4) || cidrs.includes(EVERYWHERE.IPv6);
}

/** Node ports answer on 127.0.0.1 too, if `localhostNodePorts` and the kernel let them. `cidrs` from nodePortCIDRs. */
export function containsIPv4Loopback(cidrs: readonly string[]): boolean {
  return cidrs.some((text) => {
    const cidr = parseCIDR(text);
    if (cidr?.family !== 'IPv4') return false;
    return cidr.bytes[0] === 127 || cidrContains(cidr, '127.0.0.0');
  });
}

/** Those of the node's local addresses (canonical) that answer node ports, without repetition, in the order given. */
export function matchingAddresses(cidrs: readonly string[], local: readonly string[]): readonly string[] {
  const parsed = cidrs.flatMap((text) => parseCIDR(text) ?? []);
  return [...new Set(local)].filter((ip) => parsed.some((cidr) => cidrContains(cidr, ip)));
}

/** `primary` replaced by the addresses of this node that are known; other settings as they are. */
export function expandPrimary(setting: readonly string[], addresses: NodeAddresses): readonly string[] {
  if (setting.length !== 1 || setting[0] !== 'primary') return setting;
  const result: string[] = [];
  if (!isLoopback(addresses.IPv4)) result.push(`${addresses.IPv4}/32`);
  if (!isLoopback(addresses.IPv6)) result.push(`${addresses.IPv6}/128`);
  return result;
}
