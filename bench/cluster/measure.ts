/** One proxy, measured from its start to its restart. */
import { loadavg } from 'node:os';
import { clientPod, serverPod, type Stage } from './stage.ts';
import { now, type Peer } from './channel.ts';
import { cpuMilliseconds, memory } from './processUsage.ts';
import { distribution, median, type Distribution } from './statistics.ts';
import { clusterIP } from './objects.ts';

export interface Plan {
  readonly services: number;
  readonly endpoints: number;
  /** Changes of each kind. */
  readonly changes: number;
  readonly families: number;
  /** Milliseconds. */
  readonly startTimeout: number;
  readonly rollingUpdate: boolean;
  readonly restart: boolean;
  readonly connections: boolean;
}

export interface Start {
  /** Start of the process to the last rule in the kernel, milliseconds. */
  readonly milliseconds: number;
  readonly cpuMilliseconds: number;
  /** MiB */
  readonly resident: number;
  readonly peak: number;
}

export const kinds = ['replaced', 'added', 'removed'] as const;
export type Kind = (typeof kinds)[number];

export interface Change {
  /** Milliseconds from the change in the API to the transaction's event. */
  readonly effective: Distribution;
  /** Milliseconds from the bytes received to the restore input written, where there is one. */
  readonly ownShare?: Distribution;
  /** Milliseconds from the bytes received to the transaction's end. */
  readonly committed?: Distribution;
  readonly cpuMilliseconds: number;
  readonly missed: number;
}

export interface Result {
  /** Load average of the last minute, before and after. */
  readonly load: readonly [before: number, after: number];
  readonly start: Start;
  readonly kernel: { readonly chains: number; readonly rules: number; readonly elements: number };
  /** MiB, a while after the start. */
  readonly settled: number;
  readonly changes: Readonly<Partial<Record<Kind, Change>>>;
  readonly rolling?: {
    readonly events: number;
    readonly cpuMilliseconds: number;
    readonly milliseconds: number;
  };
  /** MiB, after all changes. */
  readonly after: { readonly resident: number; readonly peak: number };
  readonly restart?: Start & { readonly written: number };
  readonly connections?: { readonly direct: number; readonly service: number; readonly ratio: number };
}

interface Sync {
  readonly received: number;
  readonly written: number;
  readonly done: number;
}

const settle = 25;
const warmUp = 50;

