/**
 * The lab's addresses and, for each namespace, the lines for `ip -batch` that give it its interfaces and routes. Pure.
 *
 * ```
 *            router   api    client              (172.31.0.1, .2, .100-.119)
 *               └──────┴───────┴──── link ────┬───────────┐
 *                                          node-1       node-2      (172.31.0.11, .12)
 *                                         veth10 …      veth10 …
 *                                        pods 10.244.1.x  pods 10.244.2.x
 * ```
 */
import { canonicalIp, isV6 } from './address.ts';

export type PodAttachment = 'route' | 'bridge';
export type PodNetwork = 'routes' | 'vxlan';

export interface NodeLayout {
  readonly name: string;
  /** 1 for node-1 and so on. */
  readonly number: number;
  /** First IPv4 and first IPv6 address. */
  readonly addresses: readonly [string, string];
  readonly secondAddresses: readonly [string, string];
  /** The node's address towards its Pods, per family. */
  readonly gateways: readonly [string, string];
  readonly podBlocks: readonly [string, string];
}

export function nodeLayout(number: number): NodeLayout {
  return {
    name: `node-${number}`,
    number,
    addresses: [`172.31.0.${10 + number}`, `fd00:31::${10 + number}`],
    secondAddresses: [`172.31.1.${10 + number}`, `fd00:31:1::${10 + number}`],
    gateways: [`10.244.${number}.1`, `fd00:10:244:${number}::1`],
    podBlocks: [`10.244.${number}.0/24`, `fd00:10:244:${number}::/64`],
  };
}

/** Where a node's interface addresses end up: on the link and towards its Pods. */
export function nodeOwnAddresses(node: NodeLayout): string[] {
  return [...node.addresses, ...node.secondAddresses, ...node.gateways].map(canonicalIp);
}

export const apiAddresses = ['172.31.0.2', 'fd00:31::2'] as const;
const routerAddresses = ['172.31.0.1', 'fd00:31::1'] as const;

export const clientAddresses4: readonly string[] = Array.from(
  { length: 20 },
  (_, i) => `172.31.0.${100 + i}`,
);
export const clientAddresses6: readonly string[] = Array.from({ length: 4 }, (_, i) => `fd00:31::${100 + i}`);

/** `10.244.1.10` → `fd00:10:244:1::10` */
export function podAddress6(ip: string): string {
  const [, , third = '', last = ''] = ip.split('.');
  return `fd00:10:244:${third}::${last}`;
}

/** The node's end of a Pod's veth pair. */
export function podInterface(ip: string): string {
  return `veth${ip.split('.')[3]}`;
}

/** Before any interface exists: duplicate address detection would hold addresses back for a second or two. */
export const quickStartSysctls: Readonly<Record<string, string>> = {
  'net/ipv6/conf/all/accept_dad': '0',
  'net/ipv6/conf/default/accept_dad': '0',
  'net/ipv6/conf/all/accept_ra': '0',
  'net/ipv6/conf/default/accept_ra': '0',
};

export const nodeSysctls: Readonly<Record<string, string>> = {
  'net/ipv4/ip_forward': '1',
  'net/ipv6/conf/all/forwarding': '1',
  'net/ipv6/conf/default/forwarding': '1',
  'net/ipv4/conf/all/rp_filter': '0',
  'net/ipv4/conf/default/rp_filter': '0',
  'net/ipv4/conf/all/send_redirects': '0',
  'net/ipv4/conf/default/send_redirects': '0',
  'net/ipv4/icmp_ratelimit': '0',
  'net/ipv6/icmp/ratelimit': '0',
};

/** Present only on some kernels, or only in the first namespace. */
export const optionalNodeSysctls: Readonly<Record<string, string>> = {
  'net/ipv4/icmp_msgs_per_sec': '1000000',
  'net/ipv4/icmp_msgs_burst': '1000000',
  'net/bridge/bridge-nf-call-iptables': '1',
  'net/bridge/bridge-nf-call-ip6tables': '1',
};

export interface Block {
  readonly block: string;
  /** The Pod's address of the block's family. */
  readonly via: string;
}

/** The bridge that joins everything, and a cable from it to each member. */
export function linkLines(members: readonly string[], fullName: (name: string) => string): string[] {
  const lines = [
    'link set lo up',
    'link add br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0',
    'link set br0 up',
  ];
  for (const member of members) {
    lines.push(
      `link add to-${member} type veth peer name eth0 netns ${fullName(member)}`,
      `link set to-${member} master br0 up`,
    );
  }
  return lines;
}

/** The first address of each family becomes the preferred source: the kernel takes the oldest of IPv4, the newest of IPv6. */
function addressLines(addresses: readonly string[]): string[] {
  const ordered = [...addresses.filter((ip) => !isV6(ip)), ...addresses.filter(isV6).reverse()];
  return ordered.map((ip) => `addr add ${ip}/${isV6(ip) ? '64 nodad' : '24'} dev eth0`);
}

const start = ['link set lo up', 'link set eth0 up'];

export function routerLines(): string[] {
  return [
    ...start,
    ...addressLines(routerAddresses),
    'route add blackhole default',
    'route add blackhole ::/0',
  ];
}

/** With ways back to the Pods, which reach the API server through default/kubernetes under their own addresses. */
export function apiLines(nodes: readonly NodeLayout[]): string[] {
  return [
    ...start,
    ...addressLines(apiAddresses),
    'route add 172.31.1.0/24 dev eth0',
    'route add fd00:31:1::/64 dev eth0',
    ...nodes.flatMap(({ podBlocks, addresses }) =>
      podBlocks.map((block, i) => `route add ${block} via ${addresses[i]}`),
    ),
  ];
}

