/** What translation needs to know beyond routes: one value, fixed between full syncs. */
import type { Family } from '../../api/objects.ts';
import { cidrContains, parseCIDR } from '../../services/ip.ts';
import { containsIPv4Loopback } from '../../services/nodePortAddresses.ts';
import type { DataplaneOptions } from '../dataplane.ts';
import { podMatches } from '../podMatch.ts';

export interface Settings {
  readonly family: Family;
  /** The masquerade mark with 8 hex digits: `0x00004000`. */
  readonly mark: string;
  readonly masqueradeAll: boolean;
  /** Matches that say "from a Pod" and "not from a Pod"; undefined where that cannot be told. */
  readonly fromPod: { readonly is: string; readonly isNot: string } | undefined;
  readonly nodeIP: string;
  readonly nodePortAddresses: readonly string[];
  /** Node ports answer on 127.0.0.1 (IPv4 only). */
  readonly localhostNodePorts: boolean;
  /** The kernel forgives TCP packets outside the window, so INVALID packets need no drop. */
  readonly tcpBeLiberal: boolean;
  readonly randomFully: boolean;
  /** The nfacct counters exist; a rule naming one that does not would fail the whole restore. */
  readonly countInvalid: boolean;
  readonly countLocalhost: boolean;
}

/** Names of the nfacct counters; they appear as kubeproxy_iptables_… metrics. */
export const invalidPacketsCounter = 'ct_state_invalid_dropped_pkts';
export const localhostNodePortsCounter = 'localhost_nps_accepted_pkts';

export function settingsOf(
  options: DataplaneOptions & { readonly localhostNodePorts: boolean },
  probed: {
    readonly tcpBeLiberal: boolean;
    readonly randomFully: boolean;
    readonly countInvalid: boolean;
    readonly countLocalhost: boolean;
  },
): Settings {
  return {
    family: options.family,
    mark: `0x${(2 ** options.masqueradeBit).toString(16).padStart(8, '0')}`,
    masqueradeAll: options.masqueradeAll,
    fromPod: options.localDetector === undefined ? undefined : podMatches(options.localDetector),
    nodeIP: options.nodeIP,
    nodePortAddresses: options.nodePortAddresses,
    localhostNodePorts:
      options.localhostNodePorts &&
      options.family === 'IPv4' &&
      containsIPv4Loopback(options.nodePortAddresses),
    ...probed,
  };
}

/** Some network contains the address. */
export function containsAddress(cidrs: readonly string[], ip: string): boolean {
  return cidrs.some((text) => {
    const cidr = parseCIDR(text);
    return cidr !== undefined && cidrContains(cidr, ip);
  });
}
