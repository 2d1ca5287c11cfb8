/** What a proxy does not keep is asked from the API server: selectors, Pods, Services that are names in DNS. */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadConnection } from '../../src/cluster/connection.ts';
import { runExplain } from '../../src/explain/cli.ts';
import { enrich } from '../../src/explain/sources/apiServer.ts';
import { startApiServer } from '../../src/lab/apiserver/server.ts';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { silentLogger } from '../../src/log/logger.ts';
import { clusterOf } from '../../src/render/cluster.ts';

const v1 = { apiVersion: 'v1' } as const;
const meta = (name: string, labels: Record<string, string> = {}) => ({ name, namespace: 'shop', labels });

const objects: readonly (readonly [path: string, object: object])[] = [
  [
    '/api/v1/nodes',
    {
      ...v1,
      kind: 'Node',
      metadata: { name: 'node-1' },
      spec: { podCIDRs: ['10.244.1.0/24'] },
      status: { addresses: [{ type: 'InternalIP', address: '172.31.0.11' }] },
    },
  ],
  ['/api/v1/namespaces', { ...v1, kind: 'Namespace', metadata: { name: 'shop' } }],
  [
    '/api/v1/namespaces/shop/services',
    {
      ...v1,
      kind: 'Service',
      metadata: meta('web'),
      spec: { clusterIP: '10.96.0.20', selector: { app: 'wbe' }, ports: [{ name: 'http', port: 80 }] },
    },
  ],
  [
    '/api/v1/namespaces/shop/services',
    {
      ...v1,
      kind: 'Service',
      metadata: meta('headless'),
      spec: { clusterIP: 'None', selector: { app: 'web' }, ports: [{ name: 'http', port: 80 }] },
    },
  ],
  [
    '/api/v1/namespaces/shop/services',
    {
      ...v1,
      kind: 'Service',
      metadata: meta('elsewhere'),
      spec: { type: 'ExternalName', externalName: 'db.example.com' },
    },
  ],
  ...['web-1', 'client'].map(
    (name, i) =>
      [
        '/api/v1/namespaces/shop/pods',
        {
          ...v1,
          kind: 'Pod',
          metadata: meta(name, { app: name.split('-')[0]! }),
          spec: {
            nodeName: 'node-1',
            containers: [{ name: 'main', image: 'main', ports: [{ containerPort: 8080 }] }],
          },
          status: {
            phase: 'Running',
            podIP: `10.244.1.1${i}`,
            podIPs: [{ ip: `10.244.1.1${i}` }],
          },
        },
      ] as const,
  ),
];

test('a live cluster: a misspelt selector, a Pod by its name, Services without a proxy', async () => {
  const server = await startApiServer();
  const folder = makeOwnedDirectory('explain');
  try {
    const kubeconfig = join(folder, 'kubeconfig');
    writeFileSync(kubeconfig, server.kubeconfig('token'));
    const connection = await loadConnection({ kubeconfig, master: '', env: {} });
    const send = async (method: 'POST' | 'PUT', path: string, body: object): Promise<void> => {
      const headers = { ...(await connection.headers()), 'content-type': 'application/json' };
      const answer = await connection
        .dispatcher()
        .request({ origin: connection.origin, path, method, headers, body: JSON.stringify(body) });
      assert.ok(answer.statusCode < 300, `${path}: ${await answer.body.text()}`);
      await answer.body.dump();
    };
    for (const [path, object] of objects) {
      await send('POST', path, object);
      const { kind, metadata } = object as { kind: string; metadata: { name: string } };
      if (kind === 'Pod') await send('PUT', `${path}/${metadata.name}/status`, object);
    }

    const explain = async (...args: string[]) => {
      let out = '';
      let err = '';
      const code = await runExplain(
        ['--kubeconfig', kubeconfig, '--node', 'node-1', '--cluster-cidr', '10.244.0.0/16', ...args],
        { out: (text) => void (out += text), err: (text) => void (err += text), colour: false },
      );
      return { out: out.replaceAll(/\s+/g, ' '), err, code };
    };
    const wrong = await explain('shop/client', 'to', 'shop/web:http');
    assert.equal(wrong.err, '');
    assert.equal(wrong.code, 1);
    assert.match(wrong.out, /from Pod shop\/client on node-1; rules of node-1, as pointsman writes them/);
    assert.match(
      wrong.out,
      /spec\.selector of Service shop\/web is app=wbe, which matches no Pod: Pod shop\/web-1 has app=web\./,
    );
    const byAddress = await explain('10.244.1.11', 'to', '10.96.0.20:80');
    assert.match(byAddress.out, /from Pod shop\/client on node-1/);
    assert.match(byAddress.out, /is app=wbe, which matches no Pod/);
    const headless = await explain('shop/client', 'to', 'shop/headless');
    assert.match(headless.err, /headless .* Ask about a Pod's address instead: 10\.244\.1\.10/);
    const elsewhere = await explain('shop/client', 'to', 'shop/elsewhere');
    assert.match(elsewhere.err, /of type ExternalName: DNS answers with the name db\.example\.com/);
    const misspelt = await explain('shop/client', 'to', 'shop/wbe');
    assert.match(misspelt.err, /there is no Service shop\/wbe; did you mean shop\/web\?/);
    const pod = await explain('shop/clinet', 'to', 'shop/web');
    assert.match(pod.err, /there is no Pod shop\/clinet; did you mean shop\/client\?/);
    await connection.close();
  } finally {
    await server.close();
    rmSync(folder, { recursive: true });
  }
});

const nothing = clusterOf({ objects: [], problems: [], ignored: new Map(), others: [] });
const question = { from: 'shop/client', to: 'shop/web:http', protocol: '', sourcePort: '', inInterface: '' };
const access = (master: string) => ({
  master,
  clientConnection: { kubeconfig: '', acceptContentTypes: '', contentType: '', qps: 5, burst: 10 },
});

test('credentials that may not list Pods: Services are known, and the rest is said', async () => {
  const server = createServer((request, response) => {
    const url = request.url ?? '';
    const status = url.includes('/pods') ? 403 : 200;
    response.writeHead(status, { 'content-type': 'application/json' });
    const items = url.includes('/services') ? objects.slice(2, 3).map(([, object]) => object) : [];
    response.end(
      JSON.stringify(
        status === 200 ? { metadata: {}, items } : { kind: 'Status', message: 'forbidden', code: 403 },
      ),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const { port } = server.address() as AddressInfo;
    const { cluster, remarks } = await enrich(
      nothing,
      question,
      access(`http://127.0.0.1:${port}`),
      silentLogger,
    );
    assert.deepEqual(
      cluster.services.map(({ meta: { name } }) => name),
      ['web'],
    );
    assert.match(remarks.join(), /does not show Pods to these credentials/);
  } finally {
    server.close();
  }
});

test('an API server that does not answer is a remark, and what is known stays', async () => {
  const known = clusterOf({ objects: [], problems: [], ignored: new Map(), others: [] });
  const { cluster, remarks } = await enrich(known, question, access('http://127.0.0.1:1'), silentLogger);
  assert.equal(cluster, known);
  assert.match(remarks.join(), /Selectors, .* are not known, because the API server could not be asked: /);
});
