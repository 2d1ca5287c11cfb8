/** Which endpoints of a service port this node uses, and what happens to packets: topology and traffic policies. */
import { compareKeys, NO_ENDPOINTS } from './endpoints.ts';
import type { Endpoint, Verdict } from './types.ts';

/** What a service port says about choosing endpoints. */
export interface Policy {
  readonly internalPolicyLocal: boolean;
  readonly externalPolicyLocal: boolean;
  /** It has a node port, an external IP or a load balancer IP. */
  readonly hasExternal: boolean;
}

/** Where this node is. */
export interface Place {
  readonly nodeName: string;
  /** Label `topology.kubernetes.io/zone`; empty if unknown. */
  readonly zone: string;
}

/** See `Route` for what the fields mean. */
export interface Selection {
  readonly cluster: readonly Endpoint[];
  readonly local: readonly Endpoint[];
  readonly reachable: readonly Endpoint[];
  readonly hasAny: boolean;
  readonly internal: Verdict;
  readonly external: Verdict;
}

/** How endpoints of Cluster policy are chosen among the ready ones. */
export type TopologyMode = 'all' | 'sameNode' | 'sameZone';

/** Chooses among `endpoints` (sorted by key). Lists of the result are shared where they are the same. */
export function selectEndpoints(endpoints: readonly Endpoint[], policy: Policy, place: Place): Selection {
  const { internalPolicyLocal, externalPolicyLocal, hasExternal } = policy;
  const usesCluster = !internalPolicyLocal || hasExternal;
  const usesLocal = internalPolicyLocal || (externalPolicyLocal && hasExternal);

  let ready = 0;
  let draining = 0;
  let localReady = 0;
  let localDraining = 0;
  for (let i = 0; i < endpoints.length; i++) {
    const endpoint = endpoints[i]!;
    if (endpoint.ready) {
      ready++;
      if (endpoint.isLocal) localReady++;
    } else if (endpoint.serving && endpoint.terminating) {
      draining++;
      if (endpoint.isLocal) localDraining++;
    }
  }
  const hasAny = ready + draining > 0;

  let cluster = NO_ENDPOINTS;
  let mode: TopologyMode = 'all';
  if (usesCluster && hasAny) {
    if (ready === 0) cluster = pick(endpoints, draining, isDraining);
    else {
      mode = topologyMode(endpoints, place);
      if (mode === 'all') cluster = pick(endpoints, ready, isReady);
      else if (mode === 'sameNode')
        cluster = endpoints.filter((e) => e.ready && e.nodeHints?.includes(place.nodeName) === true);
      else cluster = endpoints.filter((e) => e.ready && e.zoneHints?.includes(place.zone) === true);
    }
  }

  let local = NO_ENDPOINTS;
  if (usesLocal) {
    if (localReady > 0) local = pick(endpoints, localReady, isLocalReady);
    else if (localDraining > 0) local = pick(endpoints, localDraining, isLocalDraining);
  }

  let reachable: readonly Endpoint[];
  if (!usesLocal || local.length === 0) reachable = cluster;
  else if (!usesCluster) reachable = local;
  else reachable = union(cluster, local);

  const internal = verdict(hasAny, internalPolicyLocal, local);
  // Without an external frontend nothing follows `external`; then it must not name a list that is not used.
  const external = hasExternal ? verdict(hasAny, externalPolicyLocal, local) : internal;
  return { cluster, local, reachable, hasAny, internal, external };
}

/** Hints count only if every ready endpoint has them and one of them names this node or zone (KEP-2433, KEP-3015). */
export function topologyMode(endpoints: readonly Endpoint[], place: Place): TopologyMode {
  let allNode = true;
  let someNode = false;
  let allZone = true;
  let someZone = false;
  let ready = 0;
  for (let i = 0; i < endpoints.length && (allNode || allZone); i++) {
    const endpoint = endpoints[i]!;
    if (!endpoint.ready) continue;
    ready++;
    const { nodeHints, zoneHints } = endpoint;
    if (nodeHints === undefined || nodeHints.length === 0) allNode = false;
    else if (nodeHints.includes(place.nodeName)) someNode = true;
    if (zoneHints === undefined || zoneHints.length === 0) allZone = false;
    else if (zoneHints.includes(place.zone)) someZone = true;
  }
  if (ready === 0) return 'all';
  if (allNode && someNode) return 'sameNode';
  if (allZone && someZone) return 'sameZone';
  return 'all';
}

/** Ready counts as published, even if terminating too (publishNotReadyAddresses). */
export function isReady(endpoint: Endpoint): boolean {
  return endpoint.ready;
}

/** Terminating, but still able to serve: used where nobody is ready. */
export function isDraining(endpoint: Endpoint): boolean {
  return !endpoint.ready && endpoint.serving && endpoint.terminating;
}

function isLocalReady(endpoint: Endpoint): boolean {
  return endpoint.isLocal && endpoint.ready;
}

function isLocalDraining(endpoint: Endpoint): boolean {
  return endpoint.isLocal && isDraining(endpoint);
}

function verdict(hasAny: boolean, policyLocal: boolean, local: readonly Endpoint[]): Verdict {
  if (!hasAny) return 'reject';
  if (!policyLocal) return 'cluster';
  return local.length > 0 ? 'local' : 'drop';
}

/** The endpoints for which `wanted` holds, known to be `count`: the list itself if that is all of them. */
function pick(
  endpoints: readonly Endpoint[],
  count: number,
  wanted: (endpoint: Endpoint) => boolean,
): readonly Endpoint[] {
  return count === endpoints.length ? endpoints : endpoints.filter(wanted);
}

/** Both sorted by key, taken from the same list. */
function union(a: readonly Endpoint[], b: readonly Endpoint[]): readonly Endpoint[] {
  const all = new Set(a);
  let extra = 0;
  for (const endpoint of b) {
    if (all.has(endpoint)) continue;
    all.add(endpoint);
    extra++;
  }
  if (extra === 0) return a;
  if (all.size === b.length) return b;
  return [...all].sort(compareKeys);
}
