/** What an address or interface that comes or goes means to the mode. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { mayBeNodes, meaningOf, type AddressEvent } from '../../../src/dataplane/ipvs/addressEvents.ts';
import type { Addresses } from '../../../src/dataplane/ipvs/nodeSide.ts';

const deviceIndex = 7;
const mirror = {
  applied: { servers: new Map(), sets: new Map(), addresses: new Set(['10.96.0.10']) },
  node: { addresses: new Set(['192.0.2.10']), nodePorts: [] },
};

/** `now`: what the kernel holds when it is asked. */
function meaning(event: AddressEvent, now: Partial<Addresses> = {}, exists = true): unknown {
  const addresses = (): Addresses => ({ device: new Set(), node: new Set(), ...now });
  return meaningOf(event, 'IPv4', { index: deviceIndex, exists: () => exists, addresses }, mirror);
}

const event = (added: boolean, address: string, index = 2, label = ''): AddressEvent => ({
  added,
  address,
  family: address.includes(':') ? 'IPv6' : 'IPv4',
  prefixLength: 32,
  index,
  protocol: 0,
  label,
});

describe('events', () => {
  it('of the node: another address, or one less', () => {
    assert.equal(meaning(event(true, '192.0.2.11')), 'node');
    assert.equal(meaning(event(false, '192.0.2.10')), 'node');
    assert.equal(meaning(event(true, '192.0.2.10')), undefined);
    assert.equal(meaning(event(false, '192.0.2.11')), undefined);
    assert.equal(meaning(event(false, '192.0.2.10'), { node: new Set(['192.0.2.10']) }), undefined);
    assert.equal(meaning(event(true, '127.0.0.2')), undefined);
    assert.equal(meaning(event(true, 'fd00::1')), undefined);
    assert.equal(meaning(event(true, '198.51.100.7', 1, 'lo:pointsman')), undefined);
    assert.equal(meaning(undefined), 'node');
  });

  it('of kube-ipvs0: only what goes and is wanted', () => {
    assert.deepEqual(meaning(event(false, '10.96.0.10', deviceIndex)), {
      gone: 'address 10.96.0.10 of kube-ipvs0 is gone',
    });
    assert.equal(
      meaning(event(false, '10.96.0.10', deviceIndex), { device: new Set(['10.96.0.10']) }),
      undefined,
    );
    assert.equal(meaning(event(true, '10.96.0.10', deviceIndex)), undefined);
    assert.equal(meaning(event(false, '10.96.0.99', deviceIndex)), undefined);
    assert.deepEqual(meaning({ linkGone: deviceIndex }, {}, false), { gone: 'device kube-ipvs0 is gone' });
    assert.equal(meaning({ linkGone: deviceIndex }), undefined);
    assert.equal(meaning({ linkGone: 2 }, {}, false), undefined);
  });

  it('while a sync is on: what may be an address of the node is looked at afterwards', () => {
    const device = { index: deviceIndex };
    assert.equal(mayBeNodes(event(true, '192.0.2.11'), device), true);
    assert.equal(mayBeNodes(undefined, device), true);
    assert.equal(mayBeNodes(event(true, '10.96.0.10', deviceIndex), device), false);
    assert.equal(mayBeNodes({ linkGone: 2 }, device), false);
  });
});
