/**
 * The wire schema of the Kubernetes objects a service proxy reads, as published in `generated.proto` of k8s.io/api
 * (core/v1, discovery/v1, networking/v1) and k8s.io/apimachinery (meta/v1, runtime). The encoder walks it; the decoder in `cluster/decode/protobuf.ts` is written out by hand.
 */
import { listMeta, message, objectMeta, objectReference, type MessageSchema } from './message.ts';

/** metav1.Condition (Service, ServiceCIDR) */
const condition = message({
  type: [1, 'string'],
  status: [2, 'string'],
  observedGeneration: [3, 'int'],
  lastTransitionTime: [4, 'time'],
  reason: [5, 'string'],
  message: [6, 'string'],
});

const servicePort = message({
  name: [1, 'string'],
  protocol: [2, 'string'],
  port: [3, 'int'],
  targetPort: [4, 'intOrString'],
  nodePort: [5, 'int'],
  appProtocol: [6, 'string'],
});

const serviceSpec = message({
  ports: [1, servicePort, 'repeated'],
  selector: [2, 'stringMap'],
  clusterIP: [3, 'string'],
  type: [4, 'string'],
  externalIPs: [5, 'string', 'repeated'],
  sessionAffinity: [7, 'string'],
  loadBalancerIP: [8, 'string'],
  loadBalancerSourceRanges: [9, 'string', 'repeated'],
  externalName: [10, 'string'],
  externalTrafficPolicy: [11, 'string'],
  healthCheckNodePort: [12, 'int'],
  publishNotReadyAddresses: [13, 'bool'],
  sessionAffinityConfig: [14, message({ clientIP: [1, message({ timeoutSeconds: [1, 'int'] })] })],
  ipFamilyPolicy: [17, 'string'],
  clusterIPs: [18, 'string', 'repeated'],
  ipFamilies: [19, 'string', 'repeated'],
  allocateLoadBalancerNodePorts: [20, 'bool'],
  loadBalancerClass: [21, 'string'],
  internalTrafficPolicy: [22, 'string'],
  trafficDistribution: [23, 'string'],
});

const loadBalancerIngress = message({
  ip: [1, 'string'],
  hostname: [2, 'string'],
  ipMode: [3, 'string'],
  ports: [4, message({ port: [1, 'int'], protocol: [2, 'string'], error: [3, 'string'] }), 'repeated'],
});

const service = message({
  metadata: [1, objectMeta],
  spec: [2, serviceSpec],
  status: [
    3,
    message({
      loadBalancer: [1, message({ ingress: [1, loadBalancerIngress, 'repeated'] })],
      conditions: [2, condition, 'repeated'],
    }),
  ],
});

const named = message({ name: [1, 'string'] });

const endpoint = message({
  addresses: [1, 'string', 'repeated'],
  conditions: [2, message({ ready: [1, 'bool'], serving: [2, 'bool'], terminating: [3, 'bool'] })],
  hostname: [3, 'string'],
  targetRef: [4, objectReference],
  deprecatedTopology: [5, 'stringMap'],
  nodeName: [6, 'string'],
  zone: [7, 'string'],
  hints: [8, message({ forZones: [1, named, 'repeated'], forNodes: [2, named, 'repeated'] })],
});

const endpointSlice = message({
  metadata: [1, objectMeta],
  endpoints: [2, endpoint, 'repeated'],
  ports: [
    3,
    message({ name: [1, 'string'], protocol: [2, 'string'], port: [3, 'int'], appProtocol: [4, 'string'] }),
    'repeated',
  ],
  addressType: [4, 'string'],
});

const nodeCondition = message({
  type: [1, 'string'],
  status: [2, 'string'],
  lastHeartbeatTime: [3, 'time'],
  lastTransitionTime: [4, 'time'],
  reason: [5, 'string'],
  message: [6, 'string'],
});

const nodeInfo = message({
  machineID: [1, 'string'],
  systemUUID: [2, 'string'],
  bootID: [3, 'string'],
  kernelVersion: [4, 'string'],
  osImage: [5, 'string'],
  containerRuntimeVersion: [6, 'string'],
  kubeletVersion: [7, 'string'],
  kubeProxyVersion: [8, 'string'],
  operatingSystem: [9, 'string'],
  architecture: [10, 'string'],
});

const node = message({
  metadata: [1, objectMeta],
  spec: [
    2,
    message({
      podCIDR: [1, 'string'],
      providerID: [3, 'string'],
      unschedulable: [4, 'bool'],
      taints: [
        5,
        message({ key: [1, 'string'], value: [2, 'string'], effect: [3, 'string'], timeAdded: [4, 'time'] }),
        'repeated',
      ],
      podCIDRs: [7, 'string', 'repeated'],
    }),
  ],
  status: [
    3,
    message({
      capacity: [1, 'quantityMap'],
      allocatable: [2, 'quantityMap'],
      phase: [3, 'string'],
      conditions: [4, nodeCondition, 'repeated'],
      addresses: [5, message({ type: [1, 'string'], address: [2, 'string'] }), 'repeated'],
      daemonEndpoints: [6, message({ kubeletEndpoint: [1, message({ Port: [1, 'int'] })] })],
      nodeInfo: [7, nodeInfo],
    }),
  ],
});

const serviceCIDR = message({
  metadata: [1, objectMeta],
  spec: [2, message({ cidrs: [1, 'string', 'repeated'] })],
  status: [3, message({ conditions: [1, condition, 'repeated'] })],
});

const status = message({
  metadata: [1, listMeta],
  status: [2, 'string'],
  message: [3, 'string'],
  reason: [4, 'string'],
  details: [
    5,
    message({
      name: [1, 'string'],
      group: [2, 'string'],
      kind: [3, 'string'],
      causes: [
        4,
        message({ reason: [1, 'string'], message: [2, 'string'], field: [3, 'string'] }),
        'repeated',
      ],
      retryAfterSeconds: [5, 'int'],
      uid: [6, 'string'],
    }),
  ],
  code: [6, 'int'],
});

export interface KindSchema {
  readonly apiVersion: string;
  readonly fields: MessageSchema;
}

/** The kinds that can be encoded, with the API version used where an object does not name its own. */
export const kinds = {
  Service: { apiVersion: 'v1', fields: service },
  EndpointSlice: { apiVersion: 'discovery.k8s.io/v1', fields: endpointSlice },
  Node: { apiVersion: 'v1', fields: node },
  ServiceCIDR: { apiVersion: 'networking.k8s.io/v1', fields: serviceCIDR },
  Status: { apiVersion: 'v1', fields: status },
} as const satisfies Record<string, KindSchema>;

export type ProtobufKind = keyof typeof kinds;

export function isProtobufKind(kind: unknown): kind is ProtobufKind {
  return typeof kind === 'string' && Object.hasOwn(kinds, kind);
}
