/**
 * The network namespaces of one lab: names with a prefix of their own (`pml-<pid>-<n>-`), removed when the lab closes
 * and when the process ends. What a killed process left behind is swept by the next one, which knows it by process id and
 * start time.
 */
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { CLONE_NEWNET, setNamespace } from '../../linux/ffi.ts';
import { startTime } from './startTime.ts';

const stateDirectory = '/run/pointsman-lab';
const namePattern = /^pml-(\d+)-(\d+)-/;

let own: number | undefined;
let visiting = false;

/** Runs `work` with the thread inside a namespace. `work` must be synchronous: everything else would run there too. */
function visit<T>(fd: number, work: () => T): T {
  if (visiting) throw new Error('a namespace can only be entered from outside, not from another namespace');
  own ??= openSync('/proc/self/ns/net', 'r');
  setNamespace(fd, CLONE_NEWNET);
  visiting = true;
  try {
    return work();
  } finally {
    setNamespace(own, CLONE_NEWNET);
    visiting = false;
  }
}

function ipBatch(lines: readonly string[], what: string): void {
  if (lines.length === 0) return;
  const result = spawnSync('ip', ['-batch', '-'], { input: `${lines.join('\n')}\n`, encoding: 'utf8' });
  if (result.error !== undefined) {
    throw new Error(`${what}: cannot run ip (Debian package iproute2)`, { cause: result.error });
  }
  if (result.status !== 0) throw new Error(`${what}: ip failed: ${result.stderr.trim()}`);
}

/** Removes namespaces together with the processes that still run in them. */
function removeNamespaces(names: readonly string[]): void {
  if (names.length === 0) return;
  const inodes = new Set<number>();
  for (const name of names) {
    try {
      inodes.add(statSync(`/run/netns/${name}`).ino);
    } catch {
      // Removed by somebody else meanwhile.
    }
  }
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    try {
      if (inodes.has(statSync(`/proc/${pid}/ns/net`).ino)) process.kill(Number(pid), 'SIGKILL');
    } catch {
      // It ended by itself meanwhile.
    }
  }
  spawnSync('ip', ['-force', '-batch', '-'], { input: names.map((name) => `netns del ${name}\n`).join('') });
}

function listNamespaces(): string[] {
  try {
    return readdirSync('/run/netns');
  } catch {
    return []; // The directory appears with the first namespace.
  }
}

/** Whether the process that made something still lives, and the id has not gone to another one. */
function ownerLives(pid: string): boolean {
  const started = startTime(Number(pid));
  if (started === undefined) return false;
  try {
    return readFileSync(`${stateDirectory}/${pid}.owner`, 'utf8') === started;
  } catch {
    return true; // No owner file: its process is just starting, or somebody else's; left alone.
  }
}

/** Removes the files of processes that no longer live: `PID.owner`, and `PID-N/` for each lab of theirs. */
function sweepState(): void {
  if (!existsSync(stateDirectory)) return;
  const files = readdirSync(stateDirectory);
  const owner = (file: string): string | undefined => /^(\d+)(?:\.owner|-\d+)$/.exec(file)?.[1];
  // Asked for all before any is removed: what tells whether the owner lives is among them.
  const dead = new Set(files.map(owner).filter((pid) => pid !== undefined && !ownerLives(pid)));
  for (const file of files)
    if (dead.has(owner(file) ?? '')) rmSync(`${stateDirectory}/${file}`, { recursive: true, force: true });
}

/** Removes what labs left behind whose process no longer lives; returns the names of the namespaces removed. */
export function sweepNamespaces(): string[] {
  const dead = listNamespaces().filter((name) => {
    const match = namePattern.exec(name);
    if (match === null) return false;
    return !ownerLives(match[1] ?? '');
  });
  removeNamespaces(dead);
  sweepState();
  return dead;
}

let count = 0;
let hooked = false;
const open = new Set<Namespaces>();

function hookExit(): void {
  hooked = true;
  process.on('exit', () => {
    for (const each of open) each.remove();
    rmSync(`${stateDirectory}/${process.pid}.owner`, { force: true });
  });
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    // Whoever listens already knows how to end.
    if (process.listenerCount(signal) === 0) process.once(signal, () => process.exit(code));
  }
}

