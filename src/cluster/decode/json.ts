/**
 * JSON values to compact objects. Tolerant: a value of the wrong type costs the smallest thing it belongs to (an
 * entry of a list, a field with a default, else the object), with a report; fields that decide nothing are not looked at.
 */
import type {
  ApiObject,
  EndpointSlice,
  Kind,
  LoadBalancerIngress,
  Node,
  ObjectMeta,
  Service,
  ServiceCIDR,
  ServicePortSpec,
  SliceEndpoint,
  SlicePort,
} from '../../api/objects.ts';
import {
  defaultAffinitySeconds,
  ingress,
  none,
  parseTime,
  quote,
  serviceNameLabel,
  servicePort,
  slicePort,
  triggerTimeAnnotation,
  zoneLabel,
} from './build.ts';
import { internString } from './intern.ts';
import { MalformedObject } from './problem.ts';
import type { ReportProblem } from './problem.ts';

type Json = Readonly<Record<string, unknown>>;

/** What identifies an object, readable even where the rest of it is not. */
export interface ObjectIdentity {
  /** `namespace/name` or `name`; empty if there is no name. */
  readonly key: string;
  readonly resourceVersion: string;
}

export function identifyJson(value: unknown): ObjectIdentity {
  const meta = isObject(value) && isObject(value['metadata']) ? value['metadata'] : {};
  const { name, namespace, resourceVersion } = meta;
  const named = typeof name === 'string' ? name : '';
  return {
    key: named !== '' && typeof namespace === 'string' && namespace !== '' ? `${namespace}/${named}` : named,
    resourceVersion: typeof resourceVersion === 'string' ? resourceVersion : '',
  };
}

/** The compact object, or undefined (reported) if it cannot be used. */
export function decodeJsonObject(kind: Kind, value: unknown, report: ReportProblem): ApiObject | undefined {
  const key = identifyJson(value).key;
  const problem: Reject = (field, message) => report({ kind, object: key, field, message });
  try {
    if (!isObject(value)) throw new MalformedObject('', `object expected, got ${quote(value)}`);
    switch (kind) {
      case 'Service':
        return decodeService(value, problem);
      case 'EndpointSlice':
        return decodeSlice(value, problem);
      case 'Node':
        return decodeNode(value, problem);
      case 'ServiceCIDR':
        return decodeServiceCIDR(value, problem);
    }
  } catch (error) {
    if (!(error instanceof MalformedObject)) throw error;
    problem(error.field, `${error.message}; the object is skipped`);
    return undefined;
  }
}

type Reject = (field: string, message: string) => void;

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isAbsent(value: unknown): value is null | undefined {
  return value === undefined || value === null;
}

/** An absent object is empty. */
function objectAt(parent: Json, name: string, path: string): Json {
  const value = parent[name];
  if (isAbsent(value)) return {};
  if (!isObject(value)) throw new MalformedObject(path, `object expected, got ${quote(value)}`);
  return value;
}

function listAt(parent: Json, name: string, path: string): readonly unknown[] {
  const value = parent[name];
  if (isAbsent(value)) return none;
  if (!Array.isArray(value)) throw new MalformedObject(path, `list expected, got ${quote(value)}`);
  return value;
}

function textAt(parent: Json, name: string, path: string): string {
  const value = parent[name];
  if (typeof value === 'string') return value;
  if (isAbsent(value)) return '';
  throw new MalformedObject(path, `text expected, got ${quote(value)}`);
}

function integerAt(parent: Json, name: string, path: string, absent: number): number {
  const value = parent[name];
  if (isAbsent(value)) return absent;
  if (!Number.isSafeInteger(value)) throw new MalformedObject(path, `integer expected, got ${quote(value)}`);
  return value as number;
}

function booleanAt(parent: Json, name: string, path: string, absent: boolean): boolean {
  const value = parent[name];
  if (isAbsent(value)) return absent;
  if (typeof value !== 'boolean') throw new MalformedObject(path, `boolean expected, got ${quote(value)}`);
  return value;
}

/** For lists whose entries stand for themselves: one that is not text is left out. */
function textsAt(parent: Json, name: string, path: string, problem: Reject): readonly string[] {
  const list = listAt(parent, name, path);
  if (list.length === 0) return none;
  const texts: string[] = [];
  for (let i = 0; i < list.length; i++) {
    const value = list[i];
    if (typeof value === 'string') texts.push(value);
    else problem(`${path}[${i}]`, `text expected, got ${quote(value)}; the entry is skipped`);
  }
  return texts;
}

/** For lists in which the position counts: one bad entry costs the object. */
function alignedTextsAt(parent: Json, name: string, path: string): readonly string[] {
  const list = listAt(parent, name, path);
  if (list.length === 0) return none;
  return list.map((value, i) => {
    if (typeof value !== 'string') {
      throw new MalformedObject(`${path}[${i}]`, `text expected, got ${quote(value)}`);
    }
    return internString(value);
  });
}

