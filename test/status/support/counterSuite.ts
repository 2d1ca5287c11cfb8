/** What counters have to say in every mode, as traffic and counts: played in a lab whose proxies count. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Mode } from '../../../src/dataplane/dataplane.ts';
import type { LabCluster } from '../../../src/lab/cluster/labCluster.ts';
import { HttpFailure, httpGet } from '../../../src/lab/net/http.ts';
import { podNamespace } from '../../../src/lab/net/network.ts';
import type { JsonObject } from '../../../src/lab/scenario/generate.ts';
import type { RefusalReason } from '../../../src/dataplane/counts.ts';
import type { CountersDocument } from '../../../src/status/documents.ts';
import { buildProgram } from '../../scenarios/support.ts';
import {
  clusterIP,
  daemonOf,
  endpointsKnown,
  eventually,
  get,
  patience,
  pod,
  repeatSynOnce,
  service,
  specOf,
  startLab,
} from './lab.ts';

/** Where a connection goes: a Service's port 80, or another door of it. */
export type Door = 'clusterIP' | 'nodePort' | 'loadBalancerIP' | 'other port';

export interface Traffic {
  readonly from: 'caller' | 'client';
  readonly to: string;
  readonly door?: Door;
  readonly times: number;
  /** Default: answered. */
  readonly outcome?: 'answered' | 'not answered';
}

/** Pods of a Service are to be so many. */
interface Scale {
  readonly scale: string;
  readonly pods: readonly string[];
}

/** Counters are read in between, as a scrape does. */
export type Step = Traffic | Scale | 'read';

interface Expected {
  /** By Service: by how much connections grow. */
  readonly connections?: Readonly<Record<string, number>>;
  readonly hits?: Readonly<Record<string, number | 'not told'>>;
  readonly masqueraded?: number;
  /** Packets: a client may repeat the first one, so there may be up to twice as many. */
  readonly refused?: readonly (readonly [
    reason: RefusalReason,
    verdict: 'reject' | 'drop',
    packets: number,
  ])[];
}

interface Case {
  readonly name: string;
  readonly steps: readonly Step[];
  readonly expected: Expected;
  /** Modes of which this cannot be asked: counts of rules that are replaced are lost since the last reading. */
  readonly notIn?: readonly Mode[];
  /** What a mode counts otherwise. */
  readonly but?: Readonly<Partial<Record<Mode, Expected>>>;
}

