/** What the guest's kernel must have for IPVS mode: each a thing that the mode's own start checks ask for. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Namespaces } from '../../src/lab/net/namespaces.ts';
import { startEchoServer } from '../../src/lab/pod/echoServer.ts';
import { openConnection } from '../../src/lab/probe/connection.ts';
import { inNamespace, makeNamespace } from '../support/namespace.ts';

test('IPVS, with schedulers and connection tracking, in each namespace', () => {
  const modules = readFileSync('/proc/modules', 'latin1');
  for (const name of ['ip_vs', 'ip_vs_rr', 'ip_vs_wlc', 'ip_vs_sh', 'ip_vs_mh', 'nf_conntrack', 'dummy']) {
    assert.match(modules, new RegExp(`^${name} `, 'm'));
  }
  const namespace = makeNamespace();
  inNamespace(namespace, ['sysctl', '-qw', 'net.ipv4.vs.conntrack=1', 'net.ipv4.vs.expire_nodest_conn=1']);
  assert.match(inNamespace(namespace, ['cat', '/proc/net/ip_vs']), /IP Virtual Server/);
});

test('a dummy device that holds addresses without being up', () => {
  const namespace = makeNamespace();
  inNamespace(namespace, ['ip', 'link', 'add', 'kube-ipvs0', 'type', 'dummy']);
  inNamespace(namespace, ['ip', 'addr', 'add', '10.96.0.1/32', 'dev', 'kube-ipvs0']);
  assert.match(inNamespace(namespace, ['ip', 'route', 'get', '10.96.0.1']), /^local 10\.96\.0\.1 dev lo/);
});

test('sets of every type that the mode uses, and iptables rules that match them', () => {
  const namespace = makeNamespace();
  const types = ['hash:ip', 'hash:ip,port', 'hash:ip,port,ip', 'hash:ip,port,net', 'bitmap:port'];
  for (const [i, type] of types.entries()) {
    const range = type === 'bitmap:port' ? ['range', '0-65535'] : [];
    inNamespace(namespace, ['ipset', 'create', `set-${i}`, type, ...range]);
  }
  for (const program of ['iptables', 'ip6tables']) {
    if (program === 'ip6tables')
      inNamespace(namespace, ['ipset', 'create', 'six', 'hash:ip,port', 'family', 'inet6']);
    const set = program === 'iptables' ? 'set-1' : 'six';
    const match = ['-m', 'set', '--match-set', set, 'dst,dst', '-m', 'comment', '--comment', 'x'];
    inNamespace(namespace, [program, '-t', 'nat', '-A', 'POSTROUTING', ...match, '-j', 'MASQUERADE']);
    inNamespace(namespace, [program, '-A', 'OUTPUT', '-m', 'ipvs', '--vport', '80', '-j', 'DROP']);
  }
  assert.match(inNamespace(namespace, ['iptables-save']), /--match-set set-1 dst,dst/);
});

test('a small file system in memory takes what the guest writes', () => {
  assert.match(execFileSync('findmnt', ['-no', 'FSTYPE', '/'], { encoding: 'utf8' }), /^overlay/);
  assert.equal(existsSync('/run/vm/ready'), true);
});

test('SCTP associations between namespaces, through Node sockets', async () => {
  const namespaces = new Namespaces();
  try {
    namespaces.add(['one']);
    namespaces.ip('one', ['link set lo up']);
    const ports = [{ kind: 'sctp' as const, port: 9000 }];
    const server = startEchoServer(namespaces, { name: 'echo', namespace: 'one', ports });
    for (const ip of ['127.0.0.1', '::1']) {
      const connection = openConnection({
        namespaces,
        namespace: 'one',
        protocol: 'sctp',
        to: { ip, port: 9000 },
        source: undefined,
        ear: undefined,
      });
      const first = await connection.first(5000);
      assert.deepEqual([first.outcome, first.greeting?.pod], ['ok', 'echo']);
      assert.equal((await connection.again(5000)).greeting?.peer, ip);
      connection.close();
    }
    server.close();
  } finally {
    namespaces.remove();
  }
});
