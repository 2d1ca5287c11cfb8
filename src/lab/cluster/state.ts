/** What a lab in the background leaves for the commands that talk to it: a directory with its state, below /run. */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startTime } from '../net/namespaces.ts';

const labDirectory = '/run/pointsman-lab/up';
const stateFile = join(labDirectory, 'state.json');
export const daemonLog = join(labDirectory, 'lab.log');

export interface LabState {
  readonly pid: number;
  /** What the namespaces' names begin with. */
  readonly prefix: string;
  readonly nodes: readonly string[];
  readonly mode: string;
  readonly podNetwork: string;
  /** Logs and configuration. */
  readonly directory: string;
  readonly kubeconfig: string;
}

/** The running lab's state; undefined if there is none. */
export function readState(): LabState | undefined {
  if (!existsSync(stateFile)) return undefined;
  const state = JSON.parse(readFileSync(stateFile, 'utf8')) as LabState;
  return startTime(state.pid) === undefined ? undefined : state;
}

export function clearState(): void {
  rmSync(labDirectory, { recursive: true, force: true });
}

export function makeDirectory(): void {
  clearState();
  mkdirSync(labDirectory, { recursive: true, mode: 0o700 });
}

/** Written in one go, because others wait for it. */
export function writeState(state: LabState): void {
  writeFileSync(`${stateFile}.new`, JSON.stringify(state));
  renameSync(`${stateFile}.new`, stateFile);
}
