/** IPVS mode: wanted against a state of the kernel as it would be read. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { printDifference } from '../../src/diff/difference.ts';
import { diffIpvs, type IpvsState } from '../../src/diff/ipvsDiff.ts';
import type { AppliedServer } from '../../src/dataplane/ipvs/plan.ts';
import { setIds, type SetId } from '../../src/dataplane/ipvs/names.ts';
import { parseSave } from '../../src/linux/iptables/save.ts';
import { serverKey, type VirtualServer } from '../../src/linux/netlink/ipvs/objects.ts';
import { renderIpvs } from '../../src/render/ipvs.ts';
import { makeRoute, makeTable } from '../dataplane/iptables/routes.ts';
import { labFlags, scenarioManifest, wantedOfText } from '../render/support.ts';

const wanted = await wantedOfText(scenarioManifest('nodeport'), ...labFlags, '--mode=ipvs', '--family=IPv4');
const table = makeTable([
  makeRoute({
    name: 'default/web',
    clusterIP: '10.96.0.10',
    port: 80,
    endpoints: ['10.244.1.5:8080L', '10.244.2.7:8080'],
  }),
]);
const family = { ...(wanted.families[0] ?? assert.fail('no family')), table };

const web: VirtualServer = {
  address: '10.96.0.10',
  port: 80,
  protocol: 'TCP',
  scheduler: 'rr',
  flags: 0,
  timeout: 0,
  prefixLength: 32,
};

interface State extends IpvsState {
  readonly servers: Map<string, AppliedServer>;
  readonly sets: Map<SetId, Set<string>>;
  readonly addresses: Set<string>;
}

/** As ipset and ipvsadm were told by a rendering of the same routes, and the kernel then lists it. */
function state(): State {
  const documents = new Map(renderIpvs(wanted, family).map(({ name, text }) => [name, text]));
  const sets = new Map(setIds.map((id) => [id, new Set<string>()]));
  for (const [, id, entry] of (documents.get('ipset.save') ?? '').matchAll(/^add (\S+) (\S+)$/gm))
    sets.get(id as SetId)!.add(entry!);
  const reals = new Map([
    ['10.244.1.5:8080', 1],
    ['10.244.2.7:8080', 1],
  ]);
  return {
    servers: new Map([[serverKey(web), { server: web, reals }]]),
    sets,
    addresses: new Set(['10.96.0.10']),
    nodeAddresses: new Set(['172.31.0.11']),
  };
}

const rules = parseSave(
  (renderIpvs(wanted, family).find(({ name }) => name === 'rules')?.text ?? '')
    .replace(/^\*(\w+)$/gm, '*$1\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]')
    .replace(/^:FORWARD.*$/gm, '$&\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]')
    .replace(/^-I /gm, '-A '),
);

function texts(actual: IpvsState, tables = rules): string[] {
  return diffIpvs(wanted, family, actual, tables).map((one) => printDifference(one).trimEnd());
}

test('the same: no difference', () => {
  assert.deepEqual(texts(state()), []);
});

test('what somebody else has changed is named', () => {
  const actual = state();
  const server = actual.servers.get(serverKey(web))!;
  server.reals.delete('10.244.2.7:8080');
  server.reals.set('10.244.9.9:8080', 1);
  actual.servers.set(serverKey(web), { ...server, server: { ...web, scheduler: 'wrr' } });
  actual.addresses.add('10.96.0.99');
  assert.ok(actual.sets.get('KUBE-CLUSTER-IP')!.delete('10.96.0.10,tcp:80'));
  const key = serverKey(web);
  assert.deepEqual(texts(actual), [
    'IPv4 missing element: KUBE-CLUSTER-IP (default/web)\n+ add KUBE-CLUSTER-IP 10.96.0.10,tcp:80',
    `IPv4 altered virtual server: ${key} (default/web)\n- -A -t 10.96.0.10:80 -s wrr\n+ -A -t 10.96.0.10:80 -s rr`,
    `IPv4 missing real server: ${key} (default/web)\n+ -a -t 10.96.0.10:80 -r 10.244.2.7:8080 -m -w 1`,
    `IPv4 extra real server: ${key} (default/web)\n- -a -t 10.96.0.10:80 -r 10.244.9.9:8080 -m -w 1`,
    'IPv4 extra address: kube-ipvs0\n- 10.96.0.99',
  ]);
});

test('on its way out, or weighed by somebody: no difference', () => {
  const actual = state();
  const { reals } = actual.servers.get(serverKey(web))!;
  reals.set('10.244.9.9:8080', 0);
  reals.set('10.244.2.7:8080', 5);
  assert.deepEqual(texts(actual), []);
});

test('somebody else’s virtual server is nobody’s business; one at an address of ours is', () => {
  const actual = state();
  for (const server of [
    { ...web, address: '192.0.2.77', port: 443 },
    { ...web, port: 81 },
  ])
    actual.servers.set(serverKey(server), { server, reals: new Map() });
  assert.deepEqual(texts(actual), [
    `IPv4 extra virtual server: ${serverKey({ ...web, port: 81 })}\n- -A -t 10.96.0.10:81 -s rr`,
  ]);
});

test('without device, sets and rules everything is missing', () => {
  const nothing = {
    servers: new Map(),
    sets: new Map(),
    addresses: undefined,
    nodeAddresses: new Set(['172.31.0.11']),
  };
  const found = diffIpvs(wanted, family, nothing, []);
  const objects = (object: string): number => found.filter((one) => one.object === object).length;
  assert.ok(found.every(({ kind }) => kind === 'missing'));
  assert.equal(objects('set'), setIds.length);
  assert.equal(objects('device'), 1);
  assert.equal(objects('virtual server'), 1);
  assert.equal(objects('real server'), 2);
  assert.equal(objects('jump'), 10);
  assert.ok(objects('chain') > 0);
});

test('rules: one more, one less', () => {
  const changed = structuredClone(rules);
  const chain = changed.find(({ table: name }) => name === 'nat')?.chains.get('KUBE-SERVICES');
  const gone = chain?.rules.splice(0, 1, '-d 10.96.0.10/32 -j ACCEPT')[0];
  assert.deepEqual(texts(state(), changed), [
    `IPv4 missing rule: nat KUBE-SERVICES\n+ -A KUBE-SERVICES ${gone}`,
    'IPv4 extra rule: nat KUBE-SERVICES\n- -A KUBE-SERVICES -d 10.96.0.10/32 -j ACCEPT',
  ]);
});
