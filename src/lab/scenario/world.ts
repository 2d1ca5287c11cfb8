/** The objects that every scenario starts with, and the configuration its proxies get. Pure. */
import type { NodeLayout } from '../net/layout.ts';
import { mergePatch, type Json, type JsonObject } from './generate.ts';
import type { Scenario, ScenarioMode } from './types.ts';

export const serviceBlocks = ['10.96.0.0/16', 'fd00:10:96::/112'] as const;
const zones = ['zone-a', 'zone-b'];

export function nodeObject(node: NodeLayout, patch: JsonObject | undefined): JsonObject {
  const object: JsonObject = {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      name: node.name,
      labels: {
        'kubernetes.io/hostname': node.name,
        'kubernetes.io/os': 'linux',
        'topology.kubernetes.io/zone': zones[node.number - 1] ?? `zone-${node.number}`,
      },
    },
    spec: { podCIDR: node.podBlocks[0], podCIDRs: [...node.podBlocks] },
    status: {
      addresses: [
        { type: 'InternalIP', address: node.addresses[0] },
        { type: 'InternalIP', address: node.addresses[1] },
        { type: 'Hostname', address: node.name },
      ],
      conditions: [{ type: 'Ready', status: 'True', reason: 'KubeletReady', message: 'the lab is ready' }],
    },
  };
  return patch === undefined ? object : (mergePatch(object, patch) as JsonObject);
}

export const serviceCidr: JsonObject = {
  apiVersion: 'networking.k8s.io/v1',
  kind: 'ServiceCIDR',
  metadata: { name: 'kubernetes' },
  spec: { cidrs: [...serviceBlocks] },
};

export const kubernetesService: JsonObject = {
  apiVersion: 'v1',
  kind: 'Service',
  metadata: {
    name: 'kubernetes',
    namespace: 'default',
    labels: { component: 'apiserver', provider: 'kubernetes' },
  },
  spec: {
    type: 'ClusterIP',
    clusterIP: '10.96.0.1',
    clusterIPs: ['10.96.0.1'],
    ipFamilies: ['IPv4'],
    ipFamilyPolicy: 'SingleStack',
    internalTrafficPolicy: 'Cluster',
    sessionAffinity: 'None',
    ports: [{ name: 'https', port: 443, protocol: 'TCP', targetPort: 6443 }],
  },
};

const clusterBlocks = '10.244.0.0/16,fd00:10:244::/48';

/** Syncs at short notice, in the section of the mode: those of other modes would be warned about. */
function periods(mode: ScenarioMode): JsonObject {
  const section = { minSyncPeriod: '100ms', syncPeriod: '30s', masqueradeAll: false };
  if (mode === 'iptables' || mode === 'userspace') return { iptables: section };
  return mode === 'nftables' ? { nftables: section } : {};
}

/** What a node's proxy is told, before the scenario's own changes. */
function baseConfig(mode: ScenarioMode, node: string, kubeconfig: string): JsonObject {
  return {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    mode,
    hostnameOverride: node,
    clientConnection: { kubeconfig },
    bindAddress: '0.0.0.0',
    clusterCIDR: clusterBlocks,
    healthzBindAddress: '0.0.0.0:10256',
    metricsBindAddress: '127.0.0.1:10249',
    conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
    ...periods(mode),
  };
}

/** The KubeProxyConfiguration for one node. */
export function proxyConfig(
  scenario: Pick<Scenario, 'config'>,
  mode: ScenarioMode,
  node: string,
  kubeconfig: string,
): JsonObject {
  const { perMode, ...common } = scenario.config;
  const own = (perMode ?? {}) as Readonly<Record<string, Json>>;
  const merged = mergePatch(baseConfig(mode, node, kubeconfig), common);
  return mergePatch(merged, own[mode] ?? {}) as JsonObject;
}

export const markerAddresses = { ipv4: '10.96.255.250', ipv6: 'fd00:10:96::fffa' } as const;
export const markerTargets: readonly number[] = Array.from({ length: 8 }, (_, i) => 7001 + i);

/** The marker's place number `n` (from 1): another service port and another endpoint port each time. */
export function markerPlace(n: number): { readonly port: number; readonly target: number } {
  return { port: 1000 + n, target: markerTargets[(n - 1) % markerTargets.length] ?? 7001 };
}

export function markerObjects(n: number, endpoints: readonly [string, string]): JsonObject[] {
  const { port, target } = markerPlace(n);
  const slice = (family: '4' | '6', address: string): JsonObject => ({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `hx-marker-${family}`,
      namespace: 'default',
      labels: { 'kubernetes.io/service-name': 'hx-marker' },
    },
    addressType: `IPv${family}`,
    ports: [{ name: 'm', port: target, protocol: 'TCP' }],
    endpoints: [{ addresses: [address], conditions: { ready: true } }],
  });
  return [
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'hx-marker', namespace: 'default' },
      spec: {
        type: 'ClusterIP',
        clusterIP: markerAddresses.ipv4,
        clusterIPs: [markerAddresses.ipv4, markerAddresses.ipv6],
        ipFamilies: ['IPv4', 'IPv6'],
        ipFamilyPolicy: 'RequireDualStack',
        ports: [{ name: 'm', port, targetPort: target, protocol: 'TCP' }],
      },
    },
    slice('4', endpoints[0]),
    slice('6', endpoints[1]),
  ];
}
