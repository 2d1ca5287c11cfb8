/** What the daemon has to know of userspace mode. */
import { setFlagsFromString } from 'node:v8';
import { parsePortRange } from '../../config/portRange.ts';
import { PortAllocator } from '../../dataplane/userspace/portAllocator.ts';
import { UserspaceDataplane } from '../../dataplane/userspace/userspaceDataplane.ts';
import { Iptables } from '../../linux/iptables/iptables.ts';
import type { ModeSupport } from '../dataplanes.ts';
import { processSockets } from '../socketBudget.ts';
import { kernelHasIPv6 } from './iptables.ts';

/** The longest interval a timer takes, 24 days: milliseconds. */
const never = 2 ** 31 - 1;

export const userspaceMode: ModeSupport = {
  async usable(family) {
    if (family === 'IPv6' && !kernelHasIPv6()) return false;
    return (await Iptables.open(family)).usable();
  },

  prepare: () => Promise.resolve(),

  create({ config, options, events, report, log }) {
    const { extras, bindAddress, portRange } = config;
    // Collections of young objects that wait for helper threads hold all connections up where CPUs are busy.
    setFlagsFromString('--no-parallel-scavenge');
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
        sockets: processSockets(log),
        // Validation refuses what is invalid.
        ports: new PortAllocator(range === 'invalid' ? undefined : range),
      },
    );
    return Promise.resolve(dataplane);
  },
};
