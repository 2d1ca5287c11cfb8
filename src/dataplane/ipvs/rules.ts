/** The iptables rules of the mode: a constant number, which match on sets. A rule whose set is empty is left out. */
import type { Rule } from '../../linux/iptables/rule.ts';
import {
  chainsOf,
  dropChain,
  forwardChain,
  ipvsFilterChain,
  ipvsOutFilterChain,
  loadBalancerChain,
  markMasqChain,
  nodePortChain,
  postroutingChain,
  proxyFirewallChain,
  servicesChain,
  setName,
  sourceRangesChain,
  type RuleTable,
  type SetId,
} from './names.ts';
import type { Settings } from './settings.ts';

/** A jump from a built-in chain: inserted at the top where it is missing, so that later ones come before earlier ones. */
export interface Jump {
  readonly table: RuleTable;
  readonly from: string;
  /** Arguments of the rule. */
  readonly args: string;
  /** iptables mode has the very same jump. */
  readonly shared: boolean;
}

function jump(table: RuleTable, from: string, to: string, words: string, shared = false): Jump {
  return { table, from, args: `-m comment --comment "${words}" -j ${to}`, shared };
}

export const jumps: readonly Jump[] = [
  jump('nat', 'OUTPUT', servicesChain, 'kubernetes service portals', true),
  jump('nat', 'PREROUTING', servicesChain, 'kubernetes service portals', true),
  jump('nat', 'POSTROUTING', postroutingChain, 'kubernetes postrouting rules', true),
  jump('filter', 'FORWARD', forwardChain, 'kubernetes forwarding rules', true),
  jump('filter', 'INPUT', nodePortChain, 'kubernetes health check rules'),
  jump('filter', 'INPUT', proxyFirewallChain, 'kube-proxy firewall rules'),
  jump('filter', 'FORWARD', proxyFirewallChain, 'kube-proxy firewall rules'),
  jump('filter', 'INPUT', ipvsFilterChain, 'kubernetes ipvs access filter'),
  jump('filter', 'OUTPUT', ipvsOutFilterChain, 'kubernetes ipvs access filter'),
  jump('mangle', 'OUTPUT', dropChain, 'kubernetes services without a local endpoint'),
];

/** Rules by table, in order within each chain. */
export type RuleSet = Readonly<Record<RuleTable, readonly Rule[]>>;

