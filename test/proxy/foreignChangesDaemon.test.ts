/** The daemon in nftables mode, whose table somebody else changes: event, log line, metrics, repair. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';
import { TinyApiServer } from './support/apiServer.ts';

const root = new URL('../..', import.meta.url).pathname;

async function until(what: string, condition: () => boolean): Promise<void> {
  for (let i = 0; i < 1200; i++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail(`not within a minute: ${what}`);
}

for (const repairs of [true, false]) {
  test(`--repair-drift=${repairs}: a change by nft is told in event, log and metrics`, async () => {
    const namespace = makeNamespace();
    const folder = makeOwnedDirectory('drift');
    const api = new TinyApiServer(namespace);
    api.apply({
      kind: 'Node',
      metadata: { name: 'n1' },
      status: { addresses: [{ type: 'InternalIP', address: '192.168.7.1' }] },
    });
    const kubeconfig = join(folder, 'kubeconfig');
    writeFileSync(
      kubeconfig,
      `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'http://127.0.0.1:${api.port}'}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`,
    );
    const flags = [
      `--kubeconfig=${kubeconfig}`,
      `--socket-path=${join(folder, 'socket')}`,
      `--repair-drift=${repairs}`,
      '--proxy-mode=nftables',
      '--hostname-override=n1',
      '--conntrack-max-per-core=0',
      '--conntrack-min=0',
    ];
    const daemon = spawn(
      'ip',
      ['netns', 'exec', namespace, process.execPath, '--import', 'tsx', 'src/main.ts', 'run', ...flags],
      { cwd: root, stdio: ['ignore', 'ignore', 'pipe'] },
    );
    const ended = new Promise((resolve) => daemon.once('exit', resolve));
    let log = '';
    daemon.stderr.setEncoding('utf8').on('data', (text: string) => (log += text));
    const nft = (...argv: string[]): string => inNamespace(namespace, ['nft', ...argv], { stdio: 'pipe' });
    const dispatch = (): string => {
      try {
        return nft('list', 'chain', 'ip', 'kube-proxy', 'dispatch');
      } catch {
        // Not there yet.
        return '';
      }
    };
    const events = (): string[] =>
      api.events.flatMap((event) =>
        event['reason'] === 'ServiceRulesChanged' ? [String(event['note'])] : [],
      );
    try {
      await until('the table is there', () => dispatch().includes('vmap @frontends'));
      nft('flush', 'chain', 'ip', 'kube-proxy', 'dispatch');
      await until('the event', () => events().length > 0);
      const then = repairs ? 'pointsman puts it back' : 'left as it is (--repair-drift=false)';
      assert.equal(
        events()[0]!.replaceAll(/\d+(?=\)| more)/g, 'N'),
        `IPv4 rules of nftables mode were changed by nft (pid N): rule in chain dispatch removed: ip daddr . meta l4proto . th dport vmap @frontends (and N more change); ${then}`,
      );
      const event = api.events.find(({ reason }) => reason === 'ServiceRulesChanged')!;
      assert.equal(event['type'], 'Warning');
      assert.equal((event['regarding'] as { kind: string }).kind, 'Node');
      await until('the log line', () =>
        /Service rules were changed by somebody else.*what="rule in chain dispatch removed/.test(log),
      );
      if (repairs) await until('the repair', () => dispatch().includes('vmap @frontends'));
      else {
        await new Promise((resolve) => setTimeout(resolve, 500));
        assert.doesNotMatch(dispatch(), /vmap/);
      }
      const repaired = (metrics: string): boolean =>
        /pointsman_repairs_total\{ip_family="IPv4"\} 1/.test(metrics);
      let metrics = '';
      await until('the metrics', () => {
        metrics = inNamespace(namespace, ['curl', '-s', 'http://127.0.0.1:10249/metrics']);
        return (
          /pointsman_foreign_changes_total\{ip_family="IPv4",object="rule"\} 1/.test(metrics) &&
          (repaired(metrics) || !repairs)
        );
      });
      assert.equal(repaired(metrics), repairs);
    } catch (error) {
      throw new Error(`${String(error)}\n${log}`, { cause: error });
    } finally {
      daemon.kill();
      await ended;
      api.close();
      removeNamespace(namespace);
      rmSync(folder, { recursive: true });
    }
  });
}
