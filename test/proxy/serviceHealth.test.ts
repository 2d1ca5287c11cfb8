import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, test } from 'node:test';
import { silentLogger } from '../../src/log/logger.ts';
import { ServiceHealth } from '../../src/proxy/serviceHealth.ts';

/** On addresses where nobody else listens: what was free a moment ago still is. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.99.3', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const open: ServiceHealth[] = [];
after(() => {
  for (const health of open) health.stop();
});

function make(options: { healthy?: () => boolean; addresses?: string[] | undefined } = {}) {
  const failures: string[] = [];
  const health = new ServiceHealth({
    family: 'IPv4',
    addresses: 'addresses' in options ? options.addresses : ['127.0.99.3'],
    proxyHealthy: options.healthy ?? (() => true),
    log: silentLogger,
    listenFailed: (namespace, name, port) => failures.push(`${namespace}/${name} ${port}`),
  });
  open.push(health);
  return { health, failures };
}

test('weight, body and status follow the local endpoints and the health of the proxy', async () => {
  const port = await freePort();
  let healthy = true;
  const { health } = make({ healthy: () => healthy });
  const url = `http://127.0.99.3:${port}/any/path`;

  await health.update(new Map([['default/web', { port, localEndpoints: 1 }]]));
  const ok = await fetch(url, { method: 'DELETE' });
  assert.equal(ok.status, 200);
  assert.equal(ok.headers.get('content-type'), 'application/json');
  assert.equal(ok.headers.get('x-content-type-options'), 'nosniff');
  assert.equal(ok.headers.get('x-load-balancing-endpoint-weight'), '1');
  assert.equal(
    await ok.text(),
    '{\n\t"service": {\n\t\t"namespace": "default",\n\t\t"name": "web"\n\t},\n\t"localEndpoints": 1,\n\t"serviceProxyHealthy": true\n}',
  );

  healthy = false;
  await health.update(new Map([['default/web', { port, localEndpoints: 3 }]]));
  const unhealthy = await fetch(url);
  assert.equal(unhealthy.status, 503);
  assert.equal(unhealthy.headers.get('x-load-balancing-endpoint-weight'), '3');

  healthy = true;
  await health.update(new Map([['default/web', { port, localEndpoints: 0 }]]));
  assert.equal((await fetch(url)).status, 503);
});

test('a removed service and a changed port are closed', async () => {
  const [first, second] = [await freePort(), await freePort()];
  const { health } = make();
  await health.update(new Map([['default/web', { port: first, localEndpoints: 1 }]]));
  await health.update(new Map([['default/web', { port: second, localEndpoints: 1 }]]));
  await assert.rejects(fetch(`http://127.0.99.3:${first}/`));
  assert.equal((await fetch(`http://127.0.99.3:${second}/`)).status, 200);
  await health.update(new Map());
  await assert.rejects(fetch(`http://127.0.99.3:${second}/`));
});

test('a taken port is reported, closes its other addresses, and is tried again at the next update', async () => {
  const blocker = createServer((_request, response) => response.end('blocker'));
  await new Promise<void>((resolve) => blocker.listen(0, '127.0.99.4', resolve));
  const { port } = blocker.address() as AddressInfo;
  const { health, failures } = make({ addresses: ['127.0.99.3', '127.0.99.4'] });
  const targets = new Map([['default/web', { port, localEndpoints: 1 }]]);
  await health.update(targets);
  assert.deepEqual(failures, [`default/web ${port}`]);
  await assert.rejects(fetch(`http://127.0.99.3:${port}/`));

  blocker.close();
  blocker.closeAllConnections();
  await health.update(targets);
  assert.deepEqual(failures, [`default/web ${port}`]);
  assert.equal((await fetch(`http://127.0.99.3:${port}/`)).status, 200);
  assert.equal((await fetch(`http://127.0.99.4:${port}/`)).status, 200);
});

test('no address to listen on: no listener', async () => {
  const port = await freePort();
  const { health, failures } = make({ addresses: [] });
  await health.update(new Map([['default/web', { port, localEndpoints: 1 }]]));
  await assert.rejects(fetch(`http://127.0.99.3:${port}/`));
  assert.deepEqual(failures, []);
});
