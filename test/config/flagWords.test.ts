import assert from 'node:assert/strict';
import { test } from 'node:test';
import { flagTable } from '../../src/config/flag-table.ts';
import { inFlagWords } from '../../src/config/flagWords.ts';
import { ConfigError, loadConfig } from '../../src/config/load.ts';
import { file } from './support.ts';

async function refusal(...argv: string[]): Promise<ConfigError> {
  try {
    await loadConfig(argv);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error;
  }
  assert.fail('was accepted');
}

const refused: readonly string[] = [
  '--feature-gates=NFTablesProxyMode=false',
  '--nodeport-addresses=x',
  '--show-hidden-metrics-for-version=1.2',
  '--config-sync-period=0s',
  '--iptables-sync-period=0s',
  '--iptables-min-sync-period=-1s',
  '--detect-local-mode=x',
  '--cluster-cidr=10.0.0/8',
  '--proxy-mode=x',
  '--kube-api-burst=-1',
  '--iptables-masquerade-bit=32',
  '--ipvs-tcp-timeout=-1s',
  '--ipvs-tcpfin-timeout=-1s',
  '--ipvs-udp-timeout=-1s',
  '--ipvs-exclude-cidrs=x',
  '--ipvs-sync-period=0s',
  '--ipvs-min-sync-period=-1s',
  '--oom-score-adj=3000',
  '--conntrack-max-per-core=-1',
  '--conntrack-min=-1',
  '--conntrack-tcp-timeout-established=-1s',
  '--conntrack-tcp-timeout-close-wait=-1s',
  '--conntrack-udp-timeout=-1s',
  '--conntrack-udp-timeout-stream=-1s',
  '--logging-format=x',
  '--log-flush-frequency=0s',
  '--drift-check-period=0s',
];

test('a value that is refused is refused in the name of its flag', async () => {
  for (const flag of refused) {
    const name = flag.slice(0, flag.indexOf('='));
    assert.ok(flagTable.some((spec) => `--${spec.name}` === name));
    const argv = flag.startsWith('--ipvs') ? ['--proxy-mode=ipvs', flag] : [flag];
    const { asTyped } = await refusal(...argv);
    for (const one of asTyped.split('; ')) assert.ok(one.startsWith(`${name}: `), `${flag}: ${asTyped}`);
  }
});

test('a flag that a mode needs is named, too', async () => {
  const { asTyped } = await refusal('--detect-local-mode=BridgeInterface');
  assert.equal(asTyped, '--pod-bridge-interface: Invalid value: "": must not be empty');
});

test('fields of a file keep their names, and so does what no flag sets', async () => {
  const { asTyped, message } = await refusal('--config', file('detectLocal: {clusterCIDRs: []}\nmode: x\n'));
  assert.equal(asTyped, message);
  assert.match(message, /KubeProxyConfiguration\.Mode\.ProxyMode: /);
  const other = 'KubeProxyConfiguration.PortRange: Invalid value: "x": no';
  assert.equal(inFlagWords(other, 'userspace'), other);
});
