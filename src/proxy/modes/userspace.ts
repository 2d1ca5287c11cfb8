/** What the daemon has to know of userspace mode. */
import { parsePortRange } from '../../config/portRange.ts';
import type { Dataplane } from '../../dataplane/dataplane.ts';
import { DirectDataplane } from '../../dataplane/userspace/directDataplane.ts';
import { PortAllocator } from '../../dataplane/userspace/portAllocator.ts';
import { openTcpConnections } from '../../dataplane/userspace/tcpConnection.ts';
import { UserspaceDataplane } from '../../dataplane/userspace/userspaceDataplane.ts';
import { Iptables } from '../../linux/iptables/iptables.ts';
import { runAside } from '../../linux/runAside.ts';
import type { ModeSupport } from '../dataplanes.ts';
import { drainBeforeEnd } from '../drain.ts';
import { collectAlone, shrinkHeap } from '../heap.ts';
import { processSockets } from '../socketBudget.ts';
import { kernelHasIPv6 } from './iptables.ts';

/** The longest interval a timer takes, 24 days: milliseconds. */
const never = 2 ** 31 - 1;

export const userspaceMode: ModeSupport = {
  /** Without NAT it listens on the service addresses themselves. */
  usable: (family) => Promise.resolve(family === 'IPv4' || kernelHasIPv6()),

  prepare: () => Promise.resolve(),

  carriesConnections: true,

  async create({ config, options, events, report, log }) {
    const { extras, bindAddress, localhostNodePorts, portRange } = config;
    collectAlone();
    const settings = {
      ...options,
      bindAddress,
      localhostNodePorts,
      udpIdleTimeout: extras.udpTimeout,
      checkInterval: Math.min(extras.driftCheckPeriod, never),
      repairDrift: extras.repairDrift,
    };
    const sockets = processSockets(log);
    if (!(await (await Iptables.open(options.family, { run: runAside })).usable())) {
      const direct = new DirectDataplane(settings, { log, events, report, sockets });
      drainBeforeEnd(direct, openTcpConnections, log);
      return shrunkBefore(direct);
    }
    const range = parsePortRange(portRange);
    // Validation refuses what is invalid.
    const ports = new PortAllocator(range === 'invalid' ? undefined : range);
    const dataplane = new UserspaceDataplane(settings, { log, events, report, sockets, ports });
    drainBeforeEnd(dataplane, openTcpConnections, log);
    return shrunkBefore(dataplane);
  },
};

let shrunk = false;

/** What the start has left behind is collected before the first client is served: later, all connections would wait for it. */
function shrunkBefore(dataplane: Dataplane): Dataplane {
  const { mode, family, counters } = dataplane;
  return {
    mode,
    family,
    counters,
    start: () => dataplane.start(),
    sync: (request) => {
      if (!shrunk) shrinkHeap();
      shrunk = true;
      return dataplane.sync(request);
    },
    ...(dataplane.relays === undefined ? {} : { relays: dataplane.relays.bind(dataplane) }),
    stop: () => dataplane.stop(),
  };
}
