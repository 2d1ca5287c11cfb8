/** EndpointSlices by themselves: what leads nowhere, what no node reads, and what the API server refuses. */
import type { EndpointSlice, Service } from '../api/objects.ts';
import { canonicalIP, formatAddressPort } from '../services/ip.ts';
import type { ClusterObjects } from './cluster.ts';
import type { Findings } from './findings.ts';
import { specialAddress } from './specialAddresses.ts';
import type { Wanted } from './wanted.ts';
import { listOf, mapOf, written } from './written.ts';

const nameLabel = 'metadata.labels["kubernetes.io/service-name"]';

export function checkSlices(cluster: ClusterObjects, { families }: Wanted, findings: Findings): void {
  const services = new Map(cluster.services.map((one) => [`${one.meta.namespace}/${one.meta.name}`, one]));
  const passedOver = new Set<string>();
  for (const { source } of cluster.passedOver) {
    const { namespace, name } = source.object.meta;
    if (source.object.kind === 'Service')
      passedOver.add(`${namespace === '' ? 'default' : namespace}/${name}`);
  }
  const nodes = new Set(cluster.nodes.map(({ meta }) => meta.name));
  const frontends = new Map<string, string>();
  for (const { table } of families)
    for (const { port, frontends: own } of table.routes.values())
      for (const { kind, ip, port: number, protocol } of own)
        // Other addresses may be those of a machine: what is sent on to one arrives there.
        if (kind === 'clusterIP') frontends.set(`${formatAddressPort(ip, number)}/${protocol}`, port.name);
  const owners = new Set<string>();
  for (const slice of cluster.slices) {
    const key = `${slice.meta.namespace}/${slice.serviceName}`;
    const service = services.get(key);
    owners.add(key);
    if (slice.serviceName !== '' && service === undefined && !passedOver.has(key)) {
      const message = `there is no Service ${key}: the slice leads nowhere`;
      findings.about('warning', slice, nameLabel, 'no_service', message);
    }
    checkType(slice, findings);
    checkSlicePorts(slice, service, findings);
    checkAddresses(slice, cluster, frontends, nodes, findings);
  }
  for (const { value, file, line } of cluster.legacyEndpoints ?? []) {
    const { name, namespace } = mapOf(value['metadata']);
    const key = `${typeof namespace === 'string' ? namespace : 'default'}/${String(name)}`;
    if (owners.has(key)) continue;
    const object = `Endpoints ${key}`;
    const message =
      'no node reads Endpoints: the control plane copies those of Services without a selector into EndpointSlices, which are not here';
    findings.list.push({
      severity: 'warning',
      reason: 'legacy_endpoints',
      file,
      line,
      column: 1,
      object,
      field: '',
      message,
    });
  }
}

function checkType(slice: EndpointSlice, findings: Findings): void {
  if (slice.addressType === '')
    findings.about('error', slice, 'addressType', 'no_address_type', 'is missing: IPv4 or IPv6');
  else if (slice.addressType === 'FQDN')
    findings.about(
      'warning',
      slice,
      'addressType',
      'fqdn_slice',
      'no node reads names (FQDN): the slice leads nowhere',
    );
}

function checkSlicePorts(slice: EndpointSlice, service: Service | undefined, findings: Findings): void {
  if (slice.ports.length === 0) {
    const message = 'there are none: the slice leads nowhere';
    findings.about('warning', slice, 'ports', 'no_slice_ports', message);
  }
  const joined = slice.ports.map(({ name, protocol }) =>
    service?.ports.some((one) => one.name === (name ?? '') && one.protocol === protocol),
  );
  const seen = new Set<string>();
  slice.ports.forEach(({ name, protocol }, i) => {
    const text = `${name === null || name === '' ? '(no name)' : name}/${protocol}`;
    if (seen.has(text))
      findings.about(
        'error',
        slice,
        `ports[${i}]`,
        'port_twice',
        `${text} comes before in this slice: the API server refuses it twice`,
      );
    seen.add(text);
    // Where none fits, the Service's ports say so.
    if (!joined.includes(true) || joined[i] === true) return;
    const message = `${text} is no port of the Service: nothing leads to it`;
    findings.about('warning', slice, `ports[${i}]`, 'unused_slice_port', message);
  });
}

function checkAddresses(
  slice: EndpointSlice,
  cluster: ClusterObjects,
  frontends: ReadonlyMap<string, string>,
  nodes: ReadonlySet<string>,
  findings: Findings,
): void {
  const raw = listOf(written(slice, cluster)?.['endpoints']);
  const seen = new Map<string, number>();
  slice.endpoints.forEach(({ address, nodeName }, i) => {
    const field = `endpoints[${i}]`;
    const addresses = listOf(mapOf(raw[i])['addresses']);
    if (addresses.length > 1) {
      const message = `only the first of ${addresses.length} addresses is used: the others need endpoints of their own`;
      findings.about('warning', slice, `${field}.addresses[1]`, 'more_addresses', message);
    }
    if (nodes.size > 1 && nodeName !== '' && !nodes.has(nodeName)) {
      const message = `there is no Node ${nodeName} among the objects`;
      findings.about('warning', slice, `${field}.nodeName`, 'unknown_endpoint_node', message);
    }
    const ip = canonicalIP(address);
    if (ip === undefined) return;
    const special = specialAddress(ip);
    if (special !== undefined) {
      const { what, isRefused } = special;
      const message = `${ip} is ${what}${isRefused ? ', which the API server refuses as an endpoint' : ': no Pod has it'}`;
      const severity = isRefused ? 'error' : 'warning';
      findings.about(severity, slice, `${field}.addresses[0]`, 'special_address', message);
    }
    const earlier = seen.get(ip);
    if (earlier === undefined) seen.set(ip, i);
    else {
      const message = `${ip} is endpoints[${earlier}], too: one of them counts`;
      findings.about('warning', slice, `${field}.addresses[0]`, 'endpoint_twice', message);
    }
    for (const { port, protocol } of slice.ports) {
      const owner = frontends.get(`${formatAddressPort(ip, port ?? 0)}/${protocol}`);
      if (owner === undefined) continue;
      const message = `${ip}:${port} is an address of Service ${owner}, and nodes do not follow a Service to another: give its Pods, or use a DNS name`;
      findings.about('warning', slice, `${field}.addresses[0]`, 'endpoint_is_service', message);
      break;
    }
  });
}
