/** The free lab: a small cluster to play with. Nodes, an API server with controllers, a kubelet, and a proxy on each node. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { httpGet, HttpFailure } from '../net/http.ts';
import { apiAddresses, type PodAttachment, type PodNetwork } from '../net/layout.ts';
import { LabNetwork } from '../net/network.ts';
import { Relay } from '../net/relay.ts';
import { ApiClient } from '../scenario/apiClient.ts';
import type { JsonObject } from '../scenario/generate.ts';
import { iptablesEnvironment, type IptablesVariant } from '../scenario/iptablesVariant.ts';
import { kubeconfig, type LabApi } from '../scenario/labApi.ts';
import { ownProxyCommand, ProxyProcess } from '../scenario/proxyProcess.ts';
import { nodeObject, proxyConfig } from '../scenario/world.ts';
import { startFullApi } from './fullApi.ts';
import { Kubelet } from './kubelet.ts';

export const labApiAddress = `${apiAddresses[0]}:6443`;

/** How long a proxy may take to be healthy, and one answer of its, in milliseconds. */
const startTime = 30_000;
const httpTime = 500;

export interface LabClusterOptions {
  readonly nodes: number;
  readonly attachment: PodAttachment;
  readonly podNetwork: PodNetwork;
  readonly mode: string;
  readonly iptables: IptablesVariant | undefined;
  /** Undefined: this program. */
  readonly proxyCommand: readonly string[] | undefined;
  /** Merged into the proxies' configuration. */
  readonly config?: JsonObject;
  /** Multiplies time-outs, for slow machines; default 1. */
  readonly timeFactor?: number;
  readonly onError: (message: string, error: unknown) => void;
  /** Called for each HTTP request a Pod answers. */
  readonly onRequest?: (pod: string) => void;
}

export class LabCluster {
  readonly network: LabNetwork;
  /** Configuration files and logs. */
  readonly directory: string;
  readonly client: ApiClient;
  readonly env: NodeJS.ProcessEnv;
  readonly kubeconfigFile: string;
  readonly proxies = new Map<string, ProxyProcess>();
  private readonly options: LabClusterOptions;
  private readonly api: LabApi;
  private readonly relay: Relay;
  private readonly kubelet: Kubelet;

  private constructor(options: LabClusterOptions, api: LabApi) {
    this.options = options;
    this.api = api;
    this.client = new ApiClient(api.access);
    const { nodes, attachment, podNetwork } = options;
    this.network = new LabNetwork({ nodes, attachment, podNetwork });
    this.directory = this.network.namespaces.directory;
    this.env = iptablesEnvironment(options.iptables, join(this.directory, 'bin'));
    this.kubeconfigFile = join(this.directory, 'kubeconfig');
    writeFileSync(this.kubeconfigFile, kubeconfig(api, labApiAddress, 'admin'), { mode: 0o600 });
    const doors = apiAddresses.map((ip) => ({ ip, port: 6443 }));
    this.relay = new Relay(this.network.namespaces, 'api', doors, api.port);
    this.kubelet = new Kubelet(this.network, this.client, {
      onError: options.onError,
      ...(options.onRequest === undefined ? {} : { onRequest: options.onRequest }),
    });
  }

  /** Builds the cluster; resolves when every proxy is healthy. */
  static async create(options: LabClusterOptions): Promise<LabCluster> {
    const api = await startFullApi({ controllers: true });
    let cluster: LabCluster | undefined;
    try {
      cluster = new LabCluster(options, api);
      await cluster.start();
      return cluster;
    } catch (error) {
      await (cluster === undefined ? api.close() : cluster.close());
      throw error;
    }
  }

  private async start(): Promise<void> {
    this.relay.open();
    for (const node of this.network.nodes) await this.client.apply(nodeObject(node, undefined));
    this.kubelet.start();
    for (const node of this.network.nodes) this.startProxy(node.name);
    await Promise.all(this.network.nodes.map((node) => this.healthy(node.name, node.addresses[0])));
  }

  private startProxy(node: string): void {
    const directory = join(this.directory, node);
    mkdirSync(directory, { recursive: true });
    const configFile = join(directory, 'config.conf');
    const config = proxyConfig(
      { config: this.options.config ?? {} },
      this.options.mode,
      node,
      this.kubeconfigFile,
    );
    writeFileSync(configFile, JSON.stringify(config, null, 2));
    const proxy = new ProxyProcess({
      namespaces: this.network.namespaces,
      node,
      command: this.options.proxyCommand ?? ownProxyCommand(),
      configFile,
      logFile: join(directory, 'proxy.log'),
      env: this.env,
    });
    this.proxies.set(node, proxy);
    proxy.start();
  }

  private async healthy(node: string, address: string): Promise<void> {
    const factor = this.options.timeFactor ?? 1;
    const deadline = Date.now() + startTime * factor;
    for (;;) {
      try {
        const answer = await httpGet(
          this.network.namespaces,
          node,
          `http://${address}:10256/healthz`,
          httpTime * factor,
        );
        if (answer.status === 200) return;
      } catch (error) {
        if (!(error instanceof HttpFailure)) throw error;
      }
      const proxy = this.proxies.get(node);
      if (proxy?.running !== true || Date.now() > deadline) {
        const state =
          proxy?.running === true
            ? `was not healthy after ${(startTime * factor) / 1000} s (a slow machine? --time-factor)`
            : 'does not run';
        throw new Error(`the proxy of ${node} ${state}; its last words:\n${proxy?.lastWords() ?? ''}`);
      }
      await sleep(20);
    }
  }

  async close(): Promise<void> {
    this.kubelet.stop();
    await Promise.all([...this.proxies.values()].map((proxy) => proxy.stop('SIGKILL')));
    this.relay.shut();
    await this.client.close();
    await this.api.close();
    this.network.close();
  }
}
