/** What somebody types who is new to it, and wrong: one sentence names what was wrong, and no way is made up. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { runDiff } from '../../src/diff/cli.ts';
import { runExplain } from '../../src/explain/cli.ts';
import { runRender } from '../../src/render/cli.ts';

const file = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const shop = ['-f', file('docs/guide/cluster.json'), '--cluster-cidr', '10.244.0.0/16'];
const readme = file('README.md');

type Run = typeof runExplain;

async function said(run: Run, argv: readonly string[]): Promise<{ code: number; out: string; err: string }> {
  let out = '';
  let err = '';
  const io = { out: (text: string) => (out += text), err: (text: string) => (err += text), colour: false };
  return { code: await run(argv, io), out, err };
}

const mistakes: readonly (readonly [argv: readonly string[], code: number, message: RegExp])[] = [
  [['--from', 'frontent', 'api'], 1, /there is no Pod default\/frontent; did you mean default\/frontend\?/],
  [['pod/x/y', 'api'], 1, /there is no Pod x\/y among the objects/],
  [['outside', 'localhost:80', '--node', 'node-1'], 2, /127\.0\.0\.1 is whoever dials it/],
  [['frontend', '127.0.0.1:80'], 2, /A Pod that dials it reaches itself/],
  [['10.244.1.2', 'localhost:80', '--node', 'node-1'], 2, /10\.244\.1\.2 that dials it reaches itself/],
  [['198.51.100.1', '127.0.0.1:80', '--node', 'node-1'], 2, /198\.51\.100\.1 that dials it reaches itself/],
  [['frontend', '10.96.0.256:80'], 2, /--to: "10\.96\.0\.256" is no IP address/],
  [['frontend', '[fd00::1::2]:80'], 2, /--to: "fd00::1::2" is no IP address/],
  [['frontend', '[fe80::1%eth0]:80'], 2, /--to: "\[fe80::1%eth0\]:80" has a zone/],
  [['fe80::1%eth0', 'api'], 2, /--from: "fe80::1%eth0" has a zone/],
  [['frontend', '10.96.1.0'], 2, /which port of 10\.96\.1\.0\? Write 10\.96\.1\.0:80/],
  [['frontend', 'fd00::1:80'], 2, /which port of fd00::1:80|Write \[fd00::1/],
  [['frontend', '10.96.1.0:99999'], 2, /a port is a number from 1 to 65535/],
  [['frontend', 'node:0'], 2, /a port is a number from 1 to 65535/],
  [['frontend', 'apo'], 1, /there is no Service default\/apo; did you mean default\/api\?/],
  [['frontend', 'api', '--proto', 'icmp'], 2, /"icmp" is none of tcp, udp, sctp/],
  [['frontend', 'api', '--proto', 'icmpv6'], 2, /Services have ports, and ping has none/],
  [['frontend', 'api:http', '--proto', 'udp'], 1, /has no port of UDP: it has http \(80\/TCP\)/],
  [['frontend', 'api:80000'], 2, /a port is a number from 1 to 65535/],
  [['frontend', 'default/api/http'], 2, /the port stands behind a colon: default\/api:http/],
  [['frontend', '10.96.1.0/80'], 2, /write the port behind a colon: 10\.96\.1\.0:80/],
  [['frontend', '10.96.1.0:http'], 2, /an address has ports by number only/],
  [['frontend', 'ftp://api'], 2, /which port is ftp\?/],
  [['frontend', 'pod/frontend'], 2, /which port of pod\/frontend\? Write 10\.244\./],
  [
    ['api-', 'api'],
    1,
    /2 Pods have names that begin with default\/api-: default\/api-\S+ and default\/api-\S+; say/,
  ],
  [['frontend', 'pod/api-:80'], 1, /--to: 2 Pods have names that begin with default\/api-/],
  [['frontend', 'pod/nobody:80'], 1, /there is no Pod nobody among the objects/],
  [['frontend', 'api:80/udp', '--proto', 'tcp'], 2, /says udp, and --proto says tcp/],
  [
    ['frontend', '[fd00:10:96::1]:80'],
    1,
    /Pod default\/frontend has no IPv6 address, only 10\.244\.\S+: it cannot/,
  ],
  [['svc/api', 'api'], 2, /a Service sends nothing: who dials\?/],
  [['deployment/default/api', 'api'], 2, /its Pods send, each for itself/],
  [['http://frontend', 'api'], 2, /is a URL; write the address of the client alone/],
  [['10.244.1.2:1234', 'api'], 2, /--from 10\.244\.1\.2 --sport 1234/],
  [['10.244.1.0/24', 'api'], 2, /is a network; give one address of it/],
  [['10.244.1', 'api'], 2, /--from: "10\.244\.1" is no IP address/],
  [['outsid', 'api'], 1, /did you mean --from outside\?/],
  [['node/node-9', 'api'], 1, /there is no Node node-9/],
  [['api', '--form', 'frontend'], 2, /unknown flag: --form \(did you mean --from\?\)/],
  [['frontend', 'api', '--node', 'nod-1'], 1, /no Node nod-1 among .* did you mean node-1\?/],
  [
    ['frontend', 'api', '--dump', '/nowhere'],
    1,
    /--dump \/nowhere: cannot be read: no such file or directory/,
  ],
  [['frontend', 'api', '--conntrack', readme], 1, /holds no entry as conntrack -L prints them/],
  [['frontend', 'api', '--html', '/nowhere/x'], 1, /--html \/nowhere\/x: cannot be written: no such file/],
];

for (const [argv, code, message] of mistakes) {
  test(`explain ${argv.join(' ').replace(readme, 'README.md')}`, async () => {
    const answer = await said(runExplain, [...argv, ...shop]);
    assert.equal(answer.code, code, answer.err);
    assert.match(answer.err, message);
    assert.equal(answer.out, '');
  });
}

/** What people have at hand: URLs, names of DNS, kubectl's words. */
for (const [asked, first] of [
  [['frontend', 'http://api/cart'], /^TCP 10\.244\.\S+ → 10\.96\.1\.0:80\nfrom Pod default\/frontend/],
  [['frontend', 'tcp://10.96.1.0:80'], /^TCP \S+ → 10\.96\.1\.0:80\n/],
  [['frontend', 'udp://10.96.1.0:80'], /^UDP \S+ → 10\.96\.1\.0:80\n/],
  [['frontend', 'grpc://api.default:80'], /^TCP \S+ → 10\.96\.1\.0:80\n/],
  [['frontend', 'http://api.default.svc.cluster.local:80/'], /^TCP \S+ → 10\.96\.1\.0:80\n/],
  [['frontend', 'api.default.svc:http'], /^TCP \S+ → 10\.96\.1\.0:80\n/],
  [['frontend', 'api.default'], /^TCP \S+ → 10\.96\.1\.0:80\n/],
  [['frontend', 'svc/api:80/tcp'], /^TCP \S+ → 10\.96\.1\.0:80\n/],
  [['Pod/default/frontend', 'api'], /from Pod default\/frontend/],
  [['frontend', 'pod/frontend:8080'], /^TCP (\S+) → \1:8080\n/],
  [['node-1', 'api', '--node', 'node-1'], /from a program on node-1/],
  [['Outside', 'node-1:30000', '--node', 'node-1'], /^TCP 198\.51\.100\.77 → \S+:30000\n/],
] as const) {
  test(`explain ${asked.join(' ')} is understood`, async () => {
    const { out, err } = await said(runExplain, [...asked, ...shop]);
    assert.equal(err, '');
    assert.match(out, first);
  });
}

