/** Where log lines go: file descriptors, written synchronously so that the last line before an end is not lost. */
import { writeSync } from 'node:fs';
import type { Severity } from './format.ts';

export interface Sink {
  write(severity: Severity, line: string): void;
  /** Writes what is held back. */
  flush(): void;
}

export interface SinkOptions {
  /** Errors to stderr, everything else to stdout; otherwise all to stderr. */
  readonly splitStream: boolean;
  /** Bytes of information to hold back when the streams are split; 0 = none. */
  readonly infoBufferSize: number;
  /** Milliseconds after which held back lines are written at the latest. */
  readonly flushFrequency: number;
}

type Write = (fd: 1 | 2, text: string) => void;

export function createSink(options: SinkOptions, write: Write = writeWhole): Sink {
  if (!options.splitStream) return { write: (_, line) => write(2, line), flush: () => undefined };
  let held = '';
  let timer: NodeJS.Timeout | undefined;
  const flush = (): void => {
    clearTimeout(timer);
    timer = undefined;
    if (held !== '') write(1, held);
    held = '';
  };
  if (options.infoBufferSize > 0) process.once('exit', flush);
  return {
    flush,
    write: (severity, line) => {
      if (severity === 'error') {
        flush();
        write(2, line);
      } else if (held.length + line.length > options.infoBufferSize) {
        held += line;
        flush();
      } else {
        held += line;
        timer ??= setTimeout(flush, options.flushFrequency).unref();
      }
    },
  };
}

/** Bytes of a Kubernetes quantity: `512`, `64Ki`, `1M`. */
export function quantityBytes(quantity: string): number {
  const match = /^([+-]?[\d.]+(?:[eE][+-]?\d+)?)([KMGTPE]i?|[numk])?$/.exec(quantity);
  if (match === null) return 0;
  const suffix = match[2] ?? '';
  const power = 'kMGTPE'.indexOf(suffix.charAt(0) === 'K' ? 'k' : suffix.charAt(0)) + 1;
  const small: Readonly<Record<string, number>> = { n: 1e-9, u: 1e-6, m: 1e-3 };
  const scale = suffix === '' ? 1 : (small[suffix] ?? (suffix.endsWith('i') ? 1024 : 1000) ** power);
  return Math.ceil(Number(match[1]) * scale);
}

const pause = new Int32Array(new SharedArrayBuffer(4));

/** Tries for a tenth of a second to write to a full non-blocking pipe; a reader slower than that loses the line. */
function writeWhole(fd: 1 | 2, text: string): void {
  let rest = Buffer.from(text);
  for (let tries = 0; rest.length > 0 && tries < 100; tries++) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      // Nobody reads any more, or the disk is full: logging must not stop the proxy.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return;
      Atomics.wait(pause, 0, 0, 1);
    }
  }
}
