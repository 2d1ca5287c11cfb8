/**
 * Userspace mode under load: connections held open, and new ones all the time, through one proxy process.
 *
 *   node --import tsx bench/userspace.ts [--seconds 120] [--hold 9800] [--rate 2000] [--report 10]
 *
 * Everything is in a network namespace of its own; endpoints, the proxy, the clients that hold and those that come and
 * go are a process each. `--hold` is limited by the number of files a process may have open: the proxy needs two for
 * each connection, those that come and go included.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { PerformanceObserver } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { PortAllocator } from '../src/dataplane/userspace/portAllocator.ts';
import { UserspaceDataplane } from '../src/dataplane/userspace/userspaceDataplane.ts';
import {
  EPOLLERR,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  changeWatch,
  forgetDescriptor,
  watchDescriptor,
  type Watcher,
} from '../src/linux/epoll.ts';
import { closeDescriptor, describeErrno, receive, send } from '../src/linux/ffi.ts';
import { EAGAIN, MSG_NOSIGNAL, acceptTcp, connectTcp, listenTcp } from '../src/linux/tcp.ts';
import { silentLogger } from '../src/log/logger.ts';
import { collectAlone, shrinkHeap } from '../src/proxy/heap.ts';
import { processSockets } from '../src/proxy/socketBudget.ts';
import type { Frontend, Route } from '../src/services/types.ts';
import { endpoint, route as routeOf } from '../test/status/support/routes.ts';
import { watchLag } from './lag.ts';

const nodeIP = '10.0.0.1';
/** So many that ports do not run out for connections that have just ended. */
const vips = Array.from({ length: 16 }, (_, i) => `10.96.0.${i + 10}`);
const endpointIPs = Array.from({ length: 8 }, (_, i) => `10.0.1.${i + 1}`);
const port = 8080;
const payload = Buffer.alloc(64, 'x');
const received = Buffer.alloc(4096);

const { values } = parseArgs({
  options: {
    role: { type: 'string', default: 'parent' },
    seconds: { type: 'string', default: '120' },
    hold: { type: 'string', default: '9800' },
    rate: { type: 'string', default: '2000' },
    report: { type: 'string', default: '10' },
  },
});
const seconds = Number(values.seconds);
const hold = Number(values.hold);
const rate = Number(values.rate);
/** Seconds between two reports. */
const reportEvery = Number(values.report);

function route(): Route {
  const endpoints = endpointIPs.map((ip) => endpoint(ip, { port, key: `${ip}:${port}` }));
  const frontends = vips.map((ip): Frontend => ({ kind: 'clusterIP', ip, port: 80, protocol: 'TCP' }));
  return routeOf('bench', endpoints, { frontends, servicePort: { clusterIP: vips[0] as string } });
}

const megabytes = (bytes: number): number => Math.round(bytes / 2 ** 20);
const say = (line: string): void => void process.stdout.write(`${line}\n`);

async function proxy(): Promise<void> {
  // As the mode does.
  collectAlone();
  const sockets = processSockets(silentLogger);
  let refused = 0;
  const dataplane = new UserspaceDataplane(
    {
      family: 'IPv4',
      masqueradeBit: 14,
      masqueradeAll: false,
      localDetector: undefined,
      nodeIP,
      nodePortAddresses: ['0.0.0.0/0'],
      syncPeriod: 30_000,
      bindAddress: '0.0.0.0',
      udpIdleTimeout: 60_000,
      checkInterval: 4000,
    },
    {
      log: {
        ...silentLogger,
        error: (message, fields) => say(`proxy: ${message} ${JSON.stringify(fields)}`),
      },
      events: { resync: (reason) => say(`proxy: ${reason}`) },
      report: ({ kind }) => {
        if (kind === 'userspaceRefused') refused++;
      },
      sockets,
      ports: new PortAllocator(undefined),
    },
  );
  await dataplane.start();
  const one = route();
  const routes = new Map([[one.port.id, one]]);
  await dataplane.sync({
    table: { family: 'IPv4', routes },
    changes: { family: 'IPv4', changes: [], udpEndpointsChanged: false, triggerTimes: [] },
    serviceCIDRs: [],
    full: true,
  });
  // As the daemon does after its first sync.
  shrinkHeap();
  const lag = watchLag(2);
  let longestCollection = 0;
  let kind = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      if (entry.duration <= longestCollection) continue;
      longestCollection = entry.duration;
      kind = (entry as unknown as { detail: { kind: number } }).detail.kind;
    }
  }).observe({ entryTypes: ['gc'] });
  let loaded = false;
  let [own, all] = [0, 0];
  const sizes: number[] = [];
  const shares: number[] = [];
  let cpu = process.cpuUsage();
  let at = performance.now();
  setInterval(() => {
    const used = process.cpuUsage(cpu);
    const wall = performance.now() - at;
    const share = ((used.user + used.system) / 1000 / wall) * 100;
    const { rss, heapUsed } = process.memoryUsage();
    say(
      `proxy: ${sockets.open} sockets, ${refused} refused, cpu ${share.toFixed(0)} %, rss ${megabytes(rss)} MB, heap ${megabytes(heapUsed)} MB, event loop held up ${lag.longest.own.toFixed(1)} ms at the longest (${lag.longest.all.toFixed(1)} ms with waiting for a CPU), longest collection ${longestCollection.toFixed(1)} ms (kind ${kind})`,
    );
    if (loaded) {
      own = Math.max(own, lag.longest.own);
      all = Math.max(all, lag.longest.all);
      sizes.push(megabytes(rss));
      shares.push(share);
    }
    loaded ||= sockets.open >= 2 * hold;
    lag.reset();
    longestCollection = 0;
    cpu = process.cpuUsage();
    at = performance.now();
  }, reportEvery * 1000);
  process.once('SIGTERM', () => {
    const mean = shares.reduce((sum, one) => sum + one, 0) / shares.length;
    say(
      `proxy, all in all: cpu ${mean.toFixed(0)} % of a core; rss ${sizes[0]} MB at the start, ${sizes[sizes.length >> 1]} MB in the middle, ${sizes.at(-1)} MB at the end; ${refused} refused; event loop held up ${own.toFixed(1)} ms at the longest (${all.toFixed(1)} ms with waiting for a CPU)`,
    );
    process.exit();
  });
  say('ready');
}

