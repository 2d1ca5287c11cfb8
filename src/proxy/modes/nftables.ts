/** What the daemon has to know of nftables mode. */
import { NftablesDataplane } from '../../dataplane/nftables/nftablesDataplane.ts';
import { canUseNftables, probe } from '../../dataplane/nftables/probe.ts';
import { LocalhostNodePorts } from '../../dataplane/userspace/localhostNodePorts.ts';
import { openTcpConnections } from '../../dataplane/userspace/tcpConnection.ts';
import { NftSocket } from '../../linux/netlink/nftables/socket.ts';
import { matchesAll, matchingAddresses } from '../../services/nodePortAddresses.ts';
import type { ModeSupport } from '../dataplanes.ts';
import { drainBeforeEnd } from '../drain.ts';
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
    const { family } = options;
    const host = family === 'IPv4' ? '127.0.0.1' : '::1';
    if (!nftablesLocalhostNodePorts) return Promise.resolve(dataplane);
    if (!answersOn(host, config.nodePortAddresses, options.nodePortAddresses)) {
      log.warn(
        `Node ports do not answer on localhost although --nftables-localhost-nodeports is set: nodePortAddresses has addresses of the family, and ${host} is not among them; add ${host}/${family === 'IPv4' ? 32 : 128}`,
      );
      return Promise.resolve(dataplane);
    }
    const sockets = processSockets(log);
    const nodePorts = new LocalhostNodePorts({ family, sockets, report, udpIdleTimeout, log });
    drainBeforeEnd(nodePorts, openTcpConnections, log);
    return Promise.resolve(withLocalhostNodePorts(dataplane, nodePorts, serviceCounters === 'endpoints'));
  },
};

/**
 * Node ports answer there: `setting`, as configured, does not restrict the family to other addresses. Unset and
 * `primary` say nothing about localhost, for which there is a switch of its own.
 */
function answersOn(host: string, setting: readonly string[], cidrs: readonly string[]): boolean {
  if (setting.length === 0 || (setting.length === 1 && setting[0] === 'primary')) return true;
  return matchesAll(cidrs) || matchingAddresses(cidrs, [host]).length > 0;
}
