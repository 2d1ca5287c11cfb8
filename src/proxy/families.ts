/** The one or two families of this node, as the watches see them: what comes in goes to those it concerns, IPv4 first. */
import type { EndpointSlice, Family, Service, ServiceCIDR } from '../api/objects.ts';
import { mergeCIDRs, parseCIDR } from '../services/ip.ts';
import type { FamilyProxy } from './familyProxy.ts';

export class Families {
  /** IPv4 before IPv6. */
  readonly all: readonly FamilyProxy[];

  constructor(all: readonly FamilyProxy[]) {
    this.all = all;
  }

  upsertService(service: Service): void {
    for (const proxy of this.all) proxy.upsertService(service);
  }

  deleteService(service: Service): void {
    const { namespace, name } = service.meta;
    for (const proxy of this.all) proxy.deleteService(namespace, name);
  }

  /** By the slice's address type; a slice of a type that no family has concerns nobody. */
  upsertSlice(slice: EndpointSlice): void {
    this.of(slice.addressType)?.upsertSlice(slice);
  }

  deleteSlice(slice: EndpointSlice): void {
    this.of(slice.addressType)?.deleteSlice(slice.meta.namespace, slice.meta.name);
  }

  servicesSynced(): void {
    for (const proxy of this.all) proxy.setServicesSynced();
  }

  slicesSynced(): void {
    for (const proxy of this.all) proxy.setSlicesSynced();
  }

  setZone(zone: string): void {
    for (const proxy of this.all) proxy.setZone(zone);
    this.batchEnd();
  }

  setServiceCIDRs(objects: Iterable<ServiceCIDR>): void {
    const texts: Record<Family, string[]> = { IPv4: [], IPv6: [] };
    for (const object of objects)
      for (const text of object.cidrs) {
        const cidr = parseCIDR(text);
        if (cidr !== undefined) texts[cidr.family].push(cidr.text);
      }
    for (const proxy of this.all) proxy.setServiceCIDRs(mergeCIDRs(texts[proxy.family]));
  }

  /** What came together is in: changes go to the kernel in this turn. */
  batchEnd(): void {
    for (const proxy of this.all) proxy.batchEnd();
  }

  private of(addressType: string): FamilyProxy | undefined {
    return this.all.find((proxy) => proxy.family === addressType);
  }
}
