import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { JsonObject } from '../../../src/lab/apiserver/objects.ts';
import { decodeProtobufBody } from '../../../src/lab/apiserver/protobufdecode.ts';
import { startApiServer, type ApiServer } from '../../../src/lab/apiserver/server.ts';
import { encodeObject } from '../../../src/api/protobuf/encode.ts';

const protobuf = 'application/vnd.kubernetes.protobuf';
let server: ApiServer;

before(async () => {
  server = await startApiServer({ insecure: true });
});
after(() => server.close());

async function request(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = { authorization: `Bearer ${server.token}`, ...(init.headers as Record<string, string>) };
  return fetch(server.url + path, { ...init, headers });
}

test('a Service is sent and read in protobuf', async () => {
  const object = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', labels: { app: 'web' } },
    spec: { ports: [{ name: 'http', port: 80, targetPort: 'web' }], selector: { app: 'web' } },
  };
  const created = await request('/api/v1/namespaces/default/services', {
    method: 'POST',
    headers: { 'content-type': protobuf, accept: protobuf },
    body: encodeObject('Service', object),
  });
  assert.equal(created.status, 201);
  assert.equal(created.headers.get('content-type'), protobuf);
  const read = await request('/api/v1/namespaces/default/services/web', { headers: { accept: protobuf } });
  const decoded = decodeProtobufBody(Buffer.from(await read.arrayBuffer()));
  const { spec } = decoded as { spec: JsonObject };
  assert.deepEqual(spec['ports'], [{ name: 'http', protocol: 'TCP', port: 80, targetPort: 'web' }]);
  assert.match(spec['clusterIP'] as string, /^10\.96\./);
});

test('a list is protobuf if the kind has an encoder, else JSON', async () => {
  const accept = `${protobuf},application/json`;
  const services = await request('/api/v1/services', { headers: { accept } });
  assert.equal(services.headers.get('content-type'), protobuf);
  assert.equal(
    Buffer.from(await services.arrayBuffer())
      .subarray(0, 4)
      .toString('latin1'),
    'k8s\0',
  );
  const pods = await request('/api/v1/pods', { headers: { accept } });
  assert.equal(pods.headers.get('content-type'), 'application/json');
});

test('watch frames have their length in front', async () => {
  const query =
    'watch=true&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true';
  const response = await request(`/api/v1/services?${query}`, {
    headers: { accept: `${protobuf};stream=watch` },
  });
  assert.equal(response.headers.get('content-type'), `${protobuf};stream=watch`);
  const bytes = Buffer.from(await response.arrayBuffer());
  let at = 0;
  let frames = 0;
  for (; at < bytes.length; frames++) at += 4 + bytes.readUInt32BE(at);
  assert.equal(at, bytes.length);
  // default/kubernetes, web, the bookmark that ends the list, and the one before the time-out.
  assert.equal(frames, 4);
});

test('what protobuf tables do not know is refused, not lost', () => {
  const body = Buffer.from(
    encodeObject('ServiceCIDR', { metadata: { name: 'x' }, spec: { cidrs: ['10.0.0.0/24'] } }),
  );
  const unknown = Buffer.from(body.toString('latin1').replace('ServiceCIDR', 'ServiceABCD'), 'latin1');
  assert.throws(
    () => decodeProtobufBody(unknown),
    /ServiceABCD of networking\.k8s\.io\/v1 is not understood/,
  );
  assert.throws(() => decodeProtobufBody(body.subarray(0, body.length - 3)), /ends in the middle/);
  assert.throws(() => decodeProtobufBody(Buffer.from('{}')), /not a Kubernetes protobuf object/);
});

/** A length-delimited field of less than 128 bytes. */
function field(number: number, content: Buffer | string): Buffer {
  const bytes = Buffer.from(content);
  return Buffer.concat([Buffer.from([number * 8 + 2, bytes.length]), bytes]);
}

test('an Event as kube-proxy sends it', async () => {
  const seconds = Buffer.from([8, 0x80, 0x81, 0xc8, 0xac, 0x06]);
  const microseconds = Buffer.from([16, 0xc0, 0x84, 0x3d]);
  const raw = Buffer.concat([
    field(1, Buffer.concat([field(1, 'node-1.1'), field(3, 'default'), field(8, '')])),
    field(2, Buffer.concat([seconds, microseconds])),
    field(4, 'kube-proxy'),
    field(5, 'kube-proxy-node-1'),
    field(6, 'StartKubeProxy'),
    field(7, 'Starting'),
    field(8, Buffer.concat([field(1, 'Node'), field(3, 'node-1'), field(4, 'node-1')])),
    field(11, 'Normal'),
    field(12, ''),
    Buffer.from([15 * 8, 0]),
  ]);
  const type = field(1, Buffer.concat([field(1, 'events.k8s.io/v1'), field(2, 'Event')]));
  const length = Buffer.from([0x12, (raw.length & 127) | 128, raw.length >> 7]);
  const created = await request('/apis/events.k8s.io/v1/namespaces/default/events', {
    method: 'POST',
    headers: { 'content-type': protobuf },
    body: Buffer.concat([Buffer.from('k8s\0', 'latin1'), type, length, raw]),
  });
  assert.equal(created.status, 201, await created.text());
  const read = await request('/api/v1/namespaces/default/events/node-1.1');
  const event = (await read.json()) as JsonObject;
  assert.equal(event['apiVersion'], 'v1');
  assert.equal(event['eventTime'], '2024-01-01T00:00:00.001000Z');
  assert.deepEqual(event['involvedObject'], { kind: 'Node', name: 'node-1', uid: 'node-1' });
  assert.equal(event['reportingComponent'], 'kube-proxy');
  assert.equal(event['count'], undefined);
});
