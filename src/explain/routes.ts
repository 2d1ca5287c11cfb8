/** The same question answered from the routes that are wanted, without any rules: what every mode has to come to. */
import type { DataplaneOptions, Mode } from '../dataplane/dataplane.ts';
import type { LocalDetector } from '../services/localDetection.ts';
import type { ProxyConfig } from '../config/types.ts';
import { cidrContains, isLoopback, parseCIDR } from '../services/ip.ts';
import { matchesAll, matchingAddresses } from '../services/nodePortAddresses.ts';
import type { Endpoint, Frontend, Route, RoutingTable } from '../services/types.ts';
import type { Outcome, OutcomeKind, Prediction } from './outcome.ts';
import { formatPlace, startsHere, type Packet } from './packet.ts';
import type { World } from './world.ts';

export type RuleMode = Mode;

export interface Wanted {
  readonly mode: RuleMode;
  readonly table: RoutingTable;
  readonly options: DataplaneOptions;
  /** Node ports answer on 127.0.0.1 in iptables mode, IPv4; on 127.0.0.0/8 and ::1 in userspace mode. */
  readonly localhostNodePorts: boolean;
  readonly serviceCIDRs: readonly string[];
  /** IPVS mode's `ipvs.scheduler`; absent or empty = rr. */
  readonly scheduler?: string;
  /** Where userspace mode listens; absent = anywhere. */
  readonly listeners?: Pick<ProxyConfig, 'bindAddress' | 'portRange'>;
}

/** Why the source is rewritten; `relay`: the process of userspace mode dials the endpoint itself. */
export type MasqueradeReason = 'all' | 'notFromPod' | 'external' | 'fromNode' | 'hairpin' | 'relay';

/** What the route says about one packet. */
export interface Decision {
  readonly kind: OutcomeKind;
  readonly route: Route | undefined;
  readonly frontend: Frontend | undefined;
  /** Whom one of is chosen, each as likely as the others. */
  readonly endpoints: readonly Endpoint[];
  /** Empty: the client's address is kept (but see `hairpin` of single endpoints). */
  readonly masquerade: MasqueradeReason | undefined;
  /** Source ranges have refused it. */
  readonly outOfRange: boolean;
}

/** The service port that answers at the packet's destination, if any does on this node. */
export function findFrontend(
  packet: Packet,
  world: World,
  wanted: Wanted,
): { readonly route: Route; readonly frontend: Frontend } | undefined {
  const { destination, destinationPort, protocol } = packet;
  let nodePort: { route: Route; frontend: Frontend } | undefined;
  const answers = answersNodePorts(destination, world, wanted);
  for (const route of wanted.table.routes.values()) {
    for (const frontend of route.frontends) {
      if (frontend.port !== destinationPort || frontend.protocol !== protocol) continue;
      if (frontend.kind === 'nodePort') {
        if (answers) nodePort ??= { route, frontend };
      } else if (frontend.ip === destination) return { route, frontend };
    }
  }
  return nodePort;
}

/** Node ports answer at this address of this node. */
export function answersNodePorts(address: string, world: World, wanted: Wanted): boolean {
  const { options, mode, localhostNodePorts } = wanted;
  if (!world.isNodeAddress(address)) return false;
  if (isLoopback(address)) {
    const possible = mode === 'userspace' || (mode === 'iptables' && !address.includes(':'));
    return (
      possible && localhostNodePorts && matchingAddresses(options.nodePortAddresses, [address]).length > 0
    );
  }
  return (
    matchesAll(options.nodePortAddresses) ||
    matchingAddresses(options.nodePortAddresses, [address]).length > 0
  );
}

export function decide(packet: Packet, world: World, wanted: Wanted): Decision {
  const decision = decideByRoute(packet, world, wanted);
  // The process of userspace mode copies bytes of TCP and UDP; for SCTP it has no listener, so its rules refuse.
  if (isUnserved(wanted.mode, packet.protocol) && decision.kind === 'endpoint')
    return { ...decision, kind: 'reject', endpoints: [], masquerade: undefined };
  return wanted.mode === 'userspace' && decision.kind === 'endpoint'
    ? { ...decision, masquerade: 'relay' }
    : decision;
}

/** No proxy of this mode serves the protocol. */
export function isUnserved(mode: RuleMode, protocol: Packet['protocol']): boolean {
  return mode === 'userspace' && protocol === 'SCTP';
}

