/** Does to the kernel what a plan says, and keeps the record of what the kernel holds. */
import type { Family } from '../../api/objects.ts';
import { EADDRNOTAVAIL, EEXIST, EINVAL, isRefusal } from '../../linux/netlink/errors.ts';
import type { Ipvs } from '../../linux/netlink/ipvs/ipvs.ts';
import type { ServerIdentity, VirtualServer } from '../../linux/netlink/ipvs/objects.ts';
import type { Logger } from '../../log/logger.ts';
import type { Kernel } from './kernel.ts';
import { printOperation, realKey, realServer, type Applied, type Operation, type Plan } from './plan.ts';
import type { Retirement } from './retirement.ts';
import { Turns } from '../turns.ts';

export interface Target {
  readonly family: Family;
  readonly kernel: Pick<Kernel, 'ipvs'> & {
    readonly sets: Pick<Kernel['sets'], 'add' | 'delete'>;
    readonly device: Pick<Kernel['device'], 'add' | 'remove'>;
  };
  readonly applied: Applied;
  readonly retirement: Retirement;
  readonly log: Logger;
}

export interface Rules {
  /** Writes what is to be written. */
  readonly write: () => Promise<void>;
  /** Another mode's rules serve until ours take their place: then everything has to be there already. */
  readonly last: boolean;
}

/**
 * Sets, rules, servers and addresses, in an order in which nothing answers that is not guarded, or is led away from where
 * it is served. What fails costs itself alone; the promise is rejected at the end, with all errors.
 */
export async function applyPlan(target: Target, steps: Plan, rules: Rules): Promise<void> {
  const errors: unknown[] = [];
  await doAll(target, steps.before, errors);
  if (!rules.last) await rules.write();
  await doAll(target, steps.add, errors);
  if (rules.last) await rules.write();
  await doAll(target, steps.remove, errors);
  if (errors.length === 1) throw errors[0];
  if (errors.length > 1)
    throw new AggregateError(errors, `${errors.length} changes were refused by the kernel; see the log`);
}

async function doAll(target: Target, operations: readonly Operation[], errors: unknown[]): Promise<void> {
  const { family, log } = target;
  const turns = new Turns();
  for (const operation of operations) {
    if (log.enabled(4)) log.info('Changing the kernel', { command: printOperation(operation, family) }, 4);
    try {
      carryOut(target, operation);
    } catch (err) {
      const command = printOperation(operation, family).slice(0, 1000);
      if (isNoneOfTheKernels(operation, err)) {
        log.error('The kernel takes no such object: it is left out', { command, err });
      } else {
        errors.push(err);
        log.error('The kernel refused a change', { command, err });
      }
    }
    await turns.pause();
  }
}

/**
 * The address is none that a service or an endpoint can have here (a subnet's broadcast address, say): it would be refused
 * each time, and is not to stop the rest.
 */
function isNoneOfTheKernels({ kind }: Operation, error: unknown): boolean {
  return (
    (kind === 'addServer' || kind === 'addReal' || kind === 'addAddress') &&
    isRefusal(error, EINVAL, EADDRNOTAVAIL)
  );
}

function carryOut({ kernel, applied, retirement }: Target, operation: Operation): void {
  const { ipvs, sets, device } = kernel;
  switch (operation.kind) {
    case 'addEntries': {
      const have = applied.sets.get(operation.set)!;
      sets.add(operation.set, operation.entries, () => have, have.size);
      for (const text of operation.entries) have.add(text);
      return;
    }
    case 'deleteEntries':
      sets.delete(operation.set, operation.entries);
      for (const text of operation.entries) applied.sets.get(operation.set)!.delete(text);
      return;
    case 'addServer':
      retirement.forgetServer(operation.key);
      applied.servers.set(operation.key, {
        server: operation.server,
        reals: putServer(ipvs, retirement, operation.server),
      });
      return;
    case 'editServer':
      ipvs.editServer(operation.server);
      applied.servers.set(operation.key, {
        server: operation.server,
        reals: applied.servers.get(operation.key)?.reals ?? new Map<string, number>(),
      });
      return;
    case 'deleteServer':
      ipvs.deleteServer(operation.server);
      retirement.forgetServer(operation.key);
      applied.servers.delete(operation.key);
      return;
    case 'addReal': {
      const reals = applied.servers.get(operation.key)?.reals;
      // Its virtual server was refused.
      if (reals === undefined) return;
      putReal(ipvs, operation.server, operation.real);
      retirement.forget(operation.key, operation.real);
      reals.set(operation.real, 1);
      return;
    }
    case 'restoreReal':
      ipvs.editRealServer(operation.server, realServer(operation.real));
      retirement.forget(operation.key, operation.real);
      applied.servers.get(operation.key)?.reals.set(operation.real, 1);
      return;
    case 'retireReal': {
      const gone = retirement.retire(ipvs, operation.server, operation.real);
      const reals = applied.servers.get(operation.key)?.reals;
      if (gone) reals?.delete(operation.real);
      else reals?.set(operation.real, 0);
      return;
    }
    case 'addAddress':
      device.add(operation.address);
      applied.addresses.add(operation.address);
      return;
    case 'removeAddress':
      applied.addresses.delete(operation.address);
      device.remove(operation.address);
  }
}

/** Makes the virtual server, or takes over one that somebody else has made. @returns weights of those that stay behind it for now */
function putServer(ipvs: Ipvs, retirement: Retirement, server: VirtualServer): Map<string, number> {
  const reals = new Map<string, number>();
  try {
    ipvs.addServer(server);
  } catch (error) {
    if (!isRefusal(error, EEXIST)) throw error;
    ipvs.editServer(server);
    for (const real of ipvs.listRealServers(server))
      if (!retirement.retire(ipvs, server, realKey(real))) reals.set(realKey(real), 0);
  }
  return reals;
}

function putReal(ipvs: Ipvs, server: ServerIdentity, real: string): void {
  try {
    ipvs.addRealServer(server, realServer(real));
  } catch (error) {
    if (!isRefusal(error, EEXIST)) throw error;
    ipvs.editRealServer(server, realServer(real));
  }
}
