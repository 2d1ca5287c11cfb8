/** From objects and a node to what the node's proxy would want in the kernel: options and routing table of each family. */
import type { Family } from '../api/objects.ts';
import { featureEnabled } from '../config/features.ts';
import type { DataplaneOptions } from '../dataplane/dataplane.ts';
import { canonicalIP, familyOf, mergeCIDRs, parseCIDR } from '../services/ip.ts';
import { ProblemLedger } from '../services/problems.ts';
import { RouteTracker } from '../services/routeTracker.ts';
import type { HealthCheck, Problem, RoutingTable } from '../services/types.ts';
import type { ClusterObjects } from './cluster.ts';
import { dataplaneOptions, type RenderNode, type RuleConfig } from './node.ts';

export interface WantedFamily {
  readonly family: Family;
  readonly options: DataplaneOptions;
  readonly table: RoutingTable;
  /** Canonical, sorted, merged. */
  readonly serviceCIDRs: readonly string[];
  readonly healthChecks: ReadonlyMap<string, HealthCheck>;
}

export interface Wanted {
  readonly config: RuleConfig;
  readonly node: RenderNode;
  /** IPv4 first. */
  readonly families: readonly WantedFamily[];
  /** What the service model found wrong with objects, each once. */
  readonly problems: readonly Problem[];
}

export interface WantOptions {
  readonly config: RuleConfig;
  readonly node: RenderNode;
  /** Default: those that the node or any object has addresses of. */
  readonly families?: readonly Family[];
}

export function wantedOf(cluster: ClusterObjects, options: WantOptions): Wanted {
  const { config, node } = options;
  const problems: Problem[] = [];
  const ledger = new ProblemLedger((problem) => problems.push(problem));
  const families = (options.families ?? familiesOf(cluster, config, node)).map((family): WantedFamily => {
    const tracker = new RouteTracker({
      family,
      nodeName: node.name,
      zone: node.zone,
      allowExternalIPs: featureEnabled(config.featureGates, 'AllowServiceExternalIPs'),
      problems: ledger,
    });
    for (const service of cluster.services) tracker.upsertService(service);
    for (const slice of cluster.slices) tracker.upsertSlice(slice);
    tracker.take();
    return {
      family,
      options: dataplaneOptions(config, node, family),
      table: tracker.table,
      serviceCIDRs: serviceCIDRs(cluster, family),
      healthChecks: tracker.healthChecks(),
    };
  });
  return { config, node, families, problems };
}

/** IPv4 first. Where nothing tells, the family of the node's primary address. */
function familiesOf(cluster: ClusterObjects, config: RuleConfig, node: RenderNode): Family[] {
  const seen = new Set<Family>(node.families);
  if (!node.known && node.families.length === 0) {
    for (const text of config.clusterCIDRs) {
      const cidr = parseCIDR(text.trim());
      if (cidr !== undefined) seen.add(cidr.family);
    }
    for (const service of cluster.services) {
      for (const text of [service.clusterIP, ...service.clusterIPs]) {
        const ip = canonicalIP(text);
        if (ip !== undefined) seen.add(familyOf(ip));
      }
    }
  }
  if (seen.size === 0) seen.add(node.addresses.primary);
  return (['IPv4', 'IPv6'] as const).filter((family) => seen.has(family));
}

function serviceCIDRs(cluster: ClusterObjects, family: Family): readonly string[] {
  const texts: string[] = [];
  for (const object of cluster.serviceCIDRs) {
    for (const text of object.cidrs) {
      const cidr = parseCIDR(text);
      if (cidr?.family === family) texts.push(cidr.text);
    }
  }
  return mergeCIDRs(texts);
}
