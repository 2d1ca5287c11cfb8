/** The node that rules are made for: a Node object says who and where it is; flags say what it leaves open. */
import type { Family, Node } from '../api/objects.ts';
import type { ProxyConfig } from '../config/types.ts';
import type { DataplaneOptions } from '../dataplane/dataplane.ts';
import { UsageError } from '../config/flags.ts';
import { meant } from '../config/spelling.ts';
import { canonicalIP, familyOf, parseCIDR } from '../services/ip.ts';
import { localDetector } from '../services/localDetection.ts';
import { nodeAddresses, nodeIPs, type NodeAddresses } from '../services/nodeAddresses.ts';
import { nodePortCIDRs } from '../services/nodePortAddresses.ts';

/** The part of the configuration that decides about rules. */
export type RuleConfig = Pick<
  ProxyConfig,
  | 'mode'
  | 'masqueradeBit'
  | 'masqueradeAll'
  | 'localhostNodePorts'
  | 'detectLocalMode'
  | 'clusterCIDRs'
  | 'bridgeInterface'
  | 'interfaceNamePrefix'
  | 'nodePortAddresses'
  | 'bindAddress'
  | 'syncPeriod'
  | 'featureGates'
  | 'ipvs'
  | 'portRange'
> & {
  readonly conntrack: Pick<ProxyConfig['conntrack'], 'tcpBeLiberal'>;
  readonly extras: Pick<ProxyConfig['extras'], 'serviceCounters'>;
};

/** What flags say about the node. */
export interface NodeFlags {
  readonly name: string;
  readonly ips: readonly string[];
  readonly zone: string;
  readonly podCIDRs: readonly string[];
}

export interface RenderNode {
  readonly name: string;
  readonly zone: string;
  /** There is a Node object of this name. */
  readonly known: boolean;
  readonly podCIDRs: readonly string[];
  readonly addresses: NodeAddresses;
  /** All addresses known to be the node's, canonical, loopback too. */
  readonly localAddresses: readonly string[];
  /** Families in which an address of the node is known. */
  readonly families: readonly Family[];
}

/** The node named, or the only one there is. Throws a sentence if it cannot be told which, or where it is. */
export function chooseNode(nodes: readonly Node[], flags: NodeFlags, bindAddress = ''): RenderNode {
  if (flags.name === '' && nodes.length > 1) {
    const names = nodes.map((node) => node.meta.name);
    throw new Error(`there are ${nodes.length} Nodes: say which one with --node (${shorten(names)})`);
  }
  const node = flags.name === '' ? nodes[0] : nodes.find(({ meta }) => meta.name === flags.name);
  if (node === undefined && nodes.length > 0 && flags.ips.length === 0) {
    const names = nodes.map(({ meta }) => meta.name);
    const near = meant(flags.name, names);
    throw new Error(
      `--node: there is no Node ${flags.name} among the objects (${shorten(names)})${near === undefined ? '.' : `: did you mean ${near}?`} Where its object is missing, --node-ip says its addresses`,
    );
  }
  const ips = node === undefined ? flags.ips.map(readIP) : nodeIPs(node);
  const published =
    node === undefined ? ips : node.addresses.flatMap(({ address }) => canonicalIP(address) ?? []);
  const addresses = nodeAddresses(ips, bindAddress);
  const local = new Set([...published, ...ips, '127.0.0.1', '::1']);
  const families = (['IPv4', 'IPv6'] as const).filter((family) => ips.some((ip) => familyOf(ip) === family));
  return {
    name: node?.meta.name ?? flags.name,
    zone: node?.zone ?? flags.zone,
    known: node !== undefined,
    podCIDRs: node?.podCIDRs ?? flags.podCIDRs.map(readCIDR),
    addresses,
    localAddresses: [...local],
    families,
  };
}

function readIP(text: string): string {
  const ip = canonicalIP(text);
  if (ip === undefined) throw new UsageError(`--node-ip: "${text}" is no IP address`);
  return ip;
}

function readCIDR(text: string): string {
  if (parseCIDR(text) === undefined)
    throw new UsageError(`--pod-cidr: "${text}" is no network (as 10.244.1.0/24)`);
  return text;
}

function shorten(names: readonly string[]): string {
  return names.length <= 6
    ? names.join(', ')
    : `${names.slice(0, 5).join(', ')} and ${names.length - 5} more`;
}

/** What a mode is told on this node, as the daemon would tell it. */
export function dataplaneOptions(config: RuleConfig, node: RenderNode, family: Family): DataplaneOptions {
  return {
    family,
    masqueradeBit: config.masqueradeBit,
    masqueradeAll: config.masqueradeAll,
    localDetector: localDetector(family, { ...config, nodePodCIDRs: node.podCIDRs }),
    nodeIP: node.addresses[family],
    nodePortAddresses: nodePortCIDRs(family, config.nodePortAddresses, node.addresses),
    syncPeriod: config.syncPeriod,
  };
}
