/** What IPVS mode has in the kernel of this network namespace, but for its iptables rules; nothing is changed. */
import type { Family } from '../api/objects.ts';
import { openIpvs } from '../dataplane/ipvs/checks.ts';
import { deviceName, setIds } from '../dataplane/ipvs/names.ts';
import { splitAddresses } from '../dataplane/ipvs/nodeSide.ts';
import { weightsOf, type AppliedServer } from '../dataplane/ipvs/plan.ts';
import { Sets } from '../dataplane/ipvs/sets.ts';
import { serverFamily, serverKey } from '../linux/netlink/ipvs/objects.ts';
import { findLink, listLinkAddresses, openRouteSocket } from '../linux/netlink/route.ts';
import type { IpvsState } from './ipvsDiff.ts';

/** Throws a sentence where the kernel has no IPVS or no ipset. */
export function readIpvs(family: Family): IpvsState {
  const servers = new Map<string, AppliedServer>();
  const ipvs = openIpvs();
  try {
    for (const server of ipvs.listServers()) {
      if (serverFamily(server) === family)
        servers.set(serverKey(server), { server, reals: weightsOf(ipvs.listRealServers(server)) });
    }
  } finally {
    ipvs.close();
  }
  return { servers, sets: readSets(family), ...readAddresses(family) };
}

function readSets(family: Family): IpvsState['sets'] {
  const kernel = new Sets(family);
  try {
    return new Map(
      setIds.flatMap((id) => {
        const entries = kernel.read(id);
        return entries === undefined ? [] : [[id, entries] as const];
      }),
    );
  } finally {
    kernel.close();
  }
}

function readAddresses(family: Family): Pick<IpvsState, 'addresses' | 'nodeAddresses'> {
  const socket = openRouteSocket();
  try {
    const index = findLink(socket, deviceName)?.index;
    const { device, node } = splitAddresses(listLinkAddresses(socket), index, family);
    return { addresses: index === undefined ? undefined : device, nodeAddresses: node };
  } finally {
    socket.close();
  }
}
