/** Wanted against the rules of real kernels: nothing to say after a sync, and every change by others named. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Family } from '../../src/api/objects.ts';
import { diffIptables } from '../../src/diff/iptablesDiff.ts';
import { printDifference, type Difference } from '../../src/diff/difference.ts';
import { iptablesNeighbours, nftNeighbours, ServiceAddresses } from '../../src/diff/neighbours.ts';
import { diffNftables } from '../../src/diff/nftablesDiff.ts';
import { diffSavedNftables } from '../../src/diff/nftablesSaved.ts';
import { parseRuleset } from '../../src/explain/nft/fromJson.ts';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { parseSave } from '../../src/linux/iptables/save.ts';
import { withNetworkNamespace } from '../../src/linux/netlink/namespace.ts';
import { NftSocket } from '../../src/linux/netlink/nftables/socket.ts';
import type { Wanted, WantedFamily } from '../../src/render/wanted.ts';
import { render } from '../../src/render/render.ts';
import { World as IptablesWorld, backends } from '../dataplane/iptables/harness.ts';
import { World as NftablesWorld } from '../dataplane/nftables/harness.ts';
import { makeNamespace, removeNamespace } from '../support/namespace.ts';
import { labFlags, scenarioManifest, scenarioNames, wantedOfText } from '../render/support.ts';

const folder = makeOwnedDirectory('diff');
after(() => rmSync(folder, { recursive: true }));

function readTable(world: NftablesWorld) {
  return withNetworkNamespace(`/run/netns/${world.namespace}`, () => {
    const nft = new NftSocket();
    try {
      return nft.readTable({ family: world.family === 'IPv6' ? 'ip6' : 'ip', name: 'kube-proxy' });
    } finally {
      nft.close();
    }
  });
}

function nftablesDiff(world: NftablesWorld, family: WantedFamily, wanted: Wanted): Difference[] {
  return diffNftables(family, readTable(world), wanted.node.localAddresses);
}

/** The same from a dump. */
function savedDiff(world: NftablesWorld, family: WantedFamily, wanted: Wanted): Difference[] {
  const { status, stdout, stderr } = spawnSync(
    'ip',
    ['netns', 'exec', world.namespace, 'nft', '-j', 'list', 'ruleset'],
    { encoding: 'utf8' },
  );
  assert.equal(status, 0, stderr);
  return diffSavedNftables(family, parseRuleset(stdout), wanted.node.localAddresses);
}

function iptablesDiff(world: IptablesWorld, family: WantedFamily, wanted: Wanted): Difference[] {
  return diffIptables(wanted, family, parseSave(world.save()), { tcpBeLiberal: false });
}

function texts(differences: readonly Difference[]): string[] {
  return differences.map((one) => printDifference(one).trimEnd());
}

for (const backend of backends) {
  test(`${backend}: after a rendering was loaded there is no difference, in any scenario`, async () => {
    for (const name of scenarioNames) {
      const wanted = await wantedOfText(scenarioManifest(name), ...labFlags, '--mode=iptables');
      for (const [i, { text }] of render(wanted).entries()) {
        const family = wanted.families[i]!;
        const world = new IptablesWorld(backend, family.family);
        try {
          world.run([`${world.program}-restore`, '--noflush'], text);
          assert.deepEqual(texts(iptablesDiff(world, family, wanted)), [], `${name} ${family.family}`);
        } finally {
          world.close();
        }
      }
    }
  });
}

test('nftables: a table with a history of all scenarios has no difference at any point', async () => {
  for (const family of ['IPv4', 'IPv6'] as const) {
    const world = new NftablesWorld(family);
    try {
      let driver: Awaited<ReturnType<typeof world.start>> | undefined;
      for (const name of [...scenarioNames, ...scenarioNames.toReversed()]) {
        const flags = [...labFlags, '--mode=nftables', `--family=${family}`];
        const wanted = await wantedOfText(scenarioManifest(name), ...flags);
        const [one = assert.fail('no family')] = wanted.families;
        world.addresses = wanted.node.localAddresses;
        driver ??= await world.start(one.options);
        await driver.to(one.table);
        assert.deepEqual(texts(nftablesDiff(world, one, wanted)), [], `${name} ${family}`);
        assert.deepEqual(texts(savedDiff(world, one, wanted)), [], `${name} ${family}, saved`);
      }
    } finally {
      await world.close();
    }
  }
});

const web = 'default/web:http';

