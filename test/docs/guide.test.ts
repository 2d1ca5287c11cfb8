/** What docs/guide.md shows is what the program says, and every link and command of the docs leads somewhere. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { commands } from '../../src/commands/index.ts';
import { runExplain } from '../../src/explain/cli.ts';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { runRender } from '../../src/render/cli.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const guide = readFileSync(join(root, 'docs/guide.md'), 'utf8');
const clusterFile = join(root, 'docs/guide/cluster.json');
const nodeFlags = ['--node', 'node-1', '--cluster-cidr', '10.244.0.0/16'];

interface KubeObject {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  spec: Record<string, unknown>;
  endpoints: { nodeName: string; conditions: Record<string, boolean> }[];
  ports: { port: number }[];
}

interface Cluster {
  readonly items: KubeObject[];
}

const service = (cluster: Cluster): KubeObject => cluster.items.find(({ kind }) => kind === 'Service')!;
const slice = (cluster: Cluster): KubeObject => cluster.items.find(({ kind }) => kind === 'EndpointSlice')!;

/** Stands for what the control plane does, too: it is the cluster as the proxy meets it. */
interface Mistake {
  readonly heading: string;
  readonly packet: readonly string[];
  readonly make: (cluster: Cluster) => void;
}

const inside = ['default/frontend', '→', 'default/api:http'];

function nodePort(cluster: Cluster, type: string): void {
  const { spec } = service(cluster);
  spec['type'] = type;
  spec['ports'] = [{ name: 'http', port: 80, targetPort: 'http', protocol: 'TCP', nodePort: 30000 }];
}

const mistakes: readonly Mistake[] = [
  {
    heading: 'The selector is misspelt',
    packet: inside,
    make: (cluster) => {
      service(cluster).spec['selector'] = { app: 'apii' };
      slice(cluster).endpoints = [];
    },
  },
  {
    heading: 'targetPort is not the port the program listens at',
    packet: inside,
    make: (cluster) => {
      service(cluster).spec['ports'] = [{ name: 'http', port: 80, targetPort: 9090, protocol: 'TCP' }];
      slice(cluster).ports[0]!.port = 9090;
    },
  },
  {
    heading: 'The name of the port is misspelt',
    packet: inside,
    make: (cluster) => {
      service(cluster).spec['ports'] = [{ name: 'http', port: 80, targetPort: 'htttp', protocol: 'TCP' }];
      // The control plane makes a slice without ports.
      slice(cluster).ports = [];
    },
  },
  {
    heading: 'The Pods are not ready',
    packet: inside,
    make: (cluster) => {
      for (const { conditions } of slice(cluster).endpoints)
        Object.assign(conditions, { ready: false, serving: false });
    },
  },
  { heading: 'The wrong port', packet: ['default/frontend', '→', '10.96.1.0:8080'], make: () => undefined },
  {
    heading: 'Local policy, and no Pod on this node',
    packet: ['outside', '→', '172.31.0.11:30000'],
    make: (cluster) => {
      nodePort(cluster, 'NodePort');
      service(cluster).spec['externalTrafficPolicy'] = 'Local';
      const found = slice(cluster);
      found.endpoints = found.endpoints.filter(({ nodeName }) => nodeName === 'node-2');
    },
  },
  {
    heading: 'The client is not on the list',
    packet: ['172.31.0.100', '→', '192.0.2.1:80'],
    make: (cluster) => {
      nodePort(cluster, 'LoadBalancer');
      const found = service(cluster);
      found.spec['loadBalancerSourceRanges'] = ['203.0.113.0/24'];
      Object.assign(found, { status: { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } } });
    },
  },
  {
    heading: "The wrong node's address",
    packet: ['outside', '→', '172.31.0.12:30000'],
    make: (cluster) => nodePort(cluster, 'NodePort'),
  },
];

