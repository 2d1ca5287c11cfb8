import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ProblemLedger } from '../../src/services/problems.ts';
import type { RouteTrackerOptions } from '../../src/services/routeTracker.ts';
import { RouteTracker } from '../../src/services/routeTracker.ts';
import type { Problem } from '../../src/services/types.ts';
import { backend, keys, meta, port, service, slice, slicePort } from './build.ts';

function tracker(options: Partial<RouteTrackerOptions> = {}): RouteTracker {
  return new RouteTracker({ family: 'IPv4', nodeName: 'node-1', ...options });
}

const WEB = 'default/web:/TCP';

describe('changes of Services', () => {
  test('add four, then change one and delete three', () => {
    const t = tracker();
    const names = ['a', 'b', 'c', 'd'];
    const two = [port({ name: 'p' }), port({ name: 'q', port: 81 })];
    names.forEach((name, i) =>
      assert.ok(t.upsertService(service(name, { clusterIP: `10.96.0.${i}`, ports: two }))),
    );
    assert.equal(t.pendingServiceChanges, 4);
    assert.equal(t.take().changes.length, 8);
    assert.equal(t.pendingServiceChanges, 0);
    assert.ok(t.upsertService(service('a', { clusterIP: '10.96.0.0', ports: two.slice(0, 1) })));
    for (const name of names.slice(1)) assert.ok(t.deleteService('default', name));
    const { changes } = t.take();
    assert.equal(changes.length, 7);
    assert.ok(changes.every((change) => change.before !== undefined && change.after === undefined));
    assert.deepEqual([...t.table.routes.keys()], ['default/a:p/TCP']);
  });

  test('nothing changed, nothing to do', () => {
    const t = tracker();
    t.upsertService(service('web'));
    t.take();
    const before = t.table.routes.get(WEB);
    assert.equal(t.upsertService(service('web', { meta: { ...meta('web'), resourceVersion: '2' } })), false);
    assert.deepEqual(t.take().changes, []);
    assert.equal(t.table.routes.get(WEB), before);
  });

  test('there and back before a take is nothing', () => {
    const t = tracker();
    t.upsertService(service('web'));
    t.deleteService('default', 'web');
    assert.equal(t.pendingServiceChanges, 0);
    assert.deepEqual(t.take().changes, []);
    assert.equal(t.deleteService('default', 'unknown'), false);
  });

  test('becoming headless is going away; coming back is coming back', () => {
    const t = tracker();
    t.upsertSlice(slice('s', 'web', ['10.0.0.1']));
    t.upsertService(service('web'));
    t.take();
    assert.ok(t.upsertService(service('web', { clusterIP: 'None' })));
    assert.equal(t.take().changes[0]?.after, undefined);
    assert.equal(t.table.routes.size, 0);
    assert.ok(t.upsertService(service('web')));
    assert.deepEqual(keys(t.take().changes[0]!.after!.cluster), ['10.0.0.1:8080']);
  });

  test('deleted and recreated between takes is one change in place', () => {
    const t = tracker();
    t.upsertService(service('web'));
    t.take();
    t.deleteService('default', 'web');
    t.upsertService(service('web', { clusterIP: '10.96.0.99' }));
    const { changes } = t.take();
    assert.equal(changes.length, 1);
    assert.equal(changes[0]?.before?.port.clusterIP, '10.96.0.10');
    assert.equal(changes[0]?.after?.port.clusterIP, '10.96.0.99');
  });
});

