/** The program under test on one node: started as a user would start it, with a configuration file of its own. */
import { spawn, type ChildProcess } from 'node:child_process';
import { createWriteStream, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Namespaces } from '../net/namespaces.ts';

export interface ProxyOptions {
  readonly namespaces: Pick<Namespaces, 'command'>;
  readonly node: string;
  /** `{config}`, `{node}` and `{socket}` in it are replaced; see `ownProxyCommand`. */
  readonly command: readonly string[];
  readonly configFile: string;
  readonly logFile: string;
  readonly env: NodeJS.ProcessEnv;
}

/** What Node needs to run the program. @throws Error where Node cannot run it at all */
function loaderFlags(program: string): string[] {
  if (/\.[cm]?js$/.test(program)) return [];
  if (program.endsWith('.ts')) return ['--import', import.meta.resolve('tsx')];
  throw new Error(
    `POINTSMAN_PROGRAM="${program}": must be a file that Node.js runs, ending in .js or .ts, such as dist/main.js; ` +
      'for any other program use --proxy "COMMAND --config {config}"',
  );
}

/** How this very program is started as `pointsman run`: from its bundle, or from source with tsx. */
export function ownProxyCommand(): string[] {
  const program = process.env['POINTSMAN_PROGRAM'] ?? '';
  const start =
    program === '' ? [...process.execArgv, process.argv[1] ?? ''] : [...loaderFlags(program), program];
  return [process.execPath, ...start, 'run', '--config', '{config}', '--socket-path', '{socket}'];
}

/** Where a proxy of the lab answers `pointsman status`: beside its configuration. */
export function socketOf(configFile: string): string {
  return join(dirname(configFile), 'pointsman.sock');
}

/** The command line of another proxy, split at spaces; quotes keep words together. */
export function splitCommand(text: string): string[] {
  return (text.match(/"[^"]*"|'[^']*'|\S+/g) ?? []).map((word) => word.replace(/^(["'])(.*)\1$/, '$2'));
}

export class ProxyProcess {
  private readonly options: ProxyOptions;
  private child: ChildProcess | undefined;
  private ended: Promise<void> = Promise.resolve();
  private wasStarted = false;
  private stopping = false;

  constructor(options: ProxyOptions) {
    this.options = options;
    writeFileSync(options.logFile, '');
  }

  get running(): boolean {
    return this.child !== undefined;
  }

  /** It was started, and ended though nobody stopped it. */
  get endedByItself(): boolean {
    return this.wasStarted && this.child === undefined && !this.stopping;
  }

  get pid(): number | undefined {
    return this.child?.pid;
  }

  start(): void {
    if (this.child !== undefined) return;
    const { namespaces, node, command, configFile, logFile, env } = this.options;
    const argv = command.map((word) =>
      word
        .replaceAll('{config}', configFile)
        .replaceAll('{node}', node)
        .replaceAll('{socket}', socketOf(configFile)),
    );
    const [program = '', ...rest] = namespaces.command(node, argv);
    const log = createWriteStream(logFile, { flags: 'a' });
    const child = spawn(program, rest, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    this.child = child;
    this.wasStarted = true;
    this.stopping = false;
    this.ended = new Promise((resolve) => {
      // It has ended when its last words can be read.
      log.once('close', () => {
        if (this.child === child) this.child = undefined;
        resolve();
      });
      const end = (): void => {
        log.end();
      };
      child.once('close', end);
      child.once('error', (error) => {
        log.write(`${String(error)}\n`);
        end();
      });
    });
  }

  /** Sends the signal and waits for the end; a process that outlives `patience` ms is killed. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', patience = 10_000): Promise<void> {
    const child = this.child;
    if (child === undefined) return;
    this.stopping = true;
    child.kill(signal);
    const timer = setTimeout(() => child.kill('SIGKILL'), patience);
    await this.ended;
    clearTimeout(timer);
  }

  /** The last lines it wrote. */
  lastWords(lines = 12): string {
    return readFileSync(this.options.logFile, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
  }
}
