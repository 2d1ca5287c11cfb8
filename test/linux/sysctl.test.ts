import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import {
  allowLocalnetRouting,
  applyConntrackSysctls,
  conntrackBeLiberal,
  conntrackMax,
  countCPUs,
  setOomScoreAdjust,
  type ConntrackSettings,
} from '../../src/linux/sysctl.ts';
import { silentLogger } from '../../src/log/logger.ts';

let root = '';
beforeEach(() => {
  root = makeOwnedDirectory('sysctl');
});
afterEach(() => rmSync(root, { recursive: true }));

function put(path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
}
const get = (path: string): string => readFileSync(join(root, path), 'utf8');
const net = 'proc/sys/net/netfilter/nf_conntrack_';
const hashsize = 'sys/module/nf_conntrack/parameters/hashsize';

const defaults: ConntrackSettings = {
  maxPerCore: 32_768,
  min: 131_072,
  tcpEstablishedTimeout: 86_400_000,
  tcpCloseWaitTimeout: 3_600_000,
  tcpBeLiberal: false,
  udpTimeout: 0,
  udpStreamTimeout: 0,
};
const off: ConntrackSettings = {
  ...defaults,
  maxPerCore: 0,
  tcpEstablishedTimeout: 0,
  tcpCloseWaitTimeout: 0,
};

test('sysctl: nf_conntrack_max follows cores, minimum and cap', () => {
  const cases: readonly (readonly [maxPerCore: number, min: number, cpus: number, max: number])[] = [
    [0, 123_456, 8, 0],
    [-1, 123_456, 8, 0],
    [1, 123_456, 8, 123_456],
    [67_890, 1, 4, 271_560],
    [32_768, 131_072, 2, 131_072],
    [32_768, 131_072, 16, 524_288],
    [32_768, 0, 512, 1_048_576],
    [32_768, 2_000_000, 512, 1_048_576],
    [32_768, 2_000_000, 2, 2_000_000],
  ];
  for (const [maxPerCore, min, cpus, max] of cases) assert.equal(conntrackMax(maxPerCore, min, cpus), max);
});

test('sysctl: the defaults write limit, hash size and both TCP time-outs, where they differ', () => {
  put(`${net}max`, '65536\n');
  put(`${net}tcp_timeout_established`, '432000\n');
  put(`${net}tcp_timeout_close_wait`, '3600\n');
  put(`${net}tcp_be_liberal`, '0\n');
  put(`${net}udp_timeout`, '30\n');
  put(hashsize, '16384\n');
  applyConntrackSysctls(defaults, { log: silentLogger, root, cpus: 4 });
  assert.equal(get(`${net}max`), '131072');
  assert.equal(get(hashsize), '32768');
  assert.equal(get(`${net}tcp_timeout_established`), '86400');
  assert.equal(get(`${net}tcp_timeout_close_wait`), '3600\n', 'not written: it has that value');
  assert.equal(get(`${net}tcp_be_liberal`), '0\n');
  assert.equal(get(`${net}udp_timeout`), '30\n');
});

test('sysctl: a large enough hash table is left alone; what is set is written in whole seconds', () => {
  put(`${net}max`, '524288');
  put(hashsize, '262144');
  put(`${net}tcp_be_liberal`, '0');
  put(`${net}udp_timeout`, 'garbage');
  put(`${net}udp_timeout_stream`, '120');
  const settings = {
    ...off,
    maxPerCore: 32_768,
    tcpBeLiberal: true,
    udpTimeout: 10_900,
    udpStreamTimeout: 500,
  };
  applyConntrackSysctls(settings, { log: silentLogger, root, cpus: 16 });
  assert.equal(get(hashsize), '262144');
  assert.equal(get(`${net}tcp_be_liberal`), '1');
  assert.equal(get(`${net}udp_timeout`), '10');
  assert.equal(get(`${net}udp_timeout_stream`), '0');
  assert.equal(conntrackBeLiberal(root), true);
});

test('sysctl: everything off touches nothing, and the first failure stops the rest', () => {
  applyConntrackSysctls(off, { log: silentLogger, root, cpus: 4 });
  put(`${net}tcp_timeout_close_wait`, '1');
  assert.throws(
    () =>
      applyConntrackSysctls(
        { ...off, tcpEstablishedTimeout: 1000, tcpCloseWaitTimeout: 9000 },
        { log: silentLogger, root },
      ),
    /^Error: could not set conntrack parameters from kube-proxy configuration: cannot write 1 to .*established: ENOENT/,
  );
  assert.equal(get(`${net}tcp_timeout_close_wait`), '1');
  put(`${net}max`, '1');
  assert.throws(
    () => applyConntrackSysctls(defaults, { log: silentLogger, root, cpus: 1 }),
    /hashsize/,
    'an unreadable hash size is an error',
  );
  assert.equal(conntrackBeLiberal(root), false);
});

test('sysctl: route_localnet and oom_score_adj', () => {
  const path = 'proc/sys/net/ipv4/conf/all/route_localnet';
  const options = { log: silentLogger, root };
  assert.throws(() => allowLocalnetRouting(options), /iptables.localhostNodePorts/);
  put(path, '0\n');
  allowLocalnetRouting(options);
  assert.equal(get(path), '1');
  assert.equal(setOomScoreAdjust(-999, options), false);
  put('proc/self/oom_score_adj', '0');
  assert.equal(setOomScoreAdjust(-999, options), true);
  assert.equal(get('proc/self/oom_score_adj'), '-999');
});

test('sysctl: CPUs are counted from the machine’s topology', () => {
  assert.ok(countCPUs(root) >= 1, 'no sysfs: what the process may use');
  put('sys/devices/system/cpu/cpu0/x', '');
  put('sys/devices/system/cpu/cpu1/x', '');
  put('sys/devices/system/cpu/cpufreq/x', '');
  assert.equal(countCPUs(root), 2);
  for (const [node, cpu] of [
    [0, 0],
    [0, 1],
    [1, 2],
  ]) {
    put(`sys/devices/system/node/node${node}/cpu${cpu}/topology/core_id`, `${cpu}\n`);
    put(`sys/devices/system/node/node${node}/cpu${cpu}/topology/physical_package_id`, '0\n');
  }
  put('sys/devices/system/node/node1/cpu3/x', 'offline');
  assert.equal(countCPUs(root), 3);
});
