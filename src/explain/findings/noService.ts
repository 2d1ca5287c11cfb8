/** Why no Service answers at an address and port. */
import { familyOf, isLoopback } from '../../services/ip.ts';
import type { Case } from '../case.ts';
import type { Catalog, ServiceInfo } from '../catalog.ts';
import type { Outcome } from '../outcome.ts';
import { formatPlace } from '../packet.ts';
import { answersNodePorts, isInside } from '../routes.ts';
import { programName } from '../../programName.ts';
import type { Report } from './finding.ts';

export function withoutService(given: Case, report: Report): void {
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
    const mode = owner.service.loadBalancerIngress.find(({ ip }) => ip === destination)?.ipMode;
    const isOther = [
      owner.service.clusterIP,
      ...owner.service.clusterIPs,
      ...owner.service.externalIPs,
    ].includes(destination);
    if (mode === 'Proxy' && !isOther) {
      report(
        'note',
        'load_balancer_proxy',
        `${destination} is a load balancer address of Service ${name} with ipMode: Proxy: nodes leave it to the load balancer, which takes every connection itself and sends it on to a node port or a Pod.`,
        'If it does not answer, the load balancer is at fault, or its way to the nodes: ask about a node port next.',
      );
      return;
    }
    // It has this very port, and no rule for it.
    if (ports.some(({ port, protocol: one }) => port === destinationPort && one === protocol)) {
      report(
        'cause',
        'not_served',
        `Service ${name} has ${destination} and port ${destinationPort}/${protocol}, but no rule: something in the object keeps proxies from serving it.`,
        `${programName} render --check says what is wrong with it.`,
      );
      return;
    }
    const list = ports
      .map((one) => `${one.name === '' ? '' : `${one.name} `}${one.port}/${one.protocol}`)
      .join(', ');
    const other = ports.find(({ port }) => port === destinationPort);
    const asNodePort = ports.find(({ nodePort }) => nodePort === destinationPort);
    const target = ports.find(
      ({ name: portName, protocol: one, targetPort }) =>
        targetPort === destinationPort ||
        // It may be a name: what it stands for, the slices say.
        owner.slices.some((slice) =>
          slice.ports.some(
            (said) =>
              said.port === destinationPort && said.protocol === one && (said.name ?? '') === portName,
          ),
        ),
    );
    const hint =
      other !== undefined
        ? `Port ${destinationPort} is ${other.protocol}, not ${protocol}.`
        : target !== undefined
          ? `${destinationPort} is the targetPort, at which the Pods listen; clients dial ${target.port}.`
          : asNodePort !== undefined
            ? `${destinationPort} is its node port: it is for addresses of nodes; at this address dial ${asNodePort.port}.`
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
  const checked = catalog.services.find(
    ({ service }) => protocol === 'TCP' && service.healthCheckNodePort === destinationPort,
  );
  if (checked !== undefined && world.isNodeAddress(destination)) {
    report(
      'note',
      'health_check_port',
      `${destinationPort} is the healthCheckNodePort of Service ${checked.name}: there the proxy itself tells load balancers whether this node has endpoints. It leads to no Pod.`,
    );
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
    podAddress(given, catalog, report);
    return;
  }
  const wanting = catalog.services.find(({ wantedBalancer }) => wantedBalancer.ip === destination);
  if (wanting !== undefined) {
    report(
      'cause',
      'load_balancer_pending',
      `Service ${wanting.name} asks for ${destination} (spec.loadBalancerIP), but has not got it: ${balancerState(wanting)}. Until then no rule knows the address.`,
      balancerAdvice(wanting),
    );
    return;
  }
  const said = `No Service answers at ${destination}: it is no cluster IP, external IP or load balancer address of any Service`;
  const deleted =
    'was the Service deleted and made anew, with another address? A client may have kept the old one.';
  const pending = catalog.services.find(
    ({ service, passedOver }) =>
      passedOver === undefined &&
      service.type === 'LoadBalancer' &&
      service.loadBalancerIngress.every(({ ip }) => ip === ''),
  );
  const promised =
    pending === undefined
      ? ''
      : `Is it to be the address of Service ${pending.name}? That has none yet, because ${balancerState(pending)}. ${balancerAdvice(pending)}`;
  if (isInside(wanted.serviceCIDRs, destination)) {
    const outcome = ending(prediction.possibilities[0]?.outcomes ?? []);
    report(
      'cause',
      'no_such_service',
      `${said}, though of a range for cluster IPs. ${outcome}`,
      capital(deleted),
    );
  } else if (wanted.serviceCIDRs.some((range) => familyOf(range.split('/')[0]!) === family)) {
    report(
      'note',
      'no_such_service',
      `${said}, and of no range for cluster IPs. The proxy has no say: it is routed like any other packet.`,
      promised,
    );
  } else {
    report(
      'cause',
      'no_such_service',
      `${said}. The proxy has no say: the packet is routed like any other.`,
      promised || `If this was the address of a Service: ${deleted}`,
    );
  }
}

