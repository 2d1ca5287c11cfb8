import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Runner, type Clock } from '../../src/proxy/runner.ts';

/** A clock that moves only when told; timers fire in order, and promises settle between them. */
class FakeClock implements Clock {
  time = 0;
  timers: { at: number; callback: () => void }[] = [];
  armed = 0;
  now(): number {
    return this.time;
  }
  setTimer(callback: () => void, milliseconds: number): unknown {
    const timer = { at: this.time + milliseconds, callback };
    this.timers.push(timer);
    this.armed++;
    return timer;
  }
  clearTimer(handle: unknown): void {
    this.timers = this.timers.filter((timer) => timer !== handle);
  }
  async advanceTo(time: number): Promise<void> {
    await settle();
    for (;;) {
      const next = this.timers.toSorted((a, b) => a.at - b.at)[0];
      if (next === undefined || next.at > time) break;
      this.clearTimer(next);
      this.time = Math.max(this.time, next.at);
      next.callback();
      await settle();
    }
    this.time = time;
  }
}

function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function makeRunner(overrides: { min?: number; retry?: number; max?: number } = {}) {
  const clock = new FakeClock();
  const starts: number[] = [];
  const failures: unknown[] = [];
  const outcomes: ('ok' | 'fail' | 'crash')[] = [];
  let hold: Promise<void> | undefined;
  const runner = new Runner({
    minInterval: overrides.min ?? 1000,
    retryInterval: overrides.retry ?? 5000,
    maxInterval: overrides.max ?? 3_600_000,
    clock,
    failed: (error) => failures.push(error),
    run: () => {
      starts.push(clock.time);
      const outcome = outcomes.shift() ?? 'ok';
      if (outcome === 'crash') throw new Error('crash');
      if (hold !== undefined) return hold;
      return outcome === 'ok' ? Promise.resolve() : Promise.reject(new Error('failed'));
    },
  });
  return {
    clock,
    starts,
    failures,
    outcomes,
    runner,
    holdRuns: (): (() => void) => {
      let release!: () => void;
      hold = new Promise((resolve) => {
        release = resolve;
      });
      return () => {
        hold = undefined;
        release();
      };
    },
  };
}

test('the first run is not delayed and starts in the same turn', () => {
  const { runner, starts } = makeRunner();
  runner.start();
  assert.deepEqual(starts, []);
  runner.request();
  assert.deepEqual(starts, [0]);
});

test('a request made before the start is served at the start', () => {
  const { runner, starts } = makeRunner();
  runner.request();
  assert.deepEqual(starts, []);
  runner.start();
  assert.deepEqual(starts, [0]);
});

test('the timeline of the reference: failed at 0, asked at 0.5 s, runs at 1 s', async () => {
  const { runner, starts, outcomes, clock } = makeRunner();
  outcomes.push('fail');
  runner.start();
  runner.request();
  await clock.advanceTo(500);
  runner.request();
  await clock.advanceTo(10_000);
  assert.deepEqual(starts, [0, 1000]);
});

test('a failed run is retried after the retry interval, a success cancels the retry', async () => {
  const { runner, starts, outcomes, failures, clock } = makeRunner();
  outcomes.push('fail', 'crash', 'ok');
  runner.start();
  runner.request();
  await clock.advanceTo(60_000);
  assert.deepEqual(starts, [0, 5000, 10_000]);
  assert.equal(failures.length, 2);
});

test('the minimum interval counts from the end of a run; requests during a run fold into one', async () => {
  const { runner, starts, clock, holdRuns } = makeRunner();
  const release = holdRuns();
  runner.start();
  runner.request();
  await clock.advanceTo(3000);
  for (let i = 0; i < 5; i++) runner.request();
  release();
  await clock.advanceTo(10_000);
  assert.deepEqual(starts, [0, 4000]);
});

test('with no minimum interval a request during a run follows at once', async () => {
  const { runner, starts, clock, holdRuns } = makeRunner({ min: 0 });
  const release = holdRuns();
  runner.start();
  runner.request();
  await clock.advanceTo(30);
  runner.request();
  runner.request();
  release();
  await settle();
  assert.deepEqual(starts, [0, 30]);
  await clock.advanceTo(100);
  runner.request();
  assert.deepEqual(starts, [0, 30, 100]);
});

test('with no minimum interval, failures in a row still slow requests down, up to a second', async () => {
  const { runner, starts, outcomes, clock } = makeRunner({ min: 0 });
  outcomes.push('fail', 'fail', 'fail', 'fail', 'fail', 'fail', 'fail');
  runner.start();
  for (let time = 0; time <= 4500; time += 10) {
    await clock.advanceTo(time);
    runner.request();
  }
  assert.deepEqual(starts.slice(0, 8), [0, 50, 150, 350, 750, 1550, 2550, 3550]);
  // The eighth run went well: requests are served at once again.
  assert.equal(starts[8], 3550);
  assert.equal(starts[9], 3560);
});

test('an urgent request does not wait for the minimum interval', async () => {
  const { runner, starts, clock } = makeRunner();
  runner.start();
  runner.request();
  await clock.advanceTo(100);
  runner.requestNow();
  assert.deepEqual(starts, [0, 100]);
  runner.request();
  await clock.advanceTo(5000);
  assert.deepEqual(starts, [0, 100, 1100]);
});

test('unasked, it runs at the maximum interval', async () => {
  const { runner, starts, clock } = makeRunner();
  runner.start();
  await clock.advanceTo(7_300_000);
  assert.deepEqual(starts, [3_600_000, 7_200_000]);
});

test('a run per event arms no timer per event', async () => {
  const { runner, starts, clock } = makeRunner({ min: 0 });
  runner.start();
  for (let i = 1; i <= 100; i++) {
    await clock.advanceTo(i);
    runner.request();
    await settle();
  }
  assert.equal(starts.length, 100);
  assert.equal(clock.armed, 1);
});

test('after stop nothing runs', async () => {
  const { runner, starts, clock } = makeRunner();
  runner.start();
  runner.stop();
  runner.request();
  await clock.advanceTo(8_000_000);
  assert.deepEqual(starts, []);
});

test('idle resolves when the run that is on has ended', async () => {
  const { runner, holdRuns } = makeRunner();
  const release = holdRuns();
  runner.start();
  runner.request();
  let idle = false;
  void runner.idle().then(() => (idle = true));
  await settle();
  assert.equal(idle, false);
  release();
  await settle();
  assert.equal(idle, true);
});
