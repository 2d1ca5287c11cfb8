import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EndpointSlice, Service } from '../../src/api/objects.ts';
import type { Dataplane, SyncRequest, SyncResult } from '../../src/dataplane/dataplane.ts';
import { silentLogger } from '../../src/log/logger.ts';
import { expose } from '../../src/metrics/exposition.ts';
import { Metrics } from '../../src/metrics/metrics.ts';
import { FamilyProxy } from '../../src/proxy/familyProxy.ts';
import { ProxyHealth } from '../../src/proxy/proxyHealth.ts';
import { ServiceHealth } from '../../src/proxy/serviceHealth.ts';
import { RouteTracker } from '../../src/services/routeTracker.ts';

const meta = (name: string) => ({
  name,
  namespace: 'default',
  uid: name,
  resourceVersion: '1',
  creationTimestamp: 0,
});

function service(name: string, clusterIP: string, protocol: 'TCP' | 'UDP' = 'TCP'): Service {
  return {
    kind: 'Service',
    meta: meta(name),
    type: 'ClusterIP',
    clusterIP,
    clusterIPs: [clusterIP],
    ipFamilies: ['IPv4'],
    ports: [{ name: 'p', protocol, port: 80, nodePort: 0 }],
    externalIPs: [],
    loadBalancerIngress: [],
    loadBalancerSourceRanges: [],
    sessionAffinity: 'None',
    sessionAffinityTimeoutSeconds: 10800,
    externalTrafficPolicy: '',
    internalTrafficPolicy: 'Cluster',
    healthCheckNodePort: 0,
  };
}

function slice(serviceName: string, address: string, trigger = 0): EndpointSlice {
  return {
    kind: 'EndpointSlice',
    meta: meta(`${serviceName}-1`),
    serviceName,
    addressType: 'IPv4',
    ports: [{ name: 'p', protocol: 'TCP', port: 8080 }],
    endpoints: [
      {
        address,
        ready: true,
        serving: true,
        terminating: false,
        nodeName: 'a',
        zone: '',
        zoneHints: [],
        nodeHints: [],
        pod: '',
      },
    ],
    lastChangeTriggerTime: trigger,
  };
}

interface Attempt {
  full: boolean;
  changed: string[];
  routes: number;
}

function make(options: { minSyncPeriod?: number; syncPeriod?: number } = {}) {
  const attempts: Attempt[] = [];
  const conntrack: { changed: number; restart: boolean }[] = [];
  const outcomes: ('ok' | 'fail' | 'crash')[] = [];
  let firstSyncs = 0;
  const dataplane: Dataplane = {
    mode: 'iptables',
    family: 'IPv4',
    start: () => Promise.resolve(),
    stop: () => Promise.resolve(),
    sync: (request: SyncRequest): Promise<SyncResult> => {
      attempts.push({
        full: request.full,
        changed: request.changes.changes.map((change) => change.id),
        routes: request.table.routes.size,
      });
      const outcome = outcomes.shift() ?? 'ok';
      if (outcome === 'crash') throw new Error('crash');
      return outcome === 'ok'
        ? Promise.resolve({ full: request.full })
        : Promise.reject(new Error('restore failed'));
    },
  };
  const health = new ProxyHealth(2 * (options.syncPeriod ?? 30_000));
  const metrics = new Metrics({ mode: 'iptables' });
  const proxy = new FamilyProxy({
    tracker: new RouteTracker({ family: 'IPv4', nodeName: 'a' }),
    dataplane,
    conntrack: {
      afterSync: ({ changes, restart }) => {
        conntrack.push({ changed: changes.changes.length, restart });
        return Promise.resolve({ deleted: 0, milliseconds: 0 });
      },
      close: () => undefined,
    },
    localAddresses: () => [],
    health,
    serviceHealth: new ServiceHealth({
      family: 'IPv4',
      addresses: [],
      proxyHealthy: () => true,
      log: silentLogger,
      listenFailed: () => undefined,
    }),
    metrics,
    minSyncPeriod: options.minSyncPeriod ?? 0,
    syncPeriod: options.syncPeriod ?? 30_000,
    firstSync: () => firstSyncs++,
    log: silentLogger,
  });
  return {
    proxy,
    attempts,
    outcomes,
    conntrack,
    health,
    metrics,
    firstSyncs: () => firstSyncs,
    text: () => expose(metrics.registry),
  };
}

