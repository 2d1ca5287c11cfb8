/** Laws of the tracker, over random histories and hostile objects. */
import assert from 'node:assert/strict';
import { isIPv4 } from 'node:net';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { EndpointSlice, Service } from '../../src/api/objects.ts';
import { frontendKey } from '../../src/services/claims.ts';
import { sameEndpoints } from '../../src/services/endpoints.ts';
import { parseCIDR } from '../../src/services/ip.ts';
import { RouteTracker } from '../../src/services/routeTracker.ts';
import type { Route, RoutingTable } from '../../src/services/types.ts';
import { backend, content, meta, port, service, slice, slicePort } from './build.ts';

type Event =
  | { readonly kind: 'upsertService'; readonly object: Service }
  | { readonly kind: 'deleteService'; readonly name: string }
  | { readonly kind: 'upsertSlice'; readonly object: EndpointSlice }
  | { readonly kind: 'deleteSlice'; readonly name: string }
  | { readonly kind: 'zone'; readonly zone: string }
  | { readonly kind: 'take' };

/** Few values and uneven weights, so that histories collide. */
const name = fc.constantFrom('a', 'b', 'c');
const sliceName = fc.constantFrom('x', 'y', 'z');
const protocol = fc.constantFrom('TCP', 'TCP', 'TCP', 'UDP');
const portName = fc.constantFrom('', '', '', 'http');
const policy = fc.constantFrom('', 'Cluster', 'Local');
const address = fc.integer({ min: 1, max: 6 }).map((n) => `10.0.0.${n}`);

const someService: fc.Arbitrary<Service> = fc
  .record({
    name,
    age: fc.integer({ min: 1, max: 3 }),
    clusterIP: fc.constantFrom(
      '10.96.0.1',
      '10.96.0.2',
      '10.96.0.3',
      '10.96.0.1',
      '10.96.0.2',
      '10.96.0.3',
      'None',
      'fd00::1',
    ),
    type: fc.constantFrom(
      'ClusterIP',
      'NodePort',
      'NodePort',
      'LoadBalancer',
      'LoadBalancer',
      'ExternalName',
    ),
    ports: fc.array(
      fc.record({
        name: portName,
        protocol,
        port: fc.constantFrom(80, 81),
        nodePort: fc.constantFrom(0, 0, 30080),
      }),
      { maxLength: 3 },
    ),
    externalIPs: fc.array(fc.constantFrom('203.0.113.1', '203.0.113.2', '10.96.0.1'), { maxLength: 2 }),
    vips: fc.array(fc.constantFrom('203.0.113.1', '203.0.113.3'), { maxLength: 2 }),
    internalTrafficPolicy: policy,
    externalTrafficPolicy: policy,
    healthCheckNodePort: fc.constantFrom(0, 31000),
  })
  .map(({ name: n, age, vips, ...rest }) =>
    service(n, {
      ...rest,
      meta: meta(n, 'default', age),
      ports: rest.ports.map((each) => port(each)),
      loadBalancerIngress: vips.map((ip) => ({ ip, ipMode: undefined })),
    }),
  );

const someSlice: fc.Arbitrary<EndpointSlice> = fc
  .record({
    name: sliceName,
    serviceName: name,
    ports: fc.array(fc.record({ name: portName, protocol, port: fc.constantFrom(8080, 8081) }), {
      minLength: 1,
      maxLength: 2,
    }),
    endpoints: fc.array(
      fc.record({
        address,
        ready: fc.boolean(),
        serving: fc.boolean(),
        terminating: fc.boolean(),
        nodeName: fc.constantFrom('', 'node-1', 'node-2'),
        zoneHints: fc.constantFrom([], ['a'], ['a', 'b']),
        nodeHints: fc.constantFrom([], [], ['node-1'], ['node-2']),
      }),
      { maxLength: 5 },
    ),
    addressType: fc.constantFrom('IPv4', 'IPv4', 'IPv4', 'IPv6'),
  })
  .map(({ name: n, serviceName, ports, endpoints, addressType }) =>
    slice(
      n,
      serviceName,
      endpoints.map((each) => backend(each.address, each)),
      {
        ports: ports.map((each) => slicePort(each)),
        addressType,
      },
    ),
  );

