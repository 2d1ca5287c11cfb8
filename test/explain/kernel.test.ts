/** Rules that are in a kernel are read (over netlink, iptables-save, nft -j) and mean what was wanted; --live sees the same. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { clusterOf } from '../../src/render/cluster.ts';
import { runExplain } from '../../src/explain/cli.ts';
import type { Explanation } from '../../src/explain/explanation.ts';
import type { Observation } from '../../src/explain/live.ts';
import { wantedSave, wantedTable } from '../../src/explain/sources/rules.ts';
import type { RuleMode, Wanted } from '../../src/explain/routes.ts';
import { World } from '../../src/explain/world.ts';
import { printSave } from '../../src/linux/iptables/save.ts';
import { printTable } from '../../src/linux/netlink/nftables/print.ts';
import { parseManifests } from '../../src/cluster/manifests.ts';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { RouteTracker } from '../../src/services/routeTracker.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';

const manifests = `
kind: Node
apiVersion: v1
metadata: {name: node-1}
spec: {podCIDRs: [10.244.1.0/24]}
status: {addresses: [{type: InternalIP, address: 172.31.0.11}]}
---
kind: Service
apiVersion: v1
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.20, type: NodePort, ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}]}
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
  - {addresses: [10.244.1.10], nodeName: node-1}
  - {addresses: [10.244.1.11], nodeName: node-1}
  - {addresses: [10.244.1.12], nodeName: node-1}
---
kind: Service
apiVersion: v1
metadata: {name: lonely, namespace: shop}
spec: {clusterIP: 10.96.0.21, type: LoadBalancer, externalTrafficPolicy: Local, sessionAffinity: ClientIP, ports: [{port: 80, nodePort: 30081}], loadBalancerSourceRanges: [192.0.2.0/24]}
status: {loadBalancer: {ingress: [{ip: 203.0.113.9}]}}
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {name: lonely-1, namespace: shop, labels: {kubernetes.io/service-name: lonely}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.244.2.10], nodeName: node-2}]
---
kind: Service
apiVersion: v1
metadata: {name: empty, namespace: shop}
spec: {clusterIP: 10.96.0.22, ports: [{port: 80}]}
`;

const questions = [
  ['outside', '172.31.0.11:30080'],
  ['10.244.1.10', '10.96.0.20:80'],
  ['10.244.2.77', '10.96.0.20:80'],
  ['node', '10.96.0.20:80'],
  ['outside', '172.31.0.11:30081'],
  ['node', '172.31.0.11:30081'],
  ['192.0.2.7', '203.0.113.9:80'],
  ['198.51.100.7', '203.0.113.9:80'],
  ['10.244.1.10', '10.96.0.22:80'],
] as const;

interface Setup {
  readonly namespace: string;
  /** Has the addresses of all Pods. */
  readonly pods: string;
  readonly folder: string;
}

function setUp(context: TestContext, mode: RuleMode): Setup {
  const namespace = makeNamespace();
  const pods = makeNamespace();
  const folder = makeOwnedDirectory('explain');
  context.after(() => {
    removeNamespace(namespace);
    removeNamespace(pods);
    rmSync(folder, { recursive: true });
  });
  writeFileSync(join(folder, 'manifest.yaml'), manifests);
  const ip = (where: string, text: string): void => void inNamespace(where, ['ip', ...text.split(' ')]);
  ip(namespace, `link add eth0 type veth peer name eth0 netns ${pods}`);
  ip(namespace, 'link set eth0 up');
  ip(namespace, 'addr add 172.31.0.11/24 dev eth0');
  ip(namespace, 'route add default dev eth0');
  ip(pods, 'link set eth0 up');
  for (const last of [10, 11, 12]) ip(pods, `addr add 10.244.1.${last}/32 dev eth0`);
  ip(pods, 'route add default dev eth0');

  const { services, slices } = clusterOf(parseManifests('m', manifests));
  const tracker = new RouteTracker({ family: 'IPv4', nodeName: 'node-1' });
  for (const service of services) tracker.upsertService(service);
  for (const slice of slices) tracker.upsertSlice(slice);
  tracker.take();
  const wanted: Wanted = {
    mode,
    table: tracker.table,
    options: {
      family: 'IPv4',
      masqueradeBit: 14,
      masqueradeAll: false,
      localDetector: { kind: 'cidr', cidr: '10.244.0.0/16' },
      nodeIP: '172.31.0.11',
      nodePortAddresses: mode === 'nftables' ? ['172.31.0.11/32'] : ['0.0.0.0/0'],
      syncPeriod: 30_000,
    },
    localhostNodePorts: true,
    serviceCIDRs: [],
  };
  const world = new World({ nodeName: 'node-1', family: 'IPv4', nodeIP: '172.31.0.11', localAddresses: [] });
  const [tool, text] =
    mode === 'iptables'
      ? [['iptables-nft-restore'], printSave(wantedSave(wanted, world))]
      : [['nft', '-f', '-'], printTable(wantedTable(wanted, world))];
  inNamespace(namespace, tool, { input: text, stdio: ['pipe', 'pipe', 'pipe'] });
  return { namespace, pods, folder };
}

