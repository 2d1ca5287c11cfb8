/** The sockets that clients of Services may take of this process: one budget, whatever serves them. */
import { SocketBudget, socketLimit } from '../dataplane/userspace/socketBudget.ts';
import type { Logger } from '../log/logger.ts';

let budget: SocketBudget | undefined;

export function processSockets(log: Logger): SocketBudget {
  budget ??= new SocketBudget(socketLimit(), log);
  return budget;
}
