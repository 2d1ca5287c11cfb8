import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wholeDocument } from '../../../src/dataplane/iptables/document.ts';
import { nodePortTail } from '../../../src/dataplane/iptables/staticRules.ts';
import { canonicalRule } from '../../../src/linux/iptables/canonical.ts';
import { Driver, World, backends, normalise } from './harness.ts';
import { ipv6Options, makeRoute, makeSettings, makeTable, workedExample } from './routes.ts';

for (const backend of backends) {
  test(`${backend}: the kernel holds the worked example; a second full sync writes nothing`, async () => {
    const world = new World(backend);
    try {
      const dataplane = world.dataplane();
      await dataplane.start();
      const driver = new Driver(dataplane);
      const table = makeTable(workedExample);
      assert.deepEqual(await driver.to(table), { full: true });
      const rules = world.rules();
      const settings = makeSettings();
      const wanted = normalise(wholeDocument(workedExample, settings, nodePortTail(settings, []).rules));
      for (const [chain, list] of Object.entries(wanted)) assert.deepEqual(rules[chain], list, chain);
      assert.deepEqual(
        world.reports
          .filter((report) => report.kind === 'iptablesRules')
          .map((report) => [report.table, report.total]),
        [
          ['filter', 10],
          ['nat', 53],
        ],
      );
      assert.deepEqual(
        rules['filter INPUT']?.map((rule) => /-j (\S+)/.exec(rule.replaceAll('\u0001', ' '))?.[1]),
        ['KUBE-FIREWALL', 'KUBE-PROXY-FIREWALL', 'KUBE-NODEPORTS', 'KUBE-EXTERNAL-SERVICES'],
      );
      assert.deepEqual(
        rules['filter FORWARD']?.map((rule) => /-j (\S+)/.exec(rule.replaceAll('\u0001', ' '))?.[1]),
        ['KUBE-PROXY-FIREWALL', 'KUBE-FORWARD', 'KUBE-SERVICES', 'KUBE-EXTERNAL-SERVICES'],
      );
      world.reports.length = 0;
      await driver.to(table, true);
      assert.deepEqual(
        world.reports.map((report) => (report.kind === 'iptablesRules' ? report.last : report)),
        [0, 0],
      );
      assert.deepEqual(world.rules(), rules);
      await dataplane.stop();
    } finally {
      world.close();
    }
  });

  test(`${backend}: IPv6`, async () => {
    const world = new World(backend, 'IPv6');
    try {
      const dataplane = world.dataplane();
      await dataplane.start();
      const driver = new Driver(dataplane, 'IPv6');
      const web = (endpoints: string[]): ReturnType<typeof makeRoute> =>
        makeRoute({
          name: 'ns/web',
          portName: 'http',
          clusterIP: 'fd00:10:96::60',
          port: 80,
          nodePort: 30080,
          loadBalancerIPs: ['2001:db8:1::5'],
          sourceRanges: ['2001:db8:2::/64'],
          affinitySeconds: 60,
          endpoints,
        });
      const routes = [web(['[fd00:10:244:1::10]:8080L', '[fd00:10:244:2::10]:8080'])];
      await driver.to(makeTable(routes, 'IPv6'));
      const settings = makeSettings(ipv6Options);
      const compare = (list: typeof routes): void => {
        const rules = world.rules();
        const wanted = normalise(wholeDocument(list, settings, nodePortTail(settings, []).rules));
        for (const [chain, wantedRules] of Object.entries(wanted))
          assert.deepEqual(rules[chain], wantedRules, chain);
      };
      compare(routes);
      const fewer = [web(['[fd00:10:244:2::10]:8080'])];
      assert.deepEqual(await driver.to(makeTable(fewer, 'IPv6')), { full: false });
      compare(fewer);
      await dataplane.stop();
    } finally {
      world.close();
    }
  });

  test(`${backend}: a partial sync writes what changed and counts all`, async () => {
    const world = new World(backend);
    try {
      const dataplane = world.dataplane();
      await dataplane.start();
      const driver = new Driver(dataplane);
      const service = (name: string, ip: string, endpoints: string[]): ReturnType<typeof makeRoute> =>
        makeRoute({ name: `ns/${name}`, portName: 'p80', clusterIP: ip, port: 80, endpoints });
      const one = service('one', '10.96.0.1', ['10.244.1.1:80', '10.244.1.2:80']);
      const two = service('two', '10.96.0.2', ['10.244.1.3:80']);
      await driver.to(makeTable([one]));
      const counts = async (routes: (typeof one)[]): Promise<unknown[]> => {
        world.reports.length = 0;
        assert.deepEqual(await driver.to(makeTable(routes)), { full: false });
        return world.reports.map((report) =>
          report.kind === 'iptablesRules' ? [report.table, report.total, report.last] : report,
        );
      };
      const start = 5 + 8;
      assert.deepEqual(await counts([one, two]), [
        ['filter', 4, 0],
        ['nat', start + 5, 5],
      ]);
      // One endpoint moves: its old chain goes, the new one comes, the service's chain is rewritten.
      const moved = service('one', '10.96.0.1', ['10.244.1.1:80', '10.244.1.9:80']);
      assert.deepEqual(await counts([moved, two]), [
        ['filter', 4, 0],
        ['nat', start + 5, 3 + 2],
      ]);
      const chains = Object.keys(world.rules()).filter((chain) => chain.includes('KUBE-SEP'));
      assert.equal(chains.length, 3);
      // Without endpoints there is a refusal and nothing in nat.
      assert.deepEqual(await counts([moved, service('two', '10.96.0.2', [])]), [
        ['filter', 5, 1],
        ['nat', start, 0],
      ]);
      assert.deepEqual(await counts([moved]), [
        ['filter', 4, 0],
        ['nat', start, 0],
      ]);
      assert.deepEqual(await counts([moved]), [
        ['filter', 4, 0],
        ['nat', start, 0],
      ]);
      await dataplane.stop();
    } finally {
      world.close();
    }
  });

  test(`${backend}: a failing restore keeps the last good rules, and the next sync is a full one`, async () => {
    const world = new World(backend);
    try {
      const dataplane = world.dataplane();
      await dataplane.start();
      const driver = new Driver(dataplane);
      const good = makeRoute({
        name: 'ns/one',
        clusterIP: '10.96.0.1',
        port: 80,
        endpoints: ['10.244.1.1:80'],
      });
      const other = makeRoute({
        name: 'ns/two',
        clusterIP: '10.96.0.2',
        port: 80,
        endpoints: ['10.244.1.2:80'],
      });
      await driver.to(makeTable([good]));
      const before = world.rules();
      // No input from the API makes such a route: it stands for anything that iptables-restore may refuse.
      const bad = makeRoute({
        name: 'ns/bad',
        clusterIP: '10.96.0.999',
        port: 80,
        endpoints: ['10.244.1.3:80'],
      });
      await assert.rejects(driver.to(makeTable([good, other, bad])), /iptables-\w+-restore: exit status/);
      const reachable = (rules: ReturnType<World['rules']>): unknown => ({
        services: rules['nat KUBE-SERVICES'],
        refusals: rules['filter KUBE-SERVICES'],
        one: rules[Object.keys(before).find((chain) => chain.includes('KUBE-SVC')) as string],
      });
      assert.deepEqual(reachable(world.rules()), reachable(before));
      const failures = world.reports.filter((report) => report.kind === 'iptablesRestoreFailure');
      assert.deepEqual(failures, [
        { kind: 'iptablesRestoreFailure', partial: true },
        { kind: 'iptablesRestoreFailure', partial: false },
      ]);
      assert.deepEqual(await driver.to(makeTable([good, other])), { full: true });
      assert.equal(Object.keys(world.rules()).filter((chain) => chain.includes('KUBE-SVC')).length, 2);
      await dataplane.stop();
    } finally {
      world.close();
    }
  });

  test(`${backend}: changes by others are noticed and mended`, async () => {
    const world = new World(backend);
    try {
      const dataplane = world.dataplane();
      await dataplane.start();
      const driver = new Driver(dataplane);
      const table = makeTable(workedExample);
      await driver.to(table);
      const rules = world.rules();
      assert.equal(await dataplane.lookForDrift(), undefined);
      const svc = 'KUBE-SVC-TCOU7JCQXEZGVUNU';
      const damages: string[][] = [
        ['-t nat -F'],
        ['-t nat -F', '-t nat -X'],
        ['-t filter -F', '-t filter -X'],
        ['-t mangle -X KUBE-PROXY-CANARY'],
        ['-t nat -F KUBE-SERVICES'],
        [`-t nat -F ${svc}`],
        [`-t nat -D ${svc} 1`],
        ['-t nat -D PREROUTING -m comment --comment kubernetes\u00a0service\u00a0portals -j KUBE-SERVICES'],
        ['-t filter -D KUBE-FORWARD 1'],
        ['-t nat -A KUBE-SERVICES -d 10.96.9.9 -j KUBE-MARK-MASQ'],
        ['-t filter -I KUBE-SERVICES -d 10.96.20.20 -j DROP'],
      ];
      for (const damage of damages) {
        for (const command of damage) {
          world.run([
            world.program,
            '-w',
            '5',
            ...command.split(' ').map((word) => word.replaceAll('\u00a0', ' ')),
          ]);
        }
        world.resyncs.length = 0;
        world.reports.length = 0;
        const wrong = await dataplane.lookForDrift();
        assert.ok(wrong !== undefined, `unnoticed: ${damage.join(', ')}`);
        assert.equal(world.resyncs.length, 1);
        await driver.to(table, true);
        assert.ok(world.reports.some((report) => report.kind === 'repaired' && report.what === wrong));
        const now = world.rules();
        // What had to be inserted anew may stand in another order among the jumps.
        for (const chain of Object.keys(rules)) {
          assert.deepEqual(
            [...(now[chain] ?? [])].sort(),
            [...(rules[chain] ?? [])].sort(),
            `${damage.join()}: ${chain}`,
          );
        }
        assert.equal(await dataplane.lookForDrift(), undefined, damage.join());
      }
      await dataplane.stop();
    } finally {
      world.close();
    }
  });

  test(`${backend}: over rules of an earlier run, only differences are written and leftovers go`, async () => {
    const world = new World(backend);
    try {
      const settings = makeSettings();
      const web = workedExample[3] as (typeof workedExample)[number];
      const old = makeRoute({
        name: 'ns/old',
        clusterIP: '10.96.7.7',
        port: 80,
        endpoints: ['10.244.1.1:80', '10.244.1.2:80'],
      });
      const text = wholeDocument([web, old], settings, nodePortTail(settings, []).rules);
      const dataplane = world.dataplane();
      await dataplane.start();
      world.run(
        [`${world.program}-restore`, '-w', '5', '--noflush'],
        text.replaceAll(/ -m nfacct --nfacct-name \w+/g, ''),
      );
      await new Driver(dataplane).to(makeTable([web]));
      const rules = world.rules();
      const wanted = normalise(wholeDocument([web], settings, nodePortTail(settings, []).rules));
      for (const [chain, list] of Object.entries(wanted)) assert.deepEqual(rules[chain], list, chain);
      const own = Object.keys(rules).filter((chain) => /KUBE-(SVC|SVL|SEP|EXT|FW)-/.test(chain));
      assert.equal(
        own.length,
        Object.keys(wanted).filter((chain) => /KUBE-(SVC|SVL|SEP|EXT|FW)-/.test(chain)).length,
      );
      await dataplane.stop();
    } finally {
      world.close();
    }
  });

  test(`${backend}: node ports on listed addresses follow the node's addresses`, async () => {
    const world = new World(backend);
    try {
      const dataplane = world.dataplane({ nodePortAddresses: ['192.0.2.0/24'] });
      await dataplane.start();
      const driver = new Driver(dataplane);
      const web = makeRoute({
        name: 'ns/web',
        clusterIP: '10.96.0.1',
        port: 80,
        nodePort: 30080,
        endpoints: ['10.244.1.1:80'],
      });
      const api = makeRoute({
        name: 'ns/api',
        clusterIP: '10.96.0.2',
        port: 80,
        endpoints: ['10.244.1.2:80'],
      });
      await driver.to(makeTable([web]));
      const tail = (): string[] =>
        (world.rules()['nat KUBE-SERVICES'] ?? [])
          .slice(1)
          .map((rule) => /-d ([0-9./]+)/.exec(rule)?.[1] ?? rule);
      assert.deepEqual(tail(), ['192.0.2.10/32']);
      world.addresses = ['192.0.2.11', '198.51.100.1', '192.0.2.10'];
      await driver.to(makeTable([web, api]));
      const services = world.rules()['nat KUBE-SERVICES'] ?? [];
      assert.equal(services.length, 4);
      assert.match(services[2] as string, /-d 192\.0\.2\.10\/32/);
      assert.match(services[3] as string, /-d 192\.0\.2\.11\/32/);
      await dataplane.stop();
    } finally {
      world.close();
    }
  });
}

