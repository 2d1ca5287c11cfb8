/** Builds the route of one service port from what is known about it. */
import type { Claims } from './claims.ts';
import { frontendKey } from './claims.ts';
import { sameEndpoints } from './endpoints.ts';
import type { Place } from './selection.ts';
import { selectEndpoints } from './selection.ts';
import { equalServicePorts, frontendsOf, hasExternalFrontend } from './servicePorts.ts';
import type { Endpoint, Frontend, Problem, Route, ServicePort } from './types.ts';

const NO_FRONTENDS: readonly Frontend[] = [];

/**
 * The route of `port` with `endpoints` (all that are known, sorted by key). Where it equals `before`, the route of the
 * table, the result is `before` itself; lists that are equal are taken over from it.
 */
export function buildRoute(
  port: ServicePort,
  endpoints: readonly Endpoint[],
  place: Place,
  claims: Claims,
  before: Route | undefined,
): Route {
  const hasExternal = hasExternalFrontend(port);
  const { internalPolicyLocal, externalPolicyLocal } = port;
  const selection = selectEndpoints(
    endpoints,
    { internalPolicyLocal, externalPolicyLocal, hasExternal },
    place,
  );
  const { frontends, lostFrontends } = splitFrontends(port, claims);
  const route: Route = {
    port: before !== undefined && equalServicePorts(before.port, port) ? before.port : port,
    frontends: keepFrontends(before?.frontends, frontends),
    lostFrontends: keepFrontends(before?.lostFrontends, lostFrontends),
    internal: selection.internal,
    external: selection.external,
    cluster: keepEndpoints(before?.cluster, selection.cluster),
    local: keepEndpoints(before?.local, selection.local),
    reachable: keepEndpoints(before?.reachable, selection.reachable),
    endpoints: keepEndpoints(before?.endpoints, endpoints),
    hasAny: selection.hasAny,
    hasExternal,
  };
  return before !== undefined && isKept(route, before) ? before : route;
}

/** One problem for each frontend that an older Service has. */
export function lostFrontendProblems(route: Route, claims: Claims): Problem[] {
  return route.lostFrontends.map((frontend) => {
    const key = frontendKey(frontend);
    const holder = claims.holder(key);
    return {
      object: `Service ${route.port.namespace}/${route.port.service}`,
      field: FIELD_OF_KIND[frontend.kind],
      reason: 'duplicate_frontend',
      message: `${key} is claimed by service port ${holder?.id ?? 'of another Service'} too, which is older and keeps it: skipped for ${route.port.id}`,
    };
  });
}

const FIELD_OF_KIND = {
  clusterIP: 'spec.clusterIPs',
  externalIP: 'spec.externalIPs',
  loadBalancerIP: 'status.loadBalancer.ingress',
  nodePort: 'spec.ports[].nodePort',
} as const satisfies Record<Frontend['kind'], string>;

function splitFrontends(
  port: ServicePort,
  claims: Claims,
): { readonly frontends: readonly Frontend[]; readonly lostFrontends: readonly Frontend[] } {
  const frontends: Frontend[] = [];
  let lostFrontends: Frontend[] | undefined;
  for (const frontend of frontendsOf(port)) {
    if (claims.holder(frontendKey(frontend)) === port) frontends.push(frontend);
    else (lostFrontends ??= []).push(frontend);
  }
  return { frontends, lostFrontends: lostFrontends ?? NO_FRONTENDS };
}

function keepFrontends(
  before: readonly Frontend[] | undefined,
  now: readonly Frontend[],
): readonly Frontend[] {
  if (before === undefined || before.length !== now.length) return now;
  for (let i = 0; i < now.length; i++) {
    const a = before[i]!;
    const b = now[i]!;
    if (a.kind !== b.kind || a.ip !== b.ip || a.port !== b.port || a.protocol !== b.protocol) return now;
  }
  return before;
}

function keepEndpoints(
  before: readonly Endpoint[] | undefined,
  now: readonly Endpoint[],
): readonly Endpoint[] {
  return before !== undefined && sameEndpoints(before, now) ? before : now;
}

/** Everything equal was taken over from `before`, so identity tells. */
function isKept(route: Route, before: Route): boolean {
  return (
    route.port === before.port &&
    route.frontends === before.frontends &&
    route.lostFrontends === before.lostFrontends &&
    route.internal === before.internal &&
    route.external === before.external &&
    route.cluster === before.cluster &&
    route.local === before.local &&
    route.reachable === before.reachable &&
    route.endpoints === before.endpoints &&
    route.hasAny === before.hasAny &&
    route.hasExternal === before.hasExternal
  );
}
