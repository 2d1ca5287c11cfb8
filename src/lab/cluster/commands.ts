/** `pointsman lab up|down|status|exec|kubectl`: a lab that stays up in the background. */
import { spawn, spawnSync } from 'node:child_process';
import { openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, Option } from 'commander';
import { positiveInteger } from '../arguments.ts';
import type { PodAttachment, PodNetwork } from '../net/layout.ts';
import { sweepNamespaces } from '../net/namespaces.ts';
import { podNamespace } from '../net/network.ts';
import type { IptablesVariant } from '../scenario/iptablesVariant.ts';
import { socketOf, splitCommand } from '../scenario/proxyProcess.ts';
import { findKubectl } from './kubectl.ts';
import { LabCluster } from './labCluster.ts';
import { clearState, daemonLog, makeDirectory, readState, writeState, type LabState } from './state.ts';

interface UpFlags {
  readonly nodes: number;
  readonly attach: PodAttachment;
  readonly podNetwork: PodNetwork;
  readonly mode: string;
  readonly iptables?: IptablesVariant;
  readonly proxy?: string;
}

function mustRun(): LabState {
  const state = readState();
  if (state === undefined) throw new Error('no lab is up; start one with: pointsman lab up');
  return state;
}

/** The lab itself: stays until it is told to end. */
async function daemon(flags: UpFlags): Promise<number> {
  const told = new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => resolve());
  });
  const cluster = await LabCluster.create({
    nodes: flags.nodes,
    attachment: flags.attach,
    podNetwork: flags.podNetwork,
    mode: flags.mode,
    iptables: flags.iptables,
    proxyCommand: flags.proxy === undefined ? undefined : splitCommand(flags.proxy),
    onError: (message, error) => process.stderr.write(`${message}: ${String(error)}\n`),
  });
  writeState({
    pid: process.pid,
    prefix: cluster.network.namespaces.prefix,
    nodes: cluster.network.nodes.map((node) => node.name),
    mode: flags.mode,
    podNetwork: flags.podNetwork,
    directory: cluster.directory,
    kubeconfig: cluster.kubeconfigFile,
  });
  await told;
  await cluster.close();
  clearState();
  return 0;
}

async function up(flags: UpFlags): Promise<number> {
  if (readState() !== undefined) throw new Error('a lab is up already; end it with: pointsman lab down');
  sweepNamespaces();
  makeDirectory();
  const log = openSync(daemonLog, 'a');
  const own = [...process.execArgv, process.argv[1] ?? ''];
  const options = Object.entries(flags).flatMap(([name, value]) => [
    `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`,
    String(value),
  ]);
  const child = spawn(process.execPath, [...own, 'lab', 'daemon', ...options], {
    detached: true,
    stdio: ['ignore', log, log],
  });
  child.unref();
  let ended = false;
  child.on('exit', () => {
    ended = true;
  });
  process.stdout.write(
    `Starting a lab of ${flags.nodes} nodes (${flags.mode} mode, Pods by ${flags.attach}, ${flags.podNetwork}) …\n`,
  );
  for (;;) {
    const state = readState();
    if (state !== undefined) break;
    if (ended) throw new Error(`the lab did not come up:\n${readFileSync(daemonLog, 'utf8')}`);
    await sleep(50);
  }
  process.stdout.write(
    `The lab is up. Try:\n` +
      `  pointsman lab kubectl create deployment web --image=web --port=8080 --replicas=3\n` +
      `  pointsman lab kubectl expose deployment web --port=80 --target-port=8080\n` +
      `  pointsman lab kubectl get pods,services,endpointslices -o wide\n` +
      `  pointsman lab exec node-1 -- iptables-save -t nat\n` +
      `  pointsman lab down\n`,
  );
  return 0;
}

