/**
 * What the kinds that a service proxy reads may hold, field by field, as Kubernetes 1.36 publishes them: for manifests
 * that somebody wrote by hand. Objects from an API server are never checked by it: a newer one may know more fields.
 */
import type { Kind } from '../api/objects.ts';
import { edits } from '../config/spelling.ts';

type Shape =
  | 'text'
  | 'integer'
  | 'boolean'
  | 'integer or text'
  /** A map of texts: labels, annotations, selectors. */
  | 'texts'
  /** Not looked into: fields that no service proxy reads. */
  | 'any'
  | { readonly oneOf: readonly string[] }
  | { readonly list: Shape }
  | { readonly fields: Readonly<Record<string, Shape>> };

export interface StrictProblem {
  /** Steps from the object to the value. */
  readonly path: readonly (string | number)[];
  /** The position meant is that of the key, not of its value. */
  readonly key: boolean;
  readonly message: string;
}

const listOf = (shape: Shape): Shape => ({ list: shape });
const withFields = (fields: Readonly<Record<string, Shape>>): Shape => ({ fields });
const oneOf = (...words: string[]): Shape => ({ oneOf: words });

const protocol = oneOf('TCP', 'UDP', 'SCTP');
const family = oneOf('IPv4', 'IPv6');
const texts = listOf('text');

const metadata = withFields({
  name: 'text',
  generateName: 'text',
  namespace: 'text',
  selfLink: 'text',
  uid: 'text',
  resourceVersion: 'text',
  generation: 'integer',
  creationTimestamp: 'text',
  deletionTimestamp: 'text',
  deletionGracePeriodSeconds: 'integer',
  labels: 'texts',
  annotations: 'texts',
  ownerReferences: listOf(
    withFields({
      apiVersion: 'text',
      kind: 'text',
      name: 'text',
      uid: 'text',
      controller: 'boolean',
      blockOwnerDeletion: 'boolean',
    }),
  ),
  finalizers: texts,
  managedFields: 'any',
});

const head = { apiVersion: 'text', kind: 'text', metadata } as const;

const reference = withFields({
  kind: 'text',
  namespace: 'text',
  name: 'text',
  uid: 'text',
  apiVersion: 'text',
  resourceVersion: 'text',
  fieldPath: 'text',
});

const shapes: Readonly<Record<Kind, Shape>> = {
  Service: withFields({
    ...head,
    spec: withFields({
      type: oneOf('ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName'),
      clusterIP: 'text',
      clusterIPs: texts,
      ipFamilies: listOf(family),
      ipFamilyPolicy: oneOf('SingleStack', 'PreferDualStack', 'RequireDualStack'),
      selector: 'texts',
      ports: listOf(
        withFields({
          name: 'text',
          protocol,
          appProtocol: 'text',
          port: 'integer',
          targetPort: 'integer or text',
          nodePort: 'integer',
        }),
      ),
      externalIPs: texts,
      externalName: 'text',
      externalTrafficPolicy: oneOf('', 'Cluster', 'Local'),
      internalTrafficPolicy: oneOf('Cluster', 'Local'),
      trafficDistribution: oneOf('PreferClose', 'PreferSameZone', 'PreferSameNode'),
      healthCheckNodePort: 'integer',
      publishNotReadyAddresses: 'boolean',
      sessionAffinity: oneOf('None', 'ClientIP'),
      sessionAffinityConfig: withFields({ clientIP: withFields({ timeoutSeconds: 'integer' }) }),
      allocateLoadBalancerNodePorts: 'boolean',
      loadBalancerClass: 'text',
      loadBalancerIP: 'text',
      loadBalancerSourceRanges: texts,
    }),
    status: withFields({
      loadBalancer: withFields({
        ingress: listOf(
          withFields({
            ip: 'text',
            hostname: 'text',
            ipMode: oneOf('VIP', 'Proxy'),
            ports: listOf(withFields({ port: 'integer', protocol, error: 'text' })),
          }),
        ),
      }),
      conditions: 'any',
    }),
  }),
  EndpointSlice: withFields({
    ...head,
    addressType: oneOf('IPv4', 'IPv6', 'FQDN'),
    ports: listOf(withFields({ name: 'text', protocol, port: 'integer', appProtocol: 'text' })),
    endpoints: listOf(
      withFields({
        addresses: texts,
        conditions: withFields({ ready: 'boolean', serving: 'boolean', terminating: 'boolean' }),
        hostname: 'text',
        targetRef: reference,
        deprecatedTopology: 'texts',
        nodeName: 'text',
        zone: 'text',
        hints: withFields({
          forZones: listOf(withFields({ name: 'text' })),
          forNodes: listOf(withFields({ name: 'text' })),
        }),
      }),
    ),
  }),
  Node: withFields({
    ...head,
    spec: withFields({
      podCIDR: 'text',
      podCIDRs: texts,
      providerID: 'text',
      unschedulable: 'boolean',
      taints: listOf(withFields({ key: 'text', value: 'text', effect: 'text', timeAdded: 'text' })),
      configSource: 'any',
      externalID: 'text',
    }),
    status: withFields({
      addresses: listOf(withFields({ type: 'text', address: 'text' })),
      allocatable: 'any',
      capacity: 'any',
      conditions: 'any',
      config: 'any',
      daemonEndpoints: 'any',
      declaredFeatures: 'any',
      features: 'any',
      images: 'any',
      nodeInfo: 'any',
      phase: 'text',
      runtimeHandlers: 'any',
      volumesAttached: 'any',
      volumesInUse: 'any',
    }),
  }),
  ServiceCIDR: withFields({ ...head, spec: withFields({ cidrs: texts }), status: 'any' }),
};

