/** A lab cluster whose proxies count, and connections made in it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { LabCluster } from '../../../src/lab/cluster/labCluster.ts';
import { httpGet } from '../../../src/lab/net/http.ts';
import type { Namespaces } from '../../../src/lab/net/namespaces.ts';
import { podNamespace } from '../../../src/lab/net/network.ts';
import { connect, openClient } from '../../../src/lab/net/sockets.ts';
import { asText, isObject, type JsonObject } from '../../../src/lab/scenario/generate.ts';
import { DaemonClient } from '../../../src/status/client.ts';

const root = new URL('../../..', import.meta.url).pathname;
export const programFromSource = [process.execPath, '--import', 'tsx', join(root, 'src/main.ts')];

const inGuest = process.env['POINTSMAN_VM'] !== undefined;

export async function startLab(
  mode: string,
  flags: readonly string[] = [],
  program: readonly string[] = programFromSource,
): Promise<LabCluster> {
  return await LabCluster.create({
    nodes: 2,
    attachment: 'bridge',
    podNetwork: 'routes',
    mode,
    iptables: undefined,
    proxyCommand: [...program, 'run', '--config={config}', '--socket-path={socket}', ...flags],
    // In the guest a program takes ten times as long to start.
    ...(inGuest && { timeFactor: 6 }),
    onError: (message, error) => process.stderr.write(`${message}: ${String(error)}\n`),
  });
}

export function socketPath(cluster: LabCluster, node: string): string {
  return join(cluster.directory, node, 'pointsman.sock');
}

export function daemonOf(cluster: LabCluster, node = 'node-1'): DaemonClient {
  return new DaemonClient({ socketPath: socketPath(cluster, node) });
}

export interface CommandResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** `pointsman ARGS` as a user on the machine types it, against the daemon of a node. */
export function pointsman(cluster: LabCluster, ...args: string[]): CommandResult {
  const [program = '', ...rest] = [...programFromSource, ...args];
  const { status, stdout, stderr } = spawnSync(program, rest, {
    encoding: 'utf8',
    timeout: 300_000,
    env: { ...process.env, POINTSMAN_SOCKET: socketPath(cluster, 'node-1') },
  });
  return { code: status, stdout, stderr };
}

export function pod(name: string, node: string, labels: JsonObject): JsonObject {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels },
    spec: {
      nodeName: node,
      containers: [
        {
          name: 'server',
          image: 'lab/server',
          ports: [{ name: 'http', containerPort: 8080 }],
        },
      ],
    },
  };
}

export function service(name: string, spec: JsonObject): JsonObject {
  return { apiVersion: 'v1', kind: 'Service', metadata: { name, namespace: 'default' }, spec };
}

/** Milliseconds. Where no answer is expected: too short for a second SYN, unless the machine is busy. */
export const patience = { answered: 30_000, 'not answered': 600 };

/** Clients in the namespace give up after two SYNs, however busy the machine is. */
export function repeatSynOnce(namespaces: Pick<Namespaces, 'enter'>, namespace: string): void {
  namespaces.enter(namespace, () => writeFileSync('/proc/sys/net/ipv4/tcp_syn_retries', '1'));
}

export async function eventually<T>(what: string, ask: () => Promise<T | undefined | false>): Promise<T> {
  const deadline = Date.now() + (inGuest ? 100_000 : 90_000);
  for (;;) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    if (Date.now() > deadline) throw new Error(`${what} did not happen in time`);
    await sleep(50);
  }
}

export async function specOf(cluster: LabCluster, name: string): Promise<JsonObject> {
  const { spec } = await cluster.client.get('Service', name);
  assert.ok(isObject(spec));
  return spec;
}

export async function clusterIP(cluster: LabCluster, name: string): Promise<string> {
  return asText((await specOf(cluster, name))['clusterIP']);
}

/** Until the daemon of the node has so many ready endpoints for the service port. */
export async function endpointsKnown(
  cluster: LabCluster,
  name: string,
  ready: number,
  node = 'node-1',
): Promise<void> {
  await eventually(`${ready} ready endpoints of ${name}`, async () => {
    const tables = await daemonOf(cluster, node).tables({ namespace: 'default', service: name });
    const routes = tables.flatMap(({ routes: all }) => [...all.values()]);
    return (
      routes.length > 0 &&
      routes.every(({ endpoints }) => endpoints.filter((one) => one.ready).length === ready)
    );
  });
}

/** One HTTP request from a Pod; the name of the Pod that answered. */
export async function get(cluster: LabCluster, from: string, ip: string, port = 80): Promise<string> {
  const { namespaces } = cluster.network;
  const where =
    cluster.network.nodes.some(({ name }) => name === from) || from === 'client' ? from : podNamespace(from);
  const answer = await httpGet(namespaces, where, `http://${ip}:${port}/`, patience.answered);
  assert.equal(answer.status, 200);
  return answer.headers['x-pod'] ?? '';
}

/** A connection from a Pod that stays open and says nothing. */
export async function hold(
  cluster: LabCluster,
  from: string,
  ip: string,
  port: number,
): Promise<{ close(): void }> {
  const to = { ip, port };
  const fd = cluster.network.namespaces.enter(podNamespace(from), () => {
    const made = openClient('tcp', to, undefined);
    connect(made, to);
    return made;
  });
  const socket = new Socket({ fd, readable: true, writable: true });
  socket.on('error', () => undefined);
  await sleep(100);
  return { close: () => void socket.destroy() };
}
