/** `render --diff`: what a change means, and the law that two equal renderings have no difference and others have one. */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { changesBetween } from '../../src/render/changes.ts';
import { render } from '../../src/render/render.ts';
import { labFlags, renderCommand, scenarioManifest, scenarioNames, wantedOfText } from './support.ts';

const folder = makeOwnedDirectory('changes');
after(() => rmSync(folder, { recursive: true }));

const modes = ['iptables', 'nftables', 'userspace'] as const;

function shop(spec: string, endpoints: string): string {
  return [
    'apiVersion: v1',
    'kind: Service',
    'metadata: {name: web, namespace: shop}',
    `spec: ${spec}`,
    '---',
    'apiVersion: discovery.k8s.io/v1',
    'kind: EndpointSlice',
    'metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}',
    'addressType: IPv4',
    'ports: [{name: http, port: 8080}]',
    `endpoints: ${endpoints}`,
  ].join('\n');
}

const http = 'ports: [{name: http, port: 80, nodePort: 30080}]';
const plain = `{type: NodePort, clusterIP: 10.96.0.1, ${http}}`;
const here = '{addresses: [10.244.1.10], nodeName: node-1}';
const there = '{addresses: [10.244.2.10], nodeName: node-2}';
const before = shop(plain, `[${here}, ${there}]`);

const cases: readonly (readonly [name: string, after: string, means: readonly string[]])[] = [
  [
    'an endpoint goes',
    shop(plain, `[${here}]`),
    ['New connections no longer go to 10.244.2.10:8080.', '1 endpoint serves it from here; before, 2.'],
  ],
  [
    'an endpoint is terminating',
    shop(
      plain,
      `[${here}, {addresses: [10.244.2.10], conditions: {ready: false, serving: true, terminating: true}}]`,
    ),
    [
      'New connections no longer go to 10.244.2.10:8080 (terminating: open connections stay).',
      '1 endpoint serves it from here; before, 2.',
    ],
  ],
  [
    'the last endpoint goes',
    shop(plain, '[]'),
    [
      'Connections to the cluster IP are refused, for there is no endpoint; before, they go to 10.244.1.10:8080, 10.244.2.10:8080.',
      'Connections from outside are refused, for there is no endpoint; before, they go to 10.244.1.10:8080, 10.244.2.10:8080.',
      'New connections no longer go to 10.244.1.10:8080, 10.244.2.10:8080.',
    ],
  ],
  [
    'policy Local without anybody here',
    shop(`{type: NodePort, externalTrafficPolicy: Local, clusterIP: 10.96.0.1, ${http}}`, `[${there}]`),
    [
      'Connections from outside are dropped, for no endpoint is on this node; before, they go to 10.244.1.10:8080, 10.244.2.10:8080.',
      'New connections no longer go to 10.244.1.10:8080.',
      '1 endpoint serves it from here; before, 2.',
      'Clients from outside keep their address, and reach endpoints of this node only.',
    ],
  ],
  [
    'affinity',
    shop(`{type: NodePort, sessionAffinity: ClientIP, clusterIP: 10.96.0.1, ${http}}`, `[${here}, ${there}]`),
    ['Clients stay with their endpoint for 10800 s after their last connection.'],
  ],
  [
    'another address',
    shop(`{type: NodePort, clusterIP: 10.96.0.2, ${http}}`, `[${here}, ${there}]`),
    ['Answers at 10.96.0.2:80/TCP too.', 'No longer answers at 10.96.0.1:80/TCP.'],
  ],
];

for (const [name, afterText, means] of cases) {
  test(name, async () => {
    for (const mode of modes) {
      const flags = [...labFlags, '--family=IPv4', `--mode=${mode}`, '--node-ip=172.31.0.11'];
      const changes = changesBetween(
        await wantedOfText(before, ...flags),
        await wantedOfText(afterText, ...flags),
      );
      // In userspace mode affinity is the process's business, not that of the rules.
      if (mode === 'userspace' && name === 'affinity') {
        assert.deepEqual(changes, []);
        continue;
      }
      assert.deepEqual(
        changes.map(({ id, change, means: said }) => [id, change, said]),
        [['shop/web:http/TCP', 'changed', means]],
        mode,
      );
    }
  });
}

test('no difference between equal objects; another between any two scenarios whose rules differ', async () => {
  for (const mode of ['iptables', 'nftables'] as const) {
    let previous: Awaited<ReturnType<typeof wantedOfText>> | undefined;
    for (const name of scenarioNames) {
      const flags = [...labFlags, `--mode=${mode}`];
      const wanted = await wantedOfText(scenarioManifest(name), ...flags);
      assert.deepEqual(changesBetween(wanted, await wantedOfText(scenarioManifest(name), ...flags)), []);
      if (previous !== undefined) {
        const text = (one: typeof wanted): string =>
          render(one)
            .map((part) => part.text)
            .join();
        const same = text(previous) === text(wanted);
        assert.equal(changesBetween(previous, wanted).length === 0, same, `${mode} ${name}`);
      }
      previous = wanted;
    }
  }
});

test('the command prints removed and added rules, and ends with 1 where there are any', async () => {
  const a = join(folder, 'a.yaml');
  const b = join(folder, 'b.yaml');
  writeFileSync(a, before);
  writeFileSync(b, shop(plain, `[${here}, {addresses: [10.244.2.11]}]`));
  const flags = [...labFlags, '--mode=nftables', '--family=IPv4', '--diff', a];
  const same = await renderCommand(...flags, a);
  assert.deepEqual([same.code, same.out], [0, 'No difference in the rules.\n']);
  const other = await renderCommand(...flags, b);
  assert.equal(other.code, 1);
  assert.equal(
    other.out,
    [
      'IPv4 shop/web:http/TCP changed',
      '  # New connections no longer go to 10.244.2.10:8080.',
      '  # New connections go to 10.244.2.11:8080 too.',
      '  # 2 endpoints serve it from here; before, 2.',
      '- endpoints { 10.96.0.1 . tcp . 80 . 1 : 10.244.2.10 . 8080 }',
      '- node-port-endpoints { tcp . 30080 . 1 : 10.244.2.10 . 8080 }',
      '+ endpoints { 10.96.0.1 . tcp . 80 . 1 : 10.244.2.11 . 8080 }',
      '+ node-port-endpoints { tcp . 30080 . 1 : 10.244.2.11 . 8080 }',
      '',
    ].join('\n'),
  );
  const json = JSON.parse((await renderCommand(...flags, b, '--json')).out) as { changes: unknown[] };
  assert.equal(json.changes.length, 1);
});
