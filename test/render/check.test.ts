/** `render --check`: each finding with its place and words, and nothing to say about what is right. */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { check } from '../../src/render/check.ts';
import { printFinding } from '../../src/render/findings.ts';
import { inputsOfText, labFlags, renderCommand, scenarioManifest, scenarioNames } from './support.ts';

const folder = makeOwnedDirectory('check');
after(() => rmSync(folder, { recursive: true }));

async function findingsOf(text: string, ...argv: string[]): Promise<string[]> {
  const { cluster, wanted } = await inputsOfText(text, ...(argv.length === 0 ? labFlags : argv));
  return check(cluster, wanted).map(printFinding);
}

const service = (spec: string, meta = ''): string =>
  `apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop${meta}}\nspec: ${spec}\n`;
const slice = (rest: string, meta = 'labels: {kubernetes.io/service-name: web}'): string =>
  `---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-1, namespace: shop, ${meta}}\n${rest}\n`;
const served = slice(
  'addressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: [10.244.2.10], nodeName: node-2}]',
);
const http = 'ports: [{name: http, port: 80}]';

/** name, manifests, what stands where the finding points to | the finding. */
const cases: readonly (readonly [name: string, text: string, findings: readonly string[]])[] = [
  ['nothing wrong', service(`{clusterIP: 10.96.0.1, ${http}}`) + served, []],
  [
    'an unknown field, with a suggestion',
    service(`{clusterIP: 10.96.0.1, sessionaffinity: ClientIP, ${http}}`) + served,
    [
      'sessionaffin | error: Service shop/web spec.sessionaffinity: unknown field; did you mean sessionAffinity?',
    ],
  ],
  [
    'wrong types and words, where they cost nothing too',
    service(
      `{clusterIP: 10.96.0.1, publishNotReadyAddresses: "yes", type: Nodeport, ${http}}`,
      ', labels: {a: 1}',
    ) + served,
    [
      '1}} | error: Service shop/web metadata.labels.a: must be text (in quotes), not 1',
      '"yes", type: | error: Service shop/web spec.publishNotReadyAddresses: must be true or false, not "yes"',
      'Nodeport, po | error: Service shop/web spec.type: must be one of ClusterIP, NodePort, LoadBalancer, ExternalName, not "Nodeport"',
    ],
  ],
  ['no kind', 'metadata: {name: x}\n', ['metadata: {n | error: kind: is missing']],
  [
    'a key twice',
    'kind: Service\nkind: Service\n',
    ['kind: Servic | error: the same key comes twice in this map'],
  ],
  [
    'an address of the wrong family',
    service(`{clusterIP: 10.96.0.1, externalIPs: ["fd00::1"], ${http}}`) + served,
    [
      '"fd00::1"],  | warning: Service shop/web spec.externalIPs[0]: fd00::1 is an IPv6 address, and the Service has only IPv4: the external IP is ignored',
    ],
  ],
  [
    'session affinity out of range',
    service(
      `{clusterIP: 10.96.0.1, sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}, ${http}}`,
    ) + served,
    [
      '0}}, ports:  | warning: Service shop/web spec.sessionAffinityConfig.clientIP.timeoutSeconds: 0 is not in 1..86400: 10800 is used',
    ],
  ],
  [
    'endpoints that are not ready',
    service(`{clusterIP: 10.96.0.1, ${http}}`) +
      slice(
        'addressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: [10.244.2.10], conditions: {ready: false}}]',
      ),
    [
      '{name: http, | warning: Service shop/web spec.ports[0]: IPv4: port http: connections are refused: the only endpoint is not ready',
    ],
  ],
  [
    'a selector, and no slices',
    service(`{clusterIP: 10.96.0.1, selector: {app: web}, ${http}}`),
    [
      '{app: web},  | warning: Service shop/web spec.selector: no EndpointSlice names this Service: connections are refused (the control plane makes slices of the Pods that the selector finds; a file with Services alone has none)',
    ],
  ],
  [
    'no selector, and no slices',
    service(`{clusterIP: 10.96.0.1, ${http}}`),
    [
      '{clusterIP:  | warning: Service shop/web spec.selector: the Service has no selector, so its EndpointSlices have to be written by hand, and none names it: connections are refused',
    ],
  ],
  [
    'another port name in the slice',
    service(`{clusterIP: 10.96.0.1, ports: [{name: web, port: 80}]}`) + served,
    [
      '{name: web,  | warning: Service shop/web spec.ports[0]: IPv4: port web: connections are refused: its EndpointSlices have no port web/TCP, only http/TCP: port names and protocols of both must be the same',
    ],
  ],
  [
    'slices of the other family only',
    service(`{clusterIP: 10.96.0.1, ${http}}`) +
      slice('addressType: IPv6\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: ["fd00::1"]}]'),
    [
      '{name: http, | warning: Service shop/web spec.ports[0]: IPv4: port http: connections are refused: its EndpointSlices are of type IPv6, none is IPv4',
    ],
  ],
  [
    'a targetPort that the slices do not have',
    service(`{clusterIP: 10.96.0.1, ports: [{name: http, port: 80, targetPort: 80}]}`) + served,
    [
      '80}]} | warning: Service shop/web spec.ports[0].targetPort: is 80, but the EndpointSlices say 8080: the slices count',
    ],
  ],
  [
    'a selector and a port name that no Pod has',
    service(
      `{clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: htp}]}`,
    ) +
      `---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{ports: [{name: http}]}]}}}\n`,
    [
      '{app: web},  | warning: Service shop/web spec.selector: no EndpointSlice names this Service: connections are refused (the control plane makes slices of the Pods that the selector finds; a file with Services alone has none)',
      'htp}]} | warning: Service shop/web spec.ports[0].targetPort: no container of Deployment web has a port named "htp", only http: it gets no endpoint for this port',
    ],
  ],
  [
    'a selector with a slip',
    service(`{clusterIP: 10.96.0.1, selector: {app: wbe}, ${http}}`) +
      `---\napiVersion: v1\nkind: Pod\nmetadata: {name: web-0, namespace: shop, labels: {app: web}}\nspec: {}\n`,
    [
      '{app: wbe},  | warning: Service shop/web spec.selector: app=wbe matches no Pod of these manifests: not Pod web-0',
      '{app: wbe},  | warning: Service shop/web spec.selector: no EndpointSlice names this Service: connections are refused (the control plane makes slices of the Pods that the selector finds; a file with Services alone has none)',
    ],
  ],
  [
    'Local, and nobody here',
    service(
      `{type: NodePort, clusterIP: 10.96.0.1, externalTrafficPolicy: Local, ports: [{name: http, port: 80, nodePort: 30080}]}`,
    ) + served,
    [
      'Local, ports | warning: Service shop/web spec.externalTrafficPolicy: IPv4: port http: Local, and no ready endpoint is on node-1: packets from outside are dropped here (node-2 has 1)',
    ],
  ],
  [
    'a node port out of range',
    service(`{type: NodePort, clusterIP: 10.96.0.1, ports: [{name: http, port: 80, nodePort: 8080}]}`) +
      served,
    [
      '8080}]} | warning: Service shop/web spec.ports[0].nodePort: 8080 is outside 30000-32767: the API server refuses it unless its --service-node-port-range says otherwise',
    ],
  ],
  [
    'source ranges without a load balancer',
    service(`{clusterIP: 10.96.0.1, loadBalancerSourceRanges: [10.0.0.0/8], ${http}}`) + served,
    [
      '[10.0.0.0/8] | warning: Service shop/web spec.loadBalancerSourceRanges: guards load balancer addresses only, and a ClusterIP Service has none',
    ],
  ],
  [
    'source ranges of the other family',
    service(
      `{type: LoadBalancer, clusterIP: 10.96.0.1, loadBalancerSourceRanges: ["fd00::/8"], ports: [{name: http, port: 80, nodePort: 30080}]}\nstatus: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}`,
    ) + served,
    [
      '["fd00::/8"] | warning: Service shop/web spec.loadBalancerSourceRanges: no range is IPv4: the IPv4 load balancer address is open to everybody',
    ],
  ],
  [
    'a slice of nobody',
    served,
    [
      'web}} | warning: EndpointSlice shop/web-1 metadata.labels["kubernetes.io/service-name"]: there is no Service shop/web: the slice leads nowhere',
    ],
  ],
  [
    'hints that do not count',
    service(`{clusterIP: 10.96.0.1, ${http}}`) +
      slice(
        'addressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints:\n- {addresses: [10.244.2.10], hints: {forZones: [{name: zone-b}]}}\n- {addresses: [10.244.2.11]}',
      ),
    [
      "{name: http, | warning: Service shop/web spec.ports[0]: IPv4: port http: the endpoints' topology hints are ignored: 10.244.2.11:8080 has none, and they count only if every ready endpoint has one",
    ],
  ],
  [
    'two Services with one address',
    service(`{clusterIP: 10.96.0.1, ${http}}`) +
      served +
      `---\napiVersion: v1\nkind: Service\nmetadata: {name: zweb, namespace: shop}\nspec: {clusterIP: 10.96.0.1, ${http}}\n` +
      served.replace('web-1', 'zweb-1').replace('service-name: web', 'service-name: zweb'),
    [
      '{clusterIP:  | warning: Service shop/zweb spec.clusterIPs: 10.96.0.1:80/TCP is claimed by service port shop/web:http/TCP too, which is older and keeps it: skipped for shop/zweb:http/TCP',
    ],
  ],
  [
    'what no proxy looks at',
    service(`{clusterIP: None, ${http}}`),
    [
      'None, ports: | note: Service shop/web spec.clusterIP: ignored: it is headless: DNS answers with the Pods',
    ],
  ],
  [
    'no address yet',
    service(`{${http}}`) + served,
    [
      '{ports: [{na | warning: Service shop/web spec.clusterIP: has no address yet (the API server gives it one): no rules are made for this Service; give it one here to see them',
    ],
  ],
];

