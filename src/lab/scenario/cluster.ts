/** The small world of one scenario run: network, API server, Pods, proxies. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { canonicalIp, isV6, type SocketAddress } from '../net/address.ts';
import { httpGet, HttpFailure } from '../net/http.ts';
import { apiAddresses, nodeOwnAddresses } from '../net/layout.ts';
import { LabNetwork, podNamespace } from '../net/network.ts';
import { Relay } from '../net/relay.ts';
import { parsePodPort, startEchoServer, type EchoServer } from '../pod/echoServer.ts';
import { openConnection } from '../probe/connection.ts';
import type { ProbeContext } from '../probe/probe.ts';
import { ApiClient } from './apiClient.ts';
import { asText, isObject } from './generate.ts';
import { iptablesEnvironment, type IptablesVariant } from './iptablesVariant.ts';
import { kubeconfig, startApi, type ApiKind, type LabApi } from './labApi.ts';
import { ProxyProcess } from './proxyProcess.ts';
import type { Scenario, ScenarioMode, ScenarioPod } from './types.ts';
import {
  kubernetesService,
  markerAddresses,
  markerObjects,
  markerPlace,
  markerTargets,
  nodeObject,
  proxyConfig,
  serviceCidr,
} from './world.ts';

/** ms: a proxy has so long for a change. */
const settleTime = 20_000;
const startTime = 20_000;
const apiPort = 6443;
const inParallel = 8;

export interface RunOptions {
  readonly mode: ScenarioMode;
  /** The proxy's command line with `{config}` and `{node}`. */
  readonly proxyCommand: readonly string[];
  readonly iptables: IptablesVariant | undefined;
  readonly api: ApiKind;
  readonly timeFactor: number;
}

async function eachInParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < items.length) await work(items[next++] as T);
  };
  await Promise.all(Array.from({ length: Math.min(inParallel, items.length) }, worker));
}

export class ScenarioCluster {
  readonly scenario: Scenario;
  readonly options: RunOptions;
  readonly network: LabNetwork;
  readonly directory: string;
  readonly env: NodeJS.ProcessEnv;
  readonly client: ApiClient;
  readonly proxies = new Map<string, ProxyProcess>();
  private readonly pods = new Map<string, ScenarioPod>();
  private readonly servers: EchoServer[] = [];
  private readonly api: LabApi;
  private readonly relay: Relay;
  private marker = 0;
  private apiIsUp = true;

  private constructor(scenario: Scenario, options: RunOptions, api: LabApi) {
    this.scenario = scenario;
    this.options = options;
    this.api = api;
    this.client = new ApiClient(api.access);
    this.network = new LabNetwork(
      {},
      scenario.pods.filter((pod) => !pod.hostNetwork),
    );
    this.directory = this.network.namespaces.directory;
    this.env = iptablesEnvironment(options.iptables, join(this.directory, 'bin'));
    const doors: SocketAddress[] = apiAddresses.map((ip) => ({ ip, port: apiPort }));
    this.relay = new Relay(this.network.namespaces, 'api', doors, api.port);
  }

  /** Builds the world up to the point where the proxies may start. */
  static async create(scenario: Scenario, options: RunOptions): Promise<ScenarioCluster> {
    const api = await startApi(options.api);
    let cluster: ScenarioCluster | undefined;
    try {
      cluster = new ScenarioCluster(scenario, options, api);
      await cluster.prepare();
      return cluster;
    } catch (error) {
      await (cluster === undefined ? api.close() : cluster.close());
      throw error;
    }
  }

  private async prepare(): Promise<void> {
    this.relay.open();
    for (const pod of this.scenario.pods) this.servePod(pod);
    const marker = markerTargets.map((port) => ({ kind: 'tcp' as const, port }));
    this.servers.push(
      startEchoServer(this.network.namespaces, { name: 'api', namespace: 'api', ports: marker }),
    );
    const nodes = this.network.nodes.map((node) => nodeObject(node, this.scenario.nodes[node.name]));
    await eachInParallel([...nodes, serviceCidr, kubernetesService], (object) => this.client.apply(object));
    await eachInParallel(this.scenario.objects, (object) => this.client.apply(object));
    await this.moveMarker();
    for (const node of this.scenario.proxies) this.addProxy(node);
  }

