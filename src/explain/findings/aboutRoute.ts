/** What is wrong, or good to know, about the service port that answers. */
import type { Route } from '../../services/types.ts';
import type { Case } from '../case.ts';
import type { ServiceInfo } from '../catalog.ts';
import { formatPlace } from '../packet.ts';
import { isInside, isUnserved, type Decision } from '../routes.ts';
import type { Report } from './finding.ts';
import { noEndpoints, targetPorts } from './noEndpoints.ts';
import { count, elsewhere, names } from './words.ts';

export function aboutRoute(given: Case, route: Route, info: ServiceInfo | undefined, report: Report): void {
  const { packet, decision, world } = given;
  const { port } = route;
  const service = `Service ${port.namespace}/${port.service}`;
  const sender = given.catalog?.podAt(packet.origin.address)?.node ?? '';
  if (
    packet.origin.kind === 'podElsewhere' &&
    // Another node's rules leave node ports at this one's addresses alone.
    decision?.frontend?.kind !== 'nodePort' &&
    sender !== '' &&
    world.nodeName !== '' &&
    sender !== world.nodeName
  )
    report(
      'warning',
      'other_node',
      `${packet.origin.name}: the rules of that node are the first to see its packets, and these are the rules of ${world.nodeName}.`,
      `Ask about that node: --node ${sender}; or on it.`,
    );
  if (decision?.outOfRange === true) {
    report(
      'cause',
      'source_range',
      `spec.loadBalancerSourceRanges of ${service} lets only ${port.sourceRanges.join(', ')} in; ${packet.origin.address} is not among them, so the packet is dropped without an answer.`,
      `Add the client's network to spec.loadBalancerSourceRanges, or dial another address of the Service: the list guards load balancer addresses only.`,
    );
  } else if (isUnserved(given.mode, packet.protocol)) {
    report(
      'cause',
      'protocol_not_served',
      `Userspace mode serves TCP and UDP only: ${packet.protocol} connections to ${service} are refused, whatever endpoints it has.`,
      "Run another mode on this node (--proxy-mode nftables), or use a Pod's address.",
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
      `${unready.length} of ${count(route.endpoints.length, 'endpoint')} ${unready.length === 1 ? 'is not ready and gets' : 'are not ready and get'} nothing: ${names(unready)}.`,
    );
  }
  if (decision?.kind === 'endpoint') goodToKnow(given, decision, route, service, info, report);
  if (decision?.kind === 'endpoint' && decision.endpoints.every(({ ready }) => !ready)) {
    report(
      'warning',
      'only_terminating',
      `Nobody is ready: Pods that are shutting down (${names(decision.endpoints)}) serve as long as they can.`,
    );
  }
  if (info !== undefined) targetPorts(given, route, service, info, report);
  for (const other of given.wanted?.table.routes.values() ?? []) {
    const claims = other.lostFrontends.some(
      ({ ip, port: number, protocol, kind }) =>
        number === packet.destinationPort &&
        protocol === packet.protocol &&
        (kind === 'nodePort' ? decision?.frontend?.kind === 'nodePort' : ip === packet.destination),
    );
    if (!claims || other === route) continue;
    const loser = `Service ${other.port.namespace}/${other.port.service}`;
    report(
      'warning',
      'duplicate_frontend',
      `Two Services claim ${formatPlace(packet.destination, packet.destinationPort)}: ${service}, which is older and has it, and ${loser}, whose clients reach ${service} instead.`,
      `Give ${loser} another ${decision?.frontend?.kind === 'nodePort' ? 'node port' : 'address'}.`,
    );
  }
  for (const lost of route.lostFrontends) {
    report(
      'warning',
      'duplicate_frontend',
      `Another, older Service has ${formatPlace(lost.ip || '*', lost.port)}: ${service} does not answer there.`,
    );
  }
}

