import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { errorText, formatJSON, formatText, type Entry, type Severity } from '../../src/log/format.ts';
import { createLog, type LogOptions } from '../../src/log/log.ts';
import { createSink, quantityBytes } from '../../src/log/sink.ts';

const options: LogOptions = {
  format: 'text',
  verbosity: 0,
  vmodule: [],
  flushFrequency: 5000,
  text: { splitStream: false, infoBufferSize: '0' },
  json: { splitStream: false, infoBufferSize: '0' },
};
/** 3 February 2026, 04:05:06.078901 local time. */
const time = new Date(2026, 1, 3, 4, 5, 6, 78).getTime() + 0.901;

function recorder(changes: Partial<LogOptions> = {}): { log: ReturnType<typeof createLog>; lines: string[] } {
  const lines: string[] = [];
  const sink = { write: (_: Severity, line: string) => void lines.push(line), flush: () => undefined };
  return { log: createLog({ ...options, ...changes }, { sink, now: () => time }), lines };
}

const pid = String(process.pid).padStart(7);

test("text lines have klog's header", () => {
  const { log, lines } = recorder();
  log.info('Synced', { family: 'IPv4', rules: 3, full: true });
  log.with({ component: 'sync' }).warn('Odd');
  log.error('Failed', { what: 'x', err: new Error('no "way"') });
  assert.deepEqual(lines, [
    `I0203 04:05:06.078901 ${pid} pointsman] "Synced" family="IPv4" rules=3 full=true\n`,
    `W0203 04:05:06.078901 ${pid} sync] "Odd"\n`,
    `E0203 04:05:06.078901 ${pid} pointsman] "Failed" err="no \\"way\\"" what="x"\n`,
  ]);
});

test("JSON lines have Kubernetes' keys", () => {
  const { log, lines } = recorder({ format: 'json', verbosity: 2 });
  log.with({ component: 'sync', family: 'IPv4' }).info('Synced', { rules: 3 }, 2);
  log.error('Failed', { err: new Error('no'), family: 'IPv6' });
  log.warn('Odd');
  assert.deepEqual(
    lines.map((line): unknown => JSON.parse(line)),
    [
      { ts: time, caller: 'sync', msg: 'Synced', v: 2, family: 'IPv4', rules: 3 },
      { ts: time, caller: 'pointsman', msg: 'Failed', err: 'no', family: 'IPv6' },
      { ts: time, caller: 'pointsman', msg: 'Odd', severity: 'warning', v: 0 },
    ],
  );
  assert.match(lines[0] ?? '', /^\{"ts":\d+\.\d+,"caller":"sync","msg":"Synced"/);
});

test('a field cannot take the place of a key of the format', () => {
  const { log, lines } = recorder({ format: 'json' });
  log.info('m', { msg: 'other', ts: 0 });
  assert.deepEqual(JSON.parse(lines[0] ?? ''), { ts: time, caller: 'pointsman', msg: 'm', v: 0 });
});

test('verbosity gates information, never warnings and errors', () => {
  const { log, lines } = recorder({ verbosity: 1 });
  log.info('at 0');
  log.info('at 1', {}, 1);
  log.info('at 2', {}, 2);
  log.warn('warned');
  log.error('failed');
  assert.equal(lines.length, 4);
  assert.deepEqual([log.enabled(0), log.enabled(1), log.enabled(2)], [true, true, false]);
});

test('the verbosity can be changed for all loggers at once', () => {
  const { log, lines } = recorder();
  const child = log.with({ component: 'sync' });
  child.info('no', {}, 4);
  log.setVerbosity(4);
  child.info('yes', {}, 4);
  assert.equal(child.verbosity, 4);
  assert.equal(lines.length, 1);
});

test('vmodule raises single components, by pattern; the first that matches counts', () => {
  const vmodule = [
    { filePattern: 'sync', verbosity: 3 },
    { filePattern: 's*', verbosity: 9 },
    { filePattern: 'ap?', verbosity: 2 },
  ];
  const { log } = recorder({ vmodule });
  const enabled = (component: string): number => {
    const own = log.with({ component });
    return [1, 2, 3, 9].filter((level) => own.enabled(level)).at(-1) ?? 0;
  };
  assert.deepEqual(['sync', 'services', 'api', 'apis', 'x.api'].map(enabled), [3, 9, 2, 0, 0]);
});

const entry: Entry = { severity: 'info', time, caller: 'c', level: 0, message: 'm', fields: {} };

test('whatever is logged is one line, and nothing throws', () => {
  const cyclic: Record<string, unknown> = {};
  cyclic['self'] = cyclic;
  const values = fc.oneof(
    fc.anything({ withBigInt: true, withMap: true, withSet: true, withNullPrototype: true }),
    fc.constant(cyclic),
  );
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.string(), values, (message, key, value) => {
      for (const format of [formatText, formatJSON]) {
        const line = format({ ...entry, message, fields: { [key]: value, err: value } });
        assert.equal(line.indexOf('\n'), line.length - 1);
      }
      JSON.parse(formatJSON({ ...entry, message, fields: { [key]: value } }));
    }),
  );
});

