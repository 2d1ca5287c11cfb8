/** Connections at the moment the kernel begins to remember them (NFNLGRP_CONNTRACK_NEW). */
import { readEntry, type ConntrackEntry } from './conntrack-entry.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from './socket.ts';

const IPCTNL_MSG_CT_NEW = 1 << 8;
/** NFNLGRP_CONNTRACK_NEW is 1. */
const eventGroups = 1 << 0;

/**
 * Hands over new connections of both families, from the event loop. A kernel with net.netfilter.nf_conntrack_events=0
 * tells of none. `onLost`: some were lost.
 * @returns the function that ends it
 */
export function watchNewConnections(
  onEntry: (entry: ConntrackEntry) => void,
  onLost: (reason: string) => void,
): () => void {
  const socket = new NetlinkSocket({
    protocol: NETLINK_NETFILTER,
    groups: eventGroups,
    receiveBuffer: 8 << 20,
  });
  socket.subscribe((message) => {
    if (message.type !== IPCTNL_MSG_CT_NEW) return;
    const entry = readEntry(message);
    if (entry !== undefined) onEntry(entry);
  }, onLost);
  return () => socket.close();
}
