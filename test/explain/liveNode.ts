/** A node with Service rules in a kernel's network namespace, with Pods, a client outside, and servers that answer. */
import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Family } from '../../src/api/objects.ts';
import { parseManifests } from '../../src/cluster/manifests.ts';
import type { DataplaneOptions } from '../../src/dataplane/dataplane.ts';
import type { Explanation } from '../../src/explain/explanation.ts';
import type { Observation } from '../../src/explain/live.ts';
import type { RuleMode, Wanted } from '../../src/explain/routes.ts';
import { wantedSave, wantedTable } from '../../src/explain/sources/rules.ts';
import { World } from '../../src/explain/world.ts';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { printSave } from '../../src/linux/iptables/save.ts';
import { printTable } from '../../src/linux/netlink/nftables/print.ts';
import { clusterOf } from '../../src/render/cluster.ts';
import { RouteTracker } from '../../src/services/routeTracker.ts';
import type { ChangeSet, RoutingTable } from '../../src/services/types.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';

const manifests = `
kind: Node
apiVersion: v1
metadata: {name: node-1}
spec: {podCIDRs: [10.244.1.0/24, 'fd00:10:244:1::/64']}
status: {addresses: [{type: InternalIP, address: 172.31.0.11}, {type: InternalIP, address: 'fd00:31::11'}]}
---
kind: Pod
apiVersion: v1
metadata: {name: front, namespace: shop}
spec: {nodeName: node-1}
status: {podIPs: [{ip: 10.244.1.50}, {ip: 'fd00:10:244:1::50'}], podIP: 10.244.1.50}
---
kind: Service
apiVersion: v1
metadata: {name: web, namespace: shop}
spec:
  type: NodePort
  clusterIP: 10.96.0.20
  clusterIPs: [10.96.0.20, 'fd00:10:96::20']
  ipFamilies: [IPv4, IPv6]
  ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}, {name: dns, protocol: UDP, port: 53, targetPort: 8080, nodePort: 30053}]
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {name: web-4, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: dns, protocol: UDP, port: 8080}]
endpoints: [{addresses: [10.244.1.10], nodeName: node-1}, {addresses: [10.244.1.11], nodeName: node-1}]
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {name: web-6, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
ports: [{name: http, port: 8080}, {name: dns, protocol: UDP, port: 8080}]
endpoints: [{addresses: ['fd00:10:244:1::10'], nodeName: node-1}, {addresses: ['fd00:10:244:1::11'], nodeName: node-1}]
---
kind: Service
apiVersion: v1
metadata: {name: wrong, namespace: shop}
spec: {clusterIP: 10.96.0.23, ports: [{port: 80, targetPort: 9999}]}
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {name: wrong-1, namespace: shop, labels: {kubernetes.io/service-name: wrong}}
addressType: IPv4
ports: [{name: '', port: 9999}]
endpoints: [{addresses: [10.244.1.10], nodeName: node-1}]
---
kind: Service
apiVersion: v1
metadata: {name: empty, namespace: shop}
spec: {clusterIP: 10.96.0.22, ports: [{port: 80}]}
`;

/** TCP and UDP on port 8080, on all addresses of the namespace. */
const server = `
require('net').createServer((c) => c.on('error', () => {}).end('hello\\n')).listen(8080, '::', () => {
  const u = require('dgram').createSocket('udp6');
  u.on('message', (m, from) => u.send('hello', from.port, from.address));
  u.bind(8080, '::', () => console.log('up'));
});`;

/** How rules come into the kernel. */
export type RuleProgram = 'nft' | 'iptables-nft' | 'iptables-legacy';

/** What the manifests want on node-1. */
export function routesFor(family: Family, text: string): { table: RoutingTable; changes: ChangeSet } {
  const { services, slices } = clusterOf(parseManifests('m', text));
  const tracker = new RouteTracker({ family, nodeName: 'node-1' });
  for (const service of services) tracker.upsertService(service);
  for (const slice of slices) tracker.upsertSlice(slice);
  const changes = tracker.take();
  return { table: tracker.table, changes };
}

export function nodeOptions(family: Family, mode: RuleMode): DataplaneOptions {
  const nodeIP = nodeIPs[family];
  return {
    family,
    masqueradeBit: 14,
    masqueradeAll: false,
    localDetector: { kind: 'cidr', cidr: podNetworks[family] },
    nodeIP,
    nodePortAddresses:
      mode === 'nftables'
        ? [family === 'IPv6' ? `${nodeIP}/128` : `${nodeIP}/32`]
        : [family === 'IPv6' ? '::/0' : '0.0.0.0/0'],
    syncPeriod: 30_000,
  };
}

