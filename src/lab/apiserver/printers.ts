/** Columns of `kubectl get`, kind by kind, as kube-apiserver prints them. */
import type { Json, JsonObject, KubeObject } from './objects.ts';
import type { ServiceObject } from './strategies/serviceTypes.ts';

export interface Column {
  readonly name: string;
  readonly type?: 'string' | 'integer';
  readonly format?: string;
  /** Shown with `-o wide` only. */
  readonly wide?: boolean;
  readonly cell: (object: KubeObject) => Json;
}

/** A duration as kubectl prints it, from milliseconds: `35s`, `3m12s`, `5h4m`, `12d`. */
export function humanDuration(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const days = Math.floor(hours / 24);
  const both = (big: string, rest: number, unit: string): string =>
    rest === 0 ? big : `${big}${rest}${unit}`;
  if (seconds < 120) return `${seconds}s`;
  if (minutes < 10) return both(`${minutes}m`, seconds % 60, 's');
  if (minutes < 180) return `${minutes}m`;
  if (hours < 8) return both(`${hours}h`, minutes % 60, 'm');
  if (hours < 48) return `${hours}h`;
  if (days < 8) return both(`${days}d`, hours % 24, 'h');
  if (days < 730) return `${days}d`;
  return both(`${Math.floor(days / 365)}y`, days % 365, 'd');
}

function since(time: unknown): string {
  const at = typeof time === 'string' ? Date.parse(time) : Number.NaN;
  return Number.isNaN(at) ? '<unknown>' : humanDuration(Date.now() - at);
}

function shortList(items: readonly string[], most = 3): string {
  if (items.length === 0) return '<none>';
  const shown = items.slice(0, most).join(',');
  return items.length > most ? `${shown} + ${items.length - most} more...` : shown;
}

function labelText(labels: unknown): string {
  const pairs = Object.entries((labels as Record<string, string> | undefined) ?? {});
  return pairs.length === 0 ? '<none>' : pairs.map(([key, value]) => `${key}=${value}`).join(',');
}

function field(object: KubeObject, ...path: string[]): Json | undefined {
  let value: unknown = object;
  for (const step of path) value = (value as Record<string, unknown> | undefined)?.[step];
  return value as Json | undefined;
}

const name: Column = { name: 'Name', format: 'name', cell: (object) => object.metadata.name };
const age: Column = { name: 'Age', cell: (object) => since(object.metadata.creationTimestamp) };

function text(title: string, ...path: string[]): Column {
  return { name: title, cell: (object) => field(object, ...path) ?? '' };
}

function count(title: string, ...path: string[]): Column {
  return { name: title, type: 'integer', cell: (object) => Number(field(object, ...path) ?? 0) };
}

function size(title: string, ...path: string[]): Column {
  return { name: title, type: 'integer', cell: (object) => Object.keys(field(object, ...path) ?? {}).length };
}

function wide(column: Column): Column {
  return { ...column, wide: true };
}

function conditionOf(object: KubeObject, type: string): JsonObject | undefined {
  const conditions = field(object, 'status', 'conditions') as JsonObject[] | undefined;
  return conditions?.find((one) => one['type'] === type);
}

function podStatus(pod: KubeObject): string {
  if (pod.metadata.deletionTimestamp !== undefined) return 'Terminating';
  const reason = field(pod, 'status', 'reason') ?? field(pod, 'status', 'phase') ?? 'Unknown';
  const statuses = (field(pod, 'status', 'containerStatuses') as JsonObject[] | undefined) ?? [];
  for (const status of statuses) {
    const waiting = (status['state'] as JsonObject | undefined)?.['waiting'] as JsonObject | undefined;
    if (typeof waiting?.['reason'] === 'string') return waiting['reason'];
  }
  return reason as string;
}

function podReady(pod: KubeObject): string {
  const containers = (field(pod, 'spec', 'containers') as Json[] | undefined) ?? [];
  const statuses = field(pod, 'status', 'containerStatuses') as JsonObject[] | undefined;
  const ready = statuses
    ? statuses.filter((one) => one['ready'] === true).length
    : conditionOf(pod, 'Ready')?.['status'] === 'True'
      ? containers.length
      : 0;
  return `${ready}/${containers.length}`;
}

