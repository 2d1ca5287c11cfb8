import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadConfig } from '../../src/config/load.ts';
import type { ProxyConfig } from '../../src/config/types.ts';
import { file, load } from './support.ts';

type Check = [what: string, argv: string[], body: string | undefined, expected: Partial<ProxyConfig>];
const effective: Check[] = [
  [
    'nftables by flag has no minimum',
    ['--proxy-mode=nftables'],
    undefined,
    { mode: 'nftables', syncPeriod: 30_000, minSyncPeriod: 0, nodePortAddresses: ['primary'] },
  ],
  [
    'nftables by flag with a minimum',
    ['--proxy-mode=nftables', '--iptables-min-sync-period=2s', '--iptables-sync-period=5s'],
    undefined,
    { syncPeriod: 5000, minSyncPeriod: 2000 },
  ],
  [
    'ipvs by flag',
    ['--proxy-mode=ipvs', '--ipvs-sync-period=7s'],
    undefined,
    { mode: 'ipvs', syncPeriod: 7000, minSyncPeriod: 1000 },
  ],
  ['iptables minimum 0 by flag', ['--iptables-min-sync-period=0'], undefined, { minSyncPeriod: 0 }],
  ['iptables minimum 0 in a file', [], 'iptables: {minSyncPeriod: 0s}', { minSyncPeriod: 1000 }],
  [
    'ipvs in a file',
    [],
    'mode: ipvs\nipvs: {syncPeriod: 9s}\niptables: {masqueradeAll: true, masqueradeBit: 3, syncPeriod: 1m}',
    { syncPeriod: 9000, minSyncPeriod: 0, masqueradeAll: true, masqueradeBit: 3 },
  ],
  [
    'nftables in a file',
    [],
    'mode: nftables\nnftables: {masqueradeAll: true, masqueradeBit: 0}\niptables: {masqueradeBit: 3}',
    { syncPeriod: 30_000, minSyncPeriod: 0, masqueradeAll: true, masqueradeBit: 0 },
  ],
  [
    'masquerade bit by flag is for iptables only',
    ['--proxy-mode=nftables', '--iptables-masquerade-bit=3'],
    undefined,
    { masqueradeBit: 14 },
  ],
  [
    'nodePortAddresses of nftables stay',
    [],
    'mode: nftables\nnodePortAddresses: [10.0.0.0/8]',
    { nodePortAddresses: ['10.0.0.0/8'] },
  ],
  [
    'an IPv6 bindAddress in a file moves the servers',
    [],
    'bindAddress: "fd00::1"',
    { healthzBindAddress: '[::]:10256', metricsBindAddress: '[::1]:10249' },
  ],
  [
    'an IPv6 --bind-address does not',
    ['--bind-address=fd00::1'],
    undefined,
    { bindAddress: 'fd00::1', healthzBindAddress: '0.0.0.0:10256', metricsBindAddress: '127.0.0.1:10249' },
  ],
  [
    'ports are added in a file',
    [],
    'healthzBindAddress: 1.2.3.4\nmetricsBindAddress: "::1"',
    { healthzBindAddress: '1.2.3.4:10256', metricsBindAddress: '[::1]:10249' },
  ],
  [
    'ports are added by flags',
    ['--healthz-bind-address=1.2.3.4', '--metrics-bind-address=::1', '--metrics-port=99'],
    undefined,
    { healthzBindAddress: '1.2.3.4:10256', metricsBindAddress: '[::1]:99' },
  ],
  ['--healthz-port=0 turns it off', ['--healthz-port=0'], undefined, { healthzBindAddress: '' }],
  [
    '--healthz-port=0 does not beside a file',
    ['--healthz-port=0'],
    '',
    { healthzBindAddress: '0.0.0.0:10256' },
  ],
  [
    'an address with a port keeps it',
    ['--healthz-bind-address=1.2.3.4:5', '--healthz-port=9'],
    undefined,
    { healthzBindAddress: '1.2.3.4:5' },
  ],
  [
    '--write-config-to changes no address',
    ['--write-config-to=/x', '--healthz-bind-address=1.2.3.4'],
    undefined,
    { healthzBindAddress: '1.2.3.4:10256' },
  ],
  [
    'the file replaces flags',
    ['--proxy-mode=ipvs', '--cluster-cidr=10.0.0.0/8', '--oom-score-adj=5'],
    'oomScoreAdj: 7',
    { mode: 'iptables', clusterCIDRs: [], oomScoreAdj: 7 },
  ],
  ['--master counts beside a file', ['--master=https://a'], '', { master: 'https://a' }],
  [
    'what to do counts beside a file',
    ['--cleanup', '--init-only', '--write-config-to=/x'],
    '',
    { cleanup: true, initOnly: true, writeConfigTo: '/x' },
  ],
  [
    '--hostname-override wins',
    ['--hostname-override= Node-A '],
    'hostnameOverride: b',
    { hostnameOverride: 'node-a' },
  ],
  ['hostnameOverride of the file', [], 'hostnameOverride: " B "', { hostnameOverride: 'b' }],
  [
    'cluster CIDRs are split',
    ['--cluster-cidr=10.0.0.0/8,fd00::/64'],
    undefined,
    { clusterCIDRs: ['10.0.0.0/8', 'fd00::/64'] },
  ],
  [
    'explicit 0 time-outs stay 0',
    [],
    'conntrack: {tcpEstablishedTimeout: 0s, min: 0}',
    {
      conntrack: {
        maxPerCore: 32768,
        min: 0,
        tcpEstablishedTimeout: 0,
        tcpCloseWaitTimeout: 3_600_000,
        tcpBeLiberal: false,
        udpTimeout: 0,
        udpStreamTimeout: 0,
      },
    },
  ],
  [
    'our extras count beside a file',
    [
      '--service-counters=endpoints',
      '--socket-path=',
      '--repair-drift=false',
      '--drift-check-period=3s',
      '--nftables-localhost-nodeports',
    ],
    '',
    {
      extras: {
        serviceCounters: 'endpoints',
        socketPath: '',
        nftablesLocalhostNodePorts: true,
        repairDrift: false,
        driftCheckPeriod: 3000,
        udpTimeout: 60_000,
      },
    },
  ],
  [
    'userspace mode has the periods of iptables mode, and its ports',
    [],
    'mode: userspace\niptables: {minSyncPeriod: 2s, syncPeriod: 40s}\nportRange: 40000-41000',
    { mode: 'userspace', minSyncPeriod: 2000, syncPeriod: 40_000, portRange: '40000-41000', warnings: [] },
  ],
  ['--version=v… is what is reported', ['--version=v1.36.2-x'], undefined, { reportedVersion: 'v1.36.2-x' }],
  [
    'host bits and leading zeros pass',
    ['--cluster-cidr=010.1.2.3/16', '--nodeport-addresses=192.168.7.9/24'],
    undefined,
    { clusterCIDRs: ['010.1.2.3/16'], nodePortAddresses: ['192.168.7.9/24'] },
  ],
];
for (const [what, argv, body, expected] of effective) {
  test(what, async () => {
    const config = await load(...argv, ...(body === undefined ? [] : ['--config', file(body)]));
    for (const [field, value] of Object.entries(expected)) {
      assert.deepEqual(config[field as keyof ProxyConfig], value, field);
    }
  });
}

