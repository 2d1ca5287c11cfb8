import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { createDefaults, defaultServiceCidrs } from '../../../src/lab/apiserver/defaults.ts';
import type { JsonObject, KubeObject } from '../../../src/lab/apiserver/objects.ts';
import { Registry } from '../../../src/lab/apiserver/registry.ts';
import { resourceById } from '../../../src/lab/apiserver/resources.ts';
import type { ServiceObject } from '../../../src/lab/apiserver/strategies/serviceTypes.ts';
import { startControllers, type Controllers } from '../../../src/lab/controllers/controllers.ts';

const pods = resourceById('pods');
const nodes = resourceById('nodes');
const services = resourceById('services');
const endpointSlices = resourceById('endpointslices.discovery.k8s.io');
const endpoints = resourceById('endpoints');
const deployments = resourceById('deployments.apps');
const replicaSets = resourceById('replicasets.apps');

let registry: Registry;
let controllers: Controllers;
const problems: unknown[] = [];

/** Until no controller has anything left to do. */
async function settle(): Promise<void> {
  for (let idle = 0, last = -1; idle < 5;) {
    await new Promise((resolve) => setImmediate(resolve));
    const now = registry.storage.revision;
    idle = now === last ? idle + 1 : 0;
    last = now;
  }
}

function list(resource: Parameters<Registry['list']>[0], labelSelector?: string): readonly KubeObject[] {
  return registry.list(resource, { namespace: resource.namespaced ? 'default' : '', labelSelector }).items;
}

function makeNode(name: string, zone: string): void {
  const metadata = { name, labels: { 'topology.kubernetes.io/zone': zone, 'kubernetes.io/hostname': name } };
  registry.create(nodes, '', { metadata, status: { conditions: [{ type: 'Ready', status: 'True' }] } });
}

/** The kubelet's part: the Pod runs and has addresses. */
function start(pod: KubeObject, ips: readonly string[], ready = true): void {
  const { name, namespace = '' } = pod.metadata;
  const status: JsonObject = {
    phase: 'Running',
    podIP: ips[0] ?? '',
    podIPs: ips.map((ip) => ({ ip })),
    conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }],
  };
  const live = registry.get(pods, namespace, name);
  registry.update(pods, namespace, name, { ...live, status }, { subresource: 'status' });
}

async function startAll(): Promise<void> {
  let changed = true;
  while (changed) {
    changed = false;
    await settle();
    for (const pod of list(pods)) {
      if (pod.metadata.deletionTimestamp !== undefined) {
        registry.delete(pods, 'default', pod.metadata.name, { gracePeriodSeconds: 0 });
        changed = true;
      } else if (pod.status?.['phase'] === 'Pending' && pod.spec?.['nodeName']) {
        start(pod, [`10.244.1.${++addresses}`]);
        changed = true;
      }
    }
  }
}
let addresses = 0;

function makeDeployment(replicas: number, image = 'web'): void {
  registry.create(deployments, 'default', {
    metadata: { name: 'web' },
    spec: {
      replicas,
      selector: { matchLabels: { app: 'web' } },
      template: {
        metadata: { labels: { app: 'web' } },
        spec: { containers: [{ name: 'web', image, ports: [{ name: 'http', containerPort: 8080 }] }] },
      },
    },
  });
}

function makePod(name: string, extra: JsonObject = {}, containerPort = 8080): KubeObject {
  const container = { name: 'c', image: 'web', ports: [{ name: 'http', containerPort }] };
  return registry.create(pods, 'default', {
    metadata: { name, labels: { app: 'web' } },
    spec: { nodeName: 'node-1', containers: [container], ...extra },
  });
}

function makeService(spec: JsonObject = {}): void {
  const ports = [{ name: 'http', port: 80, targetPort: 'http' }];
  registry.create(services, 'default', {
    metadata: { name: 'web' },
    spec: { selector: { app: 'web' }, ports, ...spec },
  });
}

function sorted(values: readonly unknown[]): string[] {
  return values.map(String).sort((a, b) => (a < b ? -1 : 1));
}

const ofWeb = 'kubernetes.io/service-name=web';
type Endpoint = {
  addresses: string[];
  conditions: JsonObject;
  nodeName: string;
  zone?: string;
  hints?: JsonObject;
};
function webEndpoints(): Endpoint[] {
  return list(endpointSlices, ofWeb).flatMap((slice) => slice['endpoints'] as Endpoint[]);
}

