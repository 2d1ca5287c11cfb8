/**
 * Runs a program as `run` of exec.ts does, but without a moment in which the event loop stands still: posix_spawn(3) on
 * a thread of the pool. Node forks on its own thread, and waits there until the program has been loaded: 10 to 50 ms
 * where CPUs are busy, and the more memory the process has, the longer.
 *
 * PATH is always our own.
 */
import koffi from 'koffi';
import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { getSystemErrorMap } from 'node:util';
import * as trace from '../log/trace.ts';
import {
  defaultTimeout,
  exitNotStarted,
  exitTimedOut,
  feed,
  lineSplitter,
  type RunOptions,
  type RunResult,
} from './exec.ts';
import { SystemCallError, closeDescriptor } from './ffi.ts';

const libc = koffi.load(null);
const cPipe = libc.func('int pipe2(void *ends, int flags)');
const cWaitpid = libc.func('int waitpid(int pid, void *status, int options)');
const cActionsInit = libc.func('int posix_spawn_file_actions_init(void *actions)');
const cActionsDestroy = libc.func('int posix_spawn_file_actions_destroy(void *actions)');
const cAddDup2 = libc.func('int posix_spawn_file_actions_adddup2(void *actions, int fd, int as)');
const cAddOpen = libc.func(
  'int posix_spawn_file_actions_addopen(void *actions, int fd, const char *path, int flags, uint mode)',
);
const cAttributesInit = libc.func('int posix_spawnattr_init(void *attributes)');
const cAttributesDestroy = libc.func('int posix_spawnattr_destroy(void *attributes)');
const cSetFlags = libc.func('int posix_spawnattr_setflags(void *attributes, short flags)');
const cSetDefault = libc.func('int posix_spawnattr_setsigdefault(void *attributes, void *signals)');
const cSetMask = libc.func('int posix_spawnattr_setsigmask(void *attributes, void *signals)');
const cSpawn = libc.func(
  'int posix_spawnp(void *pid, const char *file, void *actions, void *attributes, const char **argv, const char **envp)',
);

const O_CLOEXEC = 0o2000000;
const WNOHANG = 1;
const POSIX_SPAWN_SETSIGDEF = 0x04;
const POSIX_SPAWN_SETSIGMASK = 0x08;
/** posix_spawn_file_actions_t has 80 bytes, posix_spawnattr_t 336, with glibc and with musl. */
const structSize = 512;
/** sigset_t. */
const noSignals = Buffer.alloc(128);
const allSignals = Buffer.alloc(128, 0xff);

/** Milliseconds of one turn of the event loop that may go into what a program says. */
const slice = 8;
/** Milliseconds between two looks whether a program that has closed its output has ended. */
const longestPause = 50;

interface Pipe {
  readonly readEnd: number;
  readonly writeEnd: number;
}

/** As `run` of exec.ts. */
export async function runAside(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const [program] = argv;
  if (program === undefined) throw new Error('runAside: the argument vector is empty; name a program');
  const { input, onLine } = options;
  const pipes = openPipes(input === undefined ? 2 : 3);
  if (typeof pipes === 'number') return notStarted(program, nameOf(pipes));
  const [output, error, inlet] = pipes;
  const { pid, refusal } = await spawn(argv, options.env, [inlet?.readEnd, output.writeEnd, error.writeEnd]);
  for (const fd of [inlet?.readEnd, output.writeEnd, error.writeEnd])
    if (fd !== undefined) closeDescriptor(fd);
  if (refusal !== undefined) {
    for (const fd of [inlet?.writeEnd, output.readEnd, error.readEnd])
      if (fd !== undefined) closeDescriptor(fd);
    return notStarted(program, refusal);
  }
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    process.kill(pid, 'SIGKILL');
  }, options.timeoutMs ?? defaultTimeout);
  let stdout = '';
  let stderr = '';
  const splitter = onLine === undefined ? undefined : lineSplitter(onLine);
  const closed = Promise.all([
    readPipe(output.readEnd, (text) => {
      if (splitter === undefined) stdout += text;
      else splitter.push(text);
    }),
    readPipe(error.readEnd, (text) => {
      stderr += text;
    }),
  ]);
  let code: number;
  try {
    if (inlet !== undefined && input !== undefined) {
      const stdin = new Socket({ fd: inlet.writeEnd, readable: false, writable: true });
      // A program that stops reading early (it found an error) closes the pipe: its exit status says why.
      stdin.on('error', () => stdin.destroy());
      await Promise.race([feed(stdin, input), closed]);
      trace.passed(trace.inputWritten, program);
    }
  } finally {
    await closed;
    code = await exitOf(pid);
    clearTimeout(timer);
  }
  splitter?.end();
  if (timedOut)
    return { code: exitTimedOut, stdout, stderr: `${stderr}${program}: killed after its time limit` };
  return { code, stdout, stderr };
}

