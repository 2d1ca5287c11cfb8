/** Settings that parse and validate, but do not fit together or do not fit this node. Pure: returns sentences. */
import type { Family } from '../api/objects.ts';
import type { ProxyConfig } from '../config/types.ts';
import type { Mode } from '../dataplane/dataplane.ts';
import { familyOf, canonicalIP, isUnspecified, parseCIDR } from '../services/ip.ts';
import { parseBindAddress } from './httpListener.ts';

export interface CheckedNode {
  readonly primaryFamily: Family;
  readonly podCIDRs: readonly string[];
}

type CheckedConfig = Pick<
  ProxyConfig,
  'clusterCIDRs' | 'nodePortAddresses' | 'detectLocalMode' | 'healthzBindAddress' | 'metricsBindAddress'
> & {
  readonly mode: Mode;
  readonly ipvs: Pick<ProxyConfig['ipvs'], 'excludeCIDRs'>;
  readonly winkernel: Pick<ProxyConfig['winkernel'], 'sourceVip'>;
};

function families(cidrs: readonly string[]): Set<Family> {
  const found = new Set<Family>();
  for (const text of cidrs) {
    const family = parseCIDR(text)?.family;
    if (family !== undefined) found.add(family);
  }
  return found;
}

/** There are entries, and all are of the other family. */
function onlyOther(cidrs: readonly string[], primary: Family): boolean {
  const found = families(cidrs);
  return found.size === 1 && !found.has(primary);
}

/** Doubts about how node ports are exposed: for the log, never fatal. `nodePortAddresses` has `primary` expanded. */
export function checkNodePortAddresses(config: CheckedConfig, node: CheckedNode): string[] {
  const { nodePortAddresses } = config;
  const primary = node.primaryFamily;
  if (nodePortAddresses.length === 0)
    return [
      'nodePortAddresses is not set: node ports answer on all local addresses; consider nodePortAddresses: ["primary"]',
    ];
  const lists = [
    config.clusterCIDRs,
    nodePortAddresses,
    config.mode === 'ipvs' ? config.ipvs.excludeCIDRs : [],
    node.podCIDRs,
  ];
  const dualStack = lists.some((list) => families(list).size === 2);
  const found = families(nodePortAddresses);
  if (dualStack && found.size === 1 && found.has(primary))
    return [
      `the cluster looks dual-stack, but nodePortAddresses has ${primary} addresses only: node ports of the other family answer on all local addresses`,
    ];
  if (found.size === 1 && !found.has(primary))
    return [
      `nodePortAddresses has no ${primary} address, which is this node's primary family: its node ports answer on all local addresses`,
    ];
  return [];
}

export interface FamilyFindings {
  /** Some of them stop the start. */
  readonly fatal: readonly string[];
  readonly logged: readonly string[];
}

/** Settings that are all of the family this node does not use first. */
export function checkFamilies(config: CheckedConfig, node: CheckedNode, dualStack: boolean): FamilyFindings {
  const fatal: string[] = [];
  const logged: string[] = [];
  const primary = node.primaryFamily;
  const find = (wrong: boolean, isFatal: boolean, text: string): void => {
    if (wrong) (isFatal ? fatal : logged).push(text);
  };
  const { clusterCIDRs, detectLocalMode } = config;
  find(
    onlyOther(clusterCIDRs, primary),
    detectLocalMode === 'ClusterCIDR' && !dualStack,
    `clusterCIDR ${clusterCIDRs.join(',')} has no ${primary} CIDR, which is this node's primary family`,
  );
  find(
    onlyOther(node.podCIDRs, primary),
    detectLocalMode === 'NodeCIDR',
    `the node's podCIDRs ${node.podCIDRs.join(',')} have no ${primary} CIDR, which is its primary family`,
  );
  const { sourceVip } = config.winkernel;
  find(
    sourceVip !== '' && otherFamilyAddress(sourceVip, primary),
    false,
    `winkernel.sourceVip ${sourceVip} is not an ${primary} address`,
  );
  if (dualStack) return { fatal, logged };
  find(
    onlyOther(config.ipvs.excludeCIDRs, primary),
    false,
    `ipvs.excludeCIDRs ${config.ipvs.excludeCIDRs.join(',')} has no ${primary} CIDR`,
  );
  for (const field of ['healthzBindAddress', 'metricsBindAddress'] as const) {
    const address = config[field];
    if (address === '') continue;
    const { ip } = parseBindAddress(address);
    find(otherFamilyAddress(ip, primary), false, `${field} ${address} is not an ${primary} address`);
  }
  return { fatal, logged };
}

/** A specific address of the other family. */
function otherFamilyAddress(text: string, primary: Family): boolean {
  const ip = canonicalIP(text);
  return ip !== undefined && !isUnspecified(ip) && familyOf(ip) !== primary;
}