  private servePod(pod: ScenarioPod): void {
    this.pods.set(pod.name, pod);
    this.servers.push(
      startEchoServer(this.network.namespaces, {
        name: pod.name,
        namespace: pod.hostNetwork ? pod.node : podNamespace(pod.name),
        ports: pod.ports.map(parsePodPort),
        ranges: pod.ranges,
      }),
    );
  }

  private addProxy(node: string): void {
    this.network.node(node);
    const directory = join(this.directory, node);
    mkdirSync(directory);
    const kubeconfigFile = join(directory, 'kubeconfig.conf');
    writeFileSync(kubeconfigFile, kubeconfig(this.api, `${apiAddresses[0]}:${apiPort}`, 'kube-proxy'), {
      mode: 0o600,
    });
    const configFile = join(directory, 'config.conf');
    const config = proxyConfig(this.scenario, this.options.mode, node, kubeconfigFile);
    writeFileSync(configFile, JSON.stringify(config, null, 2));
    this.proxies.set(
      node,
      new ProxyProcess({
        namespaces: this.network.namespaces,
        node,
        command: this.options.proxyCommand,
        configFile,
        logFile: join(directory, 'proxy.log'),
        env: this.env,
      }),
    );
  }

  proxy(node: string): ProxyProcess {
    const proxy = this.proxies.get(node);
    if (proxy !== undefined) return proxy;
    this.addProxy(node);
    return this.proxy(node);
  }

  /** A further Pod, in the middle of a run. */
  listen(pod: ScenarioPod): void {
    if (!pod.hostNetwork && !this.network.namespaces.has(podNamespace(pod.name))) this.network.attachPod(pod);
    this.servePod(pod);
  }

  /** `client`, `node/NAME` or `pod/NAME` → namespace */
  namespaceOf(from: string): string {
    const [kind, name = ''] = from.split('/');
    if (kind === 'client') return 'client';
    if (kind === 'node') return this.network.node(name).name;
    const pod = kind === 'pod' ? this.pods.get(name) : undefined;
    if (pod === undefined)
      throw new Error(`"${from}" is not client, node/NAME or the name of a Pod of the scenario`);
    return pod.hostNetwork ? pod.node : podNamespace(name);
  }

  probeContext(): ProbeContext {
    return {
      network: this.network,
      namespaceOf: (from) => this.namespaceOf(from),
      nameOfAddress: (ip) => this.nameOfAddress(ip),
      timeFactor: this.options.timeFactor,
    };
  }

  private nameOfAddress(ip: string): string {
    const node = this.network.nodes.find((each) => nodeOwnAddresses(each).includes(canonicalIp(ip)));
    if (node !== undefined) return `node-ip/${node.name}`;
    const pod = this.network.podAt(ip);
    return pod === undefined ? `other/${ip}` : `pod-ip/${pod}`;
  }

  /** Shuts or opens the door between proxies and API server. */
  setApi(up: boolean): void {
    this.apiIsUp = up;
    if (up) this.relay.open();
    else this.relay.shut();
  }

  /** Gives the marker service another port and another endpoint. */
  private async moveMarker(): Promise<void> {
    this.marker++;
    const [service, ...slices] = markerObjects(this.marker, apiAddresses);
    for (const slice of slices) await this.client.apply(slice);
    if (service !== undefined) await this.client.apply(service);
  }

  /**
   * Moves the marker and waits until it is in force on every node whose proxy runs; nothing to wait for while the API
   * server is out of reach. Throws an Error that says which node did not follow in time.
   */
  async settle(): Promise<void> {
    // In IPVS mode a sync is many steps in the kernel, and the marker's may come early in it: the marker's next place
    // comes into force in the sync after it.
    for (let moves = this.options.mode === 'ipvs' ? 2 : 1; moves > 0; moves--) {
      await this.moveMarker();
      if (!this.apiIsUp) return;
      await this.markerInForce();
    }
    // Health-check ports and connection tracking follow the rules of the same sync a moment later.
    await sleep(60);
  }

  private async markerInForce(): Promise<void> {
    const deadline = Date.now() + settleTime * this.options.timeFactor;
    const running = [...this.proxies].filter(([, proxy]) => proxy.running).map(([node]) => node);
    await Promise.all(
      running.flatMap((node) =>
        this.scenario.families.map((family) => this.waitForMarker(node, markerAddresses[family], deadline)),
      ),
    );
  }

