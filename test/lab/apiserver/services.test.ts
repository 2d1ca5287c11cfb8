import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  createDefaults,
  defaultServiceCidrs,
  publishEndpoints,
} from '../../../src/lab/apiserver/defaults.ts';
import type { KubeObject } from '../../../src/lab/apiserver/objects.ts';
import { Registry } from '../../../src/lab/apiserver/registry.ts';
import { resourceById } from '../../../src/lab/apiserver/resources.ts';
import { ApiError } from '../../../src/lab/apiserver/status.ts';
import type { ServiceObject, ServiceSpec } from '../../../src/lab/apiserver/strategies/serviceTypes.ts';

const services = resourceById('services');

function cluster(cidrs: readonly string[] = defaultServiceCidrs): Registry {
  const registry = new Registry();
  createDefaults(registry, cidrs, '10.96.0.1');
  return registry;
}

function create(registry: Registry, name: string, spec: ServiceSpec, dryRun = false): ServiceSpec {
  const input = { metadata: { name }, spec: { ports: [{ port: 80 }], ...spec } };
  const created = registry.create(services, 'default', input, { dryRun }) as unknown as ServiceObject;
  return created.spec as ServiceSpec;
}

function update(registry: Registry, name: string, change: (spec: ServiceSpec) => void): ServiceSpec {
  const wanted = structuredClone(registry.get(services, 'default', name)) as unknown as ServiceObject;
  change(wanted.spec as ServiceSpec);
  const updated = registry.update(services, 'default', name, wanted) as unknown as ServiceObject;
  return updated.spec as ServiceSpec;
}

function refused(body: () => unknown): string {
  try {
    body();
  } catch (error) {
    assert.ok(error instanceof ApiError, String(error));
    assert.equal(error.code, 422);
    assert.equal((error.toStatus()['details'] as { kind: string }).kind, 'Service');
    return error.message;
  }
  throw new Error('was accepted');
}

test('defaults are those of kube-apiserver', () => {
  const spec = create(cluster(), 'web', { sessionAffinity: 'ClientIP' });
  assert.deepEqual(spec, {
    ports: [{ port: 80, protocol: 'TCP', targetPort: 80 }],
    type: 'ClusterIP',
    sessionAffinity: 'ClientIP',
    sessionAffinityConfig: { clientIP: { timeoutSeconds: 10800 } },
    internalTrafficPolicy: 'Cluster',
    ipFamilyPolicy: 'SingleStack',
    ipFamilies: ['IPv4'],
    clusterIPs: [spec.clusterIP],
    clusterIP: spec.clusterIP,
  });
});

test('cluster IPs: chosen ones are kept, taken ones refused, freed ones free', () => {
  const registry = cluster();
  assert.equal(create(registry, 'a', { clusterIP: '10.96.7.7' }).clusterIP, '10.96.7.7');
  const taken = refused(() => create(registry, 'b', { clusterIP: '10.96.7.7' }));
  assert.match(
    taken,
    /Service "b" is invalid: spec\.clusterIPs: Invalid value: \["10\.96\.7\.7"\]: failed to allocate IP 10\.96\.7\.7: provided IP is already allocated/,
  );
  assert.match(
    refused(() => create(registry, 'b', { clusterIP: '10.97.0.1' })),
    /not in the valid range/,
  );
  registry.delete(services, 'default', 'a');
  assert.equal(create(registry, 'b', { clusterIP: '10.96.7.7' }).clusterIP, '10.96.7.7');
});

test('every Service gets an address of its own until the range is full', () => {
  const registry = cluster(['10.96.0.0/28']);
  const ips = new Set<string | undefined>(['10.96.0.1']);
  for (let index = 0; index < 13; index++) ips.add(create(registry, `s-${index}`, {}).clusterIP);
  assert.equal(ips.size, 14);
  assert.ok(!ips.has('10.96.0.0') && !ips.has('10.96.0.15'));
  assert.match(
    refused(() => create(registry, 'more', {})),
    /range is full/,
  );
  registry.delete(services, 'default', 's-3');
  assert.notEqual(create(registry, 'more', {}).clusterIP, undefined);
});

test('default/kubernetes comes back', async () => {
  const registry = cluster();
  registry.delete(services, 'default', 'kubernetes');
  await new Promise((resolve) => setImmediate(resolve));
  const { spec } = registry.get(services, 'default', 'kubernetes') as unknown as ServiceObject;
  assert.equal(spec?.clusterIP, '10.96.0.1');
});

