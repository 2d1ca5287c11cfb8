/** `render --check`: contradictions, addresses and ports that lead nowhere, each by its reason and field. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { check } from '../../src/render/check.ts';
import { inputsOfText, labFlags } from './support.ts';

const service = (name: string, spec: string, rest = ''): string =>
  `---\napiVersion: v1\nkind: Service\nmetadata: {name: ${name}, namespace: shop}\nspec: ${spec}\n${rest}\n`;
const slice = (name: string, text: string): string =>
  `---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: ${name}-1, namespace: shop, labels: {kubernetes.io/service-name: ${name}}}\n${text}\n`;
const at = (name: string, endpoints: string, ports = '{name: http, port: 8080}'): string =>
  slice(name, `addressType: IPv4\nports: [${ports}]\nendpoints: [${endpoints}]`);
const served = (name: string): string => at(name, '{addresses: [10.244.1.10], nodeName: node-1}');
const http = 'ports: [{name: http, port: 80}]';
const plain = service('web', `{clusterIP: 10.96.0.1, ${http}}`);
const published = (port: number): string => `ports: [{name: http, port: 80, nodePort: ${port}}]`;
const balanced = 'status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}';
const node = (text: string): string => `---\napiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n${text}\n`;

type Case = readonly [text: string, findings: readonly string[], ...flags: string[]];

const cases: Readonly<Record<string, Case>> = {
  'affinity settings without affinity': [
    service(
      'web',
      `{clusterIP: 10.96.0.1, sessionAffinityConfig: {clientIP: {timeoutSeconds: 9}}, ${http}}`,
    ) + served('web'),
    ['error contradiction spec.sessionAffinityConfig'],
  ],
  'a node port on a ClusterIP Service': [
    service('web', `{clusterIP: 10.96.0.1, ${published(30001)}}`) + served('web'),
    ['error contradiction spec.ports[0].nodePort'],
  ],
  'a Service that has no node port yet': [
    service('web', `{type: NodePort, clusterIP: 10.96.0.1, ${http}}`) + served('web'),
    ['note no_node_port spec.ports[0].nodePort'],
  ],
  'none is wanted': [
    service(
      'web',
      `{type: LoadBalancer, allocateLoadBalancerNodePorts: false, clusterIP: 10.96.0.1, ${http}}`,
      balanced,
    ) + served('web'),
    [],
  ],
  'ExternalName without a name, with an address': [
    service('web', `{type: ExternalName, clusterIP: 10.96.0.1}`),
    [
      'error contradiction spec.externalName',
      'note external_name spec.type',
      'error contradiction spec.clusterIP',
    ],
  ],
  'a headless node port': [
    service('web', `{type: NodePort, clusterIP: None, ${published(30001)}}`),
    ['error contradiction spec.clusterIP', 'note passed_over spec.clusterIP'],
  ],
  'settings of load balancers elsewhere': [
    service('web', `{clusterIP: 10.96.0.1, loadBalancerClass: a/b, healthCheckNodePort: 31000, ${http}}`) +
      served('web'),
    ['error contradiction spec.loadBalancerClass', 'error contradiction spec.healthCheckNodePort'],
  ],
  'two lists of addresses that disagree': [
    service(
      'web',
      `{clusterIP: 10.96.0.1, clusterIPs: [10.96.0.2, 10.96.0.3], ipFamilies: [IPv4, IPv6], ${http}}`,
    ) + served('web'),
    [
      'warning invalid_address spec.clusterIPs',
      'error contradiction spec.clusterIPs[0]',
      'error contradiction spec.clusterIPs[1]',
      'error contradiction spec.ipFamilies[1]',
    ],
  ],
  'a cluster IP among the Pods': [
    service('web', `{clusterIP: 10.244.0.1, ${http}}`) + served('web'),
    ['warning cluster_ip_in_pod_network spec.clusterIP'],
  ],
  'a cluster IP in no ServiceCIDR': [
    plain +
      served('web') +
      '---\napiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: kubernetes}\nspec: {cidrs: [10.97.0.0/16]}\n',
    ['error cluster_ip_out_of_range spec.clusterIP'],
  ],
  'a cluster IP of the first ServiceCIDR, where the manifests have only another': [
    plain +
      served('web') +
      '---\napiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: more}\nspec: {cidrs: [10.97.0.0/16]}\n',
    [],
  ],
  'what an API server fills in': [
    service('web', '{clusterIP: 10.96.0.1, ipFamilies: [IPv4], ports: [{port: 80}]}') +
      at('web', '{addresses: [10.244.1.10]}', '{port: 8080}'),
    [],
  ],
  'external IPs that no packet has': [
    service(
      'web',
      `{clusterIP: 10.96.0.1, externalIPs: [127.0.0.1, 169.254.1.1, 224.0.0.1, 239.0.0.1, 0.0.0.0, "::ffff:127.0.0.1"], ${http}}`,
    ) + served('web'),
    [0, 1, 2, 3, 4, 5].map((i) => `${i === 3 ? 'warning' : 'error'} special_address spec.externalIPs[${i}]`),
  ],
  'external IPs that are switched off': [
    service('web', `{clusterIP: 10.96.0.1, externalIPs: [192.0.2.1], ${http}}`) + served('web'),
    ['warning external_ips_disabled spec.externalIPs'],
    '--feature-gates=AllowServiceExternalIPs=false',
  ],
  'source ranges that are none': [
    service(
      'web',
      `{type: LoadBalancer, clusterIP: 10.96.0.1, loadBalancerSourceRanges: [office], ${published(30001)}}`,
      balanced,
    ) + served('web'),
    [
      'warning unrestricted spec.loadBalancerSourceRanges',
      'warning invalid_cidr spec.loadBalancerSourceRanges[0]',
    ],
  ],
  'a load balancer with a name, and a wish': [
    service(
      'web',
      `{type: LoadBalancer, loadBalancerIP: 192.0.2.9, clusterIP: 10.96.0.1, ${published(30001)}}`,
      'status: {loadBalancer: {ingress: [{hostname: lb.example}]}}',
    ) + served('web'),
    [
      'note wished_address spec.loadBalancerIP',
      'note host_name_only status.loadBalancer.ingress[0].hostname',
    ],
  ],
  'a port twice in a Service': [
    service('web', `{clusterIP: 10.96.0.1, ports: [{name: http, port: 80}, {name: web, port: 80}]}`) +
      at(
        'web',
        '{addresses: [10.244.1.10], nodeName: node-1}',
        '{name: http, port: 1}, {name: web, port: 2}',
      ),
    ['error port_twice spec.ports[1]'],
  ],
  'target ports that are none': [
    service(
      'web',
      `{clusterIP: 10.96.0.1, ports: [{name: http, port: 80, targetPort: web_port}, {name: b, port: 81, targetPort: 70000}, {name: c, port: 82, targetPort: "8080"}, {name: d, port: 83, targetPort: 0}]}`,
    ) +
      at(
        'web',
        '{addresses: [10.244.1.10], nodeName: node-1}',
        '{name: http, port: 1}, {name: b, port: 2}, {name: c, port: 3}, {name: d, port: 83}',
      ),
    [0, 1, 2].map((i) => `error invalid_target_port spec.ports[${i}].targetPort`),
  ],
  'the target port of a sidecar': [
    service(
      'web',
      '{clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: proxy}]}',
    ) +
      '---\napiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop, labels: {app: web}}\nspec: {initContainers: [{name: mesh, restartPolicy: Always, ports: [{name: proxy, containerPort: 9000}]}], containers: [{name: web}]}\n',
    ['warning no_slices spec.selector'],
  ],
  'SCTP where nothing can proxy it': [
    service('web', `{clusterIP: 10.96.0.1, ports: [{name: http, port: 80, protocol: SCTP}]}`) +
      at('web', '{addresses: [10.244.1.10], nodeName: node-1}', '{name: http, port: 1, protocol: SCTP}'),
    ['warning sctp_userspace spec.ports[0].protocol'],
    '--mode=userspace',
  ],
  'a node port of two Services': [
    service('web', `{type: NodePort, clusterIP: 10.96.0.1, ${published(30001)}}`) +
      served('web') +
      service('zweb', `{type: NodePort, clusterIP: 10.96.0.2, ${published(30001)}}`) +
      served('zweb'),
    ['warning duplicate_frontend spec.ports[0].nodePort'],
  ],
  'a health-check port of two Services': [
    ['web', 'zweb']
      .map(
        (name, i) =>
          service(
            name,
            `{type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 31000, clusterIP: 10.96.0.${i + 1}, ${published(30001 + i)}}`,
            `status: {loadBalancer: {ingress: [{ip: 192.0.2.${i}}]}}`,
          ) + served(name),
      )
      .join(''),
    ['warning port_taken spec.healthCheckNodePort'],
  ],
  'endpoints that no packet reaches': [
    plain + at('web', '{addresses: [127.0.0.1]}, {addresses: [239.0.0.1]}'),
    ['error special_address endpoints[0].addresses[0]', 'warning special_address endpoints[1].addresses[0]'],
  ],
  'an endpoint that is a Service': [
    plain +
      served('web') +
      service('alias', `{clusterIP: 10.96.0.2, ${http}}`) +
      at('alias', '{addresses: [10.96.0.1]}', '{name: http, port: 80}'),
    ['warning endpoint_is_service endpoints[0].addresses[0]'],
  ],
  'an endpoint at the external IP of its Service: a program of that machine': [
    service('web', `{clusterIP: 10.96.0.1, externalIPs: [192.0.2.1], ${http}}`) +
      at('web', '{addresses: [192.0.2.1]}', '{name: http, port: 80}'),
    [],
  ],
  'an endpoint twice, and with two addresses': [
    plain + at('web', '{addresses: [10.244.1.10, 10.244.1.11]}, {addresses: [10.244.1.10]}'),
    ['warning more_addresses endpoints[0].addresses[1]', 'warning endpoint_twice endpoints[1].addresses[0]'],
  ],
  'a slice of names': [
    plain +
      slice(
        'web',
        'addressType: FQDN\nports: [{name: http, port: 80}]\nendpoints: [{addresses: [a.example]}]',
      ),
    ['warning no_slices spec.ports[0]', 'warning fqdn_slice addressType'],
  ],
  'a slice of no type, without ports': [
    plain + slice('web', 'endpoints: [{addresses: [10.244.1.10]}]'),
    ['warning no_slices spec.ports[0]', 'error no_address_type addressType', 'warning no_slice_ports ports'],
  ],
  'ports of a slice that nothing leads to': [
    plain +
      at(
        'web',
        '{addresses: [10.244.1.10]}',
        '{name: http, port: 80}, {name: metrics, port: 90}, {name: http, port: 91}',
      ),
    ['warning unused_slice_port ports[1]', 'error port_twice ports[2]'],
  ],
  'Endpoints instead of slices': [
    plain + '---\napiVersion: v1\nkind: Endpoints\nmetadata: {name: web, namespace: shop}\nsubsets: []\n',
    ['warning no_slices spec.selector', 'warning legacy_endpoints '],
  ],
  'Endpoints beside slices, as a cluster has both': [
    plain +
      served('web') +
      '---\napiVersion: v1\nkind: Endpoints\nmetadata: {name: web, namespace: shop}\nsubsets: []\n',
    [],
  ],
  'all that serve are terminating': [
    plain +
      at('web', '{addresses: [10.244.1.10], conditions: {ready: false, serving: true, terminating: true}}'),
    ['warning terminating_only spec.ports[0]'],
  ],
  'a distribution that no hint fulfils': [
    service('web', `{clusterIP: 10.96.0.1, trafficDistribution: PreferSameZone, ${http}}`) + served('web'),
    ['warning no_hints spec.trafficDistribution'],
  ],
  'an object twice': [plain + plain + served('web'), ['warning replaced metadata.name']],
  'kinds with a slip': [
    'apiVersion: v1\nkind: service\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlices\n',
    ['error invalid_manifest kind', 'error invalid_manifest kind'],
  ],
  "somebody else's kind of the same name, and kinds that only look alike": [
    'apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\nspec: {template: {}}\n---\napiVersion: v1\nkind: Pod\n---\napiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n',
    [],
  ],
  'a Node with addresses that are none': [
    plain +
      served('web') +
      node(
        'spec: {podCIDRs: [pods]}\nstatus: {addresses: [{type: InternalIP, address: 172.31.0.11}, {type: ExternalIP, address: me}]}',
      ),
    ['warning invalid_cidr spec.podCIDRs[0]', 'warning invalid_address status.addresses[1].address'],
  ],
  'node ports where the node has no address': [
    service('web', `{type: NodePort, clusterIP: 10.96.0.1, ${published(30001)}}`) + served('web'),
    ['warning no_node_port_address '],
    '--nodeport-addresses=198.51.100.0/24',
    '--node-ip=172.31.0.11',
  ],
  'an endpoint on a node that is not there': [
    plain +
      at('web', '{addresses: [10.244.1.10], nodeName: node-7}') +
      node('status: {addresses: [{type: InternalIP, address: 172.31.0.11}]}') +
      node('status: {addresses: [{type: InternalIP, address: 172.31.0.12}]}').replace('node-1', 'node-2'),
    ['warning unknown_endpoint_node endpoints[0].nodeName'],
  ],
};

test('YAML as kubectl reads it: merged maps, booleans in words, octal numbers; times and clock-like text stay text', async () => {
  const text = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, creationTimestamp: 2024-01-01T00:00:00Z, labels: {at: 12:30, country: no, up: y}}
spec:
  clusterIP: 10.96.0.1
  publishNotReadyAddresses: yes
  ports:
  - &port {name: http, port: 80}
  - {<<: *port, name: web, port: 0120}
`;
  const { cluster } = await inputsOfText(text, ...labFlags);
  assert.deepEqual(
    cluster.problems.map(({ line, field, message }) => `${line} ${field}: ${message}`),
    [
      '3 metadata.labels.country: must be text (in quotes), not false',
      '3 metadata.labels.up: must be text (in quotes), not true',
    ],
  );
  const [service] = cluster.services;
  assert.equal(service?.meta.creationTimestamp, Date.UTC(2024, 0, 1));
  assert.deepEqual(
    service.ports.map(({ name, port }) => `${name} ${port}`),
    ['http 80', 'web 80'],
  );
});

for (const [name, [text, expected, ...flags]] of Object.entries(cases)) {
  test(name, async () => {
    const { cluster, wanted } = await inputsOfText(text, ...labFlags, ...flags);
    const found = check(cluster, wanted);
    assert.deepEqual(
      found.map(({ severity, reason, field }) => `${severity} ${reason} ${field}`),
      expected,
    );
    for (const { file, line, column, object, message, reason } of found) {
      assert.ok(message.length > 0);
      if (reason === 'no_node_port_address') continue;
      assert.equal(file, 'test.yaml', message);
      assert.ok(line > 0 && column > 0, message);
      assert.ok(object !== '' || reason === 'invalid_manifest', message);
    }
  });
}