export function clientLines(): string[] {
  const [first, second] = [nodeLayout(1).addresses, nodeLayout(2).addresses];
  return [
    ...start,
    ...addressLines([...clientAddresses4, ...clientAddresses6]),
    `route add 172.31.1.0/24 dev eth0 src ${clientAddresses4[0]}`,
    `route add fd00:31:1::/64 dev eth0 src ${clientAddresses6[0]}`,
    `route add 10.96.0.0/16 via ${first[0]} src ${clientAddresses4[0]}`,
    `route add 192.0.2.0/24 via ${first[0]} src ${clientAddresses4[0]}`,
    `route add fd00:10:96::/112 via ${first[1]} src ${clientAddresses6[0]}`,
    `route add 2001:db8:1::/64 via ${first[1]} src ${clientAddresses6[0]}`,
    `route add 198.51.100.0/24 via ${second[0]} src ${clientAddresses4[0]}`,
    `route add 2001:db8:2::/64 via ${second[1]} src ${clientAddresses6[0]}`,
  ];
}

/** A locally administered hardware address for a node's VXLAN device. */
function vtepAddress(node: NodeLayout, v6: boolean): string {
  return `02:00:00:${v6 ? '06' : '04'}:00:${node.number.toString(16).padStart(2, '0')}`;
}

/** The VXLAN devices of a node and the way to the other nodes' Pods, as Flannel's vxlan backend sets them up. */
function vxlanLines(node: NodeLayout, others: readonly NodeLayout[]): string[] {
  const lines: string[] = [];
  for (const v6 of [false, true]) {
    const at = v6 ? 1 : 0;
    const device = v6 ? 'flannel-v6.1' : 'flannel.1';
    const own = (node.podBlocks[at] ?? '').split('/')[0];
    lines.push(
      `link add ${device} address ${vtepAddress(node, v6)} type vxlan id 1 local ${node.addresses[at]} dev eth0 dstport 8472 nolearning`,
      `link set ${device} up`,
      `addr add ${own}/${v6 ? '128 nodad' : '32'} dev ${device}`,
    );
    for (const other of others) {
      const far = (other.podBlocks[at] ?? '').split('/')[0];
      lines.push(
        `neigh replace ${far} lladdr ${vtepAddress(other, v6)} dev ${device} nud permanent`,
        `route add ${other.podBlocks[at]} via ${far} dev ${device} onlink`,
      );
    }
  }
  return lines;
}

/** For `bridge fdb`: behind which node each VXLAN hardware address is. */
export function vxlanForwarding(others: readonly NodeLayout[]): string[] {
  return others.flatMap((other) =>
    [false, true].map(
      (v6) =>
        `fdb append ${vtepAddress(other, v6)} dev ${v6 ? 'flannel-v6.1' : 'flannel.1'} dst ${other.addresses[v6 ? 1 : 0]}`,
    ),
  );
}

export function nodeLines(
  node: NodeLayout,
  others: readonly NodeLayout[],
  attachment: PodAttachment,
  network: PodNetwork,
): string[] {
  const lines = [
    ...start,
    ...addressLines([...node.addresses, ...node.secondAddresses]),
    `route add default via ${routerAddresses[0]}`,
    `route add default via ${routerAddresses[1]}`,
  ];
  if (network === 'vxlan') lines.push(...vxlanLines(node, others));
  else {
    for (const other of others) {
      lines.push(
        `route add ${other.podBlocks[0]} via ${other.addresses[0]}`,
        `route add ${other.podBlocks[1]} via ${other.addresses[1]}`,
      );
    }
  }
  if (attachment === 'bridge') {
    lines.push(
      'link add cni0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0',
      'link set cni0 up',
      `addr add ${node.gateways[0]}/24 dev cni0`,
      `addr add ${node.gateways[1]}/64 dev cni0 nodad`,
    );
  }
  return lines;
}

/** The node's part of a Pod's attachment. */
export function podNodeLines(
  node: NodeLayout,
  ip: string,
  podNamespace: string,
  attachment: PodAttachment,
  blocks: readonly Block[],
): string[] {
  const device = podInterface(ip);
  const lines = [`link add ${device} type veth peer name eth0 netns ${podNamespace}`];
  if (attachment === 'bridge') {
    lines.push(`link set ${device} master cni0 up`, `link set ${device} type bridge_slave hairpin on`);
  } else {
    lines.push(
      `link set ${device} up`,
      `addr add ${node.gateways[0]}/32 dev ${device}`,
      `addr add ${node.gateways[1]}/128 dev ${device} nodad`,
      `route add ${ip}/32 dev ${device}`,
      `route add ${podAddress6(ip)}/128 dev ${device}`,
    );
  }
  const to = attachment === 'bridge' ? 'cni0' : device;
  for (const { block, via } of blocks) lines.push(`route add ${block} via ${via} dev ${to} onlink`);
  return lines;
}

/** The Pod's part of it. */
export function podLines(
  node: NodeLayout,
  ip: string,
  attachment: PodAttachment,
  network: PodNetwork,
  blocks: readonly Block[],
): string[] {
  const bridged = attachment === 'bridge';
  const lines = [
    'link set lo up',
    // VXLAN wraps 50 bytes around each packet (70 over IPv6).
    network === 'vxlan' ? 'link set eth0 mtu 1430 up' : 'link set eth0 up',
    `addr add ${ip}/${bridged ? 24 : 32} dev eth0`,
    `addr add ${podAddress6(ip)}/${bridged ? 64 : 128} dev eth0 nodad`,
    `route add default via ${node.gateways[0]} dev eth0 onlink`,
    `route add default via ${node.gateways[1]} dev eth0 onlink`,
  ];
  for (const { block } of blocks) lines.push(`route add local ${block} dev lo`);
  return lines;
}