describe('changes of EndpointSlices', () => {
  test('slices may come before their Service', () => {
    const t = tracker();
    assert.equal(t.upsertSlice(slice('s', 'web', ['10.0.0.1'])), false);
    assert.deepEqual(t.take().changes, []);
    assert.ok(t.upsertService(service('web')));
    assert.deepEqual(keys(t.take().changes[0]!.after!.cluster), ['10.0.0.1:8080']);
  });

  test('of several slices all endpoints, duplicates once, the staying one preferred', () => {
    const t = tracker();
    t.upsertService(service('web'));
    t.upsertSlice(slice('s1', 'web', ['10.0.0.1', backend('10.0.0.2', { ready: false, terminating: true })]));
    t.upsertSlice(slice('s2', 'web', ['10.0.0.2', '10.0.0.3']));
    t.take();
    const route = t.table.routes.get(WEB)!;
    assert.deepEqual(keys(route.cluster), ['10.0.0.1:8080', '10.0.0.2:8080', '10.0.0.3:8080']);
    assert.equal(route.cluster, route.endpoints);
    assert.ok(t.deleteSlice('default', 's2'));
    t.take();
    assert.deepEqual(keys(t.table.routes.get(WEB)!.cluster), ['10.0.0.1:8080']);
    assert.equal(t.totalEndpoints, 2);
  });

  test('an endpoint that moves between slices is no change', () => {
    const t = tracker();
    t.upsertService(service('web'));
    t.upsertSlice(slice('s1', 'web', ['10.0.0.1', '10.0.0.2']));
    t.upsertSlice(slice('s2', 'web', ['10.0.0.3']));
    t.take();
    t.upsertSlice(slice('s1', 'web', ['10.0.0.1']));
    t.upsertSlice(slice('s2', 'web', ['10.0.0.2', '10.0.0.3']));
    assert.deepEqual(t.take().changes, []);
  });

  test('an event that changes no route asks for nothing', () => {
    const t = tracker();
    t.upsertService(service('web'));
    t.upsertSlice(slice('s', 'web', ['10.0.0.1', '10.0.0.2']));
    t.take();
    assert.equal(t.upsertSlice(slice('s', 'web', ['10.0.0.2', '10.0.0.1'])), false);
    assert.equal(t.upsertSlice(slice('other', 'unknown', ['10.0.0.1'])), false);
    assert.equal(
      t.upsertSlice(slice('named', 'web', ['10.0.0.9'], { ports: [slicePort({ name: 'metrics' })] })),
      false,
    );
    assert.equal(t.upsertSlice(slice('six', 'web', ['fd00::1'], { addressType: 'IPv6' })), false);
    assert.equal(t.upsertSlice(slice('fqdn', 'web', ['a.example'], { addressType: 'FQDN' })), false);
    assert.equal(t.deleteSlice('default', 'never-seen'), false);
    assert.deepEqual(t.take().changes, []);
  });

  test('a slice that changes its Service leaves the old one', () => {
    const t = tracker();
    t.upsertService(service('web'));
    t.upsertService(service('api', { clusterIP: '10.96.0.11' }));
    t.upsertSlice(slice('s', 'web', ['10.0.0.1']));
    t.take();
    assert.ok(t.upsertSlice(slice('s', 'api', ['10.0.0.1'])));
    assert.equal(t.take().changes.length, 2);
    assert.deepEqual(keys(t.table.routes.get(WEB)!.endpoints), []);
    assert.deepEqual(keys(t.table.routes.get('default/api:/TCP')!.endpoints), ['10.0.0.1:8080']);
    assert.ok(t.upsertSlice(slice('s', '', ['10.0.0.1'])));
    t.take();
    assert.deepEqual(keys(t.table.routes.get('default/api:/TCP')!.endpoints), []);
  });

  test('an empty slice that fills later, after its Service came and went', () => {
    const t = tracker();
    t.upsertSlice(slice('s', 'web', []));
    t.take();
    t.upsertService(service('web'));
    t.take();
    t.deleteService('default', 'web');
    t.take();
    t.upsertSlice(slice('s', 'web', ['10.0.0.1']));
    t.upsertService(service('web'));
    t.take();
    assert.deepEqual(keys(t.table.routes.get(WEB)!.endpoints), ['10.0.0.1:8080']);
  });

  for (const [what, change] of [
    ['added', (t: RouteTracker) => t.upsertSlice(slice('s2', 'dns', ['10.0.0.2'], { ports: dns() }))],
    ['removed', (t: RouteTracker) => t.deleteSlice('default', 's')],
    [
      'port renamed',
      (t: RouteTracker) => t.upsertSlice(slice('s', 'dns', ['10.0.0.1'], { ports: dns({ name: 'q' }) })),
    ],
    [
      'port renumbered',
      (t: RouteTracker) => t.upsertSlice(slice('s', 'dns', ['10.0.0.1'], { ports: dns({ port: 54 }) })),
    ],
    [
      'terminating',
      (t: RouteTracker) =>
        t.upsertSlice(
          slice('s', 'dns', [backend('10.0.0.1', { ready: false, terminating: true })], { ports: dns() }),
        ),
    ],
    ['Service deleted', (t: RouteTracker) => t.deleteService('default', 'dns')],
  ] as const) {
    test(`UDP endpoints, ${what}: conntrack wants cleaning`, () => {
      const t = tracker();
      t.upsertService(service('dns', { ports: [port({ name: 'p', protocol: 'UDP', port: 53 })] }));
      t.upsertService(service('web', { clusterIP: '10.96.0.11' }));
      t.upsertSlice(slice('s', 'dns', ['10.0.0.1'], { ports: dns() }));
      assert.equal(t.take().udpEndpointsChanged, true);
      assert.equal(t.take().udpEndpointsChanged, false);
      t.upsertSlice(slice('w', 'web', ['10.0.0.7']));
      assert.equal(t.take().udpEndpointsChanged, false);
      assert.ok(change(t));
      assert.equal(t.take().udpEndpointsChanged, true);
    });
  }

  test('trigger times', () => {
    const t = tracker({ now: 100 });
    const at = (time: number, ip = `10.0.0.${time % 200}`): boolean =>
      t.upsertSlice(slice('s', 'web', [ip], { lastChangeTriggerTime: time }));
    t.upsertService(service('web'));
    at(150);
    at(160);
    assert.deepEqual(t.take().triggerTimes, [150, 160]);
    assert.deepEqual(t.take().triggerTimes, []);
    at(170);
    t.deleteSlice('default', 's');
    assert.deepEqual(t.take().triggerTimes, []);
    at(171);
    t.deleteSlice('default', 's');
    at(172);
    assert.deepEqual(t.take().triggerTimes, [172]);
    at(99);
    at(0);
    assert.deepEqual(t.take().triggerTimes, []);
  });
});

