/**
 * Run inside a network namespace: a reflector watches over loopback while the firewall drops everything the server
 * sends. Prints, as JSON, after how many milliseconds the silence was noticed and whether the reflector recovered.
 * argv: `probe` (our question finds out) or `keepalive` (the kernel does).
 */
import { execFileSync } from 'node:child_process';
import { loadConnection } from '../../../src/cluster/connection.ts';
import { FakeApiServer } from './fakeApiServer.ts';
import { quick, startReflector, until } from './harness.ts';

const byKernel = process.argv[2] === 'keepalive';
const server = new FakeApiServer({ streamingLists: true, protobuf: true });
await server.listen();
server.put('before');
const port = new URL(server.url).port;
const connection = await loadConnection({
  kubeconfig: '',
  master: server.url,
  env: {},
  timings: { connect: 5000, ...(byKernel ? { keepAlive: 1_000 } : {}) },
});
const harness = await startReflector(server.url, {
  api: { connection, timings: { headers: 5000, probe: 300 } },
  timings: byKernel ? quick : { ...quick, silence: 300 },
});
await until('synced', () => harness.handler.syncedAt >= 0);

const rule = ['OUTPUT', '-p', 'tcp', '--sport', port, '-j', 'DROP'];
execFileSync('iptables', ['-I', ...rule]);
const since = Date.now();
server.put('during');
const wording = byKernel ? 'The watch was cut' : 'silent';
await until('noticed', () => harness.log.lines.some((line) => line.includes(wording)));
const noticed = Date.now() - since;
execFileSync('iptables', ['-D', ...rule]);
server.put('after');
await until('recovered', () => harness.reflector.get('default/after') !== undefined);
const missed = harness.reflector.get('default/during') === undefined;
await harness.close();
await connection.close();
await server.close();
console.log(JSON.stringify({ noticed, missed }));
