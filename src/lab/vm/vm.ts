/** Runs commands in a guest kernel with IPVS; see README.md beside this file. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export type VmEngine = 'uml' | 'tcg';

export interface VmOptions {
  /** Undefined: user-mode Linux, or QEMU if that does not come up. */
  readonly engine?: VmEngine;
  /** Seconds, from the guest's being up. Default 900. */
  readonly timeout?: number;
  /** MiB of memory. Default 2048. */
  readonly memory?: number;
  /** Directories in which what the guest writes stays. */
  readonly writable?: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  /** Called with output as it comes. */
  readonly onOutput?: (text: string) => void;
}

export interface VmResult {
  /** The command's exit code; 124: the time was up; 125: no guest came up, or it died. */
  readonly code: number;
  /** What the command wrote, both streams. */
  readonly output: string;
  /** What the runner said: progress of preparing, and why there is no guest. */
  readonly said: string;
}

const checkout = fileURLToPath(new URL('../../..', import.meta.url));

/** Boots a guest, runs one command in it as root over this machine's files, and waits for the guest's end. */
export function runInVm(argv: readonly string[], options: VmOptions = {}): Promise<VmResult> {
  const { engine, timeout, memory, writable = [], onOutput } = options;
  const flags = [
    ...(engine === undefined ? [] : ['--engine', engine]),
    ...(timeout === undefined ? [] : ['--timeout', String(timeout)]),
    ...(memory === undefined ? [] : ['--memory', String(memory)]),
    ...writable.flatMap((directory) => ['--writable', directory]),
  ];
  return new Promise((resolve, reject) => {
    const child = spawn(`${checkout}/scripts/vm-run.sh`, [...flags, '--', ...argv], {
      cwd: options.cwd ?? checkout,
      env: options.env ?? process.env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    let said = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      onOutput?.(text);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      process.stderr.write(text);
    });
    child.once('error', (error) => reject(new Error('scripts/vm-run.sh does not start', { cause: error })));
    child.once('close', (code) => resolve({ code: code ?? 125, output, said }));
  });
}