test('logging flags that were given win over the file; vmodule lists are joined', async () => {
  const path = file('logging: {verbosity: 4, flushFrequency: 9s, vmodule: [{filePattern: b, verbosity: 2}]}');
  const kept = await load('--config', path);
  assert.equal(kept.logging.verbosity, 4);
  assert.equal(kept.logging.flushFrequency, 9000);
  const merged = await load('--config', path, '-v=0', '--vmodule=a=1');
  assert.equal(merged.logging.verbosity, 0);
  assert.deepEqual(
    merged.logging.vmodule.map(({ filePattern }) => filePattern),
    ['a', 'b'],
  );
});

const warned: [what: string, argv: string[], body: string | undefined, warnings: RegExp[]][] = [
  [
    'flags beside a file',
    ['--kubeconfig=/x', '--proxy-mode=ipvs', '--master=https://a', '-v=1'],
    '',
    [/^--kubeconfig, --proxy-mode: ignored, because --config is given/],
  ],
  [
    'unknown and double fields',
    [],
    'foo: 1\nmode: iptables\nmode: iptables',
    [/lenient.*given twice.*unknown field "foo"/],
  ],
  ['an unknown gate', ['--feature-gates=Foo=true'], undefined, [/^unrecognized feature gate: Foo/]],
  [
    'a GA gate',
    ['--feature-gates=NFTablesProxyMode=true'],
    undefined,
    [/^Setting GA feature gate NFTablesProxyMode=true/],
  ],
  [
    '--metrics-bind-address=""',
    ['--metrics-bind-address='],
    undefined,
    [/^--metrics-bind-address without a value is ignored/],
  ],
  [
    '--healthz-bind-address ""',
    ['--healthz_bind_address', ''],
    undefined,
    [/^--healthz-bind-address without a value is ignored/],
  ],
  [
    'a port that changes nothing',
    ['--healthz-port=99'],
    undefined,
    [/^--healthz-port is ignored: --healthz-bind-address 0\.0\.0\.0:10256 has a port/],
  ],
  [
    'ipvs flags in another mode',
    ['--ipvs-scheduler=lc'],
    undefined,
    [/^--ipvs-scheduler is ignored: the mode is iptables/],
  ],
  [
    'iptables periods in mode ipvs',
    ['--proxy-mode=ipvs', '--iptables-sync-period=9s'],
    undefined,
    [/^--iptables-sync-period is ignored/],
  ],
  [
    'the iptables bit in mode nftables',
    ['--proxy-mode=nftables', '--iptables-masquerade-bit=3'],
    undefined,
    [/^--iptables-masquerade-bit is ignored/],
  ],
  [
    'sections of other modes',
    [],
    'iptables: {masqueradeAll: true, syncPeriod: 5s}\nmode: nftables\nipvs: {strictARP: true}',
    [
      /^iptables\.syncPeriod is ignored/,
      /^iptables\.masqueradeAll is ignored.*nftables\.masqueradeAll/,
      /^ipvs\.strictARP is ignored/,
    ],
  ],
  [
    'nftables fields in mode iptables',
    [],
    'nftables: {masqueradeAll: true, minSyncPeriod: 3s}',
    [/^nftables\.masqueradeAll/, /^nftables\.minSyncPeriod/],
  ],
  [
    '0s that means 1s',
    [],
    'iptables: {syncPeriod: 10s, minSyncPeriod: 0s}',
    [/^iptables\.minSyncPeriod: 0s in a file means 1s/],
  ],
  ['portRange', [], 'portRange: 1-2', [/^portRange is ignored/]],
  [
    'Windows',
    [],
    'winkernel: {sourceVip: 1.2.3.4}\nwindowsRunAsService: true',
    [/^winkernel\.sourceVip is ignored: this is Linux/, /^windowsRunAsService/],
  ],
  [
    'detection of another mode',
    [],
    'detectLocal: {bridgeInterface: br0, interfaceNamePrefix: veth}',
    [/^detectLocal\.bridgeInterface is ignored/, /^detectLocal\.interfaceNamePrefix/],
  ],
  [
    'fractions of seconds in mode ipvs',
    ['--proxy-mode=ipvs', '--ipvs-tcp-timeout=500ms'],
    undefined,
    [/^ipvs\.tcpTimeout 500ms counts as 0s/],
  ],
  [
    'our settings of another mode',
    ['--proxy-mode=ipvs', '--nftables-localhost-nodeports'],
    undefined,
    [/^--nftables-localhost-nodeports is ignored/],
  ],
  [
    'the period of checks that nftables mode does not need',
    ['--proxy-mode=nftables', '--drift-check-period=1s'],
    undefined,
    [/^--drift-check-period is ignored: the mode is nftables/],
  ],
  ['machine id', ['--machine-id-file=/x'], undefined, [/^--machine-id-file is ignored/]],
];
for (const [what, argv, body, warnings] of warned) {
  test(`a warning for ${what}`, async () => {
    const config = await load(...argv, ...(body === undefined ? [] : ['--config', file(body)]));
    assert.equal(config.warnings.length, warnings.length, config.warnings.join('\n'));
    for (const [i, pattern] of warnings.entries()) assert.match(config.warnings[i] ?? '', pattern);
  });
}

test('texts for --help and --version', async () => {
  for (const [flag, start] of [
    ['--help', 'Usage: pointsman run'],
    ['--version', 'Kubernetes v1.36.2 (pointsman v'],
    ['--version=raw', 'version.Info{Major:"1", Minor:"36", GitVersion:"v1.36.2"'],
  ] as const) {
    const loaded = await loadConfig([flag]);
    assert.ok(loaded.kind === 'text' && loaded.text.startsWith(start), flag);
  }
  await assert.rejects(loadConfig(['--version=v1.2.3']), /must begin with v1\.36\.2/);
});
