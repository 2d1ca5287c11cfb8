/** The manifests in deploy/ are what kubectl and kubeadm's own DaemonSet make of them; needs a kubectl, no cluster. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse, parseAllDocuments, stringify } from 'yaml';
import { findKubectl } from '../../src/lab/cluster/kubectl.ts';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';

const deploy = fileURLToPath(new URL('../../deploy', import.meta.url));
const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const kubectl = findKubectl();

interface Container {
  readonly name: string;
  readonly image: string;
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly securityContext: {
    readonly privileged: boolean;
    readonly capabilities: { readonly add: readonly string[]; readonly drop: readonly string[] };
  };
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string }[];
}

interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly data: Readonly<Record<string, string>>;
  readonly spec: {
    readonly updateStrategy: { readonly type: string; readonly rollingUpdate?: object };
    readonly template: {
      readonly spec: {
        readonly containers: readonly Container[];
        readonly initContainers: readonly Container[];
        readonly volumes: readonly { readonly name: string }[];
      };
    };
  };
}

/** Without a cluster: nothing is asked of one. */
function run(args: readonly string[]): string {
  const env = { ...process.env, KUBECONFIG: '/nonexistent/kubeconfig' };
  return execFileSync(kubectl, args, { encoding: 'utf8', env, stdio: ['ignore', 'pipe', 'pipe'] });
}

function build(folder: string): Manifest[] {
  const text = run(['kustomize', join(deploy, folder)]);
  return parseAllDocuments(text).map((document) => document.toJS() as Manifest);
}

function daemonSet(manifests: readonly Manifest[]): Manifest {
  const found = manifests.find(({ kind }) => kind === 'DaemonSet');
  assert.ok(found !== undefined);
  return found;
}

/** What kubeadm installs, as far as a change of it could matter. */
const kubeadm = {
  apiVersion: 'apps/v1',
  kind: 'DaemonSet',
  metadata: { name: 'kube-proxy', namespace: 'kube-system', labels: { 'k8s-app': 'kube-proxy' } },
  spec: {
    selector: { matchLabels: { 'k8s-app': 'kube-proxy' } },
    updateStrategy: { type: 'RollingUpdate' },
    template: {
      metadata: { labels: { 'k8s-app': 'kube-proxy' } },
      spec: {
        priorityClassName: 'system-node-critical',
        hostNetwork: true,
        serviceAccountName: 'kube-proxy',
        containers: [
          {
            name: 'kube-proxy',
            image: 'registry.example/kube-proxy:v1.36.2',
            command: [
              '/usr/local/bin/kube-proxy',
              '--config=/var/lib/kube-proxy/config.conf',
              '--hostname-override=$(NODE_NAME)',
            ],
            env: [{ name: 'NODE_NAME', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } }],
            securityContext: { privileged: true },
            volumeMounts: [
              { name: 'kube-proxy', mountPath: '/var/lib/kube-proxy' },
              { name: 'xtables-lock', mountPath: '/run/xtables.lock' },
              { name: 'lib-modules', mountPath: '/lib/modules', readOnly: true },
            ],
          },
        ],
        volumes: [
          { name: 'kube-proxy', configMap: { name: 'kube-proxy' } },
          { name: 'xtables-lock', hostPath: { path: '/run/xtables.lock', type: 'FileOrCreate' } },
          { name: 'lib-modules', hostPath: { path: '/lib/modules' } },
        ],
      },
    },
  },
};

/** Every field of `wanted` is in `found`, too. */
function assertContains(found: unknown, wanted: unknown, path: string): void {
  if (typeof wanted !== 'object' || wanted === null) {
    assert.equal(found, wanted, path);
    return;
  }
  assert.ok(typeof found === 'object' && found !== null, `${path} is lost: kubectl does not know the field`);
  for (const [name, value] of Object.entries(wanted))
    assertContains((found as Record<string, unknown>)[name], value, `${path}.${name}`);
}