beforeEach(() => {
  problems.length = 0;
  addresses = 0;
  registry = new Registry();
  createDefaults(registry, defaultServiceCidrs, '10.96.0.1');
  makeNode('node-1', 'zone-a');
  makeNode('node-2', 'zone-b');
  controllers = startControllers(registry, {
    report: (name, key, error) => problems.push([name, key, error]),
  });
});
afterEach(() => {
  controllers.stop();
  assert.deepEqual(problems, []);
});

describe('Deployments', () => {
  test('make Pods, spread over the nodes, and report them', async () => {
    makeDeployment(4);
    await startAll();
    await settle();
    const onNodes = list(pods).map((pod) => pod.spec?.['nodeName']);
    assert.deepEqual(sorted(onNodes), ['node-1', 'node-1', 'node-2', 'node-2']);
    const { status } = registry.get(deployments, 'default', 'web');
    assert.deepEqual(
      [status?.['replicas'], status?.['availableReplicas'], status?.['observedGeneration']],
      [4, 4, 1],
    );
  });

  test('scale up and down', async () => {
    makeDeployment(2);
    await startAll();
    for (const replicas of [10, 2, 0]) {
      registry.patch(
        deployments,
        'default',
        'web',
        'application/merge-patch+json',
        { spec: { replicas } },
        { subresource: 'scale' },
      );
      await startAll();
      assert.equal(list(pods).length, replicas);
    }
  });

  test('a new template never leaves fewer Pods ready than allowed', async () => {
    makeDeployment(4);
    await startAll();
    let fewest = 4;
    registry.storage.subscribe('pods', () => {
      const ready = list(pods).filter(
        (pod) => pod.status?.['phase'] === 'Running' && !pod.metadata.deletionTimestamp,
      );
      fewest = Math.min(fewest, ready.length);
    });
    const container = { name: 'web', image: 'web:2' };
    const patch = { spec: { template: { spec: { containers: [container] } } } };
    registry.patch(deployments, 'default', 'web', 'application/strategic-merge-patch+json', patch);
    await startAll();
    const images = list(pods).map(
      (pod) => (pod.spec?.['containers'] as JsonObject[] | undefined)?.[0]?.['image'],
    );
    assert.deepEqual(images, ['web:2', 'web:2', 'web:2', 'web:2']);
    assert.ok(fewest >= 3, `only ${fewest} were ready`);
    assert.equal(list(replicaSets).length, 2);
  });

  test('a lost Pod is replaced; a deleted Deployment takes everything along', async () => {
    makeDeployment(2);
    await startAll();
    registry.delete(pods, 'default', list(pods)[0]?.metadata.name ?? '', { gracePeriodSeconds: 0 });
    await startAll();
    assert.equal(list(pods).length, 2);
    registry.delete(deployments, 'default', 'web');
    await startAll();
    assert.deepEqual([list(replicaSets).length, list(pods).length], [0, 0]);
  });

  test('a Pod that is relabelled goes its own way and is replaced; labelled back, it is one too many', async () => {
    makeDeployment(2);
    await startAll();
    const [pod] = list(pods);
    const relabel = (app: string): void => {
      const live = registry.get(pods, 'default', pod?.metadata.name ?? '');
      const metadata = { ...live.metadata, labels: { ...live.metadata.labels, app } };
      registry.update(pods, 'default', live.metadata.name, { ...live, metadata });
    };
    relabel('debug');
    await startAll();
    assert.equal(list(pods, 'app=web').length, 2);
    const released = registry.get(pods, 'default', pod?.metadata.name ?? '');
    assert.deepEqual(released.metadata.ownerReferences ?? [], []);
    relabel('web');
    await startAll();
    assert.equal(list(pods, 'app=web').length, 2);
    assert.equal(list(pods).length, 2);
    const owners = list(pods).map((one) => one.metadata.ownerReferences?.[0]?.kind);
    assert.deepEqual(
      owners,
      ['ReplicaSet', 'ReplicaSet'],
      'adopted again, and one of the three was given up',
    );
  });

  test('orphans stay', async () => {
    makeDeployment(1);
    await startAll();
    registry.delete(deployments, 'default', 'web', { propagationPolicy: 'Orphan' });
    await startAll();
    assert.deepEqual([list(replicaSets).length, list(pods).length], [1, 1]);
  });
});

describe('the scheduler', () => {
  test('respects a node selector, and waits for a node that fits', async () => {
    const container = { name: 'c', image: 'web' };
    const spec = { containers: [container], nodeSelector: { 'kubernetes.io/hostname': 'node-3' } };
    registry.create(pods, 'default', { metadata: { name: 'picky' }, spec });
    await settle();
    assert.equal(registry.get(pods, 'default', 'picky').spec?.['nodeName'], undefined);
    makeNode('node-3', 'zone-a');
    await settle();
    assert.equal(registry.get(pods, 'default', 'picky').spec?.['nodeName'], 'node-3');
  });
});