export function rulesOf(
  settings: Settings,
  filled: (id: SetId) => boolean,
  outFilter: readonly string[],
): RuleSet {
  const { mark, family } = settings;
  const nat: Rule[] = [];
  const filter: Rule[] = [];
  const mangle: Rule[] = [];
  const set = (id: SetId, direction: string): string =>
    `-m set --match-set ${setName(id, family)} ${direction}`;
  const both = (id: SetId): string => set(id, 'dst,dst');
  const masquerade = `-j ${markMasqChain}`;
  const fromNode = '-m addrtype --src-type LOCAL';

  const services = (args: string): void => void nat.push({ chain: servicesChain, args });
  services(`-s ${family === 'IPv6' ? '::1/128' : '127.0.0.0/8'} -j RETURN`);
  if (filled('KUBE-LOAD-BALANCER')) services(`${both('KUBE-LOAD-BALANCER')} -j ${loadBalancerChain}`);
  if (filled('KUBE-CLUSTER-IP')) {
    if (settings.masqueradeAll) services(`${both('KUBE-CLUSTER-IP')} ${masquerade}`);
    else if (settings.fromPod !== undefined)
      services(`${both('KUBE-CLUSTER-IP')} ${settings.fromPod.isNot} ${masquerade}`);
    // A host process whose source address became that of a service: nobody else could answer it.
    else services(`${set('KUBE-CLUSTER-IP', 'src,dst')} ${masquerade}`);
  }
  for (const id of ['KUBE-EXTERNAL-IP', 'KUBE-EXTERNAL-IP-LOCAL'] as const) {
    if (!filled(id)) continue;
    const local = id === 'KUBE-EXTERNAL-IP-LOCAL';
    services(`${both(id)}${local ? ` ${fromNode}` : ''} ${masquerade}`);
    services(`${both(id)} -m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL -j ACCEPT`);
    services(`${both(id)} -m addrtype --dst-type LOCAL -j ACCEPT`);
  }
  services(`-m addrtype --dst-type LOCAL -j ${nodePortChain}`);
  for (const id of ['KUBE-CLUSTER-IP', 'KUBE-LOAD-BALANCER'] as const)
    if (filled(id)) services(`${both(id)} -j ACCEPT`);

  if (filled('KUBE-LOAD-BALANCER-LOCAL')) {
    // What the node itself sends has to come back to it, wherever the endpoint is.
    nat.push({
      chain: loadBalancerChain,
      args: `${both('KUBE-LOAD-BALANCER-LOCAL')} ${fromNode} ${masquerade}`,
    });
    nat.push({ chain: loadBalancerChain, args: `${both('KUBE-LOAD-BALANCER-LOCAL')} -j RETURN` });
  }
  nat.push({ chain: loadBalancerChain, args: masquerade });

  for (const [protocol, id, localId, direction] of [
    ['tcp', 'KUBE-NODE-PORT-TCP', 'KUBE-NODE-PORT-LOCAL-TCP', 'dst'],
    ['udp', 'KUBE-NODE-PORT-UDP', 'KUBE-NODE-PORT-LOCAL-UDP', 'dst'],
    ['sctp', 'KUBE-NODE-PORT-SCTP-HASH', 'KUBE-NODE-PORT-LOCAL-SCTP-HASH', 'dst,dst'],
  ] as const) {
    if (filled(localId)) {
      const match = `-p ${protocol} ${set(localId, direction)}`;
      nat.push({ chain: nodePortChain, args: `${match} ${fromNode} ${masquerade}` });
      nat.push({ chain: nodePortChain, args: `${match} -j RETURN` });
    }
    if (filled(id))
      nat.push({ chain: nodePortChain, args: `-p ${protocol} ${set(id, direction)} ${masquerade}` });
  }

  const postrouting = (args: string): void => void nat.push({ chain: postroutingChain, args });
  if (filled('KUBE-LOOP-BACK')) postrouting(`${set('KUBE-LOOP-BACK', 'dst,dst,src')} -j MASQUERADE`);
  postrouting(`-m mark ! --mark ${mark}/${mark} -j RETURN`);
  // Cleared, so that a packet which passes here twice (a tunnel) is not masqueraded twice.
  postrouting(`-j MARK --xor-mark ${mark}`);
  postrouting(`-j MASQUERADE${settings.randomFully ? ' --random-fully' : ''}`);
  nat.push({ chain: markMasqChain, args: `-j MARK --or-mark ${mark}` });

  if (filled('KUBE-LOAD-BALANCER-FW'))
    filter.push({
      chain: proxyFirewallChain,
      args: `${both('KUBE-LOAD-BALANCER-FW')} -j ${sourceRangesChain}`,
    });
  for (const id of ['KUBE-LOAD-BALANCER-SOURCE-CIDR', 'KUBE-LOAD-BALANCER-SOURCE-IP'] as const)
    if (filled(id)) filter.push({ chain: sourceRangesChain, args: `${set(id, 'dst,dst,src')} -j RETURN` });
  filter.push({ chain: sourceRangesChain, args: '-j DROP' });
  for (const args of outFilter) filter.push({ chain: ipvsOutFilterChain, args });
  filter.push({ chain: forwardChain, args: `-m mark --mark ${mark}/${mark} -j ACCEPT` });
  filter.push({ chain: forwardChain, args: '-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT' });
  filter.push({ chain: nodePortChain, args: `${set('KUBE-HEALTH-CHECK-NODE-PORT', 'dst')} -j ACCEPT` });

  const guard = (args: string): void => void filter.push({ chain: ipvsFilterChain, args });
  const isNew = '-m conntrack --ctstate NEW';
  if (filled('KUBE-DROP-INTERNAL')) {
    guard(`${isNew} ${both('KUBE-DROP-INTERNAL')} -j DROP`);
    mangle.push({ chain: dropChain, args: `${isNew} ${both('KUBE-DROP-INTERNAL')} -j DROP` });
  }
  if (filled('KUBE-DROP-EXTERNAL')) {
    const outsider = settings.fromPod === undefined ? '' : ` ${settings.fromPod.isNot}`;
    guard(`${isNew}${outsider} ${both('KUBE-DROP-EXTERNAL')} -j DROP`);
  }
  for (const id of [
    'KUBE-LOAD-BALANCER',
    'KUBE-CLUSTER-IP',
    'KUBE-EXTERNAL-IP',
    'KUBE-EXTERNAL-IP-LOCAL',
  ] as const)
    guard(`${both(id)} -j RETURN`);
  guard(`${set('KUBE-HEALTH-CHECK-NODE-PORT', 'dst')} -j RETURN`);
  guard(`${isNew} ${set('KUBE-IPVS-IPS', 'dst')} -j REJECT`);
  return { nat, filter, mangle };
}

/** The whole document for iptables-restore: our chains emptied and filled, missing jumps inserted. */
export function printRules(
  rules: RuleSet,
  missing: readonly Jump[] = [],
  tables: readonly RuleTable[] = ['mangle', 'nat', 'filter'],
): string {
  return tables
    .map((table) =>
      [
        `*${table}`,
        ...chainsOf[table].map((chain) => `:${chain} - [0:0]`),
        ...rules[table].map((rule) => `-A ${rule.chain} ${rule.args}`),
        ...missing.filter((one) => one.table === table).map((one) => `-I ${one.from} ${one.args}`),
        'COMMIT',
        '',
      ].join('\n'),
    )
    .join('');
}
