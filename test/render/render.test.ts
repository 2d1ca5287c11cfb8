/** Renderings as text: golden ones of the scenarios' end states, the command line, and laws. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { stringify } from 'yaml';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { render } from '../../src/render/render.ts';
import { labFlags, renderCommand, scenarioManifest, wantedOfText } from './support.ts';

const golden = fileURLToPath(new URL('golden', import.meta.url));
const folder = makeOwnedDirectory('render');
after(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

/** Those that show something of their own; the kernel test goes through all. */
const written = [
  'clusterip-udp',
  'dual-stack',
  'external-policy-local',
  'load-balancer',
  'no-endpoints',
  'session-affinity',
];

/** POINTSMAN_UPDATE_GOLDEN=1 writes them anew: then look at what git says has changed. */
for (const mode of ['iptables', 'nftables', 'ipvs', 'userspace']) {
  test(`${mode}: the scenarios' end states render as they were written down`, async () => {
    for (const name of mode === 'ipvs' ? ['dual-stack', 'load-balancer'] : written) {
      const family = name === 'dual-stack' ? 'both' : 'IPv4';
      const flags = [...labFlags, `--mode=${mode}`, `--family=${family}`];
      const wanted = await wantedOfText(scenarioManifest(name), ...flags);
      for (const { file: suffix, text } of render(wanted)) {
        const path = join(golden, `${name}.${suffix}`);
        if (process.env['POINTSMAN_UPDATE_GOLDEN'] === '1') {
          mkdirSync(golden, { recursive: true });
          writeFileSync(path, text);
        }
        assert.ok(existsSync(path), `${path} is missing`);
        assert.equal(text, readFileSync(path, 'utf8'), `${name} ${suffix}`);
      }
    }
  });
}

test('no rendering was written down for nothing', () => {
  const known = new Set(written);
  for (const name of readdirSync(golden)) assert.ok(known.has(name.split('.')[0]!), name);
});

test('the order of objects and files decides nothing', async () => {
  const { items } = JSON.parse(scenarioManifest('multi-slice')) as { items: object[] };
  const flags = [...labFlags, '--mode=nftables'];
  const [expected] = render(await wantedOfText(JSON.stringify({ kind: 'List', items }), ...flags));
  await fc.assert(
    fc.asyncProperty(fc.shuffledSubarray(items, { minLength: items.length }), async (shuffled) => {
      const text = shuffled.map((item) => stringify(item)).join('---\n');
      const [rendering] = render(await wantedOfText(text, ...flags));
      assert.equal(rendering!.text, expected!.text);
    }),
    { numRuns: 20 },
  );
});

test('a Node object wins over flags; without one, flags say where the node is', async () => {
  const { items } = JSON.parse(scenarioManifest('external-policy-local')) as { items: { kind: string }[] };
  const withNode = file('with-node.json', JSON.stringify({ kind: 'List', items }));
  const bare = items.filter(({ kind }) => kind !== 'Node');
  const withoutNode = file('without-node.json', JSON.stringify({ kind: 'List', items: bare }));
  const common = ['--mode', 'nftables', '--cluster-cidr=10.244.0.0/16', '--family', 'ipv4'];
  const fromObject = await renderCommand(...common, '-f', withNode, '--node-ip', '192.0.2.99');
  const fromFlags = await renderCommand(
    ...common,
    '-f',
    withoutNode,
    '--node',
    'node-1',
    '--node-ip',
    '172.31.0.11',
    '--zone=zone-a',
  );
  assert.equal(fromObject.code, 0, fromObject.err);
  assert.match(fromObject.out, /elements = \{ 172\.31\.0\.11 \}/);
  assert.equal(fromFlags.out, fromObject.out);
});

test('a KubeProxyConfiguration decides, and --mode wins over its mode with that mode’s own settings', async () => {
  const config = file(
    'config.yaml',
    [
      'apiVersion: kubeproxy.config.k8s.io/v1alpha1',
      'kind: KubeProxyConfiguration',
      'mode: iptables',
      'clusterCIDR: 10.244.0.0/16',
      'iptables: {masqueradeBit: 5}',
      'nftables: {masqueradeBit: 6, masqueradeAll: true}',
    ].join('\n'),
  );
  const objects = file('clusterip.json', scenarioManifest('clusterip-tcp'));
  const asSet = await renderCommand('--config', config, '-f', objects, '--family=IPv4');
  assert.match(asSet.out, /--or-mark 0x00000020/);
  assert.match(asSet.out, /! -s 10\.244\.0\.0\/16/);
  const other = await renderCommand('--config', config, '--mode=nftables', '-f', objects, '--family=IPv4');
  assert.equal(other.code, 0, other.err);
  assert.match(other.out, /meta mark set meta mark \| 0x00000040/);
  assert.match(other.out, /ip daddr @virtual-ips meta mark set/);
});