async function wantedIn(mode: string, family: Family = 'IPv4', scenario = 'nodeport'): Promise<Wanted> {
  return await wantedOfText(scenarioManifest(scenario), ...labFlags, `--mode=${mode}`, `--family=${family}`);
}

test('nftables: each change by others is named, with the service port it belongs to', async () => {
  const wanted = await wantedIn('nftables');
  const [family = assert.fail()] = wanted.families;
  const [rendering = assert.fail()] = render(wanted);
  const route = [...family.table.routes.values()].find(({ port }) => port.name === web)!;
  const { clusterIP, port } = route.port;
  const key = `${clusterIP} . tcp . ${port}`;
  const cases: readonly (readonly [script: string, RegExp])[] = [
    ['delete table ip kube-proxy', /^IPv4 missing table: ip kube-proxy$/],
    ['insert rule ip kube-proxy dispatch drop', /^IPv4 extra rule: ip kube-proxy dispatch\n- drop$/],
    [
      'flush chain ip kube-proxy source-check',
      /^IPv4 missing rule: ip kube-proxy source-check\n\+ ip daddr .* drop/,
    ],
    ['add chain ip kube-proxy mine', /^IPv4 extra chain: ip kube-proxy mine$/],
    ['add set ip kube-proxy mine { type mark; }', /^IPv4 extra set: ip kube-proxy mine$/],
    [
      `delete element ip kube-proxy frontends { ${key} }`,
      /^IPv4 missing element: ip kube-proxy frontends \(default\/web:http\)\n\+ [0-9.]+ \. tcp \. \d+ .* goto /,
    ],
    [
      `delete element ip kube-proxy frontends { ${key} }; add element ip kube-proxy frontends { ${key} : drop }`,
      /^IPv4 altered element: ip kube-proxy frontends \(default\/web:http\)\n- .* drop\n\+ .* goto /,
    ],
    [
      `delete element ip kube-proxy endpoints { ${key} . 0 }`,
      /^IPv4 altered element: ip kube-proxy endpoints \(default\/web:http\)\n- .*a slot is missing\)\n\+ /,
    ],
    [
      'add element ip kube-proxy frontends { 1.2.3.4 . tcp . 5 : drop }',
      /^IPv4 extra element: ip kube-proxy frontends\n- 1\.2\.3\.4 \. tcp \. 5 : drop$/,
    ],
  ];
  const world = new NftablesWorld();
  try {
    for (const [script, expected] of cases) {
      world.nftScript(rendering.text);
      assert.deepEqual(texts(nftablesDiff(world, family, wanted)), []);
      world.nftScript(script.replaceAll('; add', '\nadd'));
      for (const found of [nftablesDiff, savedDiff].map((diff) => texts(diff(world, family, wanted)))) {
        assert.equal(found.length, 1, `${script}: ${found.join('\n')}`);
        assert.match(found[0]!, expected);
      }
    }
    world.nftScript(rendering.text);
    world.nftScript('add table ip kube-proxy { flags dormant; }');
    assert.deepEqual(texts(nftablesDiff(world, family, wanted)), [
      'IPv4 altered table: ip kube-proxy\n- flags dormant: nothing in this table is in force',
    ]);
  } finally {
    await world.close();
  }
});

test('iptables: each change by others is named, with the service port it belongs to', async () => {
  const wanted = await wantedIn('iptables');
  const [family = assert.fail()] = wanted.families;
  const [rendering = assert.fail()] = render(wanted);
  const chain = (prefix: string): string =>
    new RegExp(`-A (KUBE-${prefix}-\\w+) .*default/web:http`).exec(rendering.text)?.[1] ??
    assert.fail(prefix);
  const cases: readonly (readonly [commands: string[], RegExp[]])[] = [
    [
      [`-t nat -D ${chain('SVC')} 1`],
      [/^IPv4 missing rule: nat KUBE-SVC-\w+ \(default\/web:http\)\n\+ -A KUBE-SVC-/],
    ],
    [
      [`-t nat -F ${chain('SEP')}`, `-t nat -A ${chain('SEP')} -p tcp -j DNAT --to-destination 192.0.2.6:6`],
      [
        /^IPv4 altered rule: nat KUBE-SEP-\w+ \(default\/web:http\)\n- .*192\.0\.2\.6:6\n\+ .*KUBE-MARK-MASQ\n\+ .*DNAT/,
      ],
    ],
    [
      ['-t nat -A KUBE-SERVICES -d 10.96.9.9 -j KUBE-MARK-MASQ'],
      [/^IPv4 extra rule: nat KUBE-SERVICES\n- -A KUBE-SERVICES -d 10\.96\.9\.9\/32 -j KUBE-MARK-MASQ$/],
    ],
    [['-t nat -F PREROUTING'], [/^IPv4 missing jump: nat PREROUTING\n\+ -I PREROUTING .* -j KUBE-SERVICES$/]],
    [['-t nat -N KUBE-SVC-AAAAAAAAAAAAAAAA'], [/^IPv4 extra chain: nat KUBE-SVC-AAAAAAAAAAAAAAAA$/]],
    [
      ['-t mangle -X KUBE-PROXY-CANARY', '-t filter -D KUBE-FORWARD 1'],
      [
        /^IPv4 missing chain: mangle KUBE-PROXY-CANARY$/,
        /^IPv4 missing rule: filter KUBE-FORWARD\n\+ .*INVALID -j DROP$/,
      ],
    ],
    // The kubelet's own.
    [['-t filter -A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP'], []],
  ];
  for (const [commands, expected] of cases) {
    const world = new IptablesWorld('nft');
    try {
      world.run(['iptables-restore', '--noflush'], rendering.text);
      for (const command of commands) world.iptables(command);
      const found = texts(iptablesDiff(world, family, wanted));
      assert.equal(found.length, expected.length, found.join('\n'));
      expected.forEach((pattern, i) => assert.match(found[i]!, pattern));
    } finally {
      world.close();
    }
  }
});

