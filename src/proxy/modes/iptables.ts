/** What the daemon has to know of iptables mode. */
import { existsSync, readFileSync } from 'node:fs';
import { IptablesDataplane } from '../../dataplane/iptables/iptablesDataplane.ts';
import { invalidPacketsCounter, localhostNodePortsCounter } from '../../dataplane/iptables/settings.ts';
import { Iptables } from '../../linux/iptables/iptables.ts';
import { AccountingCounters } from '../../linux/netlink/nfacct.ts';
import { allowLocalnetRouting } from '../../linux/sysctl.ts';
import type { PacketCounters } from '../../metrics/metrics.ts';
import { containsIPv4Loopback } from '../../services/nodePortAddresses.ts';
import type { ModeSupport } from '../dataplanes.ts';

/** The longest interval a timer takes, 24 days: milliseconds. */
const never = 2 ** 31 - 1;

export const iptablesMode: ModeSupport = {
  async usable(family) {
    if (family === 'IPv6' && !kernelHasIPv6()) return false;
    return (await Iptables.open(family)).usable();
  },

  async complaint(family) {
    return (await Iptables.open(family)).complaint();
  },

  prepare({ config, options, log }) {
    const { family, nodePortAddresses } = options;
    if (family === 'IPv4' && config.localhostNodePorts && containsIPv4Loopback(nodePortAddresses))
      allowLocalnetRouting({ log });
    return Promise.resolve();
  },

  create({ config, options, events, report, log }) {
    const { localhostNodePorts, extras } = config;
    const dataplane = new IptablesDataplane(
      { ...options, localhostNodePorts, serviceCounters: extras.serviceCounters },
      {
        events,
        report,
        log,
        checkInterval: Math.min(extras.driftCheckPeriod, never),
        repairDrift: extras.repairDrift,
      },
    );
    return Promise.resolve(dataplane);
  },

  packetCounters,
};

/** IPv6 is compiled in and not switched off. */
export function kernelHasIPv6(): boolean {
  if (!existsSync('/proc/net/if_inet6')) return false;
  try {
    return readFileSync('/proc/sys/net/ipv6/conf/all/disable_ipv6', 'utf8').trim() !== '1';
  } catch {
    // The switch is not there: nobody has switched it off.
    return true;
  }
}

/** Reads nfacct counters; where the kernel has none, there is nothing to read. */
function packetCounters(): PacketCounters {
  let counters: AccountingCounters | undefined;
  let supported: boolean | undefined;
  const read = (name: string): number | undefined => {
    if (supported === undefined) {
      counters = new AccountingCounters();
      supported = counters.probe();
    }
    const packets = supported ? counters?.read(name)?.packets : undefined;
    return packets === undefined ? undefined : Number(packets);
  };
  return {
    ctStateInvalidDropped: () => read(invalidPacketsCounter),
    localhostNodePortsAccepted: () => read(localhostNodePortsCounter),
  };
}
