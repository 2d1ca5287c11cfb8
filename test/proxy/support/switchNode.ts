/**
 * A node in network namespaces for tests that change its mode: the real program, an API server, a Pod that serves, a
 * client Pod, and traffic that goes on meanwhile. `node` is the machine, its neighbours are joined by veth pairs.
 */
import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { rmSync, symlinkSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Family } from '../../../src/api/objects.ts';
import { connect, listenOn, openClient } from '../../../src/lab/net/sockets.ts';
import {
  invalidPacketsCounter,
  localhostNodePortsCounter,
} from '../../../src/dataplane/iptables/settings.ts';
import { AccountingCounters } from '../../../src/linux/netlink/nfacct.ts';
import { makeOwnedDirectory } from '../../../src/lab/net/ownedDirectory.ts';
import { withNetworkNamespace } from '../../../src/linux/netlink/namespace.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../../support/namespace.ts';
import { TinyApiServer, type ApiObject } from './apiServer.ts';

const checkout = fileURLToPath(new URL('../../..', import.meta.url));

/** Guests are slow, one of them very: times are multiplied by this. */
const patience = { uml: 5, tcg: 25 }[process.env['POINTSMAN_VM'] ?? ''] ?? 1;

/** Milliseconds between looks at the kernel, each of which starts twenty programs: slow in the guest. */
const pollingPause = patience === 1 ? 150 : 4000;

export const serviceIP = '10.96.0.10';
export const serviceIP6 = 'fd00:10:96::10';
export const servicePort = 80;

/** One way to run the program. */
export interface Setup {
  readonly name: string;
  /** Of the configuration. */
  readonly mode: 'iptables' | 'nftables' | 'ipvs' | 'userspace';
  /** What `iptables` and its kin are; default what the machine has. */
  readonly iptables?: 'legacy' | 'unusable';
  /** Says whether its rules for the service are all there; of the text of `snapshot`. */
  readonly programmed: RegExp;
}