/** A socket of the load: plain system calls, so that the load takes as little as it can of the CPUs that it shares. */
abstract class LoadSocket implements Watcher {
  readonly fd: number;

  constructor(fd: number) {
    this.fd = fd;
  }

  watch(events: number): void {
    watchDescriptor(this.fd, events, this);
  }

  abstract ready(events: number): void;

  close(): void {
    forgetDescriptor(this.fd);
    closeDescriptor(this.fd);
  }
}

/** Sends everything back. */
class Echo extends LoadSocket {
  ready(): void {
    const length = receive(this.fd, received, 0);
    if (length > 0) send(this.fd, received, length, MSG_NOSIGNAL);
    else if (length !== -EAGAIN) this.close();
  }
}

function endpoints(): void {
  for (const host of endpointIPs) {
    const fd = listenTcp(host, port, 4096);
    watchDescriptor(fd, EPOLLIN, {
      ready: () => {
        for (let i = 0; i < 64; i++) {
          const client = acceptTcp(fd);
          if (client < 0) return;
          new Echo(client).watch(EPOLLIN);
        }
      },
    });
  }
  say('ready');
}

/** Connects and asks; told of the answer, and of the end if it came first. */
class Client extends LoadSocket {
  readonly begin: number;
  readonly answered: (client: Client) => void;
  readonly failed: (errno: number) => void;
  connected = 0;

  constructor(turn: number, answered: (client: Client) => void, failed: (errno: number) => void) {
    const begin = performance.now();
    super(connectTcp(vips[turn % vips.length] as string, 80));
    this.begin = begin;
    this.answered = answered;
    this.failed = failed;
  }

  ready(events: number): void {
    if ((events & EPOLLOUT) !== 0 && (events & (EPOLLERR | EPOLLHUP)) === 0) {
      this.connected = performance.now();
      changeWatch(this.fd, EPOLLIN);
      this.ask();
      return;
    }
    const length = receive(this.fd, received, 0);
    if (length > 0) this.answered(this);
    else if (length !== -EAGAIN) {
      this.close();
      this.failed(-length);
    }
  }

  ask(): void {
    send(this.fd, payload, payload.length, MSG_NOSIGNAL);
  }
}

/** Counts failures by their reason. */
class Failures {
  readonly #why = new Map<string, number>();
  all = 0;

  readonly add = (errno: number): void => {
    this.all++;
    const name = errno === 0 ? 'closed' : describeErrno(errno)[0];
    this.#why.set(name, (this.#why.get(name) ?? 0) + 1);
  };

  get text(): string {
    return this.all === 0 ? '0 failed' : `${this.all} failed (${[...this.#why].join(' ')})`;
  }
}

function tryClient(turn: number, answered: (client: Client) => void, failures: Failures): void {
  try {
    new Client(turn, answered, failures.add).watch(EPOLLOUT);
  } catch (error) {
    failures.add((error as { errno?: number }).errno ?? 0);
  }
}

function holders(): void {
  const failures = new Failures();
  const held: Client[] = [];
  let opened = 0;
  let answers = 0;
  const filling = setInterval(() => {
    for (let i = 0; i < 20 && opened < hold; i++, opened++) {
      tryClient(
        opened,
        (client) => {
          answers++;
          if (answers <= hold) held.push(client);
        },
        failures,
      );
    }
    if (held.length + failures.all < hold) return;
    clearInterval(filling);
    say(`holders: ${held.length} connections are held, ${failures.text}`);
    say('ready');
    // Every held connection talks every ten seconds.
    const begin = performance.now();
    let talked = 0;
    setInterval(() => {
      const due = Math.floor(((performance.now() - begin) / 10_000) * held.length);
      for (; talked < due; talked++) held[talked % held.length]?.ask();
    }, 10);
    setInterval(() => say(`holders: ${answers} answers, ${failures.text}`), reportEvery * 1000);
  }, 10);
}