  private async waitForMarker(node: string, ip: string, deadline: number): Promise<void> {
    const { port, target } = markerPlace(this.marker);
    const { timeFactor } = this.options;
    const state = { reached: false };
    const attempt = async (): Promise<void> => {
      const connection = openConnection({
        namespaces: this.network.namespaces,
        namespace: node,
        protocol: 'tcp',
        to: { ip: canonicalIp(ip), port },
        source: undefined,
        ear: undefined,
      });
      const { greeting } = await connection.first(250 * timeFactor);
      connection.close();
      if (greeting?.pod === 'api' && greeting.port === target) state.reached = true;
    };
    // A SYN that comes too early is lost; rather many short attempts than one patient one. On a slow machine fewer: there
    // they take the time that the proxies need.
    while (!state.reached) {
      if (Date.now() > deadline) {
        throw new Error(
          `the proxy of ${node} did not bring a change (${isV6(ip) ? 'IPv6' : 'IPv4'}) into force in ` +
            `${(settleTime * timeFactor) / 1000} s; its last words:\n${this.proxy(node).lastWords()}`,
        );
      }
      const running = attempt();
      await Promise.race([running, sleep(15 * timeFactor)]);
    }
  }

  /** Waits for the health check and the marker after a start. */
  async ready(nodes: readonly string[]): Promise<void> {
    const deadline = Date.now() + startTime * this.options.timeFactor;
    await Promise.all(nodes.map((node) => this.healthy(node, deadline)));
    await this.markerInForce();
  }

  private async healthy(node: string, deadline: number): Promise<void> {
    const { healthzBindAddress } = proxyConfig(this.scenario, this.options.mode, node, '');
    const port = /:(\d+)$/.exec(asText(healthzBindAddress))?.[1];
    if (port === undefined) return;
    const address = this.network.node(node).addresses[0];
    for (;;) {
      try {
        const { status } = await httpGet(
          this.network.namespaces,
          node,
          `http://${address}:${port}/healthz`,
          500,
        );
        if (status === 200) return;
      } catch (error) {
        if (!(error instanceof HttpFailure)) throw error;
      }
      const proxy = this.proxy(node);
      if (!proxy.running || Date.now() > deadline) {
        const what = proxy.running ? `is not healthy after ${startTime / 1000} s` : 'ended';
        throw new Error(`the proxy of ${node} ${what}; its last words:\n${proxy.lastWords()}`);
      }
      await sleep(20);
    }
  }

  /** A sentence for each proxy that ended though nobody stopped it. */
  endedProxies(): string[] {
    return [...this.proxies]
      .filter(([, proxy]) => proxy.endedByItself)
      .map(([node, proxy]) => `the proxy of ${node} ended by itself; its last words:\n${proxy.lastWords()}`);
  }

  async startProxies(nodes: readonly string[]): Promise<void> {
    for (const node of nodes) this.proxy(node).start();
    await this.ready(nodes);
  }

  /** The rules on every node with a proxy, headed as the recorded ones are. Without the marker. */
  async dumpRules(): Promise<string> {
    for (const name of ['Service/hx-marker', 'EndpointSlice/hx-marker-4', 'EndpointSlice/hx-marker-6']) {
      const [kind = '', object = ''] = name.split('/');
      await this.client.delete(kind, object);
    }
    const deadline = Date.now() + settleTime * this.options.timeFactor;
    for (;;) {
      const dump = this.readRules();
      if (!dump.includes('hx-marker') || Date.now() > deadline) return dump;
      await sleep(50);
    }
  }

  readRules(): string {
    let text = '';
    for (const program of ['iptables-save', 'ip6tables-save']) {
      for (const node of this.proxies.keys()) {
        const { stdout } = this.network.namespaces.run(node, [program], { env: this.env });
        text += `## ${node}: ${program}\n${stdout}`;
      }
    }
    return text;
  }

  /** Runs a command of the scenario on a node; a text goes through the shell, as its author would have typed it. */
  execute(node: string, command: string | readonly string[]): void {
    const argv = typeof command === 'string' ? ['sh', '-c', command] : command;
    const { status, stderr } = this.network.namespaces.run(this.network.node(node).name, argv, {
      env: this.env,
    });
    if (status !== 0) {
      throw new Error(
        `${node}: ${isObject(command) ? '' : String(command)} ended with ${status}: ${stderr.trim()}`,
      );
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.proxies.values()].map((proxy) => proxy.stop('SIGKILL')));
    for (const server of this.servers) server.close();
    this.relay.shut();
    await this.client.close();
    await this.api.close();
    this.network.close();
  }
}
