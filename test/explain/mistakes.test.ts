/** The classic mistakes around Services: each is named in plain words, by one command. */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { runExplain } from '../../src/explain/cli.ts';
import type { Explanation } from '../../src/explain/explanation.ts';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { manifest, mistakes, toCluster } from './mistakes.ts';
import { moreMistakes } from './moreMistakes.ts';

const all = [...mistakes, ...moreMistakes];

interface Run {
  readonly explanation: Explanation;
  readonly code: number;
  readonly text: string;
}

async function explain(
  yaml: string,
  args: readonly string[],
  files: Readonly<Record<string, string>> = {},
): Promise<Run> {
  const folder = makeOwnedDirectory('explain');
  try {
    writeFileSync(join(folder, 'manifest.yaml'), yaml);
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
    const full = ['--node', 'node-1', '--cluster-cidr', '10.244.0.0/16', '-f', join(folder, 'manifest.yaml')];
    full.push(...args.map((arg) => arg.replace('FOLDER', folder)));
    const outputs: string[] = [];
    let errors = '';
    let code = 0;
    for (const more of [['--json'], []]) {
      let out = '';
      code = await runExplain([...full, ...more], {
        out: (text) => void (out += text),
        err: (text) => void (errors += text),
        colour: false,
      });
      outputs.push(out);
    }
    assert.equal(errors, '');
    return { explanation: JSON.parse(outputs[0]!) as Explanation, code, text: outputs[1]! };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** In every mode the same cause, whatever the rules look like. */
for (const { name, yaml, args, files, reason, severity = 'cause' } of all) {
  if (files !== undefined) continue;
  for (const mode of ['nftables', 'ipvs', 'userspace']) {
    test(`names the cause in ${mode} mode: ${name}`, async () => {
      const { explanation, code } = await explain(yaml, [...args, '--mode', mode]);
      assert.deepEqual(
        explanation.findings
          .filter((one) => one.severity === 'cause' || one.reason === reason)
          .map((one) => [one.severity, one.reason]),
        [[severity, reason]],
      );
      assert.equal(code, severity === 'cause' ? 1 : 0);
      assert.match(explanation.rules, new RegExp(`${mode} mode`));
    });
  }
}

for (const { name, yaml, args, files, reason, says, severity = 'cause' } of all) {
  test(`names the cause: ${name}`, async () => {
    const { explanation, code, text } = await explain(yaml, args, files);
    const finding = explanation.findings.find((one) => one.reason === reason);
    assert.deepEqual(
      finding === undefined ? explanation.findings : { message: finding.message, severity: finding.severity },
      { message: says.split(' → ')[0], severity },
    );
    assert.equal(code, severity === 'cause' ? 1 : 0);
    const causes = explanation.findings.filter((one) => one.severity === 'cause');
    assert.deepEqual(
      causes.map((one) => one.reason),
      severity === 'cause' ? [reason] : [],
      'nothing else is blamed',
    );
    assert.ok(text.replaceAll(/\s+/g, ' ').includes(says), text);
    // A chain's name may be longer than a line is wide; sentences are not.
    for (const line of text.split('\n')) assert.ok(line.length <= 80 || !line.trim().includes(' '), line);
  });
}

test('a Service that is fine has nothing to find', async () => {
  const { explanation, code } = await explain(manifest({}), toCluster);
  assert.deepEqual(explanation.findings, []);
  assert.equal(code, 0);
  assert.deepEqual(
    explanation.outcomes.map(({ kind, destination, probability, masqueraded, who }) => ({
      kind,
      destination,
      probability,
      masqueraded,
      who,
    })),
    [
      {
        kind: 'endpoint',
        destination: '10.244.2.10:8080',
        probability: 1,
        masqueraded: false,
        who: 'Pod shop/web-1 on node-2, ready',
      },
    ],
  );
});

test('of a node port, the rules of the node that is dialled are asked, whoever sends', async () => {
  for (const from of ['node-2', '10.244.2.77']) {
    const { explanation } = await explain(manifest({}), ['--from', from, '--to', '172.31.0.11:30080']);
    assert.deepEqual(explanation.findings, [], from);
  }
});

test('the ports of a sidecar are ports of the Pod', async () => {
  const meshed = manifest({}).replace(
    'containers: [{name: web, image: web, ports: [{containerPort: 8080, name: http}]}]',
    'containers: [{name: web, image: web, ports: [{containerPort: 9090}]}], initContainers: [{name: mesh, restartPolicy: Always, ports: [{containerPort: 8080, name: http}]}]',
  );
  assert.match(meshed, /mesh/);
  const { explanation } = await explain(meshed, toCluster);
  assert.deepEqual(explanation.findings, []);
});

test('in userspace mode a UDP flow to the process is no stale flow', async () => {
  const udp = manifest({ slice: 'name: http, port: 8080, protocol: UDP' }).replace(
    '{name: http, port: 80,',
    '{name: http, port: 80, protocol: UDP,',
  );
  const { explanation } = await explain(
    udp,
    [...toCluster, '--mode', 'userspace', '--conntrack', 'FOLDER/flows.txt'],
    {
      'flows.txt':
        'udp      17 29 src=10.244.1.50 dst=10.96.0.20 sport=5353 dport=80 src=172.31.0.11 dst=10.244.1.50 sport=40000 dport=5353 mark=0 use=1\n',
    },
  );
  assert.deepEqual(
    explanation.findings.map(({ severity, reason }) => [severity, reason]),
    [['warning', 'target_port']],
  );
  assert.match(
    explanation.findings[0]!.message,
    /leads to port 8080\/UDP, but the containers of Pod shop\/web-1 declare 8080\/TCP \(http\)/,
  );
});

test('headless and ExternalName Services are explained, not followed', async () => {
  const headless = manifest({})
    .replace('clusterIP: 10.96.0.20', 'clusterIP: None')
    .replace('type: NodePort', 'type: ClusterIP')
    .replace(', nodePort: 30080', '');
  let errors = '';
  const folder = makeOwnedDirectory('explain');
  try {
    writeFileSync(join(folder, 'm.yaml'), headless);
    const io = { out: () => undefined, err: (text: string) => void (errors += text), colour: false };
    assert.equal(await runExplain(['-f', folder, '--node', 'node-1', ...toCluster], io), 1);
  } finally {
    rmSync(folder, { recursive: true });
  }
  assert.match(
    errors,
    /Service shop\/web is headless \(spec.clusterIP: None\): DNS answers with the Pods' own addresses/,
  );
});

test('SCTP in userspace mode: refused, and it is said by whom', async () => {
  const yaml = manifest({ slice: 'name: http, port: 8080, protocol: SCTP' }).replace(
    '{name: http, port: 80,',
    '{name: http, protocol: SCTP, port: 80,',
  );
  const { explanation, code } = await explain(yaml, [...toCluster, '--mode', 'userspace']);
  assert.deepEqual(
    explanation.findings.filter(({ severity }) => severity === 'cause').map(({ message }) => message),
    [
      'Userspace mode serves TCP and UDP only: SCTP connections to Service shop/web are refused, whatever endpoints it has.',
    ],
  );
  assert.equal(code, 1);
  assert.equal((await explain(yaml, [...toCluster, '--mode', 'nftables'])).code, 0);
});
