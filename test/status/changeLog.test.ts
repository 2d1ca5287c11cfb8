import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ChangeSet, Endpoint, Route, RouteChange } from '../../src/services/types.ts';
import { ChangeLog } from '../../src/status/changeLog.ts';
import { endpoint, route } from './support/routes.ts';

function changeSet(...changes: RouteChange[]): ChangeSet {
  return { family: 'IPv4', changes, udpEndpointsChanged: false, triggerTimes: [] };
}

function change(before: Route | undefined, after: Route | undefined): RouteChange {
  return { id: (after ?? before)!.port.id, before, after };
}

test('a change keeps its way through time: triggered, received, applied', () => {
  const log = new ChangeLog();
  log.taken(changeSet(change(undefined, route('a', []))), 2000, 1000);
  const [waiting] = log.document().changes;
  assert.deepEqual([waiting?.applied, waiting?.milliseconds, waiting?.failures], [null, null, 0]);
  log.failed('IPv4');
  log.applied('IPv6', 2500);
  assert.equal(log.document().changes[0]?.applied, null);
  log.applied('IPv4', 2003.456);
  const [done] = log.document().changes;
  assert.equal(done?.triggered, '1970-01-01T00:00:01.000Z');
  assert.equal(done?.received, '1970-01-01T00:00:02.000Z');
  assert.equal(done?.milliseconds, 3.46);
  assert.equal(done?.failures, 1);
  assert.equal(done?.what, 'added');
  // A later sync is not this change's.
  log.applied('IPv4', 9000);
  assert.equal(log.document().changes[0]?.milliseconds, 3.46);
});

test('the ring keeps the last ones, whatever comes', () => {
  const log = new ChangeLog(4);
  const one = (name: string): RouteChange => change(undefined, route(name, []));
  log.taken(changeSet(one('a'), one('b'), one('c')), 1, undefined);
  log.taken(changeSet(one('d'), one('e')), 2, undefined);
  assert.deepEqual(
    log.document().changes.map(({ id, sequence }) => [id, sequence]),
    [
      ['default/b:http/TCP', 1],
      ['default/c:http/TCP', 2],
      ['default/d:http/TCP', 3],
      ['default/e:http/TCP', 4],
    ],
  );
  assert.equal(log.document().forgotten, 1);
  log.taken(changeSet(...Array.from({ length: 10 }, (_, i) => one(`n${i}`))), 3, undefined);
  assert.deepEqual(
    log.document().changes.map(({ id }) => id),
    ['default/n6:http/TCP', 'default/n7:http/TCP', 'default/n8:http/TCP', 'default/n9:http/TCP'],
  );
  assert.equal(log.document().forgotten, 11);
  log.applied('IPv4', 5);
  assert.ok(log.document().changes.every(({ milliseconds }) => milliseconds === 2));
});

test('details name endpoints that came, went and changed their condition', () => {
  const before: Endpoint[] = [endpoint('10.0.0.1'), endpoint('10.0.0.2'), endpoint('10.0.0.3')];
  const after: Endpoint[] = [
    endpoint('10.0.0.2'),
    endpoint('10.0.0.3', { ready: false, terminating: true }),
    endpoint('10.0.0.4'),
  ];
  const log = new ChangeLog();
  log.taken(changeSet(change(route('a', before), route('a', after))), 0, undefined);
  const [only] = log.document().changes;
  assert.deepEqual(
    only?.details.filter((line) => line.includes('10.')),
    ['-10.0.0.1:8080', '~10.0.0.3:8080 ready -> draining', '+10.0.0.4:8080'],
  );
  const many = Array.from({ length: 65 }, (_, i) => endpoint(`10.0.1.${i}`));
  log.taken(changeSet(change(route('b', []), route('b', many))), 0, undefined);
  assert.deepEqual(log.document((id) => id.startsWith('default/b:')).changes[0]?.details, []);
});
