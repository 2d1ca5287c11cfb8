import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLogger } from '../../src/log/logger.ts';
import { ForeignChanges } from '../../src/proxy/foreignChanges.ts';

test('one event a minute and one line a second, each counting what it left out', () => {
  let now = 0;
  const events: string[] = [];
  const lines: unknown[] = [];
  const changes = new ForeignChanges({
    family: 'IPv4',
    mode: 'nftables',
    log: { ...silentLogger, warn: (_message, fields) => lines.push(fields) },
    event: (note) => events.push(note),
    now: () => now,
  });
  const change = {
    what: 'chain dispatch removed',
    object: 'chain',
    by: 'nft (pid 7)',
    repairing: true,
  } as const;
  changes.take(change);
  for (now = 100; now < 60_000; now += 100) changes.take(change);
  assert.equal(events.length, 1);
  assert.equal(lines.length, 60);
  assert.deepEqual(lines[1], { what: change.what, by: change.by, repairing: true, moreSinceLastLine: 9 });
  now = 60_000;
  changes.take({ ...change, by: '', repairing: false });
  assert.deepEqual(events, [
    'IPv4 rules of nftables mode were changed by nft (pid 7): chain dispatch removed; pointsman puts it back',
    'IPv4 rules of nftables mode were changed by somebody else: chain dispatch removed; 599 more changes since the last event; left as it is (--repair-drift=false)',
  ]);
  now = 120_000;
  changes.take({ ...change, what: 'x'.repeat(5000) });
  assert.equal(events[2]!.length, 1000);
});