export const cases: readonly Case[] = [
  {
    name: 'connections to a cluster IP, by service port and endpoint',
    steps: [{ from: 'caller', to: 'web', times: 24 }],
    expected: { connections: { web: 24 }, masqueraded: 0, refused: [] },
  },
  {
    name: 'connections to a node port, masqueraded',
    steps: [{ from: 'client', to: 'web', door: 'nodePort', times: 6 }],
    expected: { connections: { web: 6 }, masqueraded: 6, refused: [] },
    // A proxy's connections are all its own.
    but: { userspace: { connections: { web: 6 }, masqueraded: 0, refused: [] } },
  },
  {
    name: 'no endpoints: rejected',
    steps: [{ from: 'caller', to: 'empty', times: 3, outcome: 'not answered' }],
    expected: { connections: { empty: 0 }, refused: [['no_endpoints', 'reject', 3]] },
    // IPVS refuses by itself, and counts nothing.
    but: { ipvs: { connections: { empty: 0 }, refused: [] } },
  },
  {
    name: 'policy Local without an endpoint here: dropped, and no connection; Pods go on',
    steps: [
      { from: 'client', to: 'local', door: 'nodePort', times: 2, outcome: 'not answered' },
      { from: 'client', to: 'local', door: 'loadBalancerIP', times: 1, outcome: 'not answered' },
      { from: 'caller', to: 'local', door: 'loadBalancerIP', times: 4 },
    ],
    expected: { connections: { local: 4 }, refused: [['no_local_endpoints', 'drop', 3]] },
  },
  {
    name: 'sources that are not allowed: dropped, and no connection',
    steps: [
      { from: 'client', to: 'guarded', door: 'loadBalancerIP', times: 2, outcome: 'not answered' },
      { from: 'caller', to: 'guarded', times: 2 },
    ],
    expected: { connections: { guarded: 2 }, refused: [['source_range', 'drop', 2]] },
  },
  {
    name: 'a port that a cluster IP does not have',
    steps: [{ from: 'caller', to: 'web', door: 'other port', times: 2, outcome: 'not answered' }],
    expected: { connections: { web: 0 }, refused: [['no_such_port', 'reject', 2]] },
    // No rule of theirs sees such packets.
    but: { iptables: { refused: [] }, userspace: { refused: [] } },
  },
  {
    name: 'affinity: all but the first connection are hits',
    steps: [{ from: 'caller', to: 'sticky', times: 7 }],
    expected: { connections: { sticky: 7 }, hits: { sticky: 6 }, refused: [] },
    but: { ipvs: { connections: { sticky: 7 }, hits: { sticky: 'not told' }, refused: [] } },
  },
  {
    name: 'endpoints come and go between two readings: nothing that they counted is lost',
    steps: [
      { from: 'caller', to: 'moving', times: 12 },
      { scale: 'moving', pods: ['mv-1', 'mv-3'] },
      { from: 'caller', to: 'moving', times: 10 },
      { scale: 'moving', pods: ['mv-1', 'mv-3', 'mv-4', 'mv-5', 'mv-6', 'mv-7'] },
      { from: 'caller', to: 'moving', times: 12 },
      { scale: 'moving', pods: ['mv-7'] },
      { from: 'caller', to: 'moving', times: 5 },
      { scale: 'moving', pods: [] },
      { from: 'caller', to: 'moving', times: 2, outcome: 'not answered' },
      { scale: 'moving', pods: ['mv-1', 'mv-2', 'mv-3'] },
      { from: 'caller', to: 'moving', times: 6 },
    ],
    expected: { connections: { moving: 45 }, refused: [['no_endpoints', 'reject', 2]] },
    but: {
      ipvs: { connections: { moving: 45 }, refused: [] },
      userspace: { connections: { moving: 45 } },
    },
  },
  {
    name: 'endpoints come and go, with readings before: nothing is lost',
    steps: [
      { from: 'caller', to: 'moving', times: 9 },
      'read',
      { scale: 'moving', pods: ['mv-1'] },
      { from: 'caller', to: 'moving', times: 4 },
      'read',
      { scale: 'moving', pods: [] },
      { from: 'caller', to: 'moving', times: 2, outcome: 'not answered' },
      'read',
      { scale: 'moving', pods: ['mv-1', 'mv-2', 'mv-3', 'mv-4', 'mv-5'] },
      { from: 'caller', to: 'moving', times: 8 },
    ],
    expected: { connections: { moving: 21 }, refused: [['no_endpoints', 'reject', 2]] },
    but: { ipvs: { connections: { moving: 21 }, refused: [] } },
  },
  {
    name: 'affinity through changes',
    steps: [
      { from: 'caller', to: 'stickyMoving', times: 4 },
      'read',
      { scale: 'stickyMoving', pods: ['st-1', 'st-2', 'st-3', 'st-4', 'st-5'] },
      { from: 'caller', to: 'stickyMoving', times: 3 },
    ],
    expected: { connections: { stickyMoving: 7 }, hits: { stickyMoving: 6 } },
    but: { ipvs: { connections: { stickyMoving: 7 }, hits: { stickyMoving: 'not told' } } },
  },
];

/** Services, by the name that cases have for them. */
export const services: Readonly<
  Record<string, { readonly spec: JsonObject; readonly pods: readonly string[] }>
> = {
  web: { spec: { type: 'NodePort' }, pods: ['web-1', 'web-2', 'web-3'] },
  empty: { spec: {}, pods: [] },
  local: { spec: { type: 'LoadBalancer', externalTrafficPolicy: 'Local' }, pods: ['far-2'] },
  guarded: { spec: { type: 'LoadBalancer', loadBalancerSourceRanges: ['10.0.0.0/8'] }, pods: ['gd-2'] },
  sticky: { spec: { sessionAffinity: 'ClientIP' }, pods: ['sk-1', 'sk-2'] },
  moving: { spec: {}, pods: ['mv-1', 'mv-2', 'mv-3', 'mv-4'] },
  stickyMoving: { spec: { sessionAffinity: 'ClientIP' }, pods: ['st-1', 'st-2'] },
};

/** Kubernetes' names have no capitals. */
export function nameOf(key: string): string {
  return key.toLowerCase();
}

function idOf(key: string): string {
  return `default/${nameOf(key)}:http/TCP`;
}

/** Where cases are played. */
export interface CounterWorld {
  /** Who answered since it was last emptied: `SERVICE POD`. */
  readonly answers: Map<string, number>;
  play(step: Step): Promise<void>;
  read(): Promise<CountersDocument>;
}

