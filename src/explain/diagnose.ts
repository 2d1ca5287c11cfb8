/** Finds what is wrong, and says it in words: the classic mistakes around Services. */
import type { Endpoint, Route } from '../services/types.ts';
import { familyOf, isLoopback } from '../services/ip.ts';
import type { Case } from './case.ts';
import type { PodInfo, ServiceInfo } from './catalog.ts';
import type { Outcome } from './outcome.ts';
import { formatPlace } from './packet.ts';
import { answersNodePorts } from './routes.ts';

export interface Finding {
  /** `cause`: why the packet does not arrive; `warning`: it may not; `note`: good to know. */
  readonly severity: 'cause' | 'warning' | 'note';
  /** Stable: `no_endpoints`, `selector_matches_nothing`, … */
  readonly reason: string;
  readonly message: string;
  /** What to do; may be empty. */
  readonly advice: string;
}

type Report = (severity: Finding['severity'], reason: string, message: string, advice?: string) => void;

export function diagnose(given: Case): Finding[] {
  const findings: Finding[] = [];
  const report: Report = (severity, reason, message, advice = '') => {
    if (!findings.some((one) => one.message === message))
      findings.push({ severity, reason, message, advice });
  };
  const { decision, catalog, prediction, rules } = given;
  const [usual] = prediction.possibilities;
  const outcomes = usual?.outcomes ?? [];
  if (rules.kind !== 'wanted') foreignRules(outcomes, report);
  if (decision?.route !== undefined) {
    const info = catalog?.service(`${decision.route.port.namespace}/${decision.route.port.service}`);
    aboutRoute(given, decision.route, info, report);
  } else if (catalog !== undefined) withoutService(given, report);
  staleFlows(given, report);
  goneEndpoints(given, outcomes, report);
  for (const { assumptions } of prediction.possibilities) {
    for (const { kind, question, usual: ordinary } of assumptions) {
      if (kind === 'affinity' || ordinary) continue;
      report('note', 'unknown_condition', `Whether ${question} cannot be told from here.`);
    }
  }
  if (prediction.incomplete) {
    report('note', 'incomplete', 'The rules branch so often that not every possibility was followed.');
  }
  return findings.sort((a, b) => order[a.severity] - order[b.severity]);
}

const order = { cause: 0, warning: 1, note: 2 } as const;

function aboutRoute(given: Case, route: Route, info: ServiceInfo | undefined, report: Report): void {
  const { packet, decision, world } = given;
  const { port } = route;
  const service = `Service ${port.namespace}/${port.service}`;
  if (decision?.outOfRange === true) {
    report(
      'cause',
      'source_range',
      `spec.loadBalancerSourceRanges of ${service} lets only ${port.sourceRanges.join(', ')} in; ${packet.origin.address} is not among them, so the packet is dropped without an answer.`,
      `Add the client's network to spec.loadBalancerSourceRanges, or dial another address of the Service: the list guards load balancer addresses only.`,
    );
  } else if (!route.hasAny) noEndpoints(given, route, service, info, report);
  else if (decision?.kind === 'drop') {
    const field = decision.frontend?.kind === 'clusterIP' ? 'internalTrafficPolicy' : 'externalTrafficPolicy';
    report(
      'cause',
      'local_policy',
      `spec.${field} of ${service} is Local and no ready endpoint is on ${world.nodeName || 'this node'}; ${elsewhere(route.endpoints)}. The packet is dropped without an answer.`,
      field === 'externalTrafficPolicy'
        ? 'Send it to a node that has an endpoint (a load balancer finds them by healthCheckNodePort), run a Pod here, or set the policy to Cluster, which hides the client address.'
        : 'Run a Pod on this node (a DaemonSet), or set the policy to Cluster.',
    );
  }
  const unready = route.endpoints.filter((endpoint) => !endpoint.ready && !endpoint.terminating);
  if (route.hasAny && unready.length > 0) {
    report(
      'note',
      'unready_endpoints',
      `${count(unready.length, 'endpoint')} of ${count(route.endpoints.length, 'endpoint')} ${unready.length === 1 ? 'is' : 'are'} not ready and get nothing: ${names(unready)}.`,
    );
  }
  if (decision?.kind === 'endpoint' && decision.endpoints.every(({ ready }) => !ready)) {
    report(
      'warning',
      'only_terminating',
      `Nobody is ready: Pods that are shutting down (${names(decision.endpoints)}) serve as long as they can.`,
    );
  }
  if (info !== undefined) targetPorts(given, route, service, info, report);
  for (const lost of route.lostFrontends) {
    report(
      'warning',
      'duplicate_frontend',
      `Another, older Service has ${formatPlace(lost.ip || '*', lost.port)}: ${service} does not answer there.`,
    );
  }
}

