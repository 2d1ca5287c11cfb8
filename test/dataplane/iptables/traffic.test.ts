/** Connections that never stop while rules change: none of them may fail. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import type { Route } from '../../../src/services/types.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../../support/namespace.ts';
import { wholeDocument } from '../../../src/dataplane/iptables/document.ts';
import { nodePortTail } from '../../../src/dataplane/iptables/staticRules.ts';
import { Driver, World, backends } from './harness.ts';
import { makeRoute, makeSettings, makeTable } from './routes.ts';

/** A server on each endpoint, which answers with its own address. */
const server = `
const net = require('node:net');
const servers = ['10.244.1.1', '10.244.1.2'].map((host) =>
  net.createServer((socket) => { socket.on('error', () => socket.destroy()); socket.end(host); }).listen(8080, host));
Promise.all(servers.map((one) => new Promise((r) => one.on('listening', r)))).then(() => console.log('ready'));
process.stdin.on('end', () => process.exit(0)).resume();
`;

/** Connects to the service all the time, four at once; says how it went when its input ends. */
const client = `
const net = require('node:net');
const seen = {};
let stopping = false, going = 0;
function connect() {
  if (stopping) return;
  going++;
  const socket = net.connect({ host: '10.96.0.1', port: 80, timeout: 900 });
  let text = '', over = false;
  const done = (outcome) => {
    if (over) return;
    over = true;
    socket.destroy();
    going--;
    seen[outcome] = (seen[outcome] || 0) + 1;
    setTimeout(connect, 10);
  };
  // The kernel alone makes a connection: where that takes long, a packet was lost. The server may be slow.
  socket.on('connect', () => socket.setTimeout(0));
  socket.on('data', (data) => { text += data; });
  socket.on('close', () => done(text || 'closed'));
  socket.on('error', (error) => done(error.code));
  socket.on('timeout', () => done('timeout'));
}
for (let i = 0; i < 4; i++) connect();
console.log('ready');
process.stdin.on('end', () => {
  stopping = true;
  const wait = () => going > 0 ? setTimeout(wait, 10) : (console.log(JSON.stringify(seen)), process.exit(0));
  wait();
}).resume();
`;

class Program {
  readonly #child: ChildProcess;
  #output = '';

