/** The parts of the kernel that the mode works with, and what they hold when it comes. */
import type { Family } from '../../api/objects.ts';
import { openFingerprint, type Fingerprint } from '../../linux/iptables/fingerprint.ts';
import type { Iptables } from '../../linux/iptables/iptables.ts';
import type { Ipvs } from '../../linux/netlink/ipvs/ipvs.ts';
import { serverFamily, serverKey } from '../../linux/netlink/ipvs/objects.ts';
import type { Logger } from '../../log/logger.ts';
import { Device } from './device.ts';
import { setIds } from './names.ts';
import { weightsOf, type Applied, type AppliedServer } from './plan.ts';
import { foreignReference } from './readRules.ts';
import { printRules } from './rules.ts';
import { SetInTheWay, Sets } from './sets.ts';
import { Turns } from '../turns.ts';

export interface Kernel {
  readonly ipvs: Ipvs;
  readonly sets: Sets;
  readonly device: Device;
  readonly iptables: Iptables;
  readonly fingerprint: Fingerprint;
}

/** `deviceKind`: of kube-ipvs0, but in tests a dummy. */
export function openKernel(iptables: Iptables, ipvs: Ipvs, deviceKind: string | undefined): Kernel {
  const { family } = iptables;
  return {
    ipvs,
    sets: new Sets(family),
    device: new Device(family, deviceKind),
    iptables,
    fingerprint: openFingerprint(iptables.features.backend, family),
  };
}

export function closeKernel({ ipvs, sets, device, fingerprint }: Kernel): void {
  ipvs.close();
  sets.close();
  device.close();
  fingerprint.close();
}

/** Makes the sets that are missing. @throws Error if a rule of others keeps one of another type in the way */
export async function ensureSets({ sets, iptables }: Kernel, log: Logger): Promise<void> {
  for (const id of setIds) {
    try {
      sets.ensure(id);
    } catch (error) {
      if (!(error instanceof SetInTheWay)) throw error;
      // Others' rules are not ours to remove, and without the set ours cannot be: those in force stay.
      const rule = await foreignReference(iptables, error.set);
      if (rule !== undefined)
        throw new Error(
          `set ${error.set} is of another type or has other options than IPVS mode needs, and a rule that is not the proxy's refers to it: remove that rule ("${rule}"), then the set is replaced`,
          { cause: error },
        );
      log.warn('Emptying our iptables chains to replace a set that is in the way', { reason: error.message });
      await iptables.restore(printRules({ nat: [], filter: [], mangle: [] }));
      sets.ensure(id);
    }
  }
}

/** What the kernel holds; virtual servers of the family only. `addresses`: those of kube-ipvs0. */
export async function readApplied(
  { sets, ipvs }: Pick<Kernel, 'sets' | 'ipvs'>,
  family: Family,
  addresses: Set<string>,
): Promise<Applied> {
  const entries = new Map(setIds.map((id) => [id, sets.read(id) ?? new Set<string>()] as const));
  const servers = new Map<string, AppliedServer>();
  const turns = new Turns();
  for (const server of ipvs.listServers()) {
    if (serverFamily(server) !== family) continue;
    servers.set(serverKey(server), { server, reals: weightsOf(ipvs.listRealServers(server)) });
    await turns.pause();
  }
  return { servers, sets: entries, addresses };
}
