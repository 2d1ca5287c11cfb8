import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { ConfigError, loadConfig } from '../../src/config/load.ts';
import { file, folder, load } from './support.ts';

async function problems(...argv: string[]): Promise<string> {
  try {
    await loadConfig(argv);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.message;
  }
  assert.fail('was accepted');
}

const K = 'KubeProxyConfiguration';
const linux = `${K}.KubeProxyLinuxConfiguration`;
const tooSmall = 'must be greater than or equal to 0';
const bits = 'must be within the range [0, 31]';
const cidrShape = 'must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)';
const listShape =
  'must be a either a single CIDR or dual-stack pair of CIDRs (e.g. [10.100.0.0/16, fde4:8dba:82e1::/48])';
const refused: [argv: string[] | string, message: string][] = [
  [
    ['--feature-gates=NFTablesProxyMode=false'],
    `${K}.featureGates: Invalid value: false: cannot set feature gate NFTablesProxyMode to false, feature is locked to true`,
  ],
  [
    ['--iptables-masquerade-bit=32'],
    `${K}.KubeProxyIPTablesConfiguration.MasqueradeBit: Invalid value: 32: ${bits}`,
  ],
  [
    ['--proxy-mode=nftables', '--iptables-masquerade-bit=-1'],
    `${K}.KubeProxyIPTablesConfiguration.MasqueradeBit: Invalid value: -1: ${bits}`,
  ],
  [
    'mode: nftables\nnftables: {masqueradeBit: 40}',
    `${K}.KubeProxyNFTablesConfiguration.MasqueradeBit: Invalid value: 40: ${bits}`,
  ],
  [
    ['--proxy-mode=ipvs', '--ipvs-tcp-timeout=-1s'],
    `${K}.KubeProxyIPVSConfiguration.TCPTimeout: Invalid value: -1s: ${tooSmall}`,
  ],
  [
    ['--proxy-mode=ipvs', '--ipvs-tcpfin-timeout=-1s'],
    `${K}.KubeProxyIPVSConfiguration.TCPFinTimeout: Invalid value: -1s: ${tooSmall}`,
  ],
  [
    ['--proxy-mode=ipvs', '--ipvs-udp-timeout=-1s'],
    `${K}.KubeProxyIPVSConfiguration.UDPTimeout: Invalid value: -1s: ${tooSmall}`,
  ],
  [
    ['--proxy-mode=ipvs', '--ipvs-exclude-cidrs=1.2.3.4/8,x'],
    `${K}.KubeProxyIPVSConfiguration.ExcludeCidrs[1]: Invalid value: "x": must be a valid CIDR`,
  ],
  [
    ['--conntrack-max-per-core=-1'],
    `${linux}.KubeProxyConntrackConfiguration.MaxPerCore: Invalid value: -1: ${tooSmall}`,
  ],
  [['--conntrack-min=-1'], `${linux}.KubeProxyConntrackConfiguration.Min: Invalid value: -1: ${tooSmall}`],
  [
    ['--conntrack-tcp-timeout-established=-1s'],
    `${linux}.KubeProxyConntrackConfiguration.TCPEstablishedTimeout: Invalid value: -1s: ${tooSmall}`,
  ],
  [
    ['--conntrack-tcp-timeout-close-wait=-1s'],
    `${linux}.KubeProxyConntrackConfiguration.TCPCloseWaitTimeout: Invalid value: -1s: ${tooSmall}`,
  ],
  [
    ['--conntrack-udp-timeout=-1s'],
    `${linux}.KubeProxyConntrackConfiguration.UDPTimeout: Invalid value: -1s: ${tooSmall}`,
  ],
  [
    ['--conntrack-udp-timeout-stream=-1s'],
    `${linux}.KubeProxyConntrackConfiguration.UDPStreamTimeout: Invalid value: -1s: ${tooSmall}`,
  ],
  [
    ['--oom-score-adj=1001'],
    `${linux}.OOMScoreAdj: Invalid value: 1001: must be within the range [-1000, 1000]`,
  ],
  [
    ['--proxy-mode=fast'],
    `${K}.Mode.ProxyMode: Invalid value: "fast": must be iptables, ipvs, nftables, userspace or blank (blank means the best-available proxy [currently iptables])`,
  ],
  [
    'mode: userspace\nbindAddress: 127.0.0.1\nportRange: 9-5',
    `[${K}.BindAddress: Invalid value: "127.0.0.1": userspace mode cannot proxy on localhost, ${K}.PortRange: Invalid value: "9-5": must be begin-end, begin+offset or one port, with ports from 1 to 65535]`,
  ],
  [['--kube-api-burst=-1'], `${K}.ClientConnection.Burst: Invalid value: -1: ${tooSmall}`],
  [['--config-sync-period=0'], `${K}.ConfigSyncPeriod: Invalid value: 0s: must be greater than 0`],
  [
    ['--iptables-sync-period=-1s', '--iptables-min-sync-period=-2s'],
    `[${K}.SyncPeriod: Invalid value: -1s: must be greater than 0, ${K}.MinSyncPeriod: Invalid value: -2s: ${tooSmall}]`,
  ],
  [
    ['--iptables-sync-period=1s', '--iptables-min-sync-period=2s'],
    `${K}.SyncPeriod: Invalid value: 2s: must be greater than or equal to KubeProxyConfiguration.MinSyncPeriod`,
  ],
  [
    ['--iptables-sync-period=3h', '--iptables-min-sync-period=2h'],
    `${K}.MinSyncPeriod: Invalid value: 2h0m0s: must be less than or equal to 1h0m0s`,
  ],
  [
    'bindAddress: "[::]"',
    `${K}.BindAddress: Invalid value: "[::]": not a valid textual representation of an IP address`,
  ],
  ['healthzBindAddress: "1.2.3.4:x"', `${K}.HealthzBindAddress: Invalid value: "x": must be a valid port`],
  [
    'healthzBindAddress: "1.2.3.4:70000"',
    `${K}.HealthzBindAddress: Invalid value: "70000": must be a valid port`,
  ],
  ['healthzBindAddress: "node:80"', `${K}.HealthzBindAddress: Invalid value: "node": must be a valid IP`],
  ['healthzBindAddress: "node"', `${K}.HealthzBindAddress: Invalid value: "node": must be IP:port`],
  [
    'metricsBindAddress: ":0"',
    `[${K}.MetricsBindAddress: Invalid value: "": must be a valid IP, ${K}.MetricsBindAddress: Invalid value: "0": must be a valid port]`,
  ],
  [['--metrics-port=0'], `${K}.MetricsBindAddress: Invalid value: "": must be IP:port`],
  [
    ['--nodeport-addresses=10.0.0.0/8,x'],
    `${K}.NodePortAddresses[1]: Invalid value: "x": must be a valid CIDR`,
  ],
  [
    ['--nodeport-addresses=10.0.0.0/8,primary,x'],
    `${K}.NodePortAddresses[1]: Invalid value: "primary": can't use both 'primary' and CIDRs`,
  ],
  [
    ['--show-hidden-metrics-for-version=1.34'],
    `${K}.ShowHiddenMetricsForVersion: Invalid value: "1.34": must be omitted or have the value '1.35': only the previous minor release is possible`,
  ],
  [
    ['--detect-local-mode=Magic'],
    `${K}.DetectLocalMode: Unsupported value: "Magic": supported values: "ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix", ""`,
  ],
  [
    ['--detect-local-mode=BridgeInterface'],
    `${K}.DetectLocalConfiguration.InterfaceName: Invalid value: "": must not be empty`,
  ],
  [
    ['--detect-local-mode=InterfaceNamePrefix'],
    `${K}.DetectLocalConfiguration.InterfacePrefix: Invalid value: "": must not be empty`,
  ],
  [
    ['--cluster-cidr=10.0.0.0/8, fd00::/64'],
    `${K}.DetectLocalConfiguration.ClusterCIDRs[1]: Invalid value: " fd00::/64": ${cidrShape}`,
  ],
  [
    ['--cluster-cidr=10.0.0.0/8,11.0.0.0/8'],
    `${K}.DetectLocalConfiguration.ClusterCIDRs: Invalid value: ["10.0.0.0/8", "11.0.0.0/8"]: ${listShape}`,
  ],
  [
    ['--cluster-cidr=10.0.0.0/8,fd00::/64,11.0.0.0/8'],
    `${K}.DetectLocalConfiguration.ClusterCIDRs: Invalid value: ["10.0.0.0/8", "fd00::/64", "11.0.0.0/8"]: ${listShape}`,
  ],
  [['--drift-check-period=0'], '--drift-check-period: must be greater than 0'],
  [['--udp-timeout=0'], '--udp-timeout: must be greater than 0'],
];
for (const [source, message] of refused) {
  const argv = typeof source === 'string' ? ['--config', file(source)] : source;
  test(`refused: ${typeof source === 'string' ? source : source.join(' ')}`, async () => {
    assert.equal(await problems(...argv), `failed validate: ${message}`);
  });
}

