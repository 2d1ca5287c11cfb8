import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import type { Service } from '../../src/api/objects.ts';
import { FakeApiServer } from './support/fakeApiServer.ts';
import type { FakeOptions } from './support/fakeApiServer.ts';
import { startReflector, until } from './support/harness.ts';
import type { Harness } from './support/harness.ts';

const open: { close(): Promise<void> }[] = [];

afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close();
});

async function serve(options: FakeOptions = {}): Promise<FakeApiServer> {
  const server = new FakeApiServer(options);
  open.push(server);
  await server.listen();
  return server;
}

async function reflect(
  server: FakeApiServer,
  options: Parameters<typeof startReflector>[1] = {},
): Promise<Harness> {
  const harness = await startReflector(server.url, options);
  open.push(harness);
  return harness;
}

function watches(server: FakeApiServer): URL[] {
  return server.requests.map(({ url }) => url).filter((url) => url.searchParams.get('watch') === 'true');
}

function lists(server: FakeApiServer): URL[] {
  return server.requests
    .map(({ url }) => url)
    .filter((url) => url.searchParams.get('watch') === null && url.pathname.includes('services'));
}

for (const protobuf of [false, true]) {
  for (const streamingLists of [false, true]) {
    const how = `${protobuf ? 'protobuf' : 'JSON'}, ${streamingLists ? 'streaming list' : 'paged list'}`;
    describe(how, () => {
      test('everything there is comes before synced, then every change', async () => {
        const server = await serve({ protobuf, streamingLists });
        for (let i = 0; i < 12; i++) server.put(`s${i}`);
        const { handler, reflector } = await reflect(server, { pageSize: 5 });
        await until('synced', () => handler.syncedAt >= 0);
        assert.equal(handler.syncedAt, 12);
        assert.equal(reflector.size, 12);
        await until('a watch', () => server.watchers.size === 1);
        server.put('s3', { clusterIP: '10.0.0.3' });
        server.put('new');
        server.delete('s4');
        await until('three events', () => handler.events.length === 15);
        assert.deepEqual(
          handler.events.slice(12).map((event) => event.split('@')[0]),
          ['update default/s3', 'add default/new', 'delete default/s4'],
        );
        assert.equal(reflector.get('default/s3')?.clusterIP, '10.0.0.3');
        assert.equal(lists(server).length, streamingLists ? 0 : 3);
      });

      test('a broken watch goes on where it was, without a list', async () => {
        const server = await serve({ protobuf, streamingLists });
        server.put('a');
        const { handler } = await reflect(server);
        await until('a watch', () => server.watchers.size === 1 && handler.syncedAt >= 0);
        const before = lists(server).length;
        for (const how of ['end', 'destroy', 'mid-line'] as const) {
          server.put(`before-${how}`);
          server.cutWatches(how);
          server.put(`after-${how}`);
          await until(`after-${how}`, () => handler.known.has(`default/after-${how}`));
          await until('a watch again', () => server.watchers.size === 1);
        }
        assert.equal(lists(server).length, before);
        assert.equal(handler.known.size, server.objects.size);
      });

      test('410, as status or as event, lists anew and tells the exact differences', async () => {
        const server = await serve({ protobuf, streamingLists });
        server.put('stays');
        server.put('changes');
        server.put('goes');
        const { handler } = await reflect(server);
        await until('a watch', () => server.watchers.size === 1 && handler.syncedAt >= 0);
        server.cutWatches('destroy');
        server.put('changes', { clusterIP: '10.0.0.9' });
        server.delete('goes');
        server.put('comes');
        server.compact();
        await until('the differences', () => handler.events.length === 6);
        assert.deepEqual(
          handler.events
            .slice(3)
            .map((event) => event.split('@')[0])
            .sort((a, b) => (a ?? '').localeCompare(b ?? '')),
          ['add default/comes', 'delete default/goes', 'update default/changes'],
        );
        await until('a watch again', () => server.watchers.size === 1);
        server.sendStatus({ code: 410, reason: 'Expired', message: 'too old resource version' });
        server.put('later');
        await until('later', () => handler.known.has('default/later'));
        assert.equal(handler.events.length, 7);
      });
    });
  }
}

