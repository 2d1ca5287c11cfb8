import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Service } from '../../src/api/objects.ts';
import { frontendKey } from '../../src/services/claims.ts';
import { RouteTracker } from '../../src/services/routeTracker.ts';
import type { Problem } from '../../src/services/types.ts';
import { meta, port, service } from './build.ts';

function setUp(): {
  t: RouteTracker;
  problems: Problem[];
  has: (name: string) => string[];
  lost: (name: string) => string[];
} {
  const problems: Problem[] = [];
  const t = new RouteTracker({
    family: 'IPv4',
    nodeName: 'node-1',
    onProblem: (problem) => problems.push(problem),
  });
  const route = (name: string) => t.table.routes.get(`default/${name}:/TCP`);
  return {
    t,
    problems,
    has: (name) => route(name)?.frontends.map(frontendKey) ?? [],
    lost: (name) => route(name)?.lostFrontends.map(frontendKey) ?? [],
  };
}

function claimant(name: string, age: number, last: number, changes: Partial<Service> = {}): Service {
  return service(name, {
    meta: meta(name, 'default', age),
    clusterIP: `10.96.0.${last}`,
    externalIPs: ['203.0.113.1'],
    ...changes,
  });
}

describe('two Services claim one frontend', () => {
  test('the older has it, whoever came first; the other keeps the rest', () => {
    for (const order of [
      [0, 1],
      [1, 0],
    ]) {
      const { t, problems, has, lost } = setUp();
      const both = [claimant('old', 1, 1), claimant('new', 2, 2)];
      for (const i of order) t.upsertService(both[i]!);
      t.take();
      assert.deepEqual(has('old'), ['10.96.0.1:80/TCP', '203.0.113.1:80/TCP']);
      assert.deepEqual(has('new'), ['10.96.0.2:80/TCP']);
      assert.deepEqual(lost('new'), ['203.0.113.1:80/TCP']);
      assert.deepEqual(
        problems.map((each) => [each.object, each.field, each.reason]),
        [['Service default/new', 'spec.externalIPs', 'duplicate_frontend']],
      );
      assert.match(problems[0]!.message, /default\/old:\/TCP/);
    }
  });

  test('of the same age the name decides', () => {
    const { t, lost } = setUp();
    t.upsertService(claimant('b', 1, 2));
    t.upsertService(claimant('a', 1, 1));
    t.take();
    assert.deepEqual(lost('a'), []);
    assert.deepEqual(lost('b'), ['203.0.113.1:80/TCP']);
  });

  test('an older one that comes later takes it over, and both are in the change set', () => {
    const { t, problems, has } = setUp();
    t.upsertService(claimant('new', 2, 2));
    t.take();
    t.upsertService(claimant('old', 1, 1));
    assert.deepEqual(
      t
        .take()
        .changes.map((change) => change.id)
        .sort(),
      ['default/new:/TCP', 'default/old:/TCP'],
    );
    assert.deepEqual(has('new'), ['10.96.0.2:80/TCP']);
    assert.equal(problems.length, 1);
  });

  test('when the winner goes, the next in age has it', () => {
    const { t, problems, has, lost } = setUp();
    t.upsertService(claimant('third', 3, 3));
    t.upsertService(claimant('first', 1, 1));
    t.upsertService(claimant('second', 2, 2));
    t.take();
    assert.equal(problems.length, 2);
    t.deleteService('default', 'first');
    const ids = t
      .take()
      .changes.map((change) => change.id)
      .sort();
    assert.deepEqual(ids, ['default/first:/TCP', 'default/second:/TCP']);
    assert.deepEqual(has('second'), ['10.96.0.2:80/TCP', '203.0.113.1:80/TCP']);
    assert.deepEqual(lost('third'), ['203.0.113.1:80/TCP']);
    t.upsertService(claimant('second', 2, 2, { externalIPs: [] }));
    t.take();
    assert.deepEqual(lost('third'), []);
    assert.deepEqual(has('third'), ['10.96.0.3:80/TCP', '203.0.113.1:80/TCP']);
    assert.equal(problems.length, 2);
  });

  test('a change of the winner that leaves the frontend alone touches nobody else', () => {
    const { t } = setUp();
    t.upsertService(claimant('old', 1, 1));
    t.upsertService(claimant('new', 2, 2));
    t.take();
    t.upsertService(claimant('old', 1, 1, { sessionAffinity: 'ClientIP' }));
    assert.deepEqual(
      t.take().changes.map((change) => change.id),
      ['default/old:/TCP'],
    );
  });

  test('another port or protocol is another frontend; node ports are claimed too', () => {
    const { t, problems, lost } = setUp();
    t.upsertService(claimant('a', 1, 1, { ports: [port({ nodePort: 30080 })] }));
    t.upsertService(claimant('b', 2, 2, { ports: [port({ port: 81, nodePort: 30080 })] }));
    t.upsertService(claimant('c', 3, 3, { ports: [port({ protocol: 'UDP', nodePort: 30080 })] }));
    t.take();
    assert.deepEqual(lost('b'), ['*:30080/TCP']);
    assert.deepEqual(
      problems.map((each) => each.field),
      ['spec.ports[].nodePort'],
    );
  });

  test("one's cluster IP is another's external IP", () => {
    const { t, lost, has } = setUp();
    t.upsertService(service('api', { meta: meta('api', 'default', 1), clusterIP: '10.96.0.1' }));
    t.upsertService(claimant('thief', 2, 2, { externalIPs: ['10.96.0.1'] }));
    t.take();
    assert.deepEqual(has('api'), ['10.96.0.1:80/TCP']);
    assert.deepEqual(lost('thief'), ['10.96.0.1:80/TCP']);
  });

  test('one address as two kinds of one service port is no conflict', () => {
    const { t, problems } = setUp();
    t.upsertService(
      claimant('web', 1, 1, { loadBalancerIngress: [{ ip: '203.0.113.1', ipMode: undefined }] }),
    );
    t.take();
    const route = t.table.routes.get('default/web:/TCP')!;
    assert.deepEqual(
      route.frontends.map((each) => each.kind),
      ['clusterIP', 'externalIP', 'loadBalancerIP'],
    );
    assert.deepEqual(problems, []);
    t.deleteService('default', 'web');
    t.upsertService(claimant('next', 2, 2));
    t.take();
    assert.deepEqual(t.table.routes.get('default/next:/TCP')!.lostFrontends, []);
  });

  test('two ports of one Service at one address: one of them', () => {
    const { t, problems } = setUp();
    t.upsertService(service('web', { ports: [port({ name: 'a' }), port({ name: 'b' })] }));
    t.take();
    assert.equal(t.table.routes.get('default/web:a/TCP')!.frontends.length, 1);
    assert.equal(t.table.routes.get('default/web:b/TCP')!.frontends.length, 0);
    assert.equal(problems.length, 1);
  });
});