class LabWorld implements CounterWorld {
  readonly cluster: LabCluster;
  /** Who answered since the last reading: `SERVICE POD`. */
  readonly answers = new Map<string, number>();

  constructor(cluster: LabCluster) {
    this.cluster = cluster;
  }

  async build(): Promise<void> {
    const { client } = this.cluster;
    await client.apply(pod('caller', 'node-1', { app: 'caller' }));
    for (const [key, { spec, pods }] of Object.entries(services)) {
      const ports = [{ name: 'http', port: 80, targetPort: 8080 }];
      await client.apply(service(nameOf(key), { ...spec, selector: { app: nameOf(key) }, ports }));
      await this.#scale(key, pods);
    }
    await eventually('all Pods answer', async () => {
      for (const [key, { pods }] of Object.entries(services)) {
        const names = new Set<string>();
        for (let i = 0; i < 8 * pods.length && names.size < pods.length; i++) {
          const sticky = key.startsWith('sticky');
          if (sticky) break;
          names.add(
            await get(this.cluster, 'caller', await clusterIP(this.cluster, nameOf(key))).catch(() => ''),
          );
        }
        if (names.has('') || (names.size < pods.length && !key.startsWith('sticky'))) return false;
      }
      return true;
    });
  }

  async play(step: Step): Promise<void> {
    if (step === 'read') return void (await this.read());
    if ('scale' in step) return this.#scale(step.scale, step.pods);
    const { from, to, times, outcome = 'answered' } = step;
    const url = `http://${await this.#door(to, step.door ?? 'clusterIP')}/`;
    const { namespaces } = this.cluster.network;
    const where = from === 'caller' ? podNamespace(from) : from;
    if (outcome === 'not answered') repeatSynOnce(namespaces, where);
    for (let i = 0; i < times; i++) {
      const answer = httpGet(namespaces, where, url, patience[outcome]);
      if (outcome === 'not answered') {
        await assert.rejects(answer, HttpFailure);
        continue;
      }
      const who = `${to} ${(await answer).headers['x-pod'] ?? ''}`;
      this.answers.set(who, (this.answers.get(who) ?? 0) + 1);
    }
  }

  async #door(key: string, door: Door): Promise<string> {
    const name = nameOf(key);
    switch (door) {
      case 'clusterIP':
        return await clusterIP(this.cluster, name);
      case 'other port':
        return `${await clusterIP(this.cluster, name)}:81`;
      case 'nodePort': {
        const { ports } = (await specOf(this.cluster, name)) as unknown as { ports: { nodePort: number }[] };
        return `172.31.0.11:${ports[0]?.nodePort}`;
      }
      case 'loadBalancerIP': {
        return await eventually('a load balancer IP', async () => {
          const { status } = (await this.cluster.client.get('Service', name)) as unknown as {
            status?: { loadBalancer?: { ingress?: { ip: string }[] } };
          };
          return status?.loadBalancer?.ingress?.[0]?.ip;
        });
      }
    }
  }

  /** Pods `x-2` are on the other node. They are found by their label, and stay when they lose it. */
  async #scale(key: string, pods: readonly string[]): Promise<void> {
    const { client } = this.cluster;
    const app = nameOf(key);
    const there = new Set(this.#pods.get(key));
    for (const name of pods)
      if (!there.delete(name)) {
        const node = name.endsWith('-2') ? 'node-2' : 'node-1';
        if (this.#known.has(name))
          await client.patch('Pod', name, { metadata: { labels: { app } } }, 'default');
        else await client.apply(pod(name, node, { app }));
        this.#known.add(name);
      }
    for (const name of there)
      await client.patch('Pod', name, { metadata: { labels: { app: 'nobody' } } }, 'default');
    this.#pods.set(key, pods);
    await endpointsKnown(this.cluster, app, pods.length);
    // Known is not yet in the kernel.
    await eventually('the change is in the kernel', async () => {
      const { changes } = await daemonOf(this.cluster).changes({ namespace: 'default', service: app });
      return changes.every(({ applied }) => applied !== null);
    });
  }
  readonly #pods = new Map<string, readonly string[]>();
  readonly #known = new Set<string>();

  async read(): Promise<CountersDocument> {
    // One reading serves for a moment.
    const asked = Date.now();
    return await eventually('a fresh reading', async () => {
      const counters = await daemonOf(this.cluster).counters();
      return Date.parse(counters.read) > asked ? counters : undefined;
    });
  }
}

