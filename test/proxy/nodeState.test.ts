import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Node } from '../../src/api/objects.ts';
import { silentLogger } from '../../src/log/logger.ts';
import { NodeState } from '../../src/proxy/nodeState.ts';

function node(address: string | undefined, podCIDRs: string[] = []): Node {
  return {
    kind: 'Node',
    meta: { name: 'a', namespace: '', uid: '', resourceVersion: '1', creationTimestamp: 0 },
    zone: '',
    addresses: address === undefined ? [] : [{ type: 'InternalIP', address }],
    podCIDRs,
    taintKeys: [],
    deleting: false,
  };
}

const waits = { addresses: 40, podCIDRs: 80 };

test('waits for the first list, however long it takes', async () => {
  const state = new NodeState('a', silentLogger);
  let done = false;
  const wait = state.wait(false, waits).then((result) => {
    done = true;
    return result;
  });
  await new Promise((resolve) => setTimeout(resolve, 60));
  assert.equal(done, false);
  state.set(node('10.0.0.1'));
  state.setSynced();
  assert.equal((await wait)?.addresses[0]?.address, '10.0.0.1');
});

test('goes on without addresses after a while, and at once when they come', async () => {
  const state = new NodeState('a', silentLogger);
  state.setSynced();
  const start = performance.now();
  assert.equal(await state.wait(false, waits), undefined);
  assert.ok(performance.now() - start >= 35);

  const late = new NodeState('a', silentLogger);
  late.setSynced();
  const wait = late.wait(false, { addresses: 60_000, podCIDRs: 0 });
  late.set(node(undefined));
  late.set(node('10.0.0.1'));
  assert.equal((await wait)?.addresses.length, 1);
});

test('Pod CIDRs that do not come are fatal, with the reason', async () => {
  const absent = new NodeState('a', silentLogger);
  absent.setSynced();
  await assert.rejects(absent.wait(true, waits), /timeout waiting for node "a" to exist/);
  const without = new NodeState('a', silentLogger);
  without.set(node('10.0.0.1'));
  without.setSynced();
  await assert.rejects(without.wait(true, waits), /timeout waiting for PodCIDR allocation on node "a"/);
  const late = new NodeState('a', silentLogger);
  late.set(node('10.0.0.1'));
  late.setSynced();
  const wait = late.wait(true, { addresses: 0, podCIDRs: 60_000 });
  late.set(node('10.0.0.1', ['10.1.0.0/24']));
  assert.deepEqual((await wait)?.podCIDRs, ['10.1.0.0/24']);
});

test('a listener hears what is known, then each change with what was before', () => {
  const state = new NodeState('a', silentLogger);
  state.set(node('10.0.0.1'));
  const heard: [string | undefined, string | undefined][] = [];
  state.onChange((now, before) => heard.push([now.addresses[0]?.address, before?.addresses[0]?.address]));
  state.set(node('10.0.0.2'));
  state.deleted();
  assert.deepEqual(heard, [
    ['10.0.0.1', undefined],
    ['10.0.0.2', '10.0.0.1'],
  ]);
  assert.equal(state.node?.addresses[0]?.address, '10.0.0.2');
});
