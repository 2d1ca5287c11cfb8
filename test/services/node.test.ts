import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { localDetector } from '../../src/services/localDetection.ts';
import { isPrimaryKnown, nodeAddresses, nodeIPs } from '../../src/services/nodeAddresses.ts';
import {
  containsIPv4Loopback,
  matchesAll,
  matchingAddresses,
  nodePortCIDRs,
} from '../../src/services/nodePortAddresses.ts';

describe('addresses of the node', () => {
  for (const [ips, bind, primary, IPv4, IPv6] of [
    [[], '10.0.0.1', 'IPv4', '10.0.0.1', '::1'],
    [[], 'fd00:4321::2', 'IPv6', '127.0.0.1', 'fd00:4321::2'],
    [[], '', 'IPv4', '127.0.0.1', '::1'],
    [[], '0.0.0.0', 'IPv4', '127.0.0.1', '::1'],
    [['192.168.1.1'], '::', 'IPv4', '192.168.1.1', '::1'],
    [['fd00:1234::1'], '0.0.0.0', 'IPv6', '127.0.0.1', 'fd00:1234::1'],
    [['2001:db8::2', '90.90.90.90'], '0.0.0.0', 'IPv6', '90.90.90.90', '2001:db8::2'],
    [['2001:db8::2', '90.90.90.90'], '80.80.80.80', 'IPv4', '80.80.80.80', '2001:db8::2'],
    [['90.90.90.90', '2001:db8::2'], '::1', 'IPv6', '90.90.90.90', '::1'],
  ] as const) {
    test(`[${ips.join(', ')}] bound to "${bind}"`, () =>
      assert.deepEqual(nodeAddresses(ips, bind), { primary, IPv4, IPv6 }));
  }

  test('InternalIPs come before ExternalIPs, one a family, junk skipped', () => {
    const addresses = [
      { type: 'Hostname', address: 'node-1' },
      { type: 'ExternalIP', address: '203.0.113.7' },
      { type: 'ExternalIP', address: '2001:db8::7' },
      { type: 'InternalIP', address: 'junk' },
      { type: 'InternalIP', address: '192.168.001.1' },
      { type: 'InternalIP', address: '192.168.1.2' },
    ];
    assert.deepEqual(nodeIPs({ addresses }), ['192.168.1.1', '2001:db8::7']);
    assert.deepEqual(nodeIPs({ addresses: [] }), []);
  });

  test('loopback is not an address one knows', () => {
    assert.equal(isPrimaryKnown(nodeAddresses([], '')), false);
    assert.equal(isPrimaryKnown(nodeAddresses(['10.0.0.1'], '')), true);
  });
});

describe('nodePortAddresses', () => {
  const node = nodeAddresses(['192.168.1.1', 'fd00::1'], '');
  const only4 = nodeAddresses(['192.168.1.1'], '');
  const unknown = nodeAddresses([], '');

  test('empty means everywhere', () => {
    assert.deepEqual(nodePortCIDRs('IPv4', [], node), ['0.0.0.0/0']);
    assert.deepEqual(nodePortCIDRs('IPv6', [], node), ['::/0']);
    assert.ok(matchesAll(['::/0']));
  });

  test('primary is the node address of the family; everywhere if that is not known', () => {
    assert.deepEqual(nodePortCIDRs('IPv4', ['primary'], node), ['192.168.1.1/32']);
    assert.deepEqual(nodePortCIDRs('IPv6', ['primary'], node), ['fd00::1/128']);
    assert.deepEqual(nodePortCIDRs('IPv6', ['primary'], only4), ['::/0']);
    assert.deepEqual(nodePortCIDRs('IPv4', ['primary'], unknown), ['0.0.0.0/0']);
  });

  test('CIDRs are canonical and of the family; a zero prefix swallows the rest', () => {
    const setting = ['10.0.0.7/8', 'fd00::/8', '10.0.0.0/8', '192.168.0.0/16'];
    assert.deepEqual(nodePortCIDRs('IPv4', setting, node), ['10.0.0.0/8', '192.168.0.0/16']);
    assert.deepEqual(nodePortCIDRs('IPv6', setting, node), ['fd00::/8']);
    assert.deepEqual(nodePortCIDRs('IPv4', ['10.0.0.0/8', '0.0.0.0/0'], node), ['0.0.0.0/0']);
    assert.deepEqual(nodePortCIDRs('IPv6', ['10.0.0.0/8'], node), ['::/0']);
  });

  for (const [setting, expected] of [
    [[], true],
    [['0.0.0.0/0'], true],
    [['10.0.0.0/8', '0.0.0.0/0'], true],
    [['127.0.0.0/8'], true],
    [['127.0.2.0/28'], true],
    [['64.0.0.0/2'], true],
    [['192.168.0.0/16'], false],
    [['128.0.2.0/28'], false],
    [['192.168.0.0/16', '::1/128'], false],
    [['192.168.0.0/16', '::/0'], false],
  ] as const) {
    test(`[${setting.join(', ')}] ${expected ? 'has' : 'has no'} IPv4 loopback`, () =>
      assert.equal(containsIPv4Loopback(nodePortCIDRs('IPv4', setting, node)), expected));
  }

  test('local addresses are matched once each', () => {
    const local = ['127.0.0.1', '192.168.1.1', '10.0.0.1', '192.168.1.1', 'fd00::1'];
    assert.deepEqual(matchingAddresses(['192.168.0.0/16', '10.0.0.0/8'], local), ['192.168.1.1', '10.0.0.1']);
    assert.deepEqual(matchingAddresses(['::/0'], local), ['fd00::1']);
  });
});

describe('local detection', () => {
  const settings = {
    detectLocalMode: 'ClusterCIDR',
    clusterCIDRs: ['10.244.0.7/16', ' fd00:10:244::/48', '10.245.0.0/16'],
    nodePodCIDRs: ['10.244.1.0/24'],
    bridgeInterface: 'cbr0',
    interfaceNamePrefix: 'veth',
  };
  for (const [mode, IPv4, IPv6] of [
    ['ClusterCIDR', { kind: 'cidr', cidr: '10.244.0.0/16' }, { kind: 'cidr', cidr: 'fd00:10:244::/48' }],
    ['NodeCIDR', { kind: 'cidr', cidr: '10.244.1.0/24' }, undefined],
    ['BridgeInterface', { kind: 'interface', name: 'cbr0' }, { kind: 'interface', name: 'cbr0' }],
    [
      'InterfaceNamePrefix',
      { kind: 'interfacePrefix', prefix: 'veth' },
      { kind: 'interfacePrefix', prefix: 'veth' },
    ],
    ['Guess', undefined, undefined],
  ] as const) {
    test(mode, () => {
      assert.deepEqual(localDetector('IPv4', { ...settings, detectLocalMode: mode }), IPv4);
      assert.deepEqual(localDetector('IPv6', { ...settings, detectLocalMode: mode }), IPv6);
    });
  }

  test('nothing to detect with', () => {
    const empty = { ...settings, clusterCIDRs: [], bridgeInterface: '', interfaceNamePrefix: '' };
    for (const detectLocalMode of ['ClusterCIDR', 'BridgeInterface', 'InterfaceNamePrefix']) {
      assert.equal(localDetector('IPv4', { ...empty, detectLocalMode }), undefined);
    }
  });
});
