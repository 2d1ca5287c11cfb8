/** What the kernel lets this process do (capabilities(7)). */
import { readFileSync } from 'node:fs';

const CAP_NET_ADMIN = 12n;

/** Whether rules of the network may be read and changed: root, or CAP_NET_ADMIN. True where the kernel does not say. */
export function mayAdministerNetwork(): boolean {
  let status: string;
  try {
    status = readFileSync('/proc/self/status', 'utf8');
  } catch {
    // Without /proc nobody knows: what is tried will tell.
    return true;
  }
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  return effective === undefined || ((BigInt(`0x${effective}`) >> CAP_NET_ADMIN) & 1n) === 1n;
}
