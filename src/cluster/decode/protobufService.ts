/** core/v1 Service off the wire. `case` labels are tags: field number * 8 + wire type. */
import type { LoadBalancerIngress, Service, ServicePortSpec } from '../../api/objects.ts';
import { defaultAffinitySeconds, ingress, none, servicePort } from './build.ts';
import { append, emptyMeta, readMeta } from './protobufMeta.ts';
import type { RejectAt } from './protobufMeta.ts';
import type { Wire } from './wire.ts';

export function readService(wire: Wire, problem: RejectAt): Service {
  let meta = emptyMeta;
  let spec: SpecFields = emptySpec;
  let balancer: readonly LoadBalancerIngress[] = none;
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    if (tag === 10) meta = readMeta(wire).meta;
    else if (tag === 18) spec = readServiceSpec(wire, problem);
    else if (tag === 26) balancer = readServiceStatus(wire);
    else wire.skip(tag);
  }
  return {
    kind: 'Service',
    meta,
    type: spec.type === '' ? 'ClusterIP' : spec.type,
    clusterIP: spec.clusterIP,
    clusterIPs: spec.clusterIPs,
    ipFamilies: spec.ipFamilies,
    ports: spec.ports,
    externalIPs: spec.externalIPs,
    loadBalancerIngress: balancer,
    loadBalancerSourceRanges: spec.loadBalancerSourceRanges,
    sessionAffinity: spec.sessionAffinity === '' ? 'None' : spec.sessionAffinity,
    sessionAffinityTimeoutSeconds: spec.affinitySeconds,
    externalTrafficPolicy: spec.externalTrafficPolicy,
    internalTrafficPolicy: spec.internalTrafficPolicy,
    healthCheckNodePort: spec.healthCheckNodePort,
  };
}

interface SpecFields {
  ports: readonly ServicePortSpec[];
  clusterIP: string;
  type: string;
  externalIPs: readonly string[];
  sessionAffinity: string;
  loadBalancerSourceRanges: readonly string[];
  externalTrafficPolicy: string;
  healthCheckNodePort: number;
  affinitySeconds: number;
  clusterIPs: readonly string[];
  ipFamilies: readonly string[];
  internalTrafficPolicy: string;
}

function newSpec(): SpecFields {
  return {
    ports: none,
    clusterIP: '',
    type: '',
    externalIPs: none,
    sessionAffinity: '',
    loadBalancerSourceRanges: none,
    externalTrafficPolicy: '',
    healthCheckNodePort: 0,
    affinitySeconds: defaultAffinitySeconds,
    clusterIPs: none,
    ipFamilies: none,
    internalTrafficPolicy: '',
  };
}

const emptySpec: Readonly<SpecFields> = newSpec();

function readServiceSpec(wire: Wire, problem: RejectAt): SpecFields {
  const outer = wire.enter();
  const spec = newSpec();
  let portIndex = 0;
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    switch (tag) {
      case 10: {
        const port = readServicePort(wire, portIndex++, problem);
        if (port !== undefined) spec.ports = append(spec.ports, port);
        break;
      }
      case 26:
        spec.clusterIP = wire.interned();
        break;
      case 34:
        spec.type = wire.interned();
        break;
      case 42:
        spec.externalIPs = append(spec.externalIPs, wire.string());
        break;
      case 58:
        spec.sessionAffinity = wire.interned();
        break;
      case 74:
        spec.loadBalancerSourceRanges = append(spec.loadBalancerSourceRanges, wire.string());
        break;
      case 90:
        spec.externalTrafficPolicy = wire.interned();
        break;
      case 96: {
        const port = wire.varint();
        if (port >= 0 && port <= 65535) spec.healthCheckNodePort = port;
        else problem('spec.healthCheckNodePort', `${port} is not a port (1-65535)`);
        break;
      }
      case 114:
        spec.affinitySeconds = readAffinitySeconds(wire);
        break;
      case 146:
        // The first one is clusterIP again: interned, both are one string.
        spec.clusterIPs = append(spec.clusterIPs, wire.interned());
        break;
      case 154:
        spec.ipFamilies = append(spec.ipFamilies, wire.interned());
        break;
      case 178:
        spec.internalTrafficPolicy = wire.interned();
        break;
      default:
        wire.skip(tag);
    }
  }
  wire.leave(outer);
  return spec;
}

function readServicePort(wire: Wire, index: number, problem: RejectAt): ServicePortSpec | undefined {
  const outer = wire.enter();
  let name = '';
  let protocol = '';
  let port = 0;
  let nodePort = 0;
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    if (tag === 10) name = wire.interned();
    else if (tag === 18) protocol = wire.interned();
    else if (tag === 24) port = wire.varint();
    else if (tag === 40) nodePort = wire.varint();
    else wire.skip(tag);
  }
  wire.leave(outer);
  return servicePort(name, protocol, port, nodePort, (field, message) =>
    problem(`spec.ports[${index}].${field}`, message),
  );
}

/** SessionAffinityConfig {clientIP 1 {timeoutSeconds 1}} */
function readAffinitySeconds(wire: Wire): number {
  const outer = wire.enter();
  let seconds = defaultAffinitySeconds;
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    if (tag === 10) {
      const middle = wire.enter();
      while (wire.pos < wire.end) {
        const inner = wire.varint();
        if (inner === 8) seconds = wire.varint();
        else wire.skip(inner);
      }
      wire.leave(middle);
    } else wire.skip(tag);
  }
  wire.leave(outer);
  return seconds;
}

/** ServiceStatus {loadBalancer 1 {ingress 1 {ip 1, hostname 2, ipMode 3}}} */
function readServiceStatus(wire: Wire): readonly LoadBalancerIngress[] {
  const outer = wire.enter();
  let list: readonly LoadBalancerIngress[] = none;
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    if (tag === 10) {
      const middle = wire.enter();
      while (wire.pos < wire.end) {
        const inner = wire.varint();
        if (inner === 10) list = append(list, readIngress(wire));
        else wire.skip(inner);
      }
      wire.leave(middle);
    } else wire.skip(tag);
  }
  wire.leave(outer);
  return list;
}

function readIngress(wire: Wire): LoadBalancerIngress {
  const outer = wire.enter();
  let ip = '';
  let ipMode: string | undefined;
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    if (tag === 10) ip = wire.string();
    else if (tag === 26) ipMode = wire.interned();
    else wire.skip(tag);
  }
  wire.leave(outer);
  return ingress(ip, ipMode);
}
