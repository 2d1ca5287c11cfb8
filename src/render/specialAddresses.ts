/** Addresses that are no use as endpoint, external IP or cluster IP: packets to them reach no other machine, or many. */
import { canonicalIP, cidrContains, parseCIDR, type CIDR } from '../services/ip.ts';

export interface SpecialAddress {
  /** `a loopback address`, … */
  readonly what: string;
  /** The API server takes it for no endpoint and no external IP (its ValidateNonSpecialIP). */
  readonly isRefused: boolean;
}

const specials: readonly (readonly [networks: readonly string[], SpecialAddress])[] = [
  [['0.0.0.0/32', '::/128'], { what: 'the unspecified address', isRefused: true }],
  [['127.0.0.0/8', '::1/128'], { what: 'a loopback address', isRefused: true }],
  [['169.254.0.0/16', 'fe80::/10'], { what: 'a link-local address', isRefused: true }],
  [['224.0.0.0/24', 'ff02::/16'], { what: 'a link-local multicast address', isRefused: true }],
  [['224.0.0.0/4', 'ff00::/8'], { what: 'a multicast address', isRefused: false }],
];

const networks: readonly (readonly [CIDR, SpecialAddress])[] = specials.flatMap(([texts, special]) =>
  texts.flatMap((text): [CIDR, SpecialAddress][] => {
    const cidr = parseCIDR(text);
    return cidr === undefined ? [] : [[cidr, special]];
  }),
);

/** Undefined for all others, and for text that is no address. */
export function specialAddress(text: string): SpecialAddress | undefined {
  const ip = canonicalIP(text);
  return ip === undefined ? undefined : networks.find(([cidr]) => cidrContains(cidr, ip))?.[1];
}