function decideByRoute(packet: Packet, world: World, wanted: Wanted): Decision {
  const found = findFrontend(packet, world, wanted);
  const nobody = { endpoints: [], masquerade: undefined, outOfRange: false } as const;
  if (found === undefined) {
    return { kind: withoutFrontend(packet, world, wanted), route: undefined, frontend: undefined, ...nobody };
  }
  const { route, frontend } = found;
  const source = packet.origin.address;
  const refuse = (kind: OutcomeKind, outOfRange = false): Decision => ({
    kind,
    route,
    frontend,
    ...nobody,
    outOfRange,
  });
  const choose = (endpoints: readonly Endpoint[], masquerade: MasqueradeReason | undefined): Decision => ({
    kind: 'endpoint',
    route,
    frontend,
    endpoints,
    masquerade,
    outOfRange: false,
  });
  const { options, mode } = wanted;
  if (frontend.kind === 'clusterIP') {
    if (route.internal === 'reject' || route.internal === 'drop') return refuse(route.internal);
    const masquerade = options.masqueradeAll ? 'all' : isStranger(packet, wanted) ? 'notFromPod' : undefined;
    return choose(route.internal === 'local' ? route.local : route.cluster, masquerade);
  }
  const outOfRange = frontend.kind === 'loadBalancerIP' && !isAllowed(route, source, options.nodeIP);
  // nftables mode looks at source ranges first, iptables and userspace mode refuse for want of endpoints first; in IPVS
  // mode the virtual server refuses what starts here before filters see it.
  const rangesFirst = mode === 'nftables' || (mode === 'ipvs' && !startsHere(packet.origin));
  if (outOfRange && (route.hasAny || rangesFirst)) return refuse('drop', true);
  if (!route.hasAny) {
    // iptables mode looks for refusals of external addresses in INPUT and FORWARD only.
    const unseen = mode === 'iptables' && startsHere(packet.origin) && !world.isLocal(packet.destination);
    return refuse(unseen ? 'forward' : 'reject');
  }
  if (!route.port.externalPolicyLocal) return choose(route.cluster, 'external');
  const fromHere = world.isLocal(source);
  // A virtual server has one list of endpoints, for whoever asks.
  if (mode === 'ipvs' && route.external === 'local')
    return choose(route.local, fromHere ? 'fromNode' : undefined);
  if (route.cluster.length > 0) {
    if (options.localDetector !== undefined && isFromPod(options.localDetector, packet)) {
      return choose(route.cluster, undefined);
    }
    if (fromHere) return choose(route.cluster, 'fromNode');
  }
  if (route.external === 'local') return choose(route.local, undefined);
  return refuse(route.external === 'drop' ? 'drop' : 'reject');
}

function withoutFrontend(packet: Packet, world: World, { mode, table, serviceCIDRs }: Wanted): OutcomeKind {
  const { destination, destinationPort, protocol } = packet;
  if (mode === 'iptables') {
    if (!world.isLocal(destination)) return 'forward';
    // Refusals of node ports hold for all addresses of the node, whatever `nodePortAddresses` says.
    for (const route of table.routes.values()) {
      const { frontends, external } = route;
      if (external !== 'reject' && external !== 'drop') continue;
      for (const { kind, port, protocol: of } of frontends) {
        if (kind === 'nodePort' && port === destinationPort && of === protocol) return external;
      }
    }
    return 'node';
  }
  // To the kernel it is the node's own, and KUBE-IPVS-FILTER refuses ports that no Service has.
  if (world.serviceAddresses.has(destination)) return 'reject';
  if (world.isLocal(destination)) return 'node';
  if (mode !== 'nftables') return 'forward';
  for (const route of table.routes.values()) if (route.port.clusterIP === destination) return 'reject';
  return isInside(serviceCIDRs, destination) ? 'drop' : 'forward';
}

/** The rules of cluster IPs take it for somebody whose answer might go another way. */
function isStranger(packet: Packet, { options, mode }: Wanted): boolean {
  if (options.localDetector !== undefined) return !isFromPod(options.localDetector, packet);
  // A program of this node comes with the Service's own address, which kube-ipvs0 has.
  return mode === 'ipvs' && packet.origin.address === packet.destination;
}

/** As the rules tell Pods from others, which is not always the truth. */
export function isFromPod(detector: LocalDetector, packet: Packet): boolean {
  switch (detector.kind) {
    case 'cidr':
      return isInside([detector.cidr], packet.origin.address);
    case 'interface':
      return packet.origin.interface === detector.name;
    case 'interfacePrefix':
      return packet.origin.interface?.startsWith(detector.prefix) === true;
  }
}

/** Source ranges let the client in. A node that is allowed in may come with the load balancer's address. */
export function isAllowed(route: Route, source: string, nodeIP: string): boolean {
  const { sourceRanges, loadBalancerIPs } = route.port;
  if (sourceRanges.length === 0 || isInside(sourceRanges, source)) return true;
  return isInside(sourceRanges, nodeIP) && loadBalancerIPs.includes(source);
}

export function isInside(networks: readonly string[], address: string): boolean {
  return networks.some((text) => {
    const cidr = parseCIDR(text);
    return cidr !== undefined && cidrContains(cidr, address);
  });
}

/**
 * The decision in the form of the rules' prediction: to compare. An endpoint that reaches itself is masqueraded;
 * nftables mode looks for that only among the endpoints of this node, where it matters.
 */
export function predictFromRoutes(packet: Packet, world: World, wanted: Wanted): Prediction {
  const decision = decide(packet, world, wanted);
  const source = packet.origin.address;
  const outcomes: Outcome[] =
    decision.kind === 'endpoint'
      ? decision.endpoints.map(({ key, ip, isLocal }) => ({
          kind: 'endpoint',
          probability: 1 / decision.endpoints.length,
          destination: key,
          source,
          masqueraded:
            decision.masquerade !== undefined || (ip === source && (isLocal || wanted.mode === 'iptables')),
          steps: [],
        }))
      : [
          {
            kind: decision.kind,
            probability: 1,
            destination: formatPlace(packet.destination, packet.destinationPort),
            source,
            masqueraded: false,
            steps: [],
          },
        ];
  return { possibilities: [{ assumptions: [], outcomes }], ends: [], incomplete: false };
}