describe('EndpointSlices', () => {
  test('say where Pods are, whose they are, and whether they are ready', async () => {
    makeService();
    start(makePod('a'), ['10.244.1.1']);
    start(makePod('b', { nodeName: 'node-2' }), ['10.244.2.1'], false);
    makePod('without-address');
    await settle();
    const [slice] = list(endpointSlices, ofWeb);
    assert.equal(slice?.['addressType'], 'IPv4');
    assert.deepEqual(slice['ports'], [{ name: 'http', protocol: 'TCP', port: 8080 }]);
    const [a, b, none] = webEndpoints();
    assert.deepEqual([a?.addresses, a?.nodeName, a?.zone], [['10.244.1.1'], 'node-1', 'zone-a']);
    assert.deepEqual(a?.conditions, { ready: true, serving: true, terminating: false });
    assert.deepEqual(b?.conditions, { ready: false, serving: false, terminating: false });
    assert.equal(none, undefined);
    assert.equal(slice.metadata.ownerReferences?.[0]?.kind, 'Service');
    const stamp = slice.metadata.annotations?.['endpoints.kubernetes.io/last-change-trigger-time'] ?? '';
    assert.ok(Math.abs(Date.parse(stamp) - Date.now()) < 60_000, stamp);
  });

  test('a Pod that is going is terminating, still serving, then gone', async () => {
    makeService();
    start(makePod('a'), ['10.244.1.1']);
    await settle();
    registry.delete(pods, 'default', 'a');
    await settle();
    assert.deepEqual(webEndpoints()[0]?.conditions, { ready: false, serving: true, terminating: true });
    registry.delete(pods, 'default', 'a', { gracePeriodSeconds: 0 });
    await settle();
    assert.deepEqual(webEndpoints(), []);
  });

  test('a port name that means different numbers makes two slices', async () => {
    makeService();
    start(makePod('a', {}, 8080), ['10.244.1.1']);
    start(makePod('b', {}, 9090), ['10.244.1.2']);
    await settle();
    const ports = list(endpointSlices, ofWeb).map((slice) => (slice['ports'] as JsonObject[])[0]?.['port']);
    assert.deepEqual(sorted(ports), ['8080', '9090']);
  });

  test('dual stack: one slice a family', async () => {
    makeService({ ipFamilyPolicy: 'RequireDualStack' });
    start(makePod('a'), ['10.244.1.1', 'fd00:10:244:1::1']);
    await settle();
    const found = list(endpointSlices, ofWeb).map((slice) => [
      slice['addressType'],
      (slice['endpoints'] as Endpoint[])[0]?.addresses[0],
    ]);
    assert.deepEqual(sorted(found), ['IPv4,10.244.1.1', 'IPv6,fd00:10:244:1::1']);
  });

  test('more than 100 endpoints take several slices, and one change touches one slice', async () => {
    makeService();
    for (let index = 0; index < 250; index++) {
      start(makePod(`p-${index}`), [`10.244.${index >> 7}.${(index & 127) + 1}`]);
    }
    await settle();
    const sizes = list(endpointSlices, ofWeb).map((slice) => (slice['endpoints'] as Endpoint[]).length);
    assert.deepEqual(
      [...sizes].sort((a, b) => a - b),
      [50, 100, 100],
    );
    const touched = new Set<string>();
    registry.storage.subscribe(endpointSlices.storage, ({ object }) => touched.add(object.metadata.name));
    registry.delete(pods, 'default', 'p-7', { gracePeriodSeconds: 0 });
    await settle();
    assert.equal(touched.size, 1);
    assert.equal(webEndpoints().length, 249);
  });

  test('labels: headless Services mark their slices; no selector, no slices', async () => {
    makeService({ clusterIP: 'None' });
    registry.create(services, 'default', { metadata: { name: 'manual' }, spec: { ports: [{ port: 80 }] } });
    start(makePod('a'), ['10.244.1.1']);
    await settle();
    assert.equal(list(endpointSlices, ofWeb)[0]?.metadata.labels?.['service.kubernetes.io/headless'], '');
    assert.equal(list(endpointSlices, 'kubernetes.io/service-name=manual').length, 0);
  });

  test('publishNotReadyAddresses and traffic distribution', async () => {
    makeService({ publishNotReadyAddresses: true, trafficDistribution: 'PreferSameZone' });
    start(makePod('a'), ['10.244.1.1'], false);
    await settle();
    const [endpoint] = webEndpoints();
    assert.deepEqual(endpoint?.conditions, { ready: true, serving: false, terminating: false });
    assert.deepEqual(endpoint?.hints, { forZones: [{ name: 'zone-a' }] });
  });

  test('Endpoints follow, and all goes with the Service', async () => {
    makeService();
    start(makePod('a'), ['10.244.1.1']);
    start(makePod('b'), ['10.244.1.2'], false);
    await settle();
    const [subset] = registry.get(endpoints, 'default', 'web')['subsets'] as JsonObject[];
    assert.deepEqual(
      (subset?.['addresses'] as JsonObject[] | undefined)?.map((one) => one['ip']),
      ['10.244.1.1'],
    );
    assert.deepEqual(
      (subset?.['notReadyAddresses'] as JsonObject[] | undefined)?.map((one) => one['ip']),
      ['10.244.1.2'],
    );
    registry.delete(services, 'default', 'web');
    await settle();
    assert.deepEqual(
      [list(endpointSlices, ofWeb).length, registry.find(endpoints, 'default', 'web')],
      [0, undefined],
    );
  });

  test('the selector decides: a Pod that loses its label is out', async () => {
    makeService();
    start(makePod('a'), ['10.244.1.1']);
    await settle();
    const patch = { metadata: { labels: { app: 'other' } } };
    registry.patch(pods, 'default', 'a', 'application/merge-patch+json', patch);
    await settle();
    assert.deepEqual(webEndpoints(), []);
  });
});