/** Decodes entry by entry; an entry that throws or answers undefined (having reported) is left out. */
function entriesAt<T>(
  parent: Json,
  name: string,
  path: string,
  problem: Reject,
  decode: (entry: Json, path: string, problem: Reject) => T | undefined,
): readonly T[] {
  const list = listAt(parent, name, path);
  if (list.length === 0) return none;
  const entries: T[] = [];
  for (let i = 0; i < list.length; i++) {
    const at = `${path}[${i}]`;
    try {
      const value = list[i];
      if (!isObject(value)) throw new MalformedObject(at, `object expected, got ${quote(value)}`);
      const entry = decode(value, at, problem);
      if (entry !== undefined) entries.push(entry);
    } catch (error) {
      if (!(error instanceof MalformedObject)) throw error;
      problem(error.field, `${error.message}; the entry is skipped`);
    }
  }
  return entries;
}

function decodeMeta(object: Json): ObjectMeta {
  const meta = objectAt(object, 'metadata', 'metadata');
  const name = textAt(meta, 'name', 'metadata.name');
  if (name === '') throw new MalformedObject('metadata.name', 'no name');
  return {
    name,
    namespace: internString(textAt(meta, 'namespace', 'metadata.namespace')),
    uid: textAt(meta, 'uid', 'metadata.uid'),
    resourceVersion: textAt(meta, 'resourceVersion', 'metadata.resourceVersion'),
    creationTimestamp: timeIn(meta, 'creationTimestamp'),
  };
}

function timeIn(object: Json, name: string): number {
  const value = object[name];
  return typeof value === 'string' ? parseTime(value) : 0;
}

function decodeServicePort(entry: Json, path: string, problem: Reject): ServicePortSpec | undefined {
  return servicePort(
    internString(textAt(entry, 'name', `${path}.name`)),
    textAt(entry, 'protocol', `${path}.protocol`),
    integerAt(entry, 'port', `${path}.port`, 0),
    integerAt(entry, 'nodePort', `${path}.nodePort`, 0),
    (field, message) => problem(`${path}.${field}`, `${message}; the entry is skipped`),
  );
}

function decodeIngress(entry: Json, path: string): LoadBalancerIngress {
  const ipMode = entry['ipMode'];
  return ingress(
    textAt(entry, 'ip', `${path}.ip`),
    isAbsent(ipMode) ? undefined : internString(textAt(entry, 'ipMode', `${path}.ipMode`)),
  );
}

function decodeService(object: Json, problem: Reject): Service {
  const meta = decodeMeta(object);
  const spec = objectAt(object, 'spec', 'spec');
  const balancer = objectAt(objectAt(object, 'status', 'status'), 'loadBalancer', 'status.loadBalancer');
  const affinity = objectAt(spec, 'sessionAffinityConfig', 'spec.sessionAffinityConfig');
  const clientIP = objectAt(affinity, 'clientIP', 'spec.sessionAffinityConfig.clientIP');
  return {
    kind: 'Service',
    meta,
    type: internString(textAt(spec, 'type', 'spec.type') || 'ClusterIP'),
    clusterIP: textAt(spec, 'clusterIP', 'spec.clusterIP'),
    clusterIPs: alignedTextsAt(spec, 'clusterIPs', 'spec.clusterIPs'),
    ipFamilies: alignedTextsAt(spec, 'ipFamilies', 'spec.ipFamilies'),
    ports: entriesAt(spec, 'ports', 'spec.ports', problem, decodeServicePort),
    externalIPs: textsAt(spec, 'externalIPs', 'spec.externalIPs', problem),
    loadBalancerIngress: entriesAt(
      balancer,
      'ingress',
      'status.loadBalancer.ingress',
      problem,
      decodeIngress,
    ),
    loadBalancerSourceRanges: textsAt(
      spec,
      'loadBalancerSourceRanges',
      'spec.loadBalancerSourceRanges',
      problem,
    ),
    sessionAffinity: internString(textAt(spec, 'sessionAffinity', 'spec.sessionAffinity') || 'None'),
    sessionAffinityTimeoutSeconds: integerAt(
      clientIP,
      'timeoutSeconds',
      'spec.sessionAffinityConfig.clientIP.timeoutSeconds',
      defaultAffinitySeconds,
    ),
    externalTrafficPolicy: internString(textAt(spec, 'externalTrafficPolicy', 'spec.externalTrafficPolicy')),
    internalTrafficPolicy: internString(textAt(spec, 'internalTrafficPolicy', 'spec.internalTrafficPolicy')),
    healthCheckNodePort: healthCheckNodePort(spec, problem),
  };
}

function healthCheckNodePort(spec: Json, problem: Reject): number {
  const path = 'spec.healthCheckNodePort';
  const port = integerAt(spec, 'healthCheckNodePort', path, 0);
  if (port >= 0 && port <= 65535) return port;
  problem(path, `${port} is not a port (1-65535); no health check is served`);
  return 0;
}