test("default/kubernetes leads to the API server's own addresses, of the Service's family", () => {
  const registry = cluster();
  publishEndpoints(registry, { addresses: ['172.31.0.2', 'fd00:31::2'], port: 6443 });
  const slice = registry.get(resourceById('endpointslices.discovery.k8s.io'), 'default', 'kubernetes');
  assert.equal(slice['addressType'], 'IPv4');
  assert.deepEqual(slice['endpoints'], [{ addresses: ['172.31.0.2'], conditions: { ready: true } }]);
  assert.deepEqual(slice['ports'], [{ name: 'https', port: 6443, protocol: 'TCP' }]);
  assert.equal(slice.metadata.labels?.['kubernetes.io/service-name'], 'kubernetes');
  const { subsets } = registry.get(resourceById('endpoints'), 'default', 'kubernetes') as unknown as {
    subsets: { addresses: { ip: string }[] }[];
  };
  assert.deepEqual(subsets[0]?.addresses, [{ ip: '172.31.0.2' }]);
});

test('a dry run takes nothing', () => {
  const registry = cluster();
  const dry = create(registry, 'a', { clusterIP: '10.96.7.7', type: 'NodePort' }, true);
  assert.ok((dry.ports?.[0]?.nodePort ?? 0) >= 30000);
  assert.equal(registry.find(services, 'default', 'a'), undefined);
  assert.equal(create(registry, 'b', { clusterIP: '10.96.7.7' }).clusterIP, '10.96.7.7');
});

test('dual stack: families, policies, and changes between them', () => {
  const registry = cluster();
  const both = create(registry, 'both', { ipFamilyPolicy: 'PreferDualStack' });
  assert.deepEqual(both.ipFamilies, ['IPv4', 'IPv6']);
  assert.match(both.clusterIPs?.[1] ?? '', /^fd00:10:96::/);
  const six = create(registry, 'six', { ipFamilies: ['IPv6'] });
  assert.deepEqual([six.ipFamilyPolicy, six.clusterIPs?.length], ['SingleStack', 1]);
  const given = create(registry, 'given', { clusterIPs: ['fd00:10:96::77', '10.96.0.77'] });
  assert.deepEqual([given.ipFamilyPolicy, given.ipFamilies], ['RequireDualStack', ['IPv6', 'IPv4']]);
  const grown = update(registry, 'six', (spec) => (spec.ipFamilyPolicy = 'PreferDualStack'));
  assert.deepEqual(
    [grown.ipFamilies, grown.clusterIPs?.length, grown.clusterIPs?.[0]],
    [['IPv6', 'IPv4'], 2, six.clusterIP],
  );
  const shrunk = update(registry, 'both', (spec) => (spec.ipFamilyPolicy = 'SingleStack'));
  assert.deepEqual([shrunk.ipFamilies, shrunk.clusterIPs], [['IPv4'], [both.clusterIP]]);
  const single = cluster(['10.96.0.0/16']);
  assert.match(
    refused(() => create(single, 'two', { ipFamilyPolicy: 'RequireDualStack' })),
    /not configured for dual-stack/,
  );
});

test('node ports: range, conflicts, one number for TCP and UDP, kept on update', () => {
  const registry = cluster();
  const pair = create(registry, 'dns', {
    type: 'NodePort',
    ports: [
      { name: 'tcp', port: 53 },
      { name: 'udp', port: 53, protocol: 'UDP' },
    ],
  });
  assert.equal(pair.ports?.[0]?.nodePort, pair.ports?.[1]?.nodePort);
  const chosen = create(registry, 'chosen', { type: 'NodePort', ports: [{ port: 80, nodePort: 30080 }] });
  assert.equal(chosen.ports?.[0]?.nodePort, 30080);
  const again = (): unknown =>
    create(registry, 'again', { type: 'NodePort', ports: [{ port: 80, nodePort: 30080 }] });
  assert.match(
    refused(again),
    /spec\.ports\[0\]\.nodePort: Invalid value: 30080: provided port is already allocated/,
  );
  const low = (): unknown =>
    create(registry, 'low', { type: 'NodePort', ports: [{ port: 80, nodePort: 80 }] });
  assert.match(refused(low), /The range of valid ports is 30000-32767/);
  const replaced = update(registry, 'chosen', (spec) => (spec.ports = [{ port: 80, targetPort: 9 }]));
  assert.equal(replaced.ports?.[0]?.nodePort, 30080);
  const plain = update(registry, 'chosen', (spec) => (spec.type = 'ClusterIP'));
  assert.equal(plain.ports?.[0]?.nodePort, undefined);
  assert.equal(plain.externalTrafficPolicy, undefined);
});

test('health check node ports come and go with the policy', () => {
  const registry = cluster();
  const local = create(registry, 'lb', { type: 'LoadBalancer', externalTrafficPolicy: 'Local' });
  assert.ok((local.healthCheckNodePort ?? 0) >= 30000);
  const merge = { spec: { externalTrafficPolicy: 'Cluster', healthCheckNodePort: 0 } };
  const patched = registry.patch(services, 'default', 'lb', 'application/merge-patch+json', merge);
  assert.equal((patched as unknown as ServiceObject).spec?.healthCheckNodePort, undefined);
  assert.equal(registry.allocators.nodePortTaken(local.healthCheckNodePort ?? 0), false);
  const fixed = create(registry, 'fixed', {
    type: 'LoadBalancer',
    externalTrafficPolicy: 'Local',
    healthCheckNodePort: 30500,
  });
  assert.equal(fixed.healthCheckNodePort, 30500);
});