describe('load balancers', () => {
  test('get one address a family, each its own; an address that is there stays', async () => {
    makeService({ type: 'LoadBalancer', ipFamilyPolicy: 'PreferDualStack' });
    const ports = (): JsonObject[] => [{ port: 80 }];
    registry.create(services, 'default', {
      metadata: { name: 'other' },
      spec: { type: 'LoadBalancer', ports: ports() },
    });
    const given = { ingress: [{ ip: '192.0.2.200', ipMode: 'VIP' }] };
    registry.load([
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'given', namespace: 'default' },
        spec: { type: 'LoadBalancer', ports: ports() },
        status: { loadBalancer: given },
      },
    ]);
    await settle();
    const ingress = (name: string): (string | undefined)[] =>
      (
        (registry.get(services, 'default', name) as unknown as ServiceObject).status?.loadBalancer?.ingress ??
        []
      ).map((one) => one.ip);
    assert.deepEqual(ingress('web'), ['192.0.2.1', '2001:db8:1::1']);
    assert.deepEqual(ingress('other'), ['192.0.2.2']);
    assert.deepEqual(ingress('given'), ['192.0.2.200']);
  });
});

describe('namespaces', () => {
  test('with a Deployment at work end without complaint', async () => {
    registry.create(resourceById('namespaces'), '', { metadata: { name: 'busy' } });
    const template = {
      metadata: { labels: { a: 'b' } },
      spec: { containers: [{ name: 'c', image: 'web' }] },
    };
    const spec = { replicas: 3, selector: { matchLabels: { a: 'b' } }, template };
    registry.create(deployments, 'busy', { metadata: { name: 'web' }, spec });
    const ports = [{ port: 80 }];
    registry.create(services, 'busy', { metadata: { name: 'web' }, spec: { selector: { a: 'b' }, ports } });
    await settle();
    registry.delete(resourceById('namespaces'), '', 'busy');
    await settle();
    for (const pod of registry.list(pods, { namespace: 'busy' }).items) {
      registry.delete(pods, 'busy', pod.metadata.name, { gracePeriodSeconds: 0 });
    }
    await settle();
    assert.equal(registry.find(resourceById('namespaces'), '', 'busy'), undefined);
  });

  test('are emptied before they go, and take nothing new meanwhile', async () => {
    registry.create(resourceById('namespaces'), '', { metadata: { name: 'short' } });
    const pod = {
      metadata: { name: 'a' },
      spec: { nodeName: 'node-1', containers: [{ name: 'c', image: 'web' }] },
    };
    registry.create(pods, 'short', pod);
    registry.delete(resourceById('namespaces'), '', 'short');
    await settle();
    const create = (): unknown =>
      registry.create(resourceById('configmaps'), 'short', { metadata: { name: 'x' } });
    assert.throws(create, /because it is being terminated/);
    registry.delete(pods, 'short', 'a', { gracePeriodSeconds: 0 });
    await settle();
    assert.equal(registry.find(resourceById('namespaces'), '', 'short'), undefined);
  });
});
