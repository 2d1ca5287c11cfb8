/** Services and endpoints made at random, for the tests that hold the modes and the kernel against each other. */
import fc from 'fast-check';
import type { EndpointSlice, Service } from '../../src/api/objects.ts';
import { backend, meta, port, service, slice, slicePort } from '../services/build.ts';

const podsHere = ['10.244.1.10', '10.244.1.11'];
const podsElsewhere = ['10.244.2.10', '10.244.2.11', '10.244.2.12'];

const endpointArbitrary = fc.record({
  address: fc.constantFrom(...podsHere, ...podsElsewhere),
  state: fc.constantFrom('ready', 'ready', 'ready', 'unready', 'draining'),
});

/** A Service and its endpoints. */
export const serviceArbitrary = fc.record({
  protocol: fc.constantFrom('TCP' as const, 'UDP' as const),
  nodePort: fc.boolean(),
  external: fc.boolean(),
  balancer: fc.boolean(),
  ranges: fc.constantFrom([], [], ['172.31.0.0/24'], ['198.18.0.0/15'], ['10.244.0.0/16']),
  affinity: fc.boolean(),
  internalLocal: fc.boolean(),
  externalLocal: fc.boolean(),
  endpoints: fc.uniqueArray(endpointArbitrary, { maxLength: 5, selector: ({ address }) => address }),
});
export type Spec = typeof serviceArbitrary extends fc.Arbitrary<infer T> ? T : never;

/** The objects of the Service with number `n` (from 0). */
export function objectsOf(spec: Spec, n: number): [Service, EndpointSlice] {
  const isExternal = spec.nodePort || spec.external || spec.balancer;
  return [
    service(`svc-${n}`, {
      meta: meta(`svc-${n}`),
      clusterIP: `10.96.0.${n + 10}`,
      clusterIPs: [`10.96.0.${n + 10}`],
      type: spec.balancer ? 'LoadBalancer' : spec.nodePort ? 'NodePort' : 'ClusterIP',
      ports: [port({ protocol: spec.protocol, nodePort: spec.nodePort ? 30000 + n : 0 })],
      externalIPs: spec.external ? [`192.0.2.${n + 1}`] : [],
      loadBalancerIngress: spec.balancer ? [{ ip: `203.0.113.${n + 1}`, ipMode: undefined }] : [],
      loadBalancerSourceRanges: spec.ranges,
      sessionAffinity: spec.affinity ? 'ClientIP' : 'None',
      internalTrafficPolicy: spec.internalLocal ? 'Local' : 'Cluster',
      externalTrafficPolicy: isExternal ? (spec.externalLocal ? 'Local' : 'Cluster') : '',
    }),
    slice(
      `svc-${n}-1`,
      `svc-${n}`,
      spec.endpoints.map(({ address, state }) =>
        backend(address, {
          ready: state === 'ready',
          serving: state !== 'unready',
          terminating: state === 'draining',
          nodeName: podsHere.includes(address) ? 'node-1' : 'node-2',
        }),
      ),
      { ports: [slicePort({ protocol: spec.protocol })] },
    ),
  ];
}
