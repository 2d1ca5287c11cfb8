/** What IPVS mode has in the kernel of this network namespace, but for its iptables rules; nothing is changed. */
import type { Family } from '../api/objects.ts';
import { openIpvs } from '../dataplane/ipvs/checks.ts';
import { deviceName, setIds } from '../dataplane/ipvs/names.ts';
import { counts } from '../dataplane/ipvs/nodeSide.ts';
import { realKey, type AppliedServer } from '../dataplane/ipvs/plan.ts';
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
      if (serverFamily(server) !== family) continue;
      const reals = new Map<string, number>();
      for (const real of ipvs.listRealServers(server))
        reals.set(realKey(real), real.forwarding === 'masquerade' ? real.weight : -1);
      servers.set(serverKey(server), { server, reals });
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
    const addresses = new Set<string>();
    const nodeAddresses = new Set<string>();
    for (const one of listLinkAddresses(socket)) {
      if (counts(one, family)) (one.index === index ? addresses : nodeAddresses).add(one.address);
    }
    return { addresses: index === undefined ? undefined : addresses, nodeAddresses };
  } finally {
    socket.close();
  }
}
