import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { ApiClient, ApiError, resourcePath } from '../../src/lab/scenario/apiClient.ts';
import type { JsonObject } from '../../src/lab/scenario/generate.ts';
import { PlainApi } from '../../src/lab/scenario/plainApi.ts';

const api = new PlainApi();
let url = '';
let client: ApiClient;

before(async () => {
  url = `http://127.0.0.1:${await api.start()}`;
  client = new ApiClient({ url, ca: '', token: 'x' });
});
after(async () => {
  await client.close();
  api.close();
});

const service = (name: string, spec: JsonObject): JsonObject => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, namespace: 'default', labels: { app: name } },
  spec,
});

function names(list: JsonObject): string[] {
  return (list['items'] as { metadata: { name: string } }[]).map((item) => item.metadata.name);
}

/** Reads a watch until it has so many events. */
async function watch(
  query: string,
  count: number,
  begun: () => void = () => undefined,
): Promise<{ type: string; object: JsonObject }[]> {
  const stop = new AbortController();
  const answer = await fetch(`${url}/api/v1/services?watch=true&${query}`, { signal: stop.signal });
  const events: { type: string; object: JsonObject }[] = [];
  let text = '';
  for await (const chunk of answer.body ?? []) {
    text += Buffer.from(chunk as Uint8Array).toString();
    const lines = text.split('\n');
    text = lines.pop() ?? '';
    for (const line of lines) events.push(JSON.parse(line) as { type: string; object: JsonObject });
    if (events.length > 0) begun();
    if (events.length >= count) break;
  }
  stop.abort();
  return events;
}

test('objects are created, replaced, patched and deleted; status goes its own way; nothing is refused', async () => {
  await client.apply({
    ...service('a', { clusterIP: 'nonsense' }),
    status: { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } },
  });
  await client.apply(service('a', { ports: [{ port: 99_999 }] }));
  const replaced = await client.get('Service', 'a');
  assert.deepEqual(replaced['spec'], { ports: [{ port: 99_999 }] });
  assert.deepEqual(replaced['status'], { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } });
  await client.patch('Service', 'a', {
    spec: { ports: null, type: 'NodePort' },
    status: { loadBalancer: { ingress: null } },
  });
  const patched = await client.get('Service', 'a');
  assert.deepEqual(patched['spec'], { type: 'NodePort' });
  assert.deepEqual(patched['status'], { loadBalancer: {} });
  await client.delete('Service', 'a');
  await client.delete('Service', 'a');
  await assert.rejects(
    client.get('Service', 'a'),
    (error) => error instanceof ApiError && error.status === 404,
  );
});

test('selectors, and watches: from a version, and with initial events and their end', async () => {
  await client.apply(service('b', {}));
  await client.apply({
    ...service('c', {}),
    metadata: { name: 'c', namespace: 'other', labels: { skip: '' } },
  });
  const path = resourcePath('Service', 'default');
  assert.deepEqual(names(await client.request('GET', `${path}?labelSelector=app%3Db,!skip`)), ['b']);
  assert.deepEqual(names(await client.request('GET', '/api/v1/services?labelSelector=skip')), ['c']);
  assert.deepEqual(names(await client.request('GET', `/api/v1/services?fieldSelector=metadata.name%3Db`)), [
    'b',
  ]);

  const initial = await watch('sendInitialEvents=true&allowWatchBookmarks=true', 3);
  assert.deepEqual(
    initial.map((event) => event.type),
    ['ADDED', 'ADDED', 'BOOKMARK'],
  );
  const { metadata } = (initial[2]?.object ?? {}) as {
    metadata: { resourceVersion: string; annotations: object };
  };
  assert.deepEqual(metadata.annotations, { 'k8s.io/initial-events-end': 'true' });

  await client.patch('Service', 'b', { spec: { type: 'ClusterIP' } });
  await client.delete('Service', 'c', 'other');
  const later = await watch(`resourceVersion=${metadata.resourceVersion}`, 2);
  assert.deepEqual(
    later.map((event) => event.type),
    ['MODIFIED', 'DELETED'],
  );
});

test('a change that makes an object match a watch, or no longer match it, is seen as one that comes or goes', async () => {
  const query =
    'labelSelector=app=moving,!elsewhere&fieldSelector=spec.clusterIP!=None&sendInitialEvents=true';
  let seen: ReturnType<typeof watch> | undefined;
  // The bookmark at the end of the initial events.
  await new Promise<void>((begun) => {
    seen = watch(query, 5, begun);
  });
  await client.apply(service('moving', { clusterIP: '10.96.0.9' }));
  await client.patch('Service', 'moving', { metadata: { labels: { elsewhere: 'yes' } } });
  await client.patch('Service', 'moving', { spec: { clusterIP: '10.96.0.10' } });
  await client.patch('Service', 'moving', { metadata: { labels: { elsewhere: null } } });
  await client.patch('Service', 'moving', { spec: { clusterIP: 'None' } });
  const events = ((await seen) ?? []).filter(({ type, object }) => {
    const metadata = object['metadata'] as JsonObject;
    return type !== 'BOOKMARK' && metadata['name'] === 'moving';
  });
  assert.deepEqual(
    events.map(({ type }) => type),
    ['ADDED', 'DELETED', 'ADDED', 'DELETED'],
  );
  await client.delete('Service', 'moving');
});