const badLogging: [argv: string[], message: string][] = [
  [['--logging-format=xml'], 'logging.format: Invalid value: "xml": Unsupported log format'],
  [['--log-flush-frequency=0'], 'logging.flushFrequency: Invalid value: 0s: must be greater than 0'],
  [['-v=-1'], 'logging.verbosity: Invalid value: -1: Must be between 0 and 2147483647'],
  [
    ['--logging-format=json', '--vmodule=a=1'],
    'logging.vmodule: Forbidden: Only supported for text log format',
  ],
  [
    ['--log-text-split-stream'],
    'logging.options.text.splitStream: Forbidden: Feature LoggingAlphaOptions is disabled',
  ],
  [
    ['--log-json-info-buffer-size=1Ki'],
    'logging.options.json.infoBufferSize: Forbidden: Feature LoggingAlphaOptions is disabled',
  ],
];
for (const [argv, message] of badLogging) {
  test(`refused: ${argv.join(' ')}`, async () => {
    assert.equal(await problems(...argv), `initialize logging: ${message}`);
  });
}

test('all problems at once', async () => {
  const message = await problems('--proxy-mode=x', '--oom-score-adj=2000', '--logging-format=xml');
  assert.match(message, /^failed validate: \[.*ProxyMode.*OOMScoreAdj.*logging\.format.*\]$/);
});

test('alpha logging options with their gate', async () => {
  const config = await load('--feature-gates=LoggingAlphaOptions=true', '--log-text-split-stream');
  assert.equal(config.logging.text.splitStream, true);
  const all = await load('--feature-gates=AllAlpha=true', '--log-text-split-stream');
  assert.equal(all.logging.text.splitStream, true);
});

test('settings of a mode that is not chosen are not validated', async () => {
  await load('--config', file('ipvs: {tcpTimeout: -1s, excludeCIDRs: [x]}\nnftables: {masqueradeBit: 99}'));
  await load('--detect-local-mode=NodeCIDR', '--cluster-cidr=x');
});

test('an unreadable file, a file that is no configuration, a blank host name', async () => {
  assert.match(
    await problems('--config', join(folder, 'none')),
    /^failed complete: cannot read --config .*none: ENOENT/,
  );
  assert.match(
    await problems('--config', file('mode: 7')),
    /^failed complete: .*: failed to decode: mode: expected a string/,
  );
  assert.match(await problems('--hostname-override', '  '), /^failed complete: empty hostname-override/);
});
