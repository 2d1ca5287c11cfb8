/** The daemon as a user starts it: its own process, in a network namespace, against an API server. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';
import { TinyApiServer, type ApiObject } from './support/apiServer.ts';

const root = new URL('../..', import.meta.url).pathname;

const node: ApiObject = {
  kind: 'Node',
  metadata: { name: 'n1', labels: { 'topology.kubernetes.io/zone': 'z1' } },
  spec: {},
  status: {
    addresses: [
      { type: 'InternalIP', address: '192.168.7.1' },
      { type: 'InternalIP', address: 'fd07::1' },
    ],
  },
};

function service(name: string, clusterIPs: string[], extra: Record<string, unknown> = {}): ApiObject {
  return {
    kind: 'Service',
    metadata: { name, namespace: 'default', uid: name },
    spec: {
      type: 'ClusterIP',
      clusterIP: clusterIPs[0],
      clusterIPs,
      ipFamilies: clusterIPs.map((ip) => (ip.includes(':') ? 'IPv6' : 'IPv4')),
      ports: [{ name: 'http', protocol: 'TCP', port: 80, targetPort: 8080 }],
      ...extra,
    },
  };
}

function slice(serviceName: string, addresses: string[], nodeName = 'n1'): ApiObject {
  const addressType = addresses[0]?.includes(':') === true ? 'IPv6' : 'IPv4';
  return {
    kind: 'EndpointSlice',
    metadata: {
      name: `${serviceName}-${addressType.toLowerCase()}`,
      namespace: 'default',
      uid: `${serviceName}-${addressType}`,
      labels: { 'kubernetes.io/service-name': serviceName },
    },
    addressType,
    ports: [{ name: 'http', protocol: 'TCP', port: 8080 }],
    endpoints: addresses.map((address) => ({
      addresses: [address],
      conditions: { ready: true, serving: true, terminating: false },
      nodeName,
    })),
  };
}

const directory = makeOwnedDirectory('daemon');
const namespace = makeNamespace();
let api: TinyApiServer;

/** A machine whose iptables-restore fails while the file `broken` is there. */
const broken = join(directory, 'broken');
for (const program of ['iptables-restore', 'ip6tables-restore']) {
  const path = join(directory, program);
  writeFileSync(
    path,
    `#!/bin/sh\nif [ -e ${broken} ]; then echo "broken for the test" >&2; exit 1; fi\nexec /usr/sbin/${program} "$@"\n`,
  );
  chmodSync(path, 0o755);
}

const kubeconfig = join(directory, 'kubeconfig');
const config = join(directory, 'config.conf');

function writeConfig(extra = ''): void {
  writeFileSync(
    config,
    `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: n1
clientConnection: {kubeconfig: ${kubeconfig}}
iptables: {syncPeriod: 2s, minSyncPeriod: 100ms}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
${extra}`,
  );
}

class Daemon {
  readonly child: ChildProcess;
  log = '';
  private readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;

  constructor(args: string[]) {
    const [command, ...flags] = args;
    const own =
      command === 'run' ? [command, `--socket-path=${join(directory, 'pointsman.sock')}`] : [command ?? ''];
    this.child = spawn(
      'ip',
      ['netns', 'exec', namespace, process.execPath, '--import', 'tsx', 'src/main.ts', ...own, ...flags],
      { cwd: root, env: { ...process.env, PATH: `${directory}:${process.env['PATH']}` } },
    );
    running.add(this);
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.log += text));
    this.ended = new Promise((resolve) =>
      // With all it said.
      this.child.once('close', (code, signal) => {
        running.delete(this);
        resolve({ code, signal });
      }),
    );
  }

  /** How it ended; an error with its log if it does not in time. */
  async end(): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    await eventually('the daemon ends', () => !running.has(this));
    return this.ended;
  }

  async stop(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.ended;
  }
}

const running = new Set<Daemon>();