test('the manifests of each folder', () => {
  const kinds = (folder: string): string[] => build(folder).map(({ kind }) => kind);
  assert.deepEqual(kinds('kubeadm'), ['ServiceAccount', 'ClusterRoleBinding', 'DaemonSet']);
  assert.deepEqual(kinds('standalone'), ['ServiceAccount', 'ClusterRoleBinding', 'ConfigMap', 'DaemonSet']);
  const first = daemonSet(build('one-node-first'));
  assert.deepEqual(first.spec.updateStrategy, { type: 'OnDelete' });
  assert.deepEqual(daemonSet(build('kubeadm')).spec.updateStrategy.type, 'RollingUpdate');
});

test('kubectl knows every field, and the DaemonSet of kubeadm becomes ours, without its privileges', (t) => {
  const folder = makeOwnedDirectory('deploy');
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const before = join(folder, 'before.yaml');
  writeFileSync(before, stringify(kubeadm));
  const ours = daemonSet(build('kubeadm'));
  const patch = JSON.stringify(ours);
  const after = parse(run(['patch', '--local', '-f', before, '-p', patch, '-o', 'json'])) as Manifest;
  const plain = join(folder, 'ours.yaml');
  writeFileSync(plain, stringify(ours));
  const read: unknown = parse(run(['set', 'image', '--local', '-f', plain, '*=x', '-o', 'json']));
  const image = (text: string): string => text.replaceAll('pointsman:0.1.0', 'x');
  assertContains(read, JSON.parse(image(patch)), 'DaemonSet');

  const { containers, initContainers, volumes } = after.spec.template.spec;
  assert.equal(containers.length, 1);
  const [proxy] = containers;
  assert.ok(proxy !== undefined);
  assert.equal(proxy.image, 'pointsman:0.1.0');
  assert.deepEqual(proxy.command, ['/usr/local/bin/kube-proxy']);
  assert.deepEqual(proxy.args, [
    '--config=/var/lib/kube-proxy/config.conf',
    '--hostname-override=$(NODE_NAME)',
  ]);
  assert.equal(proxy.securityContext.privileged, false);
  assert.deepEqual(proxy.securityContext.capabilities, { add: ['NET_ADMIN', 'NET_RAW'], drop: ['ALL'] });
  assert.ok(proxy.volumeMounts.some(({ mountPath }) => mountPath === '/run/pointsman'));
  const known = volumes.map(({ name }) => name);
  for (const { volumeMounts } of [...containers, ...initContainers])
    for (const { name } of volumeMounts) assert.ok(known.includes(name), name);
});

test('the configuration of its own is one that starts, without a warning', (t) => {
  const folder = makeOwnedDirectory('deploy');
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const configMap = build('standalone').find(({ kind }) => kind === 'ConfigMap');
  const config = join(folder, 'config.conf');
  const written = join(folder, 'written.conf');
  writeFileSync(config, configMap?.data['config.conf'] ?? '');
  const argv = ['--import', 'tsx', main, 'run', `--config=${config}`, `--write-config-to=${written}`];
  const { status, stderr } = spawnSync(process.execPath, argv, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  assert.doesNotMatch(stderr, /ignored|unknown/);
  const { clusterCIDR, mode, clientConnection } = parse(readFileSync(written, 'utf8')) as {
    clusterCIDR: string;
    mode: string;
    clientConnection: { kubeconfig: string };
  };
  assert.equal(clusterCIDR, '10.244.0.0/16');
  assert.equal(mode, 'iptables');
  assert.equal(clientConnection.kubeconfig, '/var/lib/kube-proxy/kubeconfig.conf');
});

test('docs/operations.md names what is there', () => {
  const text = readFileSync(join(deploy, '../docs/operations.md'), 'utf8');
  for (const folder of ['kubeadm', 'standalone', 'one-node-first'])
    assert.ok(text.includes(`deploy/${folder}`), folder);
});
