/** Random valid objects: as JSON values, and the same in protobuf by the independent encoder. */
import fc from 'fast-check';
import { bytes, fixed32, fixed64, int, map, message } from './protobufWriter.ts';

type Json = Record<string, unknown>;

const word = fc.oneof(
  { weight: 6, arbitrary: fc.stringMatching(/^[a-z][a-z0-9-]{0,20}$/) },
  { weight: 1, arbitrary: fc.constantFrom('zürich', '東京', 'quote"d', 'new\nline', 'x'.repeat(80)) },
);
const ip = fc.oneof(fc.ipV4(), fc.ipV6());
const port = fc.integer({ min: 1, max: 65535 });
const protocol = fc.constantFrom('TCP', 'UDP', 'SCTP');
const time = fc
  .integer({ min: 0, max: 4_000_000_000 })
  .map((seconds) => new Date(seconds * 1000).toISOString().replace('.000Z', 'Z'));

const optional = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.option(arbitrary, { nil: undefined });

const metadata = fc.record({
  name: word,
  namespace: optional(word),
  uid: optional(fc.uuid()),
  resourceVersion: fc.nat().map(String),
  creationTimestamp: optional(time),
  deletionTimestamp: optional(time),
  labels: optional(
    fc.record(
      { 'kubernetes.io/service-name': word, 'topology.kubernetes.io/zone': word, other: word },
      { requiredKeys: [] },
    ),
  ),
  annotations: optional(
    fc.record(
      {
        'endpoints.kubernetes.io/last-change-trigger-time': fc.constantFrom(
          '2026-03-01T12:00:00Z',
          '2026-03-01T12:00:00.123456789Z',
          'yesterday',
        ),
        note: word,
      },
      { requiredKeys: [] },
    ),
  ),
});

export const service = fc.record({
  metadata,
  spec: fc.record({
    type: optional(fc.constantFrom('ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName')),
    clusterIP: optional(ip),
    clusterIPs: optional(fc.array(ip, { maxLength: 2 })),
    ipFamilies: optional(fc.array(fc.constantFrom('IPv4', 'IPv6'), { maxLength: 2 })),
    ports: optional(
      fc.array(
        fc.record({
          name: optional(word),
          protocol: optional(protocol),
          port,
          nodePort: optional(port),
          targetPort: optional(port),
        }),
        { maxLength: 4 },
      ),
    ),
    externalIPs: optional(fc.array(ip, { maxLength: 3 })),
    loadBalancerSourceRanges: optional(fc.array(ip, { maxLength: 3 })),
    sessionAffinity: optional(fc.constantFrom('None', 'ClientIP')),
    affinitySeconds: optional(fc.integer({ min: 1, max: 86400 })),
    externalTrafficPolicy: optional(fc.constantFrom('Cluster', 'Local')),
    internalTrafficPolicy: optional(fc.constantFrom('Cluster', 'Local')),
    healthCheckNodePort: optional(port),
  }),
  ingress: optional(
    fc.array(
      fc.record({
        ip: optional(ip),
        hostname: optional(word),
        ipMode: optional(fc.constantFrom('VIP', 'Proxy')),
      }),
      { maxLength: 3 },
    ),
  ),
});

export const slice = fc.record({
  metadata,
  addressType: fc.constantFrom('IPv4', 'IPv6', 'FQDN'),
  ports: optional(
    fc.array(fc.record({ name: optional(word), protocol: optional(protocol), port: optional(port) }), {
      maxLength: 3,
    }),
  ),
  endpoints: optional(
    fc.array(
      fc.record({
        addresses: fc.array(ip, { maxLength: 2 }),
        ready: optional(fc.boolean()),
        serving: optional(fc.boolean()),
        terminating: optional(fc.boolean()),
        nodeName: optional(word),
        zone: optional(word),
        forZones: optional(fc.array(word, { maxLength: 2 })),
        forNodes: optional(fc.array(word, { maxLength: 2 })),
        target: optional(fc.record({ kind: fc.constantFrom('Pod', 'VM'), namespace: word, name: word })),
      }),
      { maxLength: 5 },
    ),
  ),
});

