import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkFamilies, checkNodePortAddresses } from '../../src/proxy/startupChecks.ts';

type Config = Parameters<typeof checkFamilies>[0];

const base: Config = {
  mode: 'iptables',
  clusterCIDRs: [],
  nodePortAddresses: ['192.168.0.0/16'],
  detectLocalMode: 'ClusterCIDR',
  healthzBindAddress: '0.0.0.0:10256',
  metricsBindAddress: '127.0.0.1:10249',
  ipvs: { excludeCIDRs: [] },
  winkernel: { sourceVip: '' },
};
const v4 = { primaryFamily: 'IPv4', podCIDRs: [] } as const;

test('node port addresses: unset, one family of a dual-stack cluster, the wrong family', () => {
  assert.match(
    checkNodePortAddresses({ ...base, nodePortAddresses: [] }, v4)[0] ?? '',
    /consider nodePortAddresses: \["primary"\]/,
  );
  assert.deepEqual(checkNodePortAddresses(base, v4), []);
  const dual = { ...base, clusterCIDRs: ['10.0.0.0/8', 'fd00::/64'] };
  assert.match(checkNodePortAddresses(dual, v4)[0] ?? '', /looks dual-stack/);
  assert.match(
    checkNodePortAddresses(base, { primaryFamily: 'IPv4', podCIDRs: ['10.0.0.0/24', 'fd00::/64'] })[0] ?? '',
    /looks dual-stack/,
  );
  const both = { ...dual, nodePortAddresses: ['192.168.0.0/16', 'fd00::/64'] };
  assert.deepEqual(checkNodePortAddresses(both, v4), []);
  const other = { ...base, nodePortAddresses: ['fd00::/64'] };
  assert.match(checkNodePortAddresses(other, v4)[0] ?? '', /no IPv4 address/);
});

test('families: what is fatal depends on the mode of local detection and on dual-stack', () => {
  const cases = [
    { change: { clusterCIDRs: ['fd00::/64'] }, single: 'fatal', dual: 'logged' },
    {
      change: { clusterCIDRs: ['fd00::/64'], detectLocalMode: 'BridgeInterface' },
      single: 'logged',
      dual: 'logged',
    },
    { change: { clusterCIDRs: ['10.0.0.0/8', 'fd00::/64'] }, single: '', dual: '' },
    { change: { winkernel: { sourceVip: 'fd00::1' } }, single: 'logged', dual: 'logged' },
    { change: { ipvs: { excludeCIDRs: ['fd00::/64'] } }, single: 'logged', dual: '' },
    { change: { healthzBindAddress: '[fd00::1]:10256' }, single: 'logged', dual: '' },
    { change: { metricsBindAddress: '[::]:10249' }, single: '', dual: '' },
  ] as const;
  for (const { change, single, dual } of cases) {
    const config: Config = { ...base, ...change };
    for (const [dualStack, wanted] of [
      [false, single],
      [true, dual],
    ] as const) {
      const { fatal, logged } = checkFamilies(config, v4, dualStack);
      const got = fatal.length > 0 ? 'fatal' : logged.length > 0 ? 'logged' : '';
      assert.equal(got, wanted, JSON.stringify({ change, dualStack }));
    }
  }
});

test('families: Pod CIDRs of the other family are fatal in NodeCIDR mode only', () => {
  const node = { primaryFamily: 'IPv4', podCIDRs: ['fd00::/64'] } as const;
  const nodeCIDR: Config = { ...base, detectLocalMode: 'NodeCIDR' };
  assert.equal(checkFamilies(nodeCIDR, node, false).fatal.length, 1);
  assert.equal(checkFamilies(nodeCIDR, node, true).fatal.length, 1);
  assert.deepEqual(checkFamilies(base, node, true).fatal, []);
  assert.equal(checkFamilies(base, node, true).logged.length, 1);
});
