/** What the daemon has to know of IPVS mode. */
import { release } from 'node:os';
import {
  applySysctls,
  applyTimeouts,
  loadModules,
  openIpvs,
  probeScheduler,
} from '../../dataplane/ipvs/checks.ts';
import { IpvsDataplane } from '../../dataplane/ipvs/ipvsDataplane.ts';
import { schedulerOf } from '../../dataplane/ipvs/settings.ts';
import { Iptables } from '../../linux/iptables/iptables.ts';
import type { ModeSupport } from '../dataplanes.ts';
import { kernelHasIPv6 } from './iptables.ts';

/** The longest interval a timer takes, 24 days: milliseconds. */
const never = 2 ** 31 - 1;

export const ipvsMode: ModeSupport = {
  async usable(family) {
    if (family === 'IPv6' && !kernelHasIPv6()) return false;
    return (await Iptables.open(family)).usable();
  },

  async complaint(family) {
    return (await Iptables.open(family)).complaint();
  },

  async prepare({ config, options, log }) {
    await loadModules(log);
    const ipvs = openIpvs();
    try {
      probeScheduler(ipvs, options.family, schedulerOf(config.ipvs));
      applySysctls(options.family, config.ipvs.strictARP, release(), { log });
      applyTimeouts(ipvs, config.ipvs, log);
    } finally {
      ipvs.close();
    }
  },

  create({ config, options, events, report, log }) {
    const { ipvs, extras } = config;
    const dataplane = new IpvsDataplane(
      { ...options, scheduler: ipvs.scheduler, excludeCIDRs: ipvs.excludeCIDRs },
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
};
