/** What a service proxy watches, and which part of it: selectors are the server's work. */
import type { EndpointSlice, Kind, Node, Service, ServiceCIDR } from '../api/objects.ts';

export interface Resource<T> {
  readonly kind: Kind;
  /** Plural, as in paths and log lines. */
  readonly name: string;
  /** One path a version, the preferred first; the next is tried where the server does not know one (404). */
  readonly paths: readonly string[];
  readonly labelSelector: string;
  readonly fieldSelector: string;
  /** A server without it is fine. */
  readonly optional: boolean;
  /** Never set: ties the kind to its type. */
  readonly type?: T;
}

/** Neither Services delegated to another proxy (the label is there, with any value) nor headless ones. */
export const services: Resource<Service> = {
  kind: 'Service',
  name: 'services',
  paths: ['/api/v1/services'],
  labelSelector: '!service.kubernetes.io/service-proxy-name',
  fieldSelector: 'spec.clusterIP!=None',
  optional: false,
};

export const endpointSlices: Resource<EndpointSlice> = {
  kind: 'EndpointSlice',
  name: 'endpointslices',
  paths: ['/apis/discovery.k8s.io/v1/endpointslices'],
  labelSelector: '!service.kubernetes.io/headless',
  fieldSelector: '',
  optional: false,
};

/** The one node of this name. */
export function nodeNamed(name: string): Resource<Node> {
  return {
    kind: 'Node',
    name: 'nodes',
    paths: ['/api/v1/nodes'],
    labelSelector: '',
    fieldSelector: `metadata.name=${name}`,
    optional: false,
  };
}

/** v1 since Kubernetes 1.33, v1beta1 since 1.31 (where enabled); before that there is none. KEP-1880 */
export const serviceCIDRs: Resource<ServiceCIDR> = {
  kind: 'ServiceCIDR',
  name: 'servicecidrs',
  paths: ['/apis/networking.k8s.io/v1/servicecidrs', '/apis/networking.k8s.io/v1beta1/servicecidrs'],
  labelSelector: '',
  fieldSelector: '',
  optional: true,
};
