/**
 * Runs a program: an argument vector, never a shell. A non-zero exit is an answer, not an exception.
 *
 * Node forks before it executes, which costs about 2.5 ms per start in a small process, so callers start few programs,
 * or start them before they are needed (see spareProgram.ts), or on another thread (see runAside.ts).
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { Writable } from 'node:stream';
import * as trace from '../log/trace.ts';

export interface RunOptions {
  /** What the program reads on its standard input; pieces are written as fast as it takes them. */
  readonly input?: string | Iterable<string>;
  /** Milliseconds until the program is killed (then `code` is 124); default 5 minutes. */
  readonly timeoutMs?: number;
  /** Variables added to our own environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Called with every complete line of standard output, which is then not kept in `stdout`. */
  readonly onLine?: (line: string) => void;
}

export interface RunResult {
  /** Exit status; 124 after a time-out, 127 if the program could not be started, 128 + n after signal n. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export const exitTimedOut = 124;
export const exitNotStarted = 127;

/** Milliseconds. */
export const defaultTimeout = 5 * 60_000;

/** Runs `argv[0]` with the remaining arguments and waits for its end. Never rejects because of what the program did. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return await start(argv, options).finish(options);
}

/** A program that has been started and, if it takes input, waits for it. */
export interface StartedProgram {
  readonly child: ChildProcess;
  /** Gives it its input, if it takes any, and waits for its end; once. */
  finish(options: RunOptions): Promise<RunResult>;
}

/** Starts `argv[0]`; with any `input` in the options it gets a pipe for it, which stays empty until `finish`. */
export function start(argv: readonly string[], options: RunOptions = {}): StartedProgram {
  const [program, ...args] = argv;
  if (program === undefined) throw new Error('run: the argument vector is empty; name a program');
  const child = spawn(program, args, {
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    shell: false,
    ...(options.env === undefined ? {} : { env: { ...process.env, ...options.env } }),
  });
  let failure: Error | undefined;
  const closed = new Promise<[number | null, NodeJS.Signals | null]>((resolve) => {
    child.once('error', (error) => {
      failure = error;
      resolve([null, null]);
    });
    child.once('close', (code, signal) => resolve([code, signal]));
  });
  let stdout = '';
  let stderr = '';
  const splitter = options.onLine === undefined ? undefined : lineSplitter(options.onLine);
  child.stdout?.setEncoding('utf8');
  child.stderr?.setEncoding('utf8');
  child.stdout?.on('data', (text: string) => {
    if (splitter === undefined) stdout += text;
    else splitter.push(text);
  });
  child.stderr?.on('data', (text: string) => {
    stderr += text;
  });
  // A program that stops reading early (it found an error) closes the pipe: its exit status says why.
  child.stdin?.on('error', () => child.stdin?.destroy());

  const finish = async ({ input, timeoutMs }: RunOptions): Promise<RunResult> => {
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, timeoutMs ?? defaultTimeout);
    let end: [number | null, NodeJS.Signals | null];
    try {
      if (child.stdin !== null && input !== undefined) {
        await Promise.race([feed(child.stdin, input), closed]);
        trace.passed(trace.inputWritten, program);
      }
    } finally {
      end = await closed;
      clearTimeout(timer);
    }
    const [code, signal] = end;
    splitter?.end();
    if (failure !== undefined) {
      return { code: exitNotStarted, stdout, stderr: `cannot start ${program}: ${failure.message}` };
    }
    if (timedOut)
      return { code: exitTimedOut, stdout, stderr: `${stderr}${program}: killed after its time limit` };
    return { code: code ?? 128 + signalNumber(signal), stdout, stderr };
  };
  return { child, finish };
}

/** Writes the input as fast as it is taken, and ends it. Input that cannot be made ends it, too; then it rejects. */
export async function feed(stdin: Writable, input: string | Iterable<string>): Promise<void> {
  if (typeof input === 'string') {
    stdin.end(input);
    return;
  }
  try {
    for (const piece of input) {
      if (stdin.destroyed) return;
      if (!stdin.write(piece) && !(await drained(stdin))) return;
    }
    stdin.end();
  } catch (error) {
    stdin.destroy();
    throw error;
  }
}

/** False where the pipe broke: the program's exit status, which the caller gets, says why. */
async function drained(stdin: Writable): Promise<boolean> {
  return await once(stdin, 'drain').then(
    () => true,
    () => false,
  );
}

/** Cuts text that comes in pieces into lines. */
export function lineSplitter(onLine: (line: string) => void): { push(text: string): void; end(): void } {
  let rest = '';
  return {
    push(text) {
      let start = 0;
      for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', start)) {
        onLine(start === 0 ? rest + text.slice(0, at) : text.slice(start, at));
        if (start === 0) rest = '';
        start = at + 1;
      }
      rest += text.slice(start);
    },
    end() {
      if (rest !== '') onLine(rest);
    },
  };
}

function signalNumber(signal: NodeJS.Signals | null): number {
  return signal === 'SIGKILL' ? 9 : signal === 'SIGTERM' ? 15 : 1;
}
