import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseFilter } from '../../src/status/arguments.ts';
import type { StatusDocument } from '../../src/status/documents.ts';
import { ratesBetween, type Counts } from '../../src/status/rates.ts';
import {
  objectsDocument,
  routeDocument,
  routesText,
  tableFromDocument,
} from '../../src/status/routesDocument.ts';
import type { RoutesDocument } from '../../src/status/documents.ts';
import {
  changeLines,
  noteLines,
  routeLines,
  routeTable,
  statusLines,
} from '../../src/status/text/statusText.ts';
import { duration, shorten, wrap } from '../../src/status/text/table.ts';
import { topLines } from '../../src/status/text/topText.ts';
import { endpoint, route, table } from './support/routes.ts';

const status: StatusDocument = {
  node: 'node-1',
  version: '1.0.0',
  kubernetesVersion: 'v1.36.2',
  mode: 'iptables',
  pid: 7,
  started: '2026-01-01T00:00:00.000Z',
  now: '2026-01-01T00:03:12.000Z',
  healthy: true,
  nodeEligible: true,
  zone: 'zone-a',
  serviceCounters: 'off',
  families: [
    {
      family: 'IPv4',
      nodeIP: '192.0.2.1',
      services: 2,
      servicePorts: 3,
      unserved: 1,
      unservedPorts: ['default/typo:/TCP'],
      endpoints: { total: 4, ready: 2, draining: 1, notReady: 1, local: 2 },
      sync: {
        listed: true,
        healthy: true,
        syncs: 12,
        failures: 1,
        lastSuccess: '2026-01-01T00:03:09.900Z',
        lastDuration: 3.42,
        lastWasFull: false,
        lastFailure: { time: '2026-01-01T00:01:12.000Z', error: 'iptables-restore: exit status 1' },
      },
    },
  ],
  problems: [
    {
      object: 'Service default/bad',
      field: 'spec.externalIPs[0]',
      message: '"x" is not an IP address',
      reason: 'invalid_address',
    },
  ],
  moreProblems: 2,
};

test('status: who, what, how the syncs went, what was skipped', () => {
  assert.deepEqual(statusLines(status), [
    'node-1  iptables mode  healthy',
    'pointsman 1.0.0 as kube-proxy v1.36.2, up 3m12s, process 7, zone zone-a',
    '',
    '      services  ports  endpoints  ready  draining  not ready  here',
    'IPv4         2      3          4      2         1          1     2',
    '',
    'Sync IPv4: last 2.1s ago (partial, 3.4ms); 12 syncs, 1 failed',
    '  last failure 2m00s ago: iptables-restore: exit status 1',
    '1 service port without an endpoint: connections are refused.',
    '  default/typo:/TCP',
    '',
    'Skipped (3 problems):',
    '  Service default/bad spec.externalIPs[0]',
    '    "x" is not an IP address',
    '  … and 2 more',
  ]);
  assert.match(statusLines({ ...status, healthy: false })[0] ?? '', /NOT HEALTHY/);
  assert.match(statusLines({ ...status, nodeEligible: false })[2] ?? '', /leave this node alone/);
});

const change = {
  sequence: 0,
  family: 'IPv4',
  id: 'default/web:http/TCP',
  what: 'changed',
  endpointsBefore: 2,
  endpointsAfter: 3,
  details: ['+10.244.1.9:8080'],
  triggered: '2026-01-01T00:00:00.000Z',
  received: '2026-01-01T00:00:00.412Z',
  applied: '2026-01-01T00:00:00.415Z',
  milliseconds: 3.1,
  failures: 0,
} as const;

test('changes: how old the news was, and how long the kernel took', () => {
  assert.deepEqual(
    changeLines([
      change,
      { ...change, triggered: null, applied: null, milliseconds: null, failures: 2, what: 'removed' },
    ]),
    [
      'TIME      API->NODE  ->KERNEL  SERVICE PORT          CHANGE',
      '00:00:00      412ms     3.1ms  default/web:http/TCP  +10.244.1.9:8080',
      '00:00:00          -  2 failed  default/web:http/TCP  removed',
    ],
  );
});

const web = route(
  'web',
  [
    endpoint('10.244.1.5', { isLocal: true, nodeName: 'node-1', zone: 'a' }),
    endpoint('10.244.2.7', { ready: false }),
  ],
  {
    servicePort: { nodePort: 30080, externalPolicyLocal: true },
    hasExternal: true,
    external: 'drop',
    frontends: [
      { kind: 'clusterIP', ip: '10.96.0.10', port: 80, protocol: 'TCP' },
      { kind: 'nodePort', ip: '', port: 30080, protocol: 'TCP' },
    ],
  },
);