const event: fc.Arbitrary<Event> = fc.oneof(
  { weight: 4, arbitrary: someService.map((object) => ({ kind: 'upsertService' as const, object })) },
  { weight: 5, arbitrary: someSlice.map((object) => ({ kind: 'upsertSlice' as const, object })) },
  { weight: 1, arbitrary: name.map((each) => ({ kind: 'deleteService' as const, name: each })) },
  { weight: 2, arbitrary: sliceName.map((each) => ({ kind: 'deleteSlice' as const, name: each })) },
  { weight: 1, arbitrary: fc.constantFrom('', 'a', 'b').map((zone) => ({ kind: 'zone' as const, zone })) },
  { weight: 3, arbitrary: fc.constant({ kind: 'take' as const }) },
);

function fresh(services: Iterable<Service>, slices: Iterable<EndpointSlice>, zone: string): RouteTracker {
  const tracker = new RouteTracker({ family: 'IPv4', nodeName: 'node-1', zone });
  for (const object of slices) tracker.upsertSlice(object);
  for (const object of services) tracker.upsertService(object);
  tracker.take();
  return tracker;
}

describe('any history', () => {
  test('leaves the table of a fresh start, and its change sets lead there', () => {
    fc.assert(
      fc.property(fc.array(event, { minLength: 15, maxLength: 40, size: 'max' }), (events) => {
        const tracker = new RouteTracker({ family: 'IPv4', nodeName: 'node-1' });
        const services = new Map<string, Service>();
        const slices = new Map<string, EndpointSlice>();
        let zone = '';
        const replayed = new Map<string, Route>();
        let asked = false;
        const take = (): void => {
          const { changes } = tracker.take();
          if (changes.length > 0) assert.ok(asked, 'a change that no event asked a sync for');
          asked = false;
          assert.equal(new Set(changes.map((change) => change.id)).size, changes.length);
          for (const { id, before, after } of changes) {
            assert.equal(replayed.get(id), before);
            assert.notDeepEqual(before, after);
            if (after === undefined) replayed.delete(id);
            else replayed.set(id, after);
          }
          assert.equal(replayed.size, tracker.table.routes.size);
          for (const [id, route] of replayed) assert.equal(tracker.table.routes.get(id), route);
        };
        for (const each of events) {
          switch (each.kind) {
            case 'upsertService':
              services.set(each.object.meta.name, each.object);
              if (tracker.upsertService(each.object)) asked = true;
              break;
            case 'deleteService':
              services.delete(each.name);
              if (tracker.deleteService('default', each.name)) asked = true;
              break;
            case 'upsertSlice':
              slices.set(each.object.meta.name, each.object);
              if (tracker.upsertSlice(each.object)) asked = true;
              break;
            case 'deleteSlice':
              slices.delete(each.name);
              if (tracker.deleteSlice('default', each.name)) asked = true;
              break;
            case 'zone':
              zone = each.zone;
              if (tracker.setZone(zone)) asked = true;
              break;
            case 'take':
              take();
          }
        }
        take();
        const other = fresh(services.values(), slices.values(), zone);
        assert.deepEqual(content(tracker.table), content(other.table));
        assert.deepEqual(new Map(tracker.healthChecks()), new Map(other.healthChecks()));
        assert.deepEqual(tracker.noLocalEndpoints, other.noLocalEndpoints);
        assert.equal(tracker.totalEndpoints, other.totalEndpoints);
        assert.equal(tracker.pendingServiceChanges, 0);
        checkTable(tracker.table);
      }),
      { numRuns: 1000 },
    );
  });

  test('the order of a fresh start does not matter', () => {
    const distinct = <T extends Service | EndpointSlice>(all: readonly T[]): T[] => [
      ...new Map(all.map((each) => [each.meta.name, each])).values(),
    ];
    fc.assert(
      fc.property(
        fc.array(someService, { maxLength: 6 }),
        fc.array(someSlice, { maxLength: 6 }),
        (someServices, someSlices) => {
          const services = distinct(someServices);
          const slices = distinct(someSlices);
          const forth = fresh(services, slices, 'a');
          const back = fresh(services.toReversed(), slices.toReversed(), 'a');
          assert.deepEqual(content(forth.table), content(back.table));
        },
      ),
      { numRuns: 300 },
    );
  });
});