async function until(holds: () => boolean): Promise<void> {
  for (let i = 0; i < 6000 && !holds(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.ok(holds());
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

test('the gate: no sync before both caches are known, then one full sync with everything', async () => {
  const { proxy, attempts, firstSyncs, conntrack } = make();
  proxy.start();
  proxy.upsertService(service('web', '10.96.0.1'));
  proxy.batchEnd();
  proxy.setServicesSynced();
  await settle();
  assert.equal(attempts.length, 0);
  proxy.upsertSlice(slice('web', '10.0.0.1'));
  proxy.batchEnd();
  proxy.setSlicesSynced();
  // In the same turn: nothing has been awaited.
  assert.equal(attempts.length, 1);
  await settle();
  assert.deepEqual(attempts, [{ full: true, changed: ['default/web:p/TCP'], routes: 1 }]);
  assert.equal(firstSyncs(), 1);
  assert.deepEqual(conntrack, [{ changed: 1, restart: true }]);
  await proxy.stop();
});

async function started(options: Parameters<typeof make>[0] = {}) {
  const made = make(options);
  made.proxy.start();
  made.proxy.upsertService(service('web', '10.96.0.1'));
  made.proxy.upsertSlice(slice('web', '10.0.0.1'));
  made.proxy.setServicesSynced();
  made.proxy.setSlicesSynced();
  await settle();
  return made;
}

test('a batch of events is one sync, started before batchEnd returns', async () => {
  const { proxy, attempts } = await started();
  proxy.upsertService(service('api', '10.96.0.2'));
  proxy.upsertSlice(slice('api', '10.0.0.2'));
  proxy.upsertSlice(slice('web', '10.0.0.3'));
  assert.equal(attempts.length, 1);
  proxy.batchEnd();
  assert.equal(attempts.length, 2);
  await settle();
  assert.equal(attempts[1]?.full, false);
  assert.deepEqual(attempts[1]?.changed.toSorted(), ['default/api:p/TCP', 'default/web:p/TCP']);
  await proxy.stop();
});

test('an event that changes nothing asks for no sync', async () => {
  const { proxy, attempts } = await started();
  proxy.upsertService(service('web', '10.96.0.1'));
  proxy.upsertSlice(slice('web', '10.0.0.1'));
  proxy.deleteService('default', 'nobody');
  proxy.batchEnd();
  await settle();
  assert.equal(attempts.length, 1);
  await proxy.stop();
});

test('after a failed sync the next is full, and clean-up of connections takes all for suspect', async () => {
  const { proxy, attempts, outcomes, conntrack, text, health } = await started({ syncPeriod: 1000 });
  outcomes.push('fail', 'crash');
  proxy.upsertSlice(slice('web', '10.0.0.9', Date.now() - 500));
  proxy.batchEnd();
  await settle();
  assert.equal(attempts.length, 2);
  assert.equal(conntrack.length, 1);
  const failed = await text();
  assert.match(failed, /^pointsman_sync_failures_total\{ip_family="IPv4"\} 1$/m);
  assert.ok(!failed.includes('network_programming_duration_seconds_count'));
  assert.equal(health.healthy(Date.now() + 2100), false);

  // The second attempt crashes, the third succeeds; each after the retry interval.
  await until(() => attempts.length === 4);
  await settle();
  assert.deepEqual(
    attempts.slice(1).map(({ full }) => full),
    [false, true, true],
  );
  assert.equal(attempts[3]?.routes, 1);
  assert.deepEqual(conntrack.at(-1), { changed: 0, restart: true });
  assert.equal(health.healthy(Date.now() + 1000), true);
  const recovered = await text();
  assert.match(recovered, /^pointsman_sync_failures_total\{ip_family="IPv4"\} 2$/m);
  // The time stamp of the change that the failed syncs took is measured once it is in force.
  assert.match(recovered, /^kubeproxy_network_programming_duration_seconds_count\{ip_family="IPv4"\} 1$/m);
  assert.match(recovered, /^kubeproxy_sync_proxy_rules_duration_seconds_count\{ip_family="IPv4"\} 4$/m);
  await proxy.stop();
});

test('a failed first sync is retried', async () => {
  const made = make({ syncPeriod: 500 });
  made.outcomes.push('fail');
  made.proxy.start();
  made.proxy.setServicesSynced();
  made.proxy.setSlicesSynced();
  await settle();
  assert.equal(made.firstSyncs(), 0);
  await until(() => made.attempts.length === 2);
  await settle();
  assert.equal(made.firstSyncs(), 1);
  await made.proxy.stop();
});

test('resync is full and does not wait for the minimum interval', async () => {
  const { proxy, attempts } = await started({ minSyncPeriod: 10_000 });
  proxy.upsertSlice(slice('web', '10.0.0.4'));
  proxy.batchEnd();
  assert.equal(attempts.length, 1);
  proxy.resync('somebody deleted our chains');
  assert.equal(attempts.length, 2);
  assert.equal(attempts[1]?.full, true);
  await settle();
  await proxy.stop();
});

test('a zone change is a full sync; the same ServiceCIDRs again are none', async () => {
  const { proxy, attempts } = await started();
  proxy.setZone('z1');
  proxy.batchEnd();
  await settle();
  assert.equal(attempts[1]?.full, true);
  proxy.setServiceCIDRs(['10.96.0.0/12']);
  proxy.batchEnd();
  await settle();
  assert.equal(attempts.length, 3);
  proxy.setZone('z1');
  proxy.setServiceCIDRs(['10.96.0.0/12']);
  proxy.batchEnd();
  await settle();
  assert.equal(attempts.length, 3);
  await proxy.stop();
});

test('events and syncs are counted under the names of the reference', async () => {
  const { proxy, text } = await started({ minSyncPeriod: 10_000 });
  proxy.upsertSlice(slice('web', '10.0.0.4'));
  proxy.upsertService(service('api', '10.96.0.2'));
  proxy.batchEnd();
  const metrics = await text();
  assert.match(metrics, /^kubeproxy_sync_proxy_rules_endpoint_changes_total 2$/m);
  assert.match(metrics, /^kubeproxy_sync_proxy_rules_endpoint_changes_pending 1$/m);
  assert.match(metrics, /^kubeproxy_sync_proxy_rules_service_changes_total 2$/m);
  assert.match(metrics, /^kubeproxy_sync_proxy_rules_service_changes_pending 1$/m);
  assert.match(metrics, /^kubeproxy_sync_full_proxy_rules_duration_seconds_count\{ip_family="IPv4"\} 1$/m);
  assert.match(
    metrics,
    /^kubeproxy_sync_proxy_rules_no_local_endpoints_total\{traffic_policy="internal",ip_family="IPv4"\} 0$/m,
  );
  await proxy.stop();
});