test('one Service: where it answers, what happens to packets, and who is used', () => {
  assert.deepEqual(routeLines(web, undefined), [
    'default/web:http/TCP  IPv4',
    '  at cluster IP 10.96.0.10:80, node port 30080',
    '  from inside:  one of 1 endpoint',
    '  from outside: dropped: policy Local, and no endpoint on this node',
    '  ENDPOINT         STATE      USED  NODE     ZONE  POD',
    '  10.244.1.5:8080  ready      in    node-1*  a     default/pod-5',
    '  10.244.2.7:8080  not ready  no    node-2   -     default/pod-7',
  ]);
  assert.deepEqual(routeTable([table(web)], undefined), [
    'SERVICE PORT          ADDRESS           READY  ALL  INSIDE   OUTSIDE',
    'default/web:http/TCP  10.96.0.10:80 +1      1    2  cluster  drop',
  ]);
});

test('routes survive the way through JSON', () => {
  const text = [
    ...routesText(
      { node: 'n', mode: 'iptables' },
      [{ table: table(web), serviceCIDRs: ['10.96.0.0/16'] }],
      () => true,
    ),
  ].join('');
  const document = JSON.parse(text) as RoutesDocument;
  assert.deepEqual(document.families[0]?.serviceCIDRs, ['10.96.0.0/16']);
  assert.deepEqual(tableFromDocument(document.families[0] ?? assert.fail()), table(web));
  assert.deepEqual(routeDocument(web).reachable, [0]);
  const { services, slices } = objectsDocument(
    undefined,
    [{ table: table(web), serviceCIDRs: [] }],
    () => true,
  );
  assert.deepEqual(
    [services[0]?.type, services[0]?.externalTrafficPolicy, services[0]?.ports],
    ['NodePort', 'Local', [{ name: 'http', protocol: 'TCP', port: 80, nodePort: 30080 }]],
  );
  assert.deepEqual(
    slices[0]?.endpoints.map(({ address, ready }) => [address, ready]),
    [
      ['10.244.1.5', true],
      ['10.244.2.7', false],
    ],
  );
});

function counts(web: number, dns: number, endpoint: number, refused: number): Counts {
  const labels = { family: 'IPv4', namespace: 'default', protocol: 'TCP' } as const;
  const webLabels = { ...labels, id: 'default/web:http/TCP', service: 'web', port: 'http' };
  return {
    services: [
      { ...labels, id: 'default/dns:/TCP', service: 'dns', port: '', connections: dns },
      { ...webLabels, connections: web },
    ],
    endpoints: [{ ...webLabels, endpoint: '10.244.1.5:8080', pod: 'default/web-1', connections: endpoint }],
    refused: [
      { family: 'IPv4', reason: 'no_endpoints', verdict: 'reject', id: 'default/x:/TCP', packets: refused },
    ],
    masqueraded: [{ family: 'IPv4', connections: 4 }],
  };
}

test('top: rates, shares, refusals; a count that began anew is no negative rate', () => {
  const rates = ratesBetween(counts(100, 50, 10, 0), counts(300, 10, 110, 5), 2, 'rate');
  const head = { node: 'node-1', mode: 'iptables', source: 'the counters of iptables rules', notes: [] };
  assert.deepEqual(topLines(head, rates, 80, 24), [
    'node-1  iptables mode  2.0 s of the counters of iptables rules',
    'connections/s 105  refused/s 2.5  masqueraded/s 0.0',
    '',
    'SERVICE PORT / ENDPOINT  PER SECOND  SHARE  TOTAL  POD',
    'default/web:http/TCP            100    95%    300',
    '  10.244.1.5:8080              50.0    50%    110  default/web-1',
    'default/dns:/TCP                5.0     5%     10',
    '',
    'REFUSED                 PER SECOND  TOTAL  SERVICE PORT',
    'rejected: no endpoints         2.5      5  default/x:/TCP',
  ]);
  const byName = ratesBetween(counts(0, 0, 0, 0), counts(1, 2, 1, 0), 1, 'name');
  assert.deepEqual(
    byName.services.map(({ id }) => id),
    ['default/dns:/TCP', 'default/web:http/TCP'],
  );
  assert.ok(topLines(head, byName, 80, 8).length <= 8);
});

/** As long as Kubernetes lets it be in practice. */
const longName = 'team-payments-integration/a-very-long-service-name-as-people-have-them:metrics-https/TCP';

test('status: a long name has a line of its own, and does not move the rest', () => {
  const long = { ...change, id: longName, what: 'added', triggered: null, details: [] } as const;
  assert.deepEqual(
    changeLines([long, { ...long, id: 'default/kubernetes:https/TCP' }])
      .join('\n')
      .split('\n'),
    [
      'TIME      API->NODE  ->KERNEL  SERVICE PORT                  CHANGE',
      `00:00:00          -     3.1ms  ${longName}`,
      '                                                             added, 3 endpoints',
      '00:00:00          -     3.1ms  default/kubernetes:https/TCP  added, 3 endpoints',
    ],
  );
});

