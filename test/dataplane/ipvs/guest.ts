/** For tests that need IPVS in the kernel: a node with Pods and an outside client, made of namespaces of the guest. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import net from 'node:net';
import type { Family } from '../../../src/api/objects.ts';
import type { DataplaneReport } from '../../../src/dataplane/dataplane.ts';
import { applySysctls } from '../../../src/dataplane/ipvs/checks.ts';
import { IpvsDataplane, type IpvsDependencies } from '../../../src/dataplane/ipvs/ipvsDataplane.ts';
import type { IpvsOptions } from '../../../src/dataplane/ipvs/settings.ts';
import { NetlinkIpvs } from '../../../src/linux/netlink/ipvs/ipvs.ts';
import { withNetworkNamespace } from '../../../src/linux/netlink/namespace.ts';
import type { Namespaces } from '../../../src/lab/net/namespaces.ts';
import { startEchoServer, type PodPort } from '../../../src/lab/pod/echoServer.ts';
import { openConnection, type Connection } from '../../../src/lab/probe/connection.ts';
import type { Protocol } from '../../../src/lab/net/sockets.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import type { RoutingTable } from '../../../src/services/types.ts';
import { changesBetween, ipv4Options, ipv6Options, makeTable } from '../iptables/routes.ts';

/** False where IPVS can be used; else why not. In the guest its absence is no excuse. */
export function whyNoIpvs(): string | false {
  if (process.env['POINTSMAN_VM'] === undefined)
    return 'needs the guest: scripts/vm-run.sh node --import tsx --test test/dataplane/ipvs/*.test.ts';
  const ipvs = NetlinkIpvs.open();
  assert.ok(ipvs !== undefined, 'the guest has no IPVS');
  ipvs.close();
  return false;
}

export function sh(command: string): string {
  return execFileSync('bash', ['-c', command], { encoding: 'utf8', stdio: 'pipe' });
}

export interface Pod {
  readonly name: string;
  readonly ip: string;
  readonly ip6: string;
}

/** What the lab's servers and probes need of namespaces, for those made here; `''` is the node. */
export const entrances = {
  enter: <T>(namespace: string, work: () => T): T =>
    namespace === '' ? work() : withNetworkNamespace(`/run/netns/${namespace}`, work),
} as unknown as Namespaces;

/** A connection of the lab's probes; it talks to the servers of `Node.serve`. */
export function connectFrom(namespace: string, protocol: Protocol, ip: string, port: number): Connection {
  return openConnection({
    namespaces: entrances,
    namespace,
    protocol,
    to: { ip, port },
    source: undefined,
    ear: undefined,
  });
}

/** `pod1 10.244.1.1`: who answered and whom it saw; or what happened instead. */
export async function talk(namespace: string, protocol: Protocol, ip: string, port: number): Promise<string> {
  const connection = connectFrom(namespace, protocol, ip, port);
  try {
    const { outcome, greeting } = await connection.first(30_000);
    return greeting === undefined ? outcome : `${greeting.pod} ${greeting.peer}`;
  } finally {
    connection.close();
  }
}

/** The guest's own first namespace is the node. */
export class Node {
  readonly pods: readonly Pod[];
  readonly #servers: net.Server[] = [];
  readonly #echoes: ReturnType<typeof startEchoServer>[] = [];
  readonly #sockets = new Set<net.Socket>();

