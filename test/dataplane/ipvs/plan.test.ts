/** Laws of plans: whatever changes, a partial sync ends where a full one would, and touches only what changed. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { setIds } from '../../../src/dataplane/ipvs/names.ts';
import { ownership } from '../../../src/dataplane/ipvs/ownership.ts';
import {
  plan,
  printOperation,
  type Applied,
  type Operation,
  type PlanContext,
} from '../../../src/dataplane/ipvs/plan.ts';
import { settingsOf } from '../../../src/dataplane/ipvs/settings.ts';
import type { NodeSide } from '../../../src/dataplane/ipvs/nodeSide.ts';
import { translate } from '../../../src/dataplane/ipvs/translate.ts';
import { Touched, Wanted } from '../../../src/dataplane/ipvs/wanted.ts';
import { serverKey } from '../../../src/linux/netlink/ipvs/objects.ts';
import type { Route } from '../../../src/services/types.ts';
import { applyStep, stepArbitrary, tableArbitrary } from '../iptables/generate.ts';
import { changesBetween, ipv4Options, makeRoute, makeTable } from '../iptables/routes.ts';

const settings = settingsOf({ ...ipv4Options, scheduler: '', excludeCIDRs: [] }, true);
const node: NodeSide = { addresses: new Set(['192.0.2.10']), nodePorts: ['192.0.2.10'] };
const context: PlanContext = { mayDelete: () => true, retiring: () => false, first: false };

function emptyKernel(): Applied {
  return { servers: new Map(), sets: new Map(setIds.map((id) => [id, new Set()])), addresses: new Set() };
}

/** What the kernel would do; strict where it is strict. */
function execute(kernel: Applied, operation: Operation): void {
  switch (operation.kind) {
    case 'addEntries':
      for (const text of operation.entries) kernel.sets.get(operation.set)!.add(text);
      return;
    case 'deleteEntries':
      for (const text of operation.entries) assert.ok(kernel.sets.get(operation.set)!.delete(text));
      return;
    case 'addServer':
      assert.ok(!kernel.servers.has(operation.key));
      kernel.servers.set(operation.key, { server: operation.server, reals: new Map() });
      return;
    case 'editServer':
      kernel.servers.set(operation.key, {
        server: operation.server,
        reals: kernel.servers.get(operation.key)!.reals,
      });
      return;
    case 'deleteServer':
      assert.ok(kernel.servers.delete(operation.key));
      return;
    case 'addReal':
    case 'restoreReal':
      kernel.servers.get(operation.key)!.reals.set(operation.real, 1);
      return;
    case 'retireReal':
      assert.ok(kernel.servers.get(operation.key)!.reals.delete(operation.real));
      return;
    case 'addAddress':
      assert.ok(!kernel.addresses.has(operation.address));
      kernel.addresses.add(operation.address);
      return;
    case 'removeAddress':
      assert.ok(kernel.addresses.delete(operation.address));
  }
}

function run(kernel: Applied, wanted: Wanted, touched: Touched, of = context): Operation[] {
  const { before, add, remove } = plan(wanted, kernel, touched, of);
  const all = [...before, ...add, ...remove];
  for (const operation of all) execute(kernel, operation);
  return all;
}

function fresh(routes: readonly Route[]): Applied {
  const wanted = new Wanted();
  const touched = new Touched();
  for (const route of routes) wanted.add(translate(route, settings, node), touched);
  const kernel = emptyKernel();
  run(kernel, wanted, touched);
  return kernel;
}

