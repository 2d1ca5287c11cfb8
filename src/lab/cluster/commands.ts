/** `pointsman lab up|down|status|exec|kubectl`: a lab that stays up in the background. */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, openSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, InvalidArgumentError, Option } from 'commander';
import { positiveInteger, positiveNumber } from '../arguments.ts';
import type { PodAttachment, PodNetwork } from '../net/layout.ts';
import { sweepNamespaces } from '../net/namespaces.ts';
import { podNamespace } from '../net/network.ts';
import type { IptablesVariant } from '../scenario/iptablesVariant.ts';
import { socketOf, splitCommand } from '../scenario/proxyProcess.ts';
import { checkoutScript, findKubectl } from './kubectl.ts';
import { LabCluster } from './labCluster.ts';
import {
  clearState,
  daemonLog,
  defaultLab,
  makeDirectory,
  readState,
  writeState,
  type LabState,
} from './state.ts';
import { programName } from '../../programName.ts';

interface LabFlags {
  readonly name: string;
}

interface UpFlags extends LabFlags {
  readonly nodes: number;
  readonly attach: PodAttachment;
  readonly podNetwork: PodNetwork;
  readonly mode: string;
  readonly iptables?: IptablesVariant;
  readonly proxy?: string;
  readonly timeFactor: number;
}

/** How the lab is named on a command line; nothing for the usual one. */
function named(lab: string): string {
  return lab === defaultLab ? '' : ` --name ${lab}`;
}

function mustRun(lab: string): LabState {
  const state = readState(lab);
  if (state !== undefined) return state;
  const what = lab === defaultLab ? 'no lab is up' : `no lab "${lab}" is up`;
  throw new Error(`${what}; start one with: ${programName} lab up${named(lab)}`);
}