for (const [name, text, expected] of cases) {
  test(name, async () => {
    const found = await findingsOf(text);
    const lines = text.split('\n');
    assert.deepEqual(
      found.map((finding) => {
        const [, line, column, said] = /^test\.yaml:(\d+):(\d+): (.*)$/.exec(finding)!;
        return `${lines[Number(line) - 1]!.slice(Number(column) - 1).slice(0, 12)} | ${said}`;
      }),
      expected,
    );
  });
}

test('what the node itself lacks', async () => {
  const { items } = JSON.parse(scenarioManifest('clusterip-tcp')) as { items: object[] };
  const text = JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
  const found = await findingsOf(text, '--node=node-9', '--node-ip=192.0.2.1');
  assert.ok(
    found.some((line) =>
      line.includes('Node node-9: there is no Node of this name among the objects (node-1)'),
    ),
    found.join('\n'),
  );
  assert.ok(
    found.some((line) => line.includes('IPv4: Pods cannot be told from other clients')),
    found.join('\n'),
  );
});

test('no scenario is in error', async () => {
  for (const name of scenarioNames) {
    const found = await findingsOf(scenarioManifest(name));
    assert.deepEqual(
      found.filter((line) => line.includes(': error: ')),
      [],
      name,
    );
  }
});

test('exit codes and JSON are fit for a pipeline', async () => {
  const path = join(folder, 'a.yaml');
  writeFileSync(path, service(`{clusterIP: 10.96.0.1, ${http}}`));
  const warned = await renderCommand('--check', '--node=n', '--cluster-cidr=10.244.0.0/16', '-f', path);
  assert.equal(warned.code, 0);
  assert.match(warned.out, /1 Service, 0 EndpointSlices: 0 errors, 1 warning\n$/);
  const strict = await renderCommand(
    '--check',
    '--strict',
    '--node=n',
    '--cluster-cidr=10.244.0.0/16',
    '-f',
    path,
  );
  assert.deepEqual([strict.code, strict.out], [1, warned.out]);
  const alone = await renderCommand('--strict', '-f', path);
  assert.equal(alone.code, 2);
  assert.match(alone.err, /--strict needs --check/);
  writeFileSync(path, service(`{clusterip: 10.96.0.1, ${http}}`));
  const failed = await renderCommand('--check', '--json', '-f', path);
  assert.equal(failed.code, 1);
  const { errors, findings } = JSON.parse(failed.out) as {
    errors: number;
    findings: Record<string, unknown>[];
  };
  assert.equal(errors, 1);
  assert.deepEqual(
    findings.find(({ severity }) => severity === 'error'),
    {
      severity: 'error',
      reason: 'unknown_field',
      file: path,
      line: 4,
      column: 8,
      object: 'Service shop/web',
      field: 'spec.clusterip',
      message: 'unknown field; did you mean clusterIP?',
    },
  );
});
