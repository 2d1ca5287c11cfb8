/** Clean-up of rules and sets, and of what iptables mode shares. On any kernel: without IPVS there are no virtual servers. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { inNamespace, makeNamespace, removeNamespace } from '../../support/namespace.ts';

const worker = fileURLToPath(new URL('cleanupWorker.ts', import.meta.url));

it('what is shared with the mode in force stays; without one, everything goes', (t) => {
  const namespace = makeNamespace();
  t.after(() => removeNamespace(namespace));
  const act = (what: string): void =>
    void execFileSync('ip', ['netns', 'exec', namespace, process.execPath, '--import', 'tsx', worker, what], {
      stdio: 'pipe',
    });
  const rules = (): string => inNamespace(namespace, ['sh', '-c', 'iptables-save; ip6tables-save']);
  const sets = (): string => inNamespace(namespace, ['ipset', 'list', '-n']);

  act('make');
  assert.match(rules(), /-A KUBE-IPVS-FILTER/);
  assert.match(sets(), /KUBE-CLUSTER-IP/);
  inNamespace(namespace, ['iptables', '-t', 'nat', '-N', 'KUBE-SVC-AAAAAAAAAAAAAAAA']);
  inNamespace(namespace, ['iptables', '-N', 'KUBE-EXTERNAL-SERVICES']);
  inNamespace(namespace, ['iptables', '-A', 'INPUT', '-s', '203.0.113.9', '-j', 'DROP']);

  act('iptables');
  const before = rules();
  assert.doesNotMatch(before, /KUBE-SVC|KUBE-EXTERNAL-SERVICES/);
  assert.match(before, /-A PREROUTING .*-j KUBE-SERVICES/);
  assert.match(before, /-A KUBE-IPVS-FILTER/);

  act('shared');
  const shared = rules();
  assert.doesNotMatch(shared, /KUBE-IPVS|KUBE-LOAD-BALANCER|KUBE-NODE-PORT/);
  assert.match(shared, /-A PREROUTING .*-j KUBE-SERVICES/);
  assert.match(shared, /:KUBE-POSTROUTING/);
  assert.equal(sets(), '');

  act('make');
  act('all');
  assert.doesNotMatch(rules(), /KUBE/);
  assert.match(rules(), /203\.0\.113\.9/);
  assert.equal(sets(), '');
});
