/** The reflector against the lab's API server: TLS, protobuf and JSON, streaming lists, faults. */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { EndpointSlice } from '../../src/api/objects.ts';
import { ApiClient } from '../../src/cluster/apiClient.ts';
import type { Connection } from '../../src/cluster/connection.ts';
import { loadConnection } from '../../src/cluster/connection.ts';
import { Reflector } from '../../src/cluster/reflector.ts';
import { endpointSlices } from '../../src/cluster/resources.ts';
import { startApiServer } from '../../src/lab/apiserver/server.ts';
import type { ApiServer } from '../../src/lab/apiserver/server.ts';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { RecordingHandler, RecordingLogger, quick, until } from './support/harness.ts';

let server: ApiServer;
let folder: string;

before(async () => {
  server = await startApiServer();
  folder = makeOwnedDirectory('lab-server');
});
after(async () => {
  await server.close();
  rmSync(folder, { recursive: true });
});

function slice(name: string, address: string): Record<string, unknown> {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name, namespace: 'default', labels: { 'kubernetes.io/service-name': 'web' } },
    addressType: 'IPv4',
    endpoints: [{ addresses: [address], conditions: { ready: true }, nodeName: 'a', zone: 'z' }],
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
  };
}

async function send(
  connection: Connection,
  method: 'POST' | 'PATCH' | 'DELETE',
  name: string,
  body?: unknown,
): Promise<void> {
  const path = '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices';
  const headers = { ...(await connection.headers()), 'content-type': 'application/merge-patch+json' };
  if (method === 'POST') headers['content-type'] = 'application/json';
  const { statusCode, body: answer } = await connection.dispatcher().request({
    origin: connection.origin,
    path: method === 'POST' ? path : `${path}/${name}`,
    method,
    headers,
    body: body === undefined ? null : JSON.stringify(body),
  });
  const text = await answer.text();
  assert.ok(statusCode < 300, `${method} ${name}: ${statusCode} ${text}`);
}

for (const [user, contentType] of [
  ['token', 'application/vnd.kubernetes.protobuf'],
  ['certificate', 'application/json'],
] as const) {
  describe(`${user}, ${contentType}`, () => {
    test('every change arrives, through faults too', async () => {
      const kubeconfig = join(folder, `${user}.yaml`);
      writeFileSync(kubeconfig, server.kubeconfig(user));
      const connection = await loadConnection({ kubeconfig, master: '', env: {} });
      const client = new ApiClient({ connection, contentType, qps: -1 });
      const handler = new RecordingHandler<EndpointSlice>();
      const log = new RecordingLogger();
      const reflector = new Reflector({ client, resource: endpointSlices, handler, log, timings: quick });
      try {
        await send(connection, 'POST', 'one', slice('one', '10.0.0.1'));
        reflector.start();
        await until('synced', () => handler.syncedAt >= 0);
        assert.equal(reflector.get('default/one')?.endpoints[0]?.address, '10.0.0.1');
        await send(connection, 'POST', 'two', slice('two', '10.0.0.2'));
        await until('two', () => reflector.get('default/two')?.serviceName === 'web');
        for (const how of ['clean', 'mid-line', 'reset', 'malformed'] as const) {
          server.faults.cutWatches(how);
          await send(connection, 'PATCH', 'two', { addressType: 'IPv4', ports: [{ name: how, port: 1 }] });
          await until(how, () => reflector.get('default/two')?.ports[0]?.name === how);
        }
        await server.down();
        server.store.compact();
        await new Promise((resolve) => setTimeout(resolve, 30));
        await server.up();
        await send(connection, 'DELETE', 'one');
        await send(connection, 'DELETE', 'two');
        await until(
          'both are gone',
          () => !handler.known.has('default/one') && !handler.known.has('default/two'),
        );
      } finally {
        await reflector.stop();
        await connection.close();
      }
      assert.deepEqual(
        log.lines.filter((line) => line.includes('Handling')),
        [],
      );
    });
  });
}
