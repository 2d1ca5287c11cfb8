/**
 * The mode on a real kernel. Its sockets live in the process, so the process itself has to be in the namespace: this
 * file starts itself again in one.
 */
import assert from 'node:assert/strict';
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { fileURLToPath } from 'node:url';
import type { Family } from '../../../src/api/objects.ts';
import { ConntrackReconciler } from '../../../src/conntrack/reconciler.ts';
import type { Dataplane, DataplaneReport } from '../../../src/dataplane/dataplane.ts';
import { cleanup } from '../../../src/dataplane/userspace/cleanup.ts';
import { DirectDataplane } from '../../../src/dataplane/userspace/directDataplane.ts';
import { LocalhostNodePorts } from '../../../src/dataplane/userspace/localhostNodePorts.ts';
import { PodInterfaces } from '../../../src/dataplane/userspace/podInterfaces.ts';
import { PortAllocator, type PortRange } from '../../../src/dataplane/userspace/portAllocator.ts';
import { SocketBudget } from '../../../src/dataplane/userspace/socketBudget.ts';
import {
  UserspaceDataplane,
  type UserspaceOptions,
} from '../../../src/dataplane/userspace/userspaceDataplane.ts';
import { openTcpConnections } from '../../../src/dataplane/userspace/tcpConnection.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import type { Route } from '../../../src/services/types.ts';
import { makeNamespace, removeNamespace } from '../../support/namespace.ts';
import { changesBetween, ipv4Options, ipv6Options, makeRoute, makeTable } from '../iptables/routes.ts';
import { until } from './support.ts';

const inside = 'POINTSMAN_TEST_INSIDE';

