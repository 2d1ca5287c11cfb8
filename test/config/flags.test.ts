import assert from 'node:assert/strict';
import { test } from 'node:test';
import { flagHelp, parseFlags, printFlags, UsageError } from '../../src/config/flags.ts';
import { flagTable, type FlagName } from '../../src/config/flag-table.ts';

/** The default of every flag, as kube-proxy's `--help` shows it; then ours. */
const defaults: Record<FlagName, unknown> = {
  config: '',
  'write-config-to': '',
  cleanup: false,
  'init-only': false,
  version: 'false',
  'feature-gates': {},
  'config-sync-period': 900_000,
  kubeconfig: '',
  master: '',
  'kube-api-content-type': 'application/vnd.kubernetes.protobuf',
  'kube-api-qps': 5,
  'kube-api-burst': 10,
  'proxy-mode': '',
  'masquerade-all': false,
  'iptables-masquerade-bit': 14,
  'iptables-localhost-nodeports': true,
  'iptables-sync-period': 30_000,
  'iptables-min-sync-period': 1000,
  'ipvs-sync-period': 30_000,
  'ipvs-min-sync-period': 1000,
  'ipvs-scheduler': '',
  'ipvs-exclude-cidrs': [],
  'ipvs-strict-arp': false,
  'ipvs-tcp-timeout': 0,
  'ipvs-tcpfin-timeout': 0,
  'ipvs-udp-timeout': 0,
  'hostname-override': '',
  'bind-address': '0.0.0.0',
  'cluster-cidr': '',
  'detect-local-mode': '',
  'pod-bridge-interface': '',
  'pod-interface-name-prefix': '',
  'nodeport-addresses': [],
  'oom-score-adj': -999,
  'conntrack-max-per-core': 32768,
  'conntrack-min': 131072,
  'conntrack-tcp-timeout-established': 86_400_000,
  'conntrack-tcp-timeout-close-wait': 3_600_000,
  'conntrack-tcp-be-liberal': false,
  'conntrack-udp-timeout': 0,
  'conntrack-udp-timeout-stream': 0,
  'healthz-bind-address': '0.0.0.0:10256',
  'metrics-bind-address': '127.0.0.1:10249',
  'bind-address-hard-fail': false,
  'healthz-port': 10256,
  'metrics-port': 10249,
  profiling: false,
  'show-hidden-metrics-for-version': '',
  v: 0,
  vmodule: [],
  'logging-format': 'text',
  'log-flush-frequency': 5000,
  'log-text-split-stream': false,
  'log-text-info-buffer-size': '0',
  'log-json-split-stream': false,
  'log-json-info-buffer-size': '0',
  'machine-id-file': '/etc/machine-id,/var/lib/dbus/machine-id',
  'boot-id-file': '/proc/sys/kernel/random/boot_id',
  'service-counters': 'off',
  'socket-path': '/run/pointsman/pointsman.sock',
  'nftables-localhost-nodeports': false,
  'repair-drift': true,
  'drift-check-period': 4000,
  'udp-timeout': 60_000,
};

test('every flag has the default of the reference', () => {
  assert.deepEqual(parseFlags([]).values, defaults);
  assert.equal(parseFlags([]).given.size, 0);
});

const spellings: [argv: string[], flag: FlagName, value: unknown][] = [
  [['--masquerade-all'], 'masquerade-all', true],
  [['--masquerade-all=false'], 'masquerade-all', false],
  [['--masquerade-all=T'], 'masquerade-all', true],
  [['--iptables_localhost_nodeports=0'], 'iptables-localhost-nodeports', false],
  [['--proxy-mode', 'nftables'], 'proxy-mode', 'nftables'],
  [['--proxy-mode=a', '--proxy-mode=b'], 'proxy-mode', 'b'],
  [['--config='], 'config', ''],
  [['--config', ''], 'config', ''],
  [['--kubeconfig=/a=b'], 'kubeconfig', '/a=b'],
  [['-v', '2'], 'v', 2],
  [['-v=2'], 'v', 2],
  [['-v2'], 'v', 2],
  [['--v=2'], 'v', 2],
  [['--v', '2'], 'v', 2],
  [['--oom-score-adj', '-5'], 'oom-score-adj', -5],
  [['--oom-score-adj=0x10'], 'oom-score-adj', 16],
  [['--oom-score-adj=-010'], 'oom-score-adj', -8],
  [['--oom-score-adj=0'], 'oom-score-adj', 0],
  [['--conntrack-min=1_000'], 'conntrack-min', 1000],
  [['--kube-api-qps=2.5'], 'kube-api-qps', 2.5],
  [['--kube-api-qps=-1'], 'kube-api-qps', -1],
  [['--iptables-sync-period=1h30m'], 'iptables-sync-period', 5_400_000],
  [['--iptables-min-sync-period=0'], 'iptables-min-sync-period', 0],
  [
    ['--nodeport-addresses=10.0.0.0/8,192.168.0.0/16'],
    'nodeport-addresses',
    ['10.0.0.0/8', '192.168.0.0/16'],
  ],
  [['--nodeport-addresses=a', '--nodeport-addresses', 'b,c'], 'nodeport-addresses', ['a', 'b', 'c']],
  [['--nodeport-addresses='], 'nodeport-addresses', []],
  [['--feature-gates=A=true, B=false', '--feature-gates=A=0'], 'feature-gates', { A: false, B: false }],
  [
    ['--vmodule=sync=4,api*=2'],
    'vmodule',
    [
      { filePattern: 'sync', verbosity: 4 },
      { filePattern: 'api*', verbosity: 2 },
    ],
  ],
  [['--healthz-bind-address=1.2.3.4'], 'healthz-bind-address', '1.2.3.4'],
  [['--healthz-bind-address=[::1]:80'], 'healthz-bind-address', '[::1]:80'],
  [['--healthz-bind-address='], 'healthz-bind-address', '0.0.0.0:10256'],
  [['--metrics-bind-address', ''], 'metrics-bind-address', '127.0.0.1:10249'],
  [['--bind-address='], 'bind-address', '0.0.0.0'],
  [['--bind-address=010.0.0.1'], 'bind-address', '010.0.0.1'],
  [['--log-text-info-buffer-size=64Ki'], 'log-text-info-buffer-size', '64Ki'],
  [['--version'], 'version', 'true'],
  [['--version=raw'], 'version', 'raw'],
  [['--version=v1.36.2-a'], 'version', 'v1.36.2-a'],
];
for (const [argv, flag, value] of spellings) {
  test(`${argv.join(' ')} sets ${flag}`, () => {
    const parsed = parseFlags(argv);
    assert.deepEqual(parsed.values[flag], value);
    assert.deepEqual([...parsed.given], [flag]);
  });
}