type Answer = Explanation & { readonly live?: Observation };

function flags(folder: string): string[] {
  const given = ['--node', 'node-1', '--cluster-cidr', '10.244.0.0/16', '--json'];
  return [...given, '-f', join(folder, 'manifest.yaml')];
}

/** Exit code 1 says that a packet does not arrive: an answer too. */
function explain({ namespace, folder }: Setup, args: readonly string[]): Answer {
  const command = ['node', '--import', 'tsx', join(import.meta.dirname, '../../src/main.ts'), 'explain'];
  try {
    return JSON.parse(
      inNamespace(namespace, [...command, ...args, ...flags(folder)], { stdio: ['ignore', 'pipe', 'pipe'] }),
    ) as Answer;
  } catch (error) {
    const { status, stdout, stderr } = error as { status: number; stdout: string; stderr: string };
    assert.equal(status, 1, stderr);
    return JSON.parse(stdout) as Answer;
  }
}

/** The same without a namespace, for what needs no kernel. */
async function explainHere({ folder }: Setup, args: readonly string[]): Promise<Explanation> {
  let output = '';
  let errors = '';
  await runExplain([...args, ...flags(folder)], {
    out: (text) => void (output += text),
    err: (text) => void (errors += text),
    colour: false,
  });
  assert.equal(errors, '');
  return JSON.parse(output) as Explanation;
}

function summary({ outcomes }: Explanation): string[] {
  return outcomes
    .map(
      ({ kind, destination, probability, masqueraded }) =>
        `${kind} ${destination} ${probability.toFixed(4)} ${masqueraded}`,
    )
    .sort();
}

for (const mode of ['iptables', 'nftables'] as const) {
  test(`${mode}: rules read from the kernel and from a dump mean what was wanted`, async (context) => {
    const setup = setUp(context, mode);
    const dump = inNamespace(
      setup.namespace,
      mode === 'iptables' ? ['iptables-nft-save'] : ['nft', '-j', 'list', 'ruleset'],
    );
    writeFileSync(join(setup.folder, 'dump'), dump);
    for (const [index, [from, to]] of questions.entries()) {
      const question = ['--from', from, '--to', to, '--mode', mode];
      const wanted = await explainHere(setup, question);
      const dumped = await explainHere(setup, [...question, '--dump', join(setup.folder, 'dump')]);
      assert.deepEqual(summary(dumped), summary(wanted), `dump: ${from} ${to}`);
      // A program for each question takes its time: some are enough.
      if (index % 3 !== 0) continue;
      const kernel = explain(setup, [...question, '--kernel']);
      assert.equal(kernel.rules, 'read from the kernel');
      assert.deepEqual(summary(kernel), summary(wanted), `kernel: ${from} ${to}`);
    }
  });

  test(`${mode}: what really happens is laid over the prediction`, async (context) => {
    const setup = setUp(context, mode);
    const program = `const s=require('net').createServer(c=>c.on('error',()=>{}).end('hello'));s.listen(8080,'0.0.0.0',()=>console.log('up'))`;
    const server = spawn('ip', ['netns', 'exec', setup.pods, 'node', '-e', program], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    context.after(() => server.kill('SIGKILL'));
    await once(server.stdout, 'data');
    const { live } = explain(setup, [
      '--from',
      'node',
      '--to',
      '10.96.0.20:80',
      '--mode',
      mode,
      '--live',
      '--count',
      '30',
    ]);
    assert.equal(live?.connections, 30, JSON.stringify(live));
    assert.equal(live.agrees, true, JSON.stringify(live));
    for (const { end, predicted } of live.ends) {
      assert.match(end, /^10\.244\.1\.1[012]:8080$/);
      assert.ok(Math.abs((predicted ?? 0) - 1 / 3) < 1e-3);
    }
    assert.ok(live.ends.length >= 2);
    const refused = explain(setup, [
      '--from',
      'node',
      '--to',
      '10.96.0.22:80',
      '--mode',
      mode,
      '--live',
      '--count',
      '2',
    ]);
    assert.deepEqual(refused.live?.ends, [{ end: 'refused', connections: 2, predicted: 1 }]);
  });
}
