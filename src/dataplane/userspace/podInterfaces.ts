/**
 * Tells Pods by the interface they are behind, where only their address is known: answers to a Pod leave through the
 * interface its packets came by (otherwise the kernel's reverse path filter would drop them).
 */
import { findOutgoingLink, listLinks, openRouteSocket } from '../../linux/netlink/route.ts';
import type { NetlinkSocket } from '../../linux/netlink/socket.ts';
import type { LocalDetector } from '../../services/localDetection.ts';

/** Clients that are remembered between two calls of `forget`. */
const rememberedMax = 65_536;

export class PodInterfaces {
  readonly #matches: (name: string) => boolean;
  readonly #socket: NetlinkSocket = openRouteSocket();
  readonly #names = new Map<number, string>();
  readonly #known = new Map<string, boolean>();

  constructor(detector: Exclude<LocalDetector, { kind: 'cidr' }>) {
    this.#matches =
      detector.kind === 'interface'
        ? (name) => name === detector.name
        : (name) => name.startsWith(detector.prefix);
  }

  /** The way to this address is through an interface of Pods. A link-local one may name its interface (`fe80::1%eth0`). */
  leadTo(address: string): boolean {
    // Whoever is gone already has none.
    if (address === '') return false;
    const zone = address.indexOf('%');
    if (zone >= 0) return this.#matches(address.slice(zone + 1));
    let found = this.#known.get(address);
    if (found === undefined) {
      const index = findOutgoingLink(this.#socket, address);
      found = index !== undefined && this.#matches(this.#nameOf(index));
      if (this.#known.size >= rememberedMax) this.#known.clear();
      this.#known.set(address, found);
    }
    return found;
  }

  /** Routes change: to be called now and then. */
  forget(): void {
    this.#known.clear();
    this.#names.clear();
  }

  close(): void {
    this.#socket.close();
  }

  #nameOf(index: number): string {
    if (this.#names.size === 0)
      for (const link of listLinks(this.#socket)) this.#names.set(link.index, link.name);
    return this.#names.get(index) ?? '';
  }
}