export async function measure(
  stage: Stage,
  startProxy: () => Peer,
  own: boolean,
  plan: Plan,
): Promise<Result> {
  const load = loadavg()[0] ?? NaN;
  stage.clean();
  const first = await begin(stage, startProxy, plan);
  const { start } = first;
  let { peer } = first;
  try {
    const kernel = await stage.watcher.ask<Result['kernel']>('count');
    await sleep(5000);
    const settled = memory(peer.pid).resident;
    const changes: Partial<Record<Kind, Change>> = {};
    // A proxy that has been up for a while has compiled what it runs often.
    if (plan.changes > 0) await changeMany(stage, peer, own, { ...plan, changes: warmUp }, 'replaced');
    for (const kind of kinds) {
      if (plan.changes > 0) changes[kind] = await changeMany(stage, peer, own, plan, kind);
    }
    const rolling = plan.rollingUpdate ? await roll(stage, peer) : undefined;
    const after = memory(peer.pid);
    let restart: Result['restart'];
    if (plan.restart) {
      await peer.stop();
      await stage.watcher.ask('subscribe');
      const again = await begin(stage, startProxy, plan);
      peer = again.peer;
      const { messages } = await stage.watcher.ask<{ messages: number }>('unsubscribe');
      restart = { ...again.start, written: messages };
    }
    const connections = plan.connections ? await connect(stage, plan) : undefined;
    return {
      load: [load, loadavg()[0] ?? NaN],
      start,
      kernel,
      settled,
      changes,
      after,
      ...(rolling !== undefined && { rolling }),
      ...(restart !== undefined && { restart }),
      ...(connections !== undefined && { connections }),
    };
  } finally {
    await peer.stop();
  }
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function begin(
  stage: Stage,
  startProxy: () => Peer,
  { families, startTimeout }: Plan,
): Promise<{ peer: Peer; start: Start }> {
  const started = stage.watcher.ask<{ lastChange: number; seen: number }>('started', {
    families,
    timeout: startTimeout,
  });
  const begun = now();
  const peer = startProxy();
  const died = peer.ended.then(() => {
    throw new Error(`the proxy ended:\n${peer.lastWords}`);
  });
  try {
    const { lastChange, seen } = await Promise.race([started, died]);
    // Where nothing was written, or not through nf_tables, the proxy's own word has to do.
    const milliseconds = (lastChange > begun ? lastChange : seen) - begun;
    return { peer, start: { milliseconds, cpuMilliseconds: cpuMilliseconds(peer.pid), ...memory(peer.pid) } };
  } catch (error) {
    died.catch(() => undefined);
    await peer.stop('SIGKILL');
    throw new Error(`${String(error)}\n${peer.lastWords}`, { cause: error });
  } finally {
    died.catch(() => undefined);
  }
}

async function changeMany(stage: Stage, peer: Peer, own: boolean, plan: Plan, kind: Kind): Promise<Change> {
  const { services, changes } = plan;
  const effective: number[] = [];
  let missed = 0;
  await stage.watcher.ask('subscribe');
  if (own) await peer.ask('forget');
  const cpu = cpuMilliseconds(peer.pid);
  for (let n = 0; n < changes; n++) {
    const service = Math.floor((n * services) / changes);
    const at = await stage.api.ask<number>(kind, { service });
    const transaction = await stage.watcher.ask<{ at: number } | null>('next', { timeout: 60_000, settle });
    if (transaction === null) missed++;
    else effective.push(transaction.at - at);
  }
  const spent = cpuMilliseconds(peer.pid) - cpu;
  await stage.watcher.ask('unsubscribe');
  const syncs = own ? await peer.ask<Sync[]>('syncs') : [];
  const written = syncs.filter((sync) => sync.written > 0);
  return {
    effective: distribution(effective),
    ...(written.length > 0 && {
      ownShare: distribution(written.map((sync) => sync.written - sync.received)),
    }),
    ...(syncs.length > 0 && { committed: distribution(syncs.map((sync) => sync.done - sync.received)) }),
    cpuMilliseconds: spent / changes,
    missed,
  };
}

/** A Service of 100 endpoints: each gives way to another, one added and one removed, as the slices come. */
async function roll(stage: Stage, peer: Peer): Promise<NonNullable<Result['rolling']>> {
  const size = 100;
  const pod = (i: number): string => `10.240.${i >> 8}.${i & 255}`;
  const addresses = Array.from({ length: size }, (_, i) => pod(i));
  await stage.watcher.ask('subscribe');
  const change = async (): Promise<void> => {
    await stage.api.ask('set', { service: 1, addresses });
    await stage.watcher.ask('next', { timeout: 60_000, settle: 5 });
  };
  await change();
  await sleep(500);
  const cpu = cpuMilliseconds(peer.pid);
  const begun = now();
  for (let i = 0; i < size; i++) {
    addresses.push(pod(size + i));
    await change();
    addresses.shift();
    await change();
  }
  const result = {
    events: 2 * size,
    cpuMilliseconds: (cpuMilliseconds(peer.pid) - cpu) / (2 * size),
    milliseconds: now() - begun,
  };
  await stage.watcher.ask('unsubscribe');
  return result;
}

/** Short turns and many, so that a busy moment of the machine falls on both. */
const rounds = 40;
const roundMilliseconds = 150;

/** New connections from Pod to Pod, directly and through the Service in the middle, in turns. */
async function connect(stage: Stage, { services }: Plan): Promise<NonNullable<Result['connections']>> {
  const port = 8080;
  const service = Math.floor(services / 2);
  await stage.watcher.ask('subscribe');
  await stage.api.ask('set', { service, addresses: [serverPod.ip] });
  await stage.watcher.ask('next', { timeout: 60_000, settle: 200 });
  await stage.watcher.ask('unsubscribe');
  const server = stage.helper(`pod-${serverPod.name}`, 'connect.ts', ['server', serverPod.ip, String(port)]);
  const client = stage.helper(`pod-${clientPod.name}`, 'connect.ts', ['client']);
  try {
    await sleep(3000);
    const rate = async (ip: string, to: number): Promise<number> => {
      const request = { ip, port: to, milliseconds: roundMilliseconds };
      const { perSecond, failed } = await client.ask<{ perSecond: number; failed: number }>('rate', request);
      if (failed > 0) throw new Error(`${failed} connections to ${ip}:${to} failed`);
      return perSecond;
    };
    const direct: number[] = [];
    const through: number[] = [];
    await rate(serverPod.ip, port);
    for (let i = 0; i < rounds; i++) {
      direct.push(await rate(serverPod.ip, port));
      through.push(await rate(clusterIP(service), 80));
    }
    const ratio = median(direct.map((each, i) => (through[i] ?? NaN) / each));
    return { direct: median(direct), service: median(through), ratio };
  } finally {
    await Promise.all([server.stop('SIGKILL'), client.stop('SIGKILL')]);
  }
}
