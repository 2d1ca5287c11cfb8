/**
 * Cluster IPs, node ports and load balancer IPs. What is taken is read from the store's Services as they change,
 * so nothing has to be given back: a deleted Service frees its addresses, a dry run takes none.
 */
import type { Family } from '../../api/objects.ts';
import { formatIp, parseCidr, parseIp, rangeContains, type IpRange } from './addresses.ts';
import type { KubeObject } from './objects.ts';
import type { Store, StoreEvent } from './store.ts';
import type { ServiceObject } from './strategies/serviceTypes.ts';

/** Counts how many Services hold each value: bad data loaded in bulk may hold one twice. */
class Holders {
  readonly #counts = new Map<string, number>();

  has(value: string): boolean {
    return this.#counts.has(value);
  }

  add(value: string): void {
    this.#counts.set(value, (this.#counts.get(value) ?? 0) + 1);
  }

  remove(value: string): void {
    const left = (this.#counts.get(value) ?? 0) - 1;
    if (left > 0) this.#counts.set(value, left);
    else this.#counts.delete(value);
  }
}

const cidrResource = 'servicecidrs.networking.k8s.io';

export const nodePortRange = { first: 30000, last: 32767 } as const;

/** Size of the low part of a range that is left for addresses chosen by hand (KEP-3070). */
function staticBand(size: bigint): bigint {
  const sixteenth = size / 16n;
  const bounded = sixteenth > 256n ? 256n : sixteenth;
  return bounded < 16n ? 0n : bounded;
}

export class Allocators {
  readonly #store: Store;
  readonly #ips = new Holders();
  readonly #nodePorts = new Holders();
  readonly #cursor = new Map<string, bigint>();
  #ranges: readonly IpRange[] | undefined;
  #nodePortCursor: number = nodePortRange.first;

  constructor(store: Store) {
    this.#store = store;
    store.subscribe('services', (event) => this.#onService(event));
    store.subscribe(cidrResource, () => {
      this.#ranges = undefined;
    });
  }

  #onService({ type, object, previous }: StoreEvent): void {
    if (previous !== undefined) this.#count(previous, (holders, value) => holders.remove(value));
    if (type !== 'DELETED') this.#count(object, (holders, value) => holders.add(value));
  }

  #count(object: KubeObject, step: (holders: Holders, value: string) => void): void {
    const { spec, status } = object as unknown as ServiceObject;
    for (const ip of new Set(spec?.clusterIPs)) if (ip !== 'None') step(this.#ips, canonical(ip));
    const ingress = new Set(status?.loadBalancer?.ingress?.map((one) => one.ip ?? ''));
    for (const ip of ingress) if (ip !== '') step(this.#ips, canonical(ip));
    const ports = new Set(spec?.ports?.map((port) => port.nodePort ?? 0));
    ports.add(spec?.healthCheckNodePort ?? 0);
    for (const port of ports) if (port !== 0) step(this.#nodePorts, String(port));
  }

  /** Ranges of all ServiceCIDRs that are not going away, the default one first. */
  serviceRanges(): readonly IpRange[] {
    this.#ranges ??= this.#readRanges();
    return this.#ranges;
  }

  #readRanges(): IpRange[] {
    const cidrs = this.#store.list(cidrResource).filter((one) => !one.metadata.deletionTimestamp);
    const first = (one: KubeObject): number => (one.metadata.name === 'kubernetes' ? 0 : 1);
    return [...cidrs]
      .sort((a, b) => first(a) - first(b))
      .flatMap((one) => (one.spec?.['cidrs'] as string[] | undefined) ?? [])
      .map(parseCidr)
      .filter((range) => range !== undefined);
  }

  /** The families Services can have, in the order of the default ServiceCIDR. */
  families(): Family[] {
    return [...new Set(this.serviceRanges().map((range) => range.family))];
  }

  ipTaken(ip: string): boolean {
    return this.#ips.has(canonical(ip));
  }

  /** A free cluster IP of the family, or undefined if all are taken. */
  nextClusterIp(family: Family): string | undefined {
    for (const range of this.serviceRanges()) {
      const found = range.family === family ? this.#nextInRange(range, staticBand(range.size)) : undefined;
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** A free address of a load balancer pool, or undefined if all are taken. */
  nextInPool(range: IpRange): string | undefined {
    return this.#nextInRange(range, 0n);
  }

  #nextInRange(range: IpRange, band: bigint): string | undefined {
    // The first address names the network; the last IPv4 one is the broadcast address.
    const last = range.family === 'IPv4' && range.size > 2n ? range.size - 2n : range.size - 1n;
    const lowest = range.size > 2n ? 1n : 0n;
    const start = this.#cursor.get(range.cidr) ?? (band > lowest ? band : lowest);
    let offset = start;
    do {
      const ip = formatIp({ family: range.family, value: range.base + offset });
      offset = offset >= last ? lowest : offset + 1n;
      if (!this.#ips.has(ip)) {
        this.#cursor.set(range.cidr, offset);
        return ip;
      }
    } while (offset !== start);
    return undefined;
  }

  inServiceRange(ip: string): boolean {
    const parsed = parseIp(ip);
    return parsed !== undefined && this.serviceRanges().some((range) => rangeContains(range, parsed));
  }

  nodePortTaken(port: number): boolean {
    return this.#nodePorts.has(String(port));
  }

  /** A free node port that is not among those avoided either, or undefined if all are taken. */
  nextNodePort(avoid: ReadonlySet<number>): number | undefined {
    const { first, last } = nodePortRange;
    for (let tries = first; tries <= last; tries++) {
      const port = this.#nodePortCursor;
      this.#nodePortCursor = port >= last ? first : port + 1;
      if (!this.nodePortTaken(port) && !avoid.has(port)) return port;
    }
    return undefined;
  }
}

function canonical(ip: string): string {
  const parsed = parseIp(ip);
  return parsed === undefined ? ip : formatIp(parsed);
}
