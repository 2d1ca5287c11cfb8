/** Why a Service has no endpoint to use, and whether its ports are those of its Pods. */
import { edits, meant } from '../../config/spelling.ts';
import { canonicalIP, familyOf } from '../../services/ip.ts';
import type { Route } from '../../services/types.ts';
import type { Case } from '../case.ts';
import type { Catalog, PodInfo, ServiceInfo } from '../catalog.ts';
import type { Report } from './finding.ts';
import { count, list, names } from './words.ts';

export function noEndpoints(
  given: Case,
  route: Route,
  service: string,
  info: ServiceInfo | undefined,
  report: Report,
): void {
  const { catalog } = given;
  const refused = consequence(given);
  const { portName, protocol, family } = route.port;
  const slices = info?.slices ?? [];
  if (route.endpoints.length > 0) {
    const unready = route.endpoints;
    if (unready.every(({ terminating }) => terminating)) {
      report(
        'cause',
        'terminating',
        `${service} has ${count(unready.length, 'endpoint')}, but ${unready.length === 1 ? 'it is' : 'all are'} shutting down and ${unready.length === 1 ? 'serves' : 'serve'} no more, ${refused}: ${names(unready)}.`,
        'Was it scaled to nothing, or are the new Pods not ready yet? kubectl get pods',
      );
      return;
    }
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
      const abroad = catalog.pods.find((pod) =>
        Object.entries(selector).every(([key, value]) => pod.labels[key] === value),
      );
      const facts = [
        ...(near === undefined ? [] : [`${near.pod.name} has ${near.have}`]),
        ...(abroad === undefined
          ? []
          : [
              `${abroad.name} has these labels, but a selector finds only Pods of the Service's own namespace`,
            ]),
      ];
      const but = facts.join('; ') || `there is no Pod like that in namespace ${info.namespace}`;
      const move =
        abroad === undefined
          ? ''
          : `Make the Service in namespace ${abroad.namespace}, or the Pods in ${info.namespace}.`;
      report(
        'cause',
        'selector_matches_nothing',
        `spec.selector of ${service} is ${wanted}, which matches no Pod: ${but}. Without a Pod it has no endpoints, ${refused}.`,
        near === undefined
          ? move || 'Correct spec.selector, or create the Pods.'
          : `Is spec.selector misspelt? Set it to ${near.have}, or change the label.${move === '' ? '' : ` If it is right: ${move.charAt(0).toLowerCase()}${move.slice(1)}`}`,
      );
      return;
    }
  }
  if (info !== undefined && catalog !== undefined) {
    if (notRunning(info, catalog, service, refused, report)) return;
    if (namedPort(info, route, catalog, service, refused, report)) return;
  }
  const ofFamily = slices.filter(({ addressType }) => addressType === family);
  if (slices.length > 0 && ofFamily.length === 0) {
    const wrong = slices.find(({ endpoints }) =>
      endpoints.some(
        ({ address }) => canonicalIP(address) !== undefined && familyOf(canonicalIP(address)!) === family,
      ),
    );
    const types = [...new Set(slices.map(({ addressType }) => addressType))];
    report(
      'cause',
      'wrong_family',
      wrong === undefined
        ? `${service} has endpoints of ${types.join(', ')} only, and the packet is ${family}, ${refused}.`
        : `EndpointSlice ${wrong.meta.namespace}/${wrong.meta.name} of ${service} says addressType ${wrong.addressType}, but its addresses are ${family}: proxies pass over them, ${refused}.`,
      wrong !== undefined
        ? `Make the slice anew with addressType ${family}; the field cannot be changed.`
        : types.every((type) => type === 'FQDN')
          ? 'No proxy serves slices of names (FQDN): give addresses, or make the Service one of type ExternalName.'
          : `Pods need ${family} addresses, or clients must dial the Service's other address.`,
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
  const stray = slices.length > 0 || info === undefined ? undefined : misspeltOwner(info, catalog);
  if (stray !== undefined) {
    report(
      'cause',
      'slice_label',
      `No EndpointSlice is labelled as one of ${service}; there is one of ${stray}, and no such Service, ${refused}.`,
      `Is the label kubernetes.io/service-name of the EndpointSlice misspelt? Set it to ${info?.service.meta.name ?? ''}.`,
    );
    return;
  }
  if (slices.length === 0 && info !== undefined && strayedSlice(info, catalog, service, refused, report))
    return;
  const how =
    slices.length === 0 && info?.published !== false
      ? 'there is no EndpointSlice for it'
      : 'its EndpointSlices are empty';
  report(
    'cause',
    'no_endpoints',
    `${service} has no endpoints anywhere (${how}), ${refused}.`,
    adviceWithoutEndpoints(info),
  );
}

/** `namespace/name` of a Service that is not there, has slices, and is called almost as this one. */
function misspeltOwner(
  { namespace, service }: ServiceInfo,
  catalog: Catalog | undefined,
): string | undefined {
  const prefix = `${namespace}/`;
  const own = service.meta.name;
  // Two letters that changed places are two edits; of short names that is much, so that the first letter has to be right.
  const owners = (catalog?.strayOwners ?? []).filter((owner) => owner.startsWith(prefix + own.charAt(0)));
  const names = owners.map((owner) => owner.slice(prefix.length));
  const name = meant(own, names, Math.max(2, Math.floor(own.length / 3)));
  return name === undefined ? undefined : prefix + name;
}

/** A slice that was probably meant for the Service, and is not taken for its own. */
function strayedSlice(
  info: ServiceInfo,
  catalog: Catalog | undefined,
  service: string,
  refused: string,
  report: Report,
): boolean {
  const { namespace, name } = info;
  const short = info.service.meta.name;
  const passedOver = catalog?.slicesPassedOver.find(({ owner }) => owner === name);
  if (passedOver !== undefined) {
    report(
      'cause',
      'slice_label',
      `EndpointSlice ${passedOver.name} is of ${service}, but proxies pass over it: ${passedOver.field} says that the Service is headless, ${refused}.`,
      'Remove the label service.kubernetes.io/headless from the slice.',
    );
    return true;
  }
  const ips = new Set(catalog === undefined ? [] : catalog.selected(info).flatMap((pod) => pod.ips));
  const stray = catalog?.straySlices.find(
    ({ meta, serviceName, endpoints }) =>
      (serviceName === short && meta.namespace !== namespace) ||
      (serviceName === '' &&
        meta.namespace === namespace &&
        (meta.name.startsWith(short) || endpoints.some(({ address }) => ips.has(address)))),
  );
  if (stray === undefined) return false;
  const slice = `EndpointSlice ${stray.meta.namespace}/${stray.meta.name}`;
  if (stray.serviceName === '')
    report(
      'cause',
      'slice_label',
      `${slice} has no label kubernetes.io/service-name, so it is nobody's: ${service} has no endpoints, ${refused}.`,
      `Give it the label: kubectl label endpointslice -n ${namespace} ${stray.meta.name} kubernetes.io/service-name=${short}`,
    );
  else
    report(
      'cause',
      'slice_label',
      `${slice} is labelled as one of a Service ${short}, but it is in namespace ${stray.meta.namespace}, and ${service} takes slices of its own namespace only, ${refused}.`,
      `Make the slice in namespace ${namespace}.`,
    );
  return true;
}

/** Without endpoints the rules refuse; but in iptables mode not everywhere. */
function consequence({ decision }: Case): string {
  return decision?.kind === 'forward'
    ? 'so no rule translates the packet'
    : 'so connections are refused (port unreachable)';
}

function adviceWithoutEndpoints(info: ServiceInfo | undefined): string {
  const shown = 'kubectl get endpointslices shows what it has.';
  if (info?.published !== true)
    return `Are its Pods running, and does spec.selector match their labels? ${shown}`;
  if (info.selector === undefined)
    return `It has no spec.selector, so nobody finds Pods for it: set one, or write its EndpointSlices yourself. ${shown}`;
  const labels = Object.entries(info.selector).map(([key, value]) => `${key}=${value}`);
  return `Are there Pods that match its selector, and do they run? kubectl get pods -n ${info.namespace} -l ${labels.join(',')}`;
}

/** Its Pods are there, but have no addresses. */
function notRunning(
  info: ServiceInfo,
  catalog: Catalog,
  service: string,
  refused: string,
  report: Report,
): boolean {
  const pods = catalog.selected(info).filter(({ name }) => name.startsWith('Pod '));
  if (pods.length === 0 || pods.some(({ ips, phase }) => ips.length > 0 && !isOver(phase))) return false;
  const states = pods.map(({ name, phase }) => `${name}${phase === '' ? '' : ` (${phase})`}`);
  report(
    'cause',
    'not_running',
    `The ${pods.length === 1 ? 'Pod' : 'Pods'} that ${service} selects ${pods.length === 1 ? 'does' : 'do'} not run, ${refused}: ${list(states)}.`,
    'kubectl describe pod says what it waits for, or why it ended.',
  );
  return true;
}

function isOver(phase: string): boolean {
  return phase === 'Succeeded' || phase === 'Failed';
}

/** A targetPort that is a name has to be the name of a port of the Pods' containers. */
function namedPort(
  info: ServiceInfo,
  { port }: Route,
  catalog: Catalog,
  service: string,
  refused: string,
  report: Report,
): boolean {
  const target = info.ports.find(
    ({ name, protocol }) => name === port.portName && protocol === port.protocol,
  )?.targetPort;
  const pods = catalog.selected(info);
  if (typeof target !== 'string' || pods.length === 0) return false;
  const fits = (one: PodInfo['ports'][number]): boolean =>
    one.name === target && one.protocol === port.protocol;
  if (pods.some(({ ports }) => ports.some(fits))) return false;
  const have = [
    ...new Set(
      pods.flatMap(({ ports }) =>
        ports.map(({ name, port: number, protocol }) =>
          [name === '' ? String(number) : `${name}=${number}`, protocol === 'TCP' ? '' : `/${protocol}`].join(
            '',
          ),
        ),
      ),
    ),
  ];
  const near = meant(
    target,
    pods.flatMap(({ ports }) => ports.map(({ name }) => name)).filter((name) => name !== ''),
  );
  const wrongProtocol = pods.some(({ ports }) => ports.some(({ name }) => name === target));
  report(
    'cause',
    'target_port_name',
    `spec.ports[].targetPort of ${service} is the name "${target}", and no container of ${list(pods.map(({ name }) => name))} has a ${port.protocol} port of that name: ${have.length === 0 ? 'they declare no ports' : `they have ${list(have, 6)}`}. So Kubernetes finds no port to send to, and ${refused.replace(/^so /, '')}.`,
    wrongProtocol
      ? `The port "${target}" of the containers is of another protocol: make them equal.`
      : near === undefined
        ? 'Set targetPort to the name or the number of a port of the containers, or name the port there.'
        : `Is it misspelt? Set targetPort to ${near}.`,
  );
  return true;
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
    .map(({ name, port, protocol }) => {
      const place = protocol === route.port.protocol ? String(port) : `${port}/${protocol}`;
      return name === '' ? place : `${place} (${name})`;
    })
    .join(', ');
  const place = route.port.protocol === 'TCP' ? String(number) : `${number}/${route.port.protocol}`;
  report(
    'warning',
    'target_port',
    `spec.ports[].targetPort of ${service} leads to port ${place}, but the containers of ${pod.name} declare ${have}. If nobody listens at ${place}, the Pod itself refuses the connection.`,
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
