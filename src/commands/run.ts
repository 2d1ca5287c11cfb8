/** `pointsman run`: from the command line to the daemon, and from its end to the exit code and the last log lines. */
import { writeFile } from 'node:fs/promises';
import { printDocument } from '../config/document.ts';
import { UsageError } from '../config/flags.ts';
import { ConfigError, loadConfig, type LoadResult } from '../config/load.ts';
import type { ProxyConfig } from '../config/types.ts';
import { createLog, type Log } from '../log/log.ts';
import { programName } from '../programName.ts';

export async function run(argv: string[]): Promise<number> {
  let loaded: LoadResult;
  try {
    loaded = await loadConfig(argv);
  } catch (error) {
    return refuse(error);
  }
  if (loaded.kind === 'text') {
    process.stdout.write(loaded.text);
    return 0;
  }
  for (const line of loaded.deprecations) process.stderr.write(`${line}\n`);
  const { config } = loaded;
  const log = createLog(config.logging);
  logConfiguration(config, log);
  try {
    return await act(config, log);
  } catch (error) {
    log.error('Error running ProxyServer', { err: error });
    log.error('command failed', { err: error });
    return 1;
  } finally {
    log.flush();
  }
}

async function act(config: ProxyConfig, log: Log): Promise<number> {
  if (config.writeConfigTo !== '') {
    await writeFile(config.writeConfigTo, await printDocument(config), { mode: 0o644 });
    log.info('Wrote configuration', { file: config.writeConfigTo });
    return 0;
  }
  const { runProxy } = await import('../proxy/run.ts');
  return runProxy(config, log);
}

function logConfiguration(config: ProxyConfig, log: Log): void {
  if (log.enabled(1)) {
    for (const { name, value } of config.flags) log.info(`FLAG: --${name}=${JSON.stringify(value)}`, {}, 1);
  }
  for (const notice of config.notices) log.info(notice);
  for (const warning of config.warnings) log.warn(warning);
}

function refuse(error: unknown): number {
  if (error instanceof UsageError) {
    process.stderr.write(
      `Error: ${error.message}\n\nUsage: ${programName} run [flags]\nAll flags: ${programName} run --help\n`,
    );
    return 1;
  }
  const log = createLog();
  if (error instanceof ConfigError && error.problems.length > 1) {
    for (const problem of error.problems) log.error('Configuration problem', { problem });
  }
  log.error('command failed', { err: error });
  return 1;
}
