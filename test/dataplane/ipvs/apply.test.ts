/** Carrying out plans: in which order, and what a refusal costs. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { applyPlan, type Target } from '../../../src/dataplane/ipvs/apply.ts';
import { setIds } from '../../../src/dataplane/ipvs/names.ts';
import { everything, plan, realServer, type Applied } from '../../../src/dataplane/ipvs/plan.ts';
import { Retirement } from '../../../src/dataplane/ipvs/retirement.ts';
import { settingsOf } from '../../../src/dataplane/ipvs/settings.ts';
import { translate } from '../../../src/dataplane/ipvs/translate.ts';
import { Wanted } from '../../../src/dataplane/ipvs/wanted.ts';
import { EADDRNOTAVAIL, EINVAL, EPERM } from '../../../src/linux/netlink/errors.ts';
import type { ServerIdentity } from '../../../src/linux/netlink/ipvs/objects.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import type { Route } from '../../../src/services/types.ts';
import { ipv4Options, makeRoute } from '../iptables/routes.ts';
import { FakeIpvs, refusal } from './fakeIpvs.ts';

const settings = settingsOf({ ...ipv4Options, scheduler: '', excludeCIDRs: [] }, true);
const webServer: ServerIdentity = { protocol: 'TCP', address: '10.96.0.10', port: 80 };
const web = (...endpoints: string[]): Route =>
  makeRoute({ name: 'a/web', clusterIP: '10.96.0.10', port: 80, endpoints });

/** A kernel, and the whole way from routes to it. */
class Machine {
  readonly ipvs = new FakeIpvs();
  readonly retirement = new Retirement();
  readonly steps: string[] = [];
  readonly refusedAddresses = new Set<string>();
  readonly applied: Applied = {
    servers: new Map(),
    sets: new Map(setIds.map((id) => [id, new Set()])),
    addresses: new Set(),
  };

  constructor() {
    this.ipvs.onCall = (what) => void this.steps.push(what);
  }

  async to(routes: readonly Route[], rulesLast = false): Promise<void> {
    const wanted = new Wanted();
    const node = { addresses: new Set<string>(), nodePorts: [] };
    for (const route of routes) wanted.add(translate(route, settings, node));
    const { applied, retirement, ipvs, steps } = this;
    const target: Target = {
      family: 'IPv4',
      log: silentLogger,
      applied,
      retirement,
      kernel: {
        ipvs,
        sets: { add: () => steps.push('addEntries'), delete: () => steps.push('deleteEntries') },
        device: {
          add: (address) => {
            if (this.refusedAddresses.has(address)) throw refusal('add', EADDRNOTAVAIL);
            steps.push('addAddress');
          },
          remove: () => steps.push('removeAddress'),
        },
      },
    };
    const operations = plan(wanted, applied, everything(wanted, applied), {
      mayDelete: () => true,
      retiring: (key, real) => retirement.has(key, real),
      first: false,
    });
    const write = (): Promise<void> => Promise.resolve(void steps.push('rules'));
    await applyPlan(target, operations, { write, last: rulesLast });
  }
}

const each = (steps: readonly string[]): string[] => steps.filter((step, i) => step !== steps[i - 1]);