describe('plans', () => {
  it('any sequence of changes ends in the state that a fresh start makes', () => {
    fc.assert(
      fc.property(
        tableArbitrary(5),
        fc.array(stepArbitrary(5), { minLength: 1, maxLength: 6 }),
        (first, steps) => {
          const wanted = new Wanted();
          const kernel = emptyKernel();
          let routes: readonly Route[] = [];
          const to = (next: readonly Route[]): void => {
            const touched = new Touched();
            for (const { before, after } of changesBetween(makeTable(routes), makeTable(next)).changes) {
              if (before !== undefined) wanted.remove(translate(before, settings, node), touched);
              if (after !== undefined) wanted.add(translate(after, settings, node), touched);
            }
            run(kernel, wanted, touched);
            routes = next;
          };
          to(first);
          for (const step of steps) to(applyStep(routes, step));
          assert.deepEqual(kernel, fresh(routes));
        },
      ),
      { numRuns: 150 },
    );
  });

  it('nothing is done where nothing changed, and one change touches one service', () => {
    const routes = Array.from({ length: 50 }, (_, n) =>
      makeRoute({ name: `a/s${n}`, clusterIP: `10.96.1.${n}`, port: 80, endpoints: [`10.244.1.${n}:80L`] }),
    );
    const wanted = new Wanted();
    const kernel = emptyKernel();
    const touched = new Touched();
    for (const route of routes) wanted.add(translate(route, settings, node), touched);
    run(kernel, wanted, touched);
    assert.deepEqual(run(kernel, wanted, touched), []);
    const changed = new Touched();
    wanted.remove(translate(routes[7]!, settings, node), changed);
    const after = makeRoute({ name: 'a/s7', clusterIP: '10.96.1.7', port: 80, endpoints: ['10.244.2.9:80'] });
    wanted.add(translate(after, settings, node), changed);
    assert.deepEqual(
      run(kernel, wanted, changed).map((one) => printOperation(one, 'IPv4')),
      [
        'ipvsadm -a -t 10.96.1.7:80 -r 10.244.2.9:80 -m -w 1',
        'ipvsadm -e -t 10.96.1.7:80 -r 10.244.1.7:80 -m -w 0',
        'ipset del KUBE-LOOP-BACK 10.244.1.7,tcp:80,10.244.1.7',
      ],
    );
  });

  it('an address answers last and goes first of all that is taken away', () => {
    const wanted = new Wanted();
    const kernel = emptyKernel();
    const route = makeRoute({ name: 'a/s', clusterIP: '10.96.1.1', port: 80, endpoints: ['10.244.2.9:80'] });
    const touched = new Touched();
    wanted.add(translate(route, settings, node), touched);
    assert.deepEqual(
      run(kernel, wanted, touched).map((one) => one.kind),
      ['addEntries', 'addEntries', 'addServer', 'addReal', 'addAddress'],
    );
    wanted.remove(translate(route, settings, node), touched);
    assert.deepEqual(
      run(kernel, wanted, touched).map((one) => one.kind),
      ['deleteServer', 'removeAddress', 'deleteEntries', 'deleteEntries'],
    );
  });

  it('who may pass a guarded address is known before it is guarded, and after it is no longer', () => {
    const wanted = new Wanted();
    const kernel = emptyKernel();
    const balanced = { name: 'a/s', clusterIP: '10.96.1.1', port: 80, loadBalancerIPs: ['198.51.100.7'] };
    const open = makeRoute(balanced);
    const guarded = makeRoute({ ...balanced, sourceRanges: ['192.0.2.0/24'] });
    const change = (before: Route | undefined, after: Route): string[] => {
      const touched = new Touched();
      if (before !== undefined) wanted.remove(translate(before, settings, node), touched);
      wanted.add(translate(after, settings, node), touched);
      return run(kernel, wanted, touched).flatMap((one) => ('set' in one ? one.set : []));
    };
    change(undefined, open);
    const sets = ['KUBE-LOAD-BALANCER-SOURCE-IP', 'KUBE-LOAD-BALANCER-SOURCE-CIDR', 'KUBE-LOAD-BALANCER-FW'];
    assert.deepEqual(change(open, guarded), sets);
    assert.deepEqual(change(guarded, open), [...sets].reverse());
  });

  it('rules are made anew only where a set is filled or emptied, or a guarded address comes or goes', () => {
    const wanted = new Wanted();
    const touched = new Touched();
    const shapes = [wanted.shape];
    const add = (more: object): void => {
      const name = `a/s${shapes.length}`;
      const route = makeRoute({ name, clusterIP: `10.96.1.${shapes.length}`, port: 80, ...more });
      wanted.add(translate(route, settings, node), touched);
      shapes.push(wanted.shape);
    };
    add({});
    add({});
    add({ endpoints: ['10.244.2.9:80'] });
    add({ loadBalancerIPs: ['198.51.100.7'], sourceRanges: ['203.0.113.0/24'] });
    add({ loadBalancerIPs: ['198.51.100.8'], sourceRanges: ['203.0.113.0/24'] });
    const changed = shapes.slice(1).map((shape, i) => shape !== shapes[i]);
    assert.deepEqual(changed, [true, false, false, true, true]);
  });

  it('a virtual server of other scheduler, flags or time-out is edited, and keeps who is behind it', () => {
    const spec = { name: 'a/s', clusterIP: '10.96.1.1', port: 80, endpoints: ['10.244.2.9:80'] };
    const wanted = new Wanted();
    const kernel = emptyKernel();
    const touched = new Touched();
    const plain = makeRoute(spec);
    wanted.add(translate(plain, settings, node), touched);
    run(kernel, wanted, touched);
    const sticky = makeRoute({ ...spec, affinitySeconds: 600 });
    wanted.remove(translate(plain, settings, node), touched);
    wanted.add(translate(sticky, settings, node), touched);
    const commands = (): string[] =>
      run(kernel, wanted, touched).map((operation) => printOperation(operation, 'IPv4'));
    assert.deepEqual(commands(), ['ipvsadm -E -t 10.96.1.1:80 -s rr -p 600']);
    const entry = kernel.servers.get('10.96.1.1:80/TCP')!;
    kernel.servers.set('10.96.1.1:80/TCP', { ...entry, server: { ...entry.server, scheduler: 'wlc' } });
    assert.deepEqual(commands(), ['ipvsadm -E -t 10.96.1.1:80 -s rr -p 600']);
    assert.deepEqual(commands(), []);
  });

  it('ports come and go: the cluster IP is bound once, and unbound with the last', () => {
    const wanted = new Wanted();
    const kernel = emptyKernel();
    let before: Route[] = [];
    const to = (...ports: number[]): string[] => {
      const touched = new Touched();
      for (const route of before) wanted.remove(translate(route, settings, node), touched);
      before = ports.map((port) =>
        makeRoute({ name: 'a/s', portName: `p${port}`, clusterIP: '10.96.1.1', port }),
      );
      for (const route of before) wanted.add(translate(route, settings, node), touched);
      return run(kernel, wanted, touched).flatMap((one) => ('address' in one ? one.kind : []));
    };
    assert.deepEqual(to(80, 81), ['addAddress']);
    assert.deepEqual(to(80), []);
    assert.deepEqual(to(80, 81, 82), []);
    assert.deepEqual(to(), ['removeAddress']);
  });

  it('weights: 0 is mended at the first sync and on return, other values stay', () => {
    const route = makeRoute({
      name: 'a/s',
      clusterIP: '10.96.1.1',
      port: 80,
      endpoints: ['10.244.2.8:80', '10.244.2.9:80'],
    });
    const wanted = new Wanted();
    const touched = new Touched();
    wanted.add(translate(route, settings, node), touched);
    const kernel = emptyKernel();
    run(kernel, wanted, touched);
    const reals = kernel.servers.get('10.96.1.1:80/TCP')!.reals;
    reals.set('10.244.2.8:80', 7);
    reals.set('10.244.2.9:80', 0);
    const kinds = (of: Partial<PlanContext>): string[] => {
      const { before, add, remove } = plan(wanted, kernel, touched, { ...context, ...of });
      return [...before, ...add, ...remove].map((one) => printOperation(one, 'IPv4'));
    };
    const mended = ['ipvsadm -e -t 10.96.1.1:80 -r 10.244.2.9:80 -m -w 1'];
    assert.deepEqual(kinds({}), []);
    assert.deepEqual(kinds({ first: true }), mended);
    assert.deepEqual(kinds({ retiring: () => true }), mended);
  });

  it("what others made is told from what is ours by the kernel's own records", () => {
    const kernel = fresh([
      makeRoute({
        name: 'a/s',
        clusterIP: '10.96.1.1',
        port: 80,
        nodePort: 30080,
        externalIPs: ['192.0.2.10'],
      }),
    ]);
    const ours = ownership(kernel, node);
    const is = (address: string, port: number, protocol: 'TCP' | 'UDP' | 'SCTP' = 'TCP'): boolean => {
      const server = { protocol, address, port, scheduler: 'rr', flags: 0, timeout: 0, prefixLength: 32 };
      assert.equal(serverKey(server), `${address}:${port}/${protocol}`);
      return ours(server);
    };
    assert.ok(is('10.96.1.1', 80));
    assert.ok(is('10.96.1.1', 9999));
    assert.ok(is('192.0.2.10', 30080));
    assert.ok(is('192.0.2.10', 80));
    assert.equal(is('192.0.2.10', 30080, 'UDP'), false);
    assert.equal(is('192.0.2.10', 8080), false);
    assert.equal(is('203.0.113.5', 80), false);
  });
});
