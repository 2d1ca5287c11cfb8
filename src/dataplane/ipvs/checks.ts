/** What has to be there before the mode can work, and the kernel settings it needs. Errors say what to install or load. */
import type { Family } from '../../api/objects.ts';
import { run } from '../../linux/exec.ts';
import { ENOENT, ERANGE, isRefusal } from '../../linux/netlink/errors.ts';
import { NetlinkIpvs, type Ipvs } from '../../linux/netlink/ipvs/ipvs.ts';
import type { VirtualServer } from '../../linux/netlink/ipvs/objects.ts';
import { readSysctl, writeSysctl, type SysctlOptions } from '../../linux/sysctl.ts';
import type { Logger } from '../../log/logger.ts';

/** Where Debian has the modules. */
export const modulePackages =
  'on Debian it is part of package linux-image-amd64, and of linux-image-cloud-amd64';

/** Loads what the kernel does not load by itself. A failure shows later, if the thing is really missing. */
export async function loadModules(log: Logger): Promise<void> {
  for (const module of ['ip_vs', 'dummy', 'xt_set']) {
    const { code, stderr } = await run(['modprobe', '-va', module]);
    if (code !== 0)
      log.info(`Cannot load kernel module ${module}; it may be built in`, { reason: stderr.trim() }, 1);
  }
}

/** Throws a sentence if the kernel has no IPVS. */
export function openIpvs(): NetlinkIpvs {
  const ipvs = NetlinkIpvs.open();
  if (ipvs !== undefined) return ipvs;
  throw new Error(
    `the kernel has no IPVS: load module ip_vs ("modprobe ip_vs"; ${modulePackages}), or use nftables mode, which needs no such module`,
  );
}

/** What to do when iptables-restore refuses the mode's rules with these words. */
export function restoreHint(said: string): string {
  if (said.includes('open socket to ipset'))
    return 'iptables asks the kernel for sets over a raw socket: give the process CAP_NET_RAW, too';
  return `IPVS mode needs the iptables matches set, ipvs, addrtype, physdev, conntrack, mark and comment: load the module named above (xt_set, xt_ipvs, xt_physdev …; ${modulePackages})`;
}

/** An address for documentation (RFC 5737, RFC 3849) that no service has. */
const probeAddress: Readonly<Record<Family, string>> = { IPv4: '198.51.100.0', IPv6: '2001:db8::' };
const probePort = 20_000;

/** Throws a sentence if the kernel does not take the scheduler, or no virtual servers of the family. */
export function probeScheduler(ipvs: Ipvs, family: Family, scheduler: string): void {
  const servers = ipvs.listServers();
  if (servers.some((one) => one.scheduler === scheduler && one.address.includes(':') === (family === 'IPv6')))
    return;
  const probe: VirtualServer = {
    protocol: 'TCP',
    address: probeAddress[family],
    port: probePort,
    scheduler,
    flags: 0,
    timeout: 0,
    prefixLength: family === 'IPv6' ? 128 : 32,
  };
  // Left over from a start that was cut short.
  ipvs.deleteServer(probe);
  try {
    ipvs.addServer(probe);
  } catch (error) {
    // ERANGE: the name is longer than any scheduler's.
    if (isRefusal(error, ENOENT, ERANGE))
      throw new Error(
        `the kernel has no IPVS scheduler "${scheduler}": load module ip_vs_${scheduler} ("modprobe ip_vs_${scheduler}"; ${modulePackages}), or set ipvs.scheduler to one it has, such as rr`,
        { cause: error },
      );
    throw new Error(
      `the kernel takes no virtual servers of ${family} with scheduler "${scheduler}": give the process CAP_NET_ADMIN and check the kernel's IPVS (CONFIG_IP_VS${family === 'IPv6' ? ', CONFIG_IP_VS_IPV6' : ''})`,
      { cause: error },
    );
  }
  ipvs.deleteServer(probe);
}

export interface IpvsTimeouts {
  /** Milliseconds; 0 keeps the kernel's, and so does everything below a second. */
  readonly tcpTimeout: number;
  readonly tcpFinTimeout: number;
  readonly udpTimeout: number;
}

/** Sets the time-outs that are configured; a failure is logged only, as the kernel's own do as well. */
export function applyTimeouts(ipvs: Ipvs, timeouts: IpvsTimeouts, log: Logger): void {
  const { tcpTimeout, tcpFinTimeout, udpTimeout } = timeouts;
  if (tcpTimeout <= 0 && tcpFinTimeout <= 0 && udpTimeout <= 0) return;
  const seconds = (milliseconds: number): number => Math.floor(Math.max(0, milliseconds) / 1000);
  try {
    ipvs.setTimeouts({ tcp: seconds(tcpTimeout), tcpFin: seconds(tcpFinTimeout), udp: seconds(udpTimeout) });
  } catch (err) {
    log.error('Cannot set the time-outs of IPVS; the kernel keeps its own', { err });
  }
}

/** Sets what IPVS needs. Throws if one cannot be written. */
export function applySysctls(
  family: Family,
  strictARP: boolean,
  kernelRelease: string,
  options: SysctlOptions,
): void {
  const set = (name: string, value: number): void => void writeSysctl(name, value, options);
  // Lets iptables masquerade what IPVS sends.
  set('net/ipv4/vs/conntrack', 1);
  const [major = 0, minor = 0] = kernelRelease.split('.').map(Number);
  const version = major * 1000 + minor;
  // Later kernels reuse connections right; earlier ones would lose a second per reused port.
  if (version >= 4001 && version < 5009) set('net/ipv4/vs/conn_reuse_mode', 0);
  else if (version < 4001)
    options.log.error('This kernel delays connections from reused ports under IPVS; use 4.1 or later', {
      kernel: kernelRelease,
    });
  // Connections to a real server that is gone end at their next packet, and affinity to one without weight is given up.
  set('net/ipv4/vs/expire_nodest_conn', 1);
  set('net/ipv4/vs/expire_quiescent_template', 1);
  if (family === 'IPv4') {
    set('net/ipv4/ip_forward', 1);
  } else {
    warnIfIPv6DoesNotForward(options);
  }
  if (strictARP) {
    set('net/ipv4/conf/all/arp_ignore', 1);
    set('net/ipv4/conf/all/arp_announce', 2);
  }
}

/** Not switched on here: a node that learns its default route from router advertisements would lose it. */
function warnIfIPv6DoesNotForward(options: SysctlOptions): void {
  try {
    if (readSysctl('net/ipv6/conf/all/forwarding', options.root) !== 0) return;
  } catch {
    // No IPv6 here: then there is nothing to warn of.
    return;
  }
  options.log.warn('IPv6 forwarding is off: Pods are not reached over IPv6 until it is on', {
    sysctl: 'net/ipv6/conf/all/forwarding',
  });
}