test('a loopback address alone is dialled on the node', async () => {
  const { out } = await said(runExplain, ['localhost:30000', '--node', 'node-1', ...shop]);
  assert.match(out, /^TCP 127\.0\.0\.1 → 127\.0\.0\.1:30000\nfrom a program on node-1/);
});

test('where no object can be read there are no rules, not those of an empty cluster', async () => {
  for (const [run, more] of [
    [runExplain, ['frontend', 'api']],
    [runRender, []],
    [runDiff, ['--saved', '/nowhere', '--family', 'IPv4']],
  ] as const) {
    for (const path of ['/nowhere', readme]) {
      const { code, out, err } = await said(run, [...more, '-f', path]);
      assert.equal(code, run === runDiff ? 2 : 1);
      assert.equal(out, '');
      assert.match(
        err,
        /^\S+: (cannot be read: no such file or directory|not valid YAML: .*)\nError: none of the/,
      );
    }
  }
});

test('render asks for the right node too, unless addresses say where it is', async () => {
  const { code, err } = await said(runRender, ['--node', 'node-11', ...shop]);
  assert.equal(code, 1);
  assert.match(err, /no Node node-11 among the objects \(node-1, node-2\): did you mean node-1\?/);
  assert.equal((await said(runRender, ['--node', 'new', '--node-ip', '172.31.0.13', ...shop])).code, 0);
});