function noEndpoints(
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
function targetPorts(given: Case, route: Route, service: string, info: ServiceInfo, report: Report): void {
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

function withoutService(given: Case, report: Report): void {
  const { packet, catalog, wanted, world, prediction } = given;
  if (catalog === undefined || wanted === undefined) return;
  const { destination, destinationPort, protocol, family } = packet;
  const here = (info: ServiceInfo): boolean => {
    const { clusterIP, clusterIPs, externalIPs, loadBalancerIngress } = info.service;
    return [clusterIP, ...clusterIPs, ...externalIPs, ...loadBalancerIngress.map(({ ip }) => ip)].includes(
      destination,
    );
  };
  const owner = catalog.services.find(here);
  if (owner !== undefined) {
    const { name, ports, passedOver } = owner;
    if (passedOver !== undefined) {
      report(
        'cause',
        'other_proxy',
        `Service ${name} is not ours to serve: ${passedOver.reason} (${passedOver.field}).`,
        'Remove the label if this proxy is to serve it, or look at the other proxy.',
      );
      return;
    }
    const list = ports
      .map((one) => `${one.name === '' ? '' : `${one.name} `}${one.port}/${one.protocol}`)
      .join(', ');
    const other = ports.find(({ port }) => port === destinationPort);
    const target = ports.find(({ targetPort }) => targetPort === destinationPort);
    const hint =
      other !== undefined
        ? `Port ${destinationPort} is ${other.protocol}, not ${protocol}.`
        : target !== undefined
          ? `${destinationPort} is the targetPort, at which the Pods listen; clients dial ${target.port}.`
          : '';
    report(
      'cause',
      'no_such_port',
      `Service ${name} has no port ${destinationPort}/${protocol}: it has ${list}. ${ending(prediction.possibilities[0]?.outcomes ?? [])}`,
      hint || 'Dial one of these, or add the port to spec.ports.',
    );
    return;
  }
  const ofNodePort = catalog.services.find(({ ports }) =>
    ports.some(({ nodePort, protocol: one }) => nodePort === destinationPort && one === protocol),
  );
  if (ofNodePort !== undefined) {
    const node = catalog.nodeAt(destination);
    if (!world.isNodeAddress(destination)) {
      report(
        'cause',
        'wrong_node_address',
        `${destinationPort} is a node port of Service ${ofNodePort.name}, but ${destination} is not an address of ${world.nodeName || 'this node'}${node === undefined ? '' : ` (it is ${node.meta.name}'s)`}: no rule here translates it.`,
        node === undefined
          ? `Dial an address of a node: ${[...world.localAddresses].filter((ip) => familyOf(ip) === family && world.isNodeAddress(ip) && !isLoopback(ip)).join(', ')}.`
          : `Explain it on that node: --node ${node.meta.name}.`,
      );
    } else if (!answersNodePorts(destination, world, wanted)) {
      report(
        'cause',
        'node_port_addresses',
        `${destinationPort} is a node port of Service ${ofNodePort.name}, but node ports do not answer at ${destination} on ${world.nodeName || 'this node'} (${wanted.mode} mode, nodePortAddresses ${wanted.options.nodePortAddresses.join(', ')}).`,
        'Dial another address of the node, or change nodePortAddresses.',
      );
    }
    return;
  }
  const byTarget = catalog.services.find(({ ports }) =>
    ports.some(
      ({ port, protocol: one, nodePort }) => port === destinationPort && one === protocol && nodePort > 0,
    ),
  );
  if (world.isLocal(destination) || catalog.nodeAt(destination) !== undefined) {
    const nodePort = byTarget?.ports.find(({ port }) => port === destinationPort)?.nodePort;
    report(
      'cause',
      'no_such_node_port',
      `No Service has node port ${destinationPort}/${protocol}.${byTarget === undefined ? '' : ` ${destinationPort} is the port of Service ${byTarget.name} at its cluster IP; its node port is ${nodePort}.`}`,
      nodePort === undefined ? '' : `Dial ${formatPlace(destination, nodePort)}.`,
    );
    return;
  }
  if (world.isPod(destination)) {
    report('note', 'pod_address', `${destination} is the address of a Pod: no Service, no proxy has a say.`);
    return;
  }
  report(
    'cause',
    'no_such_service',
    `No Service answers at ${destination}: it is no cluster IP, external IP or load balancer address of any Service. ${ending(prediction.possibilities[0]?.outcomes ?? [])}`,
    'Was the Service deleted and made anew, with another address? A client may have kept the old one.',
  );
}

function ending(outcomes: readonly Outcome[]): string {
  switch (outcomes[0]?.kind) {
    case 'reject':
      return 'The packet is refused.';
    case 'drop':
      return 'The packet is dropped without an answer.';
    case 'forward':
      return 'The packet is passed on as it is, most likely into the void.';
    case 'node':
      return 'The packet stays on the node; unless a program listens there, it is refused.';
    default:
      return '';
  }
}

/** Chains and tables that a service proxy writes. */
const ours = /^KUBE-|^ipvs$|^ip6? (kube-proxy|pointsman)|kube-proxy/;

function foreignRules(outcomes: readonly Outcome[], report: Report): void {
  for (const { kind, steps, probability } of outcomes) {
    if (kind !== 'drop' && kind !== 'reject') continue;
    const step = steps.at(-1);
    if (step === undefined || ours.test(step.chain) || ours.test(step.base)) continue;
    const share = probability > 0.999 ? '' : ` (${Math.round(probability * 100)} % of the packets)`;
    const what =
      step.effect.kind === 'drop' && step.effect.policy
        ? `the policy of chain ${step.base}`
        : `rule "${step.rule}" in chain ${step.chain} (${step.base})`;
    report(
      'cause',
      'foreign_rule',
      `A rule that is not the service proxy's ${kind === 'drop' ? 'drops' : 'rejects'} the packet${share}: ${what}.`,
      'Find out who wrote it (a firewall, a network policy, a person); the Service itself is not at fault.',
    );
  }
}

function staleFlows(given: Case, report: Report): void {
  const { packet, decision, flows } = given;
  if (packet.protocol !== 'UDP') return;
  const valid = new Set(decision?.route?.reachable.map(({ key }) => key));
  for (const flow of flows) {
    if (flow.protocol !== 'UDP' || flow.source !== packet.origin.address) continue;
    if (flow.destination !== packet.destination || flow.destinationPort !== packet.destinationPort) continue;
    if (packet.sourcePort !== undefined && packet.sourcePort !== flow.sourcePort) continue;
    const endpoint = formatPlace(flow.endpoint, flow.endpointPort);
    if (decision?.route === undefined || valid.has(endpoint)) continue;
    const what =
      flow.endpoint === flow.destination
        ? 'to the Service address itself, untranslated'
        : `to ${endpoint}, which is no endpoint any more`;
    report(
      'cause',
      'stale_udp_flow',
      `The kernel remembers a UDP flow of this client (port ${flow.sourcePort}) ${what}; as long as datagrams come from that port, rules are not asked again${flow.answered ? '' : ', and nobody answers'}.`,
      `Forget it: conntrack -D -p udp --orig-src ${flow.source} --orig-dst ${flow.destination} --orig-port-dst ${flow.destinationPort}`,
    );
  }
}

/** Rules in the kernel that lead to somebody whom the objects do not know (any more). */
function goneEndpoints(given: Case, outcomes: readonly Outcome[], report: Report): void {
  const { decision, rules } = given;
  const route = decision?.route;
  if (route === undefined || rules.kind === 'wanted') return;
  const valid = new Set(route.reachable.map(({ key }) => key));
  for (const { kind, destination, steps } of outcomes) {
    if (kind !== 'endpoint' || valid.has(destination)) continue;
    const remembered = steps.some(({ rule, element }) =>
      /sticky-clients|affinity-|--rcheck/.test(`${rule} ${element ?? ''}`),
    );
    if (remembered) {
      report(
        'cause',
        'affinity_to_gone',
        `Session affinity (spec.sessionAffinity: ClientIP) still sends this client to ${destination}, which is no usable endpoint of Service ${route.port.namespace}/${route.port.service} any more.`,
        'The memory ends after sessionAffinityConfig.clientIP.timeoutSeconds without a new connection; the proxy should have cleaned it: is it running?',
      );
    } else {
      report(
        'cause',
        'rules_behind',
        `The rules lead to ${destination}, which is no usable endpoint of Service ${route.port.namespace}/${route.port.service}: the rules are older than the objects.`,
        'Is the proxy running and in touch with the API server? See its /healthz and log.',
      );
    }
  }
  const chosen = new Set(outcomes.map(({ destination }) => destination));
  // What somebody else drops behind the translation was translated.
  const translated = outcomes.some(({ kind, destination }) => kind === 'endpoint' || valid.has(destination));
  if (decision?.kind === 'endpoint' && !translated) {
    report(
      'cause',
      'rules_missing',
      `The rules do not translate the packet, though Service ${route.port.namespace}/${route.port.service} has endpoints: rules are missing.`,
      'Is the proxy running? pointsman diff shows what is missing.',
    );
  } else if (decision?.kind === 'endpoint' && decision.endpoints.some(({ key }) => !chosen.has(key))) {
    const missing = decision.endpoints.filter(({ key }) => !chosen.has(key));
    if (!outcomes.some(({ steps }) => steps.some(({ rule }) => rule.includes('--rcheck')))) {
      report(
        'warning',
        'endpoint_missing',
        `The rules never choose ${names(missing)}, though ${missing.length === 1 ? 'it is' : 'they are'} ready: the rules are older than the objects.`,
      );
    }
  }
}

function elsewhere(endpoints: readonly Endpoint[]): string {
  const nodes = new Map<string, number>();
  for (const { ready, isLocal, nodeName } of endpoints) {
    if (ready && !isLocal) nodes.set(nodeName, (nodes.get(nodeName) ?? 0) + 1);
  }
  if (nodes.size === 0) return 'nor on any other';
  return [...nodes]
    .slice(0, 4)
    .map(([node, n]) => `${node === '' ? 'another node' : node} has ${n}`)
    .join(', ');
}

function names(endpoints: readonly Endpoint[]): string {
  const shown = endpoints.slice(0, 4).map(({ key, pod }) => (pod === '' ? key : `${key} (Pod ${pod})`));
  return endpoints.length > shown.length
    ? `${shown.join(', ')} and ${endpoints.length - shown.length} more`
    : shown.join(', ');
}

function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? '' : 's'}`;
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

/** Levenshtein distance. */
function edits(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}
