/** The daemon in a lab, in both modes that count: what was done is what it says, to the connection. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { statSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { dirname } from 'node:path';
import type { LabCluster } from '../../src/lab/cluster/labCluster.ts';
import { httpGet, HttpFailure } from '../../src/lab/net/http.ts';
import { podNamespace } from '../../src/lab/net/network.ts';
import type { ConnectionsDocument } from '../../src/status/connections.ts';
import type { CountersDocument } from '../../src/status/documents.ts';
import {
  clusterIP,
  daemonOf,
  endpointsKnown,
  eventually,
  get,
  hold,
  patience,
  pod,
  pointsman,
  programFromSource,
  repeatSynOnce,
  service,
  socketPath,
  specOf,
  startLab,
} from './support/lab.ts';

const web = 'default/web:http/TCP';

async function freshCounters(cluster: LabCluster): Promise<CountersDocument> {
  // One reading serves for a moment.
  const asked = Date.now();
  return await eventually('a fresh reading', async () => {
    const counters = await daemonOf(cluster).counters();
    return Date.parse(counters.read) > asked ? counters : undefined;
  });
}

function connectionsOf(counters: CountersDocument, id: string): number {
  return counters.services.find((one) => one.id === id)?.connections ?? 0;
}

function refusedBecause(counters: CountersDocument, reason: string): number {
  return counters.refused
    .filter((one) => one.reason === reason)
    .reduce((sum, { packets }) => sum + packets, 0);
}

for (const mode of ['iptables', 'nftables']) {
  describe(`${mode} mode`, () => {
    let cluster: LabCluster;

    before(async () => {
      cluster = await startLab(mode, ['--service-counters=endpoints']);
      const { client } = cluster;
      for (const [name, node] of [
        ['web-1', 'node-1'],
        ['web-2', 'node-2'],
        ['web-3', 'node-2'],
      ] as const)
        await client.apply(pod(name, node, { app: 'web' }));
      await client.apply(pod('caller', 'node-1', { app: 'caller' }));
      const ports = [
        { name: 'http', port: 80, targetPort: 8080 },
        { name: 'raw', port: 90, targetPort: 8080 },
      ];
      await client.apply(service('web', { type: 'NodePort', selector: { app: 'web' }, ports }));
      await client.apply(service('empty', { selector: { app: 'nobody' }, ports: [{ port: 80 }] }));
      const affinity = {
        sessionAffinity: 'ClientIP',
        selector: { app: 'web' },
        ports: [{ port: 80, targetPort: 8080 }],
      };
      await client.apply(service('sticky', affinity));
      await endpointsKnown(cluster, 'web', 3);
      await endpointsKnown(cluster, 'sticky', 3);
      await eventually('the Pods answer', async () => {
        const names = new Set<string>();
        const ip = await clusterIP(cluster, 'web');
        for (let i = 0; i < 12; i++) names.add(await get(cluster, 'caller', ip).catch(() => ''));
        return names.size === 3 && !names.has('');
      });
    });

    after(async () => cluster.close());

    test('every connection is counted, by service port and by endpoint', async () => {
      const ip = await clusterIP(cluster, 'web');
      const first = await freshCounters(cluster);
      assert.equal(first.source, mode);
      const byPod = new Map<string, number>();
      for (let i = 0; i < 30; i++) {
        const name = await get(cluster, 'caller', ip);
        byPod.set(name, (byPod.get(name) ?? 0) + 1);
      }
      const second = await freshCounters(cluster);
      assert.equal(connectionsOf(second, web) - connectionsOf(first, web), 30);
      const now = second.endpoints.filter(({ id }) => id === web);
      assert.deepEqual(now.map((one) => one.pod).sort(), ['default/web-1', 'default/web-2', 'default/web-3']);
      for (const { endpoint, pod: name, connections } of now) {
        const was =
          first.endpoints.find((one) => one.id === web && one.endpoint === endpoint)?.connections ?? 0;
        assert.equal(connections - was, byPod.get(name.split('/')[1] ?? '') ?? 0, `connections to ${name}`);
      }
    });

    test('node ports count for their service port, and masquerading is counted', async () => {
      const spec = await specOf(cluster, 'web');
      const nodePort = Number((spec['ports'] as { nodePort: number }[])[0]?.nodePort);
      const first = await freshCounters(cluster);
      for (let i = 0; i < 5; i++) await get(cluster, 'client', '172.31.0.11', nodePort);
      const second = await freshCounters(cluster);
      assert.equal(connectionsOf(second, web) - connectionsOf(first, web), 5);
      const masqueraded = (counters: CountersDocument): number =>
        counters.masqueraded.find(({ family }) => family === 'IPv4')?.connections ?? 0;
      assert.equal(masqueraded(second) - masqueraded(first), 5);
    });

    test('a connection that nobody serves is counted as rejected, with its reason', async () => {
      const ip = await clusterIP(cluster, 'empty');
      const first = await freshCounters(cluster);
      const { namespaces } = cluster.network;
      const from = podNamespace('caller');
      repeatSynOnce(namespaces, from);
      for (let i = 0; i < 4; i++)
        await assert.rejects(
          httpGet(namespaces, from, `http://${ip}/`, patience['not answered']),
          HttpFailure,
        );
      const second = await freshCounters(cluster);
      // Inside one machine the refusal may come before connect has returned: then the kernel sends the SYN once more.
      const packets = refusedBecause(second, 'no_endpoints') - refusedBecause(first, 'no_endpoints');
      assert.ok(packets >= 4 && packets <= 8, String(packets));
      const [mine] = second.refused.filter(({ id }) => id === 'default/empty:/TCP');
      assert.equal(mine?.verdict, 'reject');
      const { stdout } = pointsman(cluster, 'status', 'default/empty');
      assert.match(stdout, /from inside: {2}rejected: nobody serves it/);
      assert.match(stdout, new RegExp(`${mine?.packets} packets rejected: no endpoints`));
    });

    test('affinity: the service port counts every connection', async () => {
      const ip = await clusterIP(cluster, 'sticky');
      const id = 'default/sticky:/TCP';
      const first = await freshCounters(cluster);
      const names = new Set<string>();
      for (let i = 0; i < 6; i++) names.add(await get(cluster, 'caller', ip));
      assert.equal(names.size, 1);
      const second = await freshCounters(cluster);
      assert.equal(connectionsOf(second, id) - connectionsOf(first, id), 6);
      const hits = second.services.find((one) => one.id === id)?.affinityHits;
      const hitsBefore = first.services.find((one) => one.id === id)?.affinityHits ?? 0;
      assert.equal((hits ?? 0) - hitsBefore, 5);
      const used = second.endpoints.filter((one) => one.id === id && one.connections > 0);
      assert.deepEqual(
        used.map(({ connections }) => connections),
        [6],
      );
    });

    test('the metrics have the same numbers', async () => {
      const counters = await freshCounters(cluster);
      const { body } = await httpGet(
        cluster.network.namespaces,
        'node-1',
        'http://127.0.0.1:10249/metrics',
        30_000,
      );
      const labels = 'namespace="default",service="web",port="http",protocol="TCP",ip_family="IPv4"';
      assert.ok(
        body.includes(`pointsman_service_connections_total{${labels}} ${connectionsOf(counters, web)}\n`),
        body
          .split('\n')
          .filter((line) => line.startsWith('pointsman_'))
          .join('\n'),
      );
      assert.match(body, /pointsman_endpoint_connections_total\{.*endpoint="10\.244\.1\.\d+:8080"\} \d+\n/);
      assert.match(
        body,
        /pointsman_rejected_connections_total\{reason="no_endpoints",verdict="reject",ip_family="IPv4"\} [1-9]/,
      );
      assert.match(body, /pointsman_masqueraded_connections_total\{ip_family="IPv4"\} [1-9]/);
    });

    test('top: conntrack announces the same connections', async () => {
      const ip = await clusterIP(cluster, 'web');
      const running = new AbortController();
      const traffic = (async () => {
        while (!running.signal.aborted) await get(cluster, 'caller', ip);
      })();
      // Synchronous commands would stop the traffic of this very process.
      const top = (source: string): Promise<string> => {
        const [program = '', ...rest] = programFromSource;
        const child = spawn(
          program,
          [...rest, 'top', '--once', '--json', '--interval=1', `--source=${source}`],
          {
            env: { ...process.env, POINTSMAN_SOCKET: socketPath(cluster, 'node-1') },
            stdio: ['ignore', 'pipe', 'inherit'],
          },
        );
        let text = '';
        child.stdout.on('data', (part: Buffer) => (text += part.toString()));
        return new Promise((resolve) => child.once('close', () => resolve(text)));
      };
      try {
        for (const source of ['rules', 'conntrack']) {
          const rates = JSON.parse(await top(source)) as {
            connections: number;
            services: { id: string; perSecond: number; endpoints: { perSecond: number }[] }[];
          };
          const mine = rates.services.find(({ id }) => id === web);
          assert.ok(mine !== undefined && mine.perSecond > 0, `${source}: ${JSON.stringify(rates)}`);
          const endpoints = mine.endpoints.reduce((sum, { perSecond }) => sum + perSecond, 0);
          // Maps are read one after the other, while connections go on.
          const tolerance = source === 'rules' ? 0.1 * mine.perSecond : 0.001;
          assert.ok(
            Math.abs(endpoints - mine.perSecond) <= tolerance,
            `${source}: ${endpoints} of ${mine.perSecond}`,
          );
        }
      } finally {
        running.abort();
        await traffic;
      }
    });

    test('status says what there is, changes say how long they took', async () => {
      const { code, stdout, stderr } = pointsman(cluster, 'status');
      assert.equal(code, 0, stderr);
      assert.match(stdout, new RegExp(`^node-1 {2}${mode} mode {2}healthy\n`));
      assert.match(stdout, /\nSync IPv4: last .* ago \((partial|full), .*\); \d+ syncs, none failed\n/);
      const { changes } = await daemonOf(cluster).changes({ namespace: 'default', service: 'web' });
      assert.ok(changes.length > 0);
      for (const { applied, milliseconds, received } of changes) {
        assert.ok(applied !== null && milliseconds !== null);
        assert.ok(milliseconds >= 0 && milliseconds < 60_000, `${received}: ${milliseconds}`);
      }
      assert.ok(changes.some(({ triggered }) => triggered !== null));
      assert.equal(pointsman(cluster, 'status', 'default/nobody-knows-it').code, 4);
    });

    test('objects and configuration are what the routes were made from', async () => {
      const { services, slices, node } = await daemonOf(cluster).objects({ service: 'web' });
      assert.equal(node?.meta.name, 'node-1');
      const [only] = services;
      assert.equal(services.length, 1);
      assert.equal(only?.type, 'NodePort');
      assert.deepEqual(only?.ports.map(({ name }) => name).sort(), ['http', 'raw']);
      assert.deepEqual(
        slices.map(({ endpoints }) => endpoints.length),
        [3, 3],
      );
      const { options, mode: said } = await daemonOf(cluster).config();
      assert.equal(said, mode);
      assert.deepEqual(
        options.map(({ family }) => family),
        ['IPv4', 'IPv6'],
      );
    });

    test('the socket and its directory are the owner’s alone', () => {
      const path = socketPath(cluster, 'node-1');
      assert.equal(statSync(path).mode & 0o777, 0o600);
      assert.ok(statSync(dirname(path)).isDirectory());
    });

    test('a client that hangs on an endpoint that is gone is found', async () => {
      const ip = await clusterIP(cluster, 'web');
      const held = await hold(cluster, 'caller', ip, 90);
      try {
        const before = pointsman(cluster, 'status', '--connections', '--json');
        assert.equal(before.code, 0, before.stderr);
        const { services, findings } = JSON.parse(before.stdout) as ConnectionsDocument & {
          findings: string[];
        };
        const mine = services.find(({ id }) => id === 'default/web:raw/TCP');
        assert.equal(mine?.open, 1);
        assert.deepEqual(findings, []);
        const name = mine?.endpoints.find(({ open }) => open === 1)?.pod.split('/')[1] ?? '';
        // The Pod goes on, but the Service has lost it: nothing ends the connection.
        await cluster.client.patch('Pod', name, { metadata: { labels: { app: 'other' } } }, 'default');
        await eventually('the endpoint is gone', async () => {
          const [table] = await daemonOf(cluster).tables({ service: 'web' });
          return [...(table?.routes.values() ?? [])].every(({ endpoints }) => endpoints.length === 2);
        });
        const { stdout } = pointsman(cluster, 'status', '--connections');
        assert.match(
          stdout,
          /! default\/web:raw\/TCP: 1 open to 10\.244\.\d\.\d+:8080, which is gone: 10\.244\.1\.\d+/,
        );
      } finally {
        held.close();
      }
    });
  });
}
