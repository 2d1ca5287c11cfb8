/**
 * A node goes to IPVS mode and back, in the guest: the program as it is shipped, under traffic. What is then in the
 * kernel is what a fresh start makes; see test/proxy/modeSwitch.test.ts for the other pairs and what is promised. On the
 * way, the commands that ask the daemon of a node.
 */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { StatusDocument } from '../../../src/status/documents.ts';
import { change, FreshRuns } from '../../proxy/support/modeChange.ts';
import {
  difference,
  Program,
  serviceIP,
  serviceIP6,
  setups,
  SwitchNode,
  type Connection,
} from '../../proxy/support/switchNode.ts';
import { inNamespace } from '../../support/namespace.ts';
import { whyNoIpvs } from './guest.ts';

it('switching to and from IPVS mode', { skip: whyNoIpvs(), timeout: 1_350_000 }, async (t) => {
  const program = new Program();
  t.after(() => program.close());
  const runs = new FreshRuns(program, ['ipvs']);

  await t.test('--cleanup leaves nothing of IPVS mode after SIGKILL', async () => {
    const { before, cleaned, code, log } = await runs.get('ipvs');
    assert.equal(code, 0, log);
    assert.equal(difference(cleaned, before), undefined);
  });

  const node = new SwitchNode(program);
  t.after(() => node.close());
  const before = await node.snapshot();
  const oldest: Connection[] = [];
  // Each pair in both directions, ended by SIGTERM and by SIGKILL.
  await t.test('from iptables', async () => {
    await runs.begin(node, 'iptables-legacy');
    for (const place of [node.client, node.node])
      for (const ip of [serviceIP, serviceIP6]) oldest.push(node.connect(place, ip));
    for (const one of oldest) assert.match(await one.line(), /^hello /);
    await change(node, 'iptables-legacy', 'ipvs', 'SIGTERM', runs);
  });
  await t.test('the commands of a node', () => commands(node, runs));
  await t.test('to userspace', () => change(node, 'ipvs', 'userspace', 'SIGKILL', runs));
  await t.test('from userspace', () => change(node, 'userspace', 'ipvs', 'SIGTERM', runs));
  await t.test('to iptables', () => change(node, 'ipvs', 'iptables-legacy', 'SIGKILL', runs));
  await t.test('connections of the first mode have lived through all', async () => {
    for (const one of oldest) {
      assert.equal(await one.echo('still here'), 'still here');
      one.close();
    }
  });
  await t.test('cleaned up', async () => {
    await node.stop('SIGTERM');
    assert.equal(await node.cleanup(setups['iptables-legacy']), 0, node.log);
    assert.equal(difference(await node.snapshot(), before), undefined);
  });
});

/** `status`, `explain`, `top` and `diff` ask the daemon in IPVS mode, and the kernel. */
async function commands(node: SwitchNode, runs: FreshRuns): Promise<void> {
  const succeed = async (...args: readonly string[]): Promise<string> => {
    const { code, text, errors } = await node.ask(...args);
    assert.equal(code, 0, `${args.join(' ')}: ${text}${errors}`);
    return text;
  };
  const { status, changes } = JSON.parse(await succeed('status', '--json')) as {
    status: StatusDocument;
    changes: { readonly changes: readonly unknown[] };
  };
  assert.equal(status.mode, 'ipvs');
  assert.equal(status.healthy, true);
  assert.ok(changes.changes.length > 0);

  const way = await succeed('explain', '10.96.0.10:80');
  assert.match(way, /It reaches 10\.244\.1\.9:8080 of Service shop\/web:tcp/);
  assert.match(way, /-a -t 10\.96\.0\.10:80 -r 10\.244\.1\.9:8080 -m -w 1/);

  const { source, mode } = JSON.parse(await succeed('top', '--once', '--json')) as {
    source: string;
    mode: string;
  };
  assert.deepEqual({ source, mode }, { source: "IPVS's counters", mode: 'ipvs' });

  assert.match(await succeed('diff', '--family', 'IPv4'), /the kernel has what is wanted/);
  inNamespace(node.node, ['ipvsadm', '-d', '-u', '10.96.0.10:53', '-r', '10.244.1.9:8053']);
  const { fresh } = await runs.get('ipvs');
  await node.becomes((now) => difference(now, fresh));
  assert.match(node.log, /"Put back what somebody else had changed" .*real servers of 10\.96\.0\.10:53\/UDP/);
}
