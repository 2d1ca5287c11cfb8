/** On a kernel with IPVS: what explain reads there is what packets meet. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
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

describe('explain on a node in IPVS mode', { skip: whyNoIpvs(), timeout: 240_000 }, () => {
  let node: Node;
  let driver: Driver;
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
      const seen = [await ask(from, address, port), await ask(from, address, port)];
      assert.deepEqual([...new Set(seen)].sort(), predicted);
    });
  }
});
