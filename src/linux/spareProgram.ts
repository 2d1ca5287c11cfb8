/**
 * A program that is started before it is needed and waits for its input. Starting one costs milliseconds (Node forks,
 * and the more memory we have the longer that takes), which are then spent while nobody waits.
 *
 * The spare ends by itself when we do: its input ends. Only binaries are started ahead: a script in the program's place
 * decides at its start what to do (which variant to call, whether to refuse), and would decide by how things were then.
 */
import type { ChildProcess } from 'node:child_process';
import { accessSync, closeSync, constants, openSync, readSync, statSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { start, type RunOptions, type RunResult, type StartedProgram } from './exec.ts';

interface Waiting {
  readonly started: StartedProgram;
  /** Where PATH had the program, and which file that was. */
  readonly path: string;
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
    const path = this.#find();
    if (path === undefined || !isBinary(path)) return;
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

  #find(): string | undefined {
    return findProgram(this.#program, this.#options.env?.['PATH'] ?? process.env['PATH'] ?? '');
  }

  #take(): StartedProgram | undefined {
    const waiting = this.#waiting;
    if (waiting === undefined) return undefined;
    this.#waiting = undefined;
    const { child } = waiting.started;
    if (child.exitCode !== null || child.signalCode !== null) return undefined;
    // Another version, or the other iptables, was installed meanwhile.
    if (this.#find() !== waiting.path || fileOf(waiting.path) !== waiting.file) {
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

/** An ELF file (elf(5)), not a script. */
function isBinary(path: string): boolean {
  const magic = Buffer.alloc(4);
  try {
    const file = openSync(path, 'r');
    try {
      readSync(file, magic);
    } finally {
      closeSync(file);
    }
  } catch {
    // Not readable: it is started when it is needed, and says then what is wrong.
    return false;
  }
  return magic.toString('latin1') === '\x7fELF';
}

/** Another file, or another version of it, has another text. */
function fileOf(path: string): string {
  const found = statSync(path, { throwIfNoEntry: false });
  return found === undefined ? '' : `${found.dev} ${found.ino} ${found.mtimeMs}`;
}
