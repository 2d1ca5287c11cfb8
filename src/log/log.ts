/**
 * The program's log: klog's verbosity rules over one of two line formats.
 *
 * `with({ component })` names who speaks: it stands where klog has file:line, and vmodule patterns are matched with it.
 * A call below the verbosity in force costs one comparison.
 */
import { formatJSON, formatText, type Formatter, type Severity } from './format.ts';
import type { LogFields, Logger } from './logger.ts';
import { createSink, quantityBytes, type Sink } from './sink.ts';
import type { LoggingConfig } from '../config/types.ts';

export interface Log extends Logger {
  /** Changes the verbosity of all loggers made from this one, at once. */
  setVerbosity(level: number): void;
  readonly verbosity: number;
  /** Writes lines that are held back. */
  flush(): void;
  with(fields: LogFields): Log;
}

export type LogOptions = Pick<
  LoggingConfig,
  'format' | 'verbosity' | 'vmodule' | 'flushFrequency' | 'text' | 'json'
>;

const defaults: LogOptions = {
  format: 'text',
  verbosity: 0,
  vmodule: [],
  flushFrequency: 5000,
  text: { splitStream: false, infoBufferSize: '0' },
  json: { splitStream: false, infoBufferSize: '0' },
};

export interface LogEdges {
  readonly sink?: Sink;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

/** Without options: text to stderr at verbosity 0, for what is said before the configuration is known. */
export function createLog(options: LogOptions = defaults, edges: LogEdges = {}): Log {
  const output = options[options.format];
  const shared: Shared = {
    verbosity: options.verbosity,
    rules: options.vmodule.map(({ filePattern, verbosity }) => ({
      matches: globPattern(filePattern),
      verbosity,
    })),
    format: options.format === 'json' ? formatJSON : formatText,
    now: edges.now ?? (() => performance.timeOrigin + performance.now()),
    sink:
      edges.sink ??
      createSink({
        splitStream: output.splitStream,
        infoBufferSize: quantityBytes(output.infoBufferSize),
        flushFrequency: options.flushFrequency,
      }),
  };
  return new ComponentLog(shared, 'pointsman', {});
}

interface Shared {
  verbosity: number;
  readonly rules: readonly { readonly matches: RegExp; readonly verbosity: number }[];
  readonly format: Formatter;
  readonly now: () => number;
  readonly sink: Sink;
}

class ComponentLog implements Log {
  readonly #shared: Shared;
  readonly #component: string;
  readonly #fields: LogFields;
  /** What the first vmodule rule that matches says; -1 without one. */
  readonly #ownLevel: number;

  constructor(shared: Shared, component: string, fields: LogFields) {
    this.#shared = shared;
    this.#component = component;
    this.#fields = fields;
    this.#ownLevel = shared.rules.find((rule) => rule.matches.test(component))?.verbosity ?? -1;
  }

  get verbosity(): number {
    return this.#shared.verbosity;
  }

  setVerbosity(level: number): void {
    this.#shared.verbosity = level;
  }

  enabled(level: number): boolean {
    return level <= this.#shared.verbosity || level <= this.#ownLevel;
  }

  info(message: string, fields?: LogFields, level = 0): void {
    if (level > 0 && !this.enabled(level)) return;
    this.#write('info', message, fields, level);
  }

  warn(message: string, fields?: LogFields): void {
    this.#write('warning', message, fields, 0);
  }

  error(message: string, fields?: LogFields & { readonly err?: unknown }): void {
    this.#write('error', message, fields, 0);
  }

  with({ component, ...fields }: LogFields): Log {
    const name = typeof component === 'string' ? component : this.#component;
    return new ComponentLog(this.#shared, name, { ...this.#fields, ...fields });
  }

  flush(): void {
    this.#shared.sink.flush();
  }

  #write(severity: Severity, message: string, fields: LogFields | undefined, level: number): void {
    const { now, format, sink } = this.#shared;
    const caller = this.#component;
    const all = fields === undefined ? this.#fields : { ...this.#fields, ...fields };
    sink.write(severity, format({ severity, time: now(), caller, level, message, fields: all }));
  }
}

/** klog's patterns: `*` and `?`. */
function globPattern(glob: string): RegExp {
  const source = glob
    .replaceAll(/[.+^${}()|[\]\\]/g, String.raw`\$&`)
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`);
}
