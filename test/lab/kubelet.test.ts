import assert from 'node:assert/strict';
import { test } from 'node:test';
import { labPodName, podPorts, readinessFollowed, runningStatus } from '../../src/lab/cluster/kubelet.ts';
import { parsePodPort } from '../../src/lab/pod/echoServer.ts';

test("a Pod listens on its containers' ports: HTTP over TCP, an echo over UDP; without any, on 8080", () => {
  const containers = [
    { ports: [{ containerPort: 80 }, { containerPort: 53, protocol: 'UDP' }] },
    { ports: [{ containerPort: 81, protocol: 'TCP' }] },
  ];
  assert.deepEqual(podPorts({ containers }), [
    { kind: 'http', port: 80 },
    { kind: 'udp', port: 53 },
    { kind: 'http', port: 81 },
  ]);
  assert.deepEqual(podPorts({ containers: [{ name: 'x' }] }), [{ kind: 'http', port: 8080 }]);
});

test('a running Pod reports both its addresses and that it is ready', () => {
  const pod = { spec: { containers: [{ name: 'server', image: 'i' }] } };
  const status = runningStatus(pod, '10.244.2.10', '172.31.0.12', '2030-01-01T00:00:00Z');
  assert.equal(status['phase'], 'Running');
  assert.deepEqual(status['podIPs'], [{ ip: '10.244.2.10' }, { ip: 'fd00:10:244:2::10' }]);
  const conditions = status['conditions'] as { type: string; status: string }[];
  assert.ok(conditions.some((each) => each.type === 'Ready' && each.status === 'True'));
});

test("a patched condition Ready is what the Pod's containers say, too, so that kubectl shows it", () => {
  const status = runningStatus({ spec: { containers: [{ name: 'a' }] } }, '10.244.1.10', '172.31.0.11', '');
  assert.equal(readinessFollowed(status), undefined);
  const conditions = (status['conditions'] as { type: string; status: string }[]).map((one) =>
    one.type === 'Ready' ? { ...one, status: 'False' } : one,
  );
  const followed = readinessFollowed({ ...status, conditions }) ?? {};
  assert.deepEqual(
    (followed['conditions'] as typeof conditions).map((one) => `${one.type} ${one.status}`),
    ['PodScheduled True', 'Initialized True', 'ContainersReady False', 'Ready False'],
  );
  assert.equal((followed['containerStatuses'] as { ready: boolean }[])[0]?.ready, false);
  assert.equal(readinessFollowed({ ...status, conditions, ...followed }), undefined, 'once is enough');
});

test('names in the lab: plain in the default namespace, with the namespace elsewhere', () => {
  assert.equal(labPodName('default', 'web-1'), 'web-1');
  assert.equal(labPodName('kube-system', 'dns'), 'kube-system.dns');
});

test('ports of scenario Pods are read, and what is none is refused', () => {
  assert.deepEqual(parsePodPort('udp/53'), { kind: 'udp', port: 53 });
  for (const text of ['53', 'dccp/1', 'tcp/0', 'tcp/65536', 'tcp/x'])
    assert.throws(() => parsePodPort(text), /not a Pod's port/, text);
});
