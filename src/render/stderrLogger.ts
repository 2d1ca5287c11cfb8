/** A logger for commands: what goes wrong on the way to a live cluster, one line each. */
import type { Logger } from '../log/logger.ts';

export function stderrLogger(write: (text: string) => void): Logger {
  const say = (level: string, message: string, fields: Readonly<Record<string, unknown>> = {}): void => {
    const { err } = fields;
    const said = err instanceof Error ? err.message : err;
    const reason = typeof said === 'string' && said !== '' ? `: ${said}` : '';
    write(`${level}: ${message}${reason}\n`);
  };
  const logger: Logger = {
    enabled: () => false,
    info: () => undefined,
    warn: (message, fields) => say('warning', message, fields),
    error: (message, fields) => say('error', message, fields),
    with: () => logger,
  };
  return logger;
}
