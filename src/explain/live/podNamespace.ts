/** Finding the network namespace of a Pod by its address, so that a probe can start where the Pod's own packets do. */
import { readdirSync, statSync } from 'node:fs';
import { listLocalAddresses } from '../../linux/addresses.ts';
import { withNetworkNamespace } from '../../linux/netlink/namespace.ts';

const named = '/run/netns';

/**
 * A path that leads to the namespace with this address; undefined if none is to be seen from here: this machine has
 * no such Pod, or /proc shows other processes than the machine's. Needs root.
 */
export function findPodNamespace(address: string): string | undefined {
  const seen = new Set([identity('/proc/self/ns/net')]);
  for (const path of candidates()) {
    const id = identity(path);
    if (id === undefined || seen.has(id)) continue;
    seen.add(id);
    try {
      const addresses = withNetworkNamespace(path, listLocalAddresses);
      if (addresses.some((one) => one.address === address)) return path;
    } catch {
      // It went away, or may not be entered: it cannot be dialled from then.
    }
  }
  return undefined;
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
