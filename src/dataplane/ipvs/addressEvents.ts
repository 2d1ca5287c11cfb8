/** What it means to the mode that an address or an interface came or went. Asks the kernel only where events cannot tell. */
import type { Family } from '../../api/objects.ts';
import type { watchLinkAddressChanges } from '../../linux/netlink/route.ts';
import { isServiceAddress } from '../serviceAddressMark.ts';
import type { Device } from './device.ts';
import type { Mirror } from './drift.ts';
import { counts } from './nodeSide.ts';

/** Undefined where events were lost. */
export type AddressEvent = Parameters<Parameters<typeof watchLinkAddressChanges>[0]>[0];

/** `node`: the node has other addresses than before, which decide on node ports; `gone`: something of ours. */
export type Meaning = 'node' | { readonly gone: string } | undefined;

export function meaningOf(
  event: AddressEvent,
  family: Family,
  device: Pick<Device, 'index' | 'exists' | 'addresses'>,
  { applied, node }: Pick<Mirror, 'applied' | 'node'>,
): Meaning {
  if (event === undefined) return 'node';
  if ('linkGone' in event)
    return event.linkGone === device.index && !device.exists()
      ? { gone: 'device kube-ipvs0 is gone' }
      : undefined;
  const { added, address } = event;
  if (!counts(event, family)) return undefined;
  if (event.index === device.index) {
    // Our own changes are in the mirror before their event comes; only a look at the kernel tells the others.
    if (added || !applied.addresses.has(address) || device.addresses().device.has(address)) return undefined;
    return { gone: `address ${address} of kube-ipvs0 is gone` };
  }
  if (isServiceAddress(event) || added === node.addresses.has(address)) return undefined;
  // Another interface has it, too, as where each Pod's has the same one.
  return !added && device.addresses().node.has(address) ? undefined : 'node';
}

/** Without a mirror to compare with: the event may be one of the node's addresses. */
export function mayBeNodes(event: AddressEvent, device: Pick<Device, 'index'>): boolean {
  return event === undefined || ('address' in event && event.index !== device.index);
}
