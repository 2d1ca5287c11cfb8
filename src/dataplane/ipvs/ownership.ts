/** Which virtual servers are ours. The kernel marks no owner, but our device and sets record what was made by us. */
import type { VirtualServer } from '../../linux/netlink/ipvs/objects.ts';
import type { SetId } from './names.ts';
import type { NodeSide } from './nodeSide.ts';
import type { Applied } from './plan.ts';

const recordSets: readonly SetId[] = [
  'KUBE-CLUSTER-IP',
  'KUBE-EXTERNAL-IP',
  'KUBE-EXTERNAL-IP-LOCAL',
  'KUBE-LOAD-BALANCER',
  'KUBE-NODE-PORT-SCTP-HASH',
];

/**
 * Takes the records as they are before a sync changes them. A virtual server is ours if its address is one of
 * kube-ipvs0 or of KUBE-IPVS-IPS, if its address and port are in one of our sets, or if it is on an address of the
 * node, now or when the records were made, at a port that is a node port. All others (keepalived's, an operator's) are left alone.
 */
export function ownership(applied: Applied, node: NodeSide): (server: VirtualServer) => boolean {
  const addresses = new Set([...applied.addresses, ...applied.sets.get('KUBE-IPVS-IPS')!]);
  const recorded = new Set(recordSets.flatMap((id) => [...applied.sets.get(id)!]));
  const nodePorts = {
    TCP: new Set(applied.sets.get('KUBE-NODE-PORT-TCP')),
    UDP: new Set(applied.sets.get('KUBE-NODE-PORT-UDP')),
  };
  const nodeAddresses = new Set([...node.addresses, ...applied.sets.get('KUBE-NODE-PORT-IPS')!]);
  return ({ address, port, protocol }) => {
    if (addresses.has(address)) return true;
    if (recorded.has(`${address},${protocol.toLowerCase()}:${port}`)) return true;
    return protocol !== 'SCTP' && nodeAddresses.has(address) && nodePorts[protocol].has(String(port));
  };
}
