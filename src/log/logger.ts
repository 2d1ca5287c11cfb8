/** What every room may use to log. Implementations: `log.ts` (klog text, JSON). Values are printed as key="value". */
export interface Logger {
  /** Verbosity-gated information: `level` 0 is always shown, as klog's V(level). */
  info(message: string, fields?: LogFields, level?: number): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields & { readonly err?: unknown }): void;
  /** True if `info(…, level)` would print: for messages that cost something to build. */
  enabled(level: number): boolean;
  /** The same logger with fields added to every line. */
  with(fields: LogFields): Logger;
}

export type LogFields = Readonly<Record<string, unknown>>;

/** Says nothing; for tests and for pure callers. */
export const silentLogger: Logger = {
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  enabled: () => false,
  with: () => silentLogger,
};