describe('carrying out a plan', () => {
  it('guards come before what they guard, and go after it', async () => {
    const machine = new Machine();
    await machine.to([web('10.244.1.5:8080')]);
    assert.deepEqual(each(machine.steps), ['addEntries', 'rules', 'addServer', 'addAddress']);
    machine.steps.length = 0;
    await machine.to([]);
    assert.deepEqual(each(machine.steps), ['rules', 'removeAddress', 'deleteEntries']);
  });

  it("what another mode's rules serve is there before they give way", async () => {
    const machine = new Machine();
    await machine.to([web('10.244.1.5:8080')], true);
    assert.deepEqual(each(machine.steps), ['addEntries', 'addServer', 'addAddress', 'rules']);
  });

  it('an address that cannot be an endpoint, a service or a bound address costs itself alone', async () => {
    const machine = new Machine();
    machine.ipvs.impossible.set('192.0.2.255', EINVAL).set('198.51.100.7', EINVAL);
    machine.refusedAddresses.add('10.96.0.11');
    const routes = [
      web('192.0.2.255:80', '10.244.1.5:8080'),
      makeRoute({
        name: 'a/odd',
        clusterIP: '10.96.0.11',
        port: 80,
        loadBalancerIPs: ['198.51.100.7'],
        endpoints: ['10.244.1.5:8080'],
      }),
    ];
    for (let sync = 0; sync < 2; sync++) {
      await machine.to(routes);
      assert.deepEqual(machine.ipvs.weights(webServer), { '10.244.1.5:8080': 1 });
      assert.deepEqual([...machine.applied.servers.keys()], ['10.96.0.10:80/TCP', '10.96.0.11:80/TCP']);
      assert.deepEqual(
        [...machine.applied.servers.get('10.96.0.10:80/TCP')!.reals.keys()],
        ['10.244.1.5:8080'],
      );
      // It is not looked for where it is not.
      assert.deepEqual([...machine.applied.addresses].sort(), ['10.96.0.10', '198.51.100.7']);
    }
  });

  it('other refusals fail, after all the rest is done', async () => {
    const machine = new Machine();
    machine.ipvs.impossible.set('10.96.0.10', EPERM);
    const other = makeRoute({ name: 'a/b', clusterIP: '10.96.0.11', port: 80 });
    await assert.rejects(machine.to([web(), other]), /EPERM/);
    assert.ok(machine.ipvs.servers.has('10.96.0.11:80/TCP'));
    assert.equal(machine.applied.servers.has('10.96.0.10:80/TCP'), false);
  });

  it('a virtual server that somebody else has made since is taken over', async () => {
    const machine = new Machine();
    const { ipvs, applied } = machine;
    ipvs.addServer({ ...webServer, scheduler: 'wlc', flags: 0, timeout: 0, prefixLength: 32 });
    for (const real of ['10.9.9.9:80', '10.9.9.8:80', '10.244.1.5:8080'])
      ipvs.addRealServer(webServer, { ...realServer(real), forwarding: 'tunnel' });
    ipvs.connections.set('10.9.9.9:80', [1, 0]).set('10.244.1.5:8080', [1, 0]);
    await machine.to([web('10.244.1.5:8080', '10.244.1.6:8080')]);
    assert.deepEqual(ipvs.listServers()[0]?.scheduler, 'rr');
    const weights = { '10.9.9.9:80': 0, '10.244.1.5:8080': 1, '10.244.1.6:8080': 1 };
    assert.deepEqual(ipvs.weights(webServer), weights);
    assert.deepEqual(Object.fromEntries(applied.servers.get('10.96.0.10:80/TCP')!.reals), weights);
    assert.ok(ipvs.listRealServers(webServer).every((real) => real.forwarding === 'masquerade'));
    assert.equal(machine.retirement.size, 1);
  });

  it('an endpoint that comes back is on its way out no longer, whoever had removed it', async () => {
    const machine = new Machine();
    await machine.to([web('10.244.1.5:8080')]);
    machine.ipvs.connections.set('10.244.1.5:8080', [1, 0]);
    await machine.to([web()]);
    assert.equal(machine.retirement.size, 1);
    // Somebody removes it by hand; a full sync reads that.
    machine.ipvs.deleteRealServer(webServer, realServer('10.244.1.5:8080'));
    machine.applied.servers.get('10.96.0.10:80/TCP')!.reals.clear();
    await machine.to([web('10.244.1.5:8080')]);
    assert.equal(machine.retirement.size, 0);
    machine.retirement.check(machine.ipvs, () => assert.fail('removed'), assert.ifError);
    assert.deepEqual(machine.ipvs.weights(webServer), { '10.244.1.5:8080': 1 });
  });
});
