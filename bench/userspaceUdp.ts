/**
 * What UDP costs userspace mode: N clients (sessions) that send datagrams in turn, an endpoint that sends them back, and the
 * proxy in between, a process each, on loopback in a network namespace of its own:
 *
 *   node --import tsx bench/userspaceUdp.ts [--sessions 5000] [--rate 10000] [--seconds 20]
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { ProxyContext } from '../src/dataplane/userspace/context.ts';
import { UdpListener } from '../src/dataplane/userspace/udpListener.ts';
import { silentLogger } from '../src/log/logger.ts';
import { collectAlone } from '../src/proxy/heap.ts';
import { processSockets } from '../src/proxy/socketBudget.ts';
import { makeEndpoint } from '../test/dataplane/iptables/routes.ts';
import { watchLag } from './lag.ts';

const { values } = parseArgs({
  options: {
    role: { type: 'string', default: 'parent' },
    sessions: { type: 'string', default: '5000' },
    rate: { type: 'string', default: '10000' },
    seconds: { type: 'string', default: '20' },
  },
});
const sessions = Number(values.sessions);
const rate = Number(values.rate);
const endpoint = { host: '127.0.0.2', port: 5300 } as const;
const proxyAddress = { host: '127.0.0.1', port: 53 } as const;
const payload = Buffer.alloc(64, 'x');
const say = (line: string): void => void process.stdout.write(`${line}\n`);

async function proxy(): Promise<void> {
  collectAlone();
  const sockets = processSockets(silentLogger);
  let refused = 0;
  const context: ProxyContext = {
    family: 'IPv4',
    log: silentLogger,
    sockets,
    refused: () => void refused++,
    mayDial: () => true,
    udpIdleTimeout: 60_000,
  };
  const one = makeEndpoint(`${endpoint.host}:${endpoint.port}`);
  const listener = await UdpListener.open(proxyAddress, context, {
    choose: () => one,
    forget: () => undefined,
  });
  const lag = watchLag(2);
  let cpu = process.cpuUsage();
  let last = performance.now();
  const report = (): void => {
    const used = process.cpuUsage(cpu);
    const share = ((used.user + used.system) / 10 / (performance.now() - last)).toFixed(0);
    say(
      `proxy: ${listener.sessions} sessions, ${refused} refused, cpu ${share} %, rss ${(process.memoryUsage().rss / 2 ** 20).toFixed(0)} MB, event loop held up ${lag.longest.own.toFixed(1)} ms at the longest (${lag.longest.all.toFixed(1)} ms with waiting for a CPU)`,
    );
    cpu = process.cpuUsage();
    last = performance.now();
    lag.reset();
  };
  setInterval(report, 5000);
  process.once('SIGUSR2', () => {
    // The endpoint leaves, and all sessions with it.
    listener.endpointsChanged(() => false);
    setTimeout(report, 1000);
  });
  say('ready');
}

async function echo(): Promise<void> {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 2 ** 22 });
  socket.on('message', (datagram, from) => socket.send(datagram, from.port, from.address));
  await once(socket.bind(endpoint.port, endpoint.host), 'listening');
  say('ready');
}

async function clients(): Promise<void> {
  let answers = 0;
  let sent = 0;
  const sockets: Socket[] = [];
  for (let i = 0; i < sessions; i++) {
    const socket = createSocket('udp4');
    socket.on('message', () => void answers++);
    socket.on('error', () => undefined);
    socket.connect(proxyAddress.port, proxyAddress.host);
    sockets.push(socket);
    if (i % 200 === 199) await sleep(10);
  }
  say('ready');
  const begin = performance.now();
  setInterval(() => {
    const due = Math.floor(((performance.now() - begin) / 1000) * rate);
    // After a pause of this process, what was missed is not made up for in one burst.
    sent = Math.max(sent, due - Math.max(1, Math.floor(rate / 50)));
    for (; sent < due; sent++) sockets[sent % sessions]?.send(payload);
  }, 2);
  let before = { answers: 0, sent: 0 };
  setInterval(() => {
    say(
      `clients: ${((sent - before.sent) / 5).toFixed(0)} datagrams/s, ${((answers - before.answers) / 5).toFixed(0)} answers/s`,
    );
    before = { answers, sent };
  }, 5000);
}

async function started(role: string): Promise<ChildProcess> {
  const argv = [
    '--max-semi-space-size=4',
    ...process.execArgv,
    fileURLToPath(import.meta.url),
    '--role',
    role,
  ];
  const child = spawn(process.execPath, [...argv, '--sessions', values.sessions, '--rate', values.rate], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise<void>((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the ${role} process ended early with exit code ${code}`)));
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      if (text.includes('ready\n')) resolve();
      process.stdout.write(text.replace('ready\n', ''));
    });
  });
  return child;
}

async function parent(): Promise<void> {
  spawnSync('ip', ['link', 'set', 'lo', 'up']);
  const children: ChildProcess[] = [];
  try {
    for (const role of ['echo', 'proxy', 'clients']) children.push(await started(role));
    await sleep(Number(values.seconds) * 1000);
    say('the endpoint leaves');
    children[1]?.kill('SIGUSR2');
    await sleep(1500);
  } finally {
    for (const child of children) child.kill('SIGKILL');
  }
}

if (process.env['POINTSMAN_BENCH_INSIDE'] === undefined) {
  const inside = spawnSync(
    'unshare',
    ['--net', process.execPath, ...process.execArgv, ...process.argv.slice(1)],
    {
      stdio: 'inherit',
      env: { ...process.env, POINTSMAN_BENCH_INSIDE: '1' },
    },
  );
  process.exit(inside.status ?? 1);
}
switch (values.role) {
  case 'proxy':
    await proxy();
    break;
  case 'echo':
    await echo();
    break;
  case 'clients':
    await clients();
    break;
  default:
    await parent();
    process.exit();
}
