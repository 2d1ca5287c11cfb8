/**
 * The Kubernetes objects a service proxy reads, in the compact form in which they are kept: only the fields that
 * decide something, no raw JSON, no managedFields. `cluster/` decodes into these; everything to the right reads them.
 *
 * Values are as published, but for what decoding settles: types are checked, absent lists are empty, absent
 * booleans have the API's default. Addresses are NOT yet parsed or canonicalised: that is `services/`' work,
 * because it knows which bad address costs what.
 */

export type Family = 'IPv4' | 'IPv6';
export type Protocol = 'TCP' | 'UDP' | 'SCTP';

/** Identity and bookkeeping common to all objects. */
export interface ObjectMeta {
  readonly name: string;
  /** Empty for cluster-scoped objects. */
  readonly namespace: string;
  readonly uid: string;
  readonly resourceVersion: string;
  /** Milliseconds since the epoch; 0 if absent or unreadable. */
  readonly creationTimestamp: number;
}

/** One entry of `Service.spec.ports`. */
export interface ServicePortSpec {
  readonly name: string;
  readonly protocol: Protocol;
  /** 1..65535 */
  readonly port: number;
  /** 0 = none */
  readonly nodePort: number;
}

/** One entry of `Service.status.loadBalancer.ingress`. */
export interface LoadBalancerIngress {
  /** Empty for host-name-only entries. */
  readonly ip: string;
  /** `VIP`, `Proxy` or whatever was published; undefined = absent. */
  readonly ipMode: string | undefined;
}

/** core/v1 Service */
export interface Service {
  readonly kind: 'Service';
  readonly meta: ObjectMeta;
  /** `ClusterIP`, `NodePort`, `LoadBalancer`, `ExternalName`; absent = ClusterIP. */
  readonly type: string;
  readonly clusterIP: string;
  readonly clusterIPs: readonly string[];
  /** `IPv4` / `IPv6` as published, in order. */
  readonly ipFamilies: readonly string[];
  readonly ports: readonly ServicePortSpec[];
  readonly externalIPs: readonly string[];
  readonly loadBalancerIngress: readonly LoadBalancerIngress[];
  readonly loadBalancerSourceRanges: readonly string[];
  /** `None` or `ClientIP`; absent = None. */
  readonly sessionAffinity: string;
  /** Seconds; 10800 if absent. */
  readonly sessionAffinityTimeoutSeconds: number;
  /** Empty if absent. */
  readonly externalTrafficPolicy: string;
  /** Empty if absent. */
  readonly internalTrafficPolicy: string;
  /** 0 = none */
  readonly healthCheckNodePort: number;
}

/** One entry of `EndpointSlice.ports`, null where the API had none. */
export interface SlicePort {
  readonly name: string | null;
  readonly protocol: Protocol;
  readonly port: number | null;
}

/** One entry of `EndpointSlice.endpoints`. */
export interface SliceEndpoint {
  /** `addresses[0]`; empty if the list was empty. (The API forbids more than one meaning; the rest is not used.) */
  readonly address: string;
  /** Null conditions are true (ready, serving) or false (terminating), as the API says. */
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  /** Empty if absent. */
  readonly nodeName: string;
  /** Empty if absent. */
  readonly zone: string;
  /** `hints.forZones[].name` */
  readonly zoneHints: readonly string[];
  /** `hints.forNodes[].name` */
  readonly nodeHints: readonly string[];
  /** `targetRef` as `namespace/name` where its kind is Pod, else empty. For explain and status only. */
  readonly pod: string;
}

/** discovery.k8s.io/v1 EndpointSlice */
export interface EndpointSlice {
  readonly kind: 'EndpointSlice';
  readonly meta: ObjectMeta;
  /** Label `kubernetes.io/service-name`; empty if absent. */
  readonly serviceName: string;
  /** `IPv4`, `IPv6`, `FQDN` or whatever was published. */
  readonly addressType: string;
  readonly ports: readonly SlicePort[];
  readonly endpoints: readonly SliceEndpoint[];
  /** Annotation `endpoints.kubernetes.io/last-change-trigger-time`, milliseconds since the epoch; 0 if absent or unreadable. */
  readonly lastChangeTriggerTime: number;
}

/** core/v1 Node */
export interface Node {
  readonly kind: 'Node';
  readonly meta: ObjectMeta;
  /** Label `topology.kubernetes.io/zone`; empty if absent. */
  readonly zone: string;
  readonly addresses: readonly { readonly type: string; readonly address: string }[];
  readonly podCIDRs: readonly string[];
  readonly taintKeys: readonly string[];
  /** metadata.deletionTimestamp is set. */
  readonly deleting: boolean;
}

/** networking.k8s.io/v1 ServiceCIDR */
export interface ServiceCIDR {
  readonly kind: 'ServiceCIDR';
  readonly meta: ObjectMeta;
  readonly cidrs: readonly string[];
}

export type ApiObject = Service | EndpointSlice | Node | ServiceCIDR;
export type Kind = ApiObject['kind'];

/** `namespace/name`, or `name` for cluster-scoped objects. */
export function objectKey(meta: Pick<ObjectMeta, 'namespace' | 'name'>): string {
  return meta.namespace === '' ? meta.name : `${meta.namespace}/${meta.name}`;
}
