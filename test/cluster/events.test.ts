import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ApiError, TransportError } from '../../src/cluster/apiError.ts';
import type { WriteRequest } from '../../src/cluster/apiClient.ts';
import type { Clock } from '../../src/cluster/clock.ts';
import { EventRecorder } from '../../src/cluster/events.ts';
import type { EventText } from '../../src/cluster/events.ts';
import { silentLogger } from '../../src/log/logger.ts';

const node = { kind: 'Node', namespace: '', name: 'node-a' } as const;
const starting: EventText = { type: 'Normal', reason: 'Starting', action: 'StartKubeProxy', note: '' };

/** Time passes only when something sleeps. */
class SteppedClock implements Clock {
  time = Date.UTC(2026, 2, 1, 12, 0, 0);
  readonly sleeps: number[] = [];
  now(): number {
    return this.time;
  }
  setTimeout(callback: () => void, milliseconds: number): NodeJS.Timeout {
    this.sleeps.push(milliseconds);
    return setTimeout(() => {
      this.time += milliseconds;
      callback();
    }, 0);
  }
  clearTimeout(timer: NodeJS.Timeout | undefined): void {
    clearTimeout(timer);
  }
}

function recorder(answer: (request: WriteRequest, count: number) => void): {
  events: EventRecorder;
  written: WriteRequest[];
  clock: SteppedClock;
} {
  const written: WriteRequest[] = [];
  const clock = new SteppedClock();
  const client = {
    write: (request: WriteRequest): Promise<unknown> => {
      written.push(request);
      return new Promise((resolve) => {
        answer(request, written.length);
        resolve({});
      });
    },
  };
  const events = new EventRecorder({
    client,
    hostName: 'host-a',
    log: silentLogger,
    clock,
    random: () => 0.5,
  });
  return { events, written, clock };
}

async function settle(): Promise<void> {
  for (let i = 0; i < 60; i++) await new Promise((resolve) => setTimeout(resolve, 0));
}

test('an event says who, what and about whom', async () => {
  const { events, written } = recorder(() => undefined);
  events.record(node, starting);
  await settle();
  assert.equal(written.length, 1);
  const [request] = written;
  assert.equal(request?.path, '/apis/events.k8s.io/v1/namespaces/default/events');
  assert.deepEqual(request?.body, {
    apiVersion: 'events.k8s.io/v1',
    kind: 'Event',
    metadata: {
      name: `node-a.${(BigInt(Date.UTC(2026, 2, 1, 12)) * 1_000_000n).toString(16)}`,
      namespace: 'default',
    },
    eventTime: '2026-03-01T12:00:00.000000Z',
    reportingController: 'kube-proxy',
    reportingInstance: 'kube-proxy-host-a',
    action: 'StartKubeProxy',
    reason: 'Starting',
    regarding: { apiVersion: 'v1', kind: 'Node', name: 'node-a' },
    note: '',
    type: 'Normal',
  });
});

test('an event about a Service lies in its namespace', async () => {
  const { events, written } = recorder(() => undefined);
  events.record({ kind: 'Service', namespace: 'shop', name: 'web' }, { ...starting, type: 'Warning' });
  await settle();
  assert.equal(written[0]?.path, '/apis/events.k8s.io/v1/namespaces/shop/events');
});

test('the same event again is counted in a series, by PATCH, from 2 on', async () => {
  const { events, written, clock } = recorder(() => undefined);
  events.record(node, starting);
  await settle();
  clock.time += 1000;
  events.record(node, starting);
  events.record(node, { ...starting, note: 'another' });
  clock.time += 7 * 60_000;
  events.record(node, starting);
  await settle();
  assert.deepEqual(
    written.map(({ verb }) => verb),
    ['create', 'patch', 'create', 'create'],
  );
  assert.deepEqual(written[1]?.body, {
    series: { count: 2, lastObservedTime: '2026-03-01T12:00:01.000000Z' },
  });
});

test('no answer is tried 12 times, about ten seconds apart', async () => {
  const { events, written, clock } = recorder(() => {
    throw new TransportError('connection refused');
  });
  events.record(node, starting);
  await settle();
  assert.equal(written.length, 12);
  assert.deepEqual(clock.sleeps, [5_000, ...Array.from({ length: 10 }, () => 11_250)]);
});

test('what the server refuses is not tried again', async () => {
  const { events, written } = recorder(() => {
    throw new ApiError('POST', 403, {
      code: 403,
      reason: 'Forbidden',
      message: '',
      retryAfterSeconds: undefined,
    });
  });
  events.record(node, starting);
  await settle();
  assert.equal(written.length, 1);
});

test('a series whose event has expired on the server begins anew', async () => {
  const { events, written } = recorder((request) => {
    if (request.verb !== 'patch') return;
    throw new ApiError('PATCH', 404, {
      code: 404,
      reason: 'NotFound',
      message: '',
      retryAfterSeconds: undefined,
    });
  });
  events.record(node, starting);
  events.record(node, starting);
  await settle();
  assert.deepEqual(
    written.map(({ verb }) => verb),
    ['create', 'patch', 'create'],
  );
});

test('the queue is bounded, and stopping gives up', async () => {
  const { events, written } = recorder(() => {
    throw new TransportError('connection refused');
  });
  for (let i = 0; i < 1200; i++) events.record(node, { ...starting, note: String(i) });
  assert.equal(events.dropped, 199, 'one is under way, 1000 wait');
  await events.stop();
  assert.ok(written.length <= 2);
});
