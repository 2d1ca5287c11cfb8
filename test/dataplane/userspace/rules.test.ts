import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  SavedRules,
  changeDocument,
  fullDocument,
  jumpsFor,
  removalDocument,
  wantedRules,
} from '../../../src/dataplane/userspace/ruleSet.ts';
import { finish } from '../../../src/dataplane/userspace/steps.ts';
import {
  commonRules,
  poolsOf,
  routeRules,
  sameRules,
  type Rule,
  type RuleSettings,
  type Targets,
} from '../../../src/dataplane/userspace/rules.ts';
import { parseSave } from '../../../src/linux/iptables/save.ts';
import { makeRoute, type Spec } from '../iptables/routes.ts';

const settings: RuleSettings = {
  family: 'IPv4',
  detector: { kind: 'cidr', cidr: '10.244.0.0/16' },
  hostIP: '192.0.2.10',
};
const web: Spec = { name: 'default/web', clusterIP: '10.96.0.10', port: 80, endpoints: ['10.0.0.1:8080'] };
const lb: Spec = {
  name: 'default/lb',
  clusterIP: '10.96.0.11',
  port: 443,
  nodePort: 30443,
  loadBalancerIPs: ['198.51.100.7'],
  endpoints: ['10.0.0.1:8080L', '10.0.0.2:8080'],
};
const cluster: Targets = { cluster: { host: '', port: 41001 } };
const both: Targets = { ...cluster, local: { host: '', port: 41002 } };

/** Rules without their comments, `CHAIN args`. */
function lines(spec: Spec, targets: Targets, own: RuleSettings = settings): string[] {
  return routeRules(makeRoute(spec), targets, own).map(
    ({ chain, args }) => `${chain.replace('KUBE-', '')} ${args.replace(/-m comment --comment "\S+" /, '')}`,
  );
}

const guard = (port: number): string =>
  `NODEPORT-NON-LOCAL -p tcp -m tcp --dport ${port} -m conntrack ! --ctstate DNAT -j REJECT`;
const open = (port: number): string =>
  `NODEPORT-NON-LOCAL -p tcp -m tcp --dport ${port} -m state --state NEW -j ACCEPT`;

test('a cluster IP', () => {
  assert.deepEqual(lines(web, cluster), [
    'PORTALS-HOST -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 192.0.2.10:41001',
    'PORTALS-CONTAINER -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 41001',
    guard(41001),
  ]);
});

test('a listener on one address is reached by DNAT from everywhere; without an address of the node, loopback it is', () => {
  const bound = lines(web, { cluster: { host: '192.0.2.99', port: 41001 } });
  assert.ok(bound.slice(0, 2).every((line) => line.endsWith('DNAT --to-destination 192.0.2.99:41001')));
  assert.ok(lines(web, cluster, { ...settings, hostIP: '' })[0]?.endsWith('REDIRECT --to-ports 41001'));
});

test('a load balancer with a node port', () => {
  const list = lines(lb, cluster);
  assert.ok(list.includes('NODEPORT-CONTAINER -p tcp -m tcp --dport 30443 -j REDIRECT --to-ports 41001'));
  assert.ok(
    list.includes('NODEPORT-HOST -p tcp -m tcp --dport 30443 -j DNAT --to-destination 192.0.2.10:41001'),
  );
  assert.deepEqual(list.slice(-2), [guard(41001), open(41001)]);
});

