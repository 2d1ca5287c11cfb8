/** The addresses of this node, in the network namespace of the process. */
import { listLinkAddresses, listLinks, openRouteSocket, watchLinkAddresses } from './netlink/route.ts';

export interface LocalAddress {
  readonly family: 'IPv4' | 'IPv6';
  /** Canonical text. */
  readonly address: string;
  readonly prefixLength: number;
  /** Name of the interface, e.g. `eth0`. */
  readonly interface: string;
  /** The interface is a loopback one; addresses other than 127.0.0.0/8 and ::1 may sit on it too. */
  readonly loopback: boolean;
}

/** All addresses of all interfaces, in the kernel's order; well under a millisecond. Throws if the kernel refuses. */
export function listLocalAddresses(): LocalAddress[] {
  const socket = openRouteSocket();
  try {
    const links = new Map(listLinks(socket).map((link) => [link.index, link]));
    return listLinkAddresses(socket).map((address) => {
      const link = links.get(address.index);
      return {
        family: address.family,
        address: address.address,
        prefixLength: address.prefixLength,
        interface: link?.name ?? '',
        loopback: link?.loopback ?? false,
      };
    });
  } finally {
    socket.close();
  }
}

/**
 * Calls back whenever an address of any interface came or went; a burst is one call. Keeps the process alive until
 * the returned function is called.
 */
export function watchAddresses(callback: () => void): () => void {
  return watchLinkAddresses(callback);
}