function notStarted(program: string, why: string): RunResult {
  return { code: exitNotStarted, stdout: '', stderr: `cannot start ${program}: ${why}` };
}

function nameOf(errno: number): string {
  return getSystemErrorMap().get(-errno)?.[0] ?? `errno ${errno}`;
}

/** pipe2(2); whoever is started inherits neither end. @returns the errno where there are no more descriptors */
function openPipes(count: 2 | 3): [Pipe, Pipe, Pipe?] | number {
  const pipes: Pipe[] = [];
  while (pipes.length < count) {
    const ends = Buffer.alloc(8);
    if ((cPipe(ends, O_CLOEXEC) as number) < 0) {
      const errno = koffi.errno();
      for (const { readEnd, writeEnd } of pipes) {
        closeDescriptor(readEnd);
        closeDescriptor(writeEnd);
      }
      return errno;
    }
    pipes.push({ readEnd: ends.readInt32LE(0), writeEnd: ends.readInt32LE(4) });
  }
  return pipes as [Pipe, Pipe, Pipe?];
}

/** Buffers in the hands of the thread pool; koffi itself keeps no reference. */
const lent = new Set<readonly Buffer[]>();

/**
 * Never rejects: `refusal` says why nothing was started.
 * @param descriptors what the program has as its 0, 1 and 2; undefined = nothing to read or write
 */
function spawn(
  argv: readonly string[],
  env: RunOptions['env'],
  descriptors: readonly (number | undefined)[],
): Promise<{ readonly pid: number; readonly refusal?: string }> {
  const actions = Buffer.alloc(structSize);
  const attributes = Buffer.alloc(structSize);
  const pid = Buffer.alloc(4);
  cActionsInit(actions);
  for (const [as, fd] of descriptors.entries()) {
    if (fd === undefined) cAddOpen(actions, as, '/dev/null', 0, 0);
    else cAddDup2(actions, fd, as);
  }
  cAttributesInit(attributes);
  // Node ignores SIGPIPE, and its threads block signals: neither is for the program.
  cSetFlags(attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  cSetDefault(attributes, allSignals);
  cSetMask(attributes, noSignals);
  const variables = Object.entries({ ...process.env, ...env }).map(([name, value]) => `${name}=${value}`);
  const buffers = [actions, attributes, pid];
  lent.add(buffers);
  return new Promise((resolve) => {
    const spawned = (error: Error | null, errno: number): void => {
      lent.delete(buffers);
      cActionsDestroy(actions);
      cAttributesDestroy(attributes);
      if (error !== null) resolve({ pid: -1, refusal: error.message });
      else if (errno !== 0) resolve({ pid: -1, refusal: nameOf(errno) });
      else resolve({ pid: pid.readInt32LE(0) });
    };
    try {
      cSpawn.async(pid, argv[0], actions, attributes, [...argv, null], [...variables, null], spawned);
    } catch (error) {
      // koffi takes no more than 256 calls at once.
      spawned(error instanceof Error ? error : new Error(String(error)), 0);
    }
  });
}

/** Hands over what comes; after a slice of time the rest waits for another turn of the event loop. */
function readPipe(fd: number, take: (text: string) => void): Promise<void> {
  const socket = new Socket({ fd, readable: true, writable: false });
  socket.setEncoding('utf8');
  let end = 0;
  socket.on('data', (chunk) => {
    // One turn reads as long as something is there.
    if (end === 0) {
      end = performance.now() + slice;
      setImmediate(() => {
        end = 0;
        socket.resume();
      });
    }
    take(chunk as unknown as string);
    if (performance.now() >= end) socket.pause();
  });
  return new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('close', () => resolve());
  });
}

/** Waits for its end (it has closed its output: that is close) and takes its exit status: 128 + n after signal n. */
async function exitOf(pid: number): Promise<number> {
  const status = Buffer.alloc(4);
  for (let pause = 1; ; pause = Math.min(2 * pause, longestPause)) {
    const found = cWaitpid(pid, status, WNOHANG) as number;
    if (found < 0) throw new SystemCallError('waitpid', koffi.errno());
    if (found === pid) {
      const signal = status.readUInt8(0) & 0x7f;
      return signal === 0 ? status.readUInt8(1) : 128 + signal;
    }
    await sleep(pause);
  }
}
