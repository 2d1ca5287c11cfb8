import assert from 'node:assert/strict';
import { test } from 'node:test';
import { completeObject, parseScenario } from '../../src/lab/scenario/parse.ts';
import { proxyConfig } from '../../src/lab/scenario/world.ts';

test('a scenario has the defaults of its format', () => {
  const scenario = parseScenario('name: x\nsteps:\n  - probe: {from: client, to: "10.0.0.1:80"}\n');
  assert.deepEqual(scenario.families, ['ipv4']);
  assert.deepEqual(scenario.proxies, ['node-1']);
  assert.equal(scenario.start, true);
  assert.equal(scenario.dump, true);
  assert.deepEqual(scenario.remarks, []);
  const action = scenario.steps[0]?.actions[0];
  assert.equal(action?.kind, 'probe');
  assert.equal(action?.kind === 'probe' && action.spec.count, 1);
  assert.equal(action?.kind === 'probe' && action.spec.proto, 'tcp');
});

test('every kind of step is read', () => {
  const scenario = parseScenario(`
name: all
nodes: {node-1: {metadata: {labels: {a: b}}}}
config: {nodePortAddresses: [primary], perMode: {nftables: {nftables: {masqueradeAll: true}}}}
pods: [{name: h, node: node-2, hostNetwork: true, ports: [tcp/80]}, {name: r, node: node-1, ip: 10.244.1.9, ranges: [10.245.0.0/24]}]
steps:
  - apply: [{kind: Service, metadata: {name: a}}]
    settle: false
  - delete: [Service/a]
  - patch: {kind: Node, name: node-1, patch: {status: {}}}
  - wait: 0.5
  - open: {id: o, from: pod/r, to: '10.0.0.1:80', proto: udp, stream: 0.1, sport: 4000}
  - check: {id: c, conns: o}
  - close: o
  - http: {id: h, from: client, url: 'http://10.0.0.1/'}
  - until: {id: u, timeout: 5, probe: {from: client, to: '10.0.0.1:80'}, outcome: refused}
  - proxy: {restart: node-1, signal: SIGKILL}
    settle: true
  - exec: {node: node-1, iptables: ['iptables -F', [ip, link]], nftables: []}
    modes: [iptables]
  - api: down
  - settle: true
  - listen: {name: l, node: node-1, ip: 10.244.1.77, ports: [udp/53]}
`);
  assert.deepEqual(scenario.remarks, []);
  const kinds = scenario.steps.map((step) => step.actions[0]?.kind ?? 'settle');
  assert.deepEqual(
    kinds,
    'apply delete patch wait open check close http until proxy exec api settle listen'.split(' '),
  );
  assert.deepEqual(scenario.steps[10]?.modes, ['iptables']);
  assert.deepEqual(proxyConfig(scenario, 'nftables', 'node-1', '/k')['nftables'], {
    minSyncPeriod: '100ms',
    syncPeriod: '30s',
    masqueradeAll: true,
  });
  const own = proxyConfig(scenario, 'iptables', 'node-1', '/k');
  assert.deepEqual(own['nodePortAddresses'], ['primary']);
  assert.equal(own['perMode'], undefined);
});

test('what is not understood is remarked on, what is wrong is refused with its place', () => {
  assert.match(parseScenario('name: x\nstepz: []').remarks.join(), /stepz/);
  const table: [string, RegExp][] = [
    ['steps: []', /scenario\.name/],
    ['name: x\nsteps: [{}]', /step 1: nothing to do/],
    ['name: x\nsteps: [{probe: {from: client}}]', /step 1: probe\.to/],
    ['name: x\nsteps: [{api: sideways}]', /"up" or "down"/],
    ['name: x\nfamilies: [ipv5]', /ipv5/],
    ['name: x\npods: [{name: a, node: node-1}]', /pods\[0\]\.ip/],
  ];
  for (const [text, message] of table) assert.throws(() => parseScenario(text), message, text);
});

test('objects get apiVersion and namespace from their kind', () => {
  assert.deepEqual(completeObject({ kind: 'EndpointSlice', metadata: { name: 'a' } }), {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { namespace: 'default', name: 'a' },
  });
  assert.deepEqual(completeObject({ kind: 'Node', metadata: { name: 'n' } })['metadata'], { name: 'n' });
  assert.throws(() => completeObject({ kind: 'Thing', metadata: { name: 'n' } }), /apiVersion is missing/);
});
