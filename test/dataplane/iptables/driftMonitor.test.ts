import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DriftMonitor, type DriftCheck } from '../../../src/dataplane/iptables/driftMonitor.ts';
import type { Backend } from '../../../src/linux/iptables/features.ts';
import { openFingerprint } from '../../../src/linux/iptables/fingerprint.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import { World } from './harness.ts';

function monitorOf(
  check: () => DriftCheck,
  repairs = true,
): {
  monitor: DriftMonitor;
  kernel: { generation: number };
  drifts: string[];
  warnings: string[];
  checks: () => number;
} {
  const kernel = { generation: 1 };
  const drifts: string[] = [];
  const warnings: string[] = [];
  let checks = 0;
  const monitor = new DriftMonitor({
    interval: 1000,
    fingerprint: {
      read: () => String(kernel.generation),
      committed: (commits) => {
        kernel.generation -= commits;
      },
      onlyOurs: (before, now) => before === now,
      close: () => undefined,
    },
    check: () => {
      checks++;
      return Promise.resolve(check());
    },
    onDrift: (what) => drifts.push(what),
    repairs,
    log: { ...silentLogger, warn: (message) => warnings.push(message) },
  });
  return { monitor, kernel, drifts, warnings, checks: () => checks };
}

const right: DriftCheck = { wrong: undefined, complete: true };

function sync(
  monitor: DriftMonitor,
  kernel: { generation: number },
  own: number,
  foreign = 0,
  trusted = false,
): void {
  const before = monitor.begin();
  kernel.generation += own + foreign;
  monitor.committed(own);
  monitor.end(before, true, trusted);
}

test('rules are read once after the first sync, and then only when somebody else has committed', async () => {
  const { monitor, kernel, checks } = monitorOf(() => right);
  await monitor.look();
  assert.equal(checks(), 0, 'nothing is known before the first sync');
  sync(monitor, kernel, 3, 0, true);
  await monitor.look();
  assert.equal(checks(), 1);
  await monitor.look();
  sync(monitor, kernel, 2);
  await monitor.look();
  sync(monitor, kernel, 0);
  await monitor.look();
  assert.equal(checks(), 1, 'our own commits explain the generation');
  kernel.generation++;
  await monitor.look();
  assert.equal(checks(), 2);
  sync(monitor, kernel, 1, 1);
  await monitor.look();
  assert.equal(checks(), 3, 'somebody else committed during a sync');
});

test('what is found wrong is told until a sync has mended it; a failed sync leaves it to the retry', async () => {
  let answer = right;
  const { monitor, kernel, drifts, checks } = monitorOf(() => answer);
  sync(monitor, kernel, 1, 0, true);
  await monitor.look();
  answer = { wrong: 'flushed', complete: true };
  kernel.generation++;
  assert.equal(await monitor.look(), 'flushed');
  assert.equal(await monitor.look(), 'flushed');
  assert.deepEqual(drifts, ['flushed', 'flushed']);
  monitor.end(monitor.begin(), false, true);
  const before = checks();
  assert.equal(await monitor.look(), undefined);
  assert.equal(checks(), before);
});

test('a difference in rules that nobody touched is our misreading: told once, then left alone', async () => {
  const { monitor, kernel, drifts, warnings } = monitorOf(() => ({ wrong: 'rules differ', complete: true }));
  sync(monitor, kernel, 1, 0, true);
  await monitor.look();
  kernel.generation++;
  await monitor.look();
  assert.deepEqual(drifts, []);
  assert.equal(warnings.length, 1);
});

for (const [backend, family] of [
  ['nft', 'IPv4'],
  ['nft', 'IPv6'],
  ['legacy', 'IPv4'],
  ['legacy', 'IPv6'],
] as const satisfies [Backend, 'IPv4' | 'IPv6'][]) {
  test(`${backend} ${family}: the fingerprint changes with the rules and only then`, () => {
    const world = new World(backend, family);
    let now = 0;
    const fingerprint = world.inside(() => openFingerprint(backend, family, { commits: 0 }, () => now));
    try {
      world.iptables('-t nat -N X');
      const before = fingerprint.read();
      assert.ok(before !== undefined && !before.includes('errno'));
      assert.equal(fingerprint.read(), before);
      world.iptables('-t nat -S');
      assert.equal(fingerprint.read(), before);
      world.iptables('-t nat -A X -j ACCEPT');
      const after = fingerprint.read();
      assert.notEqual(after, before);
      assert.ok(after !== undefined);
      fingerprint.committed(1);
      assert.equal(
        fingerprint.onlyOurs(before, fingerprint.read() ?? ''),
        true,
        'our own commits do not count',
      );
      const ours = fingerprint.read();
      world.iptables('-t filter -N Y');
      assert.notEqual(fingerprint.read(), ours);
      // A new name changes no size: it is found when sizes are not believed any longer.
      const named = fingerprint.read();
      world.iptables('-t filter -E Y Z');
      if (backend === 'nft') assert.notEqual(fingerprint.read(), named);
      now = 60_000;
      assert.notEqual(fingerprint.read(), named);
    } finally {
      fingerprint.close();
      world.close();
    }
    assert.equal(fingerprint.read(), undefined);
  });
}

test('where nothing is repaired, what is wrong is told once, and again if it changes or comes back', async () => {
  let wrong: string | undefined;
  const { monitor, kernel, drifts, checks } = monitorOf(() => ({ wrong, complete: true }), false);
  sync(monitor, kernel, 1, 0, true);
  await monitor.look();
  const touch = async (now: string | undefined): Promise<void> => {
    wrong = now;
    kernel.generation++;
    for (let i = 0; i < 3; i++) await monitor.look();
  };
  await touch('chain A missing');
  assert.deepEqual(drifts, ['chain A missing']);
  const before = checks();
  await monitor.look();
  assert.equal(checks(), before, 'nobody has touched the rules since');
  await touch('chain A missing');
  await touch('chain B missing');
  await touch(undefined);
  await touch('chain B missing');
  assert.deepEqual(drifts, ['chain A missing', 'chain B missing', 'chain B missing']);
});