function dns(changes: Parameters<typeof slicePort>[0] = {}): ReturnType<typeof slicePort>[] {
  return [slicePort({ name: 'p', protocol: 'UDP', port: 53, ...changes })];
}

describe('what else is read from the tracker', () => {
  test('health checks count addresses of ready local endpoints', () => {
    const t = tracker();
    const ports = [port({ name: 'p' }), port({ name: 'q', port: 81 })];
    t.upsertService(
      service('web', {
        type: 'LoadBalancer',
        externalTrafficPolicy: 'Local',
        healthCheckNodePort: 31000,
        ports,
      }),
    );
    const here = { nodeName: 'node-1' };
    const endpoints = [
      backend('10.0.0.1', here),
      backend('10.0.0.2', { ...here, ready: false, terminating: true }),
      backend('10.0.0.3', { ...here, ready: false }),
      backend('10.0.0.4'),
    ];
    t.upsertSlice(
      slice('s', 'web', endpoints, {
        ports: [slicePort({ name: 'p' }), slicePort({ name: 'q', port: 8081 })],
      }),
    );
    assert.equal(t.healthChecks().size, 0);
    t.take();
    assert.deepEqual([...t.healthChecks()], [['default/web', { port: 31000, localEndpoints: 1 }]]);
    t.deleteSlice('default', 's');
    t.take();
    assert.deepEqual([...t.healthChecks()], [['default/web', { port: 31000, localEndpoints: 0 }]]);
    t.deleteService('default', 'web');
    t.take();
    assert.equal(t.healthChecks().size, 0);
  });

  test('Local policies without anybody here', () => {
    const t = tracker();
    const both = {
      internalTrafficPolicy: 'Local',
      externalTrafficPolicy: 'Local',
      type: 'NodePort',
      ports: [port({ nodePort: 30080 })],
    };
    t.upsertService(service('web', both));
    t.take();
    assert.deepEqual(t.noLocalEndpoints, { internal: 0, external: 0 });
    t.upsertSlice(slice('s', 'web', ['10.0.0.1']));
    t.take();
    assert.deepEqual(t.noLocalEndpoints, { internal: 1, external: 1 });
    t.upsertSlice(slice('s', 'web', [backend('10.0.0.1', { nodeName: 'node-1' })]));
    t.take();
    assert.deepEqual(t.noLocalEndpoints, { internal: 0, external: 0 });
  });

  test('the zone of the node', () => {
    const t = tracker({ zone: 'a' });
    t.upsertService(service('web'));
    t.upsertSlice(
      slice('s', 'web', [
        backend('10.0.0.1', { zoneHints: ['a'] }),
        backend('10.0.0.2', { zoneHints: ['b'] }),
      ]),
    );
    t.take();
    assert.deepEqual(keys(t.table.routes.get(WEB)!.cluster), ['10.0.0.1:8080']);
    assert.equal(t.setZone('a'), false);
    assert.equal(t.setZone('b'), true);
    assert.deepEqual(keys(t.take().changes[0]!.after!.cluster), ['10.0.0.2:8080']);
    assert.equal(t.setZone(''), true);
    assert.equal(t.take().changes[0]!.after!.cluster.length, 2);
  });

  test('a problem is reported once, by one tracker of two, and again when it comes back', () => {
    const problems: Problem[] = [];
    const ledger = new ProblemLedger((problem) => problems.push(problem));
    const trackers = [tracker({ problems: ledger }), tracker({ problems: ledger, family: 'IPv6' })];
    const dual = { ipFamilies: ['IPv4', 'IPv6'], clusterIPs: ['10.96.0.10', 'fd00::10'] };
    for (const version of ['1', '2', '3']) {
      for (const t of trackers) {
        t.upsertService(
          service('web', {
            ...dual,
            meta: { ...meta('web'), resourceVersion: version },
            externalIPs: ['junk'],
          }),
        );
      }
    }
    assert.equal(problems.length, 1);
    for (const t of trackers) t.upsertService(service('web', dual));
    for (const t of trackers) t.upsertService(service('web', { ...dual, externalIPs: ['junk'] }));
    assert.equal(problems.length, 2);
  });
});