/** Times in tenths of a millisecond, counted: 10 s at most. */
class Times {
  readonly #counts = new Uint32Array(100_001);
  count = 0;

  add(milliseconds: number): void {
    const at = Math.min(100_000, Math.round(milliseconds * 10));
    this.#counts[at] = (this.#counts[at] as number) + 1;
    this.count++;
  }

  at(share: number): string {
    let left = this.count * share;
    const found = this.#counts.findIndex((count) => (left -= count) <= 0);
    return `${(found / 10).toFixed(1)} ms`;
  }

  get text(): string {
    return `p50 ${this.at(0.5)}, p99 ${this.at(0.99)}, p99.9 ${this.at(0.999)}`;
  }
}

function passers(): void {
  const failures = new Failures();
  const all = { connect: new Times(), answer: new Times() };
  let recent = { connect: new Times(), answer: new Times() };
  let turn = 0;
  const answered = (client: Client): void => {
    const now = performance.now();
    for (const { connect, answer } of [all, recent]) {
      connect.add(client.connected - client.begin);
      answer.add(now - client.begin);
    }
    client.close();
  };
  say('ready');
  const begin = performance.now();
  let started = 0;
  setInterval(() => {
    const due = Math.floor(((performance.now() - begin) / 1000) * rate);
    // After a pause of this process, what was missed is not made up for in one burst.
    started = Math.max(started, due - Math.max(1, Math.floor(rate / 20)));
    for (; started < due; started++) tryClient(turn++, answered, failures);
  }, 2);
  setInterval(() => {
    const { connect, answer } = recent;
    say(
      `passers: ${(answer.count / reportEvery).toFixed(0)} connections/s, ${failures.text}; connect ${connect.text}; connect, ask, answer ${answer.text}`,
    );
    recent = { connect: new Times(), answer: new Times() };
  }, reportEvery * 1000);
  process.once('SIGTERM', () => {
    const each = ((performance.now() - begin) / 1000).toFixed(0);
    say(
      `passers, all in all: ${all.answer.count} connections in ${each} s, ${failures.text}; connect ${all.connect.text}; connect, ask, answer ${all.answer.text}`,
    );
    process.exit();
  });
}

function child(namespace: string, role: string): ChildProcess {
  const self = fileURLToPath(import.meta.url);
  // As the launcher starts the program.
  const flags = ['--max-semi-space-size=4', ...process.execArgv];
  const argv = ['netns', 'exec', namespace, process.execPath, ...flags, self, '--role', role];
  return spawn('ip', [...argv, '--hold', values.hold, '--rate', values.rate, '--report', values.report], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

function ready(one: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    one.once('exit', (code) =>
      reject(new Error(`a process of the bench ended early with exit code ${code}`)),
    );
    one.stdout?.setEncoding('utf8').on('data', (text: string) => {
      if (text.includes('ready\n')) resolve();
      process.stdout.write(text.replace('ready\n', ''));
    });
  });
}

async function parent(): Promise<void> {
  const namespace = `pmb-us-${process.pid}`;
  const ip = (...argv: string[]): void => void execFileSync('ip', argv);
  ip('netns', 'add', namespace);
  const children: ChildProcess[] = [];
  try {
    ip('-n', namespace, 'link', 'set', 'lo', 'up');
    for (const address of [nodeIP, ...endpointIPs])
      ip('-n', namespace, 'addr', 'add', `${address}/32`, 'dev', 'lo');
    ip('-n', namespace, 'route', 'add', 'default', 'dev', 'lo');
    // Ports and conntrack entries of connections that have ended are free again soon.
    for (const setting of [
      'net.ipv4.ip_local_port_range=1024 65535',
      'net.ipv4.tcp_tw_reuse=1',
      'net.netfilter.nf_conntrack_tcp_timeout_time_wait=2',
    ])
      ip('netns', 'exec', namespace, 'sysctl', '-qw', setting);
    for (const role of ['endpoints', 'proxy', 'holders']) {
      const one = child(namespace, role);
      children.push(one);
      await ready(one);
    }
    const load = child(namespace, 'passers');
    children.push(load);
    await ready(load);
    await sleep(seconds * 1000);
  } finally {
    for (const one of children.toReversed()) {
      one.kill();
      await sleep(300);
    }
    ip('netns', 'del', namespace);
  }
}

switch (values.role) {
  case 'proxy':
    await proxy();
    break;
  case 'endpoints':
    endpoints();
    break;
  case 'holders':
    holders();
    break;
  case 'passers':
    passers();
    break;
  default:
    await parent();
}
