/**
 * Writes events.k8s.io/v1 Events, in the background: callers never wait and never fail. Delivery as in client-go's
 * tools/events: up to 12 tries about 10 s apart where there is no answer; what the server refuses is not tried again;
 * the same event again within 6 minutes becomes a series. Ref: KEP-383
 */
import { randomUUID } from 'node:crypto';
import type { Logger } from '../log/logger.ts';
import { ApiError } from './apiError.ts';
import type { ApiClient } from './apiClient.ts';
import { sleep, systemClock } from './clock.ts';
import type { Clock } from './clock.ts';

/** The object an event is about. */
export interface EventSubject {
  readonly kind: 'Node' | 'Service';
  /** Empty for a Node. */
  readonly namespace: string;
  readonly name: string;
}

export interface EventText {
  readonly type: 'Normal' | 'Warning';
  readonly reason: string;
  readonly action: string;
  readonly note: string;
}

export interface EventRecorderOptions {
  readonly client: Pick<ApiClient, 'write'>;
  /** The operating system's host name, for `reportingInstance`. */
  readonly hostName: string;
  readonly log: Logger;
  readonly clock?: Clock;
  readonly random?: () => number;
  /** Default `kube-proxy`, by which existing tools find these events. */
  readonly reportingController?: string;
}

const tries = 12;
/** Milliseconds; plus up to a quarter. */
const pause = 10_000;
const queueLength = 1000;
/** Milliseconds. */
const seriesWindow = 6 * 60_000;
const rememberedSeries = 1000;

interface Series {
  readonly name: string;
  readonly namespace: string;
  count: number;
  seenAt: number;
  /** The server has the event: repetitions can be counted in it. */
  created: boolean;
}

type Delivery = () => Promise<void>;

export class EventRecorder {
  private readonly client: Pick<ApiClient, 'write'>;
  private readonly log: Logger;
  private readonly clock: Clock;
  private readonly random: () => number;
  private readonly reportingController: string;
  private readonly reportingInstance: string;
  private readonly queue: Delivery[] = [];
  private readonly series = new Map<string, Series>();
  private readonly life = new AbortController();
  private delivering: Promise<void> | undefined;
  /** Events that found the queue full. */
  dropped = 0;

  constructor(options: EventRecorderOptions) {
    this.client = options.client;
    this.log = options.log;
    this.clock = options.clock ?? systemClock;
    this.random = options.random ?? Math.random;
    this.reportingController = options.reportingController ?? 'kube-proxy';
    this.reportingInstance = `${this.reportingController}-${options.hostName}`;
  }

  /** Queues an event and returns at once. */
  record(subject: EventSubject, text: EventText): void {
    if (this.life.signal.aborted) return;
    if (this.queue.length >= queueLength) {
      this.dropped++;
      this.log.warn('Too many events wait for the API server: one is dropped', { reason: text.reason });
      return;
    }
    const now = this.clock.now();
    const key = JSON.stringify([subject, text]);
    const known = this.series.get(key);
    if (known !== undefined && now - known.seenAt < seriesWindow) {
      known.seenAt = now;
      known.count++;
      this.enqueue(() => this.patch(known, subject, text, now));
      return;
    }
    const series: Series = {
      name: eventName(subject.name, now),
      namespace: subject.namespace === '' ? 'default' : subject.namespace,
      count: 1,
      seenAt: now,
      created: false,
    };
    this.remember(key, series);
    this.enqueue(() => this.create(series, subject, text, now));
  }

  /** Resolves when everything queued has been delivered or given up, or after `timeout` milliseconds. */
  async flush(timeout: number): Promise<void> {
    await Promise.race([this.delivering, sleep(this.clock, timeout, this.life.signal)]);
  }

  /** Gives up what is not delivered yet. */
  async stop(): Promise<void> {
    this.life.abort(new Error('stopped'));
    this.queue.length = 0;
    await this.delivering;
  }

  private remember(key: string, series: Series): void {
    this.series.delete(key);
    if (this.series.size >= rememberedSeries) {
      const oldest = this.series.keys().next();
      if (oldest.done !== true) this.series.delete(oldest.value);
    }
    this.series.set(key, series);
  }

  private enqueue(delivery: Delivery): void {
    this.queue.push(delivery);
    this.delivering ??= this.deliverAll().finally(() => {
      this.delivering = undefined;
    });
  }

  private async deliverAll(): Promise<void> {
    for (let next = this.queue.shift(); next !== undefined; next = this.queue.shift())
      await this.deliver(next);
  }

  private async deliver(delivery: Delivery): Promise<void> {
    for (let i = 0; i < tries && !this.life.signal.aborted; i++) {
      // The first pause is anywhere in the interval, so that many nodes do not come back at once.
      if (i > 0)
        await sleep(
          this.clock,
          i === 1 ? pause * this.random() : pause * (1 + this.random() / 4),
          this.life.signal,
        );
      try {
        await delivery();
        return;
      } catch (error) {
        if (this.life.signal.aborted) return;
        const refused = error instanceof ApiError;
        const message = refused ? 'The server refuses an event' : 'An event cannot be written';
        this.log.error(message, { err: error, try: i + 1 });
        if (refused) return;
      }
    }
  }

  private async create(series: Series, subject: EventSubject, text: EventText, time: number): Promise<void> {
    const regarding = {
      apiVersion: 'v1',
      kind: subject.kind,
      name: subject.name,
      ...(subject.namespace === '' ? {} : { namespace: subject.namespace }),
    };
    const body = {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { name: series.name, namespace: series.namespace },
      eventTime: microTime(time),
      reportingController: this.reportingController,
      reportingInstance: this.reportingInstance,
      action: text.action,
      reason: text.reason,
      regarding,
      note: text.note,
      type: text.type,
    };
    const signal = this.life.signal;
    await this.client.write({ verb: 'create', path: collection(series.namespace), body, signal });
    series.created = true;
  }

  private async patch(series: Series, subject: EventSubject, text: EventText, time: number): Promise<void> {
    if (!series.created) {
      // The first one never arrived: this one takes its place.
      await this.create(series, subject, text, time);
      return;
    }
    const body = { series: { count: series.count, lastObservedTime: microTime(time) } };
    const path = `${collection(series.namespace)}/${encodeURIComponent(series.name)}`;
    try {
      await this.client.write({ verb: 'patch', path, body, signal: this.life.signal });
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) throw error;
      // Events expire on the server (an hour by default).
      await this.create(series, subject, text, time);
    }
  }
}

function collection(namespace: string): string {
  return `/apis/events.k8s.io/v1/namespaces/${encodeURIComponent(namespace)}/events`;
}

/** metav1.MicroTime: always six digits of fraction. */
function microTime(milliseconds: number): string {
  return new Date(milliseconds).toISOString().replace('Z', '000Z');
}

/** `<object>.<nanoseconds since the epoch in hex>`, or a UUID where that is no valid name (RFC 1123 subdomain). */
function eventName(object: string, milliseconds: number): string {
  const name = `${object}.${(BigInt(Math.round(milliseconds)) * 1_000_000n).toString(16)}`;
  const valid =
    name.length <= 253 && /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(name);
  return valid ? name : randomUUID();
}