describe('a sync costs what changed', () => {
  function big(): RouteTracker {
    const t = tracker();
    for (let i = 0; i < 500; i++) {
      t.upsertService(service(`s${i}`, { clusterIP: `10.96.${i >> 8}.${i & 255}` }));
      t.upsertSlice(slice(`s${i}-x`, `s${i}`, [`10.0.${i >> 8}.${i & 255}`]));
    }
    t.take();
    return t;
  }

  test('one endpoint, one Service: one route looked at of 500', () => {
    const t = big();
    const before = t.examinedRoutes;
    t.upsertSlice(slice('s7-x', 's7', ['10.9.9.9']));
    assert.equal(t.take().changes.length, 1);
    assert.equal(t.examinedRoutes - before, 1);
    t.upsertService(service('s8', { clusterIP: '10.97.0.8' }));
    assert.equal(t.take().changes.length, 1);
    assert.equal(t.examinedRoutes - before, 2);
    t.take();
    assert.equal(t.examinedRoutes - before, 2);
  });

  test('one slice of a huge Service: the others are not read again', () => {
    const t = tracker();
    let reads = 0;
    const counting = (address: string): ReturnType<typeof backend> =>
      Object.defineProperty({ ...backend(address) }, 'address', {
        get: () => (reads++, address),
        enumerable: true,
      });
    const chunk = (i: number, extra: string[] = []): ReturnType<typeof slice> =>
      slice(
        `big-${i}`,
        'web',
        [...Array.from({ length: 100 }, (_, j) => `10.1.${i}.${j}`), ...extra].map(counting),
      );
    t.upsertService(service('web'));
    for (let i = 0; i < 100; i++) t.upsertSlice(chunk(i));
    t.take();
    reads = 0;
    const before = t.table.routes.get(WEB)!.endpoints;
    t.upsertSlice(chunk(50, ['10.2.0.1']));
    const [change] = t.take().changes;
    assert.equal(reads, 101);
    const after = change!.after!.endpoints;
    assert.equal(after.length, 10_001);
    assert.deepEqual(keys(after), keys(after).sort());
    assert.equal(before.filter((each) => !after.includes(each)).length, 0);
  });
});
