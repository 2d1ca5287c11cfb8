/** Opening sockets in another network namespace. */
import { closeSync, openSync } from 'node:fs';
import { CLONE_NEWNET, setNamespace } from '../ffi.ts';

/**
 * Runs `action` in the network namespace at `path` (`/run/netns/NAME`, `/proc/PID/ns/net`) and comes back. Sockets
 * opened in it stay in that namespace. `action` must be synchronous: no other code may run meanwhile.
 */
export function withNetworkNamespace<T>(path: string, action: () => T): T {
  const home = openSync('/proc/thread-self/ns/net', 'r');
  try {
    const away = openSync(path, 'r');
    try {
      setNamespace(away, CLONE_NEWNET);
    } finally {
      closeSync(away);
    }
    try {
      return action();
    } finally {
      setNamespace(home, CLONE_NEWNET);
    }
  } finally {
    closeSync(home);
  }
}
