/** The sockets that clients of Services may take of this process: one budget, whatever serves them. */
import { SocketBudget, descriptorReserve, socketLimit } from '../dataplane/userspace/socketBudget.ts';
import { reserveDescriptors } from '../linux/ffi.ts';
import type { Logger } from '../log/logger.ts';

/** As many as a table of 1 MiB has; one that is to be larger still grows while connections go on. */
const reservedMax = 2 ** 17;

let budget: SocketBudget | undefined;

export function processSockets(log: Logger): SocketBudget {
  if (budget === undefined) {
    const limit = socketLimit();
    budget = new SocketBudget(limit, log);
    // Where that fails, connections wait now and then.
    reserveDescriptors(Math.min(limit + descriptorReserve, reservedMax));
  }
  return budget;
}
