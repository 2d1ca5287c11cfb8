/**
 * The mode on a real kernel. Its sockets live in the process, so the process itself has to be in the namespace: this
 * file starts itself again in one.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { connect, createServer } from 'node:net';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Family } from '../../../src/api/objects.ts';
import type { Dataplane, DataplaneReport } from '../../../src/dataplane/dataplane.ts';
import { cleanup } from '../../../src/dataplane/userspace/cleanup.ts';
import { DirectDataplane } from '../../../src/dataplane/userspace/directDataplane.ts';
import { PortAllocator } from '../../../src/dataplane/userspace/portAllocator.ts';
import { SocketBudget } from '../../../src/dataplane/userspace/socketBudget.ts';
import {
  UserspaceDataplane,
  type UserspaceOptions,
} from '../../../src/dataplane/userspace/userspaceDataplane.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import type { Route } from '../../../src/services/types.ts';
import { makeNamespace, removeNamespace } from '../../support/namespace.ts';
import { changesBetween, ipv4Options, ipv6Options, makeRoute, makeTable } from '../iptables/routes.ts';

const inside = 'POINTSMAN_TEST_INSIDE';

if (process.env[inside] === undefined) {
  test('in a namespace of its own', () => {
    const name = makeNamespace();
    try {
      const ip = (...argv: string[]): void => void execFileSync('ip', ['-n', name, ...argv]);
      ip('link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth1');
      for (const link of ['eth0', 'eth1']) ip('link', 'set', link, 'up');
      for (const address of ['192.0.2.10/24', '10.0.0.1/32', '10.0.0.2/32'])
        ip('addr', 'add', address, 'dev', 'eth0');
      for (const address of ['fd00:31::10/64', 'fd00:1::1/128'])
        ip('addr', 'add', address, 'dev', 'eth0', 'nodad');
      ip('route', 'add', 'default', 'dev', 'eth0');
      ip('-6', 'route', 'add', 'default', 'dev', 'eth0');
      const argv = [
        'netns',
        'exec',
        name,
        process.execPath,
        '--test-force-exit',
        '--import',
        'tsx',
        fileURLToPath(import.meta.url),
      ];
      const env = { ...process.env, [inside]: '1', NODE_TEST_CONTEXT: '' };
      const result = spawnSync('ip', argv, { encoding: 'utf8', timeout: 60_000, env });
      assert.equal(result.status, 0, result.stdout + result.stderr);
    } finally {
      removeNamespace(name);
    }
  });
} else {
  kernelTests();
}

const vip = { IPv4: '10.96.0.10', IPv6: 'fd00:10:96::10' } as const;
const endpointIPs = { IPv4: ['10.0.0.1', '10.0.0.2'], IPv6: ['fd00:1::1', 'fd00:1::1'] } as const;

interface World {
  readonly dataplane: Dataplane;
  readonly resyncs: string[];
  readonly reports: DataplaneReport[];
  readonly to: (routes: readonly Route[], full?: boolean) => Promise<void>;
}

function world(family: Family, direct: boolean): World {
  const options: UserspaceOptions = {
    ...(family === 'IPv4' ? ipv4Options : ipv6Options),
    bindAddress: '0.0.0.0',
    udpIdleTimeout: 30_000,
    checkInterval: 2 ** 30,
  };
  const resyncs: string[] = [];
  const reports: DataplaneReport[] = [];
  const deps = {
    log: silentLogger,
    report: (report: DataplaneReport) => void reports.push(report),
    sockets: new SocketBudget(500, silentLogger),
  };
  const events = { resync: (reason: string) => void resyncs.push(reason) };
  const dataplane = direct
    ? new DirectDataplane(options, deps)
    : new UserspaceDataplane(options, { ...deps, events, ports: new PortAllocator(undefined) });
  let table = makeTable([], family);
  return {
    dataplane,
    resyncs,
    reports,
    to: async (routes, full = false) => {
      const next = makeTable(routes, family);
      const request = { table: next, changes: changesBetween(table, next), full };
      await dataplane.sync({ ...request, serviceCIDRs: ['10.96.0.0/16', 'fd00:10:96::/112'] });
      table = next;
    },
  };
}

/** What a client is told: the server's name and its own address as the server sees it, or how it failed. */
function ask(host: string, port: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    socket.setTimeout(1500, () => {
      socket.destroy();
      resolve('timeout');
    });
    socket.on('data', (answer) => {
      socket.destroy();
      resolve(answer.toString());
    });
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'));
    socket.on('close', () => resolve('closed'));
  });
}

