/** The cluster of the benchmark: N Services of M endpoints each, with what real objects carry besides. */
import type { KubeObject } from '../../src/lab/apiserver/objects.ts';

export const namespace = 'bench';

/** The number as four groups of a private range: `10.(first + i / 65536).x.y`. */
function address(first: number, i: number): string {
  return `10.${first + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;
}

/** 10.97.0.1 and up. */
export function clusterIP(service: number): string {
  return address(97, service + 1);
}

/** 10.128.0.0 and up; replacements come from 10.250.0.0 and up. */
export function podIP(service: number, endpoint: number, endpoints: number): string {
  return address(128, service * endpoints + endpoint);
}

export function replacementIP(serial: number): string {
  return address(250, serial + 1);
}

export function serviceName(i: number): string {
  return `service-${String(i).padStart(5, '0')}`;
}

/** Some ten nodes' worth of names, as a cluster of this size would have. */
function nodeOf(i: number): string {
  return `worker-${i % 100}`;
}

export function service(i: number): KubeObject {
  const name = serviceName(i);
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace, labels: { app: name, tier: 'backend' } },
    spec: {
      type: 'ClusterIP',
      clusterIP: clusterIP(i),
      clusterIPs: [clusterIP(i)],
      ipFamilies: ['IPv4'],
      ipFamilyPolicy: 'SingleStack',
      selector: { app: name },
      ports: [{ name: 'http', protocol: 'TCP', port: 80, targetPort: 8080 }],
      sessionAffinity: 'None',
      internalTrafficPolicy: 'Cluster',
    },
  };
}

/** `addresses`: one endpoint each. */
export function slice(i: number, addresses: readonly string[]): KubeObject {
  const name = serviceName(i);
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `${name}-abcde`,
      generateName: `${name}-`,
      namespace,
      labels: {
        app: name,
        'kubernetes.io/service-name': name,
        'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
      },
      annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': '2026-03-01T12:00:00Z' },
      ownerReferences: [
        {
          apiVersion: 'v1',
          kind: 'Service',
          name,
          uid: `0000-${i}`,
          controller: true,
          blockOwnerDeletion: true,
        },
      ],
    },
    addressType: 'IPv4',
    ports: [{ name: 'http', protocol: 'TCP', port: 8080 }],
    endpoints: addresses.map((ip, j) => ({
      addresses: [ip],
      conditions: { ready: true, serving: true, terminating: false },
      nodeName: nodeOf(i + j),
      zone: `zone-${j % 3}`,
      targetRef: {
        kind: 'Pod',
        namespace,
        name: `${name}-6d4cf56db6-${ip.replaceAll('.', '-')}`,
        uid: `5f0c1f4e-0000-4000-8000-${String(i * 1000 + j).padStart(12, '0')}`,
      },
    })),
  };
}

export function node(name: string, ip: string): KubeObject {
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name, labels: { 'topology.kubernetes.io/zone': 'zone-0' } },
    spec: { podCIDR: '10.244.1.0/24', podCIDRs: ['10.244.1.0/24'] },
    status: { addresses: [{ type: 'InternalIP', address: ip }] },
  };
}