test('Local external policy: Pods go to all endpoints before others go to local ones', () => {
  const spec = { ...lb, externalPolicyLocal: true };
  assert.deepEqual(poolsOf(makeRoute(spec)).sort(), ['cluster', 'local']);
  const list = lines(spec, both).filter((line) => line.includes('-CONTAINER -s') || line.includes('41002'));
  assert.deepEqual(list.slice(0, 2), [
    'PORTALS-CONTAINER -s 10.244.0.0/16 -d 198.51.100.7/32 -p tcp -m tcp --dport 443 -j REDIRECT --to-ports 41001',
    'PORTALS-CONTAINER -d 198.51.100.7/32 -p tcp -m tcp --dport 443 -j REDIRECT --to-ports 41002',
  ]);
  // Without endpoints here, others are met with silence.
  const none = lines({ ...spec, endpoints: ['10.0.0.2:8080'] }, cluster);
  assert.ok(none.includes('PORTALS-REFUSE -d 198.51.100.7/32 -p tcp -m tcp --dport 443 -j DROP'));
  assert.ok(none.includes('NODEPORT-REFUSE -p tcp -m tcp --dport 30443 -j DROP'));
  assert.ok(!none.some((line) => line.includes('CONTAINER -d 198.51.100.7')));
});

test('source ranges let in whom they name, and nobody else; with Pods of theirs', () => {
  const spec = { ...lb, sourceRanges: ['203.0.113.0/24', '10.244.3.0/24', '192.0.2.0/24'] };
  const rules = lines(spec, cluster).filter((line) => line.includes('198.51.100.7/32 -p'));
  assert.deepEqual(rules, [
    ...['203.0.113.0/24', '10.244.3.0/24', '192.0.2.0/24', '198.51.100.7/32'].map(
      (range) =>
        `PORTALS-HOST -s ${range} -d 198.51.100.7/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 192.0.2.10:41001`,
    ),
    ...['203.0.113.0/24', '10.244.3.0/24', '192.0.2.0/24'].map(
      (range) =>
        `PORTALS-CONTAINER -s ${range} -d 198.51.100.7/32 -p tcp -m tcp --dport 443 -j REDIRECT --to-ports 41001`,
    ),
    'PORTALS-REFUSE -d 198.51.100.7/32 -p tcp -m tcp --dport 443 -j DROP',
  ]);
  const local = lines({ ...spec, externalPolicyLocal: true }, both).filter((line) =>
    line.startsWith('PORTALS-CONTAINER -s 10.244'),
  );
  assert.equal(local[0]?.split(' ')[2], '10.244.3.0/24', 'the part of the Pods that a range lets in');
});

test('without endpoints, and without a listener, packets are rejected', () => {
  for (const list of [lines({ ...lb, endpoints: [] }, {}), lines(lb, {})]) {
    assert.deepEqual(list, [
      'PORTALS-REFUSE -d 10.96.0.11/32 -p tcp -m tcp --dport 443 -j REJECT',
      'PORTALS-REFUSE -d 198.51.100.7/32 -p tcp -m tcp --dport 443 -j REJECT',
      'NODEPORT-REFUSE -p tcp -m tcp --dport 30443 -j REJECT',
    ]);
  }
});

test('interfaces tell Pods from others', () => {
  const own: RuleSettings = { ...settings, detector: { kind: 'interfacePrefix', prefix: 'veth' } };
  const list = lines({ ...lb, externalPolicyLocal: true }, both, own);
  assert.ok(list.some((line) => line.startsWith('PORTALS-CONTAINER -i veth+ -d 198.51.100.7/32')));
});

