/**
 * Runs a program: an argument vector, never a shell. A non-zero exit is an answer, not an exception.
 *
 * Node forks before it executes, which costs about 2.5 ms per start in a small process, so callers start few programs.
 */
import { spawn } from 'node:child_process';
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

const defaultTimeout = 5 * 60_000;

/** Runs `argv[0]` with the remaining arguments and waits for its end. Never rejects because of what the program did. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const [program, ...args] = argv;
  if (program === undefined) throw new Error('run: the argument vector is empty; name a program');
  let failure: Error | undefined;
  let timedOut = false;
  const child = spawn(program, args, {
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    shell: false,
    ...(options.env === undefined ? {} : { env: { ...process.env, ...options.env } }),
  });
  const closed = new Promise<[number | null, NodeJS.Signals | null]>((resolve) => {
    child.once('error', (error) => {
      failure = error;
      resolve([null, null]);
    });
    child.once('close', (code, signal) => resolve([code, signal]));
  });
  const timer = setTimeout(() => {
    timedOut = true;
    child.kill('SIGKILL');
  }, options.timeoutMs ?? defaultTimeout);

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
  if (child.stdin !== null && options.input !== undefined) {
    // A program that stops reading early (it found an error) closes the pipe: its exit status says why.
    child.stdin.on('error', () => child.stdin?.destroy());
    await Promise.race([feed(child.stdin, options.input), closed]);
    trace.passed(trace.inputWritten, program);
  }
  const [code, signal] = await closed;
  clearTimeout(timer);
  splitter?.end();
  if (failure !== undefined) {
    return { code: exitNotStarted, stdout, stderr: `cannot start ${program}: ${failure.message}` };
  }
  if (timedOut)
    return { code: exitTimedOut, stdout, stderr: `${stderr}${program}: killed after its time limit` };
  return { code: code ?? 128 + signalNumber(signal), stdout, stderr };
}

async function feed(stdin: Writable, input: string | Iterable<string>): Promise<void> {
  if (typeof input === 'string') {
    stdin.end(input);
    return;
  }
  for (const piece of input) {
    if (stdin.destroyed) return;
    if (!stdin.write(piece)) {
      try {
        await once(stdin, 'drain');
      } catch {
        // The pipe broke: the program's exit status, which the caller gets, says why.
        return;
      }
    }
  }
  stdin.end();
}

function lineSplitter(onLine: (line: string) => void): { push(text: string): void; end(): void } {
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
