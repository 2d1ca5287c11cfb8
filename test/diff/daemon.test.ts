/** On a node without -f: diff and explain ask the daemon what it wants, and the kernel what it has. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import type { LabCluster } from '../../src/lab/cluster/labCluster.ts';
import type { Difference } from '../../src/diff/difference.ts';
import {
  clusterIP,
  endpointsKnown,
  eventually,
  pod,
  programFromSource,
  service,
  socketPath,
  startLab,
} from '../status/support/lab.ts';

for (const mode of ['iptables', 'nftables', 'userspace']) {
  describe(`${mode} mode`, () => {
    let cluster: LabCluster;
    const onNode = (...command: string[]) => {
      const namespace = cluster.network.namespaces.fullName('node-1');
      const env = { ...process.env, POINTSMAN_SOCKET: socketPath(cluster, 'node-1') };
      const options = { encoding: 'utf8', timeout: 300_000, env } as const;
      return spawnSync('ip', ['netns', 'exec', namespace, ...command], options);
    };
    const differences = () => {
      const { stdout, stderr } = onNode(...programFromSource, 'diff', '--json');
      assert.ok(stdout !== '', stderr);
      return (JSON.parse(stdout) as { differences: Difference[] }).differences;
    };

    /** What leads to the cluster IP, at port 80; nothing if it is gone already. */
    const takeAway = (ip: string): void => {
      if (mode === 'nftables') {
        const listed = onNode('nft', 'list', 'map', 'ip', 'kube-proxy', 'frontends').stdout;
        const element = new RegExp(`${ip.replaceAll('.', '\\.')} \\. tcp \\. 80[^,}]*`).exec(listed)?.[0];
        if (element === undefined) return;
        const key = element.replace(/ (counter|comment|:) .*$/s, '').trim();
        const gone = onNode('nft', 'delete', 'element', 'ip', 'kube-proxy', 'frontends', `{ ${key} }`);
        assert.equal(gone.status, 0, gone.stderr);
        return;
      }
      const chain = mode === 'iptables' ? 'KUBE-SERVICES' : 'KUBE-PORTALS-CONTAINER';
      const rules = onNode('iptables-save', '-t', 'nat')
        .stdout.split('\n')
        .filter((text) => text.startsWith(`-A ${chain} `));
      const at = rules.findIndex((text) => text.startsWith(`-A ${chain} -d ${ip}/32 `));
      if (at < 0) return;
      const gone = onNode('iptables', '-t', 'nat', '-D', chain, String(at + 1));
      assert.equal(gone.status, 0, gone.stderr);
    };

    before(async () => {
      cluster = await startLab(mode, ['--repair-drift=false', '--service-counters=endpoints']);
      const { client } = cluster;
      await client.apply(pod('web-1', 'node-1', { app: 'web' }));
      await client.apply(pod('web-2', 'node-2', { app: 'web' }));
      await client.apply(pod('caller', 'node-1', { app: 'caller' }));
      const ports = [{ name: 'http', port: 80, targetPort: 8080 }];
      await client.apply(service('web', { type: 'NodePort', selector: { app: 'web' }, ports }));
      await client.apply(service('empty', { selector: { app: 'nobody' }, ports: [{ port: 80 }] }));
      await endpointsKnown(cluster, 'web', 2);
    });

    after(async () => cluster.close());

    test('diff: nothing; then what somebody has taken away, by name', async () => {
      await eventually('the kernel has what is wanted', async () =>
        Promise.resolve(differences().length === 0),
      );
      const ip = await clusterIP(cluster, 'web');
      // A full sync, as one that follows a failed one, puts everything right, repairs or not: then it is taken away again.
      const [first, ...more] = await eventually('a difference is left', () => {
        takeAway(ip);
        const found = differences();
        return Promise.resolve(found.length > 0 && found);
      });
      assert.deepEqual(more, []);
      assert.equal(first?.kind, 'missing');
      assert.equal(first.object, mode === 'nftables' ? 'element' : 'rule');
      assert.equal(first.servicePort, 'default/web:http');
      assert.ok(first.wanted[0]?.includes(ip), String(first.wanted));
    });

    test('explain: the daemon knows the Services, the kernel the rules', () => {
      const explain = (...argv: string[]) =>
        onNode(...programFromSource, 'explain', ...argv, '--from=10.244.1.200');
      const empty = explain('default/empty:80');
      assert.equal(empty.status, 1, empty.stderr);
      assert.match(empty.stdout, /It is rejected/);
      assert.match(empty.stdout, /Service default\/empty/);
      const alone = explain('10.96.0.250:80', `--socket-path=${socketPath(cluster, 'no')}`);
      assert.match(alone.stderr, /^Services are not known, only rules: nobody answers at /m);
      assert.match(alone.stdout, /^TCP 10\.244\.1\.200 → 10\.96\.0\.250:80\n/);
    });
  });
}