if (process.env[inside] === undefined) {
  test('in a namespace of its own', () => {
    const name = makeNamespace();
    const pod = makeNamespace();
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
      // A Pod behind an interface of its own.
      ip('link', 'add', 'pod1', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', pod);
      ip('link', 'set', 'pod1', 'up');
      ip('addr', 'add', '10.244.1.1/24', 'dev', 'pod1');
      for (const argv of [
        'link set eth0 up',
        'addr add 10.244.1.5/24 dev eth0',
        'route add default via 10.244.1.1',
      ])
        execFileSync('ip', ['-n', pod, ...argv.split(' ')]);
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
      const env = { ...process.env, [inside]: pod, NODE_TEST_CONTEXT: '' };
      const result = spawnSync('ip', argv, { encoding: 'utf8', timeout: 900_000, env });
      assert.equal(result.status, 0, result.stdout + result.stderr);
    } finally {
      removeNamespace(name);
      removeNamespace(pod);
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

/** How packets come to the listeners. */
type Form = 'iptables-nft' | 'iptables-legacy' | 'without NAT';

function world(family: Family, form: Form, more: Partial<UserspaceOptions> = {}, range?: PortRange): World {
  const options: UserspaceOptions = {
    ...(family === 'IPv4' ? ipv4Options : ipv6Options),
    bindAddress: '0.0.0.0',
    udpIdleTimeout: 30_000,
    checkInterval: 2 ** 30,
    ...more,
  };
  const resyncs: string[] = [];
  const reports: DataplaneReport[] = [];
  const deps = {
    log: silentLogger,
    events: { resync: (reason: string): void => void resyncs.push(reason) },
    report: (report: DataplaneReport) => void reports.push(report),
    sockets: new SocketBudget(500, silentLogger),
  };
  const ports = new PortAllocator(range);
  const iptables = { program: programOf(family, form) };
  const dataplane =
    form === 'without NAT'
      ? new DirectDataplane(options, deps)
      : new UserspaceDataplane(options, { ...deps, ports, iptables });
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

function programOf(family: Family, form: Form): string {
  return (family === 'IPv4' ? 'iptables' : 'ip6tables') + (form === 'iptables-legacy' ? '-legacy' : '-nft');
}

async function cleanUp(): Promise<void> {
  await cleanup({ log: silentLogger });
  const rules = ['iptables-nft', 'ip6tables-nft', 'iptables-legacy', 'ip6tables-legacy'].map((program) =>
    run(`${program}-save`),
  );
  assert.doesNotMatch(rules.join(''), /KUBE-/);
  assert.doesNotMatch(run('ip', 'addr'), /10\.96\.|fd00:10:96|198\.51\.100/);
}

/** What the Pod is told. */
async function askPod(host: string, port: number): Promise<string> {
  const script = `require('net').connect(${port}, '${host}').on('data', (d) => process.stdout.write(d)).on('error', (e) => process.stdout.write(e.code))`;
  const argv = ['netns', 'exec', process.env[inside] ?? '', process.execPath, '-e', script];
  return (await promisify(execFile)('ip', argv, { timeout: 60_000 })).stdout;
}

/** What a client is told: the server's name and its own address as the server sees it, or how it failed. */
function ask(host: string, port: number, patience = 30_000): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    socket.setTimeout(patience, () => {
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
    const timer = setTimeout(() => end('timeout'), 30_000);
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
    for (const form of ['iptables-nft', 'iptables-legacy', 'without NAT'] as const) {
      test(`${family}, ${form}: cluster IP and node port, TCP and UDP; endpoints come and go`, async () => {
        const { dataplane, to } = world(family, form);
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
          assert.match(await askUDP(host, port), /^pod/, `UDP ${host}`);
        }
        await to([web(family, []), web(family, [], 'UDP')]);
        assert.equal(await ask(vip[family], 80), 'ECONNREFUSED');
        assert.equal(await askUDP(vip[family], 80), 'ECONNREFUSED');
        await to([web(family, one), web(family, one, 'UDP')]);
        assert.match(await ask(vip[family], 80), /^pod/);
        await to([]);
        assert.doesNotMatch(await ask(vip[family], 80, 1500), /^pod/);
        await dataplane.stop();
        await cleanUp();
      });
    }
  }

  for (const family of ['IPv4', 'IPv6'] as const) {
    for (const form of ['iptables-nft', 'iptables-legacy', 'without NAT'] as const) {
      test(`${family}, ${form}: with localhostNodePorts false, node ports leave loopback alone`, async () => {
        const { dataplane, to } = world(family, form, { localhostNodePorts: false });
        await dataplane.start();
        const node = family === 'IPv4' ? '192.0.2.10' : 'fd00:31::10';
        const localhost = family === 'IPv4' ? '127.0.0.1' : '::1';
        const routes = (endpoints: readonly string[]): Route[] => [
          web(family, endpoints),
          web(family, endpoints, 'UDP'),
        ];
        await to(routes([endpoint(family, 0)]), true);
        assert.match(await ask(node, 30080), /^pod/);
        assert.match(await askUDP(node, 30080), /^pod/);
        assert.equal(await ask(localhost, 30080), 'ECONNREFUSED');
        assert.equal(await askUDP(localhost, 30080), 'ECONNREFUSED');
        if (dataplane instanceof UserspaceDataplane) assert.equal(await dataplane.lookForDrift(), undefined);
        // A program of the node that has the port there is reached, whatever the Service has.
        const own = createServer((socket) => socket.on('error', () => undefined).end('own'));
        await once(own.listen(30080, localhost), 'listening');
        assert.equal(await ask(localhost, 30080), 'own');
        await to(routes([]));
        assert.equal(await ask(localhost, 30080), 'own');
        assert.equal(await ask(node, 30080), 'ECONNREFUSED');
        await to(routes([endpoint(family, 0)]));
        assert.equal(await ask(localhost, 30080), 'own');
        assert.match(await ask(node, 30080), /^pod/);
        own.close();
        await dataplane.stop();
        await cleanUp();
      });
    }
  }

  test('both endpoints serve; a change of endpoints alone writes no rule', async () => {
    const { dataplane, to } = world('IPv4', 'iptables-nft');
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
    await cleanUp();
  });

  test("our listeners' own ports are no way in", async () => {
    const { dataplane, to } = world('IPv4', 'iptables-nft');
    await dataplane.start();
    await to([web('IPv4', [endpoint('IPv4', 0)])], true);
    const port = Number(/--to-ports (\d+)/.exec(run('iptables-save', '-t', 'nat'))?.[1]);
    assert.equal(await ask('192.0.2.10', port), 'ECONNREFUSED');
    assert.equal(await ask(vip.IPv4, 80), 'pod0');
    await dataplane.stop();
    await cleanUp();
  });

  test('an endpoint that is a frontend does not send connections in circles', async () => {
    const { dataplane, to, reports } = world('IPv4', 'iptables-nft');
    await dataplane.start();
    await to([web('IPv4', [`${vip.IPv4}:80`])], true);
    assert.equal(await ask(vip.IPv4, 80), 'ECONNRESET');
    assert.equal(reports.filter(({ kind }) => kind === 'userspaceRefused').length, 1);
    await dataplane.stop();
    await cleanUp();
  });

  test('rules that somebody else removes are noticed and put back', async () => {
    const { dataplane, to, resyncs, reports } = world('IPv4', 'iptables-nft');
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
    await cleanUp();
  });

  test('a restart: the rules stay and refuse, and lead to the new listeners afterwards', async () => {
    const first = world('IPv4', 'iptables-nft');
    await first.dataplane.start();
    const routes = [web('IPv4', [endpoint('IPv4', 0)])];
    await first.to(routes, true);
    await first.dataplane.stop();
    await sleep(20);
    assert.equal(await ask(vip.IPv4, 80), 'ECONNREFUSED');
    const second = world('IPv4', 'iptables-nft');
    await second.dataplane.start();
    await second.to(routes, true);
    assert.equal(await ask(vip.IPv4, 80), 'pod0');
    await second.dataplane.stop();
    await cleanUp();
  });

  test('what a process that was killed has left is taken over by the next, or cleaned up', async () => {
    for (const form of ['iptables-nft', 'without NAT'] as const) {
      const lost = makeRoute({
        name: 'ns/lost',
        clusterIP: '10.96.0.77',
        port: 80,
        loadBalancerIPs: ['198.51.100.7'],
        endpoints: [endpoint('IPv4', 0)],
      });
      // Its process would be gone: what it has put into the kernel is not taken away by a stop.
      const killed = world('IPv4', form);
      await killed.dataplane.start();
      await killed.to([web('IPv4', [endpoint('IPv4', 0)]), lost], true);
      assert.ok(
        killed.dataplane instanceof UserspaceDataplane || killed.dataplane instanceof DirectDataplane,
      );
      killed.dataplane.drain();
      assert.equal(await ask('198.51.100.7', 80), 'ECONNREFUSED', form);
      const next = world('IPv4', form);
      await next.dataplane.start();
      await next.to([web('IPv4', [endpoint('IPv4', 0)])], true);
      assert.equal(await ask(vip.IPv4, 80), 'pod0');
      assert.doesNotMatch(run('ip', 'addr') + run('iptables-save'), /198\.51\.100\.7|10\.96\.0\.77/);
      assert.ok(next.dataplane instanceof UserspaceDataplane || next.dataplane instanceof DirectDataplane);
      next.dataplane.drain();
      assert.match(run('ip', 'addr') + run('iptables-save'), /10\.96\.0\.10/);
      await cleanUp();
      await killed.dataplane.stop();
      await next.dataplane.stop();
    }
  });

  test('a UDP client whose endpoint stays keeps its flow when another endpoint leaves', async () => {
    for (const form of ['iptables-nft', 'without NAT'] as const) {
      const { dataplane, to } = world('IPv4', form);
      assert.ok(dataplane instanceof UserspaceDataplane || dataplane instanceof DirectDataplane);
      await dataplane.start();
      // The kernel keeps track of connections where somebody asks for it.
      const tracking = ['OUTPUT', '-m', 'conntrack', '--ctstate', 'INVALID', '-j', 'DROP'];
      run('iptables-nft', '-A', ...tracking);
      const both = web('IPv4', [endpoint('IPv4', 0), endpoint('IPv4', 1)], 'UDP');
      await to([both], true);
      assert.match(await askUDP(vip.IPv4, 80), /^pod/);
      const one = web('IPv4', [endpoint('IPv4', 0)], 'UDP');
      await to([one]);
      assert.match(await askUDP(vip.IPv4, 80), /^pod/);
      const clean = async (relays?: (id: string, port: number) => boolean): Promise<number> => {
        const conntrack = new ConntrackReconciler({
          family: 'IPv4',
          log: silentLogger,
          onMetrics: () => undefined,
        });
        const table = makeTable([one]);
        const { deleted } = await conntrack.afterSync({
          table,
          changes: changesBetween(table, table),
          serviceCIDRs: ['10.96.0.0/16'],
          localAddresses: ['192.0.2.10'],
          restart: true,
          relays,
        });
        conntrack.close();
        return deleted;
      };
      assert.equal(await clean((id, port) => dataplane.relays(id, port)), 0, form);
      assert.ok((await clean()) > 0, `${form}: there were flows`);
      run('iptables-nft', '-D', ...tracking);
      await dataplane.stop();
      await cleanUp();
    }
  });

  test('a planned end: new connections are refused, open ones go on', async () => {
    const { dataplane, to } = world('IPv4', 'iptables-nft');
    assert.ok(dataplane instanceof UserspaceDataplane);
    await dataplane.start();
    const echo = createServer((socket) => void socket.on('error', () => undefined).pipe(socket)).listen(
      8081,
      '10.0.0.1',
    );
    await to([web('IPv4', ['10.0.0.1:8081'])], true);
    const client = connect({ host: vip.IPv4, port: 80 });
    const answer = (): Promise<string> =>
      new Promise((resolve) => client.once('data', (bytes) => resolve(bytes.toString())));
    client.write('one');
    assert.equal(await answer(), 'one');
    // Those of the tests before have ended or are about to.
    await until(() => openTcpConnections() === 1, 'no other connection');
    dataplane.drain();
    assert.equal(await ask(vip.IPv4, 80), 'ECONNREFUSED');
    client.write('two');
    assert.equal(await answer(), 'two');
    client.end();
    await until(() => openTcpConnections() === 0, 'its end');
    await dataplane.stop();
    await cleanUp();
    echo.close();
  });

  test('a planned end during a sync: what the sync opens takes no connections', async () => {
    for (const form of ['iptables-nft', 'without NAT'] as const) {
      const { dataplane, to } = world('IPv4', form);
      assert.ok(dataplane instanceof UserspaceDataplane || dataplane instanceof DirectDataplane);
      await dataplane.start();
      const syncing = to([web('IPv4', [endpoint('IPv4', 0)])], true);
      dataplane.drain();
      await syncing;
      assert.equal(await ask(vip.IPv4, 80), 'ECONNREFUSED', form);
      await dataplane.stop();
      await cleanUp();
    }
  });

  test('one address to listen on, ports from a range; a service port too many is refused until there is room', async () => {
    const bound = '192.0.2.10';
    const { dataplane, to } = world(
      'IPv4',
      'iptables-nft',
      { bindAddress: bound },
      { first: 700, last: 701 },
    );
    await dataplane.start();
    const other = (n: number): Route =>
      makeRoute({
        name: `ns/s${n}`,
        clusterIP: `10.96.0.${100 + n}`,
        port: 80,
        endpoints: [endpoint('IPv4', 0)],
      });
    const first = web('IPv4', [endpoint('IPv4', 0)]);
    await to([first, other(1), other(2)], true);
    const listening = run('ss', '-Hltn')
      .split('\n')
      .filter((line) => /:70[01] /.test(line));
    assert.equal(listening.length, 2);
    assert.ok(
      listening.every((line) => line.includes(` ${bound}:`)),
      listening.join('\n'),
    );
    for (const [host, port] of [
      [vip.IPv4, 80],
      [bound, 30080],
      ['127.0.0.1', 30080],
    ] as const)
      assert.equal(await ask(host, port), 'pod0', host);
    assert.equal(await askPod(vip.IPv4, 80), 'pod0');
    const others = [await ask('10.96.0.101', 80), await ask('10.96.0.102', 80)];
    assert.deepEqual(others.sort(), ['ECONNREFUSED', 'pod0'], 'one of them, whichever was slower');
    await to([first]);
    await to([first, other(2)]);
    assert.equal(await ask('10.96.0.102', 80), 'pod0');
    await dataplane.stop();
    await cleanUp();
  });

  test('node ports on localhost for other modes, TCP and UDP over both families', async () => {
    for (const [family, host] of [
      ['IPv4', '127.0.0.1'],
      ['IPv6', '::1'],
    ] as const) {
      const sockets = new SocketBudget(100, silentLogger);
      const options = { family, log: silentLogger, sockets, report: () => undefined, udpIdleTimeout: 60_000 };
      const ports = new LocalhostNodePorts(options);
      const one = [endpoint(family, 0)];
      await ports.applyAll(makeTable([web(family, one), web(family, one, 'UDP')], family).routes);
      assert.match(await ask(host, 30080), /^pod/);
      assert.match(await askUDP(host, 30080), /^pod/);
      ports.close();
      assert.equal(sockets.open, 0);
    }
  });

  test('without NAT: addresses of the node that come and go are taken up; service addresses that go are put back', async () => {
    const { dataplane, to, resyncs, reports } = world('IPv4', 'without NAT');
    await dataplane.start();
    const routes = [web('IPv4', [endpoint('IPv4', 0)])];
    await to(routes, true);
    assert.equal(resyncs.length, 0, 'its own addresses are no news');
    run('ip', 'addr', 'add', '192.0.2.11/32', 'dev', 'eth0');
    await until(() => resyncs.length >= 1, 'a new address to be seen');
    assert.match(resyncs[0] ?? '', /addresses of this node changed/);
    await to(routes, true);
    assert.equal(await ask('192.0.2.11', 30080), 'pod0');
    run('ip', 'addr', 'del', '192.0.2.11/32', 'dev', 'eth0');
    await until(() => resyncs.length >= 2, 'an address that went to be seen');
    await to(routes, true);
    run('ip', 'addr', 'del', `${vip.IPv4}/32`, 'dev', 'lo');
    await until(() => reports.some(({ kind }) => kind === 'repaired'), 'the repair');
    assert.equal(await ask(vip.IPv4, 80), 'pod0');
    await dataplane.stop();
    await cleanUp();
  });

  test('without NAT: service addresses that the kernel does not take back are no end of the proxy', async () => {
    const { dataplane, to, reports } = world('IPv6', 'without NAT');
    await dataplane.start();
    await to([web('IPv6', [endpoint('IPv6', 0)])], true);
    const setting = 'net.ipv6.conf.lo.disable_ipv6';
    run('sysctl', '-qw', `${setting}=1`);
    await until(() => reports.some(({ kind }) => kind === 'changedByOthers'), 'the change to be seen');
    assert.ok(!reports.some(({ kind }) => kind === 'repaired'));
    run('sysctl', '-qw', `${setting}=0`);
    await dataplane.stop();
    await cleanUp();
  });

  test('without NAT: an address that cannot be one of the node costs itself alone', async () => {
    const { dataplane, to } = world('IPv6', 'without NAT');
    await dataplane.start();
    const service = (name: string, clusterIP: string, externalIPs: string[]): Route =>
      makeRoute({ name, clusterIP, externalIPs, port: 80, endpoints: [endpoint('IPv6', 0)] });
    const other = 'fd00:10:96::11';
    await to([service('ns/odd', other, ['ff0e::1']), service('ns/web', vip.IPv6, [])], true);
    assert.equal(await ask(other, 80), 'pod2');
    assert.equal(await ask(vip.IPv6, 80), 'pod2');
    await dataplane.stop();
    await cleanUp();
  });

  test('interfaces of Pods: by the way to an address, or by the interface it names', () => {
    const pods = new PodInterfaces({ kind: 'interface', name: 'pod1' });
    const answers = [
      '10.244.1.5',
      '10.244.1.77',
      '192.0.2.77',
      '127.0.0.1',
      'fd00:31::77',
      '',
      'fe80::1%pod1',
      'fe80::1%eth0',
    ];
    assert.deepEqual(
      answers.map((address) => pods.leadTo(address)),
      [true, true, false, false, false, false, true, false],
    );
    run('ip', 'route', 'add', 'unreachable', '10.99.0.0/16');
    assert.equal(pods.leadTo('10.99.0.1'), false);
    run('ip', 'route', 'add', '192.0.2.77/32', 'dev', 'pod1');
    assert.equal(pods.leadTo('192.0.2.77'), false, 'remembered');
    pods.forget();
    assert.equal(pods.leadTo('192.0.2.77'), true);
    run('ip', 'route', 'del', '192.0.2.77/32', 'dev', 'pod1');
    run('ip', 'route', 'del', 'unreachable', '10.99.0.0/16');
    pods.close();
  });

  test('without NAT: Pods are told by their interface; others meet the external policy', async () => {
    const local = makeRoute({
      name: 'ns/web',
      clusterIP: vip.IPv4,
      port: 80,
      nodePort: 30080,
      externalPolicyLocal: true,
      endpoints: [endpoint('IPv4', 0)],
    });
    for (const [prefix, answer] of [
      ['pod', 'pod0'],
      ['cali', 'ECONNRESET'],
    ] as const) {
      const detector = { kind: 'interfacePrefix', prefix } as const;
      const { dataplane, to } = world('IPv4', 'without NAT', { localDetector: detector });
      await dataplane.start();
      await to([local], true);
      assert.equal(await askPod('10.244.1.1', 30080), answer, prefix);
      assert.equal(await askPod(vip.IPv4, 80), 'pod0', 'a cluster IP is for all');
      await dataplane.stop();
      await cleanUp();
    }
  });
}
