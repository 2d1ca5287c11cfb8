/** Why a Service has no endpoint to use, and whether its ports are those of its Pods. */
import type { Route } from '../../services/types.ts';
import type { Case } from '../case.ts';
import type { PodInfo, ServiceInfo } from '../catalog.ts';
import type { Report } from './finding.ts';
import { count, edits, names } from './words.ts';

export function noEndpoints(
  given: Case,
  route: Route,
  service: string,
  info: ServiceInfo | undefined,
  report: Report,
): void {
  const { packet, catalog } = given;
  const refused = 'so connections are refused (port unreachable)';
  const { portName, protocol, family } = route.port;
  const slices = info?.slices ?? [];
  if (route.endpoints.length > 0) {
    const unready = route.endpoints;
    report(
      'cause',
      'not_ready',
      `${service} has ${count(unready.length, 'endpoint')}, but none is ready, ${refused}: ${names(unready)}.`,
      'See why the readiness probe of these Pods fails: kubectl describe pod.',
    );
    return;
  }
  const selector = info?.selector;
  if (info !== undefined && selector !== undefined && catalog !== undefined && catalog.pods.length > 0) {
    if (catalog.selected(info).length === 0) {
      const wanted = Object.entries(selector)
        .map(([key, value]) => `${key}=${value}`)
        .join(',');
      const near = nearest(
        selector,
        catalog.pods.filter(({ namespace }) => namespace === info.namespace),
      );
      const but =
        near === undefined
          ? `there is no Pod like that in namespace ${info.namespace}`
          : `${near.pod.name} has ${near.have}`;
      report(
        'cause',
        'selector_matches_nothing',
        `spec.selector of ${service} is ${wanted}, which matches no Pod: ${but}. Without a Pod it has no endpoints, ${refused}.`,
        near === undefined
          ? 'Correct spec.selector, or create the Pods.'
          : `Is spec.selector misspelt? Set it to ${near.have}, or change the label.`,
      );
      return;
    }
  }
  const ofFamily = slices.filter(({ addressType }) => addressType === family);
  if (slices.length > 0 && ofFamily.length === 0) {
    report(
      'cause',
      'wrong_family',
      `${service} has endpoints of ${[...new Set(slices.map(({ addressType }) => addressType))].join(', ')} only, and the packet is ${family}, ${refused}.`,
      `Pods need ${family} addresses, or clients must dial the Service's other address.`,
    );
    return;
  }
  if (ofFamily.some(({ endpoints }) => endpoints.length > 0)) {
    const ports = [
      ...new Set(
        ofFamily.flatMap((slice) =>
          slice.ports.map(
            (port) =>
              `${port.name === null || port.name === '' ? '(no name)' : port.name} ${port.port}/${port.protocol}`,
          ),
        ),
      ),
    ];
    report(
      'cause',
      'port_name',
      `The EndpointSlices of ${service} have no port named "${portName}" of ${protocol}: they have ${ports.length === 0 ? 'none at all' : ports.join(', ')}, ${refused}.`,
      'The names of spec.ports[] and of the slice’s ports have to be equal; with a named targetPort, the container port must have that name.',
    );
    return;
  }
  const how = slices.length === 0 ? 'there is no EndpointSlice for it' : 'its EndpointSlices are empty';
  report(
    'cause',
    'no_endpoints',
    `${service} has no endpoints anywhere (${how}), ${refused}.`,
    packet.origin.kind === 'outside'
      ? 'Are its Pods running? kubectl get endpointslices shows what it has.'
      : 'Are its Pods running, and does spec.selector match their labels? kubectl get endpointslices shows what it has.',
  );
}

/** The endpoint's port against the ports that the Pods' containers declare. */
export function targetPorts(
  given: Case,
  route: Route,
  service: string,
  info: ServiceInfo,
  report: Report,
): void {
  const { catalog } = given;
  if (catalog === undefined) return;
  const spec = info.ports.find(
    ({ name, protocol }) => name === route.port.portName && protocol === route.port.protocol,
  );
  const candidates: (readonly [PodInfo, number])[] = [];
  for (const endpoint of route.endpoints) {
    const pod = catalog.podAt(endpoint.ip) ?? catalog.pods.find(({ name }) => name === `Pod ${endpoint.pod}`);
    if (pod !== undefined) candidates.push([pod, endpoint.port]);
  }
  if (candidates.length === 0 && typeof spec?.targetPort === 'number') {
    for (const pod of catalog.selected(info)) candidates.push([pod, spec.targetPort]);
  }
  const wrong = candidates.filter(
    ([{ ports }, number]) =>
      ports.length > 0 &&
      !ports.some(({ port, protocol }) => port === number && protocol === route.port.protocol),
  );
  const [first] = wrong;
  if (first === undefined) return;
  const [pod, number] = first;
  const have = pod.ports
    .map(({ name, port }) => (name === '' ? String(port) : `${port} (${name})`))
    .join(', ');
  report(
    'warning',
    'target_port',
    `spec.ports[].targetPort of ${service} leads to port ${number}, but the containers of ${pod.name} declare ${have}. If nobody listens at ${number}, the Pod itself refuses the connection.`,
    `Set targetPort to the port the program listens at.`,
  );
}

/** The Pod whose labels come nearest to the selector, and what it has in its place. */
function nearest(
  selector: Readonly<Record<string, string>>,
  pods: readonly PodInfo[],
): { readonly pod: PodInfo; readonly have: string } | undefined {
  let best: { pod: PodInfo; have: string; distance: number } | undefined;
  for (const pod of pods) {
    let distance = 0;
    const have: string[] = [];
    for (const [key, value] of Object.entries(selector)) {
      const [nearKey = key, nearValue] =
        Object.entries(pod.labels)
          .map(([k, v]) => [k, v, edits(k, key) * 2 + edits(v, value)] as const)
          .sort((a, b) => a[2] - b[2])[0] ?? [];
      distance += nearValue === undefined ? 100 : edits(nearKey, key) * 2 + edits(nearValue, value);
      if (nearValue !== undefined) have.push(`${nearKey}=${nearValue}`);
    }
    if (have.length > 0 && (best === undefined || distance < best.distance)) {
      best = { pod, have: [...new Set(have)].join(','), distance };
    }
  }
  return best !== undefined && best.distance <= 8 ? best : undefined;
}