test('a bookmark moves the place where the next watch begins', async () => {
  const server = await serve();
  server.put('a');
  const { handler, reflector } = await reflect(server, { streamingList: false });
  await until('a watch', () => server.watchers.size === 1 && handler.syncedAt >= 0);
  server.version = 500;
  server.bookmark();
  server.put('b');
  await until('b', () => reflector.size === 2);
  server.version = 900;
  server.bookmark();
  // The bookmark is the last thing in the stream; it has been read when the watch has ended.
  server.cutWatches('end');
  await until('the next watch', () => watches(server).length === 2);
  assert.equal(watches(server)[1]?.searchParams.get('resourceVersion'), '900');
});

test('selectors, limits and bookmarks are asked of the server', async () => {
  const server = await serve();
  await reflect(server, { random: () => 0.5 });
  await until('a watch', () => server.watchers.size === 1);
  const [list] = lists(server);
  assert.equal(list?.searchParams.get('labelSelector'), '!service.kubernetes.io/service-proxy-name');
  assert.equal(list?.searchParams.get('fieldSelector'), 'spec.clusterIP!=None');
  assert.equal(list?.searchParams.get('limit'), '500');
  const watch = watches(server).at(-1);
  assert.equal(watch?.searchParams.get('allowWatchBookmarks'), 'true');
  assert.equal(watch?.searchParams.get('timeoutSeconds'), '450');
  assert.equal(watch?.searchParams.get('labelSelector'), '!service.kubernetes.io/service-proxy-name');
});

test('410 on a later page lists everything in one piece', async () => {
  const server = await serve();
  for (let i = 0; i < 20; i++) server.put(`s${i}`);
  server.intercept = (_request, _response, url) => {
    if (url.searchParams.has('continue')) server.expirePages();
    return false;
  };
  const { handler } = await reflect(server, { pageSize: 6, streamingList: false });
  await until('synced', () => handler.syncedAt >= 0);
  assert.equal(handler.known.size, 20);
  assert.equal(lists(server).length, 3);
  assert.equal(lists(server)[2]?.searchParams.get('limit'), null);
});

test('an object deleted between two pages is not reported twice or lost', async () => {
  const server = await serve();
  for (let i = 0; i < 9; i++) server.put(`s${i}`);
  server.intercept = (_request, _response, url) => {
    if (url.searchParams.has('continue')) server.delete('s8');
    return false;
  };
  const { handler } = await reflect(server, { pageSize: 5, streamingList: false });
  await until('synced', () => handler.syncedAt >= 0);
  server.intercept = undefined;
  server.put('last');
  await until('last', () => handler.known.has('default/last'));
  assert.equal(handler.known.has('default/s8'), server.objects.has('default/s8'));
});

test('garbage in a watch costs itself, is counted, and is logged once', async () => {
  const server = await serve();
  server.put('a');
  const { handler, reflector, log } = await reflect(server);
  await until('a watch', () => server.watchers.size === 1 && handler.syncedAt >= 0);
  server.writeRaw(
    'this is not JSON\n{"half":\n\n[]\n{"type":"STRANGE","object":{}}\n{"type":"DELETED"}\nnull\n',
  );
  server.put('bad', { ports: 'eighty' });
  server.put('bad', { ports: 'eighty' });
  server.put('partly', { ports: [{ port: 80 }, { port: 99999 }, 'x', { port: 81, protocol: 'TCP' }] });
  server.put('a', { clusterIP: 7 });
  server.put('good');
  await until('good', () => handler.known.has('default/good'));
  assert.equal(server.watchers.size, 1, 'the watch goes on');
  assert.equal(reflector.stats.malformed, 6);
  assert.equal(handler.known.has('default/bad'), false);
  assert.equal(handler.known.get('default/a')?.clusterIP, '10.0.0.1', 'the last usable state stays');
  assert.deepEqual(
    handler.known.get('default/partly')?.ports.map(({ port }) => port),
    [80, 81],
  );
  assert.equal(log.lines.filter((line) => line.startsWith('W') && line.includes('default/bad')).length, 1);
  assert.equal(log.lines.filter((line) => line.includes('is not JSON')).length, 1);
});