function decodeSlicePort(entry: Json, path: string, problem: Reject): SlicePort | undefined {
  return slicePort(
    isAbsent(entry['name']) ? null : internString(textAt(entry, 'name', `${path}.name`)),
    textAt(entry, 'protocol', `${path}.protocol`),
    isAbsent(entry['port']) ? null : integerAt(entry, 'port', `${path}.port`, 0),
    (field, message) => problem(`${path}.${field}`, `${message}; the entry is skipped`),
  );
}

function hintNames(hints: Json, name: string, path: string, problem: Reject): readonly string[] {
  return entriesAt(hints, name, `${path}.${name}`, problem, (hint, at) =>
    internString(textAt(hint, 'name', `${at}.name`)),
  );
}

function podOf(endpoint: Json, path: string): string {
  const target = objectAt(endpoint, 'targetRef', `${path}.targetRef`);
  if (target['kind'] !== 'Pod') return '';
  const name = textAt(target, 'name', `${path}.targetRef.name`);
  const namespace = textAt(target, 'namespace', `${path}.targetRef.namespace`);
  return namespace === '' ? name : `${namespace}/${name}`;
}

function decodeEndpoint(entry: Json, path: string, problem: Reject): SliceEndpoint {
  const addresses = listAt(entry, 'addresses', `${path}.addresses`);
  const address = addresses[0] ?? '';
  if (typeof address !== 'string') {
    throw new MalformedObject(`${path}.addresses[0]`, `text expected, got ${quote(address)}`);
  }
  const conditions = objectAt(entry, 'conditions', `${path}.conditions`);
  const hints = objectAt(entry, 'hints', `${path}.hints`);
  return {
    address,
    ready: booleanAt(conditions, 'ready', `${path}.conditions.ready`, true),
    serving: booleanAt(conditions, 'serving', `${path}.conditions.serving`, true),
    terminating: booleanAt(conditions, 'terminating', `${path}.conditions.terminating`, false),
    nodeName: internString(textAt(entry, 'nodeName', `${path}.nodeName`)),
    zone: internString(textAt(entry, 'zone', `${path}.zone`)),
    zoneHints: hintNames(hints, 'forZones', `${path}.hints`, problem),
    nodeHints: hintNames(hints, 'forNodes', `${path}.hints`, problem),
    pod: podOf(entry, path),
  };
}

function decodeSlice(object: Json, problem: Reject): EndpointSlice {
  const meta = decodeMeta(object);
  const metadata = objectAt(object, 'metadata', 'metadata');
  const labels = objectAt(metadata, 'labels', 'metadata.labels');
  const annotations = objectAt(metadata, 'annotations', 'metadata.annotations');
  return {
    kind: 'EndpointSlice',
    meta,
    serviceName: internString(textAt(labels, serviceNameLabel, `metadata.labels["${serviceNameLabel}"]`)),
    addressType: internString(textAt(object, 'addressType', 'addressType')),
    ports: entriesAt(object, 'ports', 'ports', problem, decodeSlicePort),
    endpoints: entriesAt(object, 'endpoints', 'endpoints', problem, decodeEndpoint),
    lastChangeTriggerTime: timeIn(annotations, triggerTimeAnnotation),
  };
}

function decodeNode(object: Json, problem: Reject): Node {
  const meta = decodeMeta(object);
  const metadata = objectAt(object, 'metadata', 'metadata');
  const spec = objectAt(object, 'spec', 'spec');
  const status = objectAt(object, 'status', 'status');
  const podCIDRs = textsAt(spec, 'podCIDRs', 'spec.podCIDRs', problem);
  const podCIDR = textAt(spec, 'podCIDR', 'spec.podCIDR');
  return {
    kind: 'Node',
    meta,
    zone: textAt(
      objectAt(metadata, 'labels', 'metadata.labels'),
      zoneLabel,
      `metadata.labels["${zoneLabel}"]`,
    ),
    addresses: entriesAt(status, 'addresses', 'status.addresses', problem, (entry, path) => ({
      type: internString(textAt(entry, 'type', `${path}.type`)),
      address: textAt(entry, 'address', `${path}.address`),
    })),
    podCIDRs: podCIDRs.length === 0 && podCIDR !== '' ? [podCIDR] : podCIDRs,
    taintKeys: entriesAt(spec, 'taints', 'spec.taints', problem, (entry, path) =>
      textAt(entry, 'key', `${path}.key`),
    ),
    deleting: !isAbsent(metadata['deletionTimestamp']),
  };
}

function decodeServiceCIDR(object: Json, problem: Reject): ServiceCIDR {
  return {
    kind: 'ServiceCIDR',
    meta: decodeMeta(object),
    cidrs: textsAt(objectAt(object, 'spec', 'spec'), 'cidrs', 'spec.cidrs', problem),
  };
}
