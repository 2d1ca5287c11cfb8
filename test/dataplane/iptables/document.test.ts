import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { wholeDocument } from '../../../src/dataplane/iptables/document.ts';
import { nodePortTail } from '../../../src/dataplane/iptables/staticRules.ts';
import { ipv6Options, makeRoute, makeSettings, workedExample } from './routes.ts';

const golden = (file: string): string[] =>
  readFileSync(new URL(file, import.meta.url), 'utf8')
    .trimEnd()
    .split('\n');

test('the worked example, line by line', () => {
  const settings = makeSettings();
  const text = wholeDocument(workedExample, settings, nodePortTail(settings, []).rules);
  assert.deepEqual(text.trimEnd().split('\n'), golden('worked-example.txt'));
});

test('an IPv6 node without services', () => {
  const settings = makeSettings(ipv6Options);
  const text = wholeDocument([], settings, nodePortTail(settings, []).rules);
  assert.deepEqual(text.trimEnd().split('\n'), golden('minimal-ipv6.txt'));
});

const sizes = [
  [0, 0],
  [1, 0],
  [1, 1],
  [1, 2],
  [1, 10],
  [10, 0],
  [10, 1],
  [10, 2],
  [10, 10],
] as const;

function countRules(balanced: boolean, services: number, endpoints: number): { filter: number; nat: number } {
  const routes = Array.from({ length: services }, (_, i) =>
    makeRoute({
      name: `ns/svc${i}`,
      portName: 'p80',
      clusterIP: `10.96.1.${i + 1}`,
      port: 80,
      endpoints: Array.from({ length: endpoints }, (_, j) => `10.244.${i}.${j + 1}:80`),
      ...(balanced
        ? {
            externalIPs: [`198.51.100.${i + 1}`],
            loadBalancerIPs: [`203.0.113.${i + 1}`],
            sourceRanges: ['198.51.100.0/24'],
            nodePort: 30000 + i,
          }
        : {}),
    }),
  );
  const settings = makeSettings();
  const [filter = '', nat = ''] = wholeDocument(routes, settings, nodePortTail(settings, []).rules).split(
    '*nat',
  );
  const count = (text: string): number => text.split('\n').filter((line) => line.startsWith('-A ')).length;
  return { filter: count(filter), nat: count(nat) };
}

test('rule counts, cluster IP services', () => {
  const filter = [4, 5, 4, 4, 4, 14, 4, 4, 4];
  const nat = [5, 5, 10, 13, 37, 5, 55, 85, 325];
  sizes.forEach(([services, endpoints], i) =>
    assert.deepEqual(countRules(false, services, endpoints), { filter: filter[i], nat: nat[i] }),
  );
});

test('rule counts, load balancer services', () => {
  const filter = [4, 8, 5, 5, 5, 44, 14, 14, 14];
  const nat = [5, 5, 18, 21, 45, 5, 135, 165, 405];
  sizes.forEach(([services, endpoints], i) =>
    assert.deepEqual(countRules(true, services, endpoints), { filter: filter[i], nat: nat[i] }),
  );
});

test('more than 1000 endpoints: endpoint rules lose their comments, the others keep them', () => {
  const settings = makeSettings();
  const table = (count: number): string =>
    wholeDocument(
      Array.from({ length: count }, (_, i) =>
        makeRoute({
          name: `ns/svc${i}`,
          clusterIP: `10.96.${i >> 8}.${i & 255}`,
          port: 80,
          endpoints: [`10.244.${i >> 8}.${i & 255}:80`],
        }),
      ),
      settings,
      [],
    );
  assert.match(table(1000), /-A KUBE-SEP-\w+ -m comment/);
  const large = table(1001);
  assert.doesNotMatch(large, /-A KUBE-SEP-\w+ -m comment|->/);
  assert.match(large, /"ns\/svc7 cluster IP"/);
});
