/** Which real servers go at once, which wait for their connections, and what becomes of those that wait. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { realServer } from '../../../src/dataplane/ipvs/plan.ts';
import { Retirement } from '../../../src/dataplane/ipvs/retirement.ts';
import type { Protocol } from '../../../src/api/objects.ts';
import { serverKey, type VirtualServer } from '../../../src/linux/netlink/ipvs/objects.ts';
import { FakeIpvs } from './fakeIpvs.ts';

const real = '10.244.1.5:8080';

function setUp(protocol: Protocol, active: number, inactive: number) {
  const ipvs = new FakeIpvs();
  const server: VirtualServer = {
    protocol,
    address: '10.96.0.10',
    port: 80,
    scheduler: 'rr',
    flags: 0,
    timeout: 0,
    prefixLength: 32,
  };
  ipvs.addServer(server);
  ipvs.addRealServer(server, realServer(real));
  ipvs.connections.set(real, [active, inactive]);
  const retirement = new Retirement();
  const gone: string[] = [];
  const check = (): void =>
    retirement.check(
      ipvs,
      (_, name) => void gone.push(name),
      (error) => assert.fail(error as Error),
    );
  return { ipvs, server, retirement, gone, check };
}

describe('retirement', () => {
  it("vectors of kube-proxy's tests: at once, or with weight 0 while there are connections", () => {
    const after = (protocol: Protocol, active: number, inactive: number, which = real): object => {
      const { ipvs, server, retirement } = setUp(protocol, active, inactive);
      const gone = retirement.retire(ipvs, server, which);
      return { gone, weights: ipvs.weights(server), waiting: retirement.size };
    };
    const away = { gone: true, weights: {}, waiting: 0 };
    const waits = { gone: false, weights: { [real]: 0 }, waiting: 1 };
    assert.deepEqual(after('TCP', 0, 0), away);
    assert.deepEqual(after('TCP', 10, 0), waits);
    assert.deepEqual(after('TCP', 0, 10), waits);
    assert.deepEqual(after('UDP', 10, 10), away);
    assert.deepEqual(after('SCTP', 10, 10), away);
    for (const protocol of ['TCP', 'UDP', 'SCTP'] as const)
      assert.deepEqual(after(protocol, 10, 10, '10.244.1.5:8081'), {
        gone: true,
        weights: { [real]: 1 },
        waiting: 0,
      });
  });

  it('one that waits goes when its last connection has ended, inactive ones included', () => {
    const { ipvs, server, retirement, gone, check } = setUp('TCP', 1, 1);
    retirement.retire(ipvs, server, real);
    for (const connections of [
      [1, 0],
      [0, 1],
    ] as const) {
      ipvs.connections.set(real, connections);
      check();
      assert.deepEqual([gone, retirement.size], [[], 1]);
    }
    ipvs.connections.set(real, [0, 0]);
    check();
    assert.deepEqual([gone, retirement.size, ipvs.weights(server)], [[real], 0, {}]);
  });

  it('one endpoint behind two frontends waits twice', () => {
    const { ipvs, server, retirement, gone, check } = setUp('TCP', 1, 0);
    const other = { ...server, address: '192.0.2.10', port: 30080 };
    ipvs.addServer(other);
    ipvs.addRealServer(other, realServer(real));
    retirement.retire(ipvs, server, real);
    retirement.retire(ipvs, other, real);
    assert.equal(retirement.size, 2);
    retirement.forgetServer(serverKey(server));
    assert.equal(retirement.size, 1);
    ipvs.connections.set(real, [0, 0]);
    check();
    assert.deepEqual([gone, ipvs.weights(server), ipvs.weights(other)], [[real], { [real]: 0 }, {}]);
  });

  it('one that somebody else has removed waits no longer', () => {
    const { ipvs, server, retirement, gone, check } = setUp('TCP', 1, 0);
    retirement.retire(ipvs, server, real);
    ipvs.deleteRealServer(server, realServer(real));
    check();
    assert.deepEqual([gone, retirement.size], [[real], 0]);
  });
});