async function eventually(what: string, check: () => boolean, milliseconds = 90_000): Promise<void> {
  const end = Date.now() + milliseconds;
  while (!check()) {
    if (Date.now() > end) {
      const logs = [...running].map((daemon) => daemon.log).join('\n');
      throw new Error(`not within ${milliseconds} ms: ${what}\n${logs}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function rules(program = 'iptables-save'): string {
  return inNamespace(namespace, [program]);
}

/** Status and body, or status 0 if nothing listens. The server under test lives in the namespace; this process does not. */
function get(url: string): { status: number; body: string } {
  try {
    const out = inNamespace(namespace, ['curl', '-s', '-m', '30', '-w', '\n%{http_code}', url]);
    const end = out.lastIndexOf('\n');
    return { status: Number(out.slice(end + 1)), body: out.slice(0, end) };
  } catch {
    // curl fails while nothing listens: that is an answer here.
    return { status: 0, body: '' };
  }
}

const healthz = 'http://127.0.0.1:10256/healthz';
const metricsURL = 'http://127.0.0.1:10249/metrics';

before(() => {
  const address = (...args: string[]): string => inNamespace(namespace, ['ip', ...args]);
  address('link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth1');
  address('link', 'set', 'eth0', 'up');
  address('addr', 'add', '192.168.7.1/24', 'dev', 'eth0');
  address('-6', 'addr', 'add', 'fd07::1/64', 'dev', 'eth0', 'nodad');
  api = new TinyApiServer(namespace);
  writeFileSync(
    kubeconfig,
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'c', cluster: { server: `http://127.0.0.1:${api.port}` } }],
      users: [{ name: 'u', user: {} }],
      contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
      'current-context': 'x',
    }),
  );
  writeConfig();
});

after(async () => {
  for (const daemon of running) await daemon.stop();
  api.close();
  removeNamespace(namespace);
  rmSync(directory, { recursive: true });
});

