/** Addresses of Pods, from the endpoints of routes where there are no Pod objects. */
import type { RoutingTable } from '../services/types.ts';

/** The address of the Pod `namespace/name`; undefined if no endpoint is it. */
export function endpointsOfPod(table: RoutingTable | undefined, pod: string): string | undefined {
  for (const route of table?.routes.values() ?? []) {
    const found = route.endpoints.find((one) => one.pod === pod);
    if (found !== undefined) return found.ip;
  }
  return undefined;
}

/** Addresses of endpoints on this node. */
export function endpointsHere(table: RoutingTable): Set<string> {
  const here = new Set<string>();
  for (const route of table.routes.values()) {
    for (const { ip, isLocal } of route.endpoints) if (isLocal) here.add(ip);
  }
  return here;
}
