/** Translates one route into what the kernel is to hold because of it. */
import type { Protocol } from '../../api/objects.ts';
import {
  servicePersistent,
  serviceScheduler2,
  type VirtualServer,
} from '../../linux/netlink/ipvs/objects.ts';
import { cidrContains, isUnspecified, parseCIDR } from '../../services/ip.ts';
import type { Endpoint, Frontend, Route, ServicePort } from '../../services/types.ts';
import type { SetId } from './names.ts';
import { canBeBound, type NodeSide } from './nodeSide.ts';
import type { Settings } from './settings.ts';

/** A virtual server and who is behind it. */
export interface WantedServer {
  readonly server: VirtualServer;
  readonly endpoints: readonly Endpoint[];
  /** Of two claims on one address and port, a Service's own address counts before a node port; then the older one. */
  readonly nodePort: boolean;
  readonly port: ServicePort;
}

export interface RouteObjects {
  readonly servers: readonly WantedServer[];
  /** Set, and entry as ipset prints it. */
  readonly entries: readonly (readonly [SetId, string])[];
  /** To be put on kube-ipvs0. */
  readonly addresses: readonly string[];
  /** Arguments of rules of KUBE-IPVS-OUT-FILTER. */
  readonly outFilter: readonly string[];
}

export function translate(route: Route, settings: Settings, node: NodeSide): RouteObjects {
  const { port } = route;
  const servers: WantedServer[] = [];
  const entries: [SetId, string][] = [];
  const addresses: string[] = [];
  const outFilter: string[] = [];

  for (const endpoint of route.endpoints) {
    if (!endpoint.isLocal || isUnspecified(endpoint.ip)) continue;
    entries.push([
      'KUBE-LOOP-BACK',
      `${addressPort(endpoint.ip, port.protocol, endpoint.port)},${endpoint.ip}`,
    ]);
  }

  const answerAt = (ip: string, number: number, endpoints: readonly Endpoint[], nodePort: boolean): void => {
    servers.push({ server: virtualServer(port, ip, number, settings), endpoints, nodePort, port });
  };
  const bind = (ip: string): void => {
    if (!canBeBound(ip)) return;
    addresses.push(ip);
    entries.push(['KUBE-IPVS-IPS', ip]);
  };

  for (const frontend of route.frontends) {
    const { kind, ip } = frontend;
    // No set takes such an entry, and no packet comes for it.
    if (isUnspecified(ip)) continue;
    if (kind === 'nodePort') {
      const bitmap = port.protocol === 'SCTP' ? undefined : port.protocol;
      const local = port.externalPolicyLocal;
      if (bitmap !== undefined) {
        entries.push([`KUBE-NODE-PORT-${bitmap}`, String(frontend.port)]);
        if (local) entries.push([`KUBE-NODE-PORT-LOCAL-${bitmap}`, String(frontend.port)]);
      }
      for (const address of node.nodePorts) {
        entries.push(['KUBE-NODE-PORT-IPS', address]);
        const text = addressPort(address, port.protocol, frontend.port);
        if (bitmap === undefined) {
          entries.push(['KUBE-NODE-PORT-SCTP-HASH', text]);
          if (local) entries.push(['KUBE-NODE-PORT-LOCAL-SCTP-HASH', text]);
        }
        if (route.external === 'drop') entries.push(['KUBE-DROP-EXTERNAL', text]);
        answerAt(address, frontend.port, endpointsOf(route, frontend), true);
      }
      continue;
    }
    const text = addressPort(ip, port.protocol, frontend.port);
    if (kind === 'clusterIP') {
      entries.push(['KUBE-CLUSTER-IP', text]);
      if (route.internal === 'drop') entries.push(['KUBE-DROP-INTERNAL', text]);
    } else {
      if (kind === 'externalIP') {
        entries.push([port.externalPolicyLocal ? 'KUBE-EXTERNAL-IP-LOCAL' : 'KUBE-EXTERNAL-IP', text]);
      } else {
        entries.push(['KUBE-LOAD-BALANCER', text]);
        if (port.externalPolicyLocal) entries.push(['KUBE-LOAD-BALANCER-LOCAL', text]);
        guard(frontend, text);
      }
      if (route.external === 'drop') entries.push(['KUBE-DROP-EXTERNAL', text]);
    }
    answerAt(ip, frontend.port, endpointsOf(route, frontend), false);
    // An external address that another interface has is the node's already. A cluster IP never is, whoever has it.
    if (kind === 'clusterIP' || !node.addresses.has(ip)) bind(ip);
  }
  if (port.healthCheckNodePort > 0)
    entries.push(['KUBE-HEALTH-CHECK-NODE-PORT', String(port.healthCheckNodePort)]);
  return { servers, entries, addresses, outFilter };

  /** Source ranges of a load balancer's address. */
  function guard(frontend: Frontend, text: string): void {
    const ranges = port.sourceRanges.flatMap((range) => parseCIDR(range) ?? []);
    // A range of everything is no restriction, and no entry of a set.
    if (ranges.length === 0 || ranges.some((range) => range.prefix === 0)) return;
    entries.push(['KUBE-LOAD-BALANCER-FW', text]);
    for (const range of ranges) {
      const single = range.prefix === range.bytes.length * 8;
      const address = range.text.slice(0, range.text.indexOf('/'));
      entries.push(['KUBE-LOAD-BALANCER-SOURCE-CIDR', `${text},${single ? address : range.text}`]);
    }
    // A process of this node comes with the load balancer's own address as its source.
    if (ranges.some((range) => cidrContains(range, settings.nodeIP))) {
      entries.push(['KUBE-LOAD-BALANCER-SOURCE-IP', `${text},${frontend.ip}`]);
    } else {
      const length = settings.family === 'IPv6' ? 128 : 32;
      outFilter.push(
        `-s ${frontend.ip}/${length} -m ipvs --vaddr ${frontend.ip} --vproto ${port.protocol.toLowerCase()} --vport ${frontend.port} -j DROP`,
      );
    }
  }
}

/** Who is behind a frontend. Where outsiders are dropped for want of a local endpoint, Pods and the node still reach all. */
function endpointsOf(route: Route, frontend: Frontend): readonly Endpoint[] {
  const verdict = frontend.kind === 'clusterIP' ? route.internal : route.external;
  switch (verdict) {
    case 'cluster':
      return route.cluster;
    case 'local':
      return route.local;
    case 'reject':
      return [];
    case 'drop':
      return frontend.kind === 'clusterIP' ? [] : route.cluster;
  }
}

function virtualServer(
  port: ServicePort,
  address: string,
  number: number,
  settings: Settings,
): VirtualServer {
  const persistent = port.affinitySeconds > 0 ? servicePersistent : 0;
  return {
    protocol: port.protocol,
    address,
    port: number,
    scheduler: settings.scheduler,
    // Maglev hashing is to tell the ports of one client apart.
    flags: persistent | (settings.scheduler === 'mh' ? serviceScheduler2 : 0),
    timeout: port.affinitySeconds,
    prefixLength: settings.family === 'IPv6' ? 128 : 32,
  };
}

function addressPort(ip: string, protocol: Protocol, port: number): string {
  return `${ip},${protocol.toLowerCase()}:${port}`;
}