/** What surprises people about a Service that works. */
function goodToKnow(
  { packet, catalog, world }: Case,
  { endpoints, frontend }: Decision,
  route: Route,
  service: string,
  info: ServiceInfo | undefined,
  report: Report,
): void {
  const { port } = route;
  const outside = packet.origin.kind === 'outside' && !world.isPod(packet.origin.address);
  const sender = outside ? catalog?.nodeAt(packet.origin.address) : undefined;
  if (sender !== undefined && frontend?.kind !== 'nodePort') {
    report(
      'warning',
      'other_node',
      `A program on ${sender.meta.name} sends it: the rules of that node are the first to see its packets, and these are the rules of ${world.nodeName || 'this node'}.`,
      `Ask about that node: --node ${sender.meta.name} --from node; or on it.`,
    );
  } else if (frontend?.kind === 'clusterIP' && outside) {
    report(
      'warning',
      'cluster_ip_from_outside',
      `${packet.destination} is a cluster IP: outside the cluster nobody has a route to it, so the packet usually never comes to a node.`,
      `Clients outside dial a node port or a load balancer (spec.type NodePort, LoadBalancer). If the client is a Pod, say so: --from pod/NAMESPACE/NAME.`,
    );
  }
  if (frontend?.kind === 'externalIP' && packet.origin.kind === 'outside') {
    report(
      'note',
      'external_ip',
      `${packet.destination} is in spec.externalIPs of ${service}. Kubernetes brings nobody's packets for it to a node: that is for your network to do.`,
      'If nothing arrives, see where the routers send this address.',
    );
  }
  const { sourceRanges } = port;
  if (
    sourceRanges.length > 0 &&
    packet.origin.kind === 'outside' &&
    (frontend?.kind === 'nodePort' || frontend?.kind === 'externalIP') &&
    !isInside(sourceRanges, packet.origin.address)
  ) {
    report(
      'note',
      'ranges_elsewhere',
      `spec.loadBalancerSourceRanges of ${service} (${sourceRanges.join(', ')}) guards its load balancer addresses only: at ${formatPlace(packet.destination, packet.destinationPort)} everybody is let in.`,
    );
  }
  const ready = route.endpoints.filter((endpoint) => endpoint.ready);
  const chosen = new Set(endpoints);
  const passed = ready.filter((endpoint) => !chosen.has(endpoint));
  if (passed.length > 0 && endpoints.some((endpoint) => endpoint.ready)) {
    const local = endpoints === route.local && endpoints !== route.cluster;
    const field = frontend?.kind === 'clusterIP' ? 'internalTrafficPolicy' : 'externalTrafficPolicy';
    report(
      'note',
      local ? 'local_only' : 'topology',
      local
        ? `spec.${field} of ${service} is Local: only endpoints on ${world.nodeName || 'this node'} are used. Not used: ${names(passed)}.`
        : `Hints of the EndpointSlices (spec.trafficDistribution, or topology-aware routing) keep the traffic near: ${count(endpoints.length, 'endpoint')} of ${ready.length} ${endpoints.length === 1 ? 'is' : 'are'} used from ${world.nodeName || 'this node'}. Not used: ${names(passed)}.`,
    );
  }
  if (endpoints.some(({ ip }) => ip === packet.origin.address)) {
    report(
      'note',
      'hairpin',
      `One of the endpoints is the client itself. Such a connection leaves the Pod and comes back to it, with the node's address as its source.`,
      'If only these connections hang, the network plugin does not send packets back where they came from: switch on hairpin mode.',
    );
  }
  if (port.affinitySeconds > 0) {
    report(
      'note',
      'affinity',
      `spec.sessionAffinity: ClientIP: a client goes where it went before, until it has stayed away for ${port.affinitySeconds} s. Clients behind one address count as one.`,
    );
  }
  if (info?.publishesUnready === true) {
    const unready = endpoints.filter(({ ip }) => catalog?.podAt(ip)?.ready === false);
    if (unready.length > 0)
      report(
        'warning',
        'unready_published',
        `spec.publishNotReadyAddresses of ${service} is true, so Pods that are not ready get connections, too: ${names(unready)}.`,
        'Set it to false, unless the Pods have to find each other before they are ready.',
      );
  }
}
