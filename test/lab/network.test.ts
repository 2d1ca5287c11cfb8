import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { after, test } from 'node:test';
import { sweepNamespaces } from '../../src/lab/net/namespaces.ts';
import { LabNetwork, type NetworkOptions, type PodPlace } from '../../src/lab/net/network.ts';
import { parseSocketAddress } from '../../src/lab/net/address.ts';
import { startEchoServer } from '../../src/lab/pod/echoServer.ts';
import { openConnection } from '../../src/lab/probe/connection.ts';

const near: PodPlace = { name: 'near', node: 'node-1', ip: '10.244.1.10' };
const same: PodPlace = { name: 'same', node: 'node-1', ip: '10.244.1.11' };
const far: PodPlace = {
  name: 'far',
  node: 'node-2',
  ip: '10.244.2.10',
  ranges: ['10.245.0.0/24', 'fd00:99::/64'],
};

async function ask(
  network: LabNetwork,
  namespace: string,
  to: string,
  protocol: 'tcp' | 'udp' = 'tcp',
): Promise<string> {
  const connection = openConnection({
    namespaces: network.namespaces,
    namespace,
    protocol,
    to: parseSocketAddress(to),
    source: undefined,
    ear: undefined,
  });
  const { outcome, greeting } = await connection.first(800);
  connection.close();
  return greeting === undefined ? outcome : `${greeting.pod} sees ${greeting.peer}`;
}

/** Asks up to twenty times: on a busy machine an answer may take longer than `ask` waits. */
async function hear(...question: Parameters<typeof ask>): Promise<string> {
  let answer = 'timeout';
  for (let tries = 0; tries < 20 && answer === 'timeout'; tries += 1) answer = await ask(...question);
  return answer;
}

async function withNetwork(
  options: NetworkOptions,
  pods: PodPlace[],
  work: (network: LabNetwork) => Promise<void>,
): Promise<void> {
  const network = new LabNetwork(options, pods);
  const servers = pods.map((pod) =>
    startEchoServer(network.namespaces, {
      name: pod.name,
      namespace: `pod-${pod.name}`,
      ports: [
        { kind: 'tcp', port: 8080 },
        { kind: 'udp', port: 8080 },
      ],
      ranges: pod.ranges ?? [],
    }),
  );
  try {
    await work(network);
  } finally {
    for (const server of servers) server.close();
    network.close();
  }
}

test('scenario network: Pods reach each other, over both families and protocols, without translation', () =>
  withNetwork({}, [near, same, far], async (network) => {
    assert.equal(await hear(network, 'pod-near', '10.244.1.11:8080'), 'same sees 10.244.1.10');
    assert.equal(await hear(network, 'pod-near', '10.244.2.10:8080', 'udp'), 'far sees 10.244.1.10');
    assert.equal(await hear(network, 'pod-near', '[fd00:10:244:2::10]:8080'), 'far sees fd00:10:244:1::10');
    assert.equal(await hear(network, 'node-1', '10.244.2.10:8080'), 'far sees 172.31.0.11');
    assert.equal(await hear(network, 'node-1', '[fd00:10:244:2::10]:8080'), 'far sees fd00:31::11');
  }));

test('scenario network: what nobody owns is lost, a closed port refuses, the client has no way to Pods', () =>
  withNetwork({}, [near], async (network) => {
    const answers = await Promise.all([
      ask(network, 'pod-near', '10.99.0.1:80'),
      ask(network, 'pod-near', '[2001:db8::1]:80', 'udp'),
      hear(network, 'client', '172.31.1.11:80'),
      hear(network, 'client', '[fd00:31:1::12]:80', 'udp'),
      hear(network, 'client', '10.244.1.10:8080'),
    ]);
    assert.deepEqual(answers, ['timeout', 'timeout', 'refused', 'refused', 'unreachable']);
  }));

