/** Names of IPVS mode in the kernel: the device, the chains, the sets. Operators and other tools know them. */
import type { Family } from '../../api/objects.ts';
import { setNameMax, type SetDefinition, type SetType } from '../../linux/netlink/ipset/objects.ts';

/** Holds the addresses of services, so that the kernel takes packets to them for its own. Never set up. */
export const deviceName = 'kube-ipvs0';

export const servicesChain = 'KUBE-SERVICES';
export const postroutingChain = 'KUBE-POSTROUTING';
export const nodePortChain = 'KUBE-NODE-PORT';
export const loadBalancerChain = 'KUBE-LOAD-BALANCER';
export const markMasqChain = 'KUBE-MARK-MASQ';
export const forwardChain = 'KUBE-FORWARD';
export const proxyFirewallChain = 'KUBE-PROXY-FIREWALL';
export const sourceRangesChain = 'KUBE-SOURCE-RANGES-FIREWALL';
export const ipvsFilterChain = 'KUBE-IPVS-FILTER';
export const ipvsOutFilterChain = 'KUBE-IPVS-OUT-FILTER';
/** Ours alone: what a host process sends to a cluster IP has to be dropped before IPVS sees it, which table filter is not. */
export const dropChain = 'KUBE-IPVS-DROP';

export type RuleTable = 'nat' | 'filter' | 'mangle';

/** In the order of the restore input. */
export const chainsOf = {
  nat: [servicesChain, postroutingChain, nodePortChain, loadBalancerChain, markMasqChain],
  filter: [
    forwardChain,
    nodePortChain,
    proxyFirewallChain,
    sourceRangesChain,
    ipvsFilterChain,
    ipvsOutFilterChain,
  ],
  mangle: [dropChain],
} as const satisfies Record<RuleTable, readonly string[]>;

/** Chains that iptables mode has too, and fills in its own way. */
export const sharedChains: Readonly<Record<RuleTable, readonly string[]>> = {
  nat: [servicesChain, postroutingChain, markMasqChain],
  filter: [forwardChain, proxyFirewallChain],
  mangle: [],
};

/** Chains of table nat through which iptables mode and userspace mode lead packets to services. */
export const otherModesChains = ['KUBE-NODEPORTS', 'KUBE-PORTALS-CONTAINER'] as const;

/** In the order of filling: who may pass comes before what is guarded. They are emptied the other way round. */
const setTypes = {
  'KUBE-LOOP-BACK': 'hash:ip,port,ip',
  'KUBE-CLUSTER-IP': 'hash:ip,port',
  'KUBE-EXTERNAL-IP': 'hash:ip,port',
  'KUBE-EXTERNAL-IP-LOCAL': 'hash:ip,port',
  'KUBE-LOAD-BALANCER': 'hash:ip,port',
  'KUBE-LOAD-BALANCER-LOCAL': 'hash:ip,port',
  'KUBE-LOAD-BALANCER-SOURCE-IP': 'hash:ip,port,ip',
  'KUBE-LOAD-BALANCER-SOURCE-CIDR': 'hash:ip,port,net',
  'KUBE-LOAD-BALANCER-FW': 'hash:ip,port',
  'KUBE-NODE-PORT-TCP': 'bitmap:port',
  'KUBE-NODE-PORT-UDP': 'bitmap:port',
  'KUBE-NODE-PORT-LOCAL-TCP': 'bitmap:port',
  'KUBE-NODE-PORT-LOCAL-UDP': 'bitmap:port',
  'KUBE-NODE-PORT-SCTP-HASH': 'hash:ip,port',
  'KUBE-NODE-PORT-LOCAL-SCTP-HASH': 'hash:ip,port',
  'KUBE-HEALTH-CHECK-NODE-PORT': 'bitmap:port',
  'KUBE-IPVS-IPS': 'hash:ip',
  // The last three are ours: the node's addresses that have virtual servers for node ports, so that those are known
  // when the address is gone; and frontends that a Local policy leaves without an endpoint, for everybody and for
  // outsiders.
  'KUBE-NODE-PORT-IPS': 'hash:ip',
  'KUBE-DROP-INTERNAL': 'hash:ip,port',
  'KUBE-DROP-EXTERNAL': 'hash:ip,port',
} as const satisfies Record<string, SetType>;

/** A set by its IPv4 name. */
export type SetId = keyof typeof setTypes;

export const setIds = Object.keys(setTypes) as readonly SetId[];

export function setTypeOf(id: SetId): SetType {
  return setTypes[id];
}

/** `KUBE-…`, or `KUBE-6-…` cut to what the kernel takes. */
export function setName(id: SetId, family: Family): string {
  return family === 'IPv4' ? id : id.replace('KUBE-', 'KUBE-6-').slice(0, setNameMax);
}

/** Entries a set has room for when it is made; it grows beyond. */
export const maxElements = 65_536;

export function setDefinition(id: SetId, family: Family, room = maxElements): SetDefinition {
  const name = setName(id, family);
  const type = setTypes[id];
  return type === 'bitmap:port'
    ? { name, type, firstPort: 0, lastPort: 65_535 }
    : { name, type, family, hashSize: 1024, maxElements: room };
}