export const setups = {
  'iptables-nft': {
    name: 'iptables-nft',
    mode: 'iptables',
    programmed: /^nft:ip6 nat -A KUBE-SEP-.* --to-destination \[/m,
  },
  'iptables-legacy': {
    name: 'iptables-legacy',
    mode: 'iptables',
    iptables: 'legacy',
    programmed: /^legacy:ip6 nat -A KUBE-SEP-.* --to-destination \[/m,
  },
  nftables: { name: 'nftables', mode: 'nftables', programmed: /^table ip6 kube-proxy .*fd00:10:96::10/m },
  userspace: {
    name: 'userspace',
    mode: 'userspace',
    programmed: /^\w+:ip6 nat -A KUBE-PORTALS-HOST -d fd00:10:96::10\/128/m,
  },
  'userspace-without-nat': {
    name: 'userspace-without-nat',
    mode: 'userspace',
    iptables: 'unusable',
    programmed: /^address lo .*fd00:10:96::10\/128/m,
  },
  ipvs: { name: 'ipvs', mode: 'ipvs', programmed: /^address kube-ipvs0 inet6 fd00:10:96::10\/128/m },
} as const satisfies Readonly<Record<string, Setup>>;

export type SetupName = keyof typeof setups;

const families = ['iptables', 'ip6tables'] as const;

/** The program as it is shipped, and directories for PATH; made once for a test file. */
export class Program {
  readonly directory = makeOwnedDirectory('switch');

  constructor() {
    const outdir = join(this.directory, 'dist');
    execFileSync(process.execPath, ['scripts/build.mjs'], {
      cwd: checkout,
      env: { ...process.env, OUTDIR: outdir },
      stdio: 'pipe',
    });
    symlinkSync(join(checkout, 'node_modules'), join(this.directory, 'node_modules'));
    writeFileSync(join(this.directory, 'package.json'), '{"type": "module"}');
    for (const name of ['legacy', 'unusable']) {
      const directory = join(this.directory, name);
      execFileSync('mkdir', [directory]);
      for (const family of families) {
        for (const end of ['', '-save', '-restore']) {
          const path = join(directory, `${family}${end}`);
          if (name === 'legacy') symlinkSync(`/usr/sbin/${family}-legacy${end}`, path);
          else
            writeFileSync(path, '#!/bin/sh\necho "no usable NAT, for the test" >&2\nexit 3\n', {
              mode: 0o755,
            });
        }
      }
    }
  }

  get main(): string {
    return join(this.directory, 'dist/main.js');
  }

  /** PATH for a setup. */
  path(setup: Pick<Setup, 'iptables'>): string {
    const path = process.env['PATH'] ?? '';
    return setup.iptables === undefined ? path : `${join(this.directory, setup.iptables)}:${path}`;
  }

  close(): void {
    rmSync(this.directory, { recursive: true });
  }
}

/** The Service; `extra` goes into its specification. */
export function webService(extra: Readonly<Record<string, unknown>> = {}): ApiObject {
  return {
    kind: 'Service',
    metadata: { name: 'web', namespace: 'shop', uid: 'web' },
    spec: {
      type: 'LoadBalancer',
      clusterIP: serviceIP,
      clusterIPs: [serviceIP, serviceIP6],
      ipFamilies: ['IPv4', 'IPv6'],
      externalIPs: ['198.51.100.7', '2001:db8:100::7'],
      ports: [
        { name: 'tcp', protocol: 'TCP', port: servicePort, targetPort: 8080, nodePort: 30080 },
        { name: 'udp', protocol: 'UDP', port: 53, targetPort: 8053, nodePort: 30053 },
      ],
      loadBalancerSourceRanges: ['0.0.0.0/0', '::/0'],
      sessionAffinity: 'None',
      ...extra,
    },
    status: { loadBalancer: { ingress: [{ ip: '198.51.100.8' }, { ip: '2001:db8:100::8' }] } },
  };
}

/** What the kubelet and an operator have on a node; it must live through everything. */
const others = `*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
-A OUTPUT -j KUBE-FIREWALL
-A INPUT -s 203.0.113.9/32 -j DROP
COMMIT
*nat
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-DROP - [0:0]
-A POSTROUTING -s 10.9.9.9/32 -j ACCEPT
COMMIT
`;

export class SwitchNode {
  readonly node = makeNamespace();
  readonly client = makeNamespace();
  readonly pod = makeNamespace();
  readonly api: TinyApiServer;
  readonly #program: Program;
  readonly #directory = makeOwnedDirectory('node');
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();
  readonly #datagrams: Socket[] = [];
  #daemon: ChildProcess | undefined;
  log = '';

  constructor(program: Program) {
    this.#program = program;
    const batch = (namespace: string, lines: readonly string[]): void =>
      void execFileSync('ip', ['-n', namespace, '-batch', '-'], { input: lines.join('\n'), stdio: 'pipe' });
    const { node, client, pod } = this;
    batch(node, [
      `link add eth0 type veth peer name eth0 netns ${client}`,
      `link add pod0 type veth peer name eth0 netns ${pod}`,
      'addr add 10.244.2.1/24 dev eth0',
      'addr add fd00:10:244:2::1/64 dev eth0 nodad',
      'addr add 10.244.1.1/24 dev pod0',
      'addr add fd00:10:244:1::1/64 dev pod0 nodad',
      'link set eth0 up',
      'link set pod0 up',
      'route add default via 10.244.2.9',
      'route add default via fd00:10:244:2::9',
    ]);
    for (const [namespace, n] of [
      [client, 2],
      [pod, 1],
    ] as const) {
      batch(namespace, [
        `addr add 10.244.${n}.9/24 dev eth0`,
        `addr add fd00:10:244:${n}::9/64 dev eth0 nodad`,
        'link set eth0 up',
        `route add default via 10.244.${n}.1`,
        `route add default via fd00:10:244:${n}::1`,
      ]);
    }
    inNamespace(node, ['sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1']);
    for (const family of families) {
      // The lines with addresses are for IPv4.
      const input = family === 'iptables' ? others : others.replace(/-A .* -s .*\n/g, '');
      execFileSync('ip', ['netns', 'exec', node, `${family}-restore`, '--noflush'], {
        input,
        stdio: 'pipe',
      });
    }
    // Says whom it sees, then gives back what it gets.
    this.#server = net.createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      // Clients end as they like; their own side sees what matters.
      socket.on('error', () => undefined);
      socket.write(`hello ${socket.remoteAddress}\n`);
      socket.pipe(socket);
    });
    withNetworkNamespace(`/run/netns/${pod}`, () => this.#server.listen(8080));
    for (const ip of ['10.244.1.9', 'fd00:10:244:1::9']) {
      const socket = this.#udp(pod, ip, 8053);
      socket.on('message', (text, peer) =>
        socket.send(`hello ${peer.address} ${text.toString()}`, peer.port, peer.address),
      );
    }
    this.api = new TinyApiServer(node);
    this.#apply();
    writeFileSync(
      join(this.#directory, 'kubeconfig'),
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Config',
        clusters: [{ name: 'c', cluster: { server: `http://127.0.0.1:${this.api.port}` } }],
        users: [{ name: 'u', user: {} }],
        contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
        'current-context': 'x',
      }),
    );
  }

  #apply(): void {
    this.api.apply({
      kind: 'Node',
      metadata: { name: 'n1' },
      spec: {},
      status: {
        addresses: ['10.244.2.1', 'fd00:10:244:2::1'].map((address) => ({ type: 'InternalIP', address })),
      },
    });
    this.api.apply(webService());
    for (const [addressType, address] of [
      ['IPv4', '10.244.1.9'],
      ['IPv6', 'fd00:10:244:1::9'],
    ] as const) {
      this.api.apply(this.slice(addressType, address));
    }
  }

  /** The endpoints of the Service in one family. */
  slice(addressType: Family, address: string, nodeName = 'n1'): ApiObject {
    return {
      kind: 'EndpointSlice',
      metadata: {
        name: `web-${addressType.toLowerCase()}`,
        namespace: 'shop',
        uid: `web-${addressType}`,
        labels: { 'kubernetes.io/service-name': 'web' },
      },
      addressType,
      ports: [
        { name: 'tcp', protocol: 'TCP', port: 8080 },
        { name: 'udp', protocol: 'UDP', port: 8053 },
      ],
      endpoints: [
        {
          addresses: [address],
          conditions: { ready: true, serving: true, terminating: false },
          nodeName,
        },
      ],
    };
  }

  /** Starts the program, without waiting for anything. `extra`: more lines of the configuration. */
  start(setup: Setup, flags: readonly string[] = [], extra = ''): void {
    const config = join(this.#directory, `${setup.mode}.conf`);
    writeFileSync(
      config,
      `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: ${setup.mode}
hostnameOverride: n1
clientConnection: {kubeconfig: ${join(this.#directory, 'kubeconfig')}}
clusterCIDR: 10.244.0.0/16,fd00:10:244::/48
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
${extra}`,
    );
    this.#daemon = this.#spawn(setup, [
      'run',
      `--config=${config}`,
      `--socket-path=${join(this.#directory, 'pointsman.sock')}`,
      ...flags,
    ]);
  }

  /** Ends the program by the signal. */
  async stop(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const daemon = this.#daemon;
    if (daemon === undefined) return;
    this.#daemon = undefined;
    const ended = new Promise((resolve) => daemon.once('exit', resolve));
    if (daemon.exitCode !== null || daemon.signalCode !== null)
      throw new Error(`the program had ended by itself:\n${this.log}`);
    daemon.kill(signal);
    await ended;
  }

  /** `pointsman run --cleanup`; its exit code. */
  async cleanup(setup: Setup): Promise<number | null> {
    const child = this.#spawn(setup, ['run', '--cleanup']);
    return await new Promise((resolve) => child.once('exit', resolve));
  }

  /** A command of the program on the node, which asks the running daemon: its exit code and both of its streams. */
  async ask(...args: readonly string[]): Promise<{ code: number | null; text: string; errors: string }> {
    const child = this.#spawn({}, args, { POINTSMAN_SOCKET: join(this.#directory, 'pointsman.sock') });
    let [text, errors] = ['', ''];
    child.stdout?.setEncoding('utf8').on('data', (part: string) => (text += part));
    child.stderr?.on('data', (part: string) => (errors += part));
    const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
    return { code, text, errors };
  }

  #spawn(setup: Pick<Setup, 'iptables'>, args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
    const child = spawn('ip', ['netns', 'exec', this.node, process.execPath, this.#program.main, ...args], {
      cwd: checkout,
      env: { ...process.env, PATH: this.#program.path(setup), ...env },
      stdio: ['ignore', env['POINTSMAN_SOCKET'] === undefined ? 'ignore' : 'pipe', 'pipe'],
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.log += text));
    return child;
  }

  /** Everything in the kernel that modes touch, in lines that do not depend on chance, sorted. */
  async snapshot(): Promise<string> {
    const argv = ['netns', 'exec', this.node, 'bash', '-c', snapshotScript];
    const { stdout } = await promisify(execFile)('ip', argv, { encoding: 'utf8', maxBuffer: 1 << 24 });
    return stdout
      .split('\n=')
      .flatMap(normalize)
      .concat(this.#counters())
      .filter((line) => line !== '')
      .toSorted()
      .join('\n');
  }

  /** Named counters of iptables mode. */
  #counters(): string[] {
    return withNetworkNamespace(`/run/netns/${this.node}`, () => {
      const counters = new AccountingCounters();
      try {
        if (!counters.probe()) return [];
        const names = [invalidPacketsCounter, localhostNodePortsCounter];
        return names.filter((name) => counters.read(name) !== undefined).map((name) => `counter ${name}`);
      } finally {
        counters.close();
      }
    });
  }

  /** Waits until the kernel holds what is expected. Throws what is missing and what is too much. */
  async becomes(
    wanted: (snapshot: string) => string | undefined,
    milliseconds = 60_000 * patience,
  ): Promise<void> {
    const end = Date.now() + milliseconds;
    for (;;) {
      // First, too: nothing is there at once after a start.
      await sleep(pollingPause);
      const wrong = wanted(await this.snapshot());
      if (wrong === undefined) return;
      if (Date.now() > end) throw new Error(`not within ${milliseconds} ms:\n${wrong}\n${this.log}`);
    }
  }

  /** A connection to the service from a namespace. */
  connect(namespace: string, ip: string = serviceIP, port: number = servicePort): Connection {
    const to = { ip, port };
    return withNetworkNamespace(`/run/netns/${namespace}`, () => {
      const fd = openClient('tcp', to, undefined);
      return new Connection(fd, connect(fd, to));
    });
  }

  /** A UDP socket in a namespace, bound to the address; port 0 = any. */
  #udp(namespace: string, ip: string, port: number): Socket {
    const socket = createSocket(ip.includes(':') ? 'udp6' : 'udp4');
    const fd = withNetworkNamespace(`/run/netns/${namespace}`, () => listenOn('udp', { ip, port }));
    socket.bind({ fd });
    this.#datagrams.push(socket);
    return socket;
  }

  /** What the service answers to a datagram from a namespace, sent from `source`; `silence` if nothing within 2 s. */
  async askUDP(namespace: string, source: string, ip: string, port: number): Promise<string> {
    const socket = this.#udp(namespace, source, 0);
    return await new Promise((resolve) => {
      const timer = setTimeout(() => resolve('silence'), 2000);
      const end = (answer: string): void => {
        clearTimeout(timer);
        resolve(answer);
      };
      socket.on('message', (text) => end(text.toString()));
      socket.on('error', (error) => end(error.message));
      socket.send('?', port, ip);
    });
  }

  async close(): Promise<void> {
    for (const socket of this.#datagrams) socket.close();
    const daemon = this.#daemon;
    if (daemon !== undefined && daemon.exitCode === null && daemon.signalCode === null) {
      const ended = new Promise((resolve) => daemon.once('exit', resolve));
      daemon.kill('SIGKILL');
      await ended;
    }
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    this.api.close();
    for (const namespace of [this.node, this.client, this.pod]) removeNamespace(namespace);
    rmSync(this.#directory, { recursive: true });
  }
}

/**
 * Left out, because they stay by design, as with kube-proxy: route_localnet, which iptables mode sets, and the settings of
 * IPVS itself (net/ipv4/vs), which nothing else reads.
 */
const snapshotScript = `
for b in nft legacy; do for f in ip ip6; do echo "=$b:$f"; "$f"tables-$b-save 2>/dev/null; done; done
nft list tables 2>/dev/null | while read -r t f n; do case "$n" in filter|nat|mangle|raw) ;; *) echo "=table $f $n"; nft -s list table "$f" "$n";; esac; done
echo "=set"; ipset save 2>/dev/null
echo "=address"; ip -o addr | awk '{print $2, $3, $4}'
echo "=route"; ip route show table all; ip rule; ip -6 rule
echo "=sysctl"; grep -H . /proc/sys/net/ipv4/{ip_forward,conf/all/{arp_ignore,arp_announce,rp_filter}} /proc/sys/net/ipv6/conf/all/forwarding /proc/sys/net/netfilter/nf_conntrack_{max,tcp_be_liberal,tcp_timeout_established,tcp_timeout_close_wait,udp_timeout,udp_timeout_stream} 2>/dev/null
echo "=ipvs"; tail -n +4 /proc/net/ip_vs 2>/dev/null; true`;

/** The lines of one part of a snapshot, each with the part's name. */
function normalize(part: string): string[] {
  const [title = '', ...lines] = part.replace(/^=/, '').split('\n');
  if (/^(nft|legacy):/.test(title)) return normalizeRules(title, lines);
  // Elements of sets come in any order, and share lines.
  if (title.startsWith('table '))
    return [
      `${title} ${lines
        .join(' ')
        .split(/[\s,]+/)
        .toSorted()
        .join(' ')}`,
    ];
  // Link-local addresses come from hardware addresses, which are random here.
  return lines
    .filter((line) => line !== '' && !line.includes('fe80:'))
    .map((line) => `${title} ${line.trim()}`)
    .map(unchanging);
}

/** Without what the kernel draws by lot (the seed of a set) or counts (connections of a virtual server's endpoint). */
function unchanging(line: string): string {
  return line.replace(/ initval \S+/, '').replace(/^(ipvs -> .*?\d+)\s+\d+\s+\d+$/, '$1');
}

/** Of iptables-save: rules with their table, and chains that are not built in. The kubelet's firewall chain is left out. */
function normalizeRules(title: string, lines: readonly string[]): string[] {
  let table = '';
  const out: string[] = [];
  for (const line of lines) {
    if (line.startsWith('*')) table = line.slice(1);
    const chain = /^:(\S+) (\S+)/.exec(line);
    if (line.includes('KUBE-FIREWALL')) continue;
    if (chain !== null && chain[2] !== 'ACCEPT') out.push(`${title} ${table} :${chain[1]}`);
    if (line.startsWith('-A'))
      out.push(
        `${title} ${table} ${line.replace(/(--to-ports |--dport |:)(3[2-9]|[4-6]\d)\d{3}\b/, '$1PORT')}`,
      );
  }
  return out;
}

/** What is missing and what is too much; undefined if nothing. */
export function difference(actual: string, wanted: string): string | undefined {
  if (actual === wanted) return undefined;
  const [has, wants] = [actual.split('\n'), wanted.split('\n')];
  const missing = wants.filter((line) => !has.includes(line)).map((line) => `missing: ${line}`);
  const extra = has.filter((line) => !wants.includes(line)).map((line) => `left over: ${line}`);
  return [...missing, ...extra].slice(0, 40).join('\n') || 'lines are there twice';
}

/** A TCP connection, told line by line. */
export class Connection {
  readonly #socket: net.Socket | undefined;
  #text = '';
  #ended = '';
  #changed: () => void = () => undefined;

  /** `errno` of connect(2) */
  constructor(fd: number, errno: number) {
    if (errno !== 0) {
      this.#ended = `errno ${errno}`;
      return;
    }
    this.#socket = new net.Socket({ fd, readable: true, writable: true });
    this.#socket.setEncoding('utf8');
    this.#socket.on('data', (text: string) => {
      this.#text += text;
      this.#changed();
    });
    for (const event of ['error', 'close'] as const)
      this.#socket.on(event, (error?: unknown) => {
        if (this.#ended === '') this.#ended = error instanceof Error ? error.message : 'closed';
        this.#changed();
      });
  }

  /** The next line, or what went wrong: at the latest after the time. */
  async line(milliseconds = Math.max(15_000, 3000 * patience)): Promise<string> {
    const end = Date.now() + milliseconds;
    for (;;) {
      const at = this.#text.indexOf('\n');
      if (at >= 0) {
        const line = this.#text.slice(0, at);
        this.#text = this.#text.slice(at + 1);
        return line;
      }
      if (this.#ended !== '') return this.#ended;
      const left = end - Date.now();
      if (left <= 0) return 'silence';
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#changed = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  async echo(text: string): Promise<string> {
    this.#socket?.write(`${text}\n`);
    return await this.line();
  }

  close(): void {
    this.#socket?.destroy();
  }
}

/** New connections, one every few milliseconds, from the client and from the node itself, over IPv4 and IPv6. */
export class Stream {
  /** What did not work, with the number of times. */
  readonly failures = new Map<string, number>();
  count = 0;
  #going = true;
  readonly #done: Promise<unknown>;

  constructor(node: SwitchNode, pause = patience === 1 ? 15 : 200) {
    const from = { client: node.client, node: node.node };
    const clients: Promise<void>[] = [];
    for (const [who, namespace] of Object.entries(from))
      for (const ip of [serviceIP, serviceIP6]) clients.push(this.#run(node, who, namespace, ip, pause));
    this.#done = Promise.all(clients);
  }

  async #run(node: SwitchNode, who: string, namespace: string, ip: string, pause: number): Promise<void> {
    while (this.#going) {
      const connection = node.connect(namespace, ip);
      const line = await connection.line();
      connection.close();
      this.count++;
      if (!line.startsWith('hello ')) {
        const what = `${who} to ${ip}: ${line}`;
        this.failures.set(what, (this.failures.get(what) ?? 0) + 1);
      }
      await sleep(pause);
    }
  }

  async stop(): Promise<void> {
    this.#going = false;
    await this.#done;
  }
}
