/** The machine of the benchmark: the lab's network with one node, the API server and the watcher as own processes. */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LabNetwork } from '../../src/lab/net/network.ts';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { apiAddresses } from '../../src/lab/net/layout.ts';
import { Peer } from './channel.ts';

const here = new URL('.', import.meta.url).pathname;
const nodeName = 'node-1';

export const serverPod = { name: 'server', node: nodeName, ip: '10.244.1.10' } as const;
export const clientPod = { name: 'client', node: nodeName, ip: '10.244.1.11' } as const;

export interface StageOptions {
  readonly mode: string;
  /** Bundle of our own program. */
  readonly program: string;
  readonly minSyncPeriod: string;
}

export class Stage {
  readonly network = new LabNetwork({ nodes: 1 }, [serverPod, clientPod]);
  readonly directory = makeOwnedDirectory('bench');
  readonly api: Peer;
  readonly watcher: Peer;
  readonly config = join(this.directory, 'config.conf');
  private readonly options: StageOptions;

  constructor(options: StageOptions) {
    this.options = options;
    this.api = this.helper('api', 'apiServer.ts', [apiAddresses[0], this.directory]);
    this.watcher = this.helper(nodeName, 'kernelWatcher.ts', []);
    const { mode, minSyncPeriod } = options;
    writeFileSync(
      this.config,
      `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: ${mode}
hostnameOverride: ${nodeName}
clusterCIDR: 10.128.0.0/9
clientConnection: {kubeconfig: ${join(this.directory, 'kubeconfig')}, contentType: application/vnd.kubernetes.protobuf}
${mode === 'userspace' ? 'iptables' : mode}: {minSyncPeriod: ${minSyncPeriod}}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`,
    );
  }

  /** Fills the API server. */
  async load(services: number, endpoints: number): Promise<void> {
    const { addresses } = this.network.node(nodeName);
    await this.api.ask('load', { services, endpoints, node: nodeName, nodeIP: addresses[0] });
  }

  /** Our own program, as a user would start it, but with a clock in it. */
  startOwn(nodeFlags: readonly string[] = []): Peer {
    return this.startProxy([
      process.execPath,
      ...nodeFlags,
      '--import',
      join(here, 'takeTimes.mjs'),
      this.options.program,
      'run',
      `--config=${this.config}`,
      '--socket-path=',
    ]);
  }

  /** Any kube-proxy; `{config}` is replaced. */
  startProxy(argv: readonly string[]): Peer {
    const command = argv.map((word) => word.replaceAll('{config}', this.config));
    return new Peer(this.network.namespaces.command(nodeName, command), {
      ...process.env,
      XTABLES_LOCKFILE: join(this.directory, 'xtables.lock'),
    });
  }

  /** A script of this folder in one of the namespaces. */
  helper(namespace: string, script: string, args: readonly string[]): Peer {
    const argv = [process.execPath, '--import', 'tsx', join(here, script), ...args];
    return new Peer(this.network.namespaces.command(namespace, argv));
  }

  /** Runs a program on the node to its end. */
  onNode(argv: readonly string[]): string {
    const { status, stdout, stderr } = this.network.namespaces.run(nodeName, argv);
    if (status !== 0) throw new Error(`${argv.join(' ')}: ${stderr}`);
    return stdout;
  }

  /** As a fresh node: no rules, no connections on record. */
  clean(): void {
    this.onNode(['nft', 'flush', 'ruleset']);
  }

  async close(): Promise<void> {
    await Promise.all([this.api.stop('SIGKILL'), this.watcher.stop('SIGKILL')]);
    this.network.close();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
