import assert from 'node:assert/strict';
import { objectKey } from '../../../src/api/objects.ts';
import type { ApiObject, Service } from '../../../src/api/objects.ts';
import { ApiClient } from '../../../src/cluster/apiClient.ts';
import type { ApiClientOptions } from '../../../src/cluster/apiClient.ts';
import { loadConnection } from '../../../src/cluster/connection.ts';
import type { ObjectHandler } from '../../../src/cluster/objectStore.ts';
import { Reflector } from '../../../src/cluster/reflector.ts';
import type { ReflectorOptions, ReflectorTimings } from '../../../src/cluster/reflector.ts';
import { services } from '../../../src/cluster/resources.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import type { LogFields, Logger } from '../../../src/log/logger.ts';

export const quick: ReflectorTimings = {
  backoffFirst: 5,
  backoffLongest: 40,
  silence: 60_000,
  renewal: 120_000,
  listSilence: 10_000,
  watchSeconds: 300,
};

/** Waits until it holds; fails with what was waited for. */
export async function until(what: string, holds: () => boolean, milliseconds = 60_000): Promise<void> {
  const end = Date.now() + milliseconds;
  while (!holds()) {
    if (Date.now() > end) assert.fail(`waited ${milliseconds} ms for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 3));
  }
}

/** Records a handler's calls and checks that they make sense: add once, update and delete only what is known. */
export class RecordingHandler<T extends ApiObject> implements ObjectHandler<T> {
  readonly events: string[] = [];
  readonly known = new Map<string, T>();
  syncedAt = -1;

  add(object: T): void {
    const key = objectKey(object.meta);
    assert.ok(!this.known.has(key), `added twice: ${key}`);
    this.known.set(key, object);
    this.events.push(`add ${key}@${object.meta.resourceVersion}`);
  }

  update(old: T, object: T): void {
    const key = objectKey(object.meta);
    assert.equal(this.known.get(key), old, `update of ${key} names another old state`);
    assert.notEqual(old, object);
    this.known.set(key, object);
    this.events.push(`update ${key}@${object.meta.resourceVersion}`);
  }

  delete(last: T): void {
    const key = objectKey(last.meta);
    assert.equal(this.known.get(key), last, `delete of ${key} is not its last known state`);
    this.known.delete(key);
    this.events.push(`delete ${key}`);
  }

  synced(): void {
    assert.equal(this.syncedAt, -1, 'synced twice');
    this.syncedAt = this.events.length;
  }
}

export class RecordingLogger implements Logger {
  readonly lines: string[] = [];
  info(message: string, fields: LogFields = {}): void {
    this.lines.push(`I ${message} ${JSON.stringify(fields)}`);
  }
  warn(message: string, fields: LogFields = {}): void {
    this.lines.push(`W ${message} ${JSON.stringify(fields)}`);
  }
  error(message: string, fields: LogFields = {}): void {
    this.lines.push(`E ${message} ${JSON.stringify(fields)}`);
  }
  enabled(): boolean {
    return true;
  }
  with(): Logger {
    return this;
  }
}

export interface Harness {
  readonly reflector: Reflector<Service>;
  readonly handler: RecordingHandler<Service>;
  readonly client: ApiClient;
  readonly log: RecordingLogger;
  /** Errors the handler threw are failures of the test. */
  close(): Promise<void>;
}

export async function startReflector(
  url: string,
  options: Partial<ReflectorOptions<Service>> & { readonly api?: Partial<ApiClientOptions> } = {},
): Promise<Harness> {
  const connection = await loadConnection({ kubeconfig: '', master: url, log: silentLogger });
  const client = new ApiClient({ connection, qps: -1, ...options.api });
  const handler = new RecordingHandler<Service>();
  const log = new RecordingLogger();
  const reflector = new Reflector<Service>({
    client,
    resource: services,
    handler,
    log,
    ...options,
    timings: { ...quick, ...options.timings },
  });
  reflector.start();
  return {
    reflector,
    handler,
    client,
    log,
    async close() {
      await reflector.stop();
      await connection.close();
      const failed = log.lines.filter((line) => line.includes('Handling'));
      assert.deepEqual(failed, []);
    },
  };
}