export const node = fc.record({
  metadata,
  podCIDR: optional(ip),
  podCIDRs: optional(fc.array(ip, { maxLength: 2 })),
  taints: optional(fc.array(word, { maxLength: 3 })),
  addresses: optional(
    fc.array(fc.record({ type: fc.constantFrom('InternalIP', 'ExternalIP', 'Hostname'), address: ip }), {
      maxLength: 4,
    }),
  ),
});

export const serviceCIDR = fc.record({ metadata, cidrs: optional(fc.array(ip, { maxLength: 2 })) });

type Of<A> = A extends fc.Arbitrary<infer T> ? T : never;

function some<T>(value: T | undefined, write: (value: T) => Buffer): Buffer {
  return value === undefined ? Buffer.alloc(0) : write(value);
}

function each<T>(values: readonly T[] | undefined, write: (value: T) => Buffer): Buffer {
  return Buffer.concat((values ?? []).map(write));
}

function timestamp(field: number, text: string): Buffer {
  const milliseconds = Date.parse(text);
  return message(field, int(1, Math.floor(milliseconds / 1000)), int(2, 0));
}

function metaBytes(meta: Of<typeof metadata>): Buffer {
  return message(
    1,
    bytes(1, meta.name),
    bytes(2, ''),
    some(meta.namespace, (value) => bytes(3, value)),
    bytes(4, ''),
    some(meta.uid, (value) => bytes(5, value)),
    bytes(6, meta.resourceVersion),
    int(7, 3),
    meta.creationTimestamp === undefined ? message(8) : timestamp(8, meta.creationTimestamp),
    some(meta.deletionTimestamp, (value) => timestamp(9, value)),
    some(meta.labels, (value) => map(11, value as Record<string, string>)),
    some(meta.annotations, (value) => map(12, value as Record<string, string>)),
    bytes(14, 'a-finalizer'),
    message(17, bytes(1, 'kubectl'), bytes(2, 'Update'), message(7, bytes(1, '{"f:spec":{}}'))),
    // Fields and wire types that nobody knows yet are stepped over.
    fixed64(900),
    fixed32(901),
  );
}

export function serviceJson(value: Of<typeof service>): Json {
  const { affinitySeconds, ...spec } = value.spec;
  return {
    metadata: value.metadata,
    spec: {
      ...spec,
      ...(affinitySeconds === undefined
        ? {}
        : { sessionAffinityConfig: { clientIP: { timeoutSeconds: affinitySeconds } } }),
    },
    status: { loadBalancer: { ingress: value.ingress } },
  };
}

export function serviceBytes({ metadata: meta, spec, ingress }: Of<typeof service>): Buffer {
  return Buffer.concat([
    metaBytes(meta),
    message(
      2,
      each(spec.ports, (entry) =>
        message(
          1,
          some(entry.name, (name) => bytes(1, name)),
          some(entry.protocol, (text) => bytes(2, text)),
          int(3, entry.port),
          some(entry.targetPort, (target) => message(4, int(1, 0), int(2, target), bytes(3, ''))),
          some(entry.nodePort, (number) => int(5, number)),
        ),
      ),
      map(2, { app: 'shop' }),
      some(spec.clusterIP, (text) => bytes(3, text)),
      some(spec.type, (text) => bytes(4, text)),
      each(spec.externalIPs, (text) => bytes(5, text)),
      some(spec.sessionAffinity, (text) => bytes(7, text)),
      each(spec.loadBalancerSourceRanges, (text) => bytes(9, text)),
      some(spec.externalTrafficPolicy, (text) => bytes(11, text)),
      some(spec.healthCheckNodePort, (number) => int(12, number)),
      some(spec.affinitySeconds, (seconds) => message(14, message(1, int(1, seconds)))),
      bytes(17, 'SingleStack'),
      each(spec.clusterIPs, (text) => bytes(18, text)),
      each(spec.ipFamilies, (text) => bytes(19, text)),
      some(spec.internalTrafficPolicy, (text) => bytes(22, text)),
      bytes(23, 'PreferClose'),
    ),
    message(
      3,
      message(
        1,
        each(ingress, (entry) =>
          message(
            1,
            some(entry.ip, (text) => bytes(1, text)),
            some(entry.hostname, (text) => bytes(2, text)),
            some(entry.ipMode, (text) => bytes(3, text)),
          ),
        ),
      ),
    ),
  ]);
}

