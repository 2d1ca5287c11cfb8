/** New flows for as long as rules change, and what is counted of them. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Reading } from '../../src/dataplane/counts.ts';
import type { Route } from '../../src/services/types.ts';
import { CounterAccumulator } from '../../src/status/counters/accumulate.ts';
import { inNamespace } from '../support/namespace.ts';
import { makeRoute } from './iptables/routes.ts';

/** Every flow needs a source port of its own: one that is used again would be the flow of before. */
const flowsMax = 40_000;

/** So few say nothing. */
const flowsMin = 500;

/**
 * New UDP flows to port 53 of the address, ten every few milliseconds, until `stop`, which says how many it were.
 * Resolves when they have begun.
 */
async function startFlows(namespace: string, address: string): Promise<{ stop(): Promise<number> }> {
  const script = `
    const { createSocket } = require('node:dgram');
    let sent = 0;
    let ending = false;
    const timer = setInterval(() => {
      if (ending && sent >= ${flowsMin}) return clearInterval(timer);
      for (let i = 0; i < 10 && sent < ${flowsMax}; i++, sent++) {
        const socket = createSocket('udp4');
        const port = 20000 + sent;
        socket.bind(port, () => socket.send('x', 53, '${address}', () => socket.close()));
      }
    }, 4);
    process.stdin.resume();
    process.stdin.once('end', () => (ending = true));
    process.once('exit', () => console.log(String(sent)));
    console.log('begun');`;
  const child = spawn('ip', ['netns', 'exec', namespace, process.execPath, '-e', script], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
  const ended = once(child, 'close');
  await Promise.race([once(child.stdout, 'data'), ended]);
  return {
    async stop() {
      child.stdin.end();
      await ended;
      return Number(said.trim().split('\n').at(-1));
    },
  };
}

export function dns(
  endpoints: readonly number[],
  more: Partial<Parameters<typeof makeRoute>[0]> = {},
): Route {
  return makeRoute({
    name: 'default/dns',
    protocol: 'UDP',
    clusterIP: '10.96.0.10',
    port: 53,
    endpoints: endpoints.map((n) => `10.244.0.${n}:53`),
    ...more,
  });
}

/** Gives the namespace the address 192.0.2.10, and a way for packets to leave. */
export function addWayOut(namespace: string): void {
  inNamespace(namespace, ['ip', 'link', 'add', 'out', 'type', 'veth', 'peer', 'name', 'in']);
  inNamespace(namespace, ['ip', 'addr', 'add', '192.0.2.10/24', 'dev', 'out']);
  for (const name of ['out', 'in']) inNamespace(namespace, ['ip', 'link', 'set', name, 'up']);
  inNamespace(namespace, ['ip', 'route', 'add', 'default', 'dev', 'out']);
}

export interface CountedWorld {
  readonly namespace: string;
  readonly rounds: number;
  /** Changes the rules. */
  step(round: number): Promise<unknown>;
  read(): Promise<readonly Reading[]>;
}

/** Flows to 10.96.0.10, with changes and readings all the while. */
export async function countFlows(
  world: CountedWorld,
): Promise<{ readonly counts: CounterAccumulator; readonly flows: number }> {
  const counts = new CounterAccumulator('IPv4', true);
  const flows = await startFlows(world.namespace, '10.96.0.10');
  const changes = { over: false };
  const changing = (async () => {
    try {
      for (let round = 0; round < world.rounds; round++) {
        await world.step(round);
        await sleep(round % 4);
      }
    } finally {
      changes.over = true;
    }
  })();
  const reading = (async () => {
    for (let reads = 0; !changes.over; reads++) {
      counts.take(await world.read());
      await sleep(reads % 3 === 0 ? 0 : 20);
    }
  })();
  // Both have ended before the namespace goes, whichever failed.
  const [changed, read] = await Promise.allSettled([changing, reading]);
  const sent = await flows.stop();
  for (const { status, reason } of [changed, read] as { status: string; reason?: unknown }[])
    if (status === 'rejected') throw reason;
  counts.take(await world.read());
  return { counts, flows: sent };
}

export function sumOf(counts: CounterAccumulator, kind: string): number {
  let sum = 0;
  for (const { meaning, packets } of counts.totals()) if (meaning.kind === kind) sum += packets;
  return sum;
}

/** Never twice; a packet that is looked up on another processor while its counter's last word is said is lost. */
export function countedOnce(counted: number, flows: number): void {
  assert.ok(flows >= flowsMin, `${flows} flows`);
  assert.ok(counted <= flows && counted >= flows - Math.max(5, flows / 100), `${counted} of ${flows}`);
}
