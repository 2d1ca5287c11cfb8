/** What the daemon has to know of nftables mode. */
import { NftablesDataplane } from '../../dataplane/nftables/nftablesDataplane.ts';
import { canUseNftables, probe } from '../../dataplane/nftables/probe.ts';
import { LocalhostNodePorts } from '../../dataplane/userspace/localhostNodePorts.ts';
import { NftSocket } from '../../linux/netlink/nftables/socket.ts';
import type { ModeSupport } from '../dataplanes.ts';
import { withLocalhostNodePorts } from '../localhostNodePorts.ts';
import { processSockets } from '../socketBudget.ts';
import { kernelHasIPv6 } from './iptables.ts';

export const nftablesMode: ModeSupport = {
  usable(family) {
    return Promise.resolve((family === 'IPv4' || kernelHasIPv6()) && canUseNftables(family));
  },

  prepare({ options }) {
    const nft = new NftSocket();
    try {
      probe(nft, options);
    } finally {
      nft.close();
    }
    return Promise.resolve();
  },

  create({ config, options, events, report, log }) {
    const { serviceCounters, nftablesLocalhostNodePorts, udpTimeout: udpIdleTimeout } = config.extras;
    const dataplane = new NftablesDataplane(
      { ...options, serviceCounters },
      { events, report, log, repairDrift: config.extras.repairDrift },
    );
    if (!nftablesLocalhostNodePorts) return Promise.resolve(dataplane);
    const { family } = options;
    const sockets = processSockets(log);
    const nodePorts = new LocalhostNodePorts({ family, sockets, report, udpIdleTimeout, log });
    return Promise.resolve(withLocalhostNodePorts(dataplane, nodePorts));
  },
};