/** The namespaces of one lab. Names are given without the prefix everywhere (`node-1`). */
export class Namespaces {
  readonly prefix: string;
  /** For the lab's configuration files and logs; removed together with the namespaces. */
  readonly directory: string;
  private readonly descriptors = new Map<string, number>();

  constructor() {
    if (process.getuid?.() !== 0) throw new Error('the lab makes network namespaces, which only root may do');
    mkdirSync(stateDirectory, { recursive: true });
    writeFileSync(`${stateDirectory}/${process.pid}.owner`, startTime(process.pid) ?? '');
    if (!hooked) hookExit();
    const id = `${process.pid}-${++count}`;
    this.prefix = `pml-${id}-`;
    this.directory = `${stateDirectory}/${id}`;
    mkdirSync(this.directory, { mode: 0o700 });
    open.add(this);
  }

  /** The name as `ip netns` knows it. */
  fullName(name: string): string {
    return this.prefix + name;
  }

  has(name: string): boolean {
    return this.descriptors.has(name);
  }

  names(): string[] {
    return [...this.descriptors.keys()];
  }

  /** Makes empty namespaces, with `lo` still down. */
  add(names: readonly string[]): void {
    ipBatch(
      names.map((name) => `netns add ${this.fullName(name)}`),
      'making network namespaces',
    );
    for (const name of names) {
      this.descriptors.set(name, openSync(`/run/netns/${this.fullName(name)}`, 'r'));
    }
  }

  /** Runs synchronous work inside a namespace. */
  enter<T>(name: string, work: () => T): T {
    const fd = this.descriptors.get(name);
    if (fd === undefined)
      throw new Error(`the lab has no namespace "${name}"; it has ${this.names().join(', ')}`);
    return visit(fd, work);
  }

  /** Runs the lines through one `ip -batch` inside the namespace; throws with ip's own words. */
  ip(name: string, lines: readonly string[]): void {
    this.enter(name, () => ipBatch(lines, `setting up the network of ${name}`));
  }

  /** Writes sysctls (`net/ipv4/ip_forward`); those this kernel does not have are skipped where `optional`. */
  sysctl(name: string, values: Readonly<Record<string, string>>, optional = false): void {
    this.enter(name, () => {
      for (const [key, value] of Object.entries(values)) {
        try {
          writeFileSync(`/proc/sys/${key}`, value);
        } catch (error) {
          if (!optional) throw new Error(`${name}: cannot set the sysctl ${key}`, { cause: error });
        }
      }
    });
  }

  /** The argument vector that runs a program inside the namespace and ends it when this process dies. */
  command(name: string, argv: readonly string[]): string[] {
    return ['setpriv', '--pdeathsig', 'KILL', 'ip', 'netns', 'exec', this.fullName(name), ...argv];
  }

  /** Runs a program inside the namespace to its end. */
  run(
    name: string,
    argv: readonly string[],
    options: { readonly env?: NodeJS.ProcessEnv; readonly input?: string } = {},
  ): { readonly status: number; readonly stdout: string; readonly stderr: string } {
    const [program = '', ...rest] = argv;
    const result = this.enter(name, () =>
      spawnSync(program, rest, { encoding: 'utf8', maxBuffer: 1 << 30, ...options }),
    );
    if (result.error !== undefined)
      throw new Error(`${name}: cannot run ${program}`, { cause: result.error });
    return { status: result.status ?? 255, stdout: result.stdout, stderr: result.stderr };
  }

  /** Removes one namespace and ends what runs in it. */
  removeOne(name: string): void {
    const fd = this.descriptors.get(name);
    if (fd === undefined) return;
    this.descriptors.delete(name);
    closeSync(fd);
    removeNamespaces([this.fullName(name)]);
  }

  /** Removes all of them, and ends what runs in them. Safe to call twice. */
  remove(): void {
    open.delete(this);
    const names = this.names();
    for (const fd of this.descriptors.values()) closeSync(fd);
    this.descriptors.clear();
    removeNamespaces(names.map((name) => this.fullName(name)));
    rmSync(this.directory, { recursive: true, force: true });
  }
}