/** Why nodes know no address of its load balancer. */
function balancerState({ balancerNames, wantedBalancer: { className } }: ServiceInfo): string {
  if (balancerNames.length > 0)
    return `status.loadBalancer has the host name ${balancerNames[0]} only, which is for clients, not for nodes`;
  return className === ''
    ? 'nobody has made a load balancer for it (status.loadBalancer is empty)'
    : `the controller for spec.loadBalancerClass ${className} has made none (status.loadBalancer is empty)`;
}

function balancerAdvice({ balancerNames, wantedBalancer: { className } }: ServiceInfo): string {
  if (balancerNames.length > 0) return `Dial ${balancerNames[0]}.`;
  return className === ''
    ? 'Is there a controller for load balancers in the cluster (of the cloud, or MetalLB and the like)? kubectl describe service shows its events.'
    : 'Does the controller of that class run? Is the class misspelt? kubectl describe service shows its events.';
}

/** A Pod is dialled past its Services. */
function podAddress({ packet, wanted }: Case, catalog: Catalog, report: Report): void {
  const { destination, destinationPort, protocol } = packet;
  const direct = 'no Service, no proxy has a say';
  const pod = catalog.podAt(destination);
  if (pod === undefined) {
    const isEndpoint = [...(wanted?.table.routes.values() ?? [])].some(({ endpoints }) =>
      endpoints.some(({ ip }) => ip === destination),
    );
    if (catalog.pods.some(({ ips }) => ips.length > 0) && !isEndpoint)
      report(
        'warning',
        'pod_address',
        `${destination} is of a network of Pods, but no Pod that is known here has it: ${direct}.`,
        'Addresses of Pods are not kept: was the Pod replaced? Dial a Service instead.',
      );
    else report('note', 'pod_address', `${destination} is the address of a Pod: ${direct}.`);
    return;
  }
  const declared = pod.ports.filter((port) => port.protocol === protocol);
  const said = `${destination} is the address of ${pod.name}: ${direct}`;
  if (declared.length === 0 || declared.some(({ port }) => port === destinationPort)) {
    report('note', 'pod_address', `${said}.`);
    return;
  }
  const service = catalog.services.find(
    (info) => catalog.selected(info).includes(pod) && info.ports.some(({ port }) => port === destinationPort),
  );
  const known = declared.map(({ name, port }) => `${port}${name === '' ? '' : ` (${name})`}`).join(', ');
  const whose = service === undefined ? '' : ` ${destinationPort} is the port of Service ${service.name}.`;
  report(
    'warning',
    'pod_address',
    `${said}. Its containers declare ${known}, not ${destinationPort}.${whose}`,
    `Dial ${formatPlace(destination, declared[0]!.port)}${service === undefined ? '' : `, or the Service: ${service.name}:${destinationPort}`}.`,
  );
}

function capital(sentence: string): string {
  return sentence.charAt(0).toUpperCase() + sentence.slice(1);
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
