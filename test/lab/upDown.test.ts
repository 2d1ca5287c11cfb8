/** A lab in the background: kubectl works against it, its Pods answer through a Service, `down` removes everything. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { readState } from '../../src/lab/cluster/state.ts';
import { buildProgram } from '../scenarios/support.ts';

// Before buildProgram, which removes the program at the end: hooks run in the order in which they were given.
after(() => {
  for (const name of ['lab', 'second']) spawnSync(node, [program, 'lab', 'down', '--name', name]);
});

const [node = '', program = ''] = buildProgram();

function lab(...argv: string[]): string {
  const { status, stdout, stderr } = spawnSync(node, [program, 'lab', ...argv], {
    encoding: 'utf8',
    timeout: 300_000,
  });
  assert.equal(status, 0, `lab ${argv.join(' ')}\n${stdout}${stderr}`);
  return stdout;
}

function fails(...argv: string[]): string {
  const { status, stderr } = spawnSync(node, [program, 'lab', ...argv], {
    encoding: 'utf8',
    timeout: 300_000,
  });
  assert.equal(status, 2);
  return stderr;
}

test(
  'up, kubectl, traffic through a Service from everywhere, down',
  { skip: readState() !== undefined && 'a lab is up' },
  () => {
    assert.match(fails('status'), /no lab is up/);
    assert.match(lab('up', '--attach', 'bridge', '--pod-network', 'vxlan'), /The lab is up/);
    const prefix = readState()?.prefix ?? '';
    assert.match(fails('up'), /up already/);
    assert.match(fails('status', '--name', 'second'), /no lab "second" is up; .* lab up --name second/);
    assert.match(
      lab('up', '--name', 'second', '--nodes', '1', '--mode', 'nftables'),
      /lab down --name second/,
    );
    assert.match(lab('status', '--name', 'second'), /node-1; nftables mode/);
    const proxyLog = join(readState('second')?.directory ?? '', 'node-1', 'proxy.log');
    assert.doesNotMatch(readFileSync(proxyLog, 'utf8'), /is ignored/);

    lab('kubectl', 'create', 'deployment', 'web', '--image=web', '--port=8080', '--replicas=3');
    lab('kubectl', 'expose', 'deployment', 'web', '--port=80', '--target-port=8080', '--type=NodePort');
    lab('kubectl', 'wait', '--for=condition=Available', 'deployment/web', '--timeout=120s');
    const ip = lab('kubectl', 'get', 'service', 'web', '-o', 'jsonpath={.spec.clusterIP}');
    const nodePort = lab('kubectl', 'get', 'service', 'web', '-o', 'jsonpath={.spec.ports[0].nodePort}');
    const pod = lab('kubectl', 'get', 'pods', '-o', 'jsonpath={.items[0].metadata.name}');
    const get = (where: string, url: string): string =>
      lab('exec', where, '--', node, '-e', `fetch('${url}').then((r) => r.text()).then(console.log)`);
    for (const [where, url] of [
      ['client', `http://${ip}/`],
      ['client', `http://172.31.0.12:${nodePort}/`],
      ['node-2', `http://${ip}/`],
      [pod, `http://${ip}/`],
    ] as const) {
      assert.match(get(where, url), /^Hello from web-\S+\. You are /, `${where} ${url}`);
    }
    // Also Pods of the same bridge, and the Pod itself: without br_netfilter and hairpin mode these would not be answered.
    const names = new Set<string | undefined>();
    // Whom each meets is chance: of a hundred, no Pod is left out.
    for (let i = 0; i < 100 && names.size < 3; i++)
      names.add(/web-\S+(?=\.)/.exec(get(pod, `http://${ip}/`))?.[0]);
    assert.equal(names.size, 3, [...names].join());
    assert.ok(!names.has(undefined));
    assert.match(lab('status'), /pod\/web-\S+ +1\/1 +Running/);
    assert.match(lab('exec', 'node-1', '--', 'ip', '-d', 'link', 'show', 'flannel.1'), /vxlan id 1/);

    const ask = `process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
      fetch('https://10.96.0.1/version').then((r) => r.text()).then(console.log)`;
    assert.match(
      lab('exec', pod, '--', node, '-e', ask),
      /gitVersion|Unauthorized/,
      'default/kubernetes leads to the API server',
    );
    const notReady = '{"status":{"conditions":[{"type":"Ready","status":"False"}]}}';
    lab('kubectl', 'patch', 'pod', pod, '--subresource=status', '-p', notReady);
    lab('kubectl', 'wait', '--for=condition=ContainersReady=False', `pod/${pod}`, '--timeout=120s');
    assert.match(lab('kubectl', 'get', 'pod', pod), /0\/1 +Running/);

    lab('down', '--name', 'second');
    assert.equal(readState('second'), undefined);
    assert.notEqual(readState(), undefined, 'the other lab stays');
    lab('kubectl', 'scale', 'deployment', 'web', '--replicas=1');
    lab('kubectl', 'wait', '--for=jsonpath={.status.replicas}=1', 'deployment/web', '--timeout=120s');
    lab('kubectl', 'delete', 'deployment,service', 'web');

    lab('down');
    assert.equal(readState(), undefined);
    assert.deepEqual(
      readdirSync('/run/netns').filter((name) => name.startsWith(prefix)),
      [],
    );
    assert.match(lab('down'), /No lab was up/);
  },
);