/** What no table may ever break, whatever came in. */
function checkTable(table: RoutingTable): void {
  const held = new Map<string, string>();
  const name = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;
  const isPort = (value: number): boolean => Number.isInteger(value) && value > 0 && value < 65536;
  for (const [id, route] of table.routes) {
    const { port: p } = route;
    assert.equal(p.id, id);
    assert.match(id, /^[a-z0-9.-]+\/[a-z0-9.-]+:[a-z0-9-]*\/(TCP|UDP|SCTP)$/);
    assert.match(p.namespace, name);
    assert.match(p.service, name);
    assert.match(p.name, /^[a-z0-9.:/-]+$/);
    for (const ip of [p.clusterIP, ...p.externalIPs, ...p.loadBalancerIPs]) assert.ok(isIPv4(ip), ip);
    for (const range of p.sourceRanges) assert.equal(parseCIDR(range)?.text, range);
    assert.ok(isPort(p.port) && (p.nodePort === 0 || isPort(p.nodePort)));
    assert.ok(p.healthCheckNodePort === 0 || isPort(p.healthCheckNodePort));
    assert.ok(Number.isInteger(p.affinitySeconds) && p.affinitySeconds >= 0 && p.affinitySeconds <= 86400);
    for (const frontend of route.frontends) {
      const key = frontendKey(frontend);
      assert.equal(held.get(key) ?? id, id, `${key} has two service ports`);
      held.set(key, id);
    }
    for (const list of [route.endpoints, route.cluster, route.local, route.reachable]) {
      for (let i = 1; i < list.length; i++) assert.ok(list[i - 1]!.key < list[i]!.key);
      for (const endpoint of list) {
        assert.match(endpoint.key, /^[0-9.]+:[0-9]+$/);
        assert.ok(isIPv4(endpoint.ip) && isPort(endpoint.port));
        assert.match(`${endpoint.nodeName}${endpoint.zone}${endpoint.pod}`, /^[A-Za-z0-9._/:-]*$/);
        assert.ok(route.endpoints.includes(endpoint) || !sameEndpoints([endpoint], route.endpoints));
      }
    }
  }
  for (const route of table.routes.values()) {
    for (const frontend of route.lostFrontends)
      assert.ok(held.has(frontendKey(frontend)), 'a frontend nobody has');
  }
}

const junk = fc.oneof(
  fc.constantFrom(
    '"',
    "'",
    '\n',
    '-A INPUT -j ACCEPT',
    '$(reboot)',
    '10.0.0.1\n',
    '0.0.0.0/0',
    '٣.1.1.1',
    '',
    ' ',
    'a b',
    '../x',
    '1.2.3.4:80',
    '::ffff:1.2.3.4',
    '001.2.3.4',
    '10.0.0.0/33',
  ),
  fc.string({ maxLength: 12 }),
  fc.ipV4(),
  fc.ipV6(),
  fc.constantFrom('web', 'default', '203.0.113.1'),
);
const number = fc.oneof(
  fc.constantFrom(0, -1, 65535, 65536, 80, 1e9, NaN, Infinity, 80.5, 2 ** 53),
  fc.integer(),
);
const anyProtocol = fc.constantFrom('TCP', 'UDP', 'ICMP', '"') as fc.Arbitrary<'TCP'>;