function refusals(document: CountersDocument): Map<string, number> {
  const sums = new Map<string, number>();
  for (const { reason, verdict, family, packets } of document.refused)
    if (family === 'IPv4')
      sums.set(`${reason} ${verdict}`, (sums.get(`${reason} ${verdict}`) ?? 0) + packets);
  return sums;
}

function compare(before: CountersDocument, now: CountersDocument, expected: Expected): void {
  const serviceOf = (
    document: CountersDocument,
    key: string,
  ): CountersDocument['services'][number] | undefined =>
    document.services.find(({ id, family }) => id === idOf(key) && family === 'IPv4');
  for (const [key, grown] of Object.entries(expected.connections ?? {})) {
    const was = serviceOf(before, key)?.connections ?? 0;
    assert.equal((serviceOf(now, key)?.connections ?? 0) - was, grown, `connections to ${key}`);
  }
  for (const [key, grown] of Object.entries(expected.hits ?? {})) {
    const hits = serviceOf(now, key)?.affinityHits;
    if (grown === 'not told') assert.equal(hits, undefined);
    else assert.equal((hits ?? 0) - (serviceOf(before, key)?.affinityHits ?? 0), grown, `hits of ${key}`);
  }
  if (expected.masqueraded !== undefined) {
    const of = (document: CountersDocument): number =>
      document.masqueraded.find(({ family }) => family === 'IPv4')?.connections ?? 0;
    assert.equal(of(now) - of(before), expected.masqueraded, 'masqueraded');
  }
  if (expected.refused === undefined) return;
  const [was, is] = [refusals(before), refusals(now)];
  const rest = new Set(is.keys());
  for (const [reason, verdict, packets] of expected.refused) {
    const key = `${reason} ${verdict}`;
    rest.delete(key);
    const grown = (is.get(key) ?? 0) - (was.get(key) ?? 0);
    assert.ok(grown >= packets && grown <= 2 * packets, `${key}: ${grown} packets instead of ${packets}`);
  }
  for (const key of rest) assert.equal((is.get(key) ?? 0) - (was.get(key) ?? 0), 0, `${key} has counted`);
}

/** By endpoint: whoever answered has been counted, as far as it is still an endpoint. */
function compareEndpoints(before: CountersDocument, now: CountersDocument, world: CounterWorld): void {
  for (const { id, pod: name, endpoint, connections } of now.endpoints) {
    const key = Object.keys(services).find((one) => idOf(one) === id);
    if (key === undefined) continue;
    const was = before.endpoints.find((one) => one.id === id && one.endpoint === endpoint)?.connections ?? 0;
    const answered = world.answers.get(`${key} ${name.split('/')[1]}`) ?? 0;
    assert.equal(connections - was, answered, `connections of ${id} to ${name}`);
  }
}

/** One test a case. */
export function playCases(mode: Mode, world: () => CounterWorld): void {
  for (const one of cases) {
    if (one.notIn?.includes(mode) === true) continue;
    test(one.name, async () => {
      const first = await world().read();
      assert.equal(first.source, mode);
      world().answers.clear();
      for (const step of one.steps) await world().play(step);
      const second = await world().read();
      compare(first, second, one.but?.[mode] ?? one.expected);
      if (!one.steps.some((step) => step !== 'read' && 'scale' in step))
        compareEndpoints(first, second, world());
    });
  }
}

/** Runs all cases on the mode, in a lab. */
export function counterSuite(mode: Mode): void {
  const program = buildProgram().slice(0, 2);
  describe(`counters in ${mode} mode`, () => {
    let world: LabWorld;
    let cluster: LabCluster | undefined;

    before(async () => {
      cluster = await startLab(mode, ['--service-counters=endpoints'], program);
      world = new LabWorld(cluster);
      await world.build();
    });
    after(async () => cluster?.close());

    playCases(mode, () => world);

    test('a Service that goes takes its series along; the same name begins anew', async () => {
      const labels = 'namespace="default",service="web",port="http",protocol="TCP",ip_family="IPv4"';
      const series = async (): Promise<string[]> => {
        const { namespaces } = world.cluster.network;
        const { body } = await httpGet(namespaces, 'node-1', 'http://127.0.0.1:10249/metrics', 3000);
        return body.split('\n').filter((line) => line.startsWith('pointsman_') && line.includes(labels));
      };
      assert.ok((await series()).some((line) => line.startsWith('pointsman_endpoint_connections_total')));
      await world.cluster.client.delete('Service', 'web', 'default');
      await eventually('no series of the Service', async () => (await series()).length === 0);
    });
  });
}
