/** Random tables and their changes, for laws. Small worlds: a few names and addresses, so that changes collide. */
import fc from 'fast-check';
import type { Route } from '../../../src/services/types.ts';
import { makeRoute, type Spec } from './routes.ts';

const shape = fc.record({
  protocol: fc.constantFrom('TCP' as const, 'UDP' as const, 'SCTP' as const),
  affinitySeconds: fc.constantFrom(0, 0, 60, 10800),
  internalPolicyLocal: fc.boolean(),
  externalPolicyLocal: fc.boolean(),
  node: fc.boolean(),
  externals: fc.integer({ min: 0, max: 2 }),
  balancers: fc.integer({ min: 0, max: 2 }),
  ranges: fc.constantFrom([], ['198.51.100.0/24'], ['192.0.2.0/24', '198.51.100.0/25']),
  health: fc.boolean(),
  /** Which of six endpoints it has; the first two are on this node. */
  endpoints: fc.subarray([0, 1, 2, 3, 4, 5]),
});

/** Service `n` of a world; its frontends never collide with those of another. */
export function routeArbitrary(n: number): fc.Arbitrary<Route> {
  return shape.map((s) => {
    const spec: Spec = {
      name: `ns${n % 2}/svc-${n}`,
      portName: n % 3 === 0 ? '' : 'http',
      protocol: s.protocol,
      clusterIP: `10.96.0.${n + 1}`,
      port: 80,
      affinitySeconds: s.affinitySeconds,
      internalPolicyLocal: s.internalPolicyLocal,
      externalPolicyLocal: s.externalPolicyLocal,
      externalIPs: Array.from({ length: s.externals }, (_, i) => `198.51.100.${n * 2 + i + 1}`),
      loadBalancerIPs: Array.from({ length: s.balancers }, (_, i) => `203.0.113.${n * 2 + i + 1}`),
      sourceRanges: s.ranges,
      healthCheckNodePort: s.health ? 31000 + n : 0,
      endpoints: s.endpoints.map((e) => `10.244.${e < 2 ? 1 : 2}.${e + 10}:8080${e < 2 ? 'L' : ''}`),
      ...(s.node ? { nodePort: 30000 + n } : {}),
    };
    return makeRoute(spec);
  });
}

/** A table: each of `count` services is there or not. */
export function tableArbitrary(count: number): fc.Arbitrary<Route[]> {
  const services = Array.from({ length: count }, (_, n) =>
    fc.option(routeArbitrary(n), { nil: undefined, freq: 4 }),
  );
  return fc.tuple(...services).map((list) => list.filter((route) => route !== undefined));
}

/** A change: some services appear, change or go; undefined entries stay as they are. */
export type Step = readonly ({ readonly n: number; readonly route: Route | undefined } | undefined)[];

export function stepArbitrary(count: number): fc.Arbitrary<Step> {
  return fc.array(
    fc
      .integer({ min: 0, max: count - 1 })
      .chain((n) => fc.option(routeArbitrary(n), { nil: undefined, freq: 3 }).map((route) => ({ n, route }))),
    { minLength: 1, maxLength: 4 },
  );
}

export function applyStep(routes: readonly Route[], step: Step): Route[] {
  const byAddress = new Map(routes.map((route) => [route.port.clusterIP, route]));
  for (const change of step) {
    if (change === undefined) continue;
    const address = `10.96.0.${change.n + 1}`;
    if (change.route === undefined) byAddress.delete(address);
    else byAddress.set(address, change.route);
  }
  return [...byAddress.values()];
}