for (const backend of backends) {
  test(`${backend}: the longest names, many endpoints and all protocols are taken`, async () => {
    const world = new World(backend, 'IPv6');
    try {
      const dataplane = world.dataplane();
      await dataplane.start();
      const label = (letter: string): string => letter.repeat(63);
      const routes = (['TCP', 'UDP', 'SCTP'] as const).map((protocol, n) =>
        makeRoute({
          name: `${label('a')}/${label('b')}`,
          portName: label('c'),
          protocol,
          clusterIP: `fd00:1111:2222:3333:4444:5555:6666:777${n}`,
          port: 65535,
          nodePort: 32767 - n,
          externalIPs: [`2001:1111:2222:3333:4444:5555:6666:777${n}`],
          loadBalancerIPs: [`2001:2111:2222:3333:4444:5555:6666:777${n}`],
          sourceRanges: ['2001:db8:1111:2222::/64', 'fd00:31::/32'],
          affinitySeconds: 86400,
          internalPolicyLocal: n === 0,
          externalPolicyLocal: n !== 2,
          healthCheckNodePort: 65535,
          endpoints: Array.from(
            { length: 20 },
            (_, i) => `[fd00:1111:2222:3333:4444:5555:6666:88${i + 10}]:65535${i < 3 ? 'L' : ''}`,
          ),
        }),
      );
      await new Driver(dataplane, 'IPv6').to(makeTable(routes, 'IPv6'));
      const settings = makeSettings(ipv6Options);
      const wanted = normalise(wholeDocument(routes, settings, nodePortTail(settings, []).rules));
      const rules = world.rules();
      for (const [chain, list] of Object.entries(wanted)) assert.deepEqual(rules[chain], list, chain);
      await dataplane.stop();
    } finally {
      world.close();
    }
  });
}