test('frames that are not protobuf cost themselves', async () => {
  const server = await serve({ protobuf: true });
  server.put('a');
  const { handler, reflector } = await reflect(server);
  await until('a watch', () => server.watchers.size === 1 && handler.syncedAt >= 0);
  server.writeRaw(Buffer.from([0, 0, 0, 3, 0xff, 0xff, 0xff]));
  server.writeRaw(Buffer.from([0, 0, 0, 0]));
  server.put('good');
  await until('good', () => handler.known.has('default/good'));
  assert.equal(reflector.stats.malformed, 2);
  assert.equal(reflector.stats.watches, 2, 'the refused streaming list and this one');
});

test('an unusable object in a list does not take the known one away', async () => {
  const server = await serve();
  server.put('a');
  const { handler } = await reflect(server, { streamingList: false });
  await until('a watch', () => server.watchers.size === 1 && handler.syncedAt >= 0);
  server.cutWatches('destroy');
  server.put('a', { ports: 5 });
  server.put('b');
  server.compact();
  await until('b', () => handler.known.has('default/b'));
  assert.equal(handler.known.get('default/a')?.clusterIP, '10.0.0.1');
});

test('429 and 503 are waited for as long as the server says', async () => {
  const server = await serve();
  const times: number[] = [];
  server.intercept = (_request, response, url) => {
    if (url.searchParams.get('watch') === 'true') return false;
    times.push(performance.now());
    if (times.length > 2) return false;
    server.status(response, times.length === 1 ? 429 : 503, 'TooManyRequests', { 'retry-after': '1' });
    return true;
  };
  const { handler, reflector } = await reflect(server, { streamingList: false });
  await until('synced', () => handler.syncedAt >= 0);
  assert.equal(reflector.stats.failures, 2);
  const [first = 0, second = 0, third = 0] = times;
  assert.ok(second - first >= 990 && second - first < 30_000, `${second - first} ms`);
  assert.ok(third - second >= 990, `${third - second} ms`);
});

test('500s, broken answers and non-JSON answers are retried with growing pauses', async () => {
  const server = await serve();
  server.put('a');
  const times: number[] = [];
  server.intercept = (_request, response, url) => {
    if (url.searchParams.get('watch') === 'true') return false;
    times.push(performance.now());
    if (times.length === 1) server.status(response, 500, 'InternalError');
    else if (times.length === 2)
      response.writeHead(200, { 'content-type': 'application/json' }).end('{"items":[{"a"');
    else if (times.length === 3)
      response.writeHead(200, { 'content-type': 'text/html' }).end('<html>login</html>');
    else if (times.length === 4) response.writeHead(502, { 'content-type': 'text/plain' }).end('bad gateway');
    else if (times.length === 5) response.destroy();
    else return false;
    return true;
  };
  const { handler, log } = await reflect(server, { streamingList: false, random: () => 0 });
  await until('synced', () => handler.syncedAt >= 0);
  assert.equal(times.length, 6);
  assert.ok((times[5] ?? 0) - (times[4] ?? 0) >= 35, 'the fifth pause is the longest');
  const text = log.lines.join('\n');
  assert.match(text, /500 InternalError/);
  assert.match(text, /text\/html/);
  assert.match(text, /502 bad gateway/);
});

test('a watch that is refused over and over is not asked for in a hot loop', async () => {
  const server = await serve();
  server.intercept = (_request, response, url) => {
    if (url.searchParams.get('watch') !== 'true') return false;
    server.status(response, 410, 'Expired');
    return true;
  };
  const { handler } = await reflect(server, { streamingList: false, timings: { ...slow } });
  await until('synced', () => handler.syncedAt >= 0);
  await new Promise((resolve) => setTimeout(resolve, 400));
  assert.ok(watches(server).length <= 4, `${watches(server).length} watches in 0.4 s`);
});

const slow = {
  backoffFirst: 150,
  backoffLongest: 1_000,
  silence: 60_000,
  renewal: 120_000,
  listSilence: 10_000,
  watchSeconds: 300,
};

test('a server that is away for a while loses nothing', async () => {
  // An address where nobody else listens: the port is still free when the server is back.
  const address = '127.0.99.5';
  const server = new FakeApiServer();
  open.push(server);
  await server.listen(0, address);
  server.put('a');
  const { handler } = await reflect(server);
  await until('a watch', () => server.watchers.size === 1 && handler.syncedAt >= 0);
  const port = Number(new URL(server.url).port);
  await server.close();
  const next = new FakeApiServer();
  open.push(next);
  next.version = server.version + 10;
  next.put('b');
  next.compact();
  await new Promise((resolve) => setTimeout(resolve, 60));
  await next.listen(port, address);
  await until('the new state', () => handler.known.has('default/b') && !handler.known.has('default/a'));
});

