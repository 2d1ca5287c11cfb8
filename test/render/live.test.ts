/** A live cluster and what `kubectl get -o json` gives of it lead to the same rules. */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadConnection } from '../../src/cluster/connection.ts';
import { startApiServer } from '../../src/lab/apiserver/server.ts';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { labNode, renderCommand } from './support.ts';

const service = {
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'web', namespace: 'default' },
  spec: { type: 'NodePort', selector: { app: 'web' }, ports: [{ name: 'http', port: 80, nodePort: 30080 }] },
};
const slice = {
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: { name: 'web-1', namespace: 'default', labels: { 'kubernetes.io/service-name': 'web' } },
  addressType: 'IPv4',
  endpoints: [{ addresses: ['10.244.1.10'], conditions: { ready: true }, nodeName: 'node-1' }],
  ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
};

test('live objects, and the same from a file', async () => {
  const server = await startApiServer();
  const folder = makeOwnedDirectory('live');
  try {
    const kubeconfig = join(folder, 'kubeconfig');
    writeFileSync(kubeconfig, server.kubeconfig('token'));
    const connection = await loadConnection({ kubeconfig, master: '', env: {} });
    const ask = async (method: 'GET' | 'POST', path: string, body?: object): Promise<unknown> => {
      const headers = { ...(await connection.headers()), 'content-type': 'application/json' };
      const answer = await connection.dispatcher().request({
        origin: connection.origin,
        path,
        method,
        headers,
        body: body === undefined ? null : JSON.stringify(body),
      });
      const text = await answer.body.text();
      assert.ok(answer.statusCode < 300, `${path}: ${text}`);
      return JSON.parse(text);
    };
    await ask('POST', '/api/v1/nodes', labNode);
    await ask('POST', '/api/v1/namespaces/default/services', service);
    await ask('POST', '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices', slice);
    const paths: string[] = [];
    for (const path of [
      '/api/v1/services',
      '/api/v1/nodes',
      '/apis/discovery.k8s.io/v1/endpointslices',
      '/apis/networking.k8s.io/v1/servicecidrs',
    ]) {
      const file = join(folder, `${path.replaceAll('/', '_')}.json`);
      writeFileSync(file, JSON.stringify(await ask('GET', path)));
      paths.push('-f', file);
    }
    const flags = ['--mode=nftables', '--cluster-cidr=10.244.0.0/16', '--node=node-1'];
    const live = await renderCommand('--kubeconfig', kubeconfig, ...flags);
    assert.equal(live.code, 0, live.err);
    assert.match(live.out, /tcp \. 30080 comment "default\/web:http" : goto/);
    assert.match(live.out, /10\.244\.1\.10 \. 8080/);
    const fromFiles = await renderCommand(...flags, ...paths);
    assert.equal(fromFiles.code, 0, fromFiles.err);
    assert.equal(live.out, fromFiles.out);
  } finally {
    await server.close();
    rmSync(folder, { recursive: true });
  }
});

test('a server that does not answer is said in a sentence', async () => {
  const answer = await renderCommand('--kubeconfig', '/does/not/exist', '--node=node-1');
  assert.equal(answer.code, 1);
  assert.match(answer.err, /\/does\/not\/exist/);
});

test('an API server that refuses: one sentence with the reason, soon', async () => {
  // Nobody may listen at port 0.
  const { code, err } = await renderCommand('--master=http://127.0.0.1:0', '--node=node-1');
  assert.equal(code, 1);
  assert.match(err, /^Error: the API server did not list \w+ within 5 s: .*127\.0\.0\.1:0.*\n$/m);
  assert.equal(err.match(/ECONNREFUSED|EADDRNOTAVAIL/g)?.length, 1, err);
});
