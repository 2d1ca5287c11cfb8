/** Addresses of the node: which count, which answer node ports, and which a service's address may be. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { canBeBound, counts, nodeSideOf } from '../../../src/dataplane/ipvs/nodeSide.ts';

describe('addresses of the node', () => {
  it('which count', () => {
    const count = (family: 'IPv4' | 'IPv6', address: string): boolean => counts({ family, address }, family);
    assert.equal(count('IPv4', '127.0.0.1'), false);
    assert.equal(count('IPv6', '::1'), false);
    assert.equal(count('IPv6', 'fe80::1'), false);
    assert.equal(count('IPv6', 'febf::1'), false);
    assert.equal(count('IPv6', 'fec0::1'), true);
    assert.equal(count('IPv4', '169.254.1.1'), true);
    assert.equal(counts({ family: 'IPv6', address: 'fd00::1' }, 'IPv4'), false);
  });

  it('which answer node ports', () => {
    const addresses = new Set(['192.0.2.10', '10.244.1.1', '172.31.0.11']);
    const answering = (...setting: string[]): readonly string[] => nodeSideOf(setting, addresses).nodePorts;
    assert.deepEqual(answering('0.0.0.0/0'), ['10.244.1.1', '172.31.0.11', '192.0.2.10']);
    assert.deepEqual(answering('192.0.2.0/24', '172.31.0.11/32'), ['172.31.0.11', '192.0.2.10']);
    // Loopback never does: it is not among the addresses.
    assert.deepEqual(answering('127.0.0.0/8'), []);
  });

  it('which can be put on kube-ipvs0', () => {
    const can = ['10.96.0.1', '192.0.2.10', '169.254.1.1', '240.0.0.1', 'fd00:10:96::a', '2001:db8::1'];
    const cannot = [
      '127.0.0.1',
      '0.0.0.0',
      '224.0.0.1',
      '239.255.255.250',
      '255.255.255.255',
      '::',
      '::1',
      'fe80::1',
      'ff02::1',
    ];
    assert.deepEqual(can.filter(canBeBound), can);
    assert.deepEqual(cannot.filter(canBeBound), []);
  });
});
