import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { inNamespace, makeNamespace, removeNamespace } from '../../support/namespace.ts';

const namespace = makeNamespace();
after(() => removeNamespace(namespace));

const module = new URL('../../../src/dataplane/nftables/cleanup.ts', import.meta.url).href;

function removeTables(): string[] {
  const script = `import { removeTables } from ${JSON.stringify(module)}; console.log(JSON.stringify(removeTables()));`;
  const argv = [process.execPath, '--import', 'tsx', '--input-type=module', '-e', script];
  return JSON.parse(inNamespace(namespace, argv)) as string[];
}

test('removes the tables of nftables mode that are there, and no other', () => {
  const nft = (...argv: string[]): string => inNamespace(namespace, ['nft', ...argv]);
  nft('add', 'table', 'ip', 'kube-proxy');
  nft('add', 'chain', 'ip', 'kube-proxy', 'services');
  nft('add', 'rule', 'ip', 'kube-proxy', 'services', 'tcp', 'dport', '80', 'drop');
  nft('add', 'table', 'ip6', 'kube-proxy');
  nft('add', 'table', 'inet', 'kube-proxy');
  assert.deepEqual(removeTables(), ['table ip kube-proxy', 'table ip6 kube-proxy']);
  assert.equal(nft('list', 'tables').trim(), 'table inet kube-proxy');
  assert.deepEqual(removeTables(), []);
  nft('add', 'table', 'ip6', 'kube-proxy');
  assert.deepEqual(removeTables(), ['table ip6 kube-proxy']);
});
