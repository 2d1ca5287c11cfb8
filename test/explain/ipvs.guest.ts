/** On a kernel with IPVS: what explain reads there is what packets meet. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { runExplain } from '../../src/explain/cli.ts';
import type { Observation } from '../../src/explain/live.ts';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import type { OriginKind, Packet } from '../../src/explain/packet.ts';
import { ipvsChains } from '../../src/explain/ipvs/evaluate.ts';
import { readKernel } from '../../src/explain/sources/kernel.ts';
import { walk } from '../../src/explain/walk.ts';
import { World } from '../../src/explain/world.ts';
import { Driver, Node, ask, whyNoIpvs } from '../dataplane/ipvs/guest.ts';
import { makeRoute } from '../dataplane/iptables/routes.ts';

const clients: Readonly<Record<string, { readonly kind: OriginKind; readonly address: string }>> = {
  pod1: { kind: 'podHere', address: '10.244.1.11' },
  outside: { kind: 'outside', address: '192.0.2.2' },
  '': { kind: 'node', address: '192.0.2.10' },
};

function hasNftables(): boolean {
  return spawnSync('nft', ['-c', 'add table ip x'], { stdio: 'ignore' }).status === 0;
}

/** What the driver is told, as objects. */
const manifests = `
kind: Node
apiVersion: v1
metadata: {name: node-1}
spec: {podCIDRs: [10.244.1.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.10}]}
---
kind: Pod
apiVersion: v1
metadata: {name: pod1, namespace: shop}
spec: {nodeName: node-1}
status: {podIP: 10.244.1.11}
---
kind: Service
apiVersion: v1
metadata: {name: web, namespace: shop}
spec: {type: NodePort, clusterIP: 10.96.0.10, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: '', port: 8080}]
endpoints: [{addresses: [10.244.1.11], nodeName: node-1}, {addresses: [10.244.1.12], nodeName: node-1}]
---
kind: Service
apiVersion: v1
metadata: {name: empty, namespace: shop}
spec: {clusterIP: 10.96.0.11, ports: [{port: 80}]}
`;

