/**
 * Userspace mode under load: connections held open, and new ones all the time, through one proxy process.
 *
 *   node --import tsx bench/userspace.ts [--seconds 120] [--hold 8500] [--rate 2000]
 *
 * Everything is in a network namespace of its own; clients, endpoints and the proxy are a process each. `--hold` is
 * limited by the number of files a process may have open: the proxy needs two for each connection.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { connect, createServer, type Socket } from 'node:net';
import { readFileSync } from 'node:fs';
import { PerformanceObserver } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { PortAllocator } from '../src/dataplane/userspace/portAllocator.ts';
import { SocketBudget, socketLimit } from '../src/dataplane/userspace/socketBudget.ts';
import { UserspaceDataplane } from '../src/dataplane/userspace/userspaceDataplane.ts';
import { silentLogger } from '../src/log/logger.ts';
import type { Endpoint, Route } from '../src/services/types.ts';

const nodeIP = '10.0.0.1';
/** So many that ports do not run out for connections that have just ended. */
const vips = Array.from({ length: 16 }, (_, i) => `10.96.0.${i + 10}`);
const endpointIPs = Array.from({ length: 8 }, (_, i) => `10.0.1.${i + 1}`);
const port = 8080;
const payload = Buffer.alloc(64, 'x');

const { values } = parseArgs({
  options: {
    role: { type: 'string', default: 'parent' },
    seconds: { type: 'string', default: '120' },
    hold: { type: 'string', default: '8500' },
    rate: { type: 'string', default: '2000' },
  },
});
const seconds = Number(values.seconds);
const hold = Number(values.hold);
const rate = Number(values.rate);

function route(): Route {
  const endpoints = endpointIPs.map((ip): Endpoint => ({
    ip,
    port,
    key: `${ip}:${port}`,
    ready: true,
    serving: true,
    terminating: false,
    isLocal: false,
    nodeName: '',
    zone: '',
    pod: '',
  }));
  return {
    port: {
      id: 'default/bench:/TCP',
      namespace: 'default',
      service: 'bench',
      portName: '',
      protocol: 'TCP',
      family: 'IPv4',
      name: 'default/bench',
      clusterIP: vips[0] as string,
      port: 80,
      nodePort: 0,
      externalIPs: [],
      loadBalancerIPs: [],
      sourceRanges: [],
      affinitySeconds: 0,
      internalPolicyLocal: false,
      externalPolicyLocal: false,
      healthCheckNodePort: 0,
      creationTimestamp: 0,
    },
    frontends: vips.map((ip) => ({ kind: 'clusterIP', ip, port: 80, protocol: 'TCP' })),
    lostFrontends: [],
    internal: 'cluster',
    external: 'cluster',
    cluster: endpoints,
    local: [],
    reachable: endpoints,
    endpoints,
    hasAny: true,
    hasExternal: false,
  };
}

const megabytes = (bytes: number): number => Math.round(bytes / 2 ** 20);
const say = (line: string): void => void process.stdout.write(`${line}\n`);

/** Nanoseconds that this thread was ready to run while others had the CPU (Documentation/scheduler/sched-stats). */
function waitedForCpu(): number {
  return Number(readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ')[1]);
}

/** The longest time, in milliseconds, between two turns of a timer of 2 ms: in all, and without waiting for a CPU. */
function watchLag(): { own: number; all: number } {
  const lag = { own: 0, all: 0 };
  let at = performance.now();
  let waited = waitedForCpu();
  setInterval(() => {
    const now = performance.now();
    const nowWaited = waitedForCpu();
    const late = now - at - 2;
    lag.all = Math.max(lag.all, late);
    lag.own = Math.max(lag.own, late - (nowWaited - waited) / 1e6);
    at = now;
    waited = nowWaited;
  }, 2);
  return lag;
}

async function proxy(): Promise<void> {
  // As the mode does.
  setFlagsFromString('--no-parallel-scavenge');
  const sockets = new SocketBudget(socketLimit(), silentLogger);
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
  const lag = watchLag();
  let longestCollection = 0;
  let kind = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      if (entry.duration <= longestCollection) continue;
      longestCollection = entry.duration;
      kind = (entry as unknown as { detail: { kind: number } }).detail.kind;
    }
  }).observe({ entryTypes: ['gc'] });
  let cpu = process.cpuUsage();
  let at = performance.now();
  setInterval(() => {
    const used = process.cpuUsage(cpu);
    const wall = performance.now() - at;
    const share = ((used.user + used.system) / 1000 / wall) * 100;
    const { rss, heapUsed } = process.memoryUsage();
    say(
      `proxy: ${sockets.open} sockets, ${refused} refused, cpu ${share.toFixed(0)} %, rss ${megabytes(rss)} MB, heap ${megabytes(heapUsed)} MB, event loop held up ${lag.own.toFixed(1)} ms at the longest (${lag.all.toFixed(1)} ms with waiting for a CPU), longest collection ${longestCollection.toFixed(1)} ms (kind ${kind})`,
    );
    lag.own = lag.all = 0;
    longestCollection = 0;
    cpu = process.cpuUsage();
    at = performance.now();
  }, 10_000);
  say('ready');
}