function askUDP(host: string, port: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
    const end = (answer: string): void => {
      clearTimeout(timer);
      socket.close();
      resolve(answer);
    };
    const timer = setTimeout(() => end('timeout'), 1500);
    socket.on('error', (error: NodeJS.ErrnoException) => end(error.code ?? 'error'));
    socket.on('message', (answer) => end(answer.toString()));
    socket.connect(port, host, () => socket.send('?'));
  });
}

function run(...argv: string[]): string {
  return execFileSync(argv[0] as string, argv.slice(1), { encoding: 'utf8' });
}

function kernelTests(): void {
  const servers = new Set<{ close(): unknown }>();
  for (const [i, host] of ['10.0.0.1', '10.0.0.2', 'fd00:1::1'].entries()) {
    const name = `pod${i}`;
    const tcp = createServer((socket) => socket.on('error', () => undefined).end(name));
    servers.add(tcp.listen(8080, host));
    const udp = createSocket(host.includes(':') ? 'udp6' : 'udp4');
    udp.on('message', (_, from) => udp.send(name, from.port, from.address));
    udp.bind(8080, host);
    servers.add(udp);
  }
  after(() => {
    for (const server of servers) server.close();
  });

  const endpoint = (family: Family, i: number): string =>
    family === 'IPv4' ? `${endpointIPs.IPv4[i]}:8080` : `[${endpointIPs.IPv6[i]}]:8080`;
  const web = (family: Family, endpoints: readonly string[], protocol: 'TCP' | 'UDP' = 'TCP'): Route =>
    makeRoute({
      name: 'ns/web',
      protocol,
      clusterIP: vip[family],
      port: 80,
      nodePort: 30080,
      endpoints,
    });

  for (const family of ['IPv4', 'IPv6'] as const) {
    for (const direct of [false, true]) {
      test(`${family}${direct ? ' without NAT' : ''}: cluster IP and node port, TCP and UDP; endpoints come and go`, async () => {
        const { dataplane, to } = world(family, direct);
        await dataplane.start();
        const node = family === 'IPv4' ? '192.0.2.10' : 'fd00:31::10';
        const localhost = family === 'IPv4' ? '127.0.0.1' : '::1';
        const one = [endpoint(family, 0)];
        await to([web(family, one), web(family, one, 'UDP')], true);
        for (const [host, port] of [
          [vip[family], 80],
          [node, 30080],
          [localhost, 30080],
        ] as const) {
          assert.match(await ask(host, port), /^pod/, `TCP ${host}`);
          if (host !== localhost) assert.match(await askUDP(host, port), /^pod/, `UDP ${host}`);
        }
        await to([web(family, []), web(family, [], 'UDP')]);
        assert.equal(await ask(vip[family], 80), 'ECONNREFUSED');
        assert.equal(await askUDP(vip[family], 80), 'ECONNREFUSED');
        await to([web(family, one), web(family, one, 'UDP')]);
        assert.match(await ask(vip[family], 80), /^pod/);
        await to([]);
        assert.doesNotMatch(await ask(vip[family], 80), /^pod/);
        await dataplane.stop();
        await cleanup({ log: silentLogger });
        assert.doesNotMatch(run('iptables-save') + run('ip6tables-save'), /KUBE-/);
        assert.doesNotMatch(run('ip', 'addr'), /10\.96\.|fd00:10:96/);
      });
    }
  }

  test('both endpoints serve; a change of endpoints alone writes no rule', async () => {
    const { dataplane, to } = world('IPv4', false);
    await dataplane.start();
    await to([web('IPv4', [endpoint('IPv4', 0)])], true);
    assert.equal(await ask(vip.IPv4, 80), 'pod0');
    const before = run('iptables-save');
    await to([web('IPv4', [endpoint('IPv4', 0), endpoint('IPv4', 1)])]);
    const strip = (text: string): string => text.replace(/^#.*$/gm, '').replace(/\[\d+:\d+\]/g, '');
    assert.equal(strip(run('iptables-save')), strip(before));
    const answers = [await ask(vip.IPv4, 80), await ask(vip.IPv4, 80)];
    assert.deepEqual(answers.sort(), ['pod0', 'pod1']);
    await dataplane.stop();
    await cleanup({ log: silentLogger });
  });

  test("our listeners' own ports are no way in", async () => {
    const { dataplane, to } = world('IPv4', false);
    await dataplane.start();
    await to([web('IPv4', [endpoint('IPv4', 0)])], true);
    const port = Number(/--to-ports (\d+)/.exec(run('iptables-save', '-t', 'nat'))?.[1]);
    assert.equal(await ask('192.0.2.10', port), 'ECONNREFUSED');
    assert.equal(await ask(vip.IPv4, 80), 'pod0');
    await dataplane.stop();
    await cleanup({ log: silentLogger });
  });

  test('an endpoint that is a frontend does not send connections in circles', async () => {
    const { dataplane, to, reports } = world('IPv4', false);
    await dataplane.start();
    await to([web('IPv4', [`${vip.IPv4}:80`])], true);
    assert.equal(await ask(vip.IPv4, 80), 'ECONNRESET');
    assert.equal(reports.filter(({ kind }) => kind === 'userspaceRefused').length, 1);
    await dataplane.stop();
    await cleanup({ log: silentLogger });
  });

  test('rules that somebody else removes are noticed and put back', async () => {
    const { dataplane, to, resyncs, reports } = world('IPv4', false);
    assert.ok(dataplane instanceof UserspaceDataplane);
    await dataplane.start();
    const routes = [web('IPv4', [endpoint('IPv4', 0)])];
    await to(routes, true);
    assert.equal(await dataplane.lookForDrift(), undefined);
    const harms: string[][] = [
      ['-t', 'nat', '-F', 'KUBE-PORTALS-HOST'],
      ['-t', 'nat', '-D', 'PREROUTING', '1'],
      ['-t', 'filter', '-F', 'INPUT'],
    ];
    for (const harm of harms) {
      run('iptables', ...harm);
      assert.notEqual(await dataplane.lookForDrift(), undefined, harm.join(' '));
      await to(routes, true);
      assert.equal(await dataplane.lookForDrift(), undefined);
      assert.equal(await ask(vip.IPv4, 80), 'pod0');
    }
    assert.equal(resyncs.length, harms.length);
    assert.equal(reports.filter(({ kind }) => kind === 'repaired').length, harms.length);
    await dataplane.stop();
    await cleanup({ log: silentLogger });
  });

  test('a restart: the rules stay and refuse, and lead to the new listeners afterwards', async () => {
    const first = world('IPv4', false);
    await first.dataplane.start();
    const routes = [web('IPv4', [endpoint('IPv4', 0)])];
    await first.to(routes, true);
    await first.dataplane.stop();
    await sleep(20);
    assert.equal(await ask(vip.IPv4, 80), 'ECONNREFUSED');
    const second = world('IPv4', false);
    await second.dataplane.start();
    await second.to(routes, true);
    assert.equal(await ask(vip.IPv4, 80), 'pod0');
    await second.dataplane.stop();
    await cleanup({ log: silentLogger });
  });
}
