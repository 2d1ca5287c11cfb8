/** What the daemon has to know of userspace mode. */
import { parsePortRange } from '../../config/portRange.ts';
import { PortAllocator } from '../../dataplane/userspace/portAllocator.ts';
import { SocketBudget, socketLimit } from '../../dataplane/userspace/socketBudget.ts';
import { UserspaceDataplane } from '../../dataplane/userspace/userspaceDataplane.ts';
import { Iptables } from '../../linux/iptables/iptables.ts';
import type { ModeSupport } from '../dataplanes.ts';
import { kernelHasIPv6 } from './iptables.ts';

/** The longest interval a timer takes, 24 days: milliseconds. */
const never = 2 ** 31 - 1;

/** Both families live in one process, and share its descriptors. */
let sockets: SocketBudget | undefined;

export const userspaceMode: ModeSupport = {
  async usable(family) {
    if (family === 'IPv6' && !kernelHasIPv6()) return false;
    return (await Iptables.open(family)).usable();
  },

  prepare: () => Promise.resolve(),

  create({ config, options, events, report, log }) {
    const { extras, bindAddress, portRange } = config;
    sockets ??= new SocketBudget(socketLimit(), log);
    const range = parsePortRange(portRange);
    const dataplane = new UserspaceDataplane(
      {
        ...options,
        bindAddress,
        udpIdleTimeout: extras.udpTimeout,
        checkInterval: extras.repairDrift ? Math.min(extras.driftCheckPeriod, never) : never,
      },
      {
        log,
        events,
        report,
        sockets,
        // Validation refuses what is invalid.
        ports: new PortAllocator(range === 'invalid' ? undefined : range),
      },
    );
    return Promise.resolve(dataplane);
  },
};