test('a silent peer is noticed: the server is asked, and the watch made anew', async () => {
  const server = await serve();
  server.put('a');
  const { handler, reflector, log } = await reflect(server, {
    api: { timings: { headers: 5000, probe: 3000 } },
    timings: { ...slow, backoffFirst: 5, silence: 80 },
  });
  await until('a watch', () => server.watchers.size === 1 && handler.syncedAt >= 0);
  await until(
    'questions answered',
    () => server.requests.filter(({ url }) => url.pathname === '/version').length >= 2,
  );
  assert.equal(server.watchers.size, 1, 'a watch whose server is alive stays');
  let deaf = true;
  server.intercept = () => deaf;
  await until('noticed', () => log.lines.some((line) => line.includes('silent')));
  deaf = false;
  server.put('b');
  await until('b', () => reflector.get('default/b') !== undefined);
});

test('a watch that hangs while the server is well is replaced', async () => {
  const server = await serve();
  const { handler, reflector } = await reflect(server, { timings: { ...slow, silence: 30, renewal: 120 } });
  await until('a watch', () => server.watchers.size === 1 && handler.syncedAt >= 0);
  // Nothing reaches this watcher any more, though its connection is open.
  server.watchers.clear();
  server.put('b');
  await until('b', () => reflector.get('default/b') !== undefined);
});

test('a server that takes no notice of streaming lists is asked for a paged one', async () => {
  const server = await serve();
  server.put('a');
  server.intercept = (_request, response, url) => {
    if (url.searchParams.get('sendInitialEvents') !== 'true') return false;
    response.writeHead(200, { 'content-type': 'application/json' }).flushHeaders();
    return true;
  };
  const { handler } = await reflect(server, { timings: { listSilence: 150 } });
  await until('synced', () => handler.syncedAt >= 0);
  assert.equal(handler.known.size, 1);
});

test('what arrives together is delivered together, then batchEnd is called once', async () => {
  const server = await serve();
  const trace: string[] = [];
  let handler: Harness['handler'] | undefined;
  const harness = await reflect(server, {
    hooks: { batchEnd: () => trace.push(`end after ${handler?.events.length ?? 0}`) },
  });
  handler = harness.handler;
  await until('a watch', () => server.watchers.size === 1 && harness.handler.syncedAt >= 0);
  trace.length = 0;
  const lines = ['x', 'y', 'z'].map((name, i) =>
    JSON.stringify({
      type: 'ADDED',
      object: { metadata: { name, namespace: 'n', resourceVersion: `${900 + i}` } },
    }),
  );
  server.writeRaw(`${lines.join('\n')}\n`);
  await until('three', () => harness.handler.events.length === 3 && trace.length > 0);
  assert.deepEqual(trace, ['end after 3']);
});

test('a handler that throws does not stop the watch', async () => {
  const server = await serve();
  server.put('a');
  const { reflector, log, handler } = await reflect(server);
  handler.update = (_old: Service, object: Service): void => {
    throw new Error(`cannot take ${object.meta.name}`);
  };
  await until('a watch', () => server.watchers.size === 1 && handler.syncedAt >= 0);
  server.put('a');
  server.put('b');
  await until('b', () => reflector.get('default/b') !== undefined);
  assert.ok(log.lines.some((line) => line.includes('Handling an object failed')));
  log.lines.length = 0;
});

test('a server restored from a backup, whose versions are lower, is listed anew', async () => {
  const server = await serve();
  server.put('a');
  const { handler } = await reflect(server, { streamingList: false });
  await until('a watch', () => server.watchers.size === 1 && handler.syncedAt >= 0);
  server.intercept = (_request, response, url) => {
    if (Number(url.searchParams.get('resourceVersion') ?? '0') <= server.version) return false;
    server.json(response, 504, {
      kind: 'Status',
      code: 504,
      reason: 'Timeout',
      message: 'Timeout: Too large resource version: 101, current: 51',
    });
    return true;
  };
  server.cutWatches('destroy');
  server.version = 50;
  server.compact();
  server.objects.clear();
  server.put('restored');
  await until('restored', () => handler.known.has('default/restored') && !handler.known.has('default/a'));
});