function podRestarts(pod: KubeObject): number {
  const statuses = (field(pod, 'status', 'containerStatuses') as JsonObject[] | undefined) ?? [];
  return statuses.reduce((sum, one) => sum + Number(one['restartCount'] ?? 0), 0);
}

function nodeStatus(node: KubeObject): string {
  const ready = conditionOf(node, 'Ready');
  const words = [ready === undefined ? 'Unknown' : ready['status'] === 'True' ? 'Ready' : 'NotReady'];
  if (field(node, 'spec', 'unschedulable') === true) words.push('SchedulingDisabled');
  return words.join(',');
}

function nodeRoles(node: KubeObject): string {
  const prefix = 'node-role.kubernetes.io/';
  const roles = Object.keys(node.metadata.labels ?? {})
    .filter((key) => key.startsWith(prefix))
    .map((key) => key.slice(prefix.length));
  return roles.length === 0 ? '<none>' : roles.sort().join(',');
}

function nodeAddress(node: KubeObject, type: string): string {
  const addresses =
    (field(node, 'status', 'addresses') as { type: string; address: string }[] | undefined) ?? [];
  return addresses.find((one) => one.type === type)?.address ?? '<none>';
}

function externalIp(object: KubeObject): string {
  const { spec, status } = object as unknown as ServiceObject;
  const external = spec?.externalIPs ?? [];
  if (spec?.type === 'ExternalName') return spec.externalName ?? '<none>';
  if (spec?.type === 'LoadBalancer') {
    const ingress = (status?.loadBalancer?.ingress ?? []).map((one) => one.ip || one.hostname || '');
    const all = [...ingress, ...external];
    return all.length === 0 ? '<pending>' : all.join(',');
  }
  return external.length === 0 ? '<none>' : external.join(',');
}

function servicePorts(object: KubeObject): string {
  const ports = (object as unknown as ServiceObject).spec?.ports ?? [];
  if (ports.length === 0) return '<none>';
  return ports
    .map((port) => `${port.port}${port.nodePort ? `:${port.nodePort}` : ''}/${port.protocol ?? 'TCP'}`)
    .join(',');
}