  private constructor(namespace: string, text: string) {
    this.#child = spawn('ip', ['netns', 'exec', namespace, process.execPath, '-e', text], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#child.stdout?.on('data', (data: Buffer) => {
      this.#output += String(data);
    });
  }

  static async start(namespace: string, text: string): Promise<Program> {
    const program = new Program(namespace, text);
    while (!program.#output.includes('ready')) await new Promise((resolve) => setTimeout(resolve, 10));
    return program;
  }

  /** Ends it; answers how many connections ended how. */
  async stop(): Promise<Record<string, number>> {
    const closed = once(this.#child, 'close');
    this.#child.stdin?.end();
    await closed;
    return JSON.parse(this.#output.split('\n')[1] || '{}') as Record<string, number>;
  }
}

/** The endpoints are addresses of the node; the client is one hop away, and reaches the service through the node. */
class Network {
  readonly world: World;
  readonly outside = makeNamespace();

  constructor(world: World) {
    this.world = world;
    for (const ip of ['10.244.1.1', '10.244.1.2']) world.run(['ip', 'addr', 'add', `${ip}/32`, 'dev', 'lo']);
    world.run(['ip', 'link', 'add', 'out', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', this.outside]);
    world.run(['ip', 'addr', 'add', '10.99.0.1/24', 'dev', 'out']);
    world.run(['ip', 'link', 'set', 'out', 'up']);
    inNamespace(this.outside, ['ip', 'addr', 'add', '10.99.0.2/24', 'dev', 'eth0']);
    inNamespace(this.outside, ['ip', 'link', 'set', 'eth0', 'up']);
    inNamespace(this.outside, ['ip', 'route', 'add', 'default', 'via', '10.99.0.1']);
    // What nobody translates is lost, as in a real network: 10.99.0.9 does not exist.
    world.run(['ip', 'route', 'add', 'default', 'via', '10.99.0.9']);
    world.run(['sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv4.icmp_ratelimit=0']);
  }

  close(): void {
    removeNamespace(this.outside);
    this.world.close();
  }
}

function web(...ips: string[]): Route {
  return makeRoute({
    name: 'ns/web',
    portName: 'http',
    clusterIP: '10.96.0.1',
    port: 80,
    endpoints: ips.map((ip) => `${ip}:8080L`),
  });
}

function other(n: number): Route {
  return makeRoute({
    name: `ns/other-${n}`,
    clusterIP: `10.96.1.${n}`,
    port: 80,
    endpoints: [`10.244.9.${n}:80`],
  });
}

for (const backend of backends) {
  test(`${backend}: no connection fails while endpoints come and go, syncs fail, and the proxy restarts`, async () => {
    const network = new Network(new World(backend));
    const { world } = network;
    try {
      const servers = await Program.start(world.namespace, server);
      const bad = makeRoute({
        name: 'ns/bad',
        clusterIP: '10.96.0.999',
        port: 80,
        endpoints: ['10.244.9.9:80'],
      });
      let dataplane = world.dataplane();
      await dataplane.start();
      let driver = new Driver(dataplane);
      await driver.to(makeTable([web('10.244.1.1')]));
      const clients = [
        await Program.start(world.namespace, client),
        await Program.start(network.outside, client),
      ];
      for (let round = 0; round < 6; round++) {
        await driver.to(makeTable([web('10.244.1.1', '10.244.1.2'), other(round + 1)]));
        await driver.to(makeTable([web('10.244.1.2')]));
        await driver.to(makeTable([web('10.244.1.2'), other(9)]), true);
        await assert.rejects(driver.to(makeTable([web('10.244.1.2'), bad])));
        await driver.to(makeTable([web('10.244.1.1')]));
        // Another run of the program starts over what this one left.
        await dataplane.stop();
        dataplane = world.dataplane();
        await dataplane.start();
        driver = new Driver(dataplane);
        await driver.to(makeTable([web('10.244.1.1'), other(round + 20)]));
      }
      await dataplane.stop();
      for (const outcomes of await Promise.all(clients.map(async (one) => await one.stop()))) {
        assert.deepEqual(
          Object.keys(outcomes).sort(),
          ['10.244.1.1', '10.244.1.2'],
          JSON.stringify(outcomes),
        );
        for (const count of Object.values(outcomes)) assert.ok(count > 2, JSON.stringify(outcomes));
      }
      await servers.stop();
    } finally {
      network.close();
    }
  });

  test(`${backend}: a service between no endpoint and one: answered or refused, never lost in silence`, async () => {
    const network = new Network(new World(backend));
    const { world } = network;
    try {
      const servers = await Program.start(world.namespace, server);
      const dataplane = world.dataplane();
      await dataplane.start();
      const driver = new Driver(dataplane);
      await driver.to(makeTable([web()]));
      const outside = await Program.start(network.outside, client);
      for (let round = 0; round < 12; round++) {
        await driver.to(makeTable([web('10.244.1.1')]));
        await new Promise((resolve) => setTimeout(resolve, 30));
        await driver.to(makeTable([web()]));
        await new Promise((resolve) => setTimeout(resolve, 30));
      }
      await dataplane.stop();
      const outcomes = await outside.stop();
      assert.deepEqual(
        Object.keys(outcomes).sort(),
        ['10.244.1.1', 'ECONNREFUSED'],
        JSON.stringify(outcomes),
      );
      await servers.stop();
    } finally {
      network.close();
    }
  });

  test(`${backend}: kube-proxy started over our rules, and we over its: no connection fails`, async () => {
    const network = new Network(new World(backend));
    const { world } = network;
    try {
      const servers = await Program.start(world.namespace, server);
      // What kube-proxy writes at a start, checked line by line elsewhere: every chain it wants emptied and filled.
      const settings = makeSettings();
      const kubeProxy = (routes: Route[], start = false): void => {
        const text = wholeDocument(routes, settings, nodePortTail(settings, []).rules, { start });
        // Without the counters, which would have to be made first.
        const plain = text.replaceAll(/ -m nfacct --nfacct-name \w+/g, '');
        world.run([`${world.program}-restore`, '-w', '5', '--noflush', '--counters'], plain);
      };
      const both = web('10.244.1.1', '10.244.1.2');
      kubeProxy([both, other(1)], true);
      const clients = [
        await Program.start(world.namespace, client),
        await Program.start(network.outside, client),
      ];
      for (let round = 0; round < 5; round++) {
        const dataplane = world.dataplane();
        await dataplane.start();
        await new Driver(dataplane).to(makeTable([both, other(1)]));
        await dataplane.stop();
        kubeProxy([both, other(1)]);
      }
      for (const outcomes of await Promise.all(clients.map(async (one) => await one.stop()))) {
        assert.deepEqual(
          Object.keys(outcomes).sort(),
          ['10.244.1.1', '10.244.1.2'],
          JSON.stringify(outcomes),
        );
      }
      await servers.stop();
    } finally {
      network.close();
    }
  });
}