const nodeIPs = { IPv4: '172.31.0.11', IPv6: 'fd00:31::11' } as const;
const podNetworks = { IPv4: '10.244.0.0/16', IPv6: 'fd00:10:244::/48' } as const;

export class LiveNode {
  /** Other machines' Pods with the same address, in front of it and behind it in lists: none is to be dialled from. */
  readonly decoys = [makeNamespace()];
  readonly node = makeNamespace();
  readonly client = makeNamespace();
  /** Has the address of Pod shop/front. */
  readonly front = makeNamespace();
  /** Has the addresses of all endpoints. */
  readonly backends = makeNamespace();
  readonly folder = makeOwnedDirectory('live');
  readonly mode: RuleMode;
  readonly #programs: ChildProcess[] = [];

  private constructor(mode: RuleMode) {
    this.mode = mode;
  }

  /** @param relays the node's proxy is in userspace mode */
  static async make(context: TestContext, program: RuleProgram, relays = false): Promise<LiveNode> {
    const mode = relays ? 'userspace' : program === 'nft' ? 'nftables' : 'iptables';
    const made = new LiveNode(mode);
    context.after(() => made.#remove());
    made.#network();
    const file = join(made.folder, 'manifests.yaml');
    writeFileSync(file, manifests);
    if (relays) {
      const proxy = join(import.meta.dirname, 'relayNode.ts');
      const child = made.start(made.node, ['node', '--import', 'tsx', proxy, file, program]);
      let errors = '';
      child.stderr!.on('data', (bytes: Buffer) => void (errors += bytes.toString()));
      const ended = once(child, 'exit').then(() => assert.fail(errors));
      await Promise.race([once(child.stdout!, 'data'), ended]);
      // It ends with the test, by our own hand.
      ended.catch(() => undefined);
    } else for (const family of ['IPv4', 'IPv6'] as const) made.#rules(program, family);
    const child = made.start(made.backends, ['node', '-e', server]);
    await once(child.stdout!, 'data');
    return made;
  }

  /** Starts a program in a namespace; it ends with the test at the latest. */
  start(namespace: string, argv: readonly string[]): ChildProcess {
    const child = spawn('ip', ['netns', 'exec', namespace, ...argv], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#programs.push(child);
    return child;
  }

  startExplain(args: readonly string[], more: readonly string[] = ['--json']): ChildProcess {
    return this.start(this.node, [
      'node',
      '--import',
      'tsx',
      join(import.meta.dirname, '../../src/main.ts'),
      'explain',
      ...args,
      '--mode',
      this.mode,
      '--node',
      'node-1',
      '--cluster-cidr',
      Object.values(podNetworks).join(','),
      '-f',
      join(this.folder, 'manifests.yaml'),
      '--live',
      ...more,
    ]);
  }

  /** Runs to the end. @param meanwhile as soon as it waits for others' connections */
  async explain(args: readonly string[], meanwhile?: () => void): Promise<LiveAnswer> {
    const { out, status } = await this.explainText(args, ['--json'], meanwhile);
    return { ...(JSON.parse(out) as Explanation & { live: Observation }), status };
  }

  async explainText(
    args: readonly string[],
    more: readonly string[],
    meanwhile?: () => void,
  ): Promise<{ out: string; status: number }> {
    const child = this.startExplain(args, more);
    let out = '';
    let errors = '';
    child.stdout!.on('data', (bytes: Buffer) => void (out += bytes.toString()));
    child.stderr!.on('data', (bytes: Buffer) => {
      errors += bytes.toString();
      // From then on none is missed.
      if (bytes.toString().includes('Watching')) meanwhile?.();
    });
    const [status] = (await once(child, 'close')) as [number];
    if (status !== 0 && status !== 1) throw new Error(`explain ended with ${status}: ${errors}`);
    return { out, status };
  }

  /** Connections or datagrams from a namespace, one after the other, each with a line of its own. */
  dial(namespace: string, protocol: 'tcp' | 'udp', address: string, port: number, count: number): void {
    const client = `
      const [protocol, address, port, count] = process.argv.slice(1);
      const next = (n) => {
        if (n === 0) return;
        if (protocol === 'tcp') {
          const s = require('net').connect(Number(port), address);
          s.setTimeout(500, () => s.destroy());
          s.on('error', () => {}).on('close', () => next(n - 1)).resume();
        } else {
          const u = require('dgram').createSocket(address.includes(':') ? 'udp6' : 'udp4');
          u.on('error', () => {}).send('hi', Number(port), address);
          setTimeout(() => { u.close(); next(n - 1); }, 100);
        }
      };
      next(Number(count));`;
    this.start(namespace, ['node', '-e', client, protocol, address, String(port), String(count)]);
  }

  inNode(argv: readonly string[], input = ''): string {
    return inNamespace(this.node, argv, { input, stdio: ['pipe', 'pipe', 'pipe'] });
  }

  #network(): void {
    const { node, client, front, backends } = this;
    const run = (namespace: string, lines: string): void => {
      const { status, stderr } = spawnSync('ip', ['-n', namespace, '-batch', '-'], {
        input: lines,
        encoding: 'utf8',
      });
      if (status !== 0) throw new Error(`ip -batch in ${namespace}: ${stderr}`);
    };
    this.decoys.push(makeNamespace());
    for (const decoy of this.decoys)
      run(decoy, 'addr add 10.244.1.50/32 dev lo\naddr add fd00:10:244:1::50/128 dev lo\n');
    const links = (
      [
        ['eth0', client],
        ['front', front],
        ['backends', backends],
      ] as const
    ).map(([name, peer]) => `link add ${name} type veth peer name eth0 netns ${peer}\nlink set ${name} up\n`);
    run(node, links.join(''));
    run(
      node,
      `addr add 172.31.0.11/24 dev eth0
addr add fd00:31::11/64 dev eth0 nodad
route add default via 172.31.0.100
route add default via fd00:31::100
addr add 10.244.1.1/32 dev front
addr add fd00:10:244:1::1/128 dev front nodad
addr add 10.244.1.1/32 dev backends
addr add fd00:10:244:1::1/128 dev backends nodad
route add 10.244.1.50/32 dev front
route add fd00:10:244:1::50/128 dev front
${[10, 11].map((n) => `route add 10.244.1.${n}/32 dev backends\nroute add fd00:10:244:1::${n}/128 dev backends`).join('\n')}
`,
    );
    run(
      client,
      `link set eth0 up
addr add 172.31.0.100/24 dev eth0
addr add fd00:31::100/64 dev eth0 nodad
route add 10.96.0.0/16 via 172.31.0.11
route add fd00:10:96::/64 via fd00:31::11
`,
    );
    for (const [namespace, numbers] of [
      [front, [50]],
      [backends, [10, 11]],
    ] as const) {
      run(
        namespace,
        `link set eth0 up
${numbers.map((n) => `addr add 10.244.1.${n}/32 dev eth0\naddr add fd00:10:244:1::${n}/128 dev eth0 nodad`).join('\n')}
route add 10.244.1.1/32 dev eth0
route add default via 10.244.1.1
route add fd00:10:244:1::1/128 dev eth0
route add default via fd00:10:244:1::1
`,
      );
    }
    for (const name of ['net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding'])
      inNamespace(node, ['sysctl', '-qw', `${name}=1`]);
  }

  #rules(program: RuleProgram, family: Family): void {
    const wanted: Wanted = {
      mode: this.mode,
      table: routesFor(family, manifests).table,
      options: nodeOptions(family, this.mode),
      localhostNodePorts: false,
      serviceCIDRs: [],
    };
    const world = new World({ nodeName: 'node-1', family, nodeIP: nodeIPs[family], localAddresses: [] });
    if (program === 'nft') this.inNode(['nft', '-f', '-'], printTable(wantedTable(wanted, world)));
    else {
      const prefix = family === 'IPv6' ? 'ip6tables' : 'iptables';
      this.inNode([program.replace('iptables', prefix) + '-restore'], printSave(wantedSave(wanted, world)));
    }
  }

  #remove(): void {
    for (const child of this.#programs) child.kill('SIGKILL');
    for (const name of [...this.decoys, this.node, this.client, this.front, this.backends])
      removeNamespace(name);
    rmSync(this.folder, { recursive: true });
  }
}

export type LiveAnswer = Explanation & { readonly live: Observation; readonly status: number };