const hostileService = fc
  .record({
    name: fc.oneof(junk, name),
    namespace: fc.oneof(junk, fc.constant('default')),
    creationTimestamp: fc.constantFrom(0, 1, NaN),
    type: junk,
    clusterIP: fc.oneof(junk, fc.ipV4()),
    ipFamilies: fc.array(fc.oneof(junk, fc.constantFrom('IPv4', 'IPv6')), { maxLength: 2 }),
    clusterIPs: fc.array(fc.oneof(junk, fc.ipV4()), { maxLength: 2 }),
    ports: fc.array(
      fc.record({
        name: fc.oneof(junk, portName),
        protocol: anyProtocol,
        port: fc.oneof(number, fc.constant(80)),
        nodePort: fc.oneof(number, fc.constant(0)),
      }),
      { maxLength: 3 },
    ),
    externalIPs: fc.array(junk, { maxLength: 4 }),
    ingress: fc.array(fc.record({ ip: junk, ipMode: fc.constantFrom(undefined, 'VIP', '"') }), {
      maxLength: 3,
    }),
    loadBalancerSourceRanges: fc.array(junk, { maxLength: 3 }),
    sessionAffinity: fc.constantFrom('ClientIP', '"'),
    sessionAffinityTimeoutSeconds: number,
    externalTrafficPolicy: fc.constantFrom('Local', '"'),
    healthCheckNodePort: number,
  })
  .map(({ name: n, namespace, creationTimestamp, ingress, ...rest }) =>
    service(n, { ...rest, loadBalancerIngress: ingress, meta: meta(n, namespace, creationTimestamp) }),
  );

const hostileSlice = fc
  .record({
    name: fc.oneof(junk, sliceName),
    serviceName: fc.oneof(junk, name),
    ports: fc.array(
      fc.record({
        name: fc.oneof(junk, portName, fc.constant(null)),
        protocol: anyProtocol,
        port: fc.oneof(number, fc.constant(null)),
      }),
      { maxLength: 3 },
    ),
    endpoints: fc.array(
      fc.record({
        address: fc.oneof(junk, fc.ipV4()),
        nodeName: junk,
        zone: junk,
        pod: junk,
        zoneHints: fc.array(junk, { maxLength: 2 }),
      }),
      { maxLength: 4 },
    ),
  })
  .map(({ name: n, serviceName, ports, endpoints }) =>
    slice(
      n,
      serviceName,
      endpoints.map((each) => backend(each.address, each)),
      { ports },
    ),
  );

describe('hostile objects', () => {
  test('never get a bad value into a route, and harm nobody else', () => {
    const good = service('web', { meta: meta('web', 'good', -1), clusterIP: '10.96.9.9' });
    fc.assert(
      fc.property(
        fc.array(hostileService, { maxLength: 5 }),
        fc.array(hostileSlice, { maxLength: 5 }),
        (services, slices) => {
          const messages: string[] = [];
          const tracker = new RouteTracker({
            family: 'IPv4',
            nodeName: 'node-1',
            onProblem: ({ object, field, reason, message }) =>
              messages.push(`${object} ${field} ${reason} ${message}`),
          });
          tracker.upsertService(good);
          for (const object of services) tracker.upsertService(object);
          for (const object of slices) tracker.upsertSlice(object);
          tracker.take();
          checkTable(tracker.table);
          assert.equal(tracker.table.routes.get('good/web:/TCP')?.frontends.length, 1);
          // eslint-disable-next-line no-control-regex
          for (const message of messages) assert.doesNotMatch(message, /[\u0000-\u001f]/);
          for (const object of services) tracker.deleteService(object.meta.namespace, object.meta.name);
          for (const object of slices) tracker.deleteSlice(object.meta.namespace, object.meta.name);
          tracker.take();
          assert.deepEqual([...tracker.table.routes.keys()], ['good/web:/TCP']);
          assert.equal(tracker.totalEndpoints, 0);
        },
      ),
      { numRuns: 1000 },
    );
  });
});
