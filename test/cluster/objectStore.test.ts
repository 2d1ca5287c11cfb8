import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EndpointSlice } from '../../src/api/objects.ts';
import { ObjectStore } from '../../src/cluster/objectStore.ts';

function slice(name: string, resourceVersion: string, address: string): EndpointSlice {
  return {
    kind: 'EndpointSlice',
    meta: { name, namespace: 'default', uid: name, resourceVersion, creationTimestamp: 0 },
    serviceName: 'web',
    addressType: 'IPv4',
    ports: [],
    endpoints: [
      {
        address,
        ready: true,
        serving: true,
        terminating: false,
        nodeName: '',
        zone: '',
        zoneHints: [],
        nodeHints: [],
        pod: '',
      },
    ],
    lastChangeTriggerTime: 0,
  };
}

test('what is kept of an object is enough to tell updates, repetitions and deletions', () => {
  const calls: string[] = [];
  const addresses = ({ endpoints }: EndpointSlice): string => endpoints.map(({ address }) => address).join();
  const store = new ObjectStore<EndpointSlice>(
    {
      add: (object) => calls.push(`add ${object.meta.name} ${addresses(object)}`),
      update: (old, object) =>
        calls.push(`update ${old.addressType} ${object.meta.name} ${addresses(object)}`),
      delete: (last) => calls.push(`delete ${last.meta.name} ${addresses(last)}`),
      synced: () => calls.push('synced'),
    },
    (error) => assert.fail(String(error)),
    (object) => ({ ...object, endpoints: [] }),
  );
  store.beginListing();
  store.put(slice('a', '1', '10.0.0.1'));
  store.put(slice('b', '2', '10.0.0.2'));
  store.endListing();
  store.put(slice('a', '1', '10.0.0.1'));
  store.put(slice('a', '3', '10.0.0.3'));
  assert.deepEqual(store.objects.get('default/a')?.endpoints, []);
  store.beginListing();
  store.put(slice('a', '3', '10.0.0.3'));
  store.endListing();
  assert.deepEqual(calls, [
    'add a 10.0.0.1',
    'add b 10.0.0.2',
    'synced',
    'update IPv4 a 10.0.0.3',
    'delete b ',
  ]);
});