function labName(text: string): string {
  if (/^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$/.test(text)) return text;
  throw new InvalidArgumentError('a name is small letters, digits and dashes, 32 at most.');
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
    timeFactor: flags.timeFactor,
    onError: (message, error) => process.stderr.write(`${message}: ${String(error)}\n`),
  });
  writeState(flags.name, {
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
  clearState(flags.name);
  return 0;
}

async function up(flags: UpFlags): Promise<number> {
  const lab = named(flags.name);
  if (readState(flags.name) !== undefined)
    throw new Error(
      `a lab is up already; end it with: ${programName} lab down${lab}, or give this one a --name of its own`,
    );
  if (process.getuid?.() !== 0)
    throw new Error('the lab makes network namespaces, which only root may do: run it as root');
  sweepNamespaces();
  makeDirectory(flags.name);
  const log = openSync(daemonLog(flags.name), 'a');
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
  // It is in a session of its own, so Ctrl-C does not reach it.
  process.once('SIGINT', () => {
    child.kill('SIGTERM');
    process.exit(130);
  });
  let ended = false;
  child.on('exit', () => {
    ended = true;
  });
  process.stdout.write(
    `Starting a lab of ${flags.nodes} nodes (${flags.mode} mode, Pods by ${flags.attach}, ${flags.podNetwork}) …\n`,
  );
  for (;;) {
    if (readState(flags.name) !== undefined) break;
    if (ended) {
      const said = readFileSync(daemonLog(flags.name), 'utf8').trimEnd();
      clearState(flags.name);
      throw new Error(`the lab did not come up:\n${said}`);
    }
    await sleep(50);
  }
  process.stdout.write(
    `The lab is up. Try:\n` +
      `  ${programName} lab kubectl${lab} create deployment web --image=web --port=8080 --replicas=3\n` +
      `  ${programName} lab kubectl${lab} expose deployment web --port=80 --target-port=8080\n` +
      `  ${programName} lab kubectl${lab} get pods,services,endpointslices -o wide\n` +
      `  ${programName} lab exec${lab} node-1 -- iptables-save -t nat\n` +
      `  ${programName} lab down${lab}\n`,
  );
  return 0;
}

async function down({ name }: LabFlags): Promise<number> {
  const state = readState(name);
  if (state !== undefined) {
    process.kill(state.pid, 'SIGTERM');
    const deadline = Date.now() + 10_000;
    while (readState(name) !== undefined && Date.now() < deadline) await sleep(50);
    if (readState(name) !== undefined) process.kill(state.pid, 'SIGKILL');
    while (readState(name) !== undefined) await sleep(20);
  }
  const swept = sweepNamespaces();
  clearState(name);
  process.stdout.write(state === undefined && swept.length === 0 ? 'No lab was up.\n' : 'The lab is gone.\n');
  return 0;
}

/** `pointsman` means this very one, where no other is installed. */
function withOwnProgram(path: string): string {
  const script = checkoutScript('prepare.sh');
  return script === undefined ? path : `${path}:${dirname(dirname(script))}`;
}

function inLab(state: LabState, where: string, argv: readonly string[]): number {
  const command = ['netns', 'exec', `${state.prefix}${where}`, ...argv];
  // So that `pointsman status` finds the proxy of the node it runs on.
  const socket = socketOf(join(state.directory, where, 'config.conf'));
  const env = {
    ...process.env,
    PATH: withOwnProgram(process.env['PATH'] ?? ''),
    ...(state.nodes.includes(where) && { POINTSMAN_SOCKET: socket }),
  };
  const result = spawnSync('ip', command, { stdio: 'inherit', env });
  if (result.error !== undefined)
    throw new Error('cannot run ip (Debian package iproute2)', { cause: result.error });
  return result.status ?? 255;
}

function kubectl(argv: readonly string[], { name }: LabFlags): number {
  const state = mustRun(name);
  return inLab(state, 'client', [findKubectl(), `--kubeconfig=${state.kubeconfig}`, ...argv]);
}

/** Nodes, `client`, `api`, `router`, `link` go by their names; everything else is a Pod. */
function exec(where: string, argv: readonly string[], { name }: LabFlags): number {
  const state = mustRun(name);
  const known = [...state.nodes, 'client', 'api', 'router', 'link'];
  const command = argv[0] === '--' ? argv.slice(1) : argv;
  const namespace = known.includes(where) ? where : podNamespace(where);
  if (!existsSync(`/run/netns/${state.prefix}${namespace}`))
    throw new Error(
      `there is no Pod "${where}"; there are ${known.join(', ')}, and the Pods of: ${programName} lab kubectl${named(name)} get pods -A`,
    );
  return inLab(state, namespace, command);
}

function status(flags: LabFlags): number {
  const state = mustRun(flags.name);
  process.stdout.write(
    `The lab is up: ${state.nodes.join(', ')}; ${state.mode} mode; Pods joined by ${state.podNetwork}; process ${state.pid}.\n` +
      `Namespaces begin with ${state.prefix}; logs and configuration are in ${state.directory}.\n\n`,
  );
  return kubectl(['get', 'nodes,services,pods', '-A', '-o', 'wide'], flags);
}

export function clusterCommands(setExit: (code: number) => void): Command[] {
  const ofLab = (command: Command): Command =>
    command.addOption(
      new Option('--name <lab>', 'which lab, where several are up')
        .env('POINTSMAN_LAB')
        .default(defaultLab)
        .argParser(labName),
    );
  const withOptions = (command: Command): Command =>
    ofLab(command)
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
      .addOption(
        new Option('--mode <mode>', 'proxy mode')
          .choices(['iptables', 'nftables', 'ipvs', 'userspace'])
          .default('iptables'),
      )
      .addOption(new Option('--iptables <variant>', 'which iptables').choices(['nft', 'legacy']))
      .option('--time-factor <n>', 'multiplies every time-out, for slow machines', positiveNumber, 1)
      .option(
        '--proxy <command>',
        'another proxy: its command line, with {config}, {node} and {socket} in it',
      );
  const passThrough = (command: Command): Command => ofLab(command).allowUnknownOption().passThroughOptions();
  return [
    withOptions(new Command('up').description('start a lab that stays up in the background')).action(
      async (flags: UpFlags) => setExit(await up(flags)),
    ),
    withOptions(new Command('daemon').description('the lab in the background itself')).action(
      async (flags: UpFlags) => setExit(await daemon(flags)),
    ),
    ofLab(new Command('down').description('end it and remove everything')).action(async (flags: LabFlags) =>
      setExit(await down(flags)),
    ),
    ofLab(new Command('status').description('what is up')).action((flags: LabFlags) =>
      setExit(status(flags)),
    ),
    passThrough(new Command('exec'))
      .description('run a command on a node, in a Pod, or as the client outside: exec node-1 -- COMMAND')
      .argument('<where>')
      .argument('<command...>')
      .action((where: string, argv: string[], flags: LabFlags) => setExit(exec(where, argv, flags))),
    passThrough(new Command('kubectl'))
      .description('run kubectl against the lab')
      .argument('[args...]')
      .action((argv: string[], flags: LabFlags) => setExit(kubectl(argv, flags))),
  ];
}
