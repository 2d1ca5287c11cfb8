/** Makes service addresses this node's own, so that it can listen on them: single addresses on the loopback interface. */
import type { Family } from '../../api/objects.ts';
import {
  addHostAddress,
  findLink,
  listLinkAddresses,
  openRouteSocket,
  removeHostAddress,
  type LinkName,
} from '../../linux/netlink/route.ts';
import type { NetlinkSocket } from '../../linux/netlink/socket.ts';
import { cidrContains, parseCIDR } from '../../services/ip.ts';
import { isServiceAddress, serviceAddressMark } from '../serviceAddressMark.ts';

/** Takes off all addresses of the family that a process of ours has put on loopback. @returns how many */
export function removeServiceAddresses(family: Family): number {
  const socket = openRouteSocket();
  try {
    const link = findLink(socket, 'lo');
    if (link === undefined) return 0;
    let removed = 0;
    for (const one of listLinkAddresses(socket)) {
      if (one.family !== family || one.index !== link.index || !isServiceAddress(one)) continue;
      if (removeHostAddress(socket, { index: link.index, name: 'lo' }, one.address)) removed++;
    }
    return removed;
  } finally {
    socket.close();
  }
}

interface Entry {
  count: number;
  /** We put it there; others' addresses stay when no service needs them any more. */
  readonly ours: boolean;
}

export class ServiceAddresses {
  readonly #family: Family;
  readonly #socket: NetlinkSocket;
  readonly #loopback: LinkName;
  readonly #entries = new Map<string, Entry>();
  /** What an earlier process of ours has left. */
  readonly #found = new Set<string>();

  /** Throws if there is no loopback interface. */
  constructor(family: Family) {
    this.#family = family;
    this.#socket = openRouteSocket();
    const link = findLink(this.#socket, 'lo');
    if (link === undefined) {
      this.#socket.close();
      throw new Error('there is no interface lo to put service addresses on');
    }
    this.#loopback = { index: link.index, name: 'lo' };
    for (const one of listLinkAddresses(this.#socket))
      if (one.index === link.index && isServiceAddress(one)) this.#found.add(one.address);
  }

  /** One more frontend needs the address. Throws if the kernel refuses it. */
  take(ip: string): void {
    const entry = this.#entries.get(ip);
    if (entry !== undefined) entry.count++;
    else this.#entries.set(ip, { count: 1, ours: this.#put(ip) });
  }

  /** True if it is ours: new, or from an earlier process of ours. */
  #put(ip: string): boolean {
    return addHostAddress(this.#socket, this.#loopback, ip, serviceAddressMark) || this.#found.has(ip);
  }

  /** One frontend less. */
  give(ip: string): void {
    const entry = this.#entries.get(ip);
    if (entry === undefined || --entry.count > 0) return;
    this.#entries.delete(ip);
    if (entry.ours) removeHostAddress(this.#socket, this.#loopback, ip);
  }

  /** Addresses of ours that somebody has taken off. */
  missing(): string[] {
    const there = new Set(listLinkAddresses(this.#socket).map(({ address }) => address));
    return [...this.#entries].filter(([ip, { ours }]) => ours && !there.has(ip)).map(([ip]) => ip);
  }

  /** Puts one that is missing there again. */
  putBack(ip: string): void {
    addHostAddress(this.#socket, this.#loopback, ip, serviceAddressMark);
  }

  /** All addresses of this node, those of services left out. */
  nodeAddresses(): string[] {
    return listLinkAddresses(this.#socket)
      .filter(
        (one) => one.family === this.#family && !this.#entries.has(one.address) && !isServiceAddress(one),
      )
      .map(({ address }) => address);
  }

  /**
   * Removes what an earlier process has left: single addresses on loopback that carry our mark, or, where the kernel
   * keeps none, lie in a ServiceCIDR. @returns how many
   */
  removeStrays(serviceCIDRs: readonly string[]): number {
    const cidrs = serviceCIDRs.map(parseCIDR).filter((cidr) => cidr !== undefined);
    const length = this.#family === 'IPv4' ? 32 : 128;
    let removed = 0;
    for (const one of listLinkAddresses(this.#socket)) {
      const { family, address, index, prefixLength } = one;
      if (family !== this.#family || index !== this.#loopback.index || prefixLength !== length) continue;
      if (this.#entries.has(address)) continue;
      if (!isServiceAddress(one) && !cidrs.some((cidr) => cidrContains(cidr, address))) continue;
      if (removeHostAddress(this.#socket, this.#loopback, address)) removed++;
    }
    return removed;
  }

  /** Takes off everything of ours. */
  close(): void {
    for (const [ip, { ours }] of this.#entries) if (ours) removeHostAddress(this.#socket, this.#loopback, ip);
    this.#entries.clear();
    this.#socket.close();
  }
}