function endpoints(): void {
  for (const host of endpointIPs) {
    createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
      socket.on('data', (chunk) => socket.write(chunk));
      socket.on('end', () => socket.end());
      socket.on('error', () => socket.destroy());
    }).listen({ host, port, backlog: 4096 });
  }
  setTimeout(() => say('ready'), 200);
}

function clients(): void {
  let failed = 0;
  let done = 0;
  let times: number[] = [];
  const held: Socket[] = [];
  let turn = 0;
  const why = new Map<string, number>();
  const fail = (error: NodeJS.ErrnoException): void => {
    failed++;
    why.set(error.code ?? '', (why.get(error.code ?? '') ?? 0) + 1);
  };
  const holdOne = (): void => {
    const socket = connect({ host: vips[turn++ % vips.length], port: 80, noDelay: true });
    socket.on('connect', () => socket.write(payload));
    socket.on('error', fail);
    socket.once('data', () => held.push(socket));
    socket.resume();
  };
  const passOne = (): void => {
    const begin = performance.now();
    const socket = connect({ host: vips[turn++ % vips.length], port: 80, noDelay: true });
    socket.on('error', fail);
    socket.on('connect', () => socket.write(payload));
    socket.once('data', () => {
      times.push(performance.now() - begin);
      done++;
      socket.end();
    });
  };
  let opened = 0;
  const filling = setInterval(() => {
    for (let i = 0; i < 20 && opened < hold; i++, opened++) holdOne();
    if (held.length + failed >= hold) {
      clearInterval(filling);
      say(`clients: ${held.length} connections are held, ${failed} failed`);
      load();
    }
  }, 10);
  const load = (): void => {
    const begin = performance.now();
    let started = 0;
    let talked = 0;
    setInterval(() => {
      const due = Math.floor(((performance.now() - begin) / 1000) * rate);
      // After a pause of this process, what was missed is not made up for in one burst.
      if (due - started > rate / 10) started = due - rate / 10;
      for (; started < due; started++) passOne();
      // Every held connection talks every ten seconds.
      const dueTalks = Math.floor(((performance.now() - begin) / 10_000) * held.length);
      for (; talked < dueTalks; talked++) held[talked % held.length]?.write(payload);
    }, 5);
    let before = 0;
    setInterval(() => {
      times.sort((a, b) => a - b);
      const share = (part: number): string => (times[Math.floor(times.length * part)] ?? 0).toFixed(1);
      say(
        `clients: ${((done - before) / 10).toFixed(0)} connections/s, ${failed} failed in all (${[...why].join(' ')}); connect, ask, answer: p50 ${share(0.5)} ms, p99 ${share(0.99)} ms`,
      );
      before = done;
      times = [];
    }, 10_000);
  };
}

function child(namespace: string, role: string): ChildProcess {
  const self = fileURLToPath(import.meta.url);
  const argv = ['netns', 'exec', namespace, process.execPath, ...process.execArgv, self, '--role', role];
  return spawn('ip', [...argv, '--hold', String(hold), '--rate', String(rate)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

function ready(process_: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    process_.stdout?.setEncoding('utf8').on('data', (text: string) => {
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
    for (const setting of ['net.ipv4.ip_local_port_range=1024 65535', 'net.ipv4.tcp_tw_reuse=1'])
      ip('netns', 'exec', namespace, 'sysctl', '-qw', setting);
    for (const role of ['endpoints', 'proxy']) {
      const one = child(namespace, role);
      children.push(one);
      await ready(one);
    }
    const load = child(namespace, 'clients');
    children.push(load);
    void ready(load);
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  } finally {
    for (const one of children) one.kill();
    await new Promise((resolve) => setTimeout(resolve, 500));
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
  case 'clients':
    clients();
    break;
  default:
    await parent();
}
