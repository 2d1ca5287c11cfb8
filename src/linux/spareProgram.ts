/**
 * A program that is started before it is needed and waits for its input. Starting one costs milliseconds (Node forks,
 * and the more memory we have the longer that takes), which are then spent while nobody waits.
 *
 * The spare ends by itself when we do: its input ends.
 */
import type { ChildProcess } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { start, type RunOptions, type RunResult, type StartedProgram } from './exec.ts';

interface Waiting {
  readonly started: StartedProgram;
  /** Where PATH had the program, and which file that was. */
  readonly path: string | undefined;
  readonly file: string;
}

/** Keeps one program ready. Its argument vector and environment are always the same. */
export class SpareProgram {
  readonly #argv: readonly string[];
  /** Named if it is not the first word, which may be a program that starts it. */
  readonly #program: string;
  readonly #options: Pick<RunOptions, 'env'>;
  #waiting: Waiting | undefined;
  #next: NodeJS.Immediate | undefined;
  #closed = false;

  constructor(argv: readonly string[], program: string, options: Pick<RunOptions, 'env'> = {}) {
    this.#argv = argv;
    this.#program = program;
    this.#options = options;
  }

  /** The spare that waits, if there is one. */
  get child(): ChildProcess | undefined {
    return this.#waiting?.started.child;
  }

  /** Starts a spare when the event loop has nothing else to do, unless one waits already. */
  prepare(): void {
    if (this.#closed || this.#waiting !== undefined) return;
    this.#next ??= setImmediate(() => {
      this.#next = undefined;
      this.#start();
    });
  }

  /** As `run`: with the spare if one is alive and is still what PATH names, else with a program started now. */
  async run(options: Pick<RunOptions, 'input' | 'timeoutMs'>): Promise<RunResult> {
    try {
      const all = { input: '', ...this.#options, ...options };
      return await (this.#take() ?? start(this.#argv, all)).finish(all);
    } finally {
      this.prepare();
    }
  }

  /** Ends the spare; none is started any more. Idempotent. */
  close(): void {
    this.#closed = true;
    clearImmediate(this.#next);
    this.#next = undefined;
    this.#waiting?.started.child.kill('SIGKILL');
    this.#waiting = undefined;
  }

  #start(): void {
    const path = findProgram(this.#program, this.#options.env?.['PATH'] ?? process.env['PATH'] ?? '');
    const started = start(this.#argv, { input: '', ...this.#options });
    const { child } = started;
    const waiting = { started, path, file: fileOf(path) };
    this.#waiting = waiting;
    const gone = (): void => {
      if (this.#waiting === waiting) this.#waiting = undefined;
    };
    child.once('exit', gone);
    child.once('error', gone);
    hold(child, false);
  }

  #take(): StartedProgram | undefined {
    const waiting = this.#waiting;
    if (waiting === undefined) return undefined;
    this.#waiting = undefined;
    const { child } = waiting.started;
    if (child.exitCode !== null || child.signalCode !== null) return undefined;
    // Another version, or the other iptables, was installed meanwhile.
    if (fileOf(waiting.path) !== waiting.file) {
      child.kill('SIGKILL');
      return undefined;
    }
    hold(child, true);
    return waiting.started;
  }
}

/** A program that only waits keeps nobody from ending. */
function hold(child: ChildProcess, held: boolean): void {
  const pipes = [child.stdin, child.stdout, child.stderr] as unknown as readonly (Socket | null)[];
  for (const each of [child, ...pipes]) {
    if (held) each?.ref();
    else each?.unref();
  }
}

function findProgram(program: string, path: string): string | undefined {
  if (program.includes('/')) return program;
  for (const directory of path.split(':')) {
    const file = join(directory, program);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // Not in this directory.
    }
  }
  return undefined;
}

/** Another file, or another version of it, has another text. */
function fileOf(path: string | undefined): string {
  const found = path === undefined ? undefined : statSync(path, { throwIfNoEntry: false });
  return found === undefined ? '' : `${found.dev} ${found.ino} ${found.mtimeMs}`;
}
