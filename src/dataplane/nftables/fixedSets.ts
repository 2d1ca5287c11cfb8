/** Elements that come from the node and the cluster as a whole instead of routes: its addresses and the ServiceCIDRs. */
import type { Element } from '../../linux/netlink/nftables/objects.ts';
import { cidrRange, isLoopback, mergeCIDRs, parseCIDR } from '../../services/ip.ts';
import { matchingAddresses } from '../../services/nodePortAddresses.ts';
import { addressKey } from './keys.ts';

/** The node's addresses that answer node ports, as elements; loopback ones never do. */
export function nodeAddressElements(
  cidrs: readonly string[],
  local: readonly string[],
  bytes: 4 | 16,
): Element[] {
  return matchingAddresses(cidrs, local)
    .filter((address) => !isLoopback(address))
    .map((address) => ({ key: addressKey(address) }))
    .filter(({ key }) => key.length === bytes);
}

/** NFT_SET_ELEM_INTERVAL_END */
const intervalEnd = 1;

/** Networks as intervals: each begins with its first address and ends in front of another element. */
export function intervalElements(texts: readonly string[]): Element[] {
  const elements: Element[] = [];
  for (const text of mergeCIDRs(texts)) {
    const { first, last } = cidrRange(parseCIDR(text)!);
    const previous = elements.at(-1);
    // Networks side by side are one interval.
    if (previous !== undefined && compare(previous.key, first) === 0) elements.pop();
    else elements.push({ key: first });
    const behind = increment(last);
    // Nothing is behind the last address of all.
    if (behind !== undefined) elements.push({ key: behind, flags: intervalEnd });
  }
  return elements;
}

function increment(bytes: Uint8Array): Uint8Array | undefined {
  const next = bytes.slice();
  for (let i = next.length - 1; i >= 0; i--) {
    next[i]!++;
    if (next[i] !== 0) return next;
  }
  return undefined;
}

function compare(a: Uint8Array, b: Uint8Array): number {
  return Buffer.compare(a, b);
}

/** The same elements, in whatever order. */
export function sameElements(a: readonly Element[], b: readonly Element[]): boolean {
  if (a.length !== b.length) return false;
  const texts = new Set(a.map(textOf));
  return b.every((element) => texts.has(textOf(element)));
}

function textOf({ key, flags = 0 }: Element): string {
  return `${Buffer.from(key).toString('hex')} ${flags}`;
}