test('status: Services without endpoints are named, a few of them', () => {
  const [family] = status.families;
  assert.ok(family !== undefined);
  const named = (unserved: number): string => {
    const unservedPorts = Array.from({ length: unserved }, (_, i) => `default/s-${i}:/TCP`);
    const lines = statusLines({ ...status, families: [{ ...family, unserved, unservedPorts }] });
    assert.ok(lines.every((line) => line.length <= 80));
    return lines.join('\n');
  };
  assert.doesNotMatch(named(0), /without an endpoint/);
  assert.match(named(2), /2 service ports .* refused\.\n {2}default\/s-0:\/TCP\n {2}default\/s-1:\/TCP\n\n/);
  assert.match(named(9), / {2}default\/s-2:\/TCP\n {2}… and 6 more\n/);
  const both = statusLines({ ...status, families: [family, { ...family, family: 'IPv6' }] }).join('\n');
  assert.match(both, /\n1 service port without an endpoint: .*\n {2}default\/typo:\/TCP\n\n/);
});

test('top: in 80 columns a long name leaves room for the numbers, and a note is not cut', () => {
  const more = counts(300, 10, 110, 5);
  const [web, ...others] = more.services;
  assert.ok(web !== undefined);
  const renamed = { ...more, services: [{ ...web, id: longName }, ...others] };
  const note =
    'IPVS itself refuses connections to a service port without endpoints, and counts none of them.';
  const head = { node: 'node-1', mode: 'ipvs', source: "IPVS's counters", notes: [note] };
  const lines = topLines(head, ratesBetween(renamed, renamed, 2, 'total'), 80, 24);
  assert.ok(lines.every((line) => line.length <= 80));
  assert.match(lines.join('\n'), /team-payments-in…trics-https\/TCP +0\.0 +- +10/);
  assert.ok(lines.join(' ').replaceAll(/ +/g, ' ').includes(note));
});

const none = {
  since: '',
  read: '',
  milliseconds: 0,
  services: [],
  endpoints: [],
  refused: [],
  masqueraded: [],
};

test('what is not counted is said', () => {
  assert.deepEqual(noteLines({ ...none, source: 'none', notes: [] }, 'nftables'), [
    'Note: nftables mode counts connections with --service-counters=services or',
    '  endpoints.',
  ]);
  assert.deepEqual(noteLines({ ...none, source: 'ipvs', notes: ['One.', 'Two.'] }, 'ipvs'), [
    'Note: One.',
    'Note: Two.',
  ]);
  assert.deepEqual(noteLines(undefined, 'iptables'), []);
});

test('one Service: an endpoint that has counted nothing has 0, if endpoints are counted', () => {
  const counters = { ...none, source: 'nftables', notes: [] } as const;
  const two = route('two', [endpoint('10.244.1.1')]);
  assert.ok(routeLines(two, counters).includes('  0 connections counted'));
  assert.doesNotMatch(routeLines(two, counters).join('\n'), /CONNECTIONS/);
  const { id, family, namespace, service, portName: port, protocol } = web.port;
  const other = {
    id,
    family,
    namespace,
    service,
    port,
    protocol,
    endpoint: '10.244.1.5:8080',
    pod: '',
    connections: 3,
  };
  const lines = routeLines(two, { ...counters, endpoints: [other] });
  assert.match(lines.at(-2) ?? '', / CONNECTIONS$/);
  assert.match(lines.at(-1) ?? '', / 0$/);
});

test('text is broken between words, and names are shortened in the middle', () => {
  assert.deepEqual(wrap('one two three', 8), ['one two', '  three']);
  assert.deepEqual(wrap('much-longer-than-that', 8), ['much-longer-than-that']);
  assert.equal(shorten('abcdefghij', 5), 'ab…ij');
  assert.equal(shorten('abcde', 5), 'abcde');
});

test('durations as people say them', () => {
  const said = [0.0004, 0.85, 3.42, 850, 2100, 42_000, 192_000, 18_120_000, 1_047_600_000].map(duration);
  assert.deepEqual(said, ['0µs', '850µs', '3.4ms', '850ms', '2.1s', '42s', '3m12s', '5h02m', '12d3h']);
});

test('which Services: NAMESPACE, NAMESPACE/NAME, -n with a name', () => {
  assert.deepEqual(parseFilter(undefined, undefined), {});
  assert.deepEqual(parseFilter('shop', undefined), { namespace: 'shop' });
  assert.deepEqual(parseFilter('shop/web', undefined), { namespace: 'shop', service: 'web' });
  assert.deepEqual(parseFilter('web', 'shop'), { namespace: 'shop', service: 'web' });
  assert.throws(() => parseFilter('a/b/c', undefined), /NAMESPACE\/NAME/);
  assert.throws(() => parseFilter('shop/web', 'other'), /other/);
});