test('a Pod with ranges answers from each of their addresses, under its own name and number', () =>
  withNetwork({}, [near, far], async (network) => {
    // The link-local address, which the Pod asks for its gateway with, takes a moment to appear.
    await ask(network, 'pod-near', '[fd00:10:244:2::10]:8080');
    assert.equal(await hear(network, 'pod-near', '10.245.0.77:8080'), 'far-77 sees 10.244.1.10');
    assert.equal(await hear(network, 'pod-near', '10.245.0.200:8080', 'udp'), 'far-200 sees 10.244.1.10');
    assert.equal(await hear(network, 'pod-near', '[fd00:99::5]:8080', 'udp'), 'far-5 sees fd00:10:244:1::10');
    assert.equal(await hear(network, 'node-2', '10.245.0.1:8080'), 'far-1 sees 10.244.2.1');
  }));

for (const podNetwork of ['routes', 'vxlan'] as const) {
  test(`Pods on bridges, nodes joined by ${podNetwork}; Pods come and go`, () =>
    withNetwork(
      { attachment: 'bridge', podNetwork },
      [near, same, { ...far, ranges: [] }],
      async (network) => {
        assert.equal(await hear(network, 'pod-near', '10.244.1.11:8080'), 'same sees 10.244.1.10');
        assert.equal(await hear(network, 'pod-near', '10.244.2.10:8080'), 'far sees 10.244.1.10');
        assert.equal(
          await hear(network, 'pod-near', '[fd00:10:244:2::10]:8080'),
          'far sees fd00:10:244:1::10',
        );
        const late = { name: 'late', node: 'node-2', ip: '10.244.2.99' };
        network.attachPod(late);
        const server = startEchoServer(network.namespaces, {
          name: 'late',
          namespace: 'pod-late',
          ports: [{ kind: 'tcp', port: 80 }],
        });
        // A port that has just joined a bridge forwards once the kernel has looked at its carrier: within a second.
        assert.equal(await hear(network, 'pod-near', '10.244.2.99:80'), 'late sees 10.244.1.10');
        assert.equal(network.podAt('fd00:10:244:2:0::99'), 'late');
        server.close();
        network.detachPod('late');
        assert.equal(network.podAt('10.244.2.99'), undefined);
        assert.ok(!network.namespaces.has('pod-late'));
      },
    ));
}

test("the host's own network is left as it was", async () => {
  const before = readdirSync('/sys/class/net').sort();
  await withNetwork({}, [near], () =>
    Promise.resolve(assert.deepEqual(readdirSync('/sys/class/net').sort(), before)),
  );
  assert.deepEqual(readdirSync('/sys/class/net').sort(), before);
});

/** A process that makes a network, prints the prefix of its namespaces, and waits. */
async function networkInAnotherProcess(): Promise<{ child: ChildProcess; prefix: string }> {
  const program = `
    import { LabNetwork } from '${new URL('../../src/lab/net/network.ts', import.meta.url).href}';
    const network = new LabNetwork({}, [{ name: 'p', node: 'node-1', ip: '10.244.1.10' }]);
    console.log(network.namespaces.prefix);
    setInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const [chunk] = (await once(child.stdout, 'data')) as [Buffer];
  return { child, prefix: chunk.toString().trim() };
}

const children: ChildProcess[] = [];
after(async () => {
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
});

function namespacesWith(prefix: string): string[] {
  return readdirSync('/run/netns').filter((name) => name.startsWith(prefix));
}

test('after kill -9 the next start removes namespaces and files; those of the living stay', async () => {
  const [dead, alive] = await Promise.all([networkInAnotherProcess(), networkInAnotherProcess()]);
  const directory = `/run/pointsman-lab/${dead.prefix.slice(4, -1)}`;
  assert.ok(existsSync(directory));
  dead.child.kill('SIGKILL');
  await once(dead.child, 'exit');
  assert.equal(namespacesWith(dead.prefix).length, 7);
  sweepNamespaces();
  assert.deepEqual(namespacesWith(dead.prefix), []);
  assert.ok(!existsSync(directory));
  assert.equal(namespacesWith(alive.prefix).length, 7);
});

test('an interrupted process removes its namespaces itself', async () => {
  const { child, prefix } = await networkInAnotherProcess();
  assert.equal(namespacesWith(prefix).length, 7);
  child.kill('SIGINT');
  const [code] = (await once(child, 'exit')) as [number];
  assert.equal(code, 130);
  assert.deepEqual(namespacesWith(prefix), []);
});