test('a change of type gives up what the new type has no use for', () => {
  const registry = cluster();
  const before = create(registry, 'web', {});
  const alias = update(registry, 'web', (spec) => {
    spec.type = 'ExternalName';
    spec.externalName = 'example.com';
  });
  assert.equal(alias.clusterIP, undefined);
  assert.equal(registry.allocators.ipTaken(before.clusterIP ?? ''), false);
});

test('status survives an update, and only the status subresource changes it', () => {
  const registry = cluster();
  create(registry, 'lb', { type: 'LoadBalancer' });
  const status = { loadBalancer: { ingress: [{ ip: '192.0.2.9' }] } };
  const live = registry.get(services, 'default', 'lb');
  registry.update(services, 'default', 'lb', { ...live, status }, { subresource: 'status' });
  update(registry, 'lb', (spec) => (spec.sessionAffinity = 'ClientIP'));
  const now = registry.get(services, 'default', 'lb') as unknown as ServiceObject;
  assert.deepEqual(now.status?.loadBalancer?.ingress, [{ ip: '192.0.2.9', ipMode: 'VIP' }]);
});

const wrong: readonly [string, ServiceSpec, RegExp][] = [
  [
    'port',
    { ports: [{ port: 0 }] },
    /spec\.ports\[0\]\.port: Invalid value: 0: must be between 1 and 65535, inclusive/,
  ],
  ['no ports', { ports: [] }, /spec\.ports: Required value/],
  [
    'names',
    { ports: [{ port: 1 }, { port: 2 }] },
    /\[spec\.ports\[0\]\.name: Required value, spec\.ports\[1\]\.name: Required value\]/,
  ],
  [
    'twice',
    {
      ports: [
        { name: 'a', port: 1 },
        { name: 'a', port: 2 },
      ],
    },
    /spec\.ports\[1\]\.name: Duplicate value: "a"/,
  ],
  [
    'protocol',
    { ports: [{ port: 1, protocol: 'ICMP' }] },
    /Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"/,
  ],
  [
    'address',
    { clusterIP: 'nonsense' },
    /spec\.clusterIPs\[0\]: Invalid value: "nonsense": must be a valid IP address/,
  ],
  [
    'node port',
    { ports: [{ port: 1, nodePort: 30001 }] },
    /spec\.ports\[0\]\.nodePort: Forbidden: may not be used when `type` is 'ClusterIP'/,
  ],
  ['type', { type: 'Magic' }, /spec\.type: Unsupported value: "Magic"/],
  ['affinity', { sessionAffinity: 'Always' }, /spec\.sessionAffinity: Unsupported value: "Always"/],
  ['external', { externalIPs: ['x'] }, /spec\.externalIPs\[0\]: Invalid value: "x"/],
  [
    'families',
    { clusterIPs: ['10.96.0.8', '10.96.0.9'] },
    /may specify no more than one IP for each IP family/,
  ],
];
for (const [what, spec, message] of wrong) {
  test(`refused: ${what}`, () => {
    assert.match(
      refused(() => create(cluster(), 'bad', spec)),
      message,
    );
  });
}

test('refused: names, and a changed cluster IP', () => {
  const registry = cluster();
  assert.match(
    refused(() => create(registry, '1st', {})),
    /metadata\.name: Invalid value: "1st": a DNS-1035 label/,
  );
  create(registry, 'web', { clusterIP: '10.96.5.5' });
  const change = (): unknown =>
    update(registry, 'web', (spec) => {
      spec.clusterIP = '10.96.5.6';
      spec.clusterIPs = ['10.96.5.6'];
    });
  assert.match(
    refused(change),
    /spec\.clusterIPs\[0\]: Invalid value: \["10\.96\.5\.6"\]: may not change once set/,
  );
});

test('leading zeros are tolerated, as Kubernetes does for Services', () => {
  assert.deepEqual(create(cluster(), 'old', { externalIPs: ['198.051.100.007'] }).externalIPs, [
    '198.051.100.007',
  ]);
});

test('bulk load applies defaults and allocation, and keeps status', () => {
  const registry = cluster();
  const object = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'bulk', namespace: 'default' },
    spec: { type: 'LoadBalancer', ports: [{ port: 80 }] },
    status: { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } },
  } as unknown as KubeObject;
  registry.load([object]);
  const { spec, status } = registry.get(services, 'default', 'bulk') as unknown as ServiceObject;
  assert.match(spec?.clusterIP ?? '', /^10\.96\./);
  assert.ok((spec?.ports?.[0]?.nodePort ?? 0) >= 30000);
  assert.equal(status?.loadBalancer?.ingress?.[0]?.ip, '192.0.2.1');
  assert.equal(registry.allocators.ipTaken('192.0.2.1'), true);
});