test('nft: in a table that iptables-save cannot print, services work all the same', async () => {
  const world = new World('nft');
  try {
    const dataplane = world.dataplane();
    await dataplane.start();
    world.iptables('-t nat -A PREROUTING -s 10.1.1.1 -j ACCEPT');
    const theirs = 'ip daddr 10.1.1.2 dnat to numgen random mod 2 map { 0: 10.0.0.1, 1: 10.0.0.2 }';
    world.run(['nft', 'add', 'rule', 'ip', 'nat', 'PREROUTING', theirs]);
    assert.match(world.run([`${world.program}-save`, '-t', 'nat']), /incompatible/);
    const driver = new Driver(dataplane);
    const web = makeRoute({
      name: 'ns/web',
      clusterIP: '10.96.0.1',
      port: 80,
      endpoints: ['10.244.1.1:80', '10.244.1.2:80'],
    });
    await driver.to(makeTable([web]));
    const readings = await dataplane.counters.read(makeTable([web]));
    assert.equal(readings.filter(({ meaning }) => meaning.kind === 'endpoint').length, 2);
    const services = (): string => world.iptables('-t nat -S KUBE-SERVICES');
    assert.match(services(), /-d 10\.96\.0\.1\/32 .* -j KUBE-SVC-/);
    assert.match(world.iptables('-t nat -S POSTROUTING'), /-j KUBE-POSTROUTING/);
    const api = makeRoute({ name: 'ns/api', clusterIP: '10.96.0.2', port: 80, endpoints: ['10.244.1.3:80'] });
    assert.deepEqual(await driver.to(makeTable([web, api])), { full: false });
    assert.match(services(), /-d 10\.96\.0\.2\/32/);
    assert.equal(await dataplane.lookForDrift(), undefined);
    const before = services();
    await driver.to(makeTable([web, api]), true);
    assert.deepEqual(services().split('\n').sort(), before.split('\n').sort());
    world.iptables('-t filter -F');
    world.iptables('-t filter -X');
    assert.match((await dataplane.lookForDrift()) ?? '', /of filter missing/);
    await driver.to(makeTable([web, api]), true);
    assert.equal(await dataplane.lookForDrift(), undefined);
    await dataplane.stop();
  } finally {
    world.close();
  }
});

