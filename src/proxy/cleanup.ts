/** `--cleanup`: removes the rules of every mode. */
import type { Logger } from '../log/logger.ts';
import { leftovers, type Leftovers } from './leftovers.ts';

/** Goes through all of `which` whatever fails; resolves to false if anything did (each is logged). */
export async function removeLeftovers(
  log: Logger,
  which: readonly Leftovers[] = leftovers,
): Promise<boolean> {
  let ok = true;
  for (const one of which) {
    try {
      await one.remove(log);
    } catch (err) {
      ok = false;
      log.error('Error cleaning up rules of a proxy mode', { mode: one.mode, err });
    }
  }
  return ok;
}