/** Everything in the object that its kind does not have: unknown fields and values of the wrong type. */
export function checkStrictly(kind: Kind, value: unknown): StrictProblem[] {
  const problems: StrictProblem[] = [];
  check(value, shapes[kind], [], problems);
  return problems;
}

function check(
  value: unknown,
  shape: Shape,
  path: readonly (string | number)[],
  problems: StrictProblem[],
): void {
  // A field that is null counts as absent, as in the API.
  if (value === null || value === undefined || shape === 'any') return;
  const wrong = (expected: string): void => {
    problems.push({ path, key: false, message: `must be ${expected}, not ${describe(value)}` });
  };
  if (shape === 'text') {
    if (typeof value !== 'string') wrong('text (in quotes)');
  } else if (shape === 'integer') {
    if (!Number.isSafeInteger(value)) wrong('a whole number');
  } else if (shape === 'boolean') {
    if (typeof value !== 'boolean') wrong('true or false');
  } else if (shape === 'integer or text') {
    if (typeof value !== 'string' && !Number.isSafeInteger(value)) wrong('a whole number or text');
  } else if (shape === 'texts') {
    if (!isMap(value)) wrong('a map of texts');
    else for (const [name, inner] of Object.entries(value)) check(inner, 'text', [...path, name], problems);
  } else if ('oneOf' in shape) {
    if (typeof value !== 'string' || !shape.oneOf.includes(value))
      wrong(`one of ${shape.oneOf.filter((word) => word !== '').join(', ')}`);
  } else if ('list' in shape) {
    if (!Array.isArray(value)) wrong('a list');
    else value.forEach((entry, i) => check(entry, shape.list, [...path, i], problems));
  } else if (!isMap(value)) wrong('a map of fields');
  else {
    for (const [name, inner] of Object.entries(value)) {
      const known = Object.hasOwn(shape.fields, name) ? shape.fields[name] : undefined;
      if (known !== undefined) check(inner, known, [...path, name], problems);
      else {
        const near = nearest(name, Object.keys(shape.fields));
        const hint = near === undefined ? '' : `; did you mean ${near}?`;
        problems.push({ path: [...path, name], key: true, message: `unknown field${hint}` });
      }
    }
  }
}

function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function describe(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a map';
  const text = JSON.stringify(value) ?? 'nothing';
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** The name that differs by case, or by at most two letters. */
function nearest(name: string, known: readonly string[]): string | undefined {
  const lower = name.toLowerCase();
  return (
    known.find((one) => one.toLowerCase() === lower) ??
    known.find((one) => Math.abs(one.length - name.length) <= 2 && edits(one.toLowerCase(), lower) <= 2)
  );
}