test('maps, sets, errors and nothing are readable', () => {
  const fields = {
    map: new Map([['a', 1]]),
    set: new Set(['b']),
    list: [1, 'x'],
    none: null,
    un: undefined,
    big: 5n,
    e: new Error('no'),
  };
  assert.match(
    formatText({ ...entry, fields }),
    / map=\{"a":1\} set=\["b"\] list=\[1,"x"\] none=<nil> un=<nil> big=5 e="no"\n$/,
  );
});

test('an error tells its causes, each once', () => {
  const cause = new Error('ENOENT');
  assert.equal(errorText(new Error('cannot read x', { cause })), 'cannot read x: ENOENT');
  assert.equal(errorText(new Error('cannot read x: ENOENT', { cause })), 'cannot read x: ENOENT');
  assert.equal(
    errorText(new AggregateError([cause, new Error('b')], 'all failed')),
    'all failed [ENOENT, b]',
  );
  assert.equal(errorText('text'), 'text');
  const first = new Error('first');
  const second = new Error('second', { cause: first });
  first.cause = second;
  assert.equal(errorText(second), 'second: first');
  assert.equal(errorText({ code: 1 }), '{"code":1}');
});

function writes(
  splitStream: boolean,
  infoBufferSize: number,
): { sink: ReturnType<typeof createSink>; written: string[] } {
  const written: string[] = [];
  const sink = createSink(
    { splitStream, infoBufferSize, flushFrequency: 5 },
    (fd, text) => void written.push(`${fd}:${text}`),
  );
  return { sink, written };
}

test('all goes to stderr; with split streams information goes to stdout', () => {
  const one = writes(false, 0);
  one.sink.write('info', 'a');
  one.sink.write('error', 'b');
  assert.deepEqual(one.written, ['2:a', '2:b']);
  const two = writes(true, 0);
  two.sink.write('info', 'a');
  two.sink.write('error', 'b');
  assert.deepEqual(two.written, ['1:a', '2:b']);
});

test('information is held back up to the size, an error, or the time', async () => {
  const { sink, written } = writes(true, 4);
  sink.write('info', 'ab');
  assert.deepEqual(written, []);
  sink.write('info', 'cde');
  assert.deepEqual(written.splice(0), ['1:abcde']);
  sink.write('info', 'f');
  sink.write('error', 'g');
  assert.deepEqual(written.splice(0), ['1:f', '2:g']);
  sink.write('info', 'h');
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual(written, ['1:h']);
});

test('quantities in bytes', () => {
  const expected = {
    0: 0,
    512: 512,
    '1k': 1000,
    '64Ki': 65536,
    '1M': 1e6,
    '1.5Mi': 1572864,
    '2e3': 2000,
    '1500m': 2,
    x: 0,
  };
  for (const [quantity, bytes] of Object.entries(expected))
    assert.equal(quantityBytes(quantity), bytes, quantity);
});