  constructor(pods = 2) {
    applySysctls('IPv4', false, '6.1', { log: silentLogger });
    sh(`sysctl -qw net.ipv6.conf.all.forwarding=1
      ip netns add outside
      ip link add eth0 type veth peer name eth0 netns outside
      ip addr add 192.0.2.10/24 dev eth0
      ip addr add 2001:db8::10/64 dev eth0 nodad
      ip link set eth0 up
      ip -n outside addr add 192.0.2.2/24 dev eth0
      ip -n outside addr add 2001:db8::2/64 dev eth0 nodad
      ip -n outside link set eth0 up
      ip -n outside link set lo up
      ip -n outside route add default via 192.0.2.10
      ip -n outside -6 route add default via 2001:db8::10`);
    this.pods = Array.from({ length: pods }, (_, i) => this.#pod(i + 1));
  }

  #pod(n: number): Pod {
    const pod = { name: `pod${n}`, ip: `10.244.1.${10 + n}`, ip6: `fd00:10:244:1::${10 + n}` };
    sh(`ip netns add ${pod.name}
      ip link add v${pod.name} type veth peer name eth0 netns ${pod.name}
      ip addr add 10.244.1.1/32 dev v${pod.name}
      ip addr add fd00:10:244:1::1/128 dev v${pod.name} nodad
      ip link set v${pod.name} up
      ip -n ${pod.name} addr add ${pod.ip}/32 dev eth0
      ip -n ${pod.name} addr add ${pod.ip6}/128 dev eth0 nodad
      ip -n ${pod.name} link set eth0 up
      ip -n ${pod.name} link set lo up
      ip -n ${pod.name} route add 10.244.1.1 dev eth0
      ip -n ${pod.name} route add default via 10.244.1.1
      ip -n ${pod.name} -6 route add fd00:10:244:1::1 dev eth0
      ip -n ${pod.name} -6 route add default via fd00:10:244:1::1
      ip route add ${pod.ip}/32 dev v${pod.name}
      ip -6 route add ${pod.ip6}/128 dev v${pod.name}`);
    // Says its name and whom it sees, then gives back what it gets.
    const server = net.createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      // Clients go as they like; their own side sees what matters.
      socket.on('error', () => undefined);
      socket.write(`${pod.name} ${socket.remoteAddress?.replace('::ffff:', '')}\n`);
      socket.pipe(socket);
    });
    withNetworkNamespace(`/run/netns/${pod.name}`, () => server.listen(8080));
    this.#servers.push(server);
    return pod;
  }

  /** Starts the lab's echo servers in every Pod. */
  serve(...ports: readonly PodPort[]): void {
    for (const { name } of this.pods)
      this.#echoes.push(startEchoServer(entrances, { name, namespace: name, ports }));
  }

  close(): void {
    for (const echo of this.#echoes) echo.close();
    for (const socket of this.#sockets) socket.destroy();
    for (const server of this.#servers) server.close();
  }
}

/**
 * What a client in a namespace (`''` = the node itself) gets from a new connection: the server's line, `refused` or
 * `silence`, when nothing has come for `seconds`; the fewer where nothing is to come.
 */
export async function ask(namespace: string, address: string, port: number, seconds = 30): Promise<string> {
  const words = [
    ...(namespace === '' ? [] : ['ip', 'netns', 'exec', namespace]),
    'timeout',
    String(seconds),
    'bash',
    '-c',
    `exec 3<>/dev/tcp/${address}/${port} && head -n 1 <&3`,
  ];
  const { execFile } = await import('node:child_process');
  return await new Promise((resolve) => {
    execFile(words[0]!, words.slice(1), { encoding: 'utf8' }, (error, stdout, stderr) => {
      if (stdout !== '') resolve(stdout.trim());
      else resolve(/refused/.test(stderr) ? 'refused' : error?.code === 124 ? 'silence' : stderr.trim());
    });
  });
}

/** A connection from the node that stays open. */
export class Held {
  readonly socket: net.Socket;
  readonly #lines: string[] = [];
  #wanted: ((line: string) => void) | undefined;

  constructor(address: string, port: number) {
    this.socket = net.connect(port, address);
    this.socket.setEncoding('utf8');
    this.socket.on('error', () => this.#wanted?.('error'));
    this.socket.on('data', (text: string) => {
      for (const line of text.split('\n').filter((one) => one !== '')) {
        if (this.#wanted === undefined) this.#lines.push(line);
        else this.#wanted(line);
      }
    });
  }

  async line(): Promise<string> {
    const line = this.#lines.shift();
    if (line !== undefined) return line;
    return await new Promise((resolve) => {
      const timer = setTimeout(() => resolve('silence'), 30_000);
      this.#wanted = (text) => {
        clearTimeout(timer);
        this.#wanted = undefined;
        resolve(text);
      };
    });
  }

  async echo(text: string): Promise<string> {
    this.socket.write(`${text}\n`);
    return await this.line();
  }
}

/** A dataplane and the table it was last given. */
export class Driver {
  table: RoutingTable;
  readonly dataplane: IpvsDataplane;
  readonly reports: DataplaneReport[] = [];
  readonly resyncs: string[] = [];
  readonly #family: Family;

  constructor(
    family: Family = 'IPv4',
    options: Partial<IpvsOptions> = {},
    deps: Partial<IpvsDependencies> = {},
  ) {
    this.#family = family;
    this.table = makeTable([], family);
    this.dataplane = new IpvsDataplane(
      {
        ...(family === 'IPv6' ? ipv6Options : ipv4Options),
        ...(family === 'IPv6' ? { localDetector: { kind: 'cidr', cidr: 'fd00:10:244::/48' } as const } : {}),
        scheduler: '',
        excludeCIDRs: [],
        ...options,
      },
      {
        log: silentLogger,
        report: (report) => this.reports.push(report),
        events: { resync: (reason) => this.resyncs.push(reason) },
        checkInterval: 3_600_000,
        ...deps,
      },
    );
  }

  async to(routes: Parameters<typeof makeTable>[0], full = false): Promise<{ full: boolean }> {
    const table = makeTable(routes, this.#family);
    const changes = changesBetween(this.table, table);
    this.table = table;
    return await this.dataplane.sync({ table, changes, serviceCIDRs: [], full });
  }
}

/** True if a command succeeds. */
export function succeeds(command: string): boolean {
  return spawnSync('bash', ['-c', command], { stdio: 'ignore' }).status === 0;
}
