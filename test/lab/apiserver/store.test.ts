import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { KubeObject } from '../../../src/lab/apiserver/objects.ts';
import { ApiError } from '../../../src/lab/apiserver/status.ts';
import { Store } from '../../../src/lab/apiserver/store.ts';

function object(name: string): KubeObject {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace: 'default' } };
}

const step = fc.record({ put: fc.boolean(), name: fc.constantFrom('a', 'b', 'c', 'd') });
const steps = fc.array(step, { maxLength: 40 });

function play(store: Store, all: readonly { put: boolean; name: string }[], each: () => void): void {
  for (const { put, name } of all) {
    if (put) store.put('configmaps', object(name));
    else store.remove('configmaps', 'default', name);
    each();
  }
}

test('a list at an earlier revision is what the list was then', () => {
  fc.assert(
    fc.property(steps, (all) => {
      const store = new Store();
      const then = new Map<number, readonly KubeObject[]>();
      play(store, all, () => then.set(store.revision, store.list('configmaps')));
      for (const [revision, list] of then)
        assert.deepEqual(store.listAt('configmaps', revision, 'gone'), list);
    }),
  );
});

test('a list and the events after it give the current list', () => {
  fc.assert(
    fc.property(steps, steps, (before, after) => {
      const store = new Store();
      play(store, before, () => undefined);
      const { revision } = store;
      const mirror = new Map(store.list('configmaps').map((one) => [one.metadata.name, one]));
      play(store, after, () => undefined);
      let last = revision;
      for (const event of store.eventsSince('configmaps', revision)) {
        assert.ok(event.revision > last);
        last = event.revision;
        if (event.type === 'DELETED') mirror.delete(event.object.metadata.name);
        else {
          assert.equal(event.type === 'ADDED', !mirror.has(event.object.metadata.name));
          mirror.set(event.object.metadata.name, event.object);
        }
      }
      const names = [...mirror.keys()].sort((a, b) => (a < b ? -1 : 1));
      assert.deepEqual(
        names.map((name) => mirror.get(name)),
        store.list('configmaps'),
      );
    }),
  );
});

test('history is bounded: what is older answers 410', () => {
  const store = new Store(10);
  const first = store.revision;
  for (let index = 0; index < 100; index++) store.put('configmaps', object('a'));
  const gone = (body: () => unknown): void =>
    assert.throws(
      body,
      (error) => error instanceof ApiError && error.code === 410 && error.reason === 'Expired',
    );
  gone(() => store.eventsSince('configmaps', first));
  gone(() => store.listAt('configmaps', first, 'gone'));
  assert.equal(store.eventsSince('configmaps', store.revision - 5).length, 5);
  store.compact();
  gone(() => store.eventsSince('configmaps', store.revision - 1));
  assert.deepEqual(store.eventsSince('configmaps', store.revision), []);
});

test('listeners hear of a change before the write returns, and no more once they stopped', () => {
  const store = new Store();
  const heard: string[] = [];
  const stop = store.subscribe('configmaps', ({ type }) => heard.push(type));
  store.put('configmaps', object('a'));
  assert.deepEqual(heard, ['ADDED']);
  store.put('secrets', object('a'));
  stop();
  store.remove('configmaps', 'default', 'a');
  assert.deepEqual(heard, ['ADDED']);
});
