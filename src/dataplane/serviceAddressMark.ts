/** By what it is told that an address of the loopback interface is a service's, put there by userspace mode. */
import type { AddressMark, LinkAddress } from '../linux/netlink/route.ts';

/** On every address of ours. The number is free (iproute2's rt_addrprotos has 1 to 3), the label shows up in `ip addr`. */
export const serviceAddressMark: AddressMark = { protocol: 80, label: 'lo:pointsman' };

/** A process of ours put it there for a service. IPv6 addresses on kernels before 5.18 do not say. */
export function isServiceAddress({ protocol, label }: Pick<LinkAddress, 'protocol' | 'label'>): boolean {
  return protocol === serviceAddressMark.protocol || label === serviceAddressMark.label;
}
