/** What the machine knows beside its rules: its addresses, where other addresses are, and what lists remember. */
import type { Family } from '../api/objects.ts';
import { type CIDR, cidrContains, isLoopback, isUnspecified, parseCIDR } from '../services/ip.ts';

/** Where a packet to an address goes from this node. */
export type Direction = 'here' | 'podHere' | 'away';

export interface WorldOptions {
  readonly nodeName: string;
  readonly family: Family;
  /** This node's address of the family; empty if not known. */
  readonly nodeIP: string;
  /** All addresses of this node, loopback too or not. */
  readonly localAddresses: readonly string[];
  /** Those of Services that IPVS mode has put on kube-ipvs0: local to the kernel, but not where the node is reached. */
  readonly serviceAddresses?: readonly string[];
  /** Addresses of Pods on this node, as far as known. */
  readonly podsHere?: ReadonlySet<string>;
  /** Networks of this node's Pods. */
  readonly podNetworksHere?: readonly string[];
  /** Networks of the whole cluster's Pods. */
  readonly podNetworks?: readonly string[];
  /** The interface to other machines, e.g. `eth0`; undefined = not known. */
  readonly outInterface?: string;
  /** The interface to this node's Pods; undefined = not known (often there is one for each). */
  readonly podInterface?: string;
  /** This machine's routes, where it was asked; `source` is what its own packets carry. */
  readonly routes?: readonly InterfaceRoute[];
  /** Members of ipsets, as `ipset save` prints them, by the set's name; a set that is not in here is not known. */
  readonly ipsets?: ReadonlyMap<string, IpSet>;
  /**
   * Clients that `-m recent` lists remember, by list; undefined = not known. A list that is not in here is empty.
   */
  readonly recent?: ReadonlyMap<string, ReadonlySet<string>>;
  /** Ports at which programs of this machine listen, `TCP 80`; undefined = not known. */
  readonly listening?: ReadonlySet<string>;
}

/** A route of this machine, as far as it says which interface. */
export interface InterfaceRoute {
  readonly cidr: CIDR;
  readonly interface: string;
  /** The address of this machine that its packets carry there; absent if the route does not say. */
  readonly source?: string;
}

export interface IpSet {
  /** `hash:ip,port` */
  readonly type: string;
  readonly members: readonly string[];
}

export class World {
  readonly nodeName: string;
  readonly family: Family;
  readonly nodeIP: string;
  readonly localAddresses: ReadonlySet<string>;
  readonly serviceAddresses: ReadonlySet<string>;
  readonly outInterface: string | undefined;
  readonly podInterface: string | undefined;
  readonly ipsets: ReadonlyMap<string, IpSet>;
  readonly recent: ReadonlyMap<string, ReadonlySet<string>> | undefined;
  readonly listening: ReadonlySet<string> | undefined;
  readonly #options: WorldOptions;

  constructor(options: WorldOptions) {
    this.#options = options;
    this.nodeName = options.nodeName;
    this.family = options.family;
    this.nodeIP = options.nodeIP;
    this.serviceAddresses = new Set(options.serviceAddresses);
    this.localAddresses = new Set(
      [...options.localAddresses, ...this.serviceAddresses, options.nodeIP].filter(
        (ip) => ip !== '' && !isUnspecified(ip),
      ),
    );
    this.outInterface = options.outInterface;
    this.podInterface = options.podInterface;
    this.ipsets = options.ipsets ?? new Map();
    this.recent = options.recent;
    this.listening = options.listening;
  }

  /** The same machine, but for some of what is known of it. */
  with(changes: Partial<WorldOptions>): World {
    return new World({ ...this.#options, ...changes });
  }

  isLocal(address: string): boolean {
    return isLoopback(address) || this.localAddresses.has(address);
  }

  /** Local, and not only because a Service has it. */
  isNodeAddress(address: string): boolean {
    return this.isLocal(address) && !this.serviceAddresses.has(address);
  }

  /** A Pod's address, on this node or another, as far as networks tell. */
  isPod(address: string): boolean {
    const { podNetworks = [], podsHere } = this.#options;
    return podsHere?.has(address) === true || this.isPodHere(address) || inside(podNetworks, address);
  }

  isPodHere(address: string): boolean {
    const { podNetworksHere = [], podsHere } = this.#options;
    return !this.isLocal(address) && (podsHere?.has(address) === true || inside(podNetworksHere, address));
  }

  direction(address: string): Direction {
    if (this.isLocal(address)) return 'here';
    return this.isPodHere(address) ? 'podHere' : 'away';
  }

  /** The address that packets of this machine's own programs carry; empty if not known. */
  sourceTowards(address: string): string {
    return this.isLocal(address) ? address : (this.#routeTo(address)?.source ?? this.nodeIP);
  }

  /** The interface by which packets to the address leave; undefined = not known. */
  interfaceTo(address: string): string | undefined {
    const best = this.#routeTo(address);
    if (best !== undefined && !this.isLocal(address)) return best.interface;
    switch (this.direction(address)) {
      case 'here':
        return 'lo';
      case 'podHere':
        return this.podInterface;
      case 'away':
        return this.outInterface;
    }
  }

  #routeTo(address: string): InterfaceRoute | undefined {
    let best: InterfaceRoute | undefined;
    for (const route of this.#options.routes ?? []) {
      if (cidrContains(route.cidr, address) && route.cidr.prefix >= (best?.cidr.prefix ?? 0)) best = route;
    }
    return best;
  }
}

function inside(networks: readonly string[], address: string): boolean {
  return networks.some((text) => {
    const cidr = parseCIDR(text);
    return cidr !== undefined && cidrContains(cidr, address);
  });
}

/** Address types as FIB lookups give them (rtnetlink's RTN_…), as far as rules ask for them. */
export type AddressType = 'LOCAL' | 'UNICAST' | 'MULTICAST' | 'BROADCAST' | 'UNSPEC';

export function addressType(world: World, address: string): AddressType {
  if (isUnspecified(address)) return 'UNSPEC';
  if (world.isLocal(address)) return 'LOCAL';
  if (address === '255.255.255.255') return 'BROADCAST';
  const multicast = address.includes(':')
    ? address.startsWith('ff')
    : Number(address.split('.', 1)[0]) >= 224 && Number(address.split('.', 1)[0]) <= 239;
  return multicast ? 'MULTICAST' : 'UNICAST';
}
