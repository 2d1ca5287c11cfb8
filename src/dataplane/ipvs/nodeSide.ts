/** What the addresses of the node say to the mode: which of them answer node ports, and which a service may not have. Pure. */
import type { Family } from '../../api/objects.ts';
import type { LinkAddress } from '../../linux/netlink/route.ts';
import { isLoopback, isUnspecified } from '../../services/ip.ts';
import { matchesAll, matchingAddresses } from '../../services/nodePortAddresses.ts';
import { isServiceAddress } from '../serviceAddressMark.ts';

/** The node's own addresses of one family, without those of kube-ipvs0, loopback and IPv6 link-local ones. */
export interface NodeSide {
  readonly addresses: ReadonlySet<string>;
  /** Those that answer node ports. */
  readonly nodePorts: readonly string[];
}

/** `nodePortAddresses`: CIDRs as DataplaneOptions has them. `addresses`: those that count. */
export function nodeSideOf(nodePortAddresses: readonly string[], addresses: ReadonlySet<string>): NodeSide {
  const all = [...addresses].sort();
  return {
    addresses,
    nodePorts: matchesAll(nodePortAddresses) ? all : matchingAddresses(nodePortAddresses, all),
  };
}

/** Addresses that count: of the family, not loopback, not IPv6 link-local. */
export function counts(
  { family, address }: { readonly family: Family; readonly address: string },
  of: Family,
): boolean {
  return family === of && !isLoopback(address) && !/^fe[89ab][0-9a-f]:/.test(address);
}

export interface Addresses {
  /** On kube-ipvs0. */
  readonly device: Set<string>;
  /** On all other interfaces. */
  readonly node: Set<string>;
}

/** Those that count, by where they are. `deviceIndex`: of kube-ipvs0, undefined where there is none. */
export function splitAddresses(
  all: readonly LinkAddress[],
  deviceIndex: number | undefined,
  family: Family,
): Addresses {
  const device = new Set<string>();
  const node = new Set<string>();
  for (const one of all) {
    // Userspace mode has left its services' addresses on loopback; they go soon, and are no node's.
    if (!counts(one, family) || isServiceAddress(one)) continue;
    (one.index === deviceIndex ? device : node).add(one.address);
  }
  return { device, node };
}

/**
 * A service's address can be put on kube-ipvs0. Not so loopback, whose every other port would be refused to the node's own
 * processes, IPv6 link-local, multicast, broadcast and unspecified ones: of these the kernel refuses some, and takes
 * others without keeping them.
 */
export function canBeBound(address: string): boolean {
  const family = address.includes(':') ? 'IPv6' : 'IPv4';
  if (!counts({ family, address }, family) || isUnspecified(address)) return false;
  if (family === 'IPv6') return !address.startsWith('ff');
  const first = Number(address.slice(0, address.indexOf('.')));
  return (first < 224 || first > 239) && address !== '255.255.255.255';
}
