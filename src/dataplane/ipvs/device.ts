/** The device kube-ipvs0 and the addresses of this node. One device serves both families. */
import type { Family } from '../../api/objects.ts';
import { EEXIST, EOPNOTSUPP, isRefusal } from '../../linux/netlink/errors.ts';
import {
  addHostAddress,
  addLink,
  deleteLink,
  findLink,
  listLinkAddresses,
  openRouteSocket,
  removeHostAddress,
  type LinkName,
} from '../../linux/netlink/route.ts';
import type { NetlinkSocket } from '../../linux/netlink/socket.ts';
import { modulePackages } from './checks.ts';
import { deviceName } from './names.ts';
import { splitAddresses, type Addresses } from './nodeSide.ts';

export class Device {
  readonly #socket: NetlinkSocket;
  readonly #family: Family;
  readonly #kind: string;
  #link: LinkName | undefined;

  /** `kind`: `dummy` but in tests on kernels that have none. */
  constructor(family: Family, kind = 'dummy') {
    this.#socket = openRouteSocket();
    this.#family = family;
    this.#kind = kind;
  }

  /** Index of the device when it was last seen. */
  get index(): number | undefined {
    return this.#link?.index;
  }

  exists(): boolean {
    return findLink(this.#socket, deviceName) !== undefined;
  }

  /** Makes the device if it is missing. Throws with a sentence if that cannot be. */
  ensure(): void {
    let link = findLink(this.#socket, deviceName);
    if (link === undefined) {
      try {
        addLink(this.#socket, deviceName, this.#kind);
      } catch (error) {
        if (isRefusal(error, EOPNOTSUPP))
          throw new Error(
            `the kernel cannot make dummy devices, which hold the addresses of services in IPVS mode: load module dummy ("modprobe dummy"; ${modulePackages})`,
            { cause: error },
          );
        // The other family's proxy was faster.
        if (!isRefusal(error, EEXIST)) throw error;
      }
      link = findLink(this.#socket, deviceName);
    }
    if (link === undefined)
      throw new Error(`device ${deviceName} is gone as soon as it is made; who removes it?`);
    if (link.kind !== this.#kind)
      throw new Error(
        `device ${deviceName} is there, but as ${link.kind === '' ? 'a physical device' : `a ${link.kind}`} instead of a dummy; rename or remove it`,
      );
    this.#link = { index: link.index, name: deviceName };
  }

  addresses(): Addresses {
    return splitAddresses(listLinkAddresses(this.#socket), this.#link?.index, this.#family);
  }

  add(address: string): void {
    if (this.#link === undefined) this.ensure();
    addHostAddress(this.#socket, this.#link!, address);
  }

  remove(address: string): void {
    if (this.#link !== undefined) removeHostAddress(this.#socket, this.#link, address);
  }

  /** Removes the device, if it is of the right kind. True if it was there. */
  destroy(): boolean {
    const link = findLink(this.#socket, deviceName);
    return link?.kind === this.#kind && deleteLink(this.#socket, deviceName);
  }

  close(): void {
    this.#socket.close();
  }
}
