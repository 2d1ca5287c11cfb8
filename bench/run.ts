/**
 * A cluster of N Services with M endpoints each, and what it costs a proxy: the start, one changed endpoint, memory,
 * a rolling update, a restart, connections. Everything runs in network namespaces of its own; the proxy is started as
 * a user would start it and watches the lab's API server over TLS.
 *
 *   npm run bench -- --mode iptables --services 1000 --endpoints 10 [--changes 100] [--runs 1]
 *                    [--proxy 'kube-proxy --config={config}'] [--connections] [--json]
 */
import { execFileSync } from 'node:child_process';
import { rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { makeOwnedDirectory } from '../src/lab/net/ownedDirectory.ts';
import { splitCommand } from '../src/lab/scenario/proxyProcess.ts';
import { measure, type Plan, type Result } from './cluster/measure.ts';
import { median } from './cluster/statistics.ts';
import { printResults } from './cluster/print.ts';
import { Stage } from './cluster/stage.ts';

const { values } = parseArgs({
  options: {
    mode: { type: 'string', default: 'iptables' },
    services: { type: 'string', default: '1000' },
    endpoints: { type: 'string', default: '10' },
    /** Of each kind: replaced, added, removed. */
    changes: { type: 'string', default: '100' },
    /** Runs of the whole; the median of each figure's runs counts. */
    runs: { type: 'string', default: '1' },
    /** 0s would mean the mode's default. */
    'min-sync-period': { type: 'string', default: '1ms' },
    /** Seconds. */
    'start-timeout': { type: 'string', default: '600' },
    'no-rolling-update': { type: 'boolean', default: false },
    'no-restart': { type: 'boolean', default: false },
    connections: { type: 'boolean', default: false },
    families: { type: 'string', default: '2' },
    /** A built program instead of a fresh build. */
    program: { type: 'string' },
    /** Flags for Node; by default those of the launcher. E.g. --node-flags=--cpu-prof */
    'node-flags': { type: 'string', default: '--max-semi-space-size=4' },
    proxy: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});

const root = new URL('..', import.meta.url).pathname;
const plan: Plan = {
  services: Number(values.services),
  endpoints: Number(values.endpoints),
  changes: values.mode === 'userspace' ? 0 : Number(values.changes),
  families: Number(values.families),
  startTimeout: Number(values['start-timeout']) * 1000,
  rollingUpdate: !values['no-rolling-update'] && values.mode !== 'userspace',
  restart: !values['no-restart'],
  connections: values.connections,
};

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** The program as it is installed: bundled, its dependencies beside it. */
function build(directory: string): string {
  say('building');
  execFileSync(process.execPath, ['scripts/build.mjs'], {
    cwd: root,
    env: { ...process.env, OUTDIR: join(directory, 'dist') },
  });
  symlinkSync(join(root, 'node_modules'), join(directory, 'node_modules'));
  symlinkSync(join(root, 'package.json'), join(directory, 'package.json'));
  return join(directory, 'dist', 'main.js');
}

/** Of several runs, the one whose start is the median; figures of one run belong together. */
function medianRun(results: readonly Result[]): Result {
  const middle = median(results.map(({ start }) => start.milliseconds));
  const found = results.find(({ start }) => start.milliseconds === middle);
  if (found === undefined) throw new Error('no run was measured');
  return found;
}

const { mode } = values;
if (mode !== 'iptables' && mode !== 'nftables' && mode !== 'userspace') {
  say(
    `--mode ${mode}: the kernel's notices of rules tell the times, so that is iptables, nftables, or userspace (its start only: see bench/userspace.ts and bench/userspaceLoad.ts; bench/ipvs.ts)`,
  );
  process.exit(2);
}
const directory = makeOwnedDirectory('bench-build');
let stage: Stage | undefined;
try {
  const program = values.program ?? build(directory);
  stage = new Stage({ mode, program, minSyncPeriod: values['min-sync-period'] });
  const begun = stage;
  await Promise.all([begun.api.ready, begun.watcher.ready]);
  say(`loading ${plan.services} services x ${plan.endpoints} endpoints into the API server`);
  await begun.load(plan.services, plan.endpoints);
  const nodeFlags = splitCommand(values['node-flags']);
  const proxies: { name: string; results: Result[]; run: () => Promise<Result> }[] = [
    {
      name: 'pointsman',
      results: [],
      run: () => measure(begun, () => begun.startOwn(nodeFlags), true, plan),
    },
  ];
  if (values.proxy !== undefined) {
    const command = splitCommand(values.proxy);
    proxies.push({
      name: command[0] ?? '',
      results: [],
      run: () => measure(begun, () => begun.startProxy(command), false, plan),
    });
  }
  // Turn by turn, so that a busy minute of the machine does not fall on one of them alone.
  for (let run = 1; run <= Number(values.runs); run++) {
    for (const { name, results, run: once } of proxies) {
      say(`run ${run}: ${name}`);
      results.push(await once());
    }
  }
  const report = proxies.map(({ name, results }) => ({ name, result: medianRun(results), runs: results }));
  if (values.json) process.stdout.write(`${JSON.stringify({ mode, plan, report }, null, 2)}\n`);
  else process.stdout.write(printResults(mode, plan, report));
} finally {
  await stage?.close();
  rmSync(directory, { recursive: true, force: true });
}
