/** Second story: a shop under load is scaled from 2 to 10 replicas and back; no request fails, and a member keeps her Pod. */
import { setTimeout as sleep } from 'node:timers/promises';
import { chiSquareTail } from '../scenario/chiSquare.ts';
import { deployment, pod, service } from './manifests.ts';
import { call, clusterIpOf, DemoFailure, waitForPods, waitForService, type Stage } from './stage.ts';

/** Shoppers at once, and ms that each rests between two requests. */
const shoppers = 4;
const rest = 15;
const memberRest = 100;

/** Counts who answers, by phase. */
class Tally {
  requests = 0;
  readonly failures: string[] = [];
  answers = new Map<string, number>();

  answered(name: string): void {
    this.requests++;
    this.answers.set(name, (this.answers.get(name) ?? 0) + 1);
  }

  failed(error: unknown): void {
    this.requests++;
    this.failures.push(error instanceof Error ? error.message : String(error));
  }

  newPhase(): void {
    this.answers = new Map();
  }
}

async function keepCalling(
  stage: Stage,
  from: string,
  ip: string,
  pause: number,
  tally: Tally,
  running: { on: boolean },
): Promise<void> {
  while (running.on) {
    try {
      tally.answered((await call(stage, from, ip)).pod);
    } catch (error) {
      tally.failed(error);
    }
    await sleep(pause);
  }
}

/** How likely an even choice is to be this uneven or more. */
export function evenness(counts: readonly number[]): number {
  const total = counts.reduce((sum, n) => sum + n, 0);
  const expected = total / counts.length;
  const value = counts.reduce((sum, n) => sum + (n - expected) ** 2 / expected, 0);
  return chiSquareTail(value, counts.length - 1);
}

function bars(stage: Stage, answers: ReadonlyMap<string, number>): void {
  const total = [...answers.values()].reduce((sum, n) => sum + n, 0);
  for (const [name, n] of [...answers].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const percent = (100 * n) / total;
    stage.say(
      `    ${name.padEnd(28)} ${percent.toFixed(0).padStart(3)} %  ${'#'.repeat(Math.round(percent / 2))}`,
    );
  }
}

async function scale(stage: Stage, replicas: number): Promise<void> {
  await stage.cluster.client.patch('Deployment', 'checkout', { spec: { replicas } });
}

function expectEven(answers: ReadonlyMap<string, number>, pods: number): void {
  if (answers.size !== pods) throw new DemoFailure(`${answers.size} Pods answered, not ${pods}`);
  if (evenness([...answers.values()]) < 1e-9) throw new DemoFailure('the Pods did not get even shares');
}

export async function playFlashSale(stage: Stage): Promise<void> {
  const { say } = stage;
  const { client } = stage.cluster;
  say('Story 2: flash sale');
  say('');
  await client.apply(deployment('checkout', 2));
  await client.apply(service('checkout', 'checkout'));
  await client.apply(service('checkout-members', 'checkout', true));
  await client.apply(pod('shoppers', 'shoppers', 'node-1'));
  await client.apply(pod('member', 'member', 'node-2'));
  await waitForPods(stage, 'checkout', 2);
  await waitForPods(stage, 'shoppers', 1);
  await waitForPods(stage, 'member', 1);
  const ip = await clusterIpOf(stage, 'checkout');
  const memberIp = await clusterIpOf(stage, 'checkout-members');
  await waitForService(stage, 'shoppers', ip);
  await waitForService(stage, 'member', memberIp);

  const sale = new Tally();
  const member = new Tally();
  const running = { on: true };
  const loads = [
    ...Array.from({ length: shoppers }, () => keepCalling(stage, 'shoppers', ip, rest, sale, running)),
    keepCalling(stage, 'member', memberIp, memberRest, member, running),
  ];
  try {
    await sleep(2500);
    say(`  Service checkout, ${ip}:80, 2 replicas; a new connection for each request:`);
    bars(stage, sale.answers);
    say('');
    say('  $ kubectl scale deployment checkout --replicas=10');
    const begin = performance.now();
    await scale(stage, 10);
    await waitForPods(stage, 'checkout', 10);
    const ready = performance.now();
    while (sale.answers.size < 10 && performance.now() - ready < 10_000) await sleep(20);
    const used = performance.now();
    say(
      `  10 Pods ready after ${((ready - begin) / 1000).toFixed(1)} s, all in use after ${((used - begin) / 1000).toFixed(1)} s:`,
    );
    await sleep(500);
    sale.newPhase();
    await sleep(4000);
    bars(stage, sale.answers);
    expectEven(sale.answers, 10);
    say('');
    say('  $ kubectl scale deployment checkout --replicas=2');
    await scale(stage, 2);
    say('  8 Pods end; each serves on until no node sends it anything new:');
    await sleep(4500);
    await waitForPods(stage, 'checkout', 2);
    sale.newPhase();
    await sleep(2500);
    bars(stage, sale.answers);
    expectEven(sale.answers, 2);
  } finally {
    running.on = false;
    await Promise.all(loads);
  }
  say('');
  say(`  ${sale.requests} requests, ${sale.failures.length} failed.`);
  const kept = [...member.answers.keys()];
  say(`  The member, a client of a Service with sessionAffinity: ClientIP, made`);
  say(
    `  ${member.requests} requests, ${member.failures.length} failed, all answered by ${kept.join(' and ')}.`,
  );
  say('');
  const failures = [...sale.failures, ...member.failures];
  if (failures.length > 0) throw new DemoFailure(`requests failed, the first one so: ${failures[0]}`);
  if (kept.length !== 1) throw new DemoFailure('the member was sent to more than one Pod');
}