test('documents, and drift from them', () => {
  const jumps = jumpsFor(['0.0.0.0/0']);
  const first = routeRules(makeRoute(web), cluster, settings);
  const second = routeRules(makeRoute(lb), both, settings);
  const applied = new Map<string, readonly Rule[]>([
    ['web', first],
    ['lb', second],
  ]);
  const stale =
    '*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 1.2.3.4/32 -j KUBE-PORTALS-CONTAINER\nCOMMIT\n';
  const document = finish(fullDocument(parseSave(stale), jumps, applied)).join('');
  assert.ok(document.includes('-D PREROUTING -d 1.2.3.4/32 -j KUBE-PORTALS-CONTAINER\n'));
  assert.ok(document.includes('-I PREROUTING -j KUBE-PORTALS-CONTAINER\n'));
  assert.ok(document.includes('-A OUTPUT -m addrtype --dst-type LOCAL -j KUBE-NODEPORT-HOST\n'));

  const kernel = (text: string): string =>
    text
      .replace('*nat\n', '*nat\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n')
      .replace('*filter\n', '*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n')
      .replaceAll('\n-I ', '\n-A ');
  const drift = (text: string): string | undefined => {
    const saved = new SavedRules(finish(wantedRules(applied)));
    for (const line of kernel(text).split('\n')) saved.line(line);
    return saved.drift(jumps);
  };
  const fresh = finish(fullDocument([], jumps, applied)).join('');
  assert.equal(drift(fresh), undefined);
  const broken: [string, RegExp][] = [
    [fresh.replace('-I PREROUTING -j KUBE-PORTALS-CONTAINER\n', ''), /rule of PREROUTING of nat missing/],
    [fresh.replace(':KUBE-PORTALS-REFUSE - [0:0]\n', ''), /chain KUBE-PORTALS-REFUSE of filter missing/],
    [
      fresh.replace(/-A KUBE-PORTALS-HOST .*\n/, ''),
      /^rule of KUBE-PORTALS-HOST of nat missing: .*--comment/,
    ],
    [
      fresh.replace(/(-A KUBE-PORTALS-HOST .*\n)/, '$1-A KUBE-PORTALS-HOST -s 192.0.2.1/32 -j RETURN\n'),
      /^rule of KUBE-PORTALS-HOST of nat is not ours: -s 192\.0\.2\.1\/32 -j RETURN$/,
    ],
    [fresh.replace('41001', '41009'), /^rule 1 of KUBE-[A-Z-]+ of nat is another: .*41009/],
    [fresh.replace('COMMIT', '-A OUTPUT -j KUBE-PORTALS-HOST\nCOMMIT'), /is not ours/],
  ];
  for (const [text, what] of broken) assert.match(drift(text) ?? '', what);
  const removal = removalDocument(parseSave(kernel(fresh)));
  assert.equal(removal.match(/^-X /gm)?.length, 7);
  assert.equal(removal.match(/^-D /gm)?.length, jumps.length);
  assert.equal(removalDocument([]), '');
  assert.match(
    changeDocument(first, []),
    /^\*nat\n-D KUBE-PORTALS-HOST .*\n-D .*\nCOMMIT\n\*filter\n-D .*\nCOMMIT\n$/,
  );
  assert.equal(changeDocument([], []), '');
  assert.ok(sameRules(first, routeRules(makeRoute(web), cluster, settings)));
  assert.ok(!sameRules(first, second));
});

test('node ports on some addresses only', () => {
  const jumps = jumpsFor(['192.0.2.0/24', '198.51.100.1/32']).filter(({ args }) =>
    args.includes('NODEPORT-CONTAINER'),
  );
  assert.deepEqual(
    jumps.map(({ args }) => args),
    ['192.0.2.0/24', '198.51.100.1/32'].map(
      (cidr) => `-d ${cidr} -m addrtype --dst-type LOCAL -j KUBE-NODEPORT-CONTAINER`,
    ),
  );
});

test('node ports that are not to answer on localhost', () => {
  assert.deepEqual(commonRules('IPv4', true), []);
  const text = finish(
    fullDocument(
      [],
      jumpsFor(['0.0.0.0/0']),
      new Map([
        ['', commonRules('IPv4', false)],
        ['lb', routeRules(makeRoute(lb), cluster, settings)],
      ]),
    ),
  ).join('');
  for (const chain of ['CONTAINER', 'HOST'])
    assert.match(
      text,
      new RegExp(
        `-A KUBE-NODEPORT-${chain} -d 127.0.0.0/8 -j RETURN\n(.*\n)*-A KUBE-NODEPORT-${chain} .*30443`,
      ),
    );
  assert.deepEqual(
    commonRules('IPv6', false).map(({ chain, args }) => `${chain} ${args}`),
    ['CONTAINER', 'HOST', 'REFUSE'].map((name) => `KUBE-NODEPORT-${name} -d ::1/128 -j RETURN`),
  );
});
