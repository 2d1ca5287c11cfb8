/** The suite of counters in IPVS mode: in the guest, with routes in place of a cluster. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { silentLogger } from '../../../src/log/logger.ts';
import type { Route } from '../../../src/services/types.ts';
import { ServiceCounters } from '../../../src/status/counters/serviceCounters.ts';
import type { CountersDocument } from '../../../src/status/documents.ts';
import {
  nameOf,
  playCases,
  services,
  type CounterWorld,
  type Step,
} from '../../status/support/counterSuite.ts';
import { patience, repeatSynOnce } from '../../status/support/lab.ts';
import { makeRoute } from '../iptables/routes.ts';
import { connectFrom, Driver, entrances, Node, whyNoIpvs } from './guest.ts';

/** The last Pod is nobody's endpoint. */
const podCount = 8;
const caller = `pod${podCount}`;
const port = 9000;

/** Connections that IPVS has counted, as of when it last added up: every 2 s, for all virtual servers at once. */
function counted(): number {
  const [, , numbers = ''] = readFileSync('/proc/net/ip_vs_stats', 'latin1').split('\n');
  return Number.parseInt(numbers.trim(), 16);
}

class GuestWorld implements CounterWorld {
  readonly answers = new Map<string, number>();
  readonly node = new Node(podCount);
  readonly driver = new Driver();
  readonly #pods = new Map(Object.entries(services).map(([key, { pods }]) => [key, pods]));
  /** By Service: the names that Pods of the guest have there. */
  readonly #names = new Map<string, string[]>();
  readonly #counters: ServiceCounters;
  #now = 0;
  /** What `counted` has to reach before a reading is whole. */
  #due = 0;

  constructor() {
    this.#counters = new ServiceCounters({
      level: 'endpoints',
      log: silentLogger,
      // Every reading is a fresh one.
      now: () => (this.#now += 60_000),
      families: [{ family: 'IPv4', table: () => this.driver.table, source: this.driver.dataplane.counters }],
    });
  }

  async start(): Promise<void> {
    this.node.serve({ kind: 'tcp', port });
    await this.driver.dataplane.start();
    await this.driver.to(this.#routes(), true);
    this.#due = counted();
  }

  async play(step: Step): Promise<void> {
    if (step === 'read') return void (await this.read());
    if ('scale' in step) {
      this.#pods.set(step.scale, step.pods);
      await this.driver.to(this.#routes());
      return;
    }
    const { from, to, times, door = 'clusterIP', outcome = 'answered' } = step;
    const number = Object.keys(services).indexOf(to);
    const [ip, target] = (
      {
        clusterIP: [`10.96.0.${10 + number}`, 80],
        'other port': [`10.96.0.${10 + number}`, 81],
        nodePort: ['192.0.2.10', 30_000 + number],
        loadBalancerIP: [`198.51.100.${10 + number}`, 80],
      } as const
    )[door];
    const where = from === 'caller' ? caller : 'outside';
    if (outcome === 'not answered') repeatSynOnce(entrances, where);
    for (let i = 0; i < times; i++) {
      const connection = connectFrom(where, 'tcp', ip, target);
      const { greeting } = await connection.first(patience[outcome]);
      connection.close();
      assert.equal(greeting !== undefined, outcome === 'answered', `${from} to ${to}`);
      if (greeting === undefined) continue;
      this.#due++;
      const name = this.#names.get(to)?.[Number(greeting.pod.slice('pod'.length)) - 1] ?? '';
      this.answers.set(`${to} ${name}`, (this.answers.get(`${to} ${name}`) ?? 0) + 1);
    }
  }

  async read(): Promise<CountersDocument> {
    for (const deadline = Date.now() + 60_000; counted() < this.#due; await sleep(100))
      assert.ok(Date.now() < deadline, `IPVS has counted ${counted()} of ${this.#due} connections`);
    return await this.#counters.read();
  }

  async close(): Promise<void> {
    await this.driver.dataplane.stop();
    this.node.close();
  }

  #routes(): Route[] {
    return Object.entries(services).map(([key, { spec }], number) => {
      const names = this.#names.get(key) ?? [];
      this.#names.set(key, names);
      const endpoints = (this.#pods.get(key) ?? []).map((name) => {
        if (!names.includes(name)) names.push(name);
        const pod = this.node.pods[names.indexOf(name)];
        return `${pod?.ip}:${port}${name.endsWith('-2') ? '' : 'L'}`;
      });
      const type = spec['type'] ?? 'ClusterIP';
      const route = makeRoute({
        name: `default/${nameOf(key)}`,
        portName: 'http',
        clusterIP: `10.96.0.${10 + number}`,
        port: 80,
        endpoints,
        ...(type !== 'ClusterIP' && { nodePort: 30_000 + number }),
        ...(type === 'LoadBalancer' && { loadBalancerIPs: [`198.51.100.${10 + number}`] }),
        affinitySeconds: spec['sessionAffinity'] === 'ClientIP' ? 10_800 : 0,
        externalPolicyLocal: spec['externalTrafficPolicy'] === 'Local',
        sourceRanges: (spec['loadBalancerSourceRanges'] ?? []) as readonly string[],
      });
      const named = route.endpoints.map((endpoint) => {
        const at = this.node.pods.findIndex(({ ip }) => ip === endpoint.ip);
        return { ...endpoint, pod: `default/${names[at]}` };
      });
      return { ...route, endpoints: named };
    });
  }
}

describe('counters in IPVS mode', { skip: whyNoIpvs() }, () => {
  let world: GuestWorld;

  before(async () => {
    world = new GuestWorld();
    await world.start();
  });
  after(async () => world.close());

  playCases('ipvs', () => world);
});