function endpointsText(object: KubeObject): string {
  const subsets =
    (object['subsets'] as { addresses?: { ip: string }[]; ports?: { port: number }[] }[] | undefined) ?? [];
  const all = subsets.flatMap(({ addresses = [], ports = [] }) =>
    ports.length === 0
      ? addresses.map((one) => one.ip)
      : ports.flatMap(({ port }) =>
          addresses.map(({ ip }) => (ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`)),
        ),
  );
  return shortList(all);
}

function slicePorts(object: KubeObject): string {
  const ports = (object['ports'] as { port?: number }[] | undefined) ?? [];
  return ports.length === 0 ? '<unset>' : shortList(ports.map((one) => String(one.port ?? '*')));
}

function sliceEndpoints(object: KubeObject): string {
  const endpoints = (object['endpoints'] as { addresses?: string[] }[] | undefined) ?? [];
  const addresses = endpoints.flatMap((one) => one.addresses ?? []);
  return addresses.length === 0 ? '<unset>' : shortList(addresses);
}

function templateOf(object: KubeObject, property: string): string {
  const containers =
    (field(object, 'spec', 'template', 'spec', 'containers') as JsonObject[] | undefined) ?? [];
  return containers.map((one) => one[property] as string).join(',');
}

const containers: readonly Column[] = [
  { name: 'Containers', wide: true, cell: (object) => templateOf(object, 'name') },
  { name: 'Images', wide: true, cell: (object) => templateOf(object, 'image') },
  {
    name: 'Selector',
    wide: true,
    cell: (object) => labelText(field(object, 'spec', 'selector', 'matchLabels')),
  },
];

function involvedText(event: KubeObject): string {
  const involved = field(event, 'involvedObject') as { kind?: string; name?: string } | undefined;
  return `${(involved?.kind ?? '').toLowerCase()}/${involved?.name ?? ''}`;
}

function lastSeen(event: KubeObject): string {
  const series = field(event, 'series', 'lastObservedTime');
  return since(series ?? event['lastTimestamp'] ?? event['eventTime'] ?? event.metadata.creationTimestamp);
}

/** By resource id, in core/v1 form for Events. */
const columns: Readonly<Record<string, readonly Column[]>> = {
  namespaces: [name, text('Status', 'status', 'phase'), age],
  nodes: [
    name,
    { name: 'Status', cell: nodeStatus },
    { name: 'Roles', cell: nodeRoles },
    age,
    text('Version', 'status', 'nodeInfo', 'kubeletVersion'),
    { name: 'Internal-IP', wide: true, cell: (node) => nodeAddress(node, 'InternalIP') },
    { name: 'External-IP', wide: true, cell: (node) => nodeAddress(node, 'ExternalIP') },
    wide(text('OS-Image', 'status', 'nodeInfo', 'osImage')),
    wide(text('Kernel-Version', 'status', 'nodeInfo', 'kernelVersion')),
    wide(text('Container-Runtime', 'status', 'nodeInfo', 'containerRuntimeVersion')),
  ],
  services: [
    name,
    text('Type', 'spec', 'type'),
    { name: 'Cluster-IP', cell: (object) => field(object, 'spec', 'clusterIP') || '<none>' },
    { name: 'External-IP', cell: externalIp },
    { name: 'Port(s)', cell: servicePorts },
    age,
    { name: 'Selector', wide: true, cell: (object) => labelText(field(object, 'spec', 'selector')) },
  ],
  pods: [
    name,
    { name: 'Ready', cell: podReady },
    { name: 'Status', cell: podStatus },
    { name: 'Restarts', cell: (pod) => String(podRestarts(pod)) },
    age,
    { name: 'IP', wide: true, cell: (pod) => field(pod, 'status', 'podIP') ?? '<none>' },
    { name: 'Node', wide: true, cell: (pod) => field(pod, 'spec', 'nodeName') ?? '<none>' },
    { name: 'Nominated Node', wide: true, cell: () => '<none>' },
    { name: 'Readiness Gates', wide: true, cell: () => '<none>' },
  ],
  endpoints: [name, { name: 'Endpoints', cell: endpointsText }, age],
  events: [
    { name: 'Last Seen', cell: lastSeen },
    text('Type', 'type'),
    text('Reason', 'reason'),
    { name: 'Object', cell: involvedText },
    wide(text('Subobject', 'involvedObject', 'fieldPath')),
    {
      name: 'Source',
      wide: true,
      cell: (event) => field(event, 'source', 'component') ?? field(event, 'reportingComponent') ?? '',
    },
    text('Message', 'message'),
    { name: 'First Seen', wide: true, cell: (event) => since(event['firstTimestamp'] ?? event['eventTime']) },
    wide({ name: 'Count', type: 'integer', cell: (event) => Number(event['count'] ?? 1) }),
    { ...name, wide: true },
  ],
  configmaps: [name, size('Data', 'data'), age],
  secrets: [name, text('Type', 'type'), size('Data', 'data'), age],
  serviceaccounts: [name, size('Secrets', 'secrets'), age],
  'deployments.apps': [
    name,
    {
      name: 'Ready',
      cell: (object) =>
        `${Number(field(object, 'status', 'readyReplicas') ?? 0)}/${Number(field(object, 'spec', 'replicas') ?? 0)}`,
    },
    count('Up-to-date', 'status', 'updatedReplicas'),
    count('Available', 'status', 'availableReplicas'),
    age,
    ...containers,
  ],
  'replicasets.apps': [
    name,
    count('Desired', 'spec', 'replicas'),
    count('Current', 'status', 'replicas'),
    count('Ready', 'status', 'readyReplicas'),
    age,
    ...containers,
  ],
  'servicecidrs.networking.k8s.io': [
    name,
    {
      name: 'CIDRs',
      cell: (object) => ((field(object, 'spec', 'cidrs') as string[] | undefined) ?? []).join(','),
    },
    age,
  ],
  'leases.coordination.k8s.io': [name, text('Holder', 'spec', 'holderIdentity'), age],
  'endpointslices.discovery.k8s.io': [
    name,
    text('AddressType', 'addressType'),
    { name: 'Ports', cell: slicePorts },
    { name: 'Endpoints', cell: sliceEndpoints },
    age,
  ],
};

const plain: readonly Column[] = [
  name,
  { name: 'Created At', cell: (object) => object.metadata.creationTimestamp ?? '' },
];

export function columnsOf(storageId: string): readonly Column[] {
  return columns[storageId] ?? plain;
}