async function explain(
  packet: readonly string[],
  make: (cluster: Cluster) => void,
  more: readonly string[] = [],
) {
  const folder = makeOwnedDirectory('guide');
  try {
    const cluster = JSON.parse(readFileSync(clusterFile, 'utf8')) as Cluster;
    make(cluster);
    const file = join(folder, 'cluster.json');
    writeFileSync(file, JSON.stringify(cluster));
    let text = '';
    const write = (part: string): void => void (text += part);
    await runExplain([...packet, '-f', file, ...nodeFlags, ...more], {
      out: write,
      err: write,
      colour: false,
    });
    return text;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The findings that a section of the guide shows. */
function shown(heading: string): string {
  const section = guide.split(/^#+ /m).find((text) => text.startsWith(`${heading}\n`));
  assert.ok(section !== undefined, `the guide has no section "${heading}"`);
  const found = /^(?:WHY|LOOK) [^`]*/m.exec(section)?.[0];
  assert.ok(found !== undefined, `"${heading}" shows no cause`);
  return found.trimEnd();
}

for (const { heading, packet, make } of mistakes) {
  test(`the guide's cause is what explain says: ${heading}`, async () => {
    const text = await explain(packet, make);
    assert.ok(text.includes(shown(heading)), `${shown(heading)}\n\nis not in\n\n${text}`);
  });
}

test('the explanation in the README is what explain says', async () => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  const block = /^\$ \.\/pointsman lab exec node-1 \.\/pointsman explain .*\n([^`]*)/m.exec(readme)?.[1];
  assert.ok(block !== undefined, 'README.md shows no explanation');
  const text = await explain(inside, mistakes[0]!.make);
  // The README asks a node, whose rules are read from the kernel.
  const onNode = text.replace(/as pointsman writes them\s+in iptables mode/, 'read from the kernel');
  assert.ok(onNode.startsWith(block.trimEnd()), onNode);
});

test('the first explanation of the guide is what explain says', async () => {
  const text = await explain(inside, () => undefined);
  const way = guide.slice(guide.indexOf('WHO GETS IT'), guide.indexOf('  │ nat PREROUTING'));
  assert.ok(text.includes(way), text);
  for (const mode of ['iptables', 'nftables']) {
    const lines = await explain(inside, () => undefined, ['--mode', mode]);
    assert.match(lines, /⇒ destination rewritten to 10\.244\.1\.11:8080/, mode);
  }
});

/** The lines of the way that a section shows. */
function shownWay(heading: string): string[] {
  const section = guide.split(/^## /m).find((text) => text.startsWith(heading)) ?? '';
  return section.split('\n').filter((line) => line.startsWith('  │') || /^  [A-Z]+ {3,}/.test(line));
}

test('the ways through IPVS and userspace mode that the guide shows are what explain says', async () => {
  for (const [mode, heading, lines] of [
    ['ipvs', '5. IPVS mode', 11],
    ['userspace', '4. Userspace mode', 8],
  ] as const) {
    // At which port the process listens, and the node's address towards its Pods, only a node knows.
    const plain = (text: string): string =>
      text.replaceAll(/10\.244\.1\.1:\d+|172\.31\.0\.11:\d+/g, 'LISTENER');
    const said = (text: string): string =>
      plain(text).replaceAll(/(172\.31\.0\.11|10\.244\.1\.1) →/g, 'NODE →');
    const text = said(await explain(inside, () => undefined, ['--mode', mode]));
    const way = shownWay(heading);
    assert.equal(way.length, lines, heading);
    for (const line of way) assert.ok(text.includes(said(line)), `${line} is not in\n${text}`);
  }
});

test('the virtual server of the guide is what render prints', async () => {
  let text = '';
  const code = await runRender(['--mode', 'ipvs', '--family', 'IPv4', '-f', clusterFile, ...nodeFlags], {
    out: (part) => void (text += part),
    err: (part) => void (text += part),
  });
  assert.equal(code, 0, text);
  const lines = guide.match(/^-[Aa] -t .*$/gm) ?? [];
  assert.equal(lines.length, 3);
  for (const line of lines) assert.ok(text.includes(`${line}\n`), `${line} is not in\n${text}`);
});

const documents = ['README.md', ...readdirSync(join(root, 'docs')).map((name) => `docs/${name}`)].filter(
  (name) => name.endsWith('.md'),
);

for (const name of documents) {
  test(`${name}: links and commands lead somewhere`, () => {
    const text = readFileSync(join(root, name), 'utf8');
    for (const [, target = ''] of text.matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      assert.ok(existsSync(join(root, name, '..', target)), `${name} links to ${target}`);
    }
    const known = new Set(commands.map((command) => command.name));
    for (const [, word = ''] of text.matchAll(/(?:\.\/|[$#] |`)pointsman ([a-z][\w-]*)/g))
      assert.ok(known.has(word), `${name}: there is no command ${word}`);
  });
}