async function down(): Promise<number> {
  const state = readState();
  if (state !== undefined) {
    process.kill(state.pid, 'SIGTERM');
    const deadline = Date.now() + 10_000;
    while (readState() !== undefined && Date.now() < deadline) await sleep(50);
    if (readState() !== undefined) process.kill(state.pid, 'SIGKILL');
    while (readState() !== undefined) await sleep(20);
  }
  const swept = sweepNamespaces();
  clearState();
  process.stdout.write(state === undefined && swept.length === 0 ? 'No lab was up.\n' : 'The lab is gone.\n');
  return 0;
}

function inLab(state: LabState, where: string, argv: readonly string[]): number {
  const command = ['netns', 'exec', `${state.prefix}${where}`, ...argv];
  // So that `pointsman status` finds the proxy of the node it runs on.
  const socket = socketOf(join(state.directory, where, 'config.conf'));
  const env = state.nodes.includes(where) ? { ...process.env, POINTSMAN_SOCKET: socket } : process.env;
  const result = spawnSync('ip', command, { stdio: 'inherit', env });
  if (result.error !== undefined)
    throw new Error('cannot run ip (Debian package iproute2)', { cause: result.error });
  return result.status ?? 255;
}

function kubectl(argv: readonly string[]): number {
  const state = mustRun();
  return inLab(state, 'client', [findKubectl(), `--kubeconfig=${state.kubeconfig}`, ...argv]);
}

/** Nodes, `client`, `api`, `router`, `link` go by their names; everything else is a Pod. */
function exec(where: string, argv: readonly string[]): number {
  const state = mustRun();
  const known = [...state.nodes, 'client', 'api', 'router', 'link'];
  const command = argv[0] === '--' ? argv.slice(1) : argv;
  return inLab(state, known.includes(where) ? where : podNamespace(where), command);
}

function status(): number {
  const state = mustRun();
  process.stdout.write(
    `The lab is up: ${state.nodes.join(', ')}; ${state.mode} mode; Pods joined by ${state.podNetwork}; process ${state.pid}.\n` +
      `Namespaces begin with ${state.prefix}; logs and configuration are in ${state.directory}.\n\n`,
  );
  return kubectl(['get', 'nodes,services,pods', '-A', '-o', 'wide']);
}

export function clusterCommands(setExit: (code: number) => void): Command[] {
  const withOptions = (command: Command): Command =>
    command
      .option('--nodes <n>', 'number of nodes', positiveInteger, 2)
      .addOption(
        new Option('--attach <how>', 'how Pods are attached to their node')
          .choices(['route', 'bridge'])
          .default('bridge'),
      )
      .addOption(
        new Option('--pod-network <how>', "how the nodes' Pod networks are joined")
          .choices(['routes', 'vxlan'])
          .default('routes'),
      )
      .option('--mode <mode>', 'proxy mode', 'iptables')
      .addOption(new Option('--iptables <variant>', 'which iptables').choices(['nft', 'legacy']))
      .option('--proxy <command>', 'another proxy: its command line, with {config} and {node} in it');
  const passThrough = (command: Command): Command =>
    command.allowUnknownOption().passThroughOptions().helpOption(false);
  return [
    withOptions(new Command('up').description('start a lab that stays up in the background')).action(
      async (flags: UpFlags) => setExit(await up(flags)),
    ),
    withOptions(new Command('daemon').description('the lab in the background itself')).action(
      async (flags: UpFlags) => setExit(await daemon(flags)),
    ),
    new Command('down').description('end it and remove everything').action(async () => setExit(await down())),
    new Command('status').description('what is up').action(() => setExit(status())),
    passThrough(new Command('exec'))
      .description('run a command on a node, in a Pod, or as the client outside: exec node-1 -- COMMAND')
      .argument('<where>')
      .argument('<command...>')
      .action((where: string, argv: string[]) => setExit(exec(where, argv))),
    passThrough(new Command('kubectl'))
      .description('run kubectl against the lab')
      .argument('[args...]')
      .action((argv: string[]) => setExit(kubectl(argv))),
  ];
}