test('canonical text is the same for rules written and printed', () => {
  assert.equal(
    canonicalRule('-m comment --comment "a b" -m tcp -p tcp -d 10.0.0.1 --dport 80 -j X'),
    canonicalRule('-d 10.0.0.1/32 -p tcp -m comment --comment "a b" -m tcp --dport 80 -j X'),
  );
  assert.notEqual(canonicalRule('-s 10.0.0.1 -j X'), canonicalRule('! -s 10.0.0.1 -j X'));
  assert.notEqual(canonicalRule('-m mark ! --mark 1 -j X'), canonicalRule('-m mark --mark 1 -j X'));
});

test('with repairs off, a change is reported and left', async () => {
  const world = new World('nft');
  try {
    const dataplane = world.dataplane({}, { repairDrift: false });
    await dataplane.start();
    const driver = new Driver(dataplane);
    await driver.to(makeTable([]), true);
    assert.equal(await dataplane.lookForDrift(), undefined);
    world.iptables('-t nat -F KUBE-SERVICES');
    const wrong = await dataplane.lookForDrift();
    assert.ok(wrong !== undefined);
    assert.deepEqual(
      world.reports.filter(({ kind }) => kind === 'changedByOthers'),
      [{ kind: 'changedByOthers', what: wrong, object: 'rule', by: '', repairing: false }],
    );
    assert.deepEqual(world.resyncs, []);
    assert.equal(await dataplane.lookForDrift(), undefined, 'told once');
    assert.deepEqual(world.rules()['nat KUBE-SERVICES'], []);
    await dataplane.stop();
  } finally {
    world.close();
  }
});
