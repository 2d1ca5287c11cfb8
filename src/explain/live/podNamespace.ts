/** Finding the network namespace of a Pod by its address, so that a probe can start where the Pod's own packets do. */
import { closeSync, openSync, readdirSync, statSync } from 'node:fs';
import { listLocalAddresses } from '../../linux/addresses.ts';
import { withNetworkNamespace } from '../../linux/netlink/namespace.ts';
import { listLinks, namespaceNumber, openRouteSocket } from '../../linux/netlink/route.ts';
import type { NetlinkSocket } from '../../linux/netlink/socket.ts';

const named = '/run/netns';

/**
 * A path that leads to the namespace with this address; undefined if none is to be seen from here: this machine has
 * no such Pod, or /proc shows other processes than the machine's. Where several have the address, it is the one that
 * is joined to ours (by a pair of veth interfaces). Needs root.
 */
export function findPodNamespace(address: string): string | undefined {
  const found = [...namespacesWith(address)];
  return found.find(({ joined }) => joined)?.path ?? (found.length === 1 ? found[0]!.path : undefined);
}

function* namespacesWith(address: string): Generator<{ path: string; joined: boolean }> {
  const seen = new Set([identity('/proc/self/ns/net')]);
  const socket = openRouteSocket();
  try {
    // The kernel numbers the namespaces of our interfaces' other ends now.
    listLinks(socket);
    for (const path of candidates()) {
      const id = identity(path);
      if (id === undefined || seen.has(id)) continue;
      seen.add(id);
      try {
        const addresses = withNetworkNamespace(path, listLocalAddresses);
        if (addresses.some((one) => one.address === address)) yield { path, joined: isJoined(socket, path) };
      } catch {
        // It went away, or may not be entered: it cannot be dialled from then.
      }
    }
  } finally {
    socket.close();
  }
}

function isJoined(socket: NetlinkSocket, path: string): boolean {
  const fd = openSync(path, 'r');
  try {
    return namespaceNumber(socket, fd) !== undefined;
  } finally {
    closeSync(fd);
  }
}

function* candidates(): Generator<string> {
  for (const name of list(named)) yield `${named}/${name}`;
  for (const name of list('/proc')) if (/^\d+$/.test(name)) yield `/proc/${name}/ns/net`;
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // No namespace has a name.
  }
}

/** Which namespace it is; undefined if the process is gone. */
function identity(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path);
    return `${dev}:${ino}`;
  } catch {
    return undefined; // A process that has ended meanwhile.
  }
}
