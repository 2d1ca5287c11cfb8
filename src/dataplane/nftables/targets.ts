/**
 * *Translate*, first half: what each frontend of a route needs in the table. A service port has one target for each
 * address and port it answers at.
 */
import type { CIDR } from '../../services/ip.ts';
import { cidrContains, mergeCIDRs, parseCIDR } from '../../services/ip.ts';
import type { Frontend, Route, Verdict } from '../../services/types.ts';
import { frontendKey } from './keys.ts';
import type { SetName } from './layout.ts';
import { classOf } from './sizeClasses.ts';

export interface Target {
  readonly nodePort: boolean;
  /** Empty for node ports. */
  readonly ip: string;
  readonly port: number;
  /** The key of its elements. */
  readonly key: Uint8Array;
  /** Where packets to it go; empty = nowhere before the filter hooks. */
  readonly chain: string;
  /** What becomes of packets that no chain has translated: `''` = nothing, `drop`, or `refuse` (the chain that rejects). */
  readonly unserved: '' | 'drop' | 'refuse';
  /** Its chain chooses among the cluster endpoints, the local endpoints (or each for other clients). */
  readonly cluster: boolean;
  readonly local: boolean;
  /** Source ranges apply to it. */
  readonly guarded: boolean;
}

/** The targets of a route whose lists have so many endpoints; a frontend that is named twice counts once. */
export function targetsOf(route: Route, clusterCount: number, localCount: number): Target[] {
  const { port, frontends } = route;
  const targets: Target[] = [];
  const sticky = port.affinitySeconds > 0 ? 'sticky-' : '';
  for (const frontend of frontends) {
    const same = targets.findIndex((one) => isSame(one, frontend));
    const guarded = frontend.kind === 'loadBalancerIP' && port.sourceRanges.length > 0;
    if (same >= 0) {
      // An external IP that is a load balancer IP too is guarded as that.
      if (guarded) targets[same] = { ...targets[same]!, guarded };
      continue;
    }
    const nodePort = frontend.kind === 'nodePort';
    const scope = nodePort ? 'node-port-' : '';
    const clusterPick = `${sticky}pick-${classOf(clusterCount)}`;
    const localPick = `local-${sticky}pick-${classOf(localCount)}`;
    let chain = '';
    let cluster = false;
    let local = false;
    let unserved: Target['unserved'] = '';
    if (frontend.kind === 'clusterIP') {
      cluster = route.internal === 'cluster' && clusterCount > 0;
      local = route.internal === 'local' && localCount > 0;
      if (cluster) chain = clusterPick;
      else if (local) chain = localPick;
      else unserved = unservedBy(route.internal);
    } else if (!route.hasAny) unserved = 'refuse';
    else if (port.externalPolicyLocal) {
      cluster = clusterCount > 0;
      local = route.external === 'local' && localCount > 0;
      const sizes = `${classOf(clusterCount)}-${local ? classOf(localCount) : 0}`;
      if (cluster || local) chain = `${scope}external-local-${sticky}pick-${sizes}`;
      if (!local) unserved = unservedBy(route.external);
    } else {
      cluster = clusterCount > 0;
      if (cluster) chain = `${scope}external-${clusterPick}`;
      else unserved = unservedBy(route.external);
    }
    const { ip, port: number } = frontend;
    const key = frontendKey(nodePort ? '' : ip, frontend.protocol, number);
    targets.push({ nodePort, ip, port: number, key, chain, unserved, cluster, local, guarded });
  }
  return targets;
}

function isSame(target: Target, frontend: Frontend): boolean {
  const nodePort = frontend.kind === 'nodePort';
  return target.nodePort === nodePort && target.port === frontend.port && target.ip === frontend.ip;
}

function unservedBy(verdict: Verdict): 'drop' | 'refuse' {
  return verdict === 'drop' ? 'drop' : 'refuse';
}

/** The maps that a target's elements are in. */
export interface TargetSets {
  readonly dispatch: SetName;
  readonly unserved: SetName;
  readonly cluster: SetName;
  readonly local: SetName;
  readonly clusterIds: SetName;
  readonly localIds: SetName;
}

const frontendSets: TargetSets = {
  dispatch: 'frontends',
  unserved: 'unserved',
  cluster: 'endpoints',
  local: 'local-endpoints',
  clusterIds: 'sticky-ids',
  localIds: 'local-sticky-ids',
};
const nodePortSets: TargetSets = {
  dispatch: 'node-ports',
  unserved: 'unserved-node-ports',
  cluster: 'node-port-endpoints',
  local: 'node-port-local-endpoints',
  clusterIds: 'node-port-sticky-ids',
  localIds: 'node-port-local-sticky-ids',
};

export function setsOf(target: Target): TargetSets {
  return target.nodePort ? nodePortSets : frontendSets;
}

/**
 * The networks whose clients may use a route's guarded targets, without overlap. Where this node is among them, the
 * load balancer IPs are too: a node that dials an address of its own uses that as source.
 */
export function allowedSources(route: Route, nodeIP: string): CIDR[] {
  const { sourceRanges, loadBalancerIPs } = route.port;
  const bits = nodeIP.includes(':') ? 128 : 32;
  const withNode = sourceRanges.some((text) => {
    const cidr = parseCIDR(text);
    return cidr !== undefined && cidrContains(cidr, nodeIP);
  });
  const texts = withNode ? [...sourceRanges, ...loadBalancerIPs.map((ip) => `${ip}/${bits}`)] : sourceRanges;
  return mergeCIDRs(texts).flatMap((text) => parseCIDR(text) ?? []);
}