describe('the daemon', { concurrency: false }, () => {
  let daemon: Daemon;

  test('nothing listens before the node is known; then both families are programmed', async () => {
    api.apply(service('web', ['10.96.0.10', 'fd10::10']));
    api.apply(slice('web', ['10.0.0.1', '10.0.0.2']));
    api.apply(slice('web', ['fd01::1']));
    inNamespace(namespace, ['nft', 'add', 'table', 'ip', 'kube-proxy']);
    daemon = new Daemon(['run', `--config=${config}`, '-v=2']);
    await eventually('the daemon waits for its node', () => daemon.log.includes('Listed'));
    assert.equal(get(healthz).status, 0);
    api.apply(node);
    await eventually('IPv4 rules', () => rules().includes('10.0.0.2:8080'));
    await eventually('IPv6 rules', () => rules('ip6tables-save').includes('[fd01::1]:8080'));
    assert.match(rules(), /-A KUBE-SERVICES -d 10\.96\.0\.10\/32 -p tcp .*--dport 80 -j KUBE-SVC-/);
    await eventually('what nftables mode left is removed', () => {
      return !inNamespace(namespace, ['nft', 'list', 'tables']).includes('kube-proxy');
    });
  });

  test('health, mode, configuration and metrics are served', async () => {
    await eventually('healthz', () => get(healthz).status === 200);
    const health = JSON.parse(get(healthz).body) as { status: object; nodeEligible: boolean };
    assert.deepEqual(Object.keys(health.status), ['IPv4', 'IPv6']);
    assert.equal(health.nodeEligible, true);
    assert.equal(get('http://[::1]:10256/livez').status, 200);
    assert.equal(get('http://127.0.0.1:10249/proxyMode').body, 'iptables');
    const configz = JSON.parse(get('http://127.0.0.1:10249/configz').body) as Record<
      string,
      { hostnameOverride: string }
    >;
    assert.equal(configz['kubeproxy.config.k8s.io']?.hostnameOverride, 'n1');
    const metrics = get(metricsURL).body;
    for (const line of [
      /^kubeproxy_sync_full_proxy_rules_duration_seconds_count\{ip_family="IPv6"\} 1$/m,
      /^kubeproxy_sync_proxy_rules_iptables_total\{table="nat",ip_family="IPv4"\} \d+$/m,
      /^kubeproxy_proxy_healthz_total\{code="200"\} \d+$/m,
      /^rest_client_requests_total\{code="200",host="127\.0\.0\.1:6443",method="GET"\} \d+$/m,
      /^kubernetes_build_info\{.*git_version="v1\.36\.2"/m,
      /^process_resident_memory_bytes \d+$/m,
    ])
      assert.match(metrics, line);
  });

  test('the start is an event on the Node', async () => {
    await eventually('the event', () => api.events.length > 0);
    const [event] = api.events;
    assert.equal(event?.['reason'], 'Starting');
    assert.equal(event?.['action'], 'StartKubeProxy');
    assert.equal(event?.['type'], 'Normal');
    assert.deepEqual(event?.['regarding'], { apiVersion: 'v1', kind: 'Node', name: 'n1' });
    assert.equal(event?.['reportingController'], 'kube-proxy');
  });

  test('a change of the API is in the kernel soon', async () => {
    api.apply(slice('web', ['10.0.0.1', '10.0.0.3']));
    await eventually('the new endpoint', () => rules().includes('10.0.0.3:8080'));
    assert.ok(!rules().includes('10.0.0.2:8080'));
  });

  test('a bad Service costs itself only, and is counted', async () => {
    api.apply(service('bad', ['10.96.0.300']));
    api.apply(service('good', ['10.96.0.20']));
    api.apply(slice('good', ['10.0.0.7']));
    await eventually('the good service', () => rules().includes('10.0.0.7:8080'));
    assert.match(get(metricsURL).body, /^pointsman_skipped_objects_total\{reason="\w+"\} 1$/m);
    assert.match(daemon.log, /Skipped: .*default\/bad/);
  });

  test('a service with a health-check node port is answered for', async () => {
    api.apply(
      service('lb', ['10.96.0.30'], {
        type: 'LoadBalancer',
        externalTrafficPolicy: 'Local',
        healthCheckNodePort: 31999,
      }),
    );
    api.apply(slice('lb', ['10.0.0.8', '10.0.0.9']));
    const url = 'http://192.168.7.1:31999/';
    await eventually('the health-check port', () => get(url).status === 200);
    assert.match(get(url).body, /"localEndpoints": 2/);
    api.apply(slice('lb', ['10.0.0.8'], 'n2'));
    await eventually('no local endpoint', () => get(url).status === 503);
  });

  test('a failing restore keeps the rules, shows in metrics and health, and recovers', async () => {
    const before = rules();
    writeFileSync(broken, '');
    api.apply(slice('web', ['10.0.0.1', '10.0.0.4']));
    const failures = /^kubeproxy_sync_proxy_rules_iptables_restore_failures_total\{ip_family="IPv4"\} [1-9]/m;
    await eventually('the failure in the metrics', () => failures.test(get(metricsURL).body));
    assert.ok(rules().includes('10.0.0.3:8080'));
    assert.equal(countRules(rules()), countRules(before));
    await eventually('the failure in healthz', () => get(healthz).status === 503);
    assert.match(get(healthz).body, /"healthy":false,"status":\{"IPv4":\{[^}]*"healthy":false\}/);
    rmSync(broken);
    await eventually('the change, late', () => rules().includes('10.0.0.4:8080'));
    await eventually('healthz again', () => get(healthz).status === 200);
  });

  test('the autoscaler taint takes the node out of healthz, not out of livez', async () => {
    api.apply({ ...node, spec: { taints: [{ key: 'ToBeDeletedByClusterAutoscaler' }] } });
    await eventually('healthz', () => get(healthz).status === 503);
    assert.equal(get('http://127.0.0.1:10256/livez').status, 200);
    api.apply(node);
    await eventually('healthz again', () => get(healthz).status === 200);
  });

  test('SIGTERM ends the process by the signal and leaves every rule', async () => {
    const before = rules();
    daemon.child.kill('SIGTERM');
    const { code, signal } = await daemon.end();
    assert.ok(signal === 'SIGTERM' || code === 143, `${code} ${signal}`);
    assert.equal(countRules(rules()), countRules(before));
  });

  test('a restart never leaves a service without its rules', async () => {
    let gaps = 0;
    let looks = 0;
    api.apply(slice('web', ['10.0.0.1', '10.0.0.5']));
    daemon = new Daemon(['run', `--config=${config}`, '-v=2']);
    await eventually('the endpoint that came meanwhile', () => {
      const text = rules();
      looks++;
      if (!/-A KUBE-SERVICES -d 10\.96\.0\.10\/32 .*-j KUBE-SVC-/.test(text)) gaps++;
      if (!text.includes('10.0.0.1:8080')) gaps++;
      return text.includes('10.0.0.5:8080');
    });
    assert.equal(gaps, 0);
    assert.ok(looks > 1);
  });

  test('a change of the configuration file ends the process with 1', async () => {
    await eventually('healthz', () => get(healthz).status === 200);
    writeConfig('# changed\n');
    assert.equal((await daemon.end()).code, 1);
    assert.match(daemon.log, /content of the proxy server's configuration file was updated/);
  });

  test('a change during the start counts too: the process waits for its node, then ends', async () => {
    api.delete(node);
    daemon = new Daemon(['run', `--config=${config}`, '-v=2']);
    await eventually('the daemon waits for its node', () => daemon.log.includes('Listed'));
    writeConfig('# changed again\n');
    api.apply(node);
    assert.equal((await daemon.end()).code, 1);
    assert.match(daemon.log, /configuration file was updated/);
  });

  test('with NodeCIDR, new Pod CIDRs of the node end the process with 1', async () => {
    writeConfig('detectLocalMode: NodeCIDR\n');
    api.apply({ ...node, spec: { podCIDRs: ['10.1.0.0/24', 'fd01::/64'] } });
    daemon = new Daemon(['run', `--config=${config}`]);
    await eventually('healthz', () => get(healthz).status === 200);
    await eventually('rules', () => rules().includes('! -s 10.1.0.0/24'));
    api.apply({ ...node, spec: { podCIDRs: ['10.2.0.0/24', 'fd01::/64'] } });
    assert.equal((await daemon.end()).code, 1);
    assert.match(daemon.log, /PodCIDRs of the node changed/);
    api.apply(node);
    writeConfig();
  });

  test('--init-only sets the kernel up and ends with 0', async () => {
    inNamespace(namespace, ['sysctl', '-q', '-w', 'net.ipv4.conf.all.route_localnet=0']);
    daemon = new Daemon(['run', `--config=${config}`, '--init-only']);
    assert.equal((await daemon.end()).code, 0);
    const value = inNamespace(namespace, ['sysctl', '-n', 'net.ipv4.conf.all.route_localnet']);
    assert.equal(value.trim(), '1');
  });

  test('a port that is taken ends the process with 1 if that is asked for', async () => {
    writeConfig('bindAddressHardFail: true\nmetricsBindAddress: 127.0.0.1:6443\n');
    daemon = new Daemon(['run', `--config=${config}`]);
    assert.equal((await daemon.end()).code, 1);
    assert.match(daemon.log, /Failed to start metrics server/);
    assert.ok(api.events.some((event) => event['reason'] === 'FailedToStartMetricServer'));
  });

  test('a change of mode: the new rules are there before the old ones go', async () => {
    writeConfig('# iptables\n');
    daemon = new Daemon(['run', `--config=${config}`]);
    await eventually('rules', () => rules().includes('10.0.0.5:8080'));
    await daemon.stop();
    writeFileSync(config, readFileSync(config, 'utf8').replace('mode: iptables', 'mode: nftables'));
    daemon = new Daemon(['run', `--config=${config}`]);
    const table = (): string => {
      const tables = inNamespace(namespace, ['nft', 'list', 'tables']);
      const has = tables.split('\n').includes('table ip kube-proxy');
      return has ? inNamespace(namespace, ['nft', 'list', 'table', 'ip', 'kube-proxy']) : '';
    };
    await eventually('the old rules are gone', () => {
      const [before, after] = [rules(), table()];
      assert.ok(before.includes('10.0.0.5:8080') || after.includes('10.0.0.5'), 'no rules at all');
      return !before.includes('KUBE-SVC-');
    });
    await eventually('healthz', () => get(healthz).status === 200);
    assert.equal(get('http://127.0.0.1:10249/proxyMode').body, 'nftables');
    assert.ok(!get(metricsURL).body.includes('kubeproxy_sync_proxy_rules_iptables'));
    await daemon.stop();
    assert.ok(table().includes('10.0.0.5'));
    writeConfig();
  });

  test('--cleanup removes the rules of every mode, and nothing else', async () => {
    inNamespace(namespace, ['iptables', '-t', 'nat', '-A', 'POSTROUTING', '-s', '10.9.9.9', '-j', 'ACCEPT']);
    daemon = new Daemon(['--cleanup']);
    assert.equal((await daemon.end()).code, 0, daemon.log);
    const left = rules();
    assert.ok(!/KUBE-(SVC|SEP|SERVICES|NODEPORTS|POSTROUTING)/.test(left), left);
    assert.match(left, /-s 10\.9\.9\.9\/32 -j ACCEPT/);
    assert.ok(!inNamespace(namespace, ['nft', 'list', 'tables']).includes('kube-proxy'));
  });
});

function countRules(save: string): number {
  return save.split('\n').filter((line) => line.startsWith('-A ')).length;
}
