/** The rules that do not depend on any Service: jumps from the built-in chains, masquerading, forwarding, node port dispatch. */
import { familyOf, isLoopback } from '../../services/ip.ts';
import { matchesAll, matchingAddresses } from '../../services/nodePortAddresses.ts';
import {
  externalServicesChain,
  firewallChain,
  forwardChain,
  markMasqChain,
  nodePortsChain,
  postroutingChain,
  proxyFirewallChain,
  servicesChain,
} from './names.ts';
import { comment, type Rule } from '../../linux/iptables/rule.ts';
import { invalidPacketsCounter, type Settings } from './settings.ts';

/** A jump from a built-in chain; inserted at the top if it is missing, never moved if it is there. */
export interface Jump {
  readonly table: 'filter' | 'nat';
  readonly from: string;
  readonly to: string;
  /** Matches as words of a direct command, comments unquoted. */
  readonly match: readonly string[];
  /** Kubelet has the same jump: clean-up leaves it. */
  readonly shared: boolean;
}

const isNew = ['-m', 'conntrack', '--ctstate', 'NEW'];
const said = (text: string): string[] => ['-m', 'comment', '--comment', text];

/** In the order of insertion: later ones end up above earlier ones. */
export const jumps: readonly Jump[] = [
  jump('filter', 'INPUT', externalServicesChain, [
    ...isNew,
    ...said('kubernetes externally-visible service portals'),
  ]),
  jump('filter', 'FORWARD', externalServicesChain, [
    ...isNew,
    ...said('kubernetes externally-visible service portals'),
  ]),
  jump('filter', 'INPUT', nodePortsChain, said('kubernetes health check service ports')),
  jump('filter', 'FORWARD', servicesChain, [...isNew, ...said('kubernetes service portals')]),
  jump('filter', 'OUTPUT', servicesChain, [...isNew, ...said('kubernetes service portals')]),
  jump('filter', 'FORWARD', forwardChain, said('kubernetes forwarding rules')),
  jump('filter', 'INPUT', proxyFirewallChain, [...isNew, ...said('kubernetes load balancer firewall')]),
  jump('filter', 'OUTPUT', proxyFirewallChain, [...isNew, ...said('kubernetes load balancer firewall')]),
  jump('filter', 'FORWARD', proxyFirewallChain, [...isNew, ...said('kubernetes load balancer firewall')]),
  jump('nat', 'OUTPUT', servicesChain, said('kubernetes service portals')),
  jump('nat', 'PREROUTING', servicesChain, said('kubernetes service portals')),
  jump('nat', 'POSTROUTING', postroutingChain, said('kubernetes postrouting rules')),
  { ...jump('filter', 'INPUT', firewallChain, []), shared: true },
  { ...jump('filter', 'OUTPUT', firewallChain, []), shared: true },
];

function jump(table: 'filter' | 'nat', from: string, to: string, match: readonly string[]): Jump {
  return { table, from, to, match, shared: false };
}

/** The jump as restore text without the operation: `-m comment --comment "…" -j KUBE-SERVICES`. */
export function jumpArgs(jump: Jump): string {
  return [...jump.match.map((word) => (word.includes(' ') ? `"${word}"` : word)), '-j', jump.to].join(' ');
}

export function postroutingRules(settings: Settings): Rule[] {
  const { mark } = settings;
  return [
    { chain: postroutingChain, args: `-m mark ! --mark ${mark}/${mark} -j RETURN` },
    // Cleared, so that a packet which passes here twice (a tunnel) is not masqueraded twice.
    { chain: postroutingChain, args: `-j MARK --xor-mark ${mark}` },
    {
      chain: postroutingChain,
      args: `${comment('kubernetes service traffic requiring SNAT')} -j MASQUERADE${settings.randomFully ? ' --random-fully' : ''}`,
    },
    { chain: markMasqChain, args: `-j MARK --or-mark ${mark}` },
  ];
}

export function forwardRules(settings: Settings): Rule[] {
  const { mark } = settings;
  const count = settings.countInvalid ? ` -m nfacct --nfacct-name ${invalidPacketsCounter}` : '';
  const rules: Rule[] = [
    {
      chain: forwardChain,
      args: `${comment('kubernetes forwarding rules')} -m mark --mark ${mark}/${mark} -j ACCEPT`,
    },
    {
      chain: forwardChain,
      args: `${comment('kubernetes forwarding conntrack rule')} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
    },
  ];
  if (!settings.tcpBeLiberal) {
    rules.unshift({ chain: forwardChain, args: `-m conntrack --ctstate INVALID${count} -j DROP` });
  }
  return rules;
}

/** Of the rule that has it, kubelet's too. */
export const localnetComment = 'block incoming localnet connections';

/** With route_localnet on, packets from the wire must not reach 127/8. Empty = KUBE-FIREWALL is not ours to write. */
export function firewallRules(settings: Settings): Rule[] {
  if (!settings.localhostNodePorts) return [];
  return [
    {
      chain: firewallChain,
      args: `${comment(localnetComment)} -d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP`,
    },
  ];
}

/** What the jump to KUBE-NODEPORTS says of itself; it has to stay last, for it matches the node's own addresses. */
const last = comment('kubernetes service nodeports; NOTE: this must be the last rule in this chain');

/** The end of KUBE-SERVICES. `skipped` = loopback addresses that cannot answer node ports here. */
export function nodePortTail(
  settings: Settings,
  localAddresses: readonly string[],
): { readonly rules: Rule[]; readonly skipped: string[] } {
  const v4 = settings.family === 'IPv4';
  if (matchesAll(settings.nodePortAddresses)) {
    const except = !v4 ? ' ! -d ::1/128' : settings.localhostNodePorts ? '' : ' ! -d 127.0.0.0/8';
    return {
      rules: [
        { chain: servicesChain, args: `${last} -m addrtype --dst-type LOCAL${except} -j ${nodePortsChain}` },
      ],
      skipped: [],
    };
  }
  const rules: Rule[] = [];
  const skipped: string[] = [];
  for (const ip of [...matchingAddresses(settings.nodePortAddresses, localAddresses)].sort()) {
    if (familyOf(ip) !== settings.family) continue;
    const loopback = isLoopback(ip);
    if (loopback && !settings.localhostNodePorts) skipped.push(ip);
    else rules.push({ chain: servicesChain, args: `${last} -d ${ip} -j ${nodePortsChain}` });
  }
  return { rules, skipped };
}