const refused: [argv: string[], message: RegExp][] = [
  [['--nope'], /^unknown flag: --nope$/],
  [['--proxymode=x'], /^unknown flag: --proxymode \(did you mean --proxy-mode\?\)$/],
  [['-x'], /^unknown shorthand flag: 'x' in -x$/],
  [['--config'], /^flag needs an argument: --config$/],
  [['--oom-score-adj'], /^flag needs an argument: --oom-score-adj$/],
  [['-v'], /^flag needs an argument: --v$/],
  [['--=1'], /^bad flag syntax: --=1$/],
  [['---config=1'], /^bad flag syntax/],
  [['start'], /no arguments are taken, got "start"/],
  [['--', 'start'], /no arguments are taken, got "start"/],
  [['--masquerade-all', 'false'], /no arguments are taken, got "false"/],
  [['--masquerade-all=maybe'], /^invalid argument "maybe" for "--masquerade-all" flag: /],
  [['--masquerade-all='], /^invalid argument "" for "--masquerade-all"/],
  [['--oom-score-adj=1.5'], /not a whole number/],
  [['--oom-score-adj=99999999999'], /out of range/],
  [['--kube-api-qps=x'], /not a number/],
  [['--iptables-sync-period=30'], /^invalid argument "30" for "--iptables-sync-period" flag: .*duration/],
  [['--bind-address=[::]'], /not an IP address/],
  [['--healthz-bind-address=host:80'], /"host" is not an IP address/],
  [['--healthz-bind-address=1.2.3.4:http'], /"http" is not a port/],
  [['--healthz-bind-address=1.2.3.4:80:90'], /neither/],
  [['--feature-gates=A'], /missing bool value for A/],
  [['--feature-gates=A=maybe'], /must be true or false/],
  [['--feature-gates=A=toString'], /must be true or false/],
  [['--vmodule=a'], /pattern=N/],
  [['--version=maybe'], /invalid argument "maybe" for "--version"/],
  [['--log-text-info-buffer-size=big'], /not a quantity/],
];
for (const [argv, message] of refused) {
  test(`${argv.join(' ')} is refused`, () => {
    assert.throws(
      () => parseFlags(argv),
      (error) => error instanceof UsageError && message.test(error.message),
    );
  });
}

test('an empty word after -- is no argument', () => {
  assert.equal(parseFlags(['--cleanup', '--', '']).values.cleanup, true);
});

test('deprecated flags work and say so', () => {
  const parsed = parseFlags(['--healthz-port=1', '--metrics_port', '2', '--healthz-port=3']);
  assert.equal(parsed.values['healthz-port'], 3);
  assert.deepEqual(parsed.deprecations, [
    'Flag --healthz-port has been deprecated, use --healthz-bind-address',
    'Flag --metrics-port has been deprecated, use --metrics-bind-address',
  ]);
});

test('flags print themselves so that they can be given again', () => {
  const argv = [
    '--feature-gates=B=false,A=true',
    '--vmodule=x=1,y=2',
    '--iptables-sync-period=90s',
    '-v',
    '3',
  ];
  const printed = printFlags(parseFlags(argv).values);
  const value = (name: FlagName): string | undefined => printed.find((flag) => flag.name === name)?.value;
  assert.equal(value('feature-gates'), 'A=true,B=false');
  assert.equal(value('vmodule'), 'x=1,y=2');
  assert.equal(value('iptables-sync-period'), '1m30s');
  assert.equal(value('v'), '3');
  assert.equal(value('nodeport-addresses'), '[]');
  assert.deepEqual(
    printed.map(({ name }) => name),
    flagTable.map(({ name }) => name).sort(),
  );
});

test('--help wins over what follows, and names every flag once', () => {
  assert.equal(parseFlags(['--help', '--nope']).help, true);
  assert.equal(parseFlags(['-h']).help, true);
  const help = flagHelp();
  for (const { name } of flagTable) {
    assert.equal(help.match(new RegExp(`^  (-v, )?--${name}(?=[ \\n])`, 'gm'))?.length, 1, name);
  }
});
