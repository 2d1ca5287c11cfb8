/** Dumps of all kinds, and several that are one node's: rules, ipsets and virtual servers of IPVS mode. */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { runExplain } from '../../src/explain/cli.ts';
import { parseDump } from '../../src/explain/sources/dump.ts';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';

const rules = `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-IPVS-FILTER - [0:0]
-A INPUT -j KUBE-IPVS-FILTER
-A KUBE-IPVS-FILTER -m set --match-set KUBE-CLUSTER-IP dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst -j REJECT --reject-with icmp-port-unreachable
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT
COMMIT
`;
const sets = `create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536
add KUBE-CLUSTER-IP 10.96.0.20,tcp:80
create KUBE-IPVS-IPS hash:ip family inet hashsize 1024 maxelem 65536
add KUBE-IPVS-IPS 10.96.0.20
`;
const servers = `-A -t 10.96.0.20:80 -s wrr
-a -t 10.96.0.20:80 -r 10.244.1.10:8080 -m -w 3
-a -t 10.96.0.20:80 -r 10.244.2.10:8080 -m -w 1
`;

async function explain(to: string, files: Readonly<Record<string, string>>) {
  const folder = makeOwnedDirectory('explain');
  try {
    const dumps = Object.entries(files).flatMap(([name, text]) => {
      writeFileSync(join(folder, name), text);
      return ['--dump', join(folder, name)];
    });
    let out = '';
    const io = { out: (text: string) => void (out += text), err: () => undefined, colour: false };
    const code = await runExplain(
      ['10.244.1.50', 'to', to, '--node', 'node-1', '--node-ip', '172.31.0.11', ...dumps],
      io,
    );
    return { code, text: out.replaceAll(/\s+/g, ' ') };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('rules, sets and virtual servers in three files are one node in IPVS mode', async () => {
  const all = { 'rules.txt': rules, 'sets.txt': sets, 'servers.txt': servers };
  const { code, text } = await explain('10.96.0.20:80', all);
  assert.equal(code, 0, text);
  assert.match(text, /75\.0 % 10\.244\.1\.10:8080 25\.0 % 10\.244\.2\.10:8080/);
  assert.match(text, /virtual server -t 10\.96\.0\.20:80/);
  assert.match(text, /ipset KUBE-CLUSTER-IP has 10\.96\.0\.20,tcp:80/);
  assert.match(text, /this node itself \(kube-ipvs0 has the/);
  const other = await explain('10.96.0.20:81', all);
  assert.equal(other.code, 1);
  assert.match(other.text, /rejected with icmp-port-unreachable/);
});

test('rules of IPVS mode alone: what is missing is said', async () => {
  const { text } = await explain('10.96.0.20:80', { 'rules.txt': rules });
  assert.match(text, /rules of IPVS mode without its virtual servers: add a second --dump/);
});

test('which mode has written a dump', () => {
  assert.equal(parseDump(rules, 'rules').mode, 'ipvs');
  assert.equal(parseDump(servers, 'servers').mode, 'ipvs');
  assert.equal(parseDump('{"nftables": []}', 'ruleset').mode, 'nftables');
  const portals = '*nat\n:KUBE-PORTALS-CONTAINER - [0:0]\n-A KUBE-PORTALS-CONTAINER -j REDIRECT\nCOMMIT\n';
  assert.equal(parseDump(portals, 'portals').mode, 'userspace');
  assert.throws(() => parseDump('table ip kube-proxy {\n}\n', 'plain'), /make it with "nft -j list ruleset"/);
});