export function sliceJson(value: Of<typeof slice>): Json {
  return {
    metadata: value.metadata,
    addressType: value.addressType,
    ports: value.ports,
    endpoints: value.endpoints?.map((entry) => ({
      addresses: entry.addresses,
      conditions: { ready: entry.ready, serving: entry.serving, terminating: entry.terminating },
      nodeName: entry.nodeName,
      zone: entry.zone,
      hints: {
        forZones: entry.forZones?.map((name) => ({ name })),
        forNodes: entry.forNodes?.map((name) => ({ name })),
      },
      targetRef: entry.target,
    })),
  };
}

export function sliceBytes(value: Of<typeof slice>): Buffer {
  const flag = (field: number, on: boolean | undefined): Buffer => some(on, (set) => int(field, set ? 1 : 0));
  return Buffer.concat([
    metaBytes(value.metadata),
    each(value.endpoints, (entry) =>
      message(
        2,
        each(entry.addresses, (text) => bytes(1, text)),
        message(2, flag(1, entry.ready), flag(2, entry.serving), flag(3, entry.terminating)),
        bytes(3, 'some-host'),
        some(entry.target, (target) =>
          message(
            4,
            bytes(1, target.kind),
            bytes(2, target.namespace),
            bytes(3, target.name),
            bytes(4, 'uid'),
          ),
        ),
        some(entry.nodeName, (text) => bytes(6, text)),
        some(entry.zone, (text) => bytes(7, text)),
        message(
          8,
          each(entry.forZones, (text) => message(1, bytes(1, text))),
          each(entry.forNodes, (text) => message(2, bytes(1, text))),
        ),
      ),
    ),
    each(value.ports, (entry) =>
      message(
        3,
        some(entry.name, (text) => bytes(1, text)),
        some(entry.protocol, (text) => bytes(2, text)),
        some(entry.port, (number) => int(3, number)),
        bytes(4, 'http'),
      ),
    ),
    bytes(4, value.addressType),
  ]);
}

export function nodeJson(value: Of<typeof node>): Json {
  return {
    metadata: value.metadata,
    spec: {
      podCIDR: value.podCIDR,
      podCIDRs: value.podCIDRs,
      taints: value.taints?.map((key) => ({ key, effect: 'NoSchedule' })),
    },
    status: { addresses: value.addresses },
  };
}

export function nodeBytes(value: Of<typeof node>): Buffer {
  return Buffer.concat([
    metaBytes(value.metadata),
    message(
      2,
      some(value.podCIDR, (text) => bytes(1, text)),
      bytes(3, 'provider://1'),
      each(value.taints, (key) => message(5, bytes(1, key), bytes(3, 'NoSchedule'))),
      each(value.podCIDRs, (text) => bytes(7, text)),
    ),
    message(
      3,
      message(1, bytes(1, 'cpu'), message(2, bytes(1, '4'))),
      each(value.addresses, (entry) => message(5, bytes(1, entry.type), bytes(2, entry.address))),
    ),
  ]);
}

export function serviceCIDRJson(value: Of<typeof serviceCIDR>): Json {
  return { metadata: value.metadata, spec: { cidrs: value.cidrs } };
}

export function serviceCIDRBytes(value: Of<typeof serviceCIDR>): Buffer {
  return Buffer.concat([
    metaBytes(value.metadata),
    message(
      2,
      each(value.cidrs, (text) => bytes(1, text)),
    ),
  ]);
}
