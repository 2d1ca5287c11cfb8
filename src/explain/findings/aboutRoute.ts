/** What is wrong, or good to know, about the service port that answers. */
import type { Route } from '../../services/types.ts';
import type { Case } from '../case.ts';
import type { ServiceInfo } from '../catalog.ts';
import { formatPlace } from '../packet.ts';
import type { Report } from './finding.ts';
import { noEndpoints, targetPorts } from './noEndpoints.ts';
import { count, elsewhere, names } from './words.ts';

export function aboutRoute(given: Case, route: Route, info: ServiceInfo | undefined, report: Report): void {
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