test('others with rules at the same hooks are named by what their chains are called', async () => {
  const wanted = await wantedIn('iptables');
  const [family = assert.fail()] = wanted.families;
  const addresses = new ServiceAddresses(family);
  const ip = [...family.table.routes.values()][0]!.port.clusterIP;
  const endpoint = [...family.table.routes.values()].flatMap(({ endpoints }) => endpoints)[0]!;
  const saved = parseSave(
    [
      '*filter',
      ':FORWARD DROP [0:0]',
      ':DOCKER-USER - [0:0]',
      ':cali-FORWARD - [0:0]',
      ':KUBE-SERVICES - [0:0]',
      ':quiet - [0:0]',
      '-A FORWARD -j DOCKER-USER',
      '-A FORWARD -j KUBE-SERVICES',
      '-A FORWARD -j cali-FORWARD',
      '-A FORWARD -j quiet',
      '-A DOCKER-USER -i eth0 -j DROP',
      `-A cali-FORWARD -d ${ip}/32 -j ACCEPT`,
      '-A cali-FORWARD -d 192.0.2.1/32 -j DROP',
      `-A FORWARD -p tcp -m tcp --dport ${endpoint.port} -j DROP`,
      '-A FORWARD -p tcp -m tcp --dport 1 -j DROP',
      `-A FORWARD -d ${endpoint.ip}/24 -j REJECT`,
      `-A FORWARD -d ${endpoint.ip}/32 -p tcp --dport 1:2 -j REJECT`,
      `-A FORWARD -p tcp -m tcp --dport ${endpoint.port} -j ACCEPT`,
      '-A quiet -j ACCEPT',
      'COMMIT',
      '*nat',
      ':PREROUTING ACCEPT [0:0]',
      ':KUBE-SERVICES - [0:0]',
      '-A PREROUTING -s 10.244.7.7/32 -j ACCEPT',
      '-A PREROUTING -d 192.0.2.9/32 -j ACCEPT',
      '-A PREROUTING -j KUBE-SERVICES',
      '-A PREROUTING -s 10.244.7.8/32 -j ACCEPT',
      'COMMIT',
    ].join('\n'),
  );
  const found = iptablesNeighbours('IPv4', saved, addresses, (chain) => chain.startsWith('KUBE-'));
  assert.deepEqual(
    found.map(({ owner, where, concerns }) => [owner, where, ...concerns]),
    [
      [
        '',
        'iptables filter FORWARD',
        'policy DROP: what no rule of FORWARD accepts is dropped',
        `drops what goes to endpoint ${endpoint.key}: -A FORWARD -p tcp -m tcp --dport ${endpoint.port} -j DROP`,
        `drops what goes to endpoint ${endpoint.key}: -A FORWARD -d ${endpoint.ip}/24 -j REJECT`,
      ],
      ['Docker', 'iptables filter FORWARD → DOCKER-USER', 'drops: -A DOCKER-USER -i eth0 -j DROP'],
      [
        'Calico (felix)',
        'iptables filter FORWARD → cali-FORWARD',
        `names ${ip}: -A cali-FORWARD -d ${ip}/32 -j ACCEPT`,
      ],
      [
        '',
        'iptables nat PREROUTING',
        'passes by the Service rules: -A PREROUTING -s 10.244.7.7/32 -j ACCEPT',
      ],
    ],
  );
  const world = new NftablesWorld();
  try {
    world.nftScript(
      `table inet firewalld {
        chain filter_FORWARD {
          type filter hook forward priority 10; policy accept;
          ct state established accept
          ip daddr ${ip} accept
          tcp dport ${endpoint.port} drop
          tcp dport 1 drop
          reject with icmpx type admin-prohibited
        }
      }
      table ip quiet { chain c { type filter hook input priority 0; ip daddr 192.0.2.9 drop; }\n }`,
    );
    const foreign = withNetworkNamespace(`/run/netns/${world.namespace}`, () => {
      const nft = new NftSocket();
      try {
        return nft
          .listTables()
          .map((table) => ({ ...table, chains: nft.listChains(table), rules: nft.listRules(table) }));
      } finally {
        nft.close();
      }
    });
    const [neighbour, ...rest] = nftNeighbours('IPv4', foreign, addresses);
    assert.deepEqual(rest, []);
    assert.equal(neighbour?.owner, 'firewalld');
    assert.equal(neighbour.where, 'nft inet firewalld (hooks: forward 10)');
    assert.equal(neighbour.concerns.length, 3);
    assert.match(neighbour.concerns[0]!, new RegExp(`^names ${ip}: filter_FORWARD: `));
    assert.match(
      neighbour.concerns[1]!,
      /^drops what goes to endpoint \S+: filter_FORWARD: tcp dport \d+ drop/,
    );
    assert.match(neighbour.concerns[2]!, /^drops: filter_FORWARD: reject/);
  } finally {
    await world.close();
  }
});

