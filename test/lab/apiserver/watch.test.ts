import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { resourceById } from '../../../src/lab/apiserver/resources.ts';
import { startApiServer, type ApiServer } from '../../../src/lab/apiserver/server.ts';
import { httpClient, type HttpClient, type Loose, type Watch } from './support.ts';

const configMaps = '/api/v1/namespaces/default/configmaps';
const services = '/api/v1/namespaces/default/services';

describe('list and watch over HTTP', () => {
  let server: ApiServer;
  let http: HttpClient;
  const watches: Watch[] = [];

  before(async () => {
    server = await startApiServer({ insecure: true, historyLimit: 100 });
    http = httpClient(server);
  });
  after(() => server.close());
  beforeEach(async () => {
    for (const watch of watches.splice(0)) watch.close();
    server.faults.clear();
    await http.call('DELETE', configMaps);
  });

  const put = async (
    name: string,
    data: Record<string, string> = {},
    labels: Record<string, string> = {},
  ): Promise<Loose> => {
    const body = { metadata: { name, labels }, data };
    const created = await http.call('POST', configMaps, body);
    return created.status === 201
      ? created.body
      : (await http.call('PUT', `${configMaps}/${name}`, body)).body;
  };
  const watch = async (query: string, path = configMaps): Promise<Watch> => {
    const started = await http.watch(`${path}?watch=true&${query}`);
    watches.push(started);
    return started;
  };
  const names = (list: Loose): string[] => list.items.map((one: Loose) => one.metadata.name);

  test('pages stay at the revision of the first one', async () => {
    for (const name of ['a', 'b', 'c', 'd', 'e']) await put(name);
    const first = await http.call('GET', `${configMaps}?limit=2`);
    assert.deepEqual(names(first.body), ['a', 'b']);
    assert.equal(first.body.metadata.remainingItemCount, 3);
    await put('bb');
    await http.call('DELETE', `${configMaps}/c`);
    await put('d', { changed: 'yes' });
    const second = await http.call('GET', `${configMaps}?limit=2&continue=${first.body.metadata.continue}`);
    assert.deepEqual(names(second.body), ['c', 'd']);
    assert.equal(second.body.items[1].data.changed, undefined);
    assert.equal(second.body.metadata.resourceVersion, first.body.metadata.resourceVersion);
    const third = await http.call('GET', `${configMaps}?limit=2&continue=${second.body.metadata.continue}`);
    assert.deepEqual(names(third.body), ['e']);
    assert.equal(third.body.metadata.continue, undefined);
  });

  test('items of a list say neither kind nor version; the list does', async () => {
    await put('a');
    const { body } = await http.call('GET', configMaps);
    assert.equal(body.kind, 'ConfigMapList');
    assert.equal(body.items[0].kind, undefined);
  });

  test('410 for pages and watches after compaction', async () => {
    const { metadata } = await put('a');
    await put('b');
    const page = await http.call('GET', `${configMaps}?limit=1`);
    server.store.compact();
    const rest = await http.call('GET', `${configMaps}?limit=1&continue=${page.body.metadata.continue}`);
    assert.equal(rest.status, 410);
    assert.equal(rest.body.reason, 'Expired');
    const late = await http.call(
      'GET',
      `${configMaps}?watch=true&resourceVersion=${metadata.resourceVersion}`,
    );
    assert.equal(late.status, 410);
    assert.match(late.body.message, /too old resource version: \d+ \(\d+\)/);
  });

  test('410 when the bounded history no longer reaches back', async () => {
    const { metadata } = await put('a');
    for (let index = 0; index < 150; index++) await put('a', { index: String(index) });
    const late = await http.call(
      'GET',
      `${configMaps}?watch=true&resourceVersion=${metadata.resourceVersion}`,
    );
    assert.equal(late.status, 410);
  });

  test('504 for a revision of the future, with a cause clients know', async () => {
    const { status, body, headers } = await http.call('GET', `${configMaps}?resourceVersion=99999999`);
    assert.equal(status, 504);
    assert.equal(body.details.causes[0].reason, 'ResourceVersionTooLarge');
    assert.equal(headers.get('retry-after'), '1');
  });

  test('a watch resumes after a revision and goes on live', async () => {
    const { metadata } = await put('a');
    await put('a', { step: '1' });
    await put('b');
    const watching = await watch(`resourceVersion=${metadata.resourceVersion}`);
    await put('c');
    await http.call('DELETE', `${configMaps}/b`);
    const seen: string[] = [];
    for (let count = 0; count < 4; count++) {
      const { type, object } = await watching.next();
      seen.push(`${type} ${object.metadata.name}`);
      assert.equal(object.kind, 'ConfigMap');
    }
    assert.deepEqual(seen, ['MODIFIED a', 'ADDED b', 'ADDED c', 'DELETED b']);
  });

  test('revisions of events rise, and a deletion has one of its own', async () => {
    const { metadata } = await put('a');
    const watching = await watch(`resourceVersion=${metadata.resourceVersion}`);
    await put('a', { step: '1' });
    await http.call('DELETE', `${configMaps}/a`);
    const modified = await watching.next();
    const deleted = await watching.next();
    assert.equal(deleted.type, 'DELETED');
    assert.ok(
      Number(deleted.object.metadata.resourceVersion) > Number(modified.object.metadata.resourceVersion),
    );
  });

  test('a streamed list ends with the marked bookmark', async () => {
    await put('a');
    await put('b');
    const watching = await watch(
      'sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true',
    );
    const first = await watching.next();
    const second = await watching.next();
    const third = await watching.next();
    assert.deepEqual([first.object.metadata.name, second.object.metadata.name], ['a', 'b']);
    assert.equal(third.type, 'BOOKMARK');
    assert.deepEqual(third.object.metadata.annotations, { 'k8s.io/initial-events-end': 'true' });
    await put('c');
    const live = await watching.next();
    assert.equal(live.object.metadata.name, 'c');
    assert.ok(Number(live.object.metadata.resourceVersion) > Number(third.object.metadata.resourceVersion));
  });

  test('sendInitialEvents needs resourceVersionMatch=NotOlderThan', async () => {
    const { status, body } = await http.call('GET', `${configMaps}?watch=true&sendInitialEvents=true`);
    assert.equal(status, 422);
    assert.match(body.message, /sendInitialEvents requires setting resourceVersionMatch to NotOlderThan/);
  });

  test('label selectors: an object that enters is ADDED, one that leaves is DELETED', async () => {
    const { metadata } = await put('a');
    const watching = await watch(`labelSelector=app%3Dweb&resourceVersion=${metadata.resourceVersion}`);
    await put('a', { step: '1' }, { app: 'web' });
    await put('a', { step: '2' }, { app: 'web' });
    await put('a', { step: '3' }, { app: 'other' });
    await put('a', { step: '4' }, { app: 'other' });
    await http.call('DELETE', `${configMaps}/a`);
    await put('b', {}, { app: 'web' });
    const seen: string[] = [];
    for (let count = 0; count < 4; count++) {
      const { type, object } = await watching.next();
      seen.push(`${type} ${object.metadata.name} ${object.data?.step ?? '-'}`);
    }
    assert.deepEqual(seen, ['ADDED a 1', 'MODIFIED a 2', 'DELETED a 2', 'ADDED b -']);
  });

  test('what kube-proxy selects: no label of another proxy, no headless service', async () => {
    const make = (name: string, labels: Record<string, string>, clusterIP?: string): Promise<Loose> =>
      http.call('POST', services, { metadata: { name, labels }, spec: { clusterIP, ports: [{ port: 80 }] } });
    await make('plain', {});
    await make('headless', {}, 'None');
    await make('delegated', { 'service.kubernetes.io/service-proxy-name': '' });
    const query = new URLSearchParams({
      labelSelector: '!service.kubernetes.io/service-proxy-name',
      fieldSelector: 'spec.clusterIP!=None',
    });
    const { body } = await http.call('GET', `/api/v1/services?${query.toString()}`);
    assert.deepEqual(names(body), ['kubernetes', 'plain']);
  });

  test('unknown field selectors and unreadable label selectors are refused', async () => {
    const field = await http.call('GET', `${configMaps}?fieldSelector=spec.color%3Dred`);
    assert.equal(field.status, 400);
    assert.match(field.body.message, /field label not supported: spec\.color/);
    assert.equal(
      (await http.call('GET', `${configMaps}?labelSelector=${encodeURIComponent('a in b')}`)).status,
      400,
    );
  });

  test('timeoutSeconds ends a watch, with a bookmark if asked for', async () => {
    const watching = await watch('timeoutSeconds=1&allowWatchBookmarks=true');
    assert.equal((await watching.next()).type, 'BOOKMARK');
    assert.equal(await watching.next(), undefined);
  });

  test('events leave within the step of their write', async () => {
    const watching = await watch('');
    const latencies: number[] = [];
    for (let index = 0; index < 200; index++) {
      const next = watching.next();
      const before = performance.now();
      const input = { metadata: { name: `e-${index}` } };
      server.store.create(resourceById('configmaps'), 'default', input);
      await next;
      latencies.push(performance.now() - before);
    }
    latencies.sort((a, b) => a - b);
    // Sending, the way through the loopback and the client's parsing included.
    // Under a millisecond on a machine that has time for us; no timer is in between.
    assert.ok((latencies[0] ?? 99) < 20, `at best ${latencies[0]} ms`);
  });

  test('optimistic concurrency: a stale resourceVersion is a conflict', async () => {
    const object = await put('a');
    await put('a', { step: '1' });
    const { status, body } = await http.call('PUT', `${configMaps}/a`, { ...object, data: { step: '2' } });
    assert.equal(status, 409);
    assert.equal(body.reason, 'Conflict');
    assert.match(body.message, /configmaps "a": the object has been modified; please apply your changes/);
  });

  test('a write that changes nothing makes no event and no revision', async () => {
    await put('a', { x: '1' });
    const before = server.store.storage.revision;
    await http.call(
      'PATCH',
      `${configMaps}/a`,
      { data: { x: '1' } },
      { 'content-type': 'application/merge-patch+json' },
    );
    assert.equal(server.store.storage.revision, before);
  });

  test('finalizers keep an object until they are gone', async () => {
    await http.call('POST', configMaps, { metadata: { name: 'a', finalizers: ['example.com/hold'] } });
    const deleted = await http.call('DELETE', `${configMaps}/a`);
    assert.notEqual(deleted.body.metadata.deletionTimestamp, undefined);
    assert.equal((await http.call('GET', `${configMaps}/a`)).status, 200);
    await http.call(
      'PATCH',
      `${configMaps}/a`,
      { metadata: { finalizers: null } },
      { 'content-type': 'application/merge-patch+json' },
    );
    assert.equal((await http.call('GET', `${configMaps}/a`)).status, 404);
  });

  test('preconditions of deletions', async () => {
    await put('a');
    const wrong = await http.call('DELETE', `${configMaps}/a`, { preconditions: { uid: 'other' } });
    assert.equal(wrong.status, 409);
    assert.equal((await http.call('GET', `${configMaps}/a`)).status, 200);
  });

  test('requests without a token, and with a wrong one, are 401', async () => {
    const response = await fetch(server.url + configMaps);
    assert.equal(response.status, 401);
    const wrong = await http.call('GET', configMaps, undefined, { authorization: 'Bearer wrong' });
    assert.equal(wrong.status, 401);
    assert.equal(wrong.body.reason, 'Unauthorized');
  });

  test('faults: errors for so many requests, cut watches, a peer that says nothing', async () => {
    const control = (body: unknown): Promise<Loose> => http.call('POST', '/lab/faults', body);
    await control({ answer: { code: 429, times: 2, retryAfterSeconds: 3 } });
    const limited = await http.call('GET', configMaps);
    assert.deepEqual([limited.status, limited.headers.get('retry-after')], [429, '3']);
    assert.equal((await http.call('GET', configMaps)).status, 429);
    assert.equal((await http.call('GET', configMaps)).status, 200);
    const watching = await watch('');
    await control({ watchesStalled: true });
    await put('unseen');
    await control({ watchesStalled: false, cutWatches: 'mid-line' });
    await assert.rejects(watching.next(), SyntaxError);
    await control({ refuse: true });
    await assert.rejects(http.call('GET', configMaps));
    await control({ clear: true });
    await server.down();
    await assert.rejects(http.call('GET', configMaps));
    await server.up();
    assert.equal((await http.call('GET', configMaps)).status, 200);
  });
});
