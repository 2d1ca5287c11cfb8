import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { ApiClient, ApiError } from '../../src/cluster/apiClient.ts';
import type { ApiClientOptions, RequestObservation } from '../../src/cluster/apiClient.ts';
import { parseRetryAfter } from '../../src/cluster/apiError.ts';
import { loadConnection } from '../../src/cluster/connection.ts';
import { RateLimiter } from '../../src/cluster/rateLimiter.ts';
import { Reflector } from '../../src/cluster/reflector.ts';
import { serviceCIDRs } from '../../src/cluster/resources.ts';
import type { ServiceCIDR } from '../../src/api/objects.ts';
import { FakeApiServer } from './support/fakeApiServer.ts';
import type { FakeOptions } from './support/fakeApiServer.ts';
import { RecordingHandler, RecordingLogger, quick, until } from './support/harness.ts';

const open: { close(): Promise<unknown> }[] = [];

afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close();
});

async function setUp(
  options: Partial<ApiClientOptions> = {},
  fake: FakeOptions = {},
): Promise<{ server: FakeApiServer; client: ApiClient }> {
  const server = new FakeApiServer(fake);
  open.push(server);
  await server.listen();
  const connection = await loadConnection({ kubeconfig: '', master: server.url });
  open.push(connection);
  return { server, client: new ApiClient({ connection, qps: -1, ...options }) };
}

test('protobuf is asked for with JSON beside it; an explicit Accept goes first', async () => {
  const cases: [Partial<ApiClientOptions>, string][] = [
    [{}, 'application/vnd.kubernetes.protobuf,application/json'],
    [{ contentType: 'application/json' }, 'application/json'],
    [{ acceptContentTypes: 'text/plain' }, 'text/plain'],
  ];
  for (const [options, accept] of cases) {
    const { server, client } = await setUp({ ...options, userAgent: 'pointsman/1.2.3' });
    await client.get('/version');
    assert.equal(server.requests[0]?.request.headers.accept, accept);
    assert.equal(server.requests[0]?.request.headers['user-agent'], 'pointsman/1.2.3');
  }
});

test('an error carries status, reason and how long to wait', async () => {
  const { server, client } = await setUp();
  server.intercept = (_request, response) => {
    server.status(response, 429, 'TooManyRequests', { 'retry-after': '7' });
    return true;
  };
  await assert.rejects(client.get('/x'), (error: unknown) => {
    assert.ok(error instanceof ApiError);
    assert.deepEqual([error.status, error.reason, error.retryAfter], [429, 'TooManyRequests', 7]);
    assert.match(error.message, /^GET http:\/\/127\.0\.0\.1:\d+\/x: 429 TooManyRequests/);
    return true;
  });
  assert.equal(parseRetryAfter('Thu, 01 Jan 1970 00:00:09 GMT', 4_000), 5);
  assert.equal(parseRetryAfter('soon', 0), undefined);
});

test('every exchange is observed: the wait for a token, its answer, its end; failures too', async () => {
  const seen: RequestObservation[] = [];
  const { server, client } = await setUp({ onRequest: (observation) => seen.push(observation) });
  await client.get('/version');
  await client.write({ verb: 'create', path: '/made', body: { a: 1 } }).catch(() => undefined);
  await server.close();
  open.splice(open.indexOf(server), 1);
  await assert.rejects(client.get('/version'));
  assert.deepEqual(
    seen.map((one) => {
      const request = `${one.method} ${one.verb} ${one.kind}`;
      if (one.kind === 'answered') return `${request} ${one.code}`;
      return one.kind === 'finished' ? `${request} ${one.sent} ${one.received !== undefined}` : request;
    }),
    [
      'GET get limited',
      'GET get answered 200',
      'GET get finished 0 true',
      'POST create limited',
      'POST create answered 200',
      'POST create finished 7 true',
      'GET get limited',
      'GET get answered <error>',
      'GET get finished 0 false',
    ],
  );
  assert.ok(seen.every((one) => one.host.startsWith('127.0.0.1:')));
});

test('requests beyond the burst come at the rate of qps', async () => {
  let now = 0;
  const waits: number[] = [];
  const clock = {
    now: () => now,
    setTimeout: (callback: () => void, milliseconds: number) => {
      waits.push(milliseconds);
      return setTimeout(callback, 0);
    },
    clearTimeout: (timer: NodeJS.Timeout | undefined) => clearTimeout(timer),
  };
  const limiter = new RateLimiter(5, 2, clock);
  await Promise.all([limiter.take(), limiter.take(), limiter.take(), limiter.take()]);
  assert.deepEqual(waits, [200, 400]);
  now = 1_000;
  await limiter.take();
  assert.equal(waits.length, 2, 'the bucket has filled again');
});

test('a server without ServiceCIDR is asked in both versions, then left alone, with one line', async () => {
  const { server, client } = await setUp({}, { kind: 'ServiceCIDR' });
  server.intercept = (_request, response) => {
    server.status(response, 404, 'NotFound');
    return true;
  };
  const handler = new RecordingHandler<ServiceCIDR>();
  const log = new RecordingLogger();
  const reflector = new Reflector({ client, resource: serviceCIDRs, handler, log, timings: quick });
  reflector.start();
  await until('synced', () => handler.syncedAt === 0);
  const paths = new Set(server.requests.map(({ url }) => url.pathname));
  assert.deepEqual([...paths], [...serviceCIDRs.paths]);
  assert.equal(log.lines.filter((line) => line.includes('does not know this resource')).length, 1);
  const asked = server.requests.length;
  await new Promise((resolve) => setTimeout(resolve, 60));
  assert.equal(server.requests.length, asked);
  await reflector.stop();
});

test('a resource that is not needed and may not be read does not hold anything up', async () => {
  const { server, client } = await setUp({}, { kind: 'ServiceCIDR' });
  server.intercept = (_request, response) => {
    server.status(response, 403, 'Forbidden');
    return true;
  };
  const handler = new RecordingHandler<ServiceCIDR>();
  const log = new RecordingLogger();
  const reflector = new Reflector({ client, resource: serviceCIDRs, handler, log, timings: quick });
  reflector.start();
  await until('synced', () => handler.syncedAt === 0);
  await new Promise((resolve) => setTimeout(resolve, 60));
  assert.equal(server.requests.length, 1, 'asked again much later');
  assert.equal(log.lines.filter((line) => line.includes('may not be read')).length, 1);
  await reflector.stop();
});