test('files for each family, and JSON', async () => {
  const objects = file('dual.json', scenarioManifest('dual-stack'));
  const out = join(folder, 'out');
  const listed = await renderCommand('-f', objects, '--mode=nftables', '-o', out);
  assert.deepEqual([listed.code, listed.out], [0, '']);
  assert.deepEqual(readdirSync(out), ['nftables-IPv4.nft', 'nftables-IPv6.nft']);
  const json = await renderCommand('-f', objects, '--json');
  const { mode, node, renderings } = JSON.parse(json.out) as {
    mode: string;
    node: string;
    renderings: { family: string; text: string }[];
  };
  assert.deepEqual(
    [mode, node, renderings.map((one) => one.family)],
    ['iptables', 'node-1', ['IPv4', 'IPv6']],
  );
});

test('usage mistakes end with 2 and say what to do, unreadable objects with 1', async () => {
  const objects = file('plain.json', scenarioManifest('clusterip-tcp'));
  const two = [labNodeNamed('a'), labNodeNamed('b')];
  const nodes = file('nodes.json', JSON.stringify({ kind: 'List', items: two }));
  const cases: readonly (readonly [string[], number, RegExp])[] = [
    [['--bogus'], 2, /unknown flag: --bogus/],
    [[], 2, /name manifests with -f/],
    [['-f', objects, 'more.yaml'], 2, /what is "more\.yaml"/],
    [['-f', objects, '--mode', 'nft'], 2, /"nft" is none of iptables, nftables, ipvs, userspace/],
    [['-f', objects, '--family=4'], 2, /none of IPv4, IPv6, both/],
    [['-f', objects, '--cluster-cidr', 'x'], 2, /--cluster-cidr: .*"x"/],
    [['-f'], 2, /needs a value: --filename/],
    [['-f', join(folder, 'missing')], 1, /missing: cannot be read/],
    [['-f', nodes], 1, /there are 2 Nodes: say which one with --node \(a, b\)/],
  ];
  for (const [argv, code, message] of cases) {
    const result = await renderCommand(...argv);
    assert.equal(result.code, code, `${argv.join(' ')}: ${result.err}`);
    assert.match(result.err, message);
  }
  assert.match((await renderCommand('--help')).out, /--cluster-cidr/);
});

function labNodeNamed(name: string): object {
  return { apiVersion: 'v1', kind: 'Node', metadata: { name } };
}

test('no door of the kernel is opened: nothing that render loads needs the native module', () => {
  const script = `
    import { runRender } from ${JSON.stringify(new URL('../../src/render/cli.ts', import.meta.url).href)};
    const code = await runRender(process.argv.slice(1));
    const koffi = process.report.getReport().sharedObjects.filter((name) => name.includes('koffi'));
    process.stderr.write('native: ' + koffi.length + ', code: ' + code);
  `;
  const objects = file('native.json', scenarioManifest('dual-stack'));
  for (const mode of ['iptables', 'nftables', 'ipvs', 'userspace']) {
    const said = execFileSync(
      'bash',
      [
        '-c',
        'exec "$@" 2>&1 >/dev/null',
        'render',
        process.execPath,
        '--import',
        'tsx',
        '--input-type=module',
        '-e',
        script,
        '--',
        '-f',
        objects,
        '--mode',
        mode,
      ],
      { encoding: 'utf8' },
    );
    assert.equal(said, 'native: 0, code: 0');
  }
});

test('flags of which one would silently win over another are refused', async () => {
  for (const [said, ...argv] of [
    ['--check and --diff cannot be given together', '--check', '--diff', 'a', 'b'],
    ['--check and --output cannot be given together', '--check', '-o', 'x', '-f', 'a'],
    ['--json and --output cannot be given together', '--json', '-o', 'x', '-f', 'a'],
    ['standard input (-) can be read once only', '--diff', '-', '-'],
    ['flag needs 2 values: --diff', '--diff', 'a', '--node', 'n'],
    ['--node-ip: "here" is no IP address', '--node-ip=here', '-f', '/dev/null'],
    ['--pod-cidr: "pods" is no network', '--pod-cidr=pods', '-f', '/dev/null'],
  ] as const) {
    const { code, err } = await renderCommand(...argv);
    assert.equal(code, 2, said);
    assert.ok(err.includes(said), err);
  }
});