describe('explain on a node in IPVS mode', { skip: whyNoIpvs(), timeout: 600_000 }, () => {
  let node: Node;
  let driver: Driver;
  const folder = makeOwnedDirectory('explain');
  before(async () => {
    node = new Node();
    driver = new Driver();
    await driver.dataplane.start();
    const both = ['10.244.1.11:8080L', '10.244.1.12:8080L'];
    await driver.to(
      [
        makeRoute({ name: 'shop/web', clusterIP: '10.96.0.10', port: 80, nodePort: 30080, endpoints: both }),
        makeRoute({ name: 'shop/empty', clusterIP: '10.96.0.11', port: 80, endpoints: [] }),
        makeRoute({
          name: 'shop/local',
          clusterIP: '10.96.0.12',
          port: 80,
          nodePort: 30082,
          externalPolicyLocal: true,
          endpoints: ['10.244.2.10:8080'],
        }),
      ],
      true,
    );
  });
  after(async () => {
    rmSync(folder, { recursive: true });
    await driver.dataplane.stop();
    node.close();
  });

  /** As `ask` would say it. */
  async function predict(from: string, address: string, port: number): Promise<string[]> {
    const kernel = await readKernel('IPv4');
    assert.equal(kernel.mode, 'ipvs');
    const { localAddresses, serviceAddresses, ipsets, routes, nodeIP } = kernel;
    const world = new World({
      nodeName: 'node-1',
      family: 'IPv4',
      nodeIP,
      localAddresses,
      serviceAddresses,
      ipsets,
      routes,
      podNetworksHere: ['10.244.1.0/24'],
    });
    const { kind, address: own } = clients[from]!;
    const local = kind === 'node' && world.isLocal(address);
    const packet: Packet = {
      family: 'IPv4',
      protocol: 'TCP',
      origin: {
        kind,
        address: local ? address : own,
        name: from,
        interface: kind === 'node' ? undefined : world.interfaceTo(own),
      },
      sourcePort: undefined,
      destination: address,
      destinationPort: port,
    };
    const { possibilities } = walk(packet, [...kernel.chains, ...ipvsChains(kernel.servers)], world);
    assert.equal(possibilities.length, 1, 'nothing is open');
    return possibilities[0]!.outcomes
      .map(({ kind: end, destination, masqueraded }) => {
        if (end !== 'endpoint') return { reject: 'refused', drop: 'silence' }[end as string] ?? end;
        const pod = node.pods.find(({ ip }) => destination.startsWith(`${ip}:`));
        return `${pod?.name} ${masqueraded ? '10.244.1.1' : own}`;
      })
      .sort();
  }

  for (const [from, address, port] of [
    ['pod1', '10.96.0.10', 80],
    ['outside', '10.96.0.10', 80],
    ['', '10.96.0.10', 80],
    ['outside', '192.0.2.10', 30080],
    ['pod1', '10.96.0.10', 81],
    ['outside', '10.96.0.10', 81],
    ['pod1', '10.96.0.11', 80],
    ['', '10.96.0.11', 80],
    ['outside', '192.0.2.10', 30082],
  ] as const) {
    it(`${from || 'the node'} to ${address}:${port}`, async () => {
      const predicted = await predict(from, address, port);
      const seconds = predicted.includes('silence') ? 4 : 30;
      const seen = [await ask(from, address, port, seconds), await ask(from, address, port, seconds)];
      assert.deepEqual([...new Set(seen)].sort(), predicted);
    });
  }

  for (const [from, to, end] of [
    ['pod/shop/pod1', 'shop/web', 'endpoints'],
    ['pod/shop/pod1', 'shop/empty', 'refused'],
    ['outside', '192.0.2.10:30080', 'endpoints'],
  ] as const) {
    it(`--live, ${from} to ${to}: what the kernel does is what was predicted`, async () => {
      const file = join(folder, 'manifests.yaml');
      writeFileSync(file, manifests);
      const args = ['--from', from, '--to', to, '-f', file, '--node', 'node-1', '--mode', 'ipvs'];
      let out = '';
      let errors = '';
      let dialled: Promise<string>[] = [];
      const code = await runExplain(
        [...args, '--cluster-cidr', '10.244.0.0/16', '--live', '--json', '--count', '2', '--seconds', '60'],
        {
          out: (text) => void (out += text),
          err: (text) => {
            errors += text;
            if (!text.startsWith('Watching')) return;
            dialled = [1, 2, 3].map(() => ask('outside', '192.0.2.10', 30080));
          },
          colour: false,
        },
      );
      await Promise.all(dialled);
      if (from !== 'outside') assert.equal(errors, '');
      const { live } = JSON.parse(out) as { live: Observation };
      assert.equal(live.connections, 2, out);
      assert.equal(live.agrees, true, JSON.stringify(live, undefined, 1));
      assert.equal(code, end === 'refused' ? 1 : 0, out);
      const ends = live.ends.map((one) => one.end).sort();
      // They take turns.
      assert.deepEqual(ends, end === 'refused' ? ['refused'] : ['10.244.1.11:8080', '10.244.1.12:8080']);
      // A kernel without nf_tables cannot trace, and that is said.
      if (!hasNftables()) {
        assert.equal(live.remarks.length, 1);
        assert.match(
          live.remarks[0]!,
          /^The kernel did not trace the packets \(it has no nftables for IPv4, or is older than Linux 5\.12\): .* taken from connection tracking/,
        );
        return;
      }
      assert.deepEqual(live.remarks, []);
      assert.ok(live.ways.length > 0);
      for (const way of live.ways) {
        assert.equal(way.agrees, true, JSON.stringify(way, undefined, 1));
        assert.match(
          way.ended,
          end === 'refused' ? /IPVS/ : /^(sent on|handed) .* → 10\.244\.1\.1[12]:8080$/,
        );
      }
    });
  }
});
