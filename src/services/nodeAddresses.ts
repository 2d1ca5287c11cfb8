/** Which addresses this node has for itself, and which family comes first. */
import type { Family, Node } from '../api/objects.ts';
import { canonicalIP, familyOf, isLoopback, isUnspecified } from './ip.ts';

/** This node's addresses; loopback where none of the family is known. */
export interface NodeAddresses {
  readonly primary: Family;
  readonly IPv4: string;
  readonly IPv6: string;
}

/**
 * The Node's own addresses, canonical, at most two: the first InternalIP (else ExternalIP), and the first later one of
 * the other family. Unreadable ones are skipped; empty if there is none.
 */
export function nodeIPs(node: Pick<Node, 'addresses'>): readonly string[] {
  const result: string[] = [];
  for (const type of ['InternalIP', 'ExternalIP']) {
    for (const entry of node.addresses) {
      const ip = entry.type === type ? canonicalIP(entry.address) : undefined;
      if (ip === undefined) continue;
      if (result.every((other) => familyOf(other) !== familyOf(ip))) result.push(ip);
    }
  }
  return result;
}

/** Combines the Node's addresses (primary first) with `bindAddress`, which overrides its family unless unspecified. */
export function nodeAddresses(ips: readonly string[], bindAddress: string): NodeAddresses {
  const chosen = { IPv4: '127.0.0.1', IPv6: '::1' };
  for (const ip of ips) chosen[familyOf(ip)] = ip;
  let primary = ips[0] === undefined ? 'IPv4' : familyOf(ips[0]);
  const bound = canonicalIP(bindAddress);
  if (bound !== undefined && !isUnspecified(bound)) {
    primary = familyOf(bound);
    chosen[primary] = bound;
  }
  return { primary, ...chosen };
}

/** False if nothing better than loopback is known: worth a message that `--bind-address` helps. */
export function isPrimaryKnown(addresses: NodeAddresses): boolean {
  return !isLoopback(addresses[addresses.primary]);
}