test('the command reads the kernel of its network namespace, and its exit code tells', async () => {
  const manifest = join(folder, 'web.json');
  writeFileSync(manifest, scenarioManifest('nodeport'));
  const namespace = makeNamespace();
  const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
  const run = (...argv: string[]) =>
    spawnSync('ip', ['netns', 'exec', namespace, process.execPath, '--import', 'tsx', main, ...argv], {
      encoding: 'utf8',
    });
  try {
    for (const mode of ['iptables', 'nftables']) {
      const flags = ['--mode', mode, '--cluster-cidr=10.244.0.0/16', '--family=IPv4', '-f', manifest];
      // The node's addresses are those of the machine that is asked.
      flags.push('--nodeport-addresses=0.0.0.0/0');
      const before = run('diff', ...flags);
      assert.equal(before.status, 1, before.stderr);
      assert.match(before.stdout, /IPv4 missing (chain|table)/);
      const out = join(folder, mode);
      assert.equal(run('render', ...flags, '-o', out).status, 0);
      const loader = mode === 'nftables' ? ['nft', '-f'] : ['iptables-restore', '--noflush'];
      const file = mode === 'nftables' ? 'nftables-IPv4.nft' : 'iptables-IPv4.rules';
      const loaded = spawnSync('ip', ['netns', 'exec', namespace, ...loader, join(out, file)]);
      assert.equal(loaded.status, 0, String(loaded.stderr));
      const after = run('diff', ...flags);
      assert.equal(after.status, 0, after.stdout + after.stderr);
      assert.match(after.stdout, /the kernel has what is wanted\n$/);
      const json = JSON.parse(run('diff', ...flags, '--json').stdout) as { differences: unknown[] };
      assert.deepEqual(json.differences, []);
    }
    // Both modes' rules are there now: one is foreign to the other.
    const both = run(
      'diff',
      '--mode=nftables',
      '--cluster-cidr=10.244.0.0/16',
      '--family=IPv4',
      '-f',
      manifest,
    );
    assert.match(both.stdout, /iptables nat PREROUTING → KUBE-SERVICES: a service proxy in iptables mode/);
    const userspace = run('diff', '--mode=userspace', '--family=IPv4', '-f', manifest);
    assert.equal(userspace.status, 1, userspace.stderr);
    assert.match(userspace.stdout, /IPv4 missing chain: nat KUBE-PORTALS-CONTAINER\n/);
    assert.match(userspace.stdout, /The ports of listeners were not compared/);
    const nobody = run('diff', `--socket-path=${join(folder, 'nobody.sock')}`);
    assert.equal(nobody.status, 2);
    assert.match(nobody.stderr, /nobody answers at .*nobody\.sock .*; name objects with -f, .*--kubeconfig/);
  } finally {
    removeNamespace(namespace);
  }
});
